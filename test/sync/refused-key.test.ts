import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { agentColumns } from '../../schema/define.ts'
import { mustTable } from '../../schema/tables.ts'
import { newId } from '../../schema/values/id.ts'
import { readIdentity } from '../../src/internal-for-sync.ts'
import { applyBatch } from '../../sync/client/apply-batch.ts'
import { Fleet, type TestAgent } from '../support/fleet.ts'

let fleet: Fleet
let userId: string
let a: TestAgent

beforeAll(async () => {
  fleet = await Fleet.start()
})
afterAll(() => fleet[Symbol.asyncDispose]())
beforeEach(async () => {
  await fleet.clear()
  userId = await fleet.addUser('developer')
  a = await fleet.addAgent(userId)
})

test('a row whose refused change held the unique key of one that arrives is as it was, not gone', async () => {
  const workflow = a.db.workflows.create({ name: 'deploy', definition: {} })
  const incident = a.db.incidents.create({ title: 'x', severity: 'low', source: 'x' })
  await a.sync()
  const before = a.db.workflows.find(workflow.id)
  a.db.transaction(() => {
    // A developer does not delete incidents: the whole transaction is refused.
    a.db.incidents.delete(incident.id)
    a.db.workflows.update(workflow.id, { version: 3 })
  })
  await fleet.sql(
    `INSERT INTO workflows (id, user_id, name, version, definition) VALUES (?, ?, 'deploy', 3, '{}')`,
    newId(),
    userId,
  )

  await a.sync()
  expect(a.outcomes.at(-1)).toMatchObject({ kind: 'dependency_failed', id: workflow.id })
  expect(a.db.workflows.find(workflow.id)).toEqual(before)
  const { local, central } = await a.pull()
  expect(local).toEqual(central)
})

test('two rows that change names at the centre do so here, though both have pending changes and one wants the other’s new name', async () => {
  const [one, two] = ['one', 'two'].map((name) => a.db.runbooks.create({ name, steps: [] }))
  await a.sync()
  a.db.runbooks.update(one?.id ?? '', { name: 'three' })
  a.db.runbooks.update(two?.id ?? '', { description: 'pending' })
  await fleet.sql(`UPDATE runbooks SET name = 'moving' WHERE id = ?`, one?.id ?? '')
  await fleet.sql(`UPDATE runbooks SET name = 'three' WHERE id = ?`, two?.id ?? '')
  await fleet.sql(`UPDATE runbooks SET name = 'two' WHERE id = ?`, one?.id ?? '')

  const { local, central } = await a.pull()
  expect(local).toEqual(central)
  expect(a.db.runbooks.list().map(({ name }) => name)).toEqual(['two', 'three'])
  await a.sync()
  expect(a.db.runbooks.find(two?.id ?? '')).toMatchObject({ name: 'three', description: 'pending' })
})

test('a row of a page of the whole scope takes its unique key from one that no page has brought yet', async () => {
  const holder = a.db.runbooks.create({ name: 'deploy', steps: [] })
  await a.sync()
  const table = mustTable('runbooks')
  const columns = agentColumns(table)
  const id = newId()
  const row = { ...a.connection.get<Record<string, string>>('SELECT * FROM runbooks'), id }
  const state = a.connection.get<{ nonce: string; position: number; cursor: string }>(
    'SELECT nonce, position, cursor FROM sync_state',
  )
  if (state === undefined) throw new Error('the store has lost its identity')
  const page = { first: true, last: false, rows: 1, total: 1 }
  const nothing = { gone: [], watermark: null, outcomes: [], conflicts: [] }
  applyBatch(
    a.connection,
    readIdentity(a.connection),
    {
      ...state,
      ...nothing,
      clock: 0,
      page,
      shapes: [{ table: table.number, columns: [...columns] }],
      rows: [[0, columns.map((column) => Reflect.get(row, column) as string | null)]],
    },
    '2026-01-05T09:00:00.000000Z',
  )

  expect(a.db.runbooks.list().map((each) => each.id)).toEqual([id])
  expect(a.db.runbooks.find(holder.id)).toBeUndefined()
})

test('a row of before makes room in a page for those that took its name and the name that it was to get', async () => {
  const holder = a.db.runbooks.create({ name: 'roll back', steps: [] })
  await a.sync()
  const seen = a.connection.get<Record<string, string>>('SELECT * FROM runbooks')
  const state = a.connection.get<{ nonce: string; position: number; cursor: string }>(
    'SELECT nonce, position, cursor FROM sync_state',
  )
  if (state === undefined) throw new Error('the store has lost its identity')
  a.db.runbooks.update(holder.id, { name: 'deploy' })
  const table = mustTable('runbooks')
  const columns = agentColumns(table)
  const brought = ['roll back', 'deploy'].map((name) => ({ ...seen, id: newId(), name }))
  applyBatch(
    a.connection,
    readIdentity(a.connection),
    {
      ...state,
      clock: 0,
      page: { first: true, last: false, rows: 2, total: 3 },
      shapes: [{ table: table.number, columns: [...columns] }],
      rows: brought.map((row) => [
        0,
        columns.map((column) => Reflect.get(row, column) as string | null),
      ]),
      gone: [],
      watermark: null,
      outcomes: [],
      conflicts: [],
    },
    '2026-01-05T09:00:00.000000Z',
  )

  const ids = a.db.runbooks.list().map(({ id }) => id)
  expect(ids.toSorted()).toEqual(brought.map(({ id }) => id).toSorted())
  // What was written stays in the queue: the centre decides.
  const waiting = a.db.syncConflicts.list({ state: 'blocked' })
  expect(waiting).toMatchObject([{ rowId: holder.id, mine: { name: 'deploy' } }])
})
