import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { loggedMutations } from '../../schema/sqlite/logged-images.ts'
import { newId } from '../../schema/values/id.ts'
import { Fleet, type TestAgent } from '../support/fleet.ts'

let fleet: Fleet
let userId: string
let a: TestAgent
let b: TestAgent

beforeAll(async () => {
  fleet = await Fleet.start()
})
afterAll(() => fleet[Symbol.asyncDispose]())
beforeEach(async () => {
  await fleet.clear()
  userId = await fleet.addUser()
  a = await fleet.addAgent(userId)
  b = await fleet.addAgent(userId)
})

const outbox = (agent: TestAgent): unknown[] =>
  agent.connection.all(`SELECT op, id, patch, pushed FROM ${loggedMutations} ORDER BY n`)

/** What an agent has sent, as [operation, row]. */
const sent = (agent: TestAgent): [string, string][] =>
  agent.sentPushes.flatMap(({ transactions }) =>
    transactions.flatMap(({ mutations }) =>
      mutations.map(([, op, id]): [string, string] => [op, id]),
    ),
  )

async function mustEqualCentre(...agents: TestAgent[]): Promise<void> {
  for (const agent of agents) {
    const { local, central } = await agent.pull()
    expect(local).toEqual(central)
    expect(agent.connection.all('PRAGMA foreign_key_check')).toEqual([])
  }
}

async function everyoneSyncs(): Promise<void> {
  for (let round = 0; round < 2; round++) for (const agent of [a, b]) await agent.sync()
}

