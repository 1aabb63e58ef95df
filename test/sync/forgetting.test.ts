import { copyFileSync, existsSync } from 'node:fs'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, inject, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import { Database } from '../../server/postgres/database.ts'
import { CONFLICTS_TOLD_MAX, forgetConflicts, forgetDecided } from '../../server/sync/forget.ts'
import { readIdentity } from '../../src/internal-for-sync.ts'
import { forkStore } from '../../sync/client/fork-store.ts'
import {
  createUser,
  openAgent,
  startCentre,
  type Centre,
  type TestAgent,
  type TestUser,
} from '../support/centre.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import { connectionOf, scratchFolder, type ScratchFolder } from '../support/store.ts'
import {
  insert,
  newTransactionId,
  nowMicros,
  pushRequest,
  wireClient,
} from '../support/wire-client.ts'

const agentId = 'laptop'
const DAY_MS = 24 * 3_600_000

let scratch: TestDatabase
let centre: Centre
let database: Database
let user: TestUser
let folder: ScratchFolder

beforeEach(async () => {
  scratch = await createDatabase(inject('postgresUrl'), 'forgetting')
  centre = await startCentre({ databaseUrl: scratch.url })
  database = await Database.open({ url: scratch.url, folder: undefined, connectionsMax: 2 })
  user = await createUser(centre)
  folder = scratchFolder()
})
afterEach(async () => {
  folder[Symbol.dispose]()
  await database.close()
  await centre[Symbol.asyncDispose]()
  await scratch.drop()
})

/** What clients said they have is written, as once an hour. */
async function restart(): Promise<void> {
  const port = Number(new URL(centre.url).port)
  await centre[Symbol.asyncDispose]()
  centre = await startCentre({ databaseUrl: scratch.url, port })
}

const open = (path: string): Promise<TestAgent> => openAgent(centre, user, { path, agentId })

async function count(
  table: 'applied' | 'outcome' | 'repeated' | 'rejected' | 'conflict',
): Promise<number> {
  const { rows } = await sql<{ n: number }>`
    SELECT count(*)::integer AS n FROM ${sql.table(`sync.${table}`)}`.execute(centre.db)
  return rows[0]?.n ?? -1
}

const soon = (): Date => new Date(Date.now() + DAY_MS)

test('ids and outcomes go, in batches, once their client has its acknowledgement, not before', async () => {
  const client = await wireClient(centre, user)
  const shared = newId()
  // Every second one is refused: its row is there already.
  for (let i = 0; i < 7; i++)
    await client.push([[insert('conversations', { user_id: user.id, id: shared })]])
  expect([await count('applied'), await count('outcome')]).toEqual([7, 6])
  await client.pull()
  await restart()
  expect(await forgetDecided(database, soon(), 2)).toBe(0)

  await client.pullRaw({ acked: '5' })
  await restart()
  expect(await forgetDecided(database, new Date(Date.now() - DAY_MS), 2)).toBe(0)
  expect(await forgetDecided(database, soon(), 2)).toBe(5)
  expect([await count('applied'), await count('outcome')]).toEqual([2, 2])
  expect((await client.outcomes()).map(({ seq }) => seq)).toEqual([6, 7])
})

