import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import type { Database } from '../../server/postgres/database.ts'
import { readLog } from '../../server/sync/log-entry.ts'
import { LogTail } from '../../server/sync/log-tail.ts'
import { advance, latestBatch } from '../../server/sync/positions.ts'
import { isVisible, parseSnapshot } from '../../sync/merge/snapshot.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import {
  BatchReader,
  captureFromTransitionTable,
  divergence,
  divergenceOf,
  HorizonSequencerReader,
  openCentralDatabase,
  SequenceCursorReader,
  snapshotOfTables,
  type LogReader,
  type Replica,
} from '../support/log-readers.ts'

/** The advisory lock of positions.ts; a test that waits for it fails if it is another. */
const BATCH_LOCK = 7_203_952

interface Scratch extends AsyncDisposable {
  readonly database: Database
  readonly url: string
  /** A connection whose transaction the test holds in its hands. */
  readonly session: () => Promise<Client>
}

async function scratch(): Promise<Scratch> {
  const created: TestDatabase = await createDatabase(inject('postgresUrl'), 'order')
  const database = await openCentralDatabase(created.url)
  const sessions: Client[] = []
  return {
    database,
    url: created.url,
    async session() {
      const client = new Client({ connectionString: created.url })
      await client.connect()
      sessions.push(client)
      return client
    },
    async [Symbol.asyncDispose]() {
      for (const client of sessions) await client.end()
      await database.close()
      await created.drop()
    },
  }
}

const insertIncident = (client: Client, id: string): Promise<unknown> =>
  client.query(
    `INSERT INTO incidents (id, title, severity, source) VALUES ($1, 'first', 'low', 'test')`,
    [id],
  )

const retitle = (client: Client, id: string, title: string): Promise<unknown> =>
  client.query('UPDATE incidents SET title = $2 WHERE id = $1', [id, title])

/** Begins and takes its transaction id now, so that ids are older or younger as the test says. */
async function beginWithXid(client: Client): Promise<bigint> {
  await client.query('BEGIN')
  const { rows } = await client.query<{ xid: string }>('SELECT pg_current_xact_id()::text AS xid')
  return BigInt(rows[0]?.xid ?? 0)
}

/**
 * T1, the older transaction, draws seq 2 and commits while T2, the younger, holds seq 1 open.
 */
async function youngerHoldsTheLowerSeq({ session }: Scratch, reader: LogReader): Promise<string> {
  const [t1, t2] = [await session(), await session()]
  const [late, early] = [newId(), newId()]
  await reader.read()
  const older = await beginWithXid(t1)
  const younger = await beginWithXid(t2)
  expect(older).toBeLessThan(younger)
  await insertIncident(t2, early)
  await insertIncident(t1, late)
  await t1.query('COMMIT')
  await reader.read()
  await t2.query('COMMIT')
  await reader.read()
  return early
}

/**
 * Ids T1 < T0 < T2. T2 writes a row and commits, T1 writes it and commits, T0 stays open meanwhile.
 */
async function olderWritesTheRowLast({ session }: Scratch, reader: LogReader): Promise<string> {
  const [t0, t1, t2] = [await session(), await session(), await session()]
  const [row, other] = [newId(), newId()]
  await insertIncident(t0, row)
  await insertIncident(t0, other)
  await reader.read()
  const x1 = await beginWithXid(t1)
  const x0 = await beginWithXid(t0)
  const x2 = await beginWithXid(t2)
  expect(x1 < x0 && x0 < x2).toBe(true)
  await retitle(t2, row, 'older value')
  await retitle(t2, other, 'only value')
  await t2.query('COMMIT')
  await retitle(t1, row, 'newer value')
  await t1.query('COMMIT')
  await reader.read()
  await t0.query('COMMIT')
  await reader.read()
  return row
}