describe('a pending mutation', () => {
  test('stays visible and counts once between the reply to its push and the batch that holds it', async () => {
    const conversation = a.db.conversations.create({ title: 'x' })
    await a.sync()
    const message = a.db.messages.create({
      conversation_id: conversation.id,
      role: 'user',
      content: 'hello',
      tokens_used: 3,
    })
    expect(await a.sync(['none', 'refuse'])).toBe(false)
    expect(await fleet.sql('SELECT id FROM messages')).toEqual([{ id: message.id }])
    expect(a.engine.status().pending).toBe(1)
    expect(a.db.messages.find(message.id)).toBeDefined()
    expect(a.db.conversations.find(conversation.id)).toMatchObject({
      message_count: 1,
      total_tokens: 3,
    })

    await a.pull()
    expect(a.engine.status().pending).toBe(0)
    expect(a.db.messages.find(message.id)).toEqual(message)
    expect(a.db.conversations.find(conversation.id)).toMatchObject({
      message_count: 1,
      total_tokens: 3,
    })
  })

  test('adds to statistics that arrive meanwhile from others', async () => {
    const conversation = a.db.conversations.create({ title: 'x' })
    await everyoneSyncs()
    const say = (agent: TestAgent): unknown =>
      agent.db.messages.create({ conversation_id: conversation.id, role: 'user', content: 'hi' })
    say(b)
    say(b)
    await b.sync()
    say(a)
    await a.pull()
    expect(a.db.conversations.find(conversation.id)?.message_count).toBe(3)
    await a.sync()
    expect(a.db.conversations.find(conversation.id)?.message_count).toBe(3)
    await mustEqualCentre(a)
  })

  test('that deletes a message is counted once while its conversation goes to another user and comes back', async () => {
    const other = await fleet.addUser()
    const conversation = a.db.conversations.create({ title: 'x' })
    const [doomed] = ['first', 'second'].map((content) =>
      a.db.messages.create({ conversation_id: conversation.id, role: 'user', content }),
    )
    await everyoneSyncs()
    a.db.messages.delete(doomed?.id ?? '')
    const count = (): number | null | undefined =>
      a.db.conversations.find(conversation.id)?.message_count
    expect(count()).toBe(1)
    await fleet.sql(`UPDATE conversations SET user_id = '${other}' WHERE id = '${conversation.id}'`)
    await a.pull()
    expect(count()).toBeUndefined()
    await fleet.sql(
      `UPDATE conversations SET user_id = '${userId}' WHERE id = '${conversation.id}'`,
    )
    await a.pull()
    expect(count()).toBe(1)
    expect(a.db.messages.list()).toHaveLength(1)
  })

  test('is merged against what its writer had seen when it committed, not when it was sent', async () => {
    const incident = a.db.incidents.create({ title: 'first', severity: 'low', source: 'x' })
    await everyoneSyncs()
    a.db.incidents.update(incident.id, { title: 'mine' })
    expect(a.connection.get('SELECT before FROM sync_log')).toEqual({ before: '{"title":"first"}' })
    const { position } = a.engine.status()
    b.db.incidents.update(incident.id, { title: 'theirs' })
    await b.sync()

    await a.pull()
    expect(a.engine.status().position).toBeGreaterThan(position)
    expect(a.connection.get('SELECT position FROM sync_tx')).toEqual({ position })
    await a.sync()
    // B wrote later and wins; A had not seen it, so A's value is kept as a conflict and not just gone.
    expect(a.outcomes.at(-1)).toMatchObject({ kind: 'superseded', id: incident.id })
    expect(a.db.syncConflicts.list({ state: 'superseded' })).toMatchObject([
      { rowId: incident.id, mine: { title: 'mine' }, theirs: { title: 'theirs' } },
    ])
    expect(a.db.incidents.find(incident.id)?.title).toBe('theirs')
  })

  test('does not clash with an earlier one of the same store', async () => {
    const incident = a.db.incidents.create({ title: 'first', severity: 'low', source: 'x' })
    await a.sync()
    a.db.incidents.update(incident.id, { title: 'second' })
    await a.sync(['lose'])
    a.db.incidents.update(incident.id, { title: 'third' })
    a.db.incidents.update(incident.id, { title: 'fourth' })
    await a.sync()
    expect(a.outcomes.map(({ kind }) => kind)).toEqual(['applied', 'applied', 'applied', 'applied'])
    expect(a.db.syncConflicts.list()).toEqual([])
    expect(await fleet.sql('SELECT title FROM incidents')).toEqual([{ title: 'fourth' }])
  })

  test('keeps its reason when the reply to its push is lost and the process dies', async () => {
    a.db.runbooks.create({ name: 'deploy', steps: [] })
    await a.sync()
    const second = b.db.runbooks.create({ name: 'deploy', steps: [] })
    expect(await b.sync(['die-after'])).toBe(false)
    await b.sync()
    expect(b.outcomes).toMatchObject([{ kind: 'rejected', id: second.id, sqlstate: '23505' }])
    expect(b.db.syncConflicts.list()).toMatchObject([
      { state: 'rejected', rowId: second.id, reason: 'unique', constraint: 'runbooks_name_key' },
    ])
    expect(b.db.syncConflicts.list()[0]?.mine).toMatchObject({ name: 'deploy' })
    expect(b.db.runbooks.find(second.id)).toBeUndefined()
    await mustEqualCentre(a, b)
  })

  test('is undone when it is refused, also where it was written by raw SQL', async () => {
    const incident = a.db.incidents.create({ title: 'first', severity: 'low', source: 'x' })
    await a.sync()
    await fleet.sql(`UPDATE users SET role = 'viewer' WHERE id = ?`, userId)
    await fleet.sql('UPDATE incidents SET assigned_to = ?', userId)
    await a.db.kysely
      .updateTable('incidents')
      .set({ title: 'raw' })
      .where('id', '=', incident.id)
      .execute()
    expect(a.connection.get('SELECT image FROM sync_base')).toMatchObject({
      image: expect.stringContaining('"title":"first"') as string,
    })
    await a.sync()
    expect(a.outcomes.at(-1)).toMatchObject({ kind: 'rejected', reason: 'forbidden' })
    expect(a.db.incidents.find(incident.id)?.title).toBe('first')
    await mustEqualCentre(a)
  })
})

