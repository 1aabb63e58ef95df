import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import type { Conflict } from '../../src/index.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import { Fleet, type TestAgent } from '../support/fleet.ts'
import { errorOf } from '../support/store.ts'

let database: TestDatabase
let fleet: Fleet
let userId: string
let a: TestAgent
let b: TestAgent

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'), 'conflicts')
  fleet = await Fleet.start({ databaseUrl: database.url })
})
afterAll(async () => {
  await fleet[Symbol.asyncDispose]()
  await database.drop()
})
beforeEach(async () => {
  await fleet.clear()
  userId = await fleet.addUser()
  a = await fleet.addAgent(userId)
  b = await fleet.addAgent(userId)
})

async function everyoneSyncs(): Promise<void> {
  for (let round = 0; round < 2; round++) for (const agent of [a, b]) await agent.sync()
}

async function mustEqualCentre(...agents: TestAgent[]): Promise<void> {
  for (const agent of agents) {
    const { local, central } = await agent.pull()
    expect(local).toEqual(central)
    expect(agent.connection.all('PRAGMA foreign_key_check')).toEqual([])
  }
}

const setRole = (role: string) => fleet.sql('UPDATE users SET role = ? WHERE id = ?', role, userId)

/** The one conflict that an agent has. */
function onlyConflict(agent: TestAgent): Conflict {
  const all = agent.db.syncConflicts.list()
  expect(all).toHaveLength(1)
  return all[0] as Conflict
}

const newIncident = (agent: TestAgent, title = 'first') =>
  agent.db.incidents.create({ title, severity: 'low', source: 'x' })

/** As if the store had to read its whole scope again. */
function forgetCursor({ connection }: TestAgent): void {
  connection.applying(() => connection.run('UPDATE sync_state SET cursor = NULL'))
}

/** What is written from here on has a later clock: of two writes in one millisecond, the writers' ids decide. */
function later(): void {
  const start = Date.now()
  while (Date.now() === start);
}

