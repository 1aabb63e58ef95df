/* oxlint-disable unicorn/consistent-function-scoping -- a helper stands beside the tests that it helps */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { newId } from '../../schema/values/id.ts'
import type { AgentDB, Row } from '../../src/index.ts'
import { acknowledgeAll, asCentre, baseOf, errorOf, logOf, openStore } from '../support/store.ts'

let db: AgentDB
beforeEach(async () => {
  db = await openStore({ clock: () => 1_780_000_000_123_456 })
})
afterEach(() => db.close())

const now = '2026-05-28T20:26:40.123456Z'
const id = expect.stringMatching(
  /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
)

const aWorkflow = (name = 'w'): Row<'workflows'> =>
  db.workflows.create({ name, definition: { steps: [] } })
const anIncident = (): Row<'incidents'> =>
  db.incidents.create({ title: 't', severity: 'high', source: 's' })

describe('a row that was made', () => {
  test('has the defaults of its table, of each table that agents write', () => {
    const conversation = db.conversations.create({})
    expect(conversation).toEqual({
      id,
      session_id: null,
      user_id: db.userId,
      title: null,
      description: null,
      tags: [],
      context_snapshot: {},
      system_prompt: null,
      model_config: {},
      message_count: 0,
      total_tokens: 0,
      total_cost_cents: 0,
      started_at: now,
      last_message_at: null,
      ended_at: null,
      created_at: now,
      updated_at: now,
      archived_at: null,
    })
    expect(
      db.messages.create({ conversation_id: conversation.id, role: 'user', content: 'hi' }),
    ).toEqual({
      id,
      conversation_id: conversation.id,
      role: 'user',
      content: 'hi',
      content_type: 'text',
      model: null,
      tokens_used: 0,
      latency_ms: null,
      tool_calls: null,
      tool_results: null,
      parent_message_id: null,
      sequence_number: 1,
      feedback_rating: null,
      feedback_comment: null,
      created_at: now,
    })
    const workflow = aWorkflow()
    expect(workflow).toMatchObject({
      user_id: db.userId,
      version: 1,
      parameters: {},
      environment_vars: {},
      triggers: [],
      is_active: true,
      is_template: false,
      deleted_at: null,
    })
    const execution = db.workflowExecutions.create({ workflow_id: workflow.id })
    expect(execution).toMatchObject({ user_id: db.userId, status: 'queued', completed_steps: [] })
    expect(
      db.stepExecutions.create({
        workflow_execution_id: execution.id,
        step_id: 's',
        step_name: 'n',
        step_type: 't',
      }),
    ).toMatchObject({ status: 'queued', retry_count: 0, max_retries: 3, queued_at: now })
    const incident = anIncident()
    expect(incident).toMatchObject({ status: 'open', affected_services: [], detected_at: now })
    const runbook = db.runbooks.create({ name: 'r', steps: [] })
    expect(runbook).toMatchObject({ version: 1, is_automated: false, execution_count: 0 })
    expect(
      db.runbookExecutions.create({ runbook_id: runbook.id, incident_id: incident.id }),
    ).toMatchObject({ executed_by: db.userId, status: 'running', step_results: [] })
    expect(db.auditLogs.create({ action: 'read', resource_type: 'file' })).toMatchObject({
      user_id: db.userId,
      success: true,
      metadata: {},
      created_at: now,
    })
    expect(
      db.embeddings.create({
        collection: 'code_embeddings',
        model: 'm',
        dimension: 2,
        vector: Float32Array.of(1, 2),
      }),
    ).toMatchObject({ user_id: db.userId, payload: {}, vector: Float32Array.of(1, 2) })
  })

  test('reads as it was returned, every column set', () => {
    const given = {
      id: newId(),
      title: 'Ünïcode 😀 \'"\\ line\nbreak',
      description: '',
      severity: 'critical',
      status: 'closed',
      source: 'x'.repeat(100),
      detection_method: 'manual',
      affected_services: ['a', null, 'q"\\', ''],
      affected_users_count: -2_147_483_648,
      blast_radius: { regions: [1.5, null, true, { deep: ['é'] }], b: 0, a: 2 ** 53 - 1 },
      assigned_to: db.userId,
      assigned_team: null,
      metadata: [],
      related_incidents: [newId()],
      root_cause: null,
      resolution_notes: 'n',
      remediation_steps: [],
      detected_at: '0001-01-01T00:00:00.000000Z',
      acknowledged_at: '2026-01-01T00:00:00.000001Z',
      resolved_at: '2026-01-01T00:00:00.000002Z',
      closed_at: '9999-12-31T23:59:59.999999Z',
      created_at: '1969-12-31T23:59:59.999999Z',
    } as const
    const created = db.incidents.create(given)
    expect(created).toEqual({ ...given, updated_at: now })
    expect(db.incidents.find(given.id)).toEqual(created)
    expect(db.incidents.list()).toEqual([created])
  })

  test('has its values in their canonical form', () => {
    const upper = newId().toUpperCase()
    const row = db.incidents.create({
      id: upper,
      title: 't',
      severity: 'low',
      source: 's',
      detected_at: '2026-01-01T02:00:00+02:00',
      metadata: { b: 1, a: -0 },
    })
    expect(row).toMatchObject({
      id: upper.toLowerCase(),
      detected_at: '2026-01-01T00:00:00.000000Z',
    })
    expect(JSON.stringify(row.metadata)).toBe('{"a":0,"b":1}')
    expect(
      db.auditLogs.create({ action: 'read', resource_type: 'x', ip_address: '::FFFF:102:304' }),
    ).toMatchObject({ ip_address: '::ffff:1.2.3.4' })
  })

  test('keeps an explicit null and takes the default for undefined', () => {
    expect(db.conversations.create({ tags: null, model_config: undefined })).toMatchObject({
      tags: null,
      model_config: {},
    })
  })

  test('gets the next number within its conversation', () => {
    const [a, b] = [db.conversations.create({}), db.conversations.create({})]
    const numberIn = (conversation_id: string, more = {}): number =>
      db.messages.create({ conversation_id, role: 'user', content: '', ...more }).sequence_number
    expect([numberIn(a.id), numberIn(a.id), numberIn(b.id)]).toEqual([1, 2, 1])
    expect([numberIn(a.id, { sequence_number: 10 }), numberIn(a.id)]).toEqual([10, 11])
  })

  test('numbers made for many at once go on from what is there and from what is given', () => {
    const [a, b] = [db.conversations.create({}), db.conversations.create({})]
    const message = (conversation: { id: string }, sequence_number?: number) =>
      ({ conversation_id: conversation.id, role: 'user', content: '', sequence_number }) as const
    db.messages.create(message(a, 4))
    const made = db.messages.createMany([
      message(a),
      message(b),
      message(a),
      message(a, 9),
      message(a),
      message(b),
    ])
    expect(made.map((row) => row.sequence_number)).toEqual([5, 1, 6, 9, 10, 2])
  })

  test('numbers go on from a number that is given among more rows than a statement takes', () => {
    const { id: conversation_id } = db.conversations.create({})
    const given = (i: number): number | undefined => (i === 40 ? 100 : undefined)
    const made = db.messages.createMany(
      Array.from({ length: 70 }, (_, i) => ({
        conversation_id,
        role: 'user',
        content: '',
        sequence_number: given(i),
      })),
    )
    const numbers = made.map((row) => row.sequence_number)
    expect(numbers).toEqual(Array.from({ length: 70 }, (_, i) => (i < 40 ? i + 1 : 100 + i - 40)))
    expect(db.messages.list({ limit: 100 })).toEqual(made)
    expect(logOf(db, 'messages').map(({ patch }) => patch)).toEqual(made)
  })

  test('of many names the one that breaks a rule', () => {
    const { id: conversation_id } = db.conversations.create({})
    const rows = Array.from({ length: 70 }, (_, i) => ({
      conversation_id,
      role: i === 50 ? 'nobody' : 'user',
      content: '',
    }))
    expect(errorOf(() => db.messages.createMany(rows))).toMatchObject({
      code: 'CONSTRAINT',
      column: 'role',
      value: 'nobody',
    })
    expect(db.messages.list()).toEqual([])
  })

  test('refers to rows of its batch that come before it, and to none that come after', () => {
    const { id: conversation_id } = db.conversations.create({})
    const ids = Array.from({ length: 40 }, () => newId())
    const linked = (offset: number) =>
      ids.map((own, i) => ({
        id: own,
        conversation_id,
        role: 'user',
        content: '',
        parent_message_id: ids[i + offset] ?? null,
      }))
    expect(errorOf(() => db.messages.createMany(linked(1)))).toMatchObject({
      code: 'CONSTRAINT',
      column: 'parent_message_id',
      value: ids[1],
    })
    expect(db.messages.createMany(linked(-1))).toHaveLength(40)
  })

  test('is not there when another of its batch fails', () => {
    const error = errorOf(() =>
      db.incidents.createMany([
        { title: 'good', severity: 'low', source: 's' },
        { title: 'bad', severity: 'none' as 'low', source: 's' },
      ]),
    )
    expect(error).toMatchObject({ code: 'INVALID_VALUE', column: 'severity', value: 'none' })
    expect(db.incidents.list()).toEqual([])
    expect(logOf(db)).toEqual([])
  })
})

