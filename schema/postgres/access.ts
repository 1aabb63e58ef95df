import type { SharedKey, TableDefinition } from '../define.ts'
import { agentColumns, columnWrite } from '../define.ts'
import { roleAccess, type RoleAccess } from '../role-access.ts'
import { mustTable } from '../tables.ts'

/**
 * Who sees and writes what at the centre, in SQL: row-level security, column grants, and the predicate by which a
 * user's rows are read when an agent starts. All three follow from `owner` and `write` of the definitions.
 */

/** The role under which pushes write. It owns nothing. */
export const appRole = 'llm_copilot_app'

/** The acting user, from the transaction's settings; NULL when unset, so that every policy says no. */
export const currentUser = 'sync.current_user_id()'

const rolesThatMay = (action: keyof RoleAccess, key: SharedKey): string => {
  const roles = Object.entries(roleAccess)
    .filter(([, access]) => access[action].includes(key))
    .map(([role]) => `'${role}'`)
  return `sync.current_user_role() IN (${roles.join(', ')})`
}

/** Rows of `alias` that belong to `user`: its own, by column or through parents. Not the shared ones. */
export function ownPredicate(table: TableDefinition, alias: string, user: string): string {
  const { owner } = table
  switch (owner.kind) {
    case 'self':
      return `${alias}.id = ${user}`
    case 'column':
    case 'shared':
      return `${alias}.${owner.column} = ${user}`
    case 'parent': {
      const parent = mustTable(owner.table)
      const inner = `${alias}_${parent.name}`
      return `EXISTS (SELECT 1 FROM ${parent.name} ${inner} WHERE ${inner}.id = ${alias}.${owner.column} AND ${ownPredicate(parent, inner, user)})`
    }
  }
}

/** The statements that close a table and open it as far as its definition says. */
export function accessStatements(table: TableDefinition): string[] {
  const t = table.name
  const out = [`ALTER TABLE ${t} ENABLE ROW LEVEL SECURITY`]
  const own = ownPredicate(table, t, currentUser)
  const policy = (action: string, using: string | undefined, check: string | undefined): void => {
    const clauses = [
      ...(using === undefined ? [] : [`USING (${using})`]),
      ...(check === undefined ? [] : [`WITH CHECK (${check})`]),
    ]
    out.push(
      `CREATE POLICY ${t}_${action} ON ${t} FOR ${action.toUpperCase()} TO ${appRole} ${clauses.join(' ')}`,
    )
  }
  const { owner } = table
  if (table.writeClass !== 'push-only') {
    out.push(`GRANT SELECT (${agentColumns(table).join(', ')}) ON ${t} TO ${appRole}`)
    policy(
      'select',
      owner.kind === 'shared' ? `${rolesThatMay('read', owner.key)} OR ${own}` : own,
      undefined,
    )
  }
  const inserted = agentColumns(table).filter((name) => columnWrite(table, name) !== 'never')
  const updated = inserted.filter((name) => name !== 'id' && columnWrite(table, name) === 'always')
  const written = writePredicate(table, own)
  if (owner.kind !== 'self' && inserted.length > 0) {
    out.push(`GRANT INSERT (${inserted.join(', ')}) ON ${t} TO ${appRole}`)
    policy('insert', undefined, written)
  }
  if (updated.length > 0 && table.writeClass !== 'push-only') {
    out.push(`GRANT UPDATE (${updated.join(', ')}) ON ${t} TO ${appRole}`)
    // No WITH CHECK on shared rows: whoever may edit an incident may give it to someone else.
    policy('update', written, written)
  }
  if (owner.kind !== 'self' && (table.writeClass === 'row' || table.writeClass === 'append')) {
    out.push(`GRANT DELETE ON ${t} TO ${appRole}`)
    policy('delete', deletePredicate(table, own), undefined)
  }
  return out
}

function writePredicate(table: TableDefinition, own: string): string {
  const { owner } = table
  if (owner.kind !== 'shared') return own
  const byRole = rolesThatMay('write', owner.key)
  return owner.ownWritesOnly ? `${byRole} AND ${own}` : byRole
}

function deletePredicate(table: TableDefinition, own: string): string {
  const { owner } = table
  if (owner.kind !== 'shared') return own
  const byRole = rolesThatMay('delete', owner.key)
  return owner.ownWritesOnly ? `${byRole} AND ${own}` : byRole
}
