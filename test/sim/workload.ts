import type { StoredRow } from '../../schema/codec.ts'
import { newId } from '../../schema/values/id.ts'
import type { TableName } from '../../schema/tables.ts'
import type { AgentDB } from '../../src/index.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import type { SimCentre, Statement } from './centre/centre.ts'
import type { Random } from './random.ts'

/** What programs write on agents and operators at the centre. Values come from few, so that writers meet. */
export type LocalStep = (db: AgentDB, random: Random, connection: Connection) => void

export const word = (random: Random): string => `w${random.below(6)}`
const name = (random: Random): string => random.pick(['deploy', 'roll back', 'scale']) ?? ''
/** Times that no clock of a run reaches: a status with its times must stay in order. */
export const later = (random: Random): string => `2090-01-01T00:00:0${random.below(9)}.000000Z`
const executionStatuses = ['queued', 'running', 'success', 'failed', 'cancelled'] as const
const incidentStatuses = ['open', 'acknowledged', 'investigating', 'resolved'] as const

export const localSteps: Readonly<Record<string, LocalStep>> = {
  'create conversation': (db, random) => {
    db.conversations.create({ title: word(random), tags: [word(random)] })
  },
  'create message': (db, random) => {
    const conversation = random.pick(db.conversations.list())
    if (conversation === undefined) return
    const others = db.messages.list({ where: { conversation_id: conversation.id } })
    db.messages.create({
      conversation_id: conversation.id,
      role: 'user',
      content: word(random),
      tokens_used: random.below(50),
      parent_message_id: random.chance(0.3) ? (random.pick(others)?.id ?? null) : null,
    })
  },
  'edit conversation': (db, random) => {
    const row = random.pick(db.conversations.list())
    if (row === undefined) return
    db.conversations.update(
      row.id,
      random.weighted([
        [2, { title: word(random) }],
        [2, { tags: [word(random), word(random)] }],
        [1, { title: word(random), total_cost_cents: random.below(100) }],
        [1, { model_config: { temperature: random.below(3) } }],
      ]),
    )
  },
  'delete conversation': (db, random) => {
    const row = random.pick(db.conversations.list())
    if (row !== undefined) db.conversations.delete(row.id)
  },
  'rate message': (db, random) => {
    const row = random.pick(db.messages.list())
    if (row !== undefined) db.messages.update(row.id, { feedback_rating: random.between(1, 5) })
  },
  'delete message': (db, random) => {
    const row = random.pick(db.messages.list())
    if (row !== undefined) db.messages.delete(row.id)
  },
  'create workflow': (db, random) => {
    db.workflows.create({ name: name(random), definition: { steps: [random.below(9)] } })
  },
  'edit workflow': (db, random) => {
    const row = random.pick(db.workflows.list())
    if (row === undefined) return
    db.workflows.update(
      row.id,
      random.weighted([
        [2, { name: name(random) }],
        [3, { definition: { steps: [random.below(9), 1] } }],
        [2, { version: random.between(1, 4) }],
        [2, { is_active: random.chance(0.5) }],
        [1, { description: word(random), tags: [word(random)] }],
      ]),
    )
  },
  'mark workflow deleted': (db, random) => {
    const row = random.pick(db.workflows.list())
    if (row !== undefined) db.workflows.delete(row.id)
  },
  'delete workflow': (_db, random, connection) => {
    const row = random.pick(connection.all<{ id: string }>('SELECT id FROM workflows ORDER BY id'))
    if (row !== undefined)
      connection.transaction(() => connection.run('DELETE FROM workflows WHERE id = ?', row.id))
  },
  'create execution': (db, random) => {
    const workflow = random.pick(db.workflows.list())
    if (workflow === undefined) return
    const run = db.workflowExecutions.create({ workflow_id: workflow.id, parameters: { a: 1 } })
    if (random.chance(0.7))
      db.stepExecutions.create({
        workflow_execution_id: run.id,
        step_id: word(random),
        step_name: 'first',
        step_type: 'shell',
      })
  },
  'edit execution': (db, random) => {
    const row = random.pick(db.workflowExecutions.list())
    if (row === undefined) return
    db.workflowExecutions.update(
      row.id,
      random.weighted([
        [3, { status: random.pick(executionStatuses) ?? 'running' }],
        [1, { started_at: later(random), current_step: word(random) }],
        [1, { outputs: { n: random.below(9) } }],
      ]),
    )
  },
  'edit step': (db, random) => {
    const row = random.pick(db.stepExecutions.list())
    if (row === undefined) return
    db.stepExecutions.update(
      row.id,
      random.chance(0.5)
        ? { status: random.pick(executionStatuses) ?? 'running' }
        : { retry_count: random.below(4), outputs: { n: random.below(9) } },
    )
  },
  'delete execution': (db, random) => {
    const row = random.pick(db.workflowExecutions.list())
    if (row !== undefined) db.workflowExecutions.delete(row.id)
  },
  'create incident': (db, random) => {
    const user = random.chance(0.5) ? random.pick(db.users.list()) : undefined
    db.incidents.create({
      title: word(random),
      severity: 'high',
      source: 'probe',
      assigned_to: user?.id ?? null,
    })
  },
  'edit incident': (db, random) => {
    const row = random.pick(db.incidents.list())
    if (row === undefined) return
    db.incidents.update(
      row.id,
      random.weighted([
        [3, { title: word(random) }],
        [2, { root_cause: word(random), affected_services: [word(random)] }],
        [2, { status: random.pick(incidentStatuses) ?? 'open' }],
        [1, { status: 'resolved' as const, resolved_at: later(random), title: word(random) }],
        [2, { assigned_to: random.pick(db.users.list())?.id ?? null }],
      ]),
    )
  },
  'delete incident': (db, random) => {
    const row = random.pick(db.incidents.list())
    if (row !== undefined) db.incidents.delete(row.id)
  },
  'create runbook': (db, random) => {
    db.runbooks.create({ name: name(random), steps: [random.below(9)] })
  },
  'edit runbook': (db, random) => {
    const row = random.pick(db.runbooks.list())
    if (row === undefined) return
    db.runbooks.update(
      row.id,
      random.weighted([
        [2, { name: name(random) }],
        [2, { description: word(random) }],
        [2, { steps: [random.below(9), 2] }],
        [1, { is_automated: true, tags: [word(random)] }],
      ]),
    )
  },
  'delete runbook': (db, random) => {
    const row = random.pick(db.runbooks.list())
    if (row !== undefined) db.runbooks.delete(row.id)
  },
  'execute runbook': (db, random) => {
    const runbook = random.pick(db.runbooks.list())
    if (runbook === undefined) return
    const incident = random.chance(0.7) ? random.pick(db.incidents.list()) : undefined
    db.runbookExecutions.create({ runbook_id: runbook.id, incident_id: incident?.id ?? null })
  },
  'edit runbook execution': (db, random) => {
    const row = random.pick(db.runbookExecutions.list())
    if (row !== undefined)
      db.runbookExecutions.update(row.id, { notes: word(random), success: random.chance(0.5) })
  },
  'edit profile': (db, random) => {
    db.users.update(
      db.userId,
      random.chance(0.5)
        ? { full_name: word(random) }
        : { preferences: { n: random.below(9) }, timezone: 'Asia/Tokyo' },
    )
  },
  audit: (db, random) => {
    db.auditLogs.create({ action: 'read', resource_type: word(random) })
  },
  'create embedding': (db, random) => {
    db.embeddings.create({
      collection: 'incident_knowledge',
      model: 'test',
      dimension: 2,
      vector: Float32Array.of(random.below(9), 1),
    })
  },
  'embed conversation': (db, random) => {
    const conversation = random.pick(db.conversations.list())
    if (conversation === undefined) return
    db.embeddings.create({
      collection: 'conversation_embeddings',
      model: 'test',
      dimension: 1,
      vector: Float32Array.of(random.below(9)),
      payload: {
        conversation_id: conversation.id,
        ...(random.chance(0.7) ? { user_id: db.userId } : {}),
      },
    })
  },
  'edit embedding': (db, random) => {
    const row = random.pick(db.embeddings.list())
    if (row === undefined) return
    db.embeddings.update(row.id, {
      dimension: 1,
      vector: Float32Array.of(random.below(9)),
      payload: { n: random.below(9) },
    })
  },
  'delete embedding': (db, random) => {
    const row = random.pick(db.embeddings.list())
    if (row !== undefined) db.embeddings.delete(row.id)
  },
  'learn memory': (db, random) => {
    const value = random.below(9)
    db.memory.items.create({
      record_id: newId(),
      polarity: 'success',
      title: word(random),
      description: 'when asked',
      content: word(random),
      source_query: word(random),
      model: 'test',
      dimension: 1,
      query_vector: Float32Array.of(value),
      trajectory_ids: [],
    })
  },
  'count memory': (db, random) => {
    const row = random.pick(db.memory.items.list())
    if (row !== undefined)
      db.memory.feedback({ itemId: row.id, used: true, helped: random.chance(0.5) })
  },
  'edit memory': (db, random) => {
    const row = random.pick(db.memory.items.list())
    const other = random.pick(db.memory.items.list())
    if (row === undefined || other === undefined) return
    db.memory.items.update(
      row.id,
      random.weighted([
        [2, { title: word(random), dimension: 1, query_vector: Float32Array.of(random.below(9)) }],
        [2, { superseded_by: random.chance(0.3) ? null : other.id }],
        [1, { contradicts: [other.id] }],
        [1, { kept_apart: [row.id, other.id], content: word(random) }],
        [1, { expires_at: later(random) }],
      ]),
    )
  },
  'delete memory': (db, random) => {
    const row = random.pick(db.memory.items.list())
    if (row !== undefined) db.memory.items.delete(row.id)
  },
  'record trajectory': (db, random) => {
    db.memory.recordTrajectory({ taskId: word(random), query: word(random), steps: [] })
  },
  'judge trajectory': (db, random) => {
    const row = random.pick(db.memory.trajectories.list())
    if (row === undefined) return
    const outcome = random.pick(['success', 'failure'] as const) ?? 'unknown'
    db.memory.trajectories.update(row.id, { outcome, judge: { label: outcome } })
  },
  'raw edit': (_db, random, connection) => {
    const [table, set] = random.pick([
      ['conversations', 'title = title || title, total_cost_cents = 1'],
      ['conversations', 'title = title'],
      [
        'conversations',
        `updated_at = '2001-01-01T00:00:00.000000Z', message_count = message_count`,
      ],
      ['incidents', `status = 'investigating'`],
      ['workflows', 'version = version + 1'],
      ['runbooks', `name = name || '!'`],
      ['messages', `feedback_comment = 'raw'`],
    ] as const) ?? ['conversations', 'title = title']
    const row = random.pick(connection.all<{ id: string }>(`SELECT id FROM ${table} ORDER BY id`))
    if (row === undefined) return
    connection.transaction(() => connection.run(`UPDATE ${table} SET ${set} WHERE id = ?`, row.id))
  },
}