describe('a write', () => {
  test('that changes nothing leaves no trace, so that no time differs from the centre for ever', async () => {
    const workflow = a.db.workflows.create({ name: 'W', definition: {} })
    await a.sync()
    const before = a.db.workflows.find(workflow.id)
    expect(a.db.workflows.update(workflow.id, { name: 'W' })).toEqual(before)
    a.connection.transaction(() =>
      a.connection.run('UPDATE workflows SET name = name WHERE id = ?', workflow.id),
    )
    expect(a.db.workflows.find(workflow.id)).toEqual(before)
    expect(outbox(a)).toEqual([])
    expect(a.connection.all('SELECT * FROM sync_base')).toEqual([])
  })

  test('to a derived column alone is taken back by the next acknowledgement', async () => {
    const conversation = a.db.conversations.create({ title: 'x' })
    await a.sync()
    const settled = a.db.conversations.find(conversation.id)
    a.connection.transaction(() => a.connection.run('UPDATE conversations SET message_count = 77'))
    a.db.auditLogs.create({ action: 'read', resource_type: 'x' })
    await a.sync()
    expect(a.db.conversations.find(conversation.id)).toEqual(settled)
    expect(a.connection.all('SELECT * FROM sync_base')).toEqual([])
  })

  test('by REPLACE is captured as the delete and the insert that it is', async () => {
    const old = a.db.runbooks.create({ name: 'deploy', steps: [] })
    await a.sync()
    const id = newId()
    a.connection.transaction(() =>
      a.connection.run(
        `INSERT OR REPLACE INTO runbooks (id, name, steps) VALUES (?, 'deploy', '[]')`,
        id,
      ),
    )
    expect(outbox(a)).toMatchObject([
      { op: 'delete', id: old.id },
      { op: 'insert', id },
    ])
  })

  test('by a foreign key action is never sent: the centre does its own', async () => {
    const conversation = a.db.conversations.create({ title: 'x' })
    const say = (parent: string | null): string =>
      a.db.messages.create({
        conversation_id: conversation.id,
        role: 'user',
        content: 'x',
        parent_message_id: parent,
      }).id
    const parent = say(null)
    const child = say(parent)
    await everyoneSyncs()
    const before = sent(a).length

    a.db.messages.delete(parent)
    expect(a.db.messages.find(child)?.parent_message_id).toBeNull()
    await everyoneSyncs()
    a.db.conversations.delete(conversation.id)
    await everyoneSyncs()
    expect(sent(a).slice(before)).toEqual([
      ['delete', parent],
      ['delete', conversation.id],
    ])
    expect(a.outcomes.every(({ kind }) => kind === 'applied')).toBe(true)
    expect(b.db.messages.list()).toEqual([])
    await mustEqualCentre(a, b)
  })

  test('in an awaited transaction is refused whole', async () => {
    expect(() =>
      a.db.transaction(async () => {
        a.db.conversations.create({ title: 'lost' })
        await Promise.resolve()
      }),
    ).toThrowError(expect.objectContaining({ code: 'TRANSACTION_MISUSE' }) as Error)
    await expect(
      a.db.kysely.transaction().execute(async (trx) => trx.selectFrom('users').execute()),
    ).rejects.toMatchObject({ code: 'TRANSACTION_MISUSE' })
    expect(a.db.conversations.list()).toEqual([])
    expect(outbox(a)).toEqual([])
    a.db.conversations.create({ title: 'kept' })
    expect(a.db.conversations.list()).toHaveLength(1)
  })
})

