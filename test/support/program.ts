import * as fc from 'fast-check'
import { newId } from '../../schema/values/id.ts'
import { AgentDBError } from '../../src/index.ts'
import type { AgentDB } from '../../src/index.ts'
import { internalsOf } from '../../src/internal-for-sync.ts'
import type { Fault, Fleet, TestAgent } from './fleet.ts'

/**
 * Random programs over agents and direct SQL at the centre. A step is data (a kind and small numbers), so that a
 * failure shrinks to the few steps that matter; which row a number means is decided when the step runs.
 */
export interface Step {
  readonly kind: StepKind
  readonly agent: number
  /** Picks rows and values. */
  readonly a: number
  readonly b: number
  readonly plan: readonly Fault[]
}

type LocalStep = (db: AgentDB, a: number, b: number) => void
type CentralStep = (fleet: Fleet, users: readonly string[], a: number, b: number) => Promise<void>

const at = <T>(list: readonly T[], index: number): T | undefined => list[index % list.length]
const text = (a: number): string => `t${a % 5}`
const names = ['deploy', 'roll back'] as const
const name = (a: number): string => names[a % 2] ?? ''
/** Times that no clock of the test reaches: a status with its times must stay in order. */
const later = (a: number): string => `2090-01-01T00:00:0${a % 9}.000000Z`

