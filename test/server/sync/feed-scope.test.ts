import { Client } from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest'
import { mustTable, tableOfNumber } from '../../../schema/tables.ts'
import { newId } from '../../../schema/values/id.ts'
import { systemClock } from '../../../schema/values/timestamp.ts'
import { SCHEMA_VERSION } from '../../../schema/version.ts'
import { Database } from '../../../server/postgres/database.ts'
import { prepareCentre } from '../../../server/postgres/prepare.ts'
import { checksum } from '../../../server/sync/checksum.ts'
import { signCursor, verifyCursor } from '../../../server/sync/cursor.ts'
import { Feed, type PullRequest } from '../../../server/sync/feed.ts'
import { LogTail } from '../../../server/sync/log-tail.ts'
import { ClientBindings } from '../../../server/sync/principal.ts'
import type { PullResponse } from '../../../sync/protocol/messages.ts'
import { createDatabase, type TestDatabase } from '../../support/databases.ts'

/** The advisory lock of positions.ts; a test that waits for it fails if it is another. */
const BATCH_LOCK = 7_203_952

let scratch: TestDatabase
let database: Database
let holder: Client
let userId: string
const secret = Buffer.alloc(32, 7)
const never = new AbortController().signal
const tails: LogTail[] = []

beforeAll(async () => {
  scratch = await createDatabase(inject('postgresUrl'), 'feed_scope')
  database = await Database.open({ url: scratch.url, folder: undefined, connectionsMax: 6 })
  await prepareCentre(database)
  holder = new Client({ connectionString: scratch.url })
  await holder.connect()
})

beforeEach(async () => {
  userId = newId()
  await database.query(
    `INSERT INTO users (id, email, username, password_hash, role, status) VALUES ($1, $2, $3, 'x', 'developer', 'active')`,
    [userId, `${userId}@example.org`, `u-${userId}`],
  )
})

afterAll(async () => {
  for (const tail of tails) await tail.close()
  await holder.end()
  await database.close()
  await scratch.drop()
})

/** A server's feed; a new one remembers no batch. */
async function newFeed(): Promise<{ feed: Feed; tail: LogTail }> {
  const tail = new LogTail(database, 60_000)
  tails.push(tail)
  await tail.refresh()
  return { feed: new Feed(database, tail, new ClientBindings(), secret, systemClock), tail }
}

const requestOf = (clientId: string, cursor: string | undefined, waitMs = 0): PullRequest => ({
  claims: { userId, agentId: 'agent' },
  clientId,
  cursor,
  schema: SCHEMA_VERSION,
  ackedSeq: 0,
  waitMs,
  signal: never,
})

async function incident(): Promise<string> {
  const id = newId()
  await database.query(
    `INSERT INTO incidents (id, title, severity, source) VALUES ($1, 't', 'low', 's')`,
    [id],
  )
  return id
}

const setRole = (role: string): Promise<unknown> =>
  database.query('UPDATE users SET role = $2::user_role WHERE id = $1', [userId, role])

const rowsOf = (table: string, { shapes, rows }: PullResponse): unknown[] =>
  rows.flatMap(([shape, values]) =>
    tableOfNumber(shapes[shape]?.table ?? -1)?.name === table ? [values[0]] : [],
  )

const goneOf = (table: string, { gone }: PullResponse): string[] =>
  gone.flatMap(([number, id]) => (number === mustTable(table).number ? [id] : []))