describe('a batch', () => {
  test('that changes a parent leaves its children and their references alone', async () => {
    const session = newId()
    await fleet.sql(
      `INSERT INTO sessions (id, user_id, token_hash, ip_address, expires_at) VALUES (?, ?, 'h', '10.0.0.1', '2099-01-01')`,
      session,
      userId,
    )
    await a.sync()
    const conversation = a.db.conversations.create({ title: 'x', session_id: session })
    const workflow = a.db.workflows.create({ name: 'W', definition: {} })
    const run = a.db.workflowExecutions.create({ workflow_id: workflow.id })
    await a.sync()
    await fleet.sql(`UPDATE sessions SET status = 'idle'`)
    await fleet.sql(`UPDATE workflows SET description = 'central'`)
    await a.sync()
    expect(a.db.sessions.find(session)?.status).toBe('idle')
    expect(a.db.workflows.find(workflow.id)?.description).toBe('central')
    expect(a.db.conversations.find(conversation.id)?.session_id).toBe(session)
    expect(a.db.workflowExecutions.find(run.id)).toBeDefined()
    expect(outbox(a)).toEqual([])
  })

  test('in which two rows change places on a unique key goes in', async () => {
    const one = a.db.runbooks.create({ name: 'one', steps: [] })
    const two = a.db.runbooks.create({ name: 'two', steps: [] })
    await everyoneSyncs()
    await fleet.sql(
      `DO $$ BEGIN UPDATE runbooks SET name = 'moving' WHERE name = 'one'; UPDATE runbooks SET name = 'one' WHERE name = 'two'; UPDATE runbooks SET name = 'two' WHERE name = 'moving'; END $$`,
    )
    await everyoneSyncs()
    for (const { db } of [a, b]) {
      expect(db.runbooks.find(one.id)?.name).toBe('two')
      expect(db.runbooks.find(two.id)?.name).toBe('one')
    }
    await mustEqualCentre(a, b)
  })

  test('that takes the unique key of a pending row displaces it with what refers to it, and the centre gives both back', async () => {
    await everyoneSyncs()
    const theirs = b.db.workflows.create({ name: 'W', definition: { by: 'b' } })
    await b.sync()
    const mine = a.db.workflows.create({ name: 'W', definition: { by: 'a' } })
    const run = a.db.workflowExecutions.create({ workflow_id: mine.id })
    await a.pull()
    expect(a.db.workflows.list().map(({ id }) => id)).toEqual([theirs.id])
    expect(a.db.workflowExecutions.list()).toEqual([])
    expect(
      a.db.syncConflicts
        .list({ state: 'blocked' })
        .map(({ rowId }) => rowId)
        .toSorted(),
    ).toEqual([mine.id, run.id].toSorted())
    expect(a.connection.all('PRAGMA foreign_key_check')).toEqual([])
    expect(a.engine.status().pending).toBe(2)

    await a.sync()
    expect(a.db.workflows.find(mine.id)).toMatchObject({ name: 'W', version: 2 })
    expect(a.db.workflowExecutions.find(run.id)).toMatchObject({ workflow_id: mine.id })
    expect(a.outcomes).toMatchObject([
      { kind: 'merged', reason: 'next_version', changed: { version: 2 } },
      { kind: 'applied', id: run.id },
    ])
    expect(a.db.syncConflicts.list({ state: 'blocked' })).toEqual([])
    await everyoneSyncs()
    await mustEqualCentre(a, b)
  })

  test('that takes the parent of a pending row displaces the row, and its outcome says why', async () => {
    const conversation = a.db.conversations.create({ title: 'x' })
    await everyoneSyncs()
    b.db.conversations.delete(conversation.id)
    await b.sync()
    const message = a.db.messages.create({
      conversation_id: conversation.id,
      role: 'user',
      content: 'too late',
    })
    await a.pull()
    expect(a.db.messages.find(message.id)).toBeUndefined()
    expect(a.db.syncConflicts.list()).toMatchObject([{ state: 'blocked', rowId: message.id }])
    await a.sync()
    expect(a.outcomes.at(-1)).toMatchObject({
      kind: 'rejected',
      reason: 'deleted',
      id: message.id,
    })
    expect(a.db.syncConflicts.list()).toMatchObject([
      { state: 'rejected', reason: 'deleted', rowId: message.id, mine: { content: 'too late' } },
    ])
    await mustEqualCentre(a, b)
  })

  test('that takes a row away hides the pending changes of it, tells so, and their outcome says why', async () => {
    const incident = a.db.incidents.create({ title: 'x', severity: 'low', source: 'x' })
    await a.sync()
    a.db.incidents.update(incident.id, { title: 'mine' })
    await fleet.sql('DELETE FROM incidents')
    await a.pull()
    expect(a.db.incidents.find(incident.id)).toBeUndefined()
    expect(a.db.syncConflicts.list()).toMatchObject([
      { state: 'blocked', rowId: incident.id, mine: { title: 'mine' } },
    ])
    await a.sync()
    expect(a.db.syncConflicts.list()).toMatchObject([
      { state: 'rejected', reason: 'deleted', rowId: incident.id, mine: { title: 'mine' } },
    ])
    await mustEqualCentre(a)
  })

  test('that refuses a message leaves the statistics of its conversation right', async () => {
    const conversation = a.db.conversations.create({ title: 'x' })
    const say = (parent: string | null): string =>
      a.db.messages.create({
        conversation_id: conversation.id,
        role: 'user',
        content: 'x',
        tokens_used: 5,
        parent_message_id: parent,
      }).id
    const parent = say(null)
    await everyoneSyncs()
    await fleet.sql('DELETE FROM messages')
    say(parent)
    expect(a.db.conversations.find(conversation.id)?.message_count).toBe(2)
    await a.sync()
    expect(a.outcomes.at(-1)).toMatchObject({ kind: 'rejected', reason: 'deleted' })
    expect(a.db.conversations.find(conversation.id)).toMatchObject({
      message_count: 0,
      total_tokens: 0,
    })
    await mustEqualCentre(a)
  })

  test('that refuses a message counts those that are still pending, and no others', async () => {
    const conversation = a.db.conversations.create({ title: 'x' })
    await a.sync()
    // Refused for what it holds: nothing of the conversation changes at the centre.
    a.connection.transaction(() =>
      a.connection.run(
        `INSERT INTO messages (id, conversation_id, role, content, sequence_number, tool_calls) VALUES (?, ?, 'user', 'x', 1, '9223372036854775807')`,
        newId(),
        conversation.id,
      ),
    )
    expect(await a.sync(['none', 'refuse'])).toBe(false)
    a.db.messages.create({ conversation_id: conversation.id, role: 'user', content: 'kept' })
    expect(a.db.conversations.find(conversation.id)?.message_count).toBe(2)
    await a.pull()
    expect(a.outcomes.at(-1)).toMatchObject({ kind: 'rejected', reason: 'invalid_value' })
    expect(a.db.messages.list().map(({ content }) => content)).toEqual(['kept'])
    expect(a.db.conversations.find(conversation.id)?.message_count).toBe(1)
    await a.sync()
    await mustEqualCentre(a)
  })

  test('of a delete at the centre takes the cascaded children along', async () => {
    const conversation = a.db.conversations.create({ title: 'x' })
    a.db.messages.create({ conversation_id: conversation.id, role: 'user', content: 'x' })
    const workflow = a.db.workflows.create({ name: 'W', definition: {} })
    const run = a.db.workflowExecutions.create({ workflow_id: workflow.id })
    a.db.stepExecutions.create({
      workflow_execution_id: run.id,
      step_id: 's',
      step_name: 's',
      step_type: 's',
    })
    await everyoneSyncs()
    expect(b.db.stepExecutions.list()).toHaveLength(1)
    await fleet.sql('DELETE FROM conversations')
    await fleet.sql('DELETE FROM workflows')
    await everyoneSyncs()
    for (const { db } of [a, b]) {
      expect(db.messages.list()).toEqual([])
      expect(db.stepExecutions.list()).toEqual([])
    }
    await mustEqualCentre(a, b)
  })

  test('with values that no agent can hold marks them and goes in', async () => {
    const incident = a.db.incidents.create({ title: 'x', severity: 'low', source: 'x' })
    await everyoneSyncs()
    await fleet.sql(
      `UPDATE incidents SET metadata = '{"n": 9223372036854775807}', resolved_at = 'infinity', detected_at = '-infinity', title = 'central'`,
    )
    await everyoneSyncs()
    const seen = b.db.incidents.find(incident.id)
    expect(seen).toMatchObject({
      title: 'central',
      metadata: { $agentdb: expect.any(String) as string },
      detected_at: '0001-01-01T00:00:00.000000Z',
      resolved_at: '9999-12-31T23:59:59.999999Z',
    })
    await mustEqualCentre(a, b)
    // The row can still be edited; what could not be held stays as the centre has it.
    b.db.incidents.update(incident.id, { root_cause: 'found' })
    await b.sync()
    expect(await fleet.sql('SELECT root_cause, metadata::text AS m FROM incidents')).toEqual([
      { root_cause: 'found', m: '{"n": 9223372036854775807}' },
    ])
  })
})