export const localKinds = Object.keys(localSteps)

export type CentralStep = (
  centre: SimCentre,
  users: readonly string[],
  random: Random,
) => Promise<Statement[]>

export async function one(
  centre: SimCentre,
  table: TableName,
  random: Random,
): Promise<StoredRow | undefined> {
  return random.pick(await centre.rows(table))
}

export const idOf = (row: StoredRow): string => String(row['id'])

const deletable: readonly TableName[] = [
  'conversations',
  'messages',
  'incidents',
  'workflows',
  'workflow_executions',
  'runbooks',
  'sessions',
  'embeddings',
  'runbook_executions',
  'memory_items',
  'memory_trajectories',
]

export const centralSteps: Readonly<Record<string, CentralStep>> = {
  'create conversation': async (_centre, users, random) => [
    {
      op: 'insert',
      table: 'conversations',
      row: { id: newId(), user_id: random.pick(users) ?? null, title: word(random) },
    },
  ],
  'create message': async (centre, _users, random) => {
    const conversation = await one(centre, 'conversations', random)
    if (conversation === undefined) return []
    const row = {
      id: newId(),
      conversation_id: idOf(conversation),
      role: 'assistant',
      content: word(random),
      tokens_used: random.below(50),
      sequence_number: 1,
    }
    return [{ op: 'insert', table: 'messages', row }]
  },
  edit: async (centre, _users, random) => {
    const [table, values] = random.pick<readonly [TableName, StoredRow]>([
      ['conversations', { title: `c${random.below(3)}` }],
      ['incidents', { root_cause: `c${random.below(3)}` }],
      ['incidents', { status: 'acknowledged', acknowledged_at: later(random) }],
      ['workflows', { definition: `{"central":[${random.below(5)}]}` }],
      ['workflow_executions', { status: 'failed', error_message: 'central' }],
      ['runbooks', { description: `c${random.below(3)}` }],
      ['users', { full_name: `c${random.below(3)}` }],
      ['messages', { content: `c${random.below(3)}` }],
      ['embeddings', { content_preview: `c${random.below(3)}` }],
      ['memory_items', { used_count: random.below(9) }],
      ['memory_trajectories', { outcome: 'failure' }],
    ]) ?? ['conversations', {}]
    const row = await one(centre, table, random)
    return row === undefined ? [] : [{ op: 'update', table, id: idOf(row), values }]
  },
  delete: async (centre, _users, random) => {
    const table = random.pick(deletable) ?? 'messages'
    const row = await one(centre, table, random)
    return row === undefined ? [] : [{ op: 'delete', table, id: idOf(row) }]
  },
  'create session': async (centre, users, random) => {
    const user = random.pick(users) ?? ''
    const id = newId()
    const row = {
      id,
      user_id: user,
      ip_address: '10.0.0.1/24',
      expires_at: '2099-01-01T00:00:00.000000Z',
    }
    const conversations = await centre.rows('conversations')
    const own = random.pick(conversations.filter((each) => each['user_id'] === user))
    return [
      { op: 'insert', table: 'sessions', row },
      ...(own === undefined
        ? []
        : [
            {
              op: 'update',
              table: 'conversations',
              id: idOf(own),
              values: { session_id: id },
            } as const,
          ]),
    ]
  },
  'create workflow': async (_centre, users, random) => [
    {
      op: 'insert',
      table: 'workflows',
      row: {
        id: newId(),
        user_id: random.pick(users) ?? null,
        name: name(random),
        version: random.between(1, 3),
        definition: '{}',
      },
    },
  ],
  'create runbook': async (_centre, users, random) => [
    {
      op: 'insert',
      table: 'runbooks',
      row: { id: newId(), name: name(random), steps: '[]', owner_id: random.pick(users) ?? null },
    },
  ],
  'swap names': async (centre, _users, random) => {
    const [first, second] = await centre.rows('runbooks')
    if (first === undefined || second === undefined) return []
    const rename = (row: StoredRow, to: unknown): Statement => ({
      op: 'update',
      table: 'runbooks',
      id: idOf(row),
      values: { name: String(to) },
    })
    const moving = `moving ${random.below(1000)}`
    return [rename(first, moving), rename(second, first['name']), rename(first, second['name'])]
  },
  'change role': async (_centre, users, random) => {
    const role = random.pick(['viewer', 'developer', 'operator', 'admin'])
    return [
      { op: 'update', table: 'users', id: users.at(-1) ?? '', values: { role: role ?? 'viewer' } },
    ]
  },
  suspend: async (centre, users, random) => {
    const id = random.pick(users) ?? ''
    const row = (await centre.rows('users')).find((each) => each['id'] === id)
    const values = random.chance(0.5)
      ? { status: row?.['status'] === 'active' ? 'suspended' : 'active' }
      : { deleted_at: row?.['deleted_at'] === null ? '2026-01-05T09:00:00.000000Z' : null }
    return [{ op: 'update', table: 'users', id, values }]
  },
  'execute runbook': async (centre, users, random) => {
    const runbook = await one(centre, 'runbooks', random)
    const incident = await one(centre, 'incidents', random)
    if (runbook === undefined) return []
    const row = {
      id: newId(),
      runbook_id: idOf(runbook),
      incident_id: incident === undefined ? null : idOf(incident),
      executed_by: users.at(-1) ?? null,
    }
    return [{ op: 'insert', table: 'runbook_executions', row }]
  },
}