const localSteps = {
  conversation: (db, a) => {
    db.conversations.create({ title: text(a), tags: [text(a), null] })
  },
  message: (db, a, b) => {
    const conversation = at(db.conversations.list(), a)
    if (conversation === undefined) return
    const parent = at(db.messages.list({ where: { conversation_id: conversation.id } }), b)
    db.messages.create({
      conversation_id: conversation.id,
      role: 'user',
      content: text(b),
      tokens_used: b,
      parent_message_id: b % 3 === 0 ? (parent?.id ?? null) : null,
    })
  },
  editConversation: (db, a, b) => {
    const row = at(db.conversations.list(), a)
    if (row === undefined) return
    if (b % 3 === 0) db.conversations.update(row.id, { title: text(b) })
    else if (b % 3 === 1) db.conversations.update(row.id, { tags: [text(b)] })
    else db.conversations.update(row.id, { title: text(b), total_cost_cents: b })
  },
  deleteConversation: (db, a) => {
    const row = at(db.conversations.list(), a)
    if (row !== undefined) db.conversations.delete(row.id)
  },
  rateMessage: (db, a, b) => {
    const row = at(db.messages.list(), a)
    if (row !== undefined) db.messages.update(row.id, { feedback_rating: 1 + (b % 5) })
  },
  deleteMessage: (db, a) => {
    const row = at(db.messages.list(), a)
    if (row !== undefined) db.messages.delete(row.id)
  },
  workflow: (db, a, b) => {
    db.workflows.create({ name: name(a), definition: { steps: [b] } })
  },
  editWorkflow: (db, a, b) => {
    const row = at(db.workflows.list(), a)
    if (row === undefined) return
    if (b % 3 === 0) db.workflows.update(row.id, { name: name(b >> 2) })
    else if (b % 3 === 1) db.workflows.update(row.id, { definition: { steps: [b, b] } })
    else db.workflows.update(row.id, { version: 1 + (b % 4), is_active: b % 2 === 0 })
  },
  deleteWorkflow: (db, a) => {
    const row = at(db.workflows.list(), a)
    if (row !== undefined) db.workflows.delete(row.id)
  },
  execution: (db, a, b) => {
    const workflow = at(db.workflows.list(), a)
    if (workflow === undefined) return
    const run = db.workflowExecutions.create({ workflow_id: workflow.id, parameters: { b } })
    db.stepExecutions.create({
      workflow_execution_id: run.id,
      step_id: 's',
      step_name: 'first',
      step_type: 'shell',
    })
  },
  editExecution: (db, a, b) => {
    const row = at(db.workflowExecutions.list(), a)
    if (row === undefined) return
    if (b % 4 === 0) db.workflowExecutions.update(row.id, { status: 'success', outputs: { b } })
    else if (b % 4 === 2)
      db.workflowExecutions.update(row.id, {
        steps_executed: (row.steps_executed ?? 0) + 1,
        completed_steps: [...(row.completed_steps ?? []), text(b)],
      })
    else db.workflowExecutions.update(row.id, { started_at: later(b), current_step: text(b) })
  },
  deleteExecution: (db, a) => {
    const row = at(db.workflowExecutions.list(), a)
    if (row !== undefined) db.workflowExecutions.delete(row.id)
  },
  incident: (db, a, b) => {
    db.incidents.create({
      title: text(a),
      severity: 'high',
      source: 'probe',
      assigned_to: b % 2 === 0 ? (at(db.users.list(), b >> 1)?.id ?? null) : null,
    })
  },
  editIncident: (db, a, b) => {
    const row = at(db.incidents.list(), a)
    if (row === undefined) return
    if (b % 4 === 0) db.incidents.update(row.id, { title: text(b), related_incidents: [row.id] })
    else if (b % 4 === 1)
      db.incidents.update(row.id, {
        root_cause: text(b),
        metadata: { ...(row.metadata as object), [text(b)]: { [text(a)]: b } },
      })
    else if (b % 4 === 2)
      db.incidents.update(row.id, { status: 'resolved', resolved_at: later(b), title: text(b) })
    else db.incidents.update(row.id, { assigned_to: at(db.users.list(), b >> 2)?.id ?? null })
  },
  deleteIncident: (db, a) => {
    const row = at(db.incidents.list(), a)
    if (row !== undefined) db.incidents.delete(row.id)
  },
  runbook: (db, a, b) => {
    db.runbooks.create({ name: name(a), steps: [b] })
  },
  editRunbook: (db, a, b) => {
    const row = at(db.runbooks.list(), a)
    if (row === undefined) return
    if (b % 4 === 0) db.runbooks.update(row.id, { name: name(b >> 1) })
    else if (b % 4 === 1) db.runbooks.update(row.id, { description: text(b) })
    else if (b % 4 === 2) db.runbooks.update(row.id, { steps: [b], version: b })
    else
      db.runbooks.update(row.id, {
        execution_count: (row.execution_count ?? 0) + b,
        last_executed_at: later(b),
      })
  },
  deleteRunbook: (db, a) => {
    const row = at(db.runbooks.list(), a)
    if (row !== undefined) db.runbooks.delete(row.id)
  },
  runbookExecution: (db, a, b) => {
    const runbook = at(db.runbooks.list(), a)
    if (runbook === undefined) return
    const incident = at(db.incidents.list(), b)
    db.runbookExecutions.create({ runbook_id: runbook.id, incident_id: incident?.id ?? null })
  },
  editRunbookExecution: (db, a, b) => {
    const row = at(db.runbookExecutions.list(), a)
    if (row !== undefined) db.runbookExecutions.update(row.id, { notes: text(b), success: true })
  },
  profile: (db, _a, b) => {
    db.users.update(db.userId, b % 2 === 0 ? { full_name: text(b) } : { preferences: { b } })
  },
  audit: (db, a) => {
    db.auditLogs.create({ action: 'read', resource_type: text(a) })
  },
  embedding: (db, a, b) => {
    db.embeddings.create({
      collection: 'incident_knowledge',
      model: 'test',
      dimension: 2,
      vector: Float32Array.of(a, b),
    })
  },
  editEmbedding: (db, a, b) => {
    const row = at(db.embeddings.list(), a)
    if (row !== undefined)
      db.embeddings.update(row.id, { dimension: 1, vector: Float32Array.of(b), payload: { b } })
  },
  /** Past the repositories; derived columns, too. */
  rawEdit: (db, a, b) => {
    const statements = [
      ['conversations', 'title = title || title, total_cost_cents = 1'],
      ['conversations', 'title = title'],
      [
        'conversations',
        `updated_at = '2001-01-01T00:00:00.000000Z', message_count = message_count`,
      ],
      ['incidents', `status = 'investigating'`],
      ['workflows', 'version = version + 1'],
      ['runbooks', `name = name || '!'`],
      ['users', `timezone = 'Asia/Tokyo'`],
      ['messages', `feedback_comment = 'raw'`],
    ] as const
    const [table, set] = at(statements, b) ?? statements[0]
    const rows = internalsOf(db).connection.all<{ id: string }>(`SELECT id FROM ${table}`)
    const row = table === 'users' ? { id: db.userId } : at(rows, a)
    if (row === undefined) return
    internalsOf(db).connection.run(`UPDATE ${table} SET ${set} WHERE id = ?`, row.id)
  },
  rawDelete: (db, a, b) => {
    const table = at(['workflows', 'conversations', 'workflow_executions'], b) ?? ''
    const row = at(internalsOf(db).connection.all<{ id: string }>(`SELECT id FROM ${table}`), a)
    if (row !== undefined)
      internalsOf(db).connection.run(`DELETE FROM ${table} WHERE id = ?`, row.id)
  },
} as const satisfies Record<string, LocalStep>

const pick = (table: string, where = 'true'): string =>
  `(SELECT id FROM ${table} WHERE ${where} ORDER BY id OFFSET ? % greatest((SELECT count(*) FROM ${table} WHERE ${where}), 1) LIMIT 1)`