describe('leaving the scope', () => {
  let viewer: TestAgent
  let viewerId: string
  let incident: string
  let execution: string

  beforeEach(async () => {
    viewerId = await fleet.addUser('viewer')
    viewer = await fleet.addAgent(viewerId, 'viewer')
    incident = newId()
    execution = newId()
    const runbook = newId()
    await fleet.sql(`INSERT INTO runbooks (id, name, steps) VALUES (?, 'deploy', '[]')`, runbook)
    await fleet.sql(
      `INSERT INTO incidents (id, title, severity, source, assigned_to) VALUES (?, 'secret', 'low', 'x', ?)`,
      incident,
      viewerId,
    )
    await fleet.sql(
      'INSERT INTO runbook_executions (id, runbook_id, incident_id, executed_by) VALUES (?, ?, ?, ?)',
      execution,
      runbook,
      incident,
      viewerId,
    )
    await viewer.sync()
    expect(viewer.db.incidents.find(incident)?.title).toBe('secret')
    expect(viewer.db.runbookExecutions.find(execution)?.incident_id).toBe(incident)
    await fleet.sql('UPDATE incidents SET assigned_to = ?', userId)
    await viewer.sync()
  })

  test('takes the row away, fires no foreign key action and sends nothing', async () => {
    expect(viewer.db.incidents.find(incident)).toBeUndefined()
    expect(viewer.db.incidents.list()).toEqual([])
    expect(viewer.db.runbookExecutions.find(execution)?.incident_id).toBe(incident)
    expect(outbox(viewer)).toEqual([])
    await viewer.sync()
    expect(sent(viewer)).toEqual([])
    expect(await fleet.sql('SELECT incident_id FROM runbook_executions')).toEqual([
      { incident_id: incident },
    ])
    await mustEqualCentre(viewer)
  })

  test('leaves a stub that shows nothing, cannot be written, and goes with the last reference', async () => {
    expect(viewer.connection.all('SELECT id FROM sync_stub')).toEqual([{ id: incident }])
    const raw = viewer.connection.get<{ title: string; metadata: string }>(
      'SELECT title, metadata FROM incidents WHERE id = ?',
      incident,
    )
    expect(JSON.stringify(raw)).not.toContain('secret')
    expect(() => viewer.db.incidents.update(incident, { title: 'mine' })).toThrowError(
      expect.objectContaining({ code: 'READ_ONLY_TABLE' }) as Error,
    )
    await fleet.sql('DELETE FROM runbook_executions')
    await viewer.sync()
    expect(viewer.connection.all('SELECT id FROM sync_stub')).toEqual([])
    expect(viewer.connection.all('SELECT id FROM incidents')).toEqual([])
  })

  test('is undone by coming back: the stub becomes the row', async () => {
    await fleet.sql('UPDATE incidents SET assigned_to = ?', viewerId)
    await viewer.sync()
    expect(viewer.db.incidents.find(incident)?.title).toBe('secret')
    expect(viewer.connection.all('SELECT id FROM sync_stub')).toEqual([])
    await mustEqualCentre(viewer)
  })
})

describe('first contact', () => {
  test('brings the provisional user up to date in place and never sends it', async () => {
    const provisional = a.db.users.find(userId)
    expect(provisional?.email).toBe(`${userId}@provisional.invalid`)
    const conversation = a.db.conversations.create({ title: 'before' })
    a.db.embeddings.create({
      collection: 'incident_knowledge',
      model: 'm',
      dimension: 1,
      vector: Float32Array.of(1),
    })
    await a.sync()
    expect(a.db.users.find(userId)?.email).toBe(`u${userId}@example.org`)
    expect(a.db.conversations.find(conversation.id)?.user_id).toBe(userId)
    expect(a.db.embeddings.list()).toHaveLength(1)
    expect(sent(a).map(([op]) => op)).toEqual(['insert', 'insert'])
    expect(sent(a).some(([, id]) => id === userId)).toBe(false)
    await mustEqualCentre(a)
  })

  test('sends what the user changed of its own profile before it', async () => {
    a.db.users.update(userId, { full_name: 'Ada', preferences: { theme: 'dark' } })
    await a.sync()
    expect(await fleet.sql('SELECT full_name FROM users WHERE id = ?', userId)).toEqual([
      { full_name: 'Ada' },
    ])
    await mustEqualCentre(a)
  })
})