const another = (users: readonly string[], than: unknown, random: Random): string | undefined =>
  random.pick(users.filter((user) => user !== than))

/** Rows that change hands, with what belongs to them; some are changed in the same transaction. */
export const givingSteps: Readonly<Record<string, CentralStep>> = {
  'give away': async (centre, users, random) => {
    const [table, values] = random.weighted<readonly [TableName, StoredRow]>([
      [5, ['conversations', random.chance(0.3) ? { title: `c${random.below(3)}` } : {}]],
      [2, ['workflow_executions', random.chance(0.3) ? { error_message: 'central' } : {}]],
      [1, ['embeddings', {}]],
      [1, ['workflows', {}]],
      [1, ['memory_items', {}]],
    ])
    const row = await one(centre, table, random)
    const user = another(users, row?.['user_id'], random)
    if (row === undefined || user === undefined) return []
    return [{ op: 'update', table, id: idOf(row), values: { user_id: user, ...values } }]
  },
  'give away with news': async (centre, users, random) => {
    const row = await one(centre, 'conversations', random)
    const user = another(users, row?.['user_id'], random)
    if (row === undefined || user === undefined) return []
    const id = idOf(row)
    const messages = (await centre.rows('messages')).filter(
      (each) => each['conversation_id'] === id,
    )
    const message = random.pick(messages)
    const give: Statement = { op: 'update', table: 'conversations', id, values: { user_id: user } }
    const news: Statement[] = [
      {
        op: 'insert',
        table: 'messages',
        row: {
          id: newId(),
          conversation_id: id,
          role: 'assistant',
          content: word(random),
          tokens_used: random.below(50),
          sequence_number: 1,
        },
      },
    ]
    if (message !== undefined) {
      const own = { table: 'messages', id: idOf(message) } as const
      news.push(
        random.chance(0.5)
          ? { op: 'delete', ...own }
          : { op: 'update', ...own, values: { content: `c${random.below(3)}` } },
      )
    }
    return random.chance(0.5) ? [give, ...news] : [...news, give]
  },
  'assign incident': async (centre, users, random) => {
    const incident = await one(centre, 'incidents', random)
    if (incident === undefined) return []
    const values = { assigned_to: random.chance(0.3) ? null : (random.pick(users) ?? null) }
    return [{ op: 'update', table: 'incidents', id: idOf(incident), values }]
  },
}

