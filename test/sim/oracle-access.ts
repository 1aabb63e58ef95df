import type { StoredRow } from '../../schema/codec.ts'
import { mayHold } from './checks/scope.ts'

interface Writer {
  readonly userId: string
  readonly role: string
}

type Find = (table: string, id: unknown) => StoredRow | undefined

/** Roles that write what is shared, and that delete it; said once more here, as in `checks/scope.ts`. */
const writers: ReadonlySet<string> = new Set(['admin', 'developer', 'operator'])
const deleters: Readonly<Record<string, ReadonlySet<string>>> = {
  incidents: new Set(['admin', 'operator']),
  runbook_executions: new Set(['admin', 'operator']),
  runbooks: new Set(['admin']),
}

/** Whether a user of a role may make, change or delete a row. */
export function mayWrite(
  { userId, role }: Writer,
  table: string,
  op: 'insert' | 'update' | 'delete',
  row: StoredRow,
  find: Find,
): boolean {
  const mayShared = op === 'delete' ? deleters[table]?.has(role) === true : writers.has(role)
  switch (table) {
    case 'sessions':
      return false
    case 'users':
      return op === 'update' && row['id'] === userId
    case 'incidents':
    case 'runbooks':
      return mayShared
    case 'runbook_executions':
      return mayShared && row['executed_by'] === userId
    case 'audit_logs':
      return op === 'insert' && row['user_id'] === userId
    default:
      return mayHold({ id: userId, role }, table, row, find)
  }
}

/**
 * Whether a user surely sees a row that a patch points at. What comes and goes with an assignment may have been seen or
 * not at the moment that counted.
 */
export function mayReference(
  { userId, role }: Writer,
  table: string,
  row: StoredRow,
  find: Find,
): boolean {
  return mayHold({ id: userId, role }, table, row, find)
}