/** One statement writes a message, whose trigger changes the conversation that the statement changes, too. */
async function nestedStatement(
  { session, database }: Scratch,
  reader: LogReader,
): Promise<{ conversation: string; served: unknown }> {
  const client = await session()
  const [user, conversation] = [newId(), newId()]
  await client.query(
    `INSERT INTO users (id, email, username, password_hash) VALUES ($1, 'a@example.org', 'abc', 'x')`,
    [user],
  )
  await client.query(`INSERT INTO conversations (id, user_id, title) VALUES ($1, $2, 'before')`, [
    conversation,
    user,
  ])
  await reader.read()
  await client.query(
    `WITH m AS (INSERT INTO messages (conversation_id, role, content, sequence_number, tokens_used)
      VALUES ($1, 'user', 'hello', 1, 7) RETURNING conversation_id)
    UPDATE conversations c SET title = 'after' FROM m WHERE c.id = m.conversation_id`,
    [conversation],
  )
  await reader.read()
  const { rows } = await database.query<{ message_count: number; title: string }>(
    'SELECT message_count, title FROM conversations WHERE id = $1',
    [conversation],
  )
  expect(rows).toEqual([{ message_count: 1, title: 'after' }])
  return { conversation, served: reader.replica.get(`conversations:${conversation}`) }
}

describe('the order in which commits are served', () => {
  test('a row whose transaction draws a lower number and commits later is served', async () => {
    await using centre = await scratch()
    const reader = new BatchReader(centre.database)
    await youngerHoldsTheLowerSeq(centre, reader)
    expect(reader.replica.size).toBe(2)
    expect(await divergenceOf(centre.database, reader, ['incidents'])).toEqual([])
  })

  test('of two writers of a row the one that committed last is served last, whatever is open', async () => {
    await using centre = await scratch()
    const reader = new BatchReader(centre.database)
    const row = await olderWritesTheRowLast(centre, reader)
    expect(reader.replica.get(`incidents:${row}`)).toMatchObject({ title: 'newer value' })
    expect(await divergenceOf(centre.database, reader, ['incidents'])).toEqual([])
  })

  test('a statement that changes a row also through the trigger of another serves the row as it is', async () => {
    await using centre = await scratch()
    const reader = new BatchReader(centre.database)
    const { served } = await nestedStatement(centre, reader)
    expect(served).toMatchObject({ message_count: 1, total_tokens: 7, title: 'after' })
    const diverged = await divergenceOf(centre.database, reader, ['conversations', 'messages'])
    expect(diverged).toEqual([])
  })

  test('what an open transaction wrote stalls nobody and is served whole when it commits', async () => {
    await using centre = await scratch()
    const reader = new BatchReader(centre.database)
    await reader.read()
    const [open, quick] = [await centre.session(), await centre.session()]
    const ids = [newId(), newId(), newId()] as const
    await beginWithXid(open)
    await insertIncident(open, ids[0])
    await insertIncident(quick, ids[1])
    await reader.read()
    expect([...reader.replica.keys()]).toEqual([`incidents:${ids[1]}`])
    await insertIncident(open, ids[2])
    await reader.read()
    expect(reader.replica.size).toBe(1)
    await open.query('COMMIT')
    await reader.read()
    expect(reader.replica.size).toBe(3)
  })

  test('a rolled back transaction is never served', async () => {
    await using centre = await scratch()
    const reader = new BatchReader(centre.database)
    await reader.read()
    const client = await centre.session()
    await client.query('BEGIN')
    await insertIncident(client, newId())
    await client.query('ROLLBACK')
    await insertIncident(client, newId())
    await reader.read()
    expect(reader.replica.size).toBe(1)
    expect(await divergenceOf(centre.database, reader, ['incidents'])).toEqual([])
  })
})

/** The checker and the interleavings above must find what they are there to find. */
describe('the checker reports a centre that is built wrong:', () => {
  test('a cursor over the sequence under a horizon loses a row of the first interleaving', async () => {
    await using centre = await scratch()
    const reader = new SequenceCursorReader(centre.database)
    const lost = await youngerHoldsTheLowerSeq(centre, reader)
    expect(await divergenceOf(centre.database, reader, ['incidents'])).toEqual([
      { row: `incidents:${lost}`, what: 'never served' },
    ])
  })

  test('a cursor over the sequence under a horizon loses a change of the second interleaving', async () => {
    await using centre = await scratch()
    const reader = new SequenceCursorReader(centre.database)
    await olderWritesTheRowLast(centre, reader)
    const found = await divergenceOf(centre.database, reader, ['incidents'])
    expect(found.map(({ what }) => what)).toEqual(['another image was served last'])
  })

  test('a sequencer over the horizon serves the older value last', async () => {
    await using centre = await scratch()
    const reader = new HorizonSequencerReader(centre.database)
    const row = await olderWritesTheRowLast(centre, reader)
    expect(reader.replica.get(`incidents:${row}`)).toMatchObject({ title: 'older value' })
    expect(await divergenceOf(centre.database, reader, ['incidents'])).toEqual([
      { row: `incidents:${row}`, what: 'another image was served last' },
    ])
  })

  test('images of the transition table serve the count from before the trigger last', async () => {
    await using centre = await scratch()
    await captureFromTransitionTable(centre.database, 'conversations')
    const reader = new BatchReader(centre.database)
    const { conversation, served } = await nestedStatement(centre, reader)
    expect(served).toMatchObject({ message_count: 0 })
    expect(await divergenceOf(centre.database, reader, ['conversations', 'messages'])).toEqual([
      { row: `conversations:${conversation}`, what: 'another image was served last' },
    ])
  })
})