export const givingKinds = Object.keys(givingSteps)

/** Rows that are there from the beginning: so writers meet sooner. */
export function firstRows(users: readonly string[], random: Random): Statement[] {
  const user = (): string => random.pick(users) ?? ''
  const insert = (table: TableName, row: StoredRow): Statement => ({ op: 'insert', table, row })
  const [runbook, incident] = [newId(), newId()]
  const owned = users.flatMap((id) => {
    const [conversation, workflow] = [newId(), newId()]
    const message = { conversation_id: conversation, role: 'user', content: 'first' }
    return [
      insert('conversations', { id: conversation, user_id: id, title: 'first' }),
      insert('messages', { id: newId(), ...message, tokens_used: 7, sequence_number: 1 }),
      insert('workflows', { id: workflow, user_id: id, name: 'deploy', definition: '{}' }),
    ]
  })
  return [
    ...owned,
    insert('runbooks', { id: runbook, name: 'deploy', steps: '[]', owner_id: user() }),
    insert('incidents', {
      id: incident,
      title: 'first',
      severity: 'low',
      source: 'probe',
      assigned_to: user(),
    }),
    insert('runbook_executions', {
      id: newId(),
      runbook_id: runbook,
      incident_id: incident,
      executed_by: user(),
    }),
  ]
}

export const centralKinds = Object.keys(centralSteps)