describe('a retried conflict', () => {
  test('of an insert is sent with what the patch corrects, and its record goes with the new write', async () => {
    a.db.runbooks.create({ name: 'deploy', steps: [] })
    await a.sync()
    const mine = {
      name: 'deploy',
      description: null,
      steps: [{ title: 'drain', action: null }, null],
      trigger_conditions: { severity: [], deep: { a: null } },
      is_automated: true,
      tags: ['x', null, ''],
      execution_count: 3,
    }
    const { id } = b.db.runbooks.create(mine)
    await b.sync()
    const conflict = onlyConflict(b)
    expect(conflict).toMatchObject({ state: 'rejected', reason: 'unique', mine, base: null })

    const row = b.db.syncConflicts.retry(conflict.id, { name: 'deploy 2', description: undefined })
    expect(row).toMatchObject({ ...mine, id, name: 'deploy 2' })
    expect(b.db.syncConflicts.get(conflict.id)).toBeUndefined()
    expect(b.engine.status().pending).toBe(1)
    await everyoneSyncs()
    expect(a.db.runbooks.find(id)).toMatchObject({ ...mine, name: 'deploy 2' })
    expect(b.db.syncConflicts.list()).toEqual([])
    await mustEqualCentre(a, b)
  })

  test('that the repository refuses stays, and nothing was written', async () => {
    const taken = a.db.runbooks.create({ name: 'deploy', steps: [] })
    await a.sync()
    const mine = b.db.runbooks.create({ name: 'deploy', steps: [] })
    await b.sync()
    const { id } = onlyConflict(b)
    // Locally the row that won is there by now.
    expect(b.db.runbooks.list().map((row) => row.id)).toEqual([taken.id])
    const again = (patch = {}) => b.db.syncConflicts.retry(id, patch)
    expect(errorOf(() => again())).toMatchObject({ code: 'CONSTRAINT', table: 'runbooks' })
    expect(errorOf(() => again({ name: 7 }))).toMatchObject({
      code: 'INVALID_VALUE',
      column: 'name',
    })
    expect(errorOf(() => again({ nmae: 'x' }))).toMatchObject({ code: 'UNKNOWN_COLUMN' })
    expect(onlyConflict(b)).toMatchObject({ id, mine: { name: 'deploy' } })
    expect(b.db.runbooks.find(mine.id)).toBeUndefined()
    expect(b.engine.status().pending).toBe(0)
  })

  test('of an insert whose id the centre refused needs another id, and brings everything else along', async () => {
    const id = newId()
    const vector = Float32Array.of(1.5, -0, 3.4028234663852886e38, 1e-45)
    const put = (agent: TestAgent, x: Float32Array) =>
      agent.db.embeddings.put({
        id,
        collection: 'incident_knowledge',
        vector: x,
        payload: { a: 1 },
      })
    await put(a, Float32Array.of(1))
    await put(b, vector)
    await a.sync()
    await b.sync()
    const taken = onlyConflict(b)
    expect(taken).toMatchObject({ reason: 'unique', constraint: 'embeddings_pkey' })
    expect(errorOf(() => b.db.syncConflicts.retry(taken.id))).toMatchObject({
      code: 'CONSTRAINT',
      column: 'id',
      message: expect.stringMatching(/exists already.*new id/) as string,
    })
    const other = newId()
    expect(b.db.syncConflicts.retry(taken.id, { id: other })).toMatchObject({ id: other, vector })
    await everyoneSyncs()
    expect(a.db.embeddings.find(other)).toMatchObject({ vector, payload: { a: 1 } })
    expect(a.db.embeddings.find(id)?.vector).toEqual(Float32Array.of(1))
    await mustEqualCentre(a, b)
  })

  test('of an insert whose id was deleted says that it never comes back', async () => {
    const row = newIncident(a)
    await a.sync()
    await fleet.sql('DELETE FROM incidents')
    await a.sync()
    a.db.incidents.create({ id: row.id, title: 'again', severity: 'low', source: 'x' })
    await a.sync()
    const { id } = onlyConflict(a)
    expect(errorOf(() => a.db.syncConflicts.retry(id))).toMatchObject({
      code: 'CONSTRAINT',
      message: expect.stringContaining('never comes back') as string,
    })
    const other = newId()
    a.db.syncConflicts.retry(id, { id: other })
    await a.sync()
    expect(await fleet.sql('SELECT id, title FROM incidents')).toEqual([
      { id: other, title: 'again' },
    ])
  })

  test('of an update writes its columns on the row as it now is', async () => {
    const { id } = newIncident(a)
    await everyoneSyncs()
    await setRole('viewer')
    await fleet.sql('UPDATE incidents SET assigned_to = ?', userId)
    a.db.incidents.update(id, { title: 'mine', related_incidents: [id, null] })
    await a.sync()
    const conflict = onlyConflict(a)
    expect(conflict).toMatchObject({
      state: 'rejected',
      reason: 'forbidden',
      base: { title: 'first', related_incidents: null },
      theirs: { id, title: 'first', assigned_to: userId },
    })
    expect(Object.keys(conflict.mine ?? {}).toSorted()).toEqual(['related_incidents', 'title'])

    await setRole('developer')
    await fleet.sql(`UPDATE incidents SET root_cause = 'central', title = 'central'`)
    await a.sync()
    expect(a.db.syncConflicts.retry(conflict.id, { severity: 'high' })).toMatchObject({
      title: 'mine',
      severity: 'high',
      root_cause: 'central',
      related_incidents: [id, null],
    })
    await a.sync()
    expect(a.outcomes.at(-1)).toMatchObject({ kind: 'applied', id })
    expect(await fleet.sql('SELECT title, severity, root_cause FROM incidents')).toEqual([
      { title: 'mine', severity: 'high', root_cause: 'central' },
    ])
    await mustEqualCentre(a)
  })

  test('of a delete deletes, takes no patch, and shows the row that it would remove', async () => {
    const conversation = a.db.conversations.create({ title: 'x' })
    const said = a.db.messages.create({
      conversation_id: conversation.id,
      role: 'user',
      content: 'said',
    })
    const { id } = newIncident(a)
    await a.sync()
    a.db.transaction(() => {
      a.db.messages.delete(said.id)
      a.db.incidents.delete(id)
    })
    await a.sync()
    expect(a.db.syncConflicts.list()).toHaveLength(2)
    const [message] = a.db.syncConflicts.list({ table: 'messages' })
    expect(message).toMatchObject({ state: 'dependency_failed', base: { content: 'said' } })
    const [incident] = a.db.syncConflicts.list({ row: id })
    expect(incident).toMatchObject({ state: 'rejected', op: 'delete', base: { title: 'first' } })
    const again = (patch = {}) => a.db.syncConflicts.retry(incident?.id ?? '', patch)
    expect(errorOf(() => again({ title: 'x' }))).toMatchObject({ code: 'INVALID_VALUE' })
    await setRole('admin')
    expect(again()).toBeUndefined()
    expect(a.db.incidents.find(id)).toBeUndefined()
    await a.sync()
    expect(await fleet.sql('SELECT id FROM incidents')).toEqual([])
    expect(a.db.syncConflicts.list().map(({ table }) => table)).toEqual(['messages'])
  })

  test('whose row is only marked as deleted marks it', async () => {
    const { id } = a.db.workflows.create({ name: 'W', definition: {} })
    await a.sync()
    await fleet.sql('UPDATE users SET role = ? WHERE id = ?', 'viewer', userId)
    const incident = newIncident(a)
    await a.sync()
    a.db.syncConflicts.discard(onlyConflict(a).id)
    a.db.transaction(() => {
      a.db.workflows.delete(id)
      a.db.incidents.create({ id: incident.id, title: 'no', severity: 'low', source: 'x' })
    })
    await a.sync()
    expect(a.db.workflows.find(id)).toBeDefined()
    const [conflict] = a.db.syncConflicts.list({ table: 'workflows' })
    expect(conflict).toMatchObject({ op: 'update', state: 'dependency_failed' })
    expect(a.db.syncConflicts.retry(conflict?.id ?? '')).toBeUndefined()
    expect(a.db.workflows.find(id)).toBeUndefined()
    await a.sync()
    expect(await fleet.sql('SELECT deleted_at IS NOT NULL AS gone FROM workflows')).toEqual([
      { gone: true },
    ])
  })

  test('that needed another one says which to retry first', async () => {
    a.db.runbooks.create({ name: 'deploy', steps: [] })
    await a.sync()
    const [runbook, run] = b.db.transaction(() => {
      const made = b.db.runbooks.create({ name: 'deploy', steps: [] })
      const execution = b.db.runbookExecutions.create({ runbook_id: made.id })
      b.db.runbookExecutions.update(execution.id, { notes: 'later' })
      return [made, execution] as const
    })
    await b.sync()
    const of = (table: string, op: string): Conflict =>
      b.db.syncConflicts.list({ table }).find((record) => record.op === op) as Conflict
    const parent = of('runbooks', 'insert')
    const child = of('runbook_executions', 'insert')
    const edit = of('runbook_executions', 'update')
    expect(parent.state).toBe('rejected')
    expect([child.state, edit.state]).toEqual(['dependency_failed', 'dependency_failed'])
    const { syncConflicts } = b.db
    expect(errorOf(() => syncConflicts.retry(child.id))).toMatchObject({
      code: 'CONSTRAINT',
      column: 'runbook_id',
      value: runbook.id,
      message: expect.stringContaining(`retry conflict ${parent.id} first`) as string,
    })
    expect(errorOf(() => syncConflicts.retry(edit.id))).toMatchObject({
      code: 'NOT_FOUND',
      message: expect.stringContaining(`retry conflict ${child.id} first`) as string,
    })
    b.db.transaction(() => {
      syncConflicts.retry(parent.id, { name: 'deploy 2' })
      syncConflicts.retry(child.id)
      syncConflicts.retry(edit.id)
    })
    expect(b.engine.status().pending).toBe(1)
    await everyoneSyncs()
    expect(a.db.runbookExecutions.find(run.id)).toMatchObject({ notes: 'later' })
    expect(b.db.syncConflicts.list()).toEqual([])
    await mustEqualCentre(a, b)
  })

  test('that was merged writes only what lost, on top of what stands now', async () => {
    const { id } = newIncident(a)
    await everyoneSyncs()
    a.db.incidents.update(id, { title: 'mine', root_cause: 'mine' })
    later()
    b.db.incidents.update(id, { title: 'theirs' })
    await b.sync()
    await a.sync()
    const conflict = onlyConflict(a)
    expect(conflict).toMatchObject({
      state: 'merged',
      base: { title: 'first', root_cause: null },
      mine: { title: 'mine', root_cause: 'mine' },
      theirs: { title: 'theirs' },
    })
    await everyoneSyncs()
    b.db.incidents.update(id, { root_cause: 'found later' })
    await everyoneSyncs()
    a.db.syncConflicts.retry(conflict.id)
    await everyoneSyncs()
    expect(b.db.incidents.find(id)).toMatchObject({ title: 'mine', root_cause: 'found later' })
    expect(a.db.syncConflicts.list()).toEqual([])
    await mustEqualCentre(a, b)
  })

  test('of a column group that lost writes the group whole', async () => {
    const { id } = await a.db.embeddings.put({
      collection: 'incident_knowledge',
      vector: Float32Array.of(1),
      model: 'm',
    })
    await everyoneSyncs()
    const write = (agent: TestAgent, value: number, model: string) =>
      agent.db.embeddings.update(id, { vector: Float32Array.of(value), model, payload: { model } })
    write(a, 2, 'm')
    later()
    write(b, 3, 'm')
    await b.sync()
    await a.sync()
    const conflict = onlyConflict(a)
    expect(conflict.state).toBe('superseded')
    expect(conflict.theirs).toEqual({ vector: Float32Array.of(3) })
    // Its vector alone under another model's name would be found by nobody.
    await everyoneSyncs()
    write(b, 4, 'other')
    await everyoneSyncs()
    a.db.syncConflicts.retry(conflict.id)
    await everyoneSyncs()
    expect(b.db.embeddings.find(id)).toMatchObject({
      vector: Float32Array.of(2),
      model: 'm',
      payload: { model: 'm' },
    })
    await mustEqualCentre(a, b)
  })

  test('of a version that was counted up leaves the row alone, and may rename it', async () => {
    b.db.workflows.create({ name: 'W', definition: { by: 'b' } })
    await b.sync()
    const { id } = a.db.workflows.create({ name: 'W', definition: { by: 'a' } })
    await a.sync()
    const conflict = onlyConflict(a)
    expect(conflict).toMatchObject({ state: 'merged', op: 'insert', theirs: { version: 2 } })
    a.db.workflows.update(id, { definition: { by: 'a', since: true } })
    a.db.syncConflicts.retry(conflict.id, { name: 'V' })
    await everyoneSyncs()
    expect(b.db.workflows.find(id)).toMatchObject({
      name: 'V',
      version: 1,
      definition: { by: 'a', since: true },
    })
    await mustEqualCentre(a, b)
  })

  test('of an audit row that was refused inserts it again: meanwhile it was not there', async () => {
    const other = await fleet.addUser()
    const { id } = a.db.auditLogs.create({
      action: 'login',
      resource_type: 'x',
      user_id: other,
    })
    const kept = a.db.auditLogs.create({ action: 'logout', resource_type: 'x' })
    await a.sync()
    const conflict = onlyConflict(a)
    expect(conflict).toMatchObject({ state: 'rejected', reason: 'forbidden', rowId: id })
    expect(a.db.auditLogs.list().map((row) => row.id)).toEqual([kept.id])
    a.db.syncConflicts.retry(conflict.id, { user_id: userId })
    await a.sync()
    expect(await fleet.sql('SELECT id, user_id FROM audit_logs WHERE id = ?', id)).toEqual([
      { id, user_id: userId },
    ])
    expect(a.db.auditLogs.list()).toHaveLength(2)
  })

  test('with a number that no double holds is refused until the patch gives another one', async () => {
    const id = newId()
    a.connection.transaction(() =>
      a.connection.run(
        `INSERT INTO workflows (id, user_id, name, definition) VALUES (?, ?, 'big', '{"n":9223372036854775807}')`,
        id,
        userId,
      ),
    )
    await a.sync()
    const conflict = onlyConflict(a)
    expect(errorOf(() => a.db.syncConflicts.retry(conflict.id))).toMatchObject({
      code: 'INVALID_VALUE',
      column: 'definition',
    })
    a.db.syncConflicts.retry(conflict.id, { definition: { n: '9223372036854775807' } })
    await a.sync()
    expect(await fleet.sql('SELECT definition FROM workflows')).toEqual([
      { definition: { n: '9223372036854775807' } },
    ])
  })
})