describe('an update', () => {
  test('changes what is given, keeps the rest, and sets updated_at', async () => {
    let clock = 1_780_000_000_000_000
    await using own = await openStore({ clock: () => clock })
    const before = own.incidents.create({ title: 'a', severity: 'low', source: 's' })
    clock += 1
    const after = own.incidents.update(before.id, { title: 'b', root_cause: undefined })
    expect(after).toEqual({ ...before, title: 'b', updated_at: '2026-05-28T20:26:40.000001Z' })
    expect(own.incidents.find(before.id)).toEqual(after)
  })

  test('that changes nothing writes nothing', () => {
    const row = anIncident()
    acknowledgeAll(db)
    expect(db.incidents.update(row.id, {})).toEqual(row)
    expect(db.incidents.update(row.id, { title: row.title, blast_radius: null })).toEqual(row)
    expect(logOf(db)).toEqual([])
    expect(baseOf(db, 'incidents', row.id)).toBeUndefined()
  })

  test('of a row that is not there is refused, also where it was deleted', () => {
    const gone = aWorkflow()
    db.workflows.delete(gone.id)
    for (const missing of [newId(), gone.id, 'nonsense']) {
      expect(errorOf(() => db.workflows.update(missing, { name: 'x' }))).toMatchObject({
        code: 'NOT_FOUND',
        table: 'workflows',
        column: 'id',
        value: missing,
      })
    }
  })

  test('by a user of its own profile is taken, of its role refused', () => {
    expect(
      db.users.update(db.userId, { full_name: 'Ada', preferences: { theme: 'dark' } }),
    ).toMatchObject({ full_name: 'Ada', preferences: { theme: 'dark' } })
    for (const patch of [
      { role: 'admin' as const },
      { status: 'active' as const },
      { email: 'x@y.zz' },
      { mfa_enabled: true },
      { deleted_at: now },
    ]) {
      expect(errorOf(() => db.users.update(db.userId, patch))).toMatchObject({
        code: 'READ_ONLY_COLUMN',
        table: 'users',
        column: Object.keys(patch)[0],
      })
    }
    expect(db.users.find(db.userId)).toMatchObject({ role: 'developer', full_name: 'Ada' })
  })
})

