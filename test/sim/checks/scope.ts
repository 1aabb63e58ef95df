import type { Stored, StoredRow } from '../../../schema/codec.ts'

type Find = (table: string, id: unknown) => StoredRow | undefined

/** Roles that see what is shared; said once more here, so that a mistake in the product's own table of roles shows. */
const readsIncidents: ReadonlySet<string> = new Set(['admin', 'developer', 'operator'])

/** Whether a user may hold a row: the rules of SYNC-DESIGN 5 in the plainest words, without keys. */
export function mayHold(
  user: { readonly id: string; readonly role: string },
  table: string,
  row: StoredRow,
  find: Find,
): boolean {
  switch (table) {
    case 'users':
      return true
    case 'messages':
    // A table of the next version, where that is simulated.
    case 'notes':
      return find('conversations', row['conversation_id'])?.['user_id'] === user.id
    case 'step_executions':
      return find('workflow_executions', row['workflow_execution_id'])?.['user_id'] === user.id
    case 'incidents':
      return readsIncidents.has(user.role) || row['assigned_to'] === user.id
    case 'runbook_executions':
      return readsIncidents.has(user.role) || row['executed_by'] === user.id
    case 'runbooks':
      return true
    default:
      return row['user_id'] === user.id
  }
}

const profile: readonly string[] = [
  'id',
  'username',
  'full_name',
  'role',
  'status',
  'avatar_url',
  'timezone',
  'created_at',
  'updated_at',
  'deleted_at',
]

/** What one user sees of another. */
export function profileOf(row: StoredRow): StoredRow {
  const seen: Record<string, Stored> = {}
  for (const name of Object.keys(row))
    seen[name] = profile.includes(name) ? (row[name] ?? null) : null
  return { ...seen, email: `${String(row['id'])}@hidden.invalid` }
}