describe('a conflict whose outcome has not arrived', () => {
  test('can neither be retried nor discarded, tells both sides, and then can', async () => {
    const { id } = newIncident(a)
    await a.sync()
    a.db.incidents.update(id, { title: 'mine' })
    await fleet.sql('DELETE FROM incidents')
    await a.pull()
    const blocked = onlyConflict(a)
    expect(blocked).toMatchObject({
      state: 'blocked',
      mine: { title: 'mine' },
      base: { title: 'first' },
      transactionId: expect.stringMatching(/^[0-9a-f]{32}$/) as string,
    })
    const { syncConflicts } = a.db
    expect(errorOf(() => syncConflicts.retry(blocked.id))).toMatchObject({
      code: 'CONFLICT_PENDING',
    })
    expect(errorOf(() => syncConflicts.discard(blocked.id))).toMatchObject({
      code: 'CONFLICT_PENDING',
    })
    expect(onlyConflict(a)).toEqual(blocked)
    await a.sync()
    const settled = onlyConflict(a)
    expect(settled).toMatchObject({
      state: 'rejected',
      reason: 'deleted',
      transactionId: blocked.transactionId,
    })
    syncConflicts.discard(settled.id)
    expect(syncConflicts.list()).toEqual([])
    await mustEqualCentre(a)
  })
})