describe('a delete', () => {
  test('says whether there was a row', () => {
    const row = anIncident()
    expect([db.incidents.delete(row.id), db.incidents.delete(row.id)]).toEqual([true, false])
    expect(db.incidents.find(row.id)).toBeUndefined()
    expect(db.incidents.delete(newId())).toBe(false)
  })

  test('of a workflow marks it: lists and find hide it, includeDeleted shows it', () => {
    const [kept, gone] = [aWorkflow('kept'), aWorkflow('gone')]
    const execution = db.workflowExecutions.create({ workflow_id: gone.id })
    expect([db.workflows.delete(gone.id), db.workflows.delete(gone.id)]).toEqual([true, false])
    expect(db.workflows.find(gone.id)).toBeUndefined()
    expect(db.workflows.list()).toEqual([kept])
    expect(
      db.workflows.list({ includeDeleted: true }).map((row) => [row.id, row.deleted_at]),
    ).toEqual([
      [kept.id, null],
      [gone.id, now],
    ])
    expect(db.workflowExecutions.find(execution.id)).toEqual(execution)
  })

  test('of an own account and of audit rows is refused', () => {
    expect(errorOf(() => db.users.delete(db.userId))).toMatchObject({ code: 'READ_ONLY_COLUMN' })
    const row = db.auditLogs.create({ action: 'login', resource_type: 'x' })
    expect(errorOf(() => db.auditLogs.delete(row.id))).toMatchObject({
      code: 'READ_ONLY_TABLE',
      table: 'audit_logs',
    })
    expect(db.auditLogs.find(row.id)).toEqual(row)
  })
})

