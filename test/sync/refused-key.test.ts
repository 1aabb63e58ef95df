import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
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