describe('a conflict that was decided', () => {
  test('does not come back when the whole scope is read again, nor does one that an outcome told', async () => {
    const { id } = newIncident(a)
    await everyoneSyncs()
    a.db.incidents.update(id, { title: 'mine' })
    later()
    b.db.incidents.update(id, { title: 'theirs' })
    await b.sync()
    await a.sync()
    await b.sync()
    expect(onlyConflict(a).state).toBe('superseded')
    const other = onlyConflict(b)
    expect(other.state).toBe('overwritten')
    b.db.syncConflicts.discard(other.id)
    forgetCursor(a)
    forgetCursor(b)
    await everyoneSyncs()
    expect(onlyConflict(a).state).toBe('superseded')
    expect(b.db.syncConflicts.list()).toEqual([])
    expect(errorOf(() => b.db.syncConflicts.discard(other.id))).toMatchObject({ code: 'NOT_FOUND' })
  })

  test('that was overwritten is written again, of either side', async () => {
    const { id } = newIncident(a)
    await everyoneSyncs()
    b.db.incidents.update(id, { title: 'theirs' })
    later()
    a.db.incidents.update(id, { title: 'mine' })
    await b.sync()
    await a.sync()
    // A wrote later and won, so B's value was applied and then overwritten.
    await b.sync()
    const lost = onlyConflict(b)
    const [won] = a.db.syncConflicts.list({ state: 'overwritten' }) as [Conflict]
    expect(won).toMatchObject({
      mine: { title: 'mine' },
      theirs: { title: 'theirs' },
    })
    expect(lost).toMatchObject({
      state: 'overwritten',
      mine: { title: 'theirs' },
      theirs: { title: 'mine' },
    })
    // The write itself lost nothing: retried, it leaves the row alone, whatever became of that.
    const [merged] = a.db.syncConflicts.list({ state: 'merged' }) as [Conflict]
    a.db.syncConflicts.retry(won.id, won.theirs ?? {})
    expect(a.db.syncConflicts.retry(merged.id)).toMatchObject({ title: 'theirs' })
    await everyoneSyncs()
    expect(b.db.incidents.find(id)?.title).toBe('theirs')
    b.db.incidents.update(id, { title: 'third' })
    b.db.syncConflicts.retry(lost.id)
    await everyoneSyncs()
    expect(a.db.incidents.find(id)?.title).toBe('theirs')
    expect([...a.db.syncConflicts.list(), ...b.db.syncConflicts.list()]).toEqual([])
    await mustEqualCentre(a, b)
  })
})