test('numbers under which something came again go like ids, and what depends on a refused row is named ever after', async () => {
  const client = await wireClient(centre, user)
  const shared = newId()
  const own = { seq: 1, id: newTransactionId() }
  const refused = { seq: 2, id: newTransactionId() }
  const row = newId()
  const list = [
    { ...own, mutations: [insert('conversations', { user_id: user.id, id: shared })] },
    { ...refused, mutations: [insert('conversations', { user_id: user.id, id: shared })] },
    {
      seq: 3,
      id: newTransactionId(),
      mutations: [insert('conversations', { user_id: user.id, id: row, status: 'none' })],
    },
  ]
  await client.mustSend(pushRequest(client.clientId, list))
  // The same from a store that forked.
  const twin = await wireClient(centre, user)
  await twin.mustSend(pushRequest(twin.clientId, list))
  expect([await count('repeated'), await count('rejected')]).toEqual([3, 4])
  await client.pullRaw({ acked: '3' })
  await restart()
  await forgetDecided(database, soon(), 2)
  expect(await count('repeated')).toBe(3)
  await twin.pullRaw({ acked: '2' })
  await restart()
  await forgetDecided(database, new Date(Date.now() - DAY_MS), 2)
  expect(await count('repeated')).toBe(3)
  await forgetDecided(database, soon(), 1)
  expect([await count('repeated'), await count('rejected')]).toEqual([1, 4])

  const { id } = list[2] ?? { id: '' }
  const late = [
    insert('messages', { id: newId(), conversation_id: row, role: 'user', content: 'late' }),
  ]
  await twin.mustSend({
    ...pushRequest(twin.clientId, [{ seq: 4, id: newTransactionId(), mutations: late }]),
    previous: { seq: 3, id },
  })
  expect((await twin.outcomes()).at(-1)).toMatchObject({ kind: 'dependency_failed', on: '3.0' })
})

test('a conflict goes once neither the log nor reading the whole scope can tell of it', async () => {
  const client = await wireClient(centre, user)
  const other = await wireClient(centre, await createUser(centre))
  await client.pull()
  await other.pull()
  const record = (
    loser: string,
    winner: string | null,
    days: number,
    times = 1,
  ): Promise<unknown> =>
    sql`INSERT INTO sync.conflict (id, at, tbl, row_id, loser, winner, lost, kept)
      SELECT gen_random_uuid(), now() - ${days} * interval '1 day' - n * interval '1 second', 3, gen_random_uuid(),
        ${loser}::uuid, ${winner}::uuid, '{}', '{}' FROM generate_series(1, ${times}::integer) n`.execute(
      centre.db,
    )
  const old = (): Date => new Date(Date.now() - 14 * DAY_MS)
  await record(client.clientId, null, 30, 5)
  await record(client.clientId, other.clientId, 31)
  await record(client.clientId, newId(), 32)
  expect(await forgetConflicts(database, old())).toBe(0)
  await record(client.clientId, client.clientId, 1, CONFLICTS_TOLD_MAX)
  await record(client.clientId, null, 2, 3)
  // Not those that the log still tells, that its other side is told, and that nobody knows the other side of.
  expect(await forgetConflicts(database, old())).toBe(5)
  expect(await count('conflict')).toBe(CONFLICTS_TOLD_MAX + 5)
})

test('an id stays for as long as its writer calls it recent', async () => {
  const client = await wireClient(centre, user)
  const ahead = nowMicros() + 30 * DAY_MS * 1000
  await client.push([[insert('conversations', { user_id: user.id, id: newId() })]], {
    clock: ahead,
  })
  await client.push([[insert('conversations', { user_id: user.id, id: newId() })]])
  await client.pullRaw({ acked: '2' })
  await restart()
  expect(await forgetDecided(database, soon())).toBe(1)
  expect(await forgetDecided(database, new Date(Date.now() + 31 * DAY_MS))).toBe(1)
})

test('nothing goes while a restored centre may get back what it lost', async () => {
  const client = await wireClient(centre, user)
  await client.push([[insert('conversations', { user_id: user.id, id: newId() })]])
  await client.pullRaw({ acked: '1' })
  await restart()
  const fork = newId()
  await sql`INSERT INTO sync.fork (nonce, common_position) VALUES (${fork}, 1)`.execute(centre.db)
  expect(await forgetDecided(database, soon())).toBe(0)
  await sql`UPDATE sync.fork SET decision = 'all', open_until = now() + interval '1 day'`.execute(
    centre.db,
  )
  expect(await forgetDecided(database, soon())).toBe(0)
  await sql`UPDATE sync.fork SET open_until = now()`.execute(centre.db)
  expect(await forgetDecided(database, soon())).toBe(1)
})