const centralSteps = {
  centralConversation: async (fleet, users, a, b) => {
    await fleet.sql(
      'INSERT INTO conversations (id, user_id, title) VALUES (?, ?, ?)',
      newId(),
      at(users, b),
      text(a),
    )
  },
  centralMessage: async (fleet, _users, a, b) => {
    await fleet.sql(
      `INSERT INTO messages (id, conversation_id, role, content, tokens_used, sequence_number) SELECT ?, c.id, 'assistant', ?, ?, 1 FROM ${pick('conversations')} c`,
      newId(),
      text(b),
      b,
      a,
    )
  },
  centralEdit: async (fleet, _users, a, b) => {
    const statements = [
      ['conversations', `title = 'central'`],
      [
        'incidents',
        `root_cause = 'central', status = 'acknowledged', acknowledged_at = '2090-01-01'`,
      ],
      ['workflows', `definition = '{"central": [1.50]}'`],
      ['workflow_executions', `status = 'failed', error_message = 'central'`],
      ['runbooks', `description = 'central'`],
      ['users', `full_name = 'central'`],
      ['messages', `content = 'central'`],
      ['embeddings', `content_preview = 'central'`],
    ] as const
    const [table, set] = at(statements, b) ?? statements[0]
    await fleet.sql(`UPDATE ${table} SET ${set} WHERE id = ${pick(table)}`, a)
  },
  centralDelete: async (fleet, _users, a, b) => {
    const tables = [
      'conversations',
      'messages',
      'incidents',
      'workflows',
      'workflow_executions',
      'runbooks',
      'sessions',
      'embeddings',
      'runbook_executions',
    ] as const
    const table = at(tables, b) ?? 'messages'
    await fleet.sql(`DELETE FROM ${table} WHERE id = ${pick(table)}`, a)
  },
  centralSession: async (fleet, users, a, b) => {
    const id = newId()
    await fleet.sql(
      `INSERT INTO sessions (id, user_id, token_hash, ip_address, expires_at) VALUES (?, ?, ?, '10.0.0.1/24', '2099-01-01')`,
      id,
      at(users, b),
      id,
    )
    await fleet.sql(
      `UPDATE conversations SET session_id = ? WHERE id = (SELECT c.id FROM conversations c WHERE c.user_id = ? ORDER BY c.id OFFSET ? % greatest((SELECT count(*) FROM conversations WHERE user_id = ?), 1) LIMIT 1)`,
      id,
      at(users, b),
      a,
      at(users, b),
    )
  },
  centralWorkflow: async (fleet, users, a, b) => {
    await fleet.sql(
      `INSERT INTO workflows (id, user_id, name, version, definition) VALUES (?, ?, ?, ?, '{}') ON CONFLICT DO NOTHING`,
      newId(),
      at(users, b),
      name(a),
      1 + (b % 3),
    )
  },
  centralRunbook: async (fleet, users, a, b) => {
    await fleet.sql(
      `INSERT INTO runbooks (id, name, steps, owner_id) VALUES (?, ?, '[]', ?) ON CONFLICT DO NOTHING`,
      newId(),
      name(a),
      at(users, b),
    )
  },
  /** Two names change places: there is an order in which one row takes a key before the other leaves it. */
  centralSwap: async (fleet) => {
    await fleet.sql(
      `DO $$ BEGIN UPDATE runbooks SET name = name || ' (moving)'; UPDATE runbooks SET name = CASE WHEN name LIKE 'deploy%' THEN 'roll back' ELSE 'deploy' END; END $$`,
    )
  },
  centralRole: async (fleet, users, a) => {
    const roles = ['viewer', 'developer', 'operator', 'admin'] as const
    await fleet.sql('UPDATE users SET role = ? WHERE id = ?', at(roles, a), users.at(-1))
  },
  /** Of the user whose role changes: what it refers to may lie outside the scope. */
  centralExecution: async (fleet, users, a, b) => {
    await fleet.sql(
      `INSERT INTO runbook_executions (id, runbook_id, incident_id, executed_by) SELECT ?, r.id, ${pick('incidents')}, ? FROM ${pick('runbooks')} r`,
      newId(),
      a,
      users.at(-1),
      b,
    )
  },
  centralAssign: async (fleet, users, a, b) => {
    await fleet.sql(
      `UPDATE incidents SET assigned_to = ? WHERE id = ${pick('incidents')}`,
      b % 3 === 0 ? null : at(users, b),
      a,
    )
  },
  /** To another user, or under another parent: rows leave some agents and arrive at others. */
  centralMove: async (fleet, users, a, b) => {
    const tables = ['conversations', 'workflow_executions', 'workflows', 'embeddings'] as const
    const table = at(tables, a) ?? 'conversations'
    await fleet.sql(
      `UPDATE ${table} SET user_id = ? WHERE id = ${pick(table)}`,
      at(users, b),
      a >> 2,
    )
  },
  centralMoveMessage: async (fleet, _users, a, b) => {
    await fleet.sql(
      `UPDATE messages SET conversation_id = ${pick('conversations')} WHERE id = ${pick('messages')}`,
      b,
      a,
    )
  },
} as const satisfies Record<string, CentralStep>

