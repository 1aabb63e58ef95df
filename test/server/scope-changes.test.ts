import { sql } from 'kysely'
import { Client } from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest'
import { allTables, mustTable, type TableName } from '../../schema/tables.ts'
import { newId } from '../../schema/values/id.ts'
import type { Database } from '../../server/postgres/database.ts'
import { createUser, databaseKinds, startCentreOn, type Centre } from '../support/centre.ts'
import { createDatabase } from '../support/databases.ts'
import { openCentralDatabase } from '../support/log-readers.ts'
import { update, wireClient } from '../support/wire-client.ts'

const literal = (value: unknown): string =>
  typeof value === 'string' ? `'${value.replaceAll("'", "''")}'` : String(value)

const insertInto = (table: string, row: Record<string, unknown>): string =>
  `INSERT INTO ${table} (${Object.keys(row).join(', ')}) VALUES (${Object.values(row).map(literal).join(', ')})`

const message = (id: string, conversation: string, more: Record<string, unknown> = {}): string =>
  insertInto('messages', {
    id,
    conversation_id: conversation,
    role: 'user',
    content: 'm',
    sequence_number: 1,
    ...more,
  })

const execution = (id: string, workflow: string, user: string): string =>
  insertInto('workflow_executions', { id, workflow_id: workflow, user_id: user })

const step = (id: string, parent: string): string =>
  insertInto('step_executions', {
    id,
    workflow_execution_id: parent,
    step_id: 's',
    step_name: 's',
    step_type: 's',
  })

const embedding = (
  id: string,
  user: string,
  payload: Record<string, unknown>,
  collection = 'conversation_embeddings',
): string =>
  `INSERT INTO embeddings (id, user_id, collection, model, dimension, vector, payload)
  VALUES ('${id}', '${user}', '${collection}', 'm', 1, '\\x0000803f', '${JSON.stringify(payload)}')`

interface Entry {
  row: string
  op: string
  before: string[] | null
  after: string[] | null
}

const readEntries = `SELECT l.seq, l.tbl, l.id, l.op, l.keys_before, l.keys_after FROM sync.log l WHERE l.tbl < 100`

interface RawEntry {
  seq: number
  tbl: number
  id: string
  op: string
  keys_before: string[] | null
  keys_after: string[] | null
}

const entryOf = ({ tbl, id, op, keys_before, keys_after }: RawEntry): Entry => ({
  row: `${allTables.find(({ number }) => number === tbl)?.name} ${id}`,
  op,
  before: keys_before,
  after: keys_after,
})

const moved = (row: string, from: string, to: string): Entry => ({
  row,
  op: 'update',
  before: [`u:${from}`],
  after: [`u:${to}`],
})

const byRow = (a: Entry, b: Entry): number => (a.row < b.row ? -1 : 1)