test('who comes back later than all that hears what became of its queue, and nothing is applied twice', async () => {
  const client = await wireClient(centre, user)
  const ids = Array.from({ length: 4 }, () => newId())
  const list = ids.map((id, i) => ({
    seq: i + 1,
    id: newTransactionId(),
    // The third is refused.
    mutations: [insert('conversations', { user_id: user.id, id: i === 2 ? (ids[0] ?? '') : id })],
  }))
  // Its answer is lost: it has no acknowledgement of any.
  await client.mustSend(pushRequest(client.clientId, list))
  await restart()
  expect(await forgetDecided(database, soon())).toBe(0)

  // As a store does that sends its queue in portions, the first of which ends below the watermark.
  const again = await client.mustSend(pushRequest(client.clientId, list.slice(0, 2)))
  expect(again.nextSeq).toBe(5)
  expect((await client.outcomes()).map(({ seq, kind }) => [seq, kind])).toEqual([[3, 'rejected']])
  const rows = await centre.db.selectFrom('conversations').select('id').execute()
  expect(rows.length).toBe(3)
})

test('nor is what the original still had, when it was its copy that brought it long ago', async () => {
  const path = folder.file('original.db')
  await using original = await open(path)
  const counted = original.db.conversations.create({ title: 'counted' }).id
  await original.sync.now()
  original.db.conversations.update(counted, { total_cost_cents: 1 })
  {
    const copy = folder.file('copy.db')
    copyFileSync(path, copy)
    if (existsSync(`${path}-wal`)) copyFileSync(`${path}-wal`, `${copy}-wal`)
    await using clone = await open(copy)
    const connection = connectionOf(clone.db)
    const { clientId } = readIdentity(connection)
    forkStore(connection, clientId, { at: '', reason: 'a test' })
    await clone.sync.now()
    // The next request says that it has its acknowledgement.
    await clone.sync.now()
  }
  await restart()
  expect(await forgetDecided(database, new Date())).toBe(1)
  await original.sync.now()
  expect(original.outcomes.at(-1)).toMatchObject({ kind: 'rejected', reason: 'too_old' })
  expect(original.db.conversations.find(counted)?.total_cost_cents).toBe(1)
})

test('what an old copy of a store still had in its queue goes to its conflicts: it is not applied twice', async () => {
  const path = folder.file('original.db')
  const copy = folder.file('copy.db')
  let counted: string
  {
    await using original = await open(path)
    counted = original.db.conversations.create({ title: 'counted' }).id
    await original.sync.now()
    original.db.conversations.update(counted, { total_cost_cents: 1 })
    copyFileSync(path, copy)
    if (existsSync(`${path}-wal`)) copyFileSync(`${path}-wal`, `${copy}-wal`)
    await original.sync.now()
    original.db.conversations.create({ title: 'of the original only' })
    await original.sync.now()
    // The next request says that it has its acknowledgement.
    await original.sync.now()
  }
  await restart()
  // As if the copy had lain there for longer than ids are kept.
  expect(await forgetDecided(database, new Date())).toBe(3)

  await using clone = await open(copy)
  const fresh = clone.db.conversations.create({ title: 'written now' }).id
  await clone.sync.now()
  const { total_cost_cents: cents } = await centre.db
    .selectFrom('conversations')
    .select('total_cost_cents')
    .where('id', '=', counted)
    .executeTakeFirstOrThrow()
  expect(cents).toBe(1)
  expect(clone.outcomes.map(({ kind, reason }) => [kind, reason])).toEqual([
    ['rejected', 'too_old'],
    ['applied', undefined],
  ])
  expect(clone.db.syncConflicts.list({ state: 'rejected' }).map(({ rowId }) => rowId)).toEqual([
    counted,
  ])
  expect(clone.db.conversations.find(counted)?.total_cost_cents).toBe(1)
  const brought = await centre.db
    .selectFrom('conversations')
    .select('id')
    .where('id', '=', fresh)
    .execute()
  expect(brought.length).toBe(1)
})