describe('bad input', () => {
  /** Runs `write`, checks that it left nothing behind, and gives what it threw. */
  function refused(write: () => unknown): ReturnType<typeof errorOf> {
    const before = [db.incidents.list(), db.messages.list(), db.workflows.list(), logOf(db)]
    const error = errorOf(write)
    expect([db.incidents.list(), db.messages.list(), db.workflows.list(), logOf(db)]).toEqual(
      before,
    )
    return error
  }
  const incident = { title: 't', severity: 'low', source: 's' } as const

  test.each([
    ['title', 'x'.repeat(501)],
    ['title', 'a\0b'],
    ['title', '\ud800'],
    ['title', 7],
    ['title', null],
    ['severity', 'urgent'],
    ['affected_users_count', 1.5],
    ['affected_users_count', 2 ** 31],
    ['affected_users_count', '1'],
    ['affected_services', 'a'],
    ['affected_services', [1]],
    ['related_incidents', ['x']],
    ['assigned_to', 'me'],
    ['detected_at', 'yesterday'],
    ['detected_at', '2023-02-29T00:00:00Z'],
    ['id', '1'],
  ])('in %s (%j) is named with its table, column and value', (column, value) => {
    const error = refused(() => db.incidents.create({ ...incident, [column]: value }))
    expect(error).toMatchObject({ code: 'INVALID_VALUE', table: 'incidents', column, value })
    expect(error.message).toContain(`incidents.${column}`)
    const row = db.incidents.create(incident)
    expect(refused(() => db.incidents.update(row.id, { [column]: value }))).toMatchObject({
      // An id never changes, whatever it is given.
      code: column === 'id' ? 'READ_ONLY_COLUMN' : 'INVALID_VALUE',
      table: 'incidents',
      column,
    })
  })

  test('in JSON names the path and does not repeat the text, which may be a secret', () => {
    const error = refused(() =>
      db.workflows.create({
        name: 'w',
        definition: {},
        environment_vars: { KEY: 'hunter2', bad: [Number.NaN] },
      }),
    )
    expect(error).toMatchObject({ code: 'INVALID_VALUE', column: 'environment_vars' })
    expect(error.message).toContain('$.bad[0]')
    expect(JSON.stringify([error.message, error.value ?? null])).not.toContain('hunter2')
  })

  test('that is missing is named', () => {
    expect(
      refused(() => db.incidents.create({ title: 't', severity: 'low' } as never)),
    ).toMatchObject({ code: 'INVALID_VALUE', table: 'incidents', column: 'source' })
    expect(refused(() => db.messages.create({ role: 'user', content: '' } as never))).toMatchObject(
      { code: 'INVALID_VALUE', table: 'messages', column: 'conversation_id' },
    )
  })

  test('for columns that are unknown, the server’s or kept by the store is refused', () => {
    for (const column of ['colour', 'toString', '__proto__x']) {
      expect(refused(() => db.incidents.create({ ...incident, [column]: 1 }))).toMatchObject({
        code: 'UNKNOWN_COLUMN',
        table: 'incidents',
        column,
      })
    }
    expect(
      refused(() => db.users.update(db.userId, { password_hash: 'x' } as never)),
    ).toMatchObject({ code: 'UNKNOWN_COLUMN', column: 'password_hash' })
    expect(
      refused(() => db.incidents.create({ ...incident, updated_at: now } as never)),
    ).toMatchObject({ code: 'READ_ONLY_COLUMN', column: 'updated_at' })
    const conversation = db.conversations.create({})
    for (const patch of [{ message_count: 5 }, { user_id: newId() }, { id: newId() }]) {
      expect(refused(() => db.conversations.update(conversation.id, patch as never))).toMatchObject(
        { code: 'READ_ONLY_COLUMN', column: Object.keys(patch)[0] },
      )
    }
    const message = db.messages.create({
      conversation_id: conversation.id,
      role: 'user',
      content: 'said',
    })
    expect(refused(() => db.messages.update(message.id, { content: 'unsaid' }))).toMatchObject({
      code: 'READ_ONLY_COLUMN',
      column: 'content',
    })
    expect(db.messages.update(message.id, { feedback_rating: 5 }).feedback_rating).toBe(5)
  })

  test('that a check refuses names the constraint, the column and the value', () => {
    const conversation = db.conversations.create({})
    expect(
      refused(() =>
        db.messages.create({ conversation_id: conversation.id, role: 'robot', content: '' }),
      ),
    ).toMatchObject({
      code: 'CONSTRAINT',
      table: 'messages',
      constraint: 'chk_role',
      column: 'role',
      value: 'robot',
    })
    const message = db.messages.create({
      conversation_id: conversation.id,
      role: 'user',
      content: '',
    })
    expect(refused(() => db.messages.update(message.id, { feedback_rating: 6 }))).toMatchObject({
      code: 'CONSTRAINT',
      constraint: 'messages_feedback_rating_check',
      column: 'feedback_rating',
      value: 6,
    })
    expect(
      refused(() => db.incidents.create({ ...incident, resolved_at: '2000-01-01' })),
    ).toMatchObject({ code: 'CONSTRAINT', table: 'incidents', constraint: 'chk_incident_timing' })
    expect(
      refused(() =>
        db.embeddings.create({
          collection: 'code_embeddings',
          model: 'm',
          dimension: 3,
          vector: Float32Array.of(1),
        }),
      ),
    ).toMatchObject({ code: 'CONSTRAINT', constraint: 'chk_embedding_dimension' })
  })

  test('that a unique key refuses names the columns', () => {
    aWorkflow('same')
    expect(refused(() => aWorkflow('same'))).toMatchObject({
      code: 'CONSTRAINT',
      table: 'workflows',
      column: 'user_id, name, version',
    })
    const row = db.incidents.create(incident)
    expect(refused(() => db.incidents.create({ ...incident, id: row.id }))).toMatchObject({
      code: 'CONSTRAINT',
      table: 'incidents',
      column: 'id',
    })
  })

  test('that refers to nothing names the reference, on create and on update', () => {
    const nobody = newId()
    expect(
      refused(() => db.messages.create({ conversation_id: nobody, role: 'user', content: '' })),
    ).toMatchObject({
      code: 'CONSTRAINT',
      table: 'messages',
      column: 'conversation_id',
      value: nobody,
    })
    const row = db.incidents.create(incident)
    expect(refused(() => db.incidents.update(row.id, { assigned_to: nobody }))).toMatchObject({
      code: 'CONSTRAINT',
      table: 'incidents',
      column: 'assigned_to',
      value: nobody,
    })
  })
})