/** Does something while no batch can be made, once someone waits to make one. */
async function whileBatchIsAwaited(work: () => Promise<unknown>): Promise<void> {
  for (;;) {
    const { rows } = await holder.query(
      `SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = $1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
      [BATCH_LOCK],
    )
    if (rows.length > 0) break
  }
  await work()
  await holder.query('COMMIT')
}

async function holdBatches(): Promise<void> {
  await holder.query('BEGIN')
  await holder.query('SELECT pg_advisory_xact_lock($1)', [BATCH_LOCK])
}

describe('a client whose role was lowered', () => {
  test('loses what it no longer reads also when no server remembers its position', async () => {
    const [still, changed] = [await incident(), await incident()]
    const { feed } = await newFeed()
    const clientId = newId()
    const { cursor } = await feed.pull(requestOf(clientId, undefined))
    await setRole('viewer')
    await database.query(`UPDATE incidents SET title = 'u' WHERE id = $1`, [changed])
    const fresh = await incident()
    const restarted = await newFeed()
    const answer = await restarted.feed.pull(requestOf(clientId, cursor))
    expect(answer.page).toBe(null)
    expect(rowsOf('incidents', answer)).toEqual([])
    expect(goneOf('incidents', answer)).toEqual(expect.arrayContaining([still, changed, fresh]))
    const again = await restarted.feed.pull(requestOf(clientId, answer.cursor))
    expect([again.rows, again.gone]).toEqual([[], []])
  })

  test('gets nothing of the old role from a scope that was being read meanwhile', async () => {
    const id = await incident()
    const { feed } = await newFeed()
    await holdBatches()
    const pulled = feed.pull(requestOf(newId(), undefined))
    await whileBatchIsAwaited(() => setRole('viewer'))
    const answer = await pulled
    expect(rowsOf('incidents', answer)).not.toContain(id)
    expect(rowsOf('users', answer)).toContain(userId)
  })

  test('while it was being raised holds in its stream what the last role reads', async () => {
    await setRole('viewer')
    const id = await incident()
    const { feed, tail } = await newFeed()
    const clientId = newId()
    const stream = feed.live(requestOf(clientId, undefined, 60_000))
    const held = new Set<unknown>()
    const take = async (): Promise<void> => {
      const { value } = await stream.next()
      if (value === undefined) throw new Error('the stream ended')
      for (const row of rowsOf('incidents', value)) held.add(row)
      for (const row of goneOf('incidents', value)) held.delete(row)
    }
    await take()
    expect(held.has(id)).toBe(false)
    await setRole('developer')
    await tail.refresh()
    await holdBatches()
    const next = take()
    await whileBatchIsAwaited(() => setRole('viewer'))
    await next
    // A runbook, so that there is something to hear of under either role.
    const later = await incident()
    await database.query(`INSERT INTO runbooks (name, steps) VALUES ($1, '[]')`, [later])
    await tail.refresh()
    await take()
    expect([held.has(id), held.has(later)]).toEqual([false, false])
    await stream.return()
  })
})

describe('a row that was read, and then lost with a former life of the database,', () => {
  /** A page of a scope whose reading began at the cursor. */
  const pageAt = (token: string): string => {
    const cursor = verifyCursor(token, secret)
    const page = { table: 1, after: null, rows: 0, total: 1, history: cursor.nonce }
    return signCursor({ ...cursor, page }, secret)
  }

  /** The database goes back to before the row, so that no log tells of its end. */
  const lose = (id: string): Promise<void> =>
    database.transaction(async (session) => {
      await session.query('DELETE FROM incidents WHERE id = $1', [id])
      await session.query('DELETE FROM sync.log WHERE id = $1', [id])
      await session.query(`UPDATE sync.history SET started = 'a former life'`)
    })

  test('is on no page', async () => {
    const { feed } = await newFeed()
    const clientId = newId()
    const { cursor } = await feed.pull(requestOf(clientId, undefined))
    const id = await incident()
    await holdBatches()
    const pulled = feed.pull(requestOf(clientId, pageAt(cursor)))
    await whileBatchIsAwaited(() => lose(id))
    const answer = await pulled
    expect(answer.page).toMatchObject({ first: true, last: true })
    expect(rowsOf('incidents', answer)).not.toContain(id)
  })

  test('does not come with another role', async () => {
    await setRole('viewer')
    const id = await incident()
    const { feed, tail } = await newFeed()
    const stream = feed.live(requestOf(newId(), undefined, 60_000))
    await stream.next()
    await setRole('developer')
    await tail.refresh()
    await holdBatches()
    const pulled = stream.next()
    await whileBatchIsAwaited(() => lose(id))
    const { value } = await pulled
    if (value === undefined) throw new Error('the stream ended')
    expect(value.page).toMatchObject({ first: true, last: true, reason: 'role_changed' })
    expect(rowsOf('incidents', value)).not.toContain(id)
    await stream.return()
  })

  test('is in no checksum', async () => {
    const id = await incident()
    await newFeed()
    await holdBatches()
    const sums = checksum(database, { userId, agentId: 'agent' }, SCHEMA_VERSION)
    const refused = sums.catch((error: unknown) => error)
    await whileBatchIsAwaited(() => lose(id))
    expect(await refused).toMatchObject({ code: 'DATABASE_UNREACHABLE' })
  })
})

test('a pull that waits ends with the next batch when the account is suspended', async () => {
  const { feed, tail } = await newFeed()
  const clientId = newId()
  const { cursor } = await feed.pull(requestOf(clientId, undefined))
  const settled = await feed.pull(requestOf(clientId, cursor))
  const waiting = feed.pull(requestOf(clientId, settled.cursor, 3_000_000))
  const refused = waiting.catch((error: unknown) => error)
  await database.query(`UPDATE users SET status = 'suspended' WHERE id = $1`, [userId])
  await tail.refresh()
  expect(await refused).toMatchObject({
    code: 'FORBIDDEN',
    message: expect.stringContaining('suspended') as string,
  })
})

test('a cursor of a role that there is no more is answered with the whole scope', async () => {
  const { feed } = await newFeed()
  const clientId = newId()
  const { cursor } = await feed.pull(requestOf(clientId, undefined))
  const former = { ...verifyCursor(cursor, secret), scope: 'auditor' as 'viewer' }
  expect(await feed.pull(requestOf(clientId, signCursor(former, secret)))).toMatchObject({
    page: { first: true, last: true, reason: 'role_changed' },
  })
})

describe('whoever reads many rows waits its turn, and gives it back', () => {
  /** A feed that notes how many were let in, and how many are. */
  async function countingFeed(): Promise<{ feed: Feed; admitted: { all: number; now: number } }> {
    const { tail } = await newFeed()
    const admitted = { all: 0, now: 0 }
    const feed = new Feed(
      database,
      tail,
      new ClientBindings(),
      secret,
      systemClock,
      async (work) => {
        // One that holds a turn while it waits for another would wait for ever, once all do.
        expect(admitted.now).toBe(0)
        admitted.all += 1
        admitted.now += 1
        return work().finally(() => (admitted.now -= 1))
      },
    )
    return { feed, admitted }
  }

  type Cursor = ReturnType<typeof verifyCursor>

  const pageOf = (history: string): Cursor['page'] => ({
    table: 1,
    after: null,
    rows: 0,
    total: 1,
    history,
  })

  /** What makes a client with such a cursor read, and how often it is let in. */
  const cases: Record<string, { after: (cursor: Cursor) => Partial<Cursor>; turns: number }> = {
    'the tables that an upgrade gained': { after: () => ({ schema: 0 }), turns: 1 },
    'those, when the log does not reach back to its cursor': {
      after: ({ position }) => ({ schema: 0, position: position - 1 }),
      turns: 2,
    },
    'what another role reads': { after: () => ({ scope: 'viewer' }), turns: 1 },
    'the next page': {
      after: ({ nonce }) => ({ page: pageOf(nonce) }),
      turns: 1,
    },
    'all, since its role changed between pages': {
      after: ({ nonce }) => ({ scope: 'viewer', page: pageOf(nonce) }),
      turns: 1,
    },
    'all, since the database was started again between pages': {
      after: () => ({ page: pageOf(newId()) }),
      turns: 1,
    },
  }

  test.each(Object.entries(cases))('for %s', async (_name, { after, turns }) => {
    await incident()
    const { feed, admitted } = await countingFeed()
    const clientId = newId()
    const first = await feed.pull(requestOf(clientId, undefined))
    expect(admitted).toEqual({ all: 1, now: 0 })
    const cursor = verifyCursor(first.cursor, secret)
    // Only the position of the cursor itself is kept.
    await database.query('DELETE FROM sync.batch WHERE position < $1', [cursor.position])
    const changed = signCursor({ ...cursor, ...after(cursor) }, secret)
    await feed.pull(requestOf(clientId, changed))
    expect(admitted).toEqual({ all: 1 + turns, now: 0 })
    // Who only follows the log does not wait.
    await feed.pull(requestOf(clientId, first.cursor))
    expect(admitted).toEqual({ all: 1 + turns, now: 0 })
  })
})