describe.each(databaseKinds)('a row given to someone else on %s:', (kind) => {
  let centre: Centre
  let a: string
  let b: string
  let seen = 0

  beforeAll(async () => {
    centre = await startCentreOn(kind)
    a = (await createUser(centre)).id
    b = (await createUser(centre)).id
  })

  afterAll(() => centre[Symbol.asyncDispose]())

  const rows = async <R>(statement: string): Promise<R[]> =>
    (await sql.raw<R>(statement).execute(centre.db)).rows

  const run = async (...statements: string[]): Promise<void> => {
    for (const statement of statements) await rows(statement)
  }

  /** Entries since the last look, by row. */
  async function news(): Promise<Entry[]> {
    const found = await rows<RawEntry>(`${readEntries} AND l.seq > ${seen} ORDER BY l.seq`)
    seen = found.at(-1)?.seq ?? seen
    return found.map(entryOf).toSorted(byRow)
  }

  async function keysOf(table: TableName, id: string): Promise<string[] | undefined> {
    const [row] = await rows<{ keys: string[] }>(
      `SELECT keys FROM sync.row_meta WHERE tbl = ${mustTable(table).number} AND id = '${id}'`,
    )
    return row?.keys
  }

  async function conversation(owner: string, messages = 0): Promise<[string, ...string[]]> {
    const id = newId()
    const ids = Array.from({ length: messages }, newId)
    await run(insertInto('conversations', { id, user_id: owner }))
    for (const one of ids) await run(message(one, id, { tokens_used: 5 }))
    return [id, ...ids]
  }

  const give = (id: string, to: string): Promise<void> =>
    run(`UPDATE conversations SET user_id = '${to}' WHERE id = '${id}'`)

  test('a conversation takes its messages along, each logged with the keys before and after', async () => {
    const [id, ...messages] = await conversation(a, 3)
    await conversation(a, 1)
    await news()
    await give(id, b)
    const rowsMoved = [`conversations ${id}`, ...messages.map((one) => `messages ${one}`)]
    expect(await news()).toEqual(rowsMoved.map((row) => moved(row, a, b)).toSorted(byRow))
    for (const one of messages) expect(await keysOf('messages', one)).toEqual([`u:${b}`])
    await give(id, a)
    expect(await news()).toEqual(rowsMoved.map((row) => moved(row, b, a)).toSorted(byRow))
  })

  test('many conversations move in one statement, those of the new owner already are left alone', async () => {
    const own = await Promise.all([conversation(a, 2), conversation(a, 2)])
    const [kept] = await conversation(b, 1)
    await news()
    const ids = [...own.map(([id]) => id), kept].map((id) => `'${id}'`).join(', ')
    await run(`UPDATE conversations SET user_id = '${b}' WHERE id IN (${ids})`)
    const entries = await news()
    expect(entries).toHaveLength(7)
    expect(entries.filter(({ before }) => before?.includes(`u:${a}`) === true)).toHaveLength(6)
    expect(entries.find(({ row }) => row === `conversations ${kept}`)?.before).toEqual([`u:${b}`])
  })

  test('an update that changes no owner logs its own row and no other', async () => {
    const [id] = await conversation(a, 2)
    await news()
    await run(`UPDATE conversations SET title = 'x', user_id = user_id WHERE id = '${id}'`)
    expect(await news()).toEqual([moved(`conversations ${id}`, a, a)])
  })

  test('a conversation takes along the embeddings that its owner made of it, and only those', async () => {
    const [id] = await conversation(a)
    const [other] = await conversation(a)
    const [mine, untold, theirs, elsewhere, document] = [
      newId(),
      newId(),
      newId(),
      newId(),
      newId(),
    ] as const
    await run(
      embedding(mine, a, { conversation_id: id, user_id: a }),
      embedding(untold, a, { conversation_id: id }),
      embedding(theirs, b, { conversation_id: id, user_id: b }),
      embedding(elsewhere, a, { conversation_id: other, user_id: a }),
      embedding(document, a, { conversation_id: id }, 'documentation_embeddings'),
    )
    const c = (await createUser(centre)).id
    await news()
    await give(id, c)
    expect(await news()).toEqual(
      [`conversations ${id}`, `embeddings ${mine}`, `embeddings ${untold}`]
        .map((row) => moved(row, a, c))
        .toSorted(byRow),
    )
    const found = await rows<{ id: string; user_id: string; payload: unknown }>(
      `SELECT id, user_id, payload FROM embeddings WHERE id IN ('${mine}', '${untold}') ORDER BY id`,
    )
    expect(found).toEqual([
      { id: mine, user_id: c, payload: { conversation_id: id, user_id: c } },
      { id: untold, user_id: c, payload: { conversation_id: id } },
    ])
  })

  test('a workflow moves alone; a run of it takes its steps along', async () => {
    const [workflow, run1, step1] = [newId(), newId(), newId()] as const
    await run(
      insertInto('workflows', { id: workflow, user_id: a, name: workflow, definition: '{}' }),
      execution(run1, workflow, a),
      step(step1, run1),
    )
    await news()
    await run(`UPDATE workflows SET user_id = '${b}' WHERE id = '${workflow}'`)
    expect(await news()).toEqual([moved(`workflows ${workflow}`, a, b)])
    await run(`UPDATE workflow_executions SET user_id = '${b}' WHERE id = '${run1}'`)
    expect(await news()).toEqual([
      moved(`step_executions ${step1}`, a, b),
      moved(`workflow_executions ${run1}`, a, b),
    ])
  })

  test('a message put into another conversation takes its keys and counts there', async () => {
    const [from, one, two] = await conversation(a, 3)
    const [to] = await conversation(b, 1)
    await news()
    await run(
      `UPDATE messages SET conversation_id = '${to}' WHERE id IN ('${one ?? ''}', '${two ?? ''}')`,
    )
    const entries = await news()
    expect(entries.filter(({ row }) => row.startsWith('messages'))).toEqual(
      [one, two].map((id) => moved(`messages ${id ?? ''}`, a, b)).toSorted(byRow),
    )
    const counts = await rows(
      `SELECT id, message_count, total_tokens FROM conversations WHERE id IN ('${from}', '${to}') ORDER BY id`,
    )
    expect(counts).toEqual([
      { id: from, message_count: 1, total_tokens: 5 },
      { id: to, message_count: 3, total_tokens: 15 },
    ])
    await run(`UPDATE messages SET tokens_used = 7 WHERE id = '${one ?? ''}'`)
    expect(await rows(`SELECT total_tokens FROM conversations WHERE id = '${to}'`)).toEqual([
      { total_tokens: 17 },
    ])
  })

  test('a message that was deleted keeps the keys of who saw it go', async () => {
    const [id, gone] = await conversation(a, 1)
    await run(`DELETE FROM messages WHERE id = '${gone ?? ''}'`)
    await give(id, b)
    expect(await keysOf('messages', gone ?? '')).toEqual([`u:${a}`])
  })

  test('a message whose keys are missing gets those of its conversation, and its old owner is told', async () => {
    const [id, lost] = await conversation(a, 1)
    await run(`DELETE FROM sync.row_meta WHERE id = '${lost ?? ''}'`)
    await news()
    await give(id, b)
    expect(await news()).toEqual(
      [moved(`conversations ${id}`, a, b), moved(`messages ${lost ?? ''}`, a, b)].toSorted(byRow),
    )
  })

  test('an agent gives an incident away, but nothing that decides whose a private row is', async () => {
    const [id, talk] = [newId(), newId()]
    await run(
      insertInto('incidents', { id, title: 't', severity: 'low', source: 's', assigned_to: a }),
      insertInto('conversations', { id: talk, user_id: a }),
    )
    await news()
    const agent = await wireClient(centre, { id: a })
    expect(await agent.outcomeOf(update('incidents', id, { assigned_to: b }))).toBeUndefined()
    expect(await news()).toEqual([
      {
        row: `incidents ${id}`,
        op: 'update',
        before: ['incidents', `u:${a}`],
        after: ['incidents', `u:${b}`],
      },
    ])
    for (const refused of [
      update('incidents', id, { assigned_to: newId() }),
      update('conversations', talk, { user_id: b }),
    ])
      expect(await agent.outcomeOf(refused)).toMatchObject({
        kind: 'rejected',
        reason: 'forbidden',
      })
    expect(await news()).toEqual([])
  })
})