/** Everything that a snapshot shows, the next one shows, too. */
function wentBack(snapshots: readonly string[]): string[] {
  const parsed = snapshots.map(parseSnapshot)
  return parsed.flatMap((next, i) => {
    const before = parsed[i - 1]
    if (before === undefined) return []
    const hidden = [...next.running].filter((xid) => isVisible(xid, before))
    return next.xmax < before.xmax || hidden.length > 0
      ? [`${snapshots[i - 1]} then ${snapshots[i]}`]
      : []
  })
}

const batchSnapshots = async (database: Database): Promise<string[]> => {
  const { rows } = await database.query<{ snapshot: string }>(
    'SELECT snapshot::text AS snapshot FROM sync.batch ORDER BY position',
  )
  return rows.map(({ snapshot }) => snapshot)
}

/** Resolves when somebody waits for the lock under which batches are made. */
async function untilSomeoneWaits(client: Client): Promise<void> {
  for (;;) {
    const { rows } = await client.query(
      `SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = $1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
      [BATCH_LOCK],
    )
    if (rows.length > 0) return
  }
}

/**
 * Somebody asks for a batch and must wait for another's turn; meanwhile a row is committed, and the other makes a batch
 * that holds it. What the one who waited makes must hold it, too.
 */
async function waitForTurn(centre: Scratch, ask: () => Promise<unknown>): Promise<string[]> {
  await advance(centre.database, true)
  const [other, writer] = [await centre.session(), await centre.session()]
  await other.query('BEGIN')
  await other.query('SELECT pg_advisory_xact_lock($1)', [BATCH_LOCK])
  const asked = ask()
  await untilSomeoneWaits(writer)
  await insertIncident(writer, newId())
  await other.query(
    `INSERT INTO sync.batch (position, snapshot, nonce)
    SELECT max(position) + 1, pg_current_snapshot(), max(nonce::text)::uuid FROM sync.batch`,
  )
  // New work, so that there is something to make a batch of.
  await insertIncident(writer, newId())
  await other.query('COMMIT')
  await asked
  return batchSnapshots(centre.database)
}

describe('positions', () => {
  test('a batch that waited for its turn holds a snapshot of after its turn came', async () => {
    await using centre = await scratch()
    const snapshots = await waitForTurn(centre, () => advance(centre.database, true))
    expect(snapshots).toHaveLength(3)
    expect(wentBack(snapshots)).toEqual([])
    const before = await latestBatch(centre.database)
    expect(await advance(centre.database, true)).toBeUndefined()
    expect(await latestBatch(centre.database)).toEqual(before)
  })

  test('the checker reports a lock and a snapshot that are taken in one statement', async () => {
    await using centre = await scratch()
    const snapshots = await waitForTurn(centre, () =>
      centre.database.query(
        `WITH turn AS MATERIALIZED (SELECT pg_advisory_xact_lock($1))
        INSERT INTO sync.batch (position, snapshot, nonce)
        SELECT 3, pg_current_snapshot(), (SELECT nonce FROM sync.history) FROM turn`,
        [BATCH_LOCK],
      ),
    )
    expect(wentBack(snapshots)).toHaveLength(1)
  })

  test('several servers that make batches at once never make one that holds less than the last', async () => {
    await using centre = await scratch()
    await using second = await openSecond(centre)
    const clients = await Promise.all([1, 2, 3, 4].map(() => centre.session()))
    const work = new AbortController()
    const writers = clients.map(async (client) => {
      for (let i = 0; i < 60; i++) {
        await client.query('BEGIN')
        await insertIncident(client, newId())
        await client.query('SELECT pg_sleep($1)', [Math.random() * 0.01])
        await client.query('COMMIT')
      }
    })
    const makers = [centre.database, second.database, centre.database, second.database].map(
      async (database, i) => {
        while (!work.signal.aborted) await advance(database, i < 2)
      },
    )
    await Promise.all(writers)
    work.abort()
    await Promise.all(makers)
    const snapshots = await batchSnapshots(centre.database)
    expect(snapshots.length).toBeGreaterThan(5)
    expect(wentBack(snapshots)).toEqual([])
  })

  test('a batch is made only when something is new', async () => {
    await using centre = await scratch()
    const first = await advance(centre.database, false)
    expect(first?.position).toBe(1)
    expect(await advance(centre.database, false)).toBeUndefined()
    const client = await centre.session()
    await insertIncident(client, newId())
    expect((await advance(centre.database, false))?.position).toBe(2)
  })
})

async function openSecond({ url }: Scratch): Promise<{ database: Database } & AsyncDisposable> {
  const database = await openCentralDatabase(url, 4)
  return { database, [Symbol.asyncDispose]: () => database.close() }
}

const STRESS_MS = 8000
/** However slow the machine: what less than this shows is nothing. */
const STRESS_COMMITS_MIN = 100
const STRESS_OVERLAPS_MIN = 10
const STRESS_WRITERS = 8
const STRESS_ROWS = 30
const stressTables = ['incidents', 'conversations', 'messages'] as const

describe('writers of random length on the same rows', () => {
  let centre: Scratch
  let ids: string[]
  let conversations: string[]

  beforeAll(async () => {
    centre = await scratch()
    const client = await centre.session()
    ids = Array.from({ length: STRESS_ROWS }, newId)
    conversations = Array.from({ length: 5 }, newId)
    const user = newId()
    await client.query(
      `INSERT INTO users (id, email, username, password_hash) VALUES ($1, 'a@example.org', 'abc', 'x')`,
      [user],
    )
    // Before the first position, so that no replica gets them but through a change.
    for (const id of ids) await insertIncident(client, id)
    for (const id of conversations)
      await client.query('INSERT INTO conversations (id, user_id) VALUES ($1, $2)', [id, user])
  })

  afterAll(async () => {
    await centre[Symbol.asyncDispose]()
  })

  test('are served complete, whole, and never back, to the tail and to any span of the log', async () => {
    const until = performance.now() + STRESS_MS
    const tail = new TailFollower(new LogTail(centre.database, 50))
    const spans = new SpanFollower(centre.database)
    await tail.follow()
    await spans.follow()
    const work = new AbortController()
    let commits = 0
    const isOver = (): boolean =>
      performance.now() > until &&
      commits >= STRESS_COMMITS_MIN &&
      spans.overlapping >= STRESS_OVERLAPS_MIN
    const writers = Array.from({ length: STRESS_WRITERS }, () =>
      writeUntil(isOver, () => commits++),
    )
    const followers = [tail, spans].map(async (follower) => {
      while (!work.signal.aborted) await follower.follow()
    })
    await Promise.all(writers)
    work.abort()
    await Promise.all(followers)
    await tail.follow()
    await spans.follow()

    expect(spans.problems).toEqual([])
    expect(tail.problems).toEqual([])
    const { tables } = await snapshotOfTables(centre.database, stressTables)
    const touched = new Map([...tables].filter(([row]) => isChanged(row, tables)))
    expect(touched.size).toBeGreaterThan(STRESS_ROWS)
    expect(divergence(tail.replica, touched)).toEqual([])
    await tail.close()
  })

  /** Rows of the beginning that nobody changed were never in the log's span. */
  const isChanged = (row: string, tables: Replica): boolean =>
    versionOf(row, tables.get(row)) > 0 || row.startsWith('messages:')

  async function writeUntil(isOver: () => boolean, committed: () => void): Promise<void> {
    const client = await centre.session()
    while (!isOver()) {
      try {
        await client.query('BEGIN')
        const steps = 1 + Math.floor(Math.random() * 4)
        for (let i = 0; i < steps; i++) await writeOne(client)
        if (Math.random() < 0.1) await client.query('SELECT pg_sleep(0.06)')
        if (Math.random() < 0.1) await client.query('ROLLBACK')
        else {
          await client.query('COMMIT')
          committed()
        }
      } catch (error) {
        // Writers take rows in any order: PostgreSQL ends a deadlock by ending one of them.
        if ((error as { code?: unknown }).code !== '40P01') throw error
        await client.query('ROLLBACK')
      }
    }
  }

  async function writeOne(client: Client): Promise<void> {
    const dice = Math.random()
    if (dice < 0.6) {
      await client.query(
        'UPDATE incidents SET affected_users_count = affected_users_count + 1 WHERE id = $1',
        [pick(ids)],
      )
    } else if (dice < 0.75) {
      await client.query(
        `UPDATE incidents SET affected_users_count = affected_users_count + 1 WHERE id = ANY($1::uuid[])`,
        [[pick(ids), pick(ids), pick(ids)]],
      )
    } else {
      await client.query(
        `WITH m AS (INSERT INTO messages (conversation_id, role, content, sequence_number)
          VALUES ($1, 'user', 'x', 1) RETURNING conversation_id)
        UPDATE conversations c SET total_cost_cents = total_cost_cents + 1 FROM m WHERE c.id = m.conversation_id`,
        [pick(conversations)],
      )
    }
  }
})

const pick = (list: readonly string[]): string =>
  list[Math.floor(Math.random() * list.length)] ?? ''

/** Rows of the stress count their changes. */
function versionOf(row: string, image: unknown): number {
  const values = image as Record<string, number>
  if (row.startsWith('incidents:')) return values['affected_users_count'] ?? 0
  if (row.startsWith('conversations:'))
    return (values['message_count'] ?? 0) + (values['total_cost_cents'] ?? 0)
  return 0
}

function applyImage(replica: Replica, row: string, image: unknown, problems: string[]): void {
  const before = replica.get(row)
  if (before !== undefined && versionOf(row, before) > versionOf(row, image))
    problems.push(`${row} went back from ${versionOf(row, before)} to ${versionOf(row, image)}`)
  replica.set(row, image)
}

const nameOf: Readonly<Record<number, string>> = {
  3: 'conversations',
  4: 'messages',
  8: 'incidents',
}

const sorted = (text: string): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(JSON.parse(text) as Record<string, unknown>).toSorted(([a], [b]) =>
      a < b ? -1 : 1,
    ),
  )

/** Follows the feed as a server's clients do, batch by batch from memory. */
class TailFollower {
  readonly replica: Replica = new Map()
  readonly problems: string[] = []
  readonly #tail: LogTail
  #position = -1

  constructor(tail: LogTail) {
    this.#tail = tail
  }

  async follow(): Promise<void> {
    await this.#tail.refresh()
    const head = this.#tail.head?.position ?? 0
    if (this.#position === -1) this.#position = head
    const batches = this.#tail.since(this.#position)
    if (batches === undefined) throw new Error(`the tail forgot position ${this.#position}`)
    for (const { batch, entries } of batches) {
      if (batch.position !== this.#position + 1)
        this.problems.push(`${batch.position} follows ${this.#position}`)
      for (const { tbl, id, image } of entries) {
        if (image === null) this.problems.push(`${tbl}:${id} served as deleted`)
        else applyImage(this.replica, `${nameOf[tbl]}:${id}`, sorted(image), this.problems)
      }
      this.#position = batch.position
    }
  }

  close(): Promise<void> {
    return this.#tail.close()
  }
}

/** Takes spans of the log between any two snapshots and holds each against the tables of that very snapshot. */
class SpanFollower {
  readonly problems: string[] = []
  /** Snapshots under which someone was writing. */
  overlapping = 0
  readonly #database: Database
  #replica: Replica | undefined
  #snapshot = ''

  constructor(database: Database) {
    this.#database = database
  }

  async follow(): Promise<void> {
    const { snapshot, tables } = await snapshotOfTables(this.#database, stressTables)
    if (parseSnapshot(snapshot).running.size > 0) this.overlapping++
    if (this.#replica === undefined) {
      this.#replica = tables
    } else {
      const span = { from: this.#snapshot, to: snapshot }
      for (const { tbl, id, image } of await readLog(this.#database, span)) {
        if (image !== null)
          applyImage(this.#replica, `${nameOf[tbl]}:${id}`, sorted(image), this.problems)
      }
      for (const { row, what } of divergence(this.#replica, tables))
        this.problems.push(`${row}: ${what}`)
    }
    this.#snapshot = snapshot
  }
}
