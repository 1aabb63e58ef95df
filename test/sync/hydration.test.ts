import { rmSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import { Database } from '../../server/postgres/database.ts'
import { floorOf, pruneLog } from '../../server/sync/retention.ts'
import { AgentDB } from '../../src/index.ts'
import { internalsOf } from '../../src/internal-for-sync.ts'
import type { Outcome, Progress } from '../../sync/index.ts'
import { SyncEngine } from '../../sync/client/sync-engine.ts'
import { HttpTransport, type Transport } from '../../sync/client/transport.ts'
import type { PullResponse } from '../../sync/protocol/messages.ts'
import { createUser, startCentre, type Centre, type TestUser } from '../support/centre.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'

let database: TestDatabase
let centre: Centre
let user: TestUser
let folder: string

beforeEach(async () => {
  database = await createDatabase(inject('postgresUrl'), 'hydration')
  centre = await startCentre({ databaseUrl: database.url })
  user = await createUser(centre)
  folder = mkdtempSync(join(tmpdir(), 'agentdb-hydration-'))
})
afterEach(async () => {
  await centre[Symbol.asyncDispose]()
  await database.drop()
  rmSync(folder, { recursive: true, force: true })
})

/** A conversation with so many messages, made at the centre. */
async function conversationWith(messages: number): Promise<string> {
  const id = newId()
  await centre.db
    .insertInto('conversations')
    .values({ id, user_id: user.id, title: 'long' })
    .execute()
  await sql`INSERT INTO messages (conversation_id, sequence_number, role, content, tokens_used)
    SELECT ${id}::uuid, n, 'user', 'message ' || n, 1 FROM generate_series(1, ${messages}::integer) n`.execute(
    centre.db,
  )
  return id
}

interface Agent extends AsyncDisposable {
  readonly db: AgentDB
  readonly engine: SyncEngine
  readonly pages: PullResponse[]
  readonly pushes: number[]
  readonly progress: Progress[]
  readonly outcomes: Outcome[]
}

/** A store whose pulls can be looked at, and held up or broken, one by one. */
async function open(
  name: string,
  onPage: (page: PullResponse, n: number) => Promise<void> | void = () => undefined,
): Promise<Agent> {
  const db = await AgentDB.open({ path: join(folder, `${name}.db`), userId: user.id })
  const token = await centre.server.issueToken({ userId: user.id, agentId: db.agentId })
  const wire = new HttpTransport(centre.url, token)
  const pages: PullResponse[] = []
  const pushes: number[] = []
  const transport: Transport = {
    push: (request, signal) => {
      pushes.push(pages.length)
      return wire.push(request, signal)
    },
    introduce: (request, signal) => wire.introduce(request, signal),
    heal: (request, signal) => wire.heal(request, signal),
    checksum: (signal) => wire.checksum(signal),
    pull: async (parameters, signal) => {
      const page = await wire.pull(parameters, signal)
      await onPage(page, pages.length)
      pages.push(page)
      return page
    },
  }
  const engine = new SyncEngine({
    ...internalsOf(db),
    transport,
    random: Math.random,
    checkToken: async () => undefined,
    pullWaitMs: 1000,
    retryMinMs: 10,
    retryMaxMs: 50,
  })
  const progress: Progress[] = []
  const outcomes: Outcome[] = []
  engine.on('progress', (event) => progress.push(event))
  engine.on('outcome', (event) => outcomes.push(event))
  const dispose = async (): Promise<void> => {
    await engine.close()
    await db.close()
  }
  return { db, engine, pages, pushes, progress, outcomes, [Symbol.asyncDispose]: dispose }
}

async function mustEqualCentre({ engine }: Agent): Promise<void> {
  const { local, central } = await engine.checksums()
  expect(local.tables).toEqual(central.tables)
}

const count = (agent: Agent, table: string): number =>
  internalsOf(agent.db).connection.get<{ n: number }>(`SELECT count(*) AS n FROM ${table}`)?.n ?? -1

describe('a new store', () => {
  test('takes in a large scope page by page, and tells how far it is', async () => {
    await conversationWith(12_000)
    await using agent = await open('new')
    expect(agent.engine.status().hydrating).toBe(true)
    await agent.engine.now()
    expect(agent.engine.status().hydrating).toBe(false)
    expect(agent.pages.length).toBeGreaterThanOrEqual(3)
    expect(agent.pages.map(({ page }) => page?.first)).toEqual(agent.pages.map((_, n) => n === 0))
    const rows = agent.progress.map((event) => event.rows)
    expect(rows).toEqual(rows.toSorted((a, b) => a - b))
    expect(agent.progress.at(-1)).toMatchObject({ done: true, reason: 'new' })
    expect(agent.progress.at(-1)?.rows).toBe(agent.progress.at(-1)?.total)
    expect(agent.db.messages.list({ limit: 1 })).toHaveLength(1)
    await mustEqualCentre(agent)
  })

  test('reads the rows of many parents and of large ones once each, wherever a page ends', async () => {
    const other = await createUser(centre)
    const sizes = Array.from({ length: 60 }, (_, n) => [0, 1, 7, 130, 5200][n % 5] ?? 0)
    await sql`WITH made AS (
        INSERT INTO conversations (id, user_id, title)
        SELECT gen_random_uuid(), CASE WHEN n % 2 = 0 THEN ${user.id}::uuid ELSE ${other.id}::uuid END, n::text
        FROM generate_series(0, 59) n RETURNING id, title)
      INSERT INTO messages (conversation_id, sequence_number, role, content)
      SELECT id, n, 'user', 'x' FROM made, generate_series(1, (${sizes}::integer[])[title::integer + 1]) n`.execute(
      centre.db,
    )
    await using agent = await open('many parents')
    await agent.engine.now()
    const read = agent.pages.flatMap(({ shapes, rows }) =>
      rows.filter(([shape]) => shapes[shape]?.table === 4).map(([, [id]]) => id),
    )
    const own = sizes.filter((_, n) => n % 2 === 0).reduce((sum, size) => sum + size, 0)
    expect(agent.pages.length).toBeGreaterThan(3)
    expect(read).toHaveLength(own)
    expect(new Set(read).size).toBe(own)
    await mustEqualCentre(agent)
  })

  test('lets the program run between slices of a page', async () => {
    await conversationWith(4000)
    await using agent = await open('sliced')
    const seen = new Set<number>()
    const watch = setInterval(() => seen.add(count(agent, 'messages')), 1)
    await agent.engine.now()
    clearInterval(watch)
    expect([...seen].filter((n) => n > 0 && n < 4000).length).toBeGreaterThan(3)
    await mustEqualCentre(agent)
  })

  test('is right about what changes, comes and goes at the centre while it reads', async () => {
    const id = await conversationWith(11_000)
    await using agent = await open('moving', async (_page, n) => {
      if (n > 2) return
      // Of pages that were read and of pages that were not, at the start and at the end of the table.
      for (const order of ['ASC', 'DESC']) {
        const pick = (offset: number) =>
          sql`(SELECT id FROM messages WHERE conversation_id = ${id}::uuid ORDER BY id ${sql.raw(order)} OFFSET ${offset} LIMIT 5)`
        await sql`UPDATE messages SET content = ${`changed on page ${n}`} WHERE id IN ${pick(10)}`.execute(
          centre.db,
        )
        await sql`DELETE FROM messages WHERE id IN ${pick(20)}`.execute(centre.db)
      }
      await conversationWith(7)
    })
    await agent.engine.now()
    expect(agent.pages.length).toBeGreaterThanOrEqual(3)
    await mustEqualCentre(agent)
  })

  test('that is interrupted goes on from the page it had', async () => {
    await conversationWith(16_000)
    {
      await using agent = await open('broken', (_page, n) => {
        if (n === 2) throw new Error('the process ends here')
      })
      await expect(agent.engine.now()).rejects.toThrow('the process ends here')
      expect(agent.engine.status()).toMatchObject({ hydrating: true, position: 0 })
    }
    await using agent = await open('broken')
    await agent.engine.now()
    expect(agent.pages[0]?.page).toMatchObject({ first: false })
    expect(agent.pages[0]?.page?.rows).toBeGreaterThan(10_000)
    await mustEqualCentre(agent)
  })

  test('that is cut off between two pages, since the sync is closed, is not told to be done', async () => {
    await conversationWith(16_000)
    for (const asks of ['now', 'checksums'] as const) {
      let closing: Promise<void> | undefined
      await using agent: Agent = await open(`closed-${asks}`, (_page, n) => {
        if (n === 1) closing = agent.engine.close()
      })
      await expect(agent.engine[asks]()).rejects.toMatchObject({ code: 'SYNC_STOPPED' })
      await closing
      expect(agent.engine.status()).toMatchObject({ state: 'closed', hydrating: true })
    }
  })

  test('that ends between two slices of its first page reads that page again', async () => {
    await conversationWith(4000)
    {
      await using agent = await open('cut')
      // As a process leaves it that dies here: some slices are in, the others never come.
      let ended: Promise<void> | undefined
      agent.engine.on('change', () => void (ended ??= agent.db.close()))
      await expect(agent.engine.now()).rejects.toMatchObject({ code: 'STORE_CLOSED' })
      await ended
    }
    await using agent = await open('cut')
    const some = count(agent, 'messages')
    expect(some).toBeLessThan(4000)
    await agent.engine.now()
    expect(count(agent, 'messages')).toBe(4000)
    await mustEqualCentre(agent)
  })
})

describe('work done while the scope is read', () => {
  test('stays visible, is sent only when it is whole, and ends in its outcome', async () => {
    const id = await conversationWith(12_000)
    const written: string[] = []
    await using agent: Agent = await open('busy', (_page, n) => {
      if (n === 0) written.push(agent.db.conversations.create({ title: 'mine' }).id)
      if (n === 2)
        written.push(
          agent.db.messages.create({ conversation_id: id, role: 'user', content: 'x' }).id,
        )
    })
    const before = agent.db.conversations.create({ title: 'before the first contact' })
    await agent.engine.now()
    const last = agent.pages.findIndex(({ page }) => page?.last === true)
    expect(agent.pushes.every((page) => page > last)).toBe(true)
    for (const conversation of [before.id, written[0] ?? ''])
      expect(agent.db.conversations.find(conversation)).toBeDefined()
    expect(agent.db.messages.find(written[1] ?? '')).toBeDefined()
    await mustEqualCentre(agent)
    expect(agent.engine.status().pending).toBe(0)
  })
})

/** Drops all of the log that nobody who is at the head needs. */
async function pruneAll(aheadMs = 60_000): Promise<void> {
  const direct = await Database.open({ url: database.url, folder: undefined, connectionsMax: 2 })
  try {
    await pruneLog(direct, new Date(Date.now() + aheadMs))
  } finally {
    await direct.close()
  }
}

const direct = (): Promise<Database> =>
  Database.open({ url: database.url, folder: undefined, connectionsMax: 2 })

describe('a store that was away for longer than the log', () => {
  test('is told of the values that lost meanwhile', async () => {
    const id = await conversationWith(0)
    await using away = await open('away')
    await using other = await open('other')
    await Promise.all([away.engine.now(), other.engine.now()])
    away.db.conversations.update(id, { title: 'first' })
    other.db.conversations.update(id, { title: 'second' })
    await away.engine.now()
    // The later clock wins over a value that its writer had not seen.
    await other.engine.now()
    // So far ahead that the partition of today is over, too.
    await pruneAll(400 * 86_400_000)
    const port = Number(new URL(centre.url).port)
    await centre[Symbol.asyncDispose]()
    centre = await startCentre({ databaseUrl: database.url, port })

    await away.engine.now()
    expect(away.pages.some(({ page }) => page?.reason === 'history_pruned')).toBe(true)
    expect(away.db.syncConflicts.list()).toMatchObject([
      {
        state: 'overwritten',
        table: 'conversations',
        rowId: id,
        mine: { title: 'first' },
        theirs: { title: 'second' },
      },
    ])
  })

  test('reads its scope again, loses what is gone, and resurrects nothing', async () => {
    const kept = await conversationWith(3)
    const doomed = await conversationWith(3)
    await using agent = await open('away')
    await agent.engine.now()

    // Away: what it does, and what happens at the centre meanwhile.
    agent.db.conversations.update(doomed, { title: 'edited offline' })
    const child = agent.db.messages.create({ conversation_id: doomed, role: 'user', content: 'x' })
    const own = agent.db.messages.create({ conversation_id: kept, role: 'user', content: 'mine' })
    await centre.db.deleteFrom('conversations').where('id', '=', doomed).execute()
    await sql`UPDATE messages SET content = 'rewritten' WHERE conversation_id = ${kept}::uuid`.execute(
      centre.db,
    )
    await using other = await open('other')
    await other.engine.now()
    await pruneAll()
    // Past the memory of the server, which is all that is left of the log.
    const port = Number(new URL(centre.url).port)
    await centre[Symbol.asyncDispose]()
    centre = await startCentre({ databaseUrl: database.url, port })

    await agent.engine.now()
    expect(agent.pages.some(({ page }) => page?.reason === 'history_pruned')).toBe(true)
    expect(agent.db.conversations.find(doomed)).toBeUndefined()
    expect(agent.db.messages.find(child.id)).toBeUndefined()
    expect(agent.db.messages.find(own.id)?.content).toBe('mine')
    expect(
      await centre.db.selectFrom('conversations').select('id').where('id', '=', doomed).execute(),
    ).toEqual([])
    const ends = agent.outcomes.filter(({ kind }) => kind !== 'applied').map(({ reason }) => reason)
    expect(ends).toEqual(['deleted', 'deleted'])
    await mustEqualCentre(agent)
  })
})

describe('the log', () => {
  test('keeps what a transaction that ran long wrote above the floor, and one batch a minute as base', async () => {
    await using db = { value: await direct(), [Symbol.asyncDispose]: () => db.value.close() }
    const { value } = db
    await sql`SELECT sync.ensure_log_partitions(0)`.execute(centre.db)
    await conversationWith(1)
    await using agent = await open('base')
    await agent.engine.now()
    for (let n = 0; n < 5; n++) {
      await conversationWith(1)
      await agent.engine.now()
    }
    const before = await value.query<{ n: number }>('SELECT count(*)::integer AS n FROM sync.batch')
    let release = (): void => undefined
    const released = new Promise<void>((done) => (release = done))
    let long: Promise<void> | undefined
    await new Promise<void>((begun) => {
      long = value.transaction(async (session) => {
        await session.query(`UPDATE conversations SET title = 'late'`)
        begun()
        await released
      })
    })
    const pruned = await pruneLog(value, new Date(Date.now() + 8 * 24 * 3_600_000))
    expect(pruned.floor).toBe(agent.engine.status().position)
    expect(pruned.batches).toBeGreaterThan(0)
    const after = await value.query<{ n: number }>('SELECT count(*)::integer AS n FROM sync.batch')
    expect(after.rows[0]?.n).toBe((before.rows[0]?.n ?? 0) - pruned.batches)
    release()
    await long
    await agent.engine.now()
    expect(agent.db.conversations.list().every(({ title }) => title === 'late')).toBe(true)
    expect(await floorOf(value)).toBe(pruned.floor)
    await mustEqualCentre(agent)
  })

  test('that is pruned under a first sync begins it anew', async () => {
    await conversationWith(12_000)
    await using agent = await open('overtaken', async (_page, n) => {
      if (n !== 0) return
      await conversationWith(1)
      await using other = await open('overtaker')
      await other.engine.now()
      await pruneAll()
    })
    await agent.engine.now()
    expect(agent.pages.filter(({ page }) => page?.first).length).toBe(2)
    await mustEqualCentre(agent)
  })
})