/** A parent with children whose keys are its own, and how it moves. */
interface Family {
  readonly parents: string
  readonly children: TableName
  readonly makeParent: (id: string) => string
  readonly makeChild: (id: string, parent: string) => string
  readonly makeChildren: (parent: string, count: number) => string
  readonly touchChild: (id: string) => string
  readonly adopt: (id: string, parent: string) => string
}

describe('a move and another writer at once:', () => {
  let database: Database
  let dispose: () => Promise<void>
  let mover: Client
  let writer: Client
  let watcher: Client
  const [a, b, c, workflow] = [newId(), newId(), newId(), newId()] as const

  beforeAll(async () => {
    const created = await createDatabase(inject('postgresUrl'), 'moves')
    database = await openCentralDatabase(created.url)
    const clients = [1, 2, 3].map(() => new Client({ connectionString: created.url }))
    await Promise.all(clients.map((client) => client.connect()))
    ;[mover, writer, watcher] = clients as [Client, Client, Client]
    for (const id of [a, b, c])
      await watcher.query(
        insertInto('users', { id, email: `${id}@x.org`, username: id, password_hash: 'x' }),
      )
    await watcher.query(
      insertInto('workflows', { id: workflow, user_id: a, name: 'w', definition: '{}' }),
    )
    dispose = async () => {
      for (const client of clients) await client.end()
      await database.close()
      await created.drop()
    }
  })

  afterAll(() => dispose())

  /** Resolves when the connection waits for another one's lock. */
  async function untilBlocked(client: Client): Promise<void> {
    const pid = (client as unknown as { processID: number }).processID
    for (;;) {
      const { rows } = await watcher.query<{ n: number }>(
        'SELECT cardinality(pg_blocking_pids($1)) AS n',
        [pid],
      )
      if ((rows[0]?.n ?? 0) > 0) return
    }
  }

  const families: readonly Family[] = [
    {
      parents: 'conversations',
      children: 'messages',
      makeParent: (id) => insertInto('conversations', { id, user_id: a }),
      makeChild: (id, parent) => message(id, parent),
      makeChildren: (parent, count) =>
        `INSERT INTO messages (conversation_id, role, content, sequence_number)
        SELECT '${parent}', 'user', 'm', n FROM generate_series(1, ${count}) n`,
      touchChild: (id) => `UPDATE messages SET feedback_rating = 5 WHERE id = '${id}'`,
      adopt: (id, parent) => `UPDATE messages SET conversation_id = '${parent}' WHERE id = '${id}'`,
    },
    {
      parents: 'workflow_executions',
      children: 'step_executions',
      makeParent: (id) => execution(id, workflow, a),
      makeChild: (id, parent) => step(id, parent),
      makeChildren: (parent, count) =>
        `INSERT INTO step_executions (workflow_execution_id, step_id, step_name, step_type)
        SELECT '${parent}', 's', 's', 's' FROM generate_series(1, ${count})`,
      touchChild: (id) => `UPDATE step_executions SET retry_count = 1 WHERE id = '${id}'`,
      adopt: (id, parent) =>
        `UPDATE step_executions SET workflow_execution_id = '${parent}' WHERE id = '${id}'`,
    },
  ]

  describe.each(families)('$parents', (family) => {
    let parent: string
    let child: string

    beforeEach(async () => {
      ;[parent, child] = [newId(), newId()]
      await watcher.query(family.makeParent(parent))
    })

    const moveTo = (client: Client, to: string, id = parent): Promise<unknown> =>
      client.query(`UPDATE ${family.parents} SET user_id = '${to}' WHERE id = '${id}'`)

    /** `first` is done and holds its locks when `second` begins; it commits once the second waits for it. */
    async function oneAfterTheOther(
      first: [Client, (client: Client) => Promise<unknown>],
      second: [Client, (client: Client) => Promise<unknown>],
    ): Promise<void> {
      await first[0].query('BEGIN')
      await first[1](first[0])
      await second[0].query('BEGIN')
      const done = second[1](second[0])
      await untilBlocked(second[0])
      await first[0].query('COMMIT')
      await done
      await second[0].query('COMMIT')
    }

    async function keysOfChild(): Promise<string[] | undefined> {
      const { rows } = await watcher.query<{ keys: string[] }>(
        'SELECT keys FROM sync.row_meta WHERE tbl = $1 AND id = $2',
        [mustTable(family.children).number, child],
      )
      return rows[0]?.keys
    }

    /** Keys before and after of the child's entries, in order. */
    async function storyOfChild(): Promise<[string[] | null, string[] | null][]> {
      const { rows } = await watcher.query<RawEntry>(
        `${readEntries} AND l.id = $1 ORDER BY l.seq`,
        [child],
      )
      return rows.map(({ keys_before, keys_after }) => [keys_before, keys_after])
    }

    const key = (user: string): string[] => [`u:${user}`]

    test('a child inserted before the move commits is moved along', async () => {
      await oneAfterTheOther(
        [writer, (client) => client.query(family.makeChild(child, parent))],
        [mover, (client) => moveTo(client, b)],
      )
      expect(await keysOfChild()).toEqual(key(b))
      expect(await storyOfChild()).toEqual([
        [null, key(a)],
        [key(a), key(b)],
      ])
    })

    test('a child inserted while the parent moves is the new owner’s', async () => {
      await oneAfterTheOther(
        [mover, (client) => moveTo(client, b)],
        [writer, (client) => client.query(family.makeChild(child, parent))],
      )
      expect(await keysOfChild()).toEqual(key(b))
      expect(await storyOfChild()).toEqual([[null, key(b)]])
    })

    test('a child changed while its parent moves does not fall back to the old owner', async () => {
      await watcher.query(family.makeChild(child, parent))
      await oneAfterTheOther(
        [mover, (client) => moveTo(client, b)],
        [writer, (client) => client.query(family.touchChild(child))],
      )
      expect(await keysOfChild()).toEqual(key(b))
      expect((await storyOfChild()).slice(1)).toEqual([
        [key(a), key(b)],
        [key(b), key(b)],
      ])
    })

    test('a child changed before its parent moves is served as it was changed', async () => {
      await watcher.query(family.makeChild(child, parent))
      await oneAfterTheOther(
        [writer, (client) => client.query(family.touchChild(child))],
        [mover, (client) => moveTo(client, b)],
      )
      const { rows } = await watcher.query<{ same: boolean }>(
        `SELECT l.image = to_jsonb(t) AS same FROM sync.log l JOIN ${family.children} t ON t.id = l.id WHERE l.id = $1 ORDER BY l.seq DESC LIMIT 1`,
        [child],
      )
      expect(rows).toEqual([{ same: true }])
      expect(await keysOfChild()).toEqual(key(b))
    })

    test.each(['child', 'parent'] as const)(
      'a child that changes its parent ends where it went, when the %s goes first',
      async (first) => {
        const stranger = newId()
        await watcher.query(family.makeParent(stranger))
        await moveTo(watcher, c, stranger)
        await watcher.query(family.makeChild(child, parent))
        const goes: Record<typeof first, [Client, (client: Client) => Promise<unknown>]> = {
          child: [writer, (client) => client.query(family.adopt(child, stranger))],
          parent: [mover, (client) => moveTo(client, b)],
        }
        await oneAfterTheOther(goes[first], goes[first === 'child' ? 'parent' : 'child'])
        expect(await keysOfChild()).toEqual(key(c))
        const story = await storyOfChild()
        expect(story.at(-1)?.[1]).toEqual(key(c))
        expect(story.some(([before]) => before?.includes(`u:${a}`) === true)).toBe(true)
      },
    )

    test('a child deleted while its parent moves stays deleted, for both owners', async () => {
      await watcher.query(family.makeChild(child, parent))
      await oneAfterTheOther(
        [mover, (client) => moveTo(client, b)],
        [writer, (client) => client.query(`DELETE FROM ${family.children} WHERE id = '${child}'`)],
      )
      expect((await storyOfChild()).slice(1)).toEqual([
        [key(a), key(b)],
        [key(b), null],
      ])
    })

    test('a child that goes to a parent which moves is the new owner’s', async () => {
      const old = newId()
      await watcher.query(family.makeParent(old))
      await watcher.query(family.makeChild(child, old))
      await oneAfterTheOther(
        [mover, (client) => moveTo(client, b)],
        [writer, (client) => client.query(family.adopt(child, parent))],
      )
      expect(await keysOfChild()).toEqual(key(b))
      expect((await storyOfChild()).slice(1)).toEqual([[key(a), key(b)]])
    })

    test('a child deleted before its parent moves keeps the keys of who saw it go', async () => {
      await watcher.query(family.makeChild(child, parent))
      await oneAfterTheOther(
        [writer, (client) => client.query(`DELETE FROM ${family.children} WHERE id = '${child}'`)],
        [mover, (client) => moveTo(client, b)],
      )
      expect(await keysOfChild()).toEqual(key(a))
      expect((await storyOfChild()).slice(1)).toEqual([[key(a), null]])
    })

    test('a move reads no table whole, whatever the plans were made on', async () => {
      const others = Array.from({ length: 10 }, newId)
      for (const [i, other] of others.entries()) {
        await mover.query(family.makeParent(other))
        // The first moves meet little, so that their plans are frozen before there is much.
        await mover.query(family.makeChildren(other, i < 8 ? 2 : 1000))
        if (i < 8) await moveTo(mover, b, other)
      }
      await mover.query('BEGIN')
      const before = await rowsScanned()
      await moveTo(mover, b, others[9])
      expect(await rowsScanned()).toEqual(before)
      const { rows } = await mover.query<{ n: number }>(
        'SELECT count(*)::integer AS n FROM sync.log WHERE xid = pg_current_xact_id()',
      )
      expect(rows).toEqual([{ n: 1001 }])
      await mover.query('COMMIT')
    })

    /** Rows that this transaction read by scanning a table whole. */
    async function rowsScanned(): Promise<unknown[]> {
      const { rows } = await mover.query<{ relname: string; read: string }>(
        `SELECT relname, seq_tup_read::integer AS read FROM pg_stat_xact_user_tables
        WHERE relname IN ('row_meta', 'embeddings', $1) ORDER BY 1`,
        [family.children],
      )
      return rows
    }
  })

  test.each(['inserted', 'deleted'] as const)(
    'a message %s while its conversation moves waits for the conversation before it locks anything else',
    async (what) => {
      const [talk, old, fresh] = [newId(), newId(), newId()] as const
      await watcher.query(insertInto('conversations', { id: talk, user_id: a }))
      await watcher.query(message(old, talk))
      await watcher.query('BEGIN')
      await watcher.query('SELECT 1 FROM conversations WHERE id = $1 FOR NO KEY UPDATE', [talk])
      const move = mover.query(`UPDATE conversations SET user_id = '${b}' WHERE id = '${talk}'`)
      await untilBlocked(mover)
      const write = writer.query(
        what === 'inserted' ? message(fresh, talk) : `DELETE FROM messages WHERE id = '${old}'`,
      )
      await untilBlocked(writer)
      await watcher.query('COMMIT')
      await Promise.all([move, write])
      const { rows } = await watcher.query<{ message_count: number }>(
        'SELECT message_count FROM conversations WHERE id = $1 AND user_id = $2',
        [talk, b],
      )
      expect(rows).toEqual([{ message_count: what === 'inserted' ? 2 : 0 }])
    },
  )
})