type LocalKind = keyof typeof localSteps
type CentralKind = keyof typeof centralSteps
type ControlKind = 'sync' | 'pull' | 'die' | 'repeat' | 'together'
export type StepKind = LocalKind | CentralKind | ControlKind

const localKinds = Object.keys(localSteps) as LocalKind[]
const centralKinds = Object.keys(centralSteps) as CentralKind[]

const faults: readonly Fault[] = ['none', 'refuse', 'lose', 'twice', 'die-before', 'die-after']

/** A step before its kind is known: `family` says of what sort, `choice` which of those that the program uses. */
interface Draft extends Omit<Step, 'kind'> {
  readonly family: 'local' | 'together' | 'central' | 'sync' | 'pull' | 'control'
  readonly choice: number
}

const draft = (family: Draft['family'], plan: fc.Arbitrary<Fault[]>): fc.Arbitrary<Draft> =>
  fc.record({
    family: fc.constant(family),
    choice: fc.nat(99),
    agent: fc.nat(2),
    a: fc.nat(11),
    b: fc.nat(23),
    plan,
  })

const noPlan = fc.constant<Fault[]>([])
const somePlan = fc.array(fc.constantFrom(...faults), { maxLength: 4 })
const controls: readonly ControlKind[] = ['die', 'repeat']

function resolve(
  { family, choice, ...rest }: Draft,
  locals: readonly LocalKind[],
  centrals: readonly CentralKind[],
): Step {
  if (family === 'together' || family === 'sync' || family === 'pull')
    return { kind: family, ...rest }
  const kinds = family === 'local' ? locals : family === 'central' ? centrals : controls
  return { kind: at<StepKind>(kinds, choice) ?? 'sync', ...rest }
}

/** Programs of up to `length` steps. Each uses a few kinds only: so the steps of one meet the same rows more often. */
export const programs = (length: number): fc.Arbitrary<Step[]> =>
  fc
    .tuple(
      fc.shuffledSubarray(localKinds, { minLength: 3, maxLength: 9 }),
      fc.shuffledSubarray(centralKinds, { minLength: 1, maxLength: 4 }),
      fc.array(
        fc.oneof(
          { weight: 12, arbitrary: draft('local', noPlan) },
          { weight: 2, arbitrary: draft('together', noPlan) },
          { weight: 6, arbitrary: draft('central', noPlan) },
          { weight: 6, arbitrary: draft('sync', somePlan) },
          { weight: 5, arbitrary: draft('pull', noPlan) },
          { weight: 1, arbitrary: draft('control', noPlan) },
        ),
        { minLength: 3, maxLength: length, size: 'max' },
      ),
    )
    .map(([locals, centrals, drafts]) => drafts.map((each) => resolve(each, locals, centrals)))

/** Runs one step; what the store or the centre refuses does not happen. */
export async function runStep(
  fleet: Fleet,
  agents: readonly TestAgent[],
  users: readonly string[],
  { kind, agent: index, a, b, plan }: Step,
): Promise<void> {
  const agent = at(agents, index)
  if (agent === undefined) return
  if (kind in centralSteps) {
    await refusable(() => centralSteps[kind as CentralKind](fleet, users, a, b))
  } else if (kind in localSteps) {
    await refusable(() => agent.db.transaction(() => localSteps[kind as LocalKind](agent.db, a, b)))
    agent.observeCommits()
  } else if (kind === 'together') {
    // Three kinds of write in one local transaction: whole or not at all.
    const kinds = [a, a + b, b].map((n) => at(localKinds, n) ?? 'message')
    await refusable(() =>
      agent.db.transaction(() => {
        for (const each of kinds) localSteps[each](agent.db, a, b)
      }),
    )
    agent.observeCommits()
  } else if (kind === 'sync') {
    await agent.sync(plan)
  } else if (kind === 'die') {
    await agent.restart()
  } else if (kind === 'repeat') {
    await agent.repeatPush(-1 - (a % 4))
  }
}

async function refusable(work: () => unknown): Promise<void> {
  try {
    await work()
  } catch (error) {
    if (error instanceof AgentDBError && localRefusals.has(error.code)) return
    const code = (error as { code?: unknown }).code
    if (typeof code === 'string' && /^23...$/.test(code)) return
    throw error
  }
}

const localRefusals: ReadonlySet<string> = new Set([
  'CONSTRAINT',
  'ILLEGAL_TRANSITION',
  'NOT_FOUND',
  'READ_ONLY_TABLE',
])
