import type { Stored } from '../../schema/codec.ts'
import { tableNames, type TableName } from '../../schema/tables.ts'
import { newId } from '../../schema/values/id.ts'
import { timestampOfMicros } from '../../schema/values/timestamp.ts'

/** Ids of one row per table. */
export type RowIds = Readonly<Record<TableName, string>>

export const newRowIds = (): RowIds =>
  Object.fromEntries(tableNames.map((name) => [name, newId()])) as RowIds

/** Bytes of a vector of two dimensions. */
const vector = (): Uint8Array => new Uint8Array(new Float32Array([1, 0.5]).buffer)

/**
 * What an agent sends to make a row of each table, in stored form: it belongs to `user` and hangs on the rows of
 * `parents`. `mark` stands in its text, so that it can be found wherever it leaks.
 */
export function sampleRow(
  table: TableName,
  id: string,
  user: string,
  parents: RowIds,
  mark = 'sample',
): Record<string, Stored> {
  const now = timestampOfMicros(Date.now() * 1000)
  switch (table) {
    case 'users':
      return { id, email: `${id}@example.org`, username: `u-${id}` }
    case 'sessions':
      return {
        id,
        user_id: user,
        ip_address: '10.0.0.1',
        user_agent: mark,
        expires_at: '2099-01-01T00:00:00.000000Z',
      }
    case 'conversations':
      return { id, user_id: user, title: mark }
    case 'messages':
      return {
        id,
        conversation_id: parents.conversations,
        role: 'user',
        content: mark,
        sequence_number: 1,
        created_at: now,
      }
    case 'workflows':
      return { id, user_id: user, name: `${mark} ${id}`, version: 1, definition: '{}' }
    case 'workflow_executions':
      return { id, workflow_id: parents.workflows, user_id: user, error_message: mark }
    case 'step_executions':
      return {
        id,
        workflow_execution_id: parents.workflow_executions,
        step_id: mark,
        step_name: mark,
        step_type: 's',
      }
    case 'incidents':
      return { id, title: mark, severity: 'low', source: 'test' }
    case 'runbooks':
      return { id, name: `${mark} ${id}`, version: 1, steps: '[]' }
    case 'runbook_executions':
      return { id, runbook_id: parents.runbooks, executed_by: user, notes: mark }
    case 'audit_logs':
      return {
        id,
        user_id: user,
        action: 'read',
        resource_type: 'test',
        description: mark,
        created_at: now,
      }
    case 'embeddings':
      return {
        id,
        user_id: user,
        collection: 'code_embeddings',
        model: 'm',
        dimension: 2,
        vector: vector(),
        content_preview: mark,
        payload: '{}',
        created_at: now,
      }
    case 'memory_trajectories':
      return { id, user_id: user, task_id: mark, query: mark, steps: '[]', created_at: now }
    case 'memory_items':
      return {
        id,
        user_id: user,
        record_id: id,
        polarity: 'success',
        title: mark,
        description: mark,
        content: mark,
        source_query: mark,
        model: 'm',
        dimension: 2,
        query_vector: vector(),
        text_vector: vector(),
        created_at: now,
      }
  }
}

/** A patch of each table that its writer could send, if it may write the row at all. */
export const samplePatch: Readonly<Record<TableName, Readonly<Record<string, Stored>>>> = {
  users: { full_name: 'patched' },
  sessions: { user_agent: 'patched' },
  conversations: { title: 'patched' },
  messages: { feedback_rating: 3, feedback_comment: 'patched' },
  workflows: { description: 'patched' },
  workflow_executions: { error_message: 'patched' },
  step_executions: { error_message: 'patched' },
  incidents: { title: 'patched' },
  runbooks: { description: 'patched' },
  runbook_executions: { notes: 'patched' },
  audit_logs: { description: 'patched' },
  embeddings: { content_preview: 'patched' },
  memory_trajectories: { outcome: 'failure' },
  memory_items: { title: 'patched' },
}