describe('what only the centre writes', () => {
  const session = (): string => {
    const sessionId = newId()
    asCentre(
      db,
      `INSERT INTO sessions (id, user_id, ip_address, expires_at) VALUES (?, ?, '::1', '2999-01-01T00:00:00.000000Z')`,
      sessionId,
      db.userId,
    )
    return sessionId
  }

  test('sessions are read, never written, by whatever way', () => {
    const sessionId = session()
    expect(db.sessions.find(sessionId)).toMatchObject({ user_id: db.userId, status: 'active' })
    for (const write of [
      () => db.sessions.create({ user_id: db.userId, ip_address: '::1', expires_at: now }),
      () => db.sessions.update(sessionId, { status: 'expired' }),
      () => db.sessions.delete(sessionId),
    ]) {
      expect(errorOf(write)).toMatchObject({ code: 'READ_ONLY_TABLE', table: 'sessions' })
    }
    expect(db.sessions.list()).toHaveLength(1)
    expect(logOf(db)).toEqual([])
  })

  test('users are not made by agents', () => {
    expect(errorOf(() => db.users.create({ email: 'a@b.co', username: 'abc' }))).toMatchObject({
      code: 'READ_ONLY_TABLE',
      table: 'users',
    })
    expect(db.users.list()).toHaveLength(1)
  })

  test('rows that only stand in for a reference are hidden, and nobody writes them', () => {
    const stub = anIncident()
    const runbook = db.runbooks.create({ name: 'r', steps: [] })
    const execution = db.runbookExecutions.create({ runbook_id: runbook.id, incident_id: stub.id })
    asCentre(db, 'INSERT INTO sync_stub (id, tbl) VALUES (?, 8)', stub.id)
    expect(db.incidents.find(stub.id)).toBeUndefined()
    expect(db.incidents.list({ includeDeleted: true })).toEqual([])
    expect(db.runbookExecutions.find(execution.id)?.incident_id).toBe(stub.id)
    expect(errorOf(() => db.incidents.update(stub.id, { title: 'x' }))).toMatchObject({
      code: 'READ_ONLY_TABLE',
    })
    expect(errorOf(() => db.incidents.delete(stub.id))).toMatchObject({ code: 'READ_ONLY_TABLE' })
  })
})

describe('statistics of a conversation', () => {
  test('follow its messages', () => {
    const c = db.conversations.create({})
    const say = (tokens_used: number | null, created_at: string): Row<'messages'> =>
      db.messages.create({
        conversation_id: c.id,
        role: 'user',
        content: '',
        tokens_used,
        created_at,
      })
    const first = say(5, '2026-01-02T00:00:00.000000Z')
    say(null, '2026-01-01T00:00:00.000000Z')
    expect(db.conversations.find(c.id)).toMatchObject({
      message_count: 2,
      total_tokens: 5,
      last_message_at: '2026-01-02T00:00:00.000000Z',
    })
    db.messages.delete(first.id)
    expect(db.conversations.find(c.id)).toMatchObject({ message_count: 1, total_tokens: 0 })
  })
})

test('a store that is closed says so', async () => {
  const own = await openStore()
  const row = own.conversations.create({})
  await own.close()
  await own.close()
  for (const use of [
    () => own.conversations.find(row.id),
    () => own.conversations.list(),
    () => own.conversations.create({}),
    () => own.transaction(() => 1),
  ]) {
    expect(errorOf(use)).toMatchObject({ code: 'STORE_CLOSED' })
  }
})
