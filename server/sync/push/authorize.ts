import type { StoredRow } from '../../../schema/codec.ts'
import type { TableDefinition } from '../../../schema/define.ts'
import { profileKey, roleAccess, userKey } from '../../../schema/role-access.ts'
import type { DecisionContext } from './decision.ts'
import { refuse, RefusalSignal } from './refusal.ts'
import type { Mutation } from './transaction.ts'
import { referencedRows, type WorkingRow } from './working-state.ts'

/** What a writer may see and do; grants and row-level security judge again when it is written. */
export const isVisibleTo = ({ keys }: DecisionContext, row: WorkingRow): boolean =>
  row.keys.some((key) => keys.has(key))

/** The row a mutation is about. What the writer cannot see is told as if it did not exist. */
export function mustSeeRow(context: DecisionContext, { table, id }: Mutation): WorkingRow {
  const row = context.state.get(table, id)
  if (row === undefined) {
    const by = context.state.rejectedBy(table, id)
    if (by !== undefined)
      throw new RefusalSignal(
        { reason: 'parent_rejected', message: `the insert of ${table.name} ${id} was rejected` },
        by,
      )
  }
  if (row === undefined) return refuseMissing(context, table, id, `${table.name} ${id}`)
  if (!isVisibleTo(context, row)) return refuse('forbidden', `${table.name} ${id} is not yours`)
  if (row.deleted) return refuse('deleted', `${table.name} ${id} was deleted`)
  return row
}

/** Of a row that was never here: while the centre may get back what it lost, its author may yet bring it. */
function refuseMissing(
  { ifMissing, missing }: DecisionContext,
  table: TableDefinition,
  id: string,
  what: string,
): never {
  if (missing?.isBuried(table, id) === true)
    return refuse('deleted', `${what} was deleted before it was back`)
  if (ifMissing === 'wait') return refuse('parked', `${what} is not back yet`)
  if (ifMissing === 'gone')
    return refuse('parent_missing', `${what} was lost with the centre, and nobody brought it back`)
  return refuse('forbidden', `${what} is not yours`)
}

/** Every reference that a patch sets must be visible to the writer: foreign keys alone would accept any row. */
export function mustSeeReferences(context: DecisionContext, mutation: Mutation): void {
  for (const { column, target, id } of referencedRows(mutation)) {
    const place = `${mutation.table.name}.${column}`
    const row = context.state.get(target, id)
    if (row === undefined) {
      const by = context.state.rejectedBy(target, id)
      if (by !== undefined)
        throw new RefusalSignal(
          {
            reason: 'parent_rejected',
            message: `${place}: the insert of ${target.name} ${id} was rejected`,
          },
          by,
        )
    }
    if (row === undefined) {
      return refuseMissing(context, target, id, `${place}: ${target.name} ${id}`)
    }
    if (!isVisibleTo(context, row))
      return refuse('forbidden', `${place}: ${target.name} ${id} is not yours`)
    if (row.deleted)
      refuse('deleted', `${place}: ${target.name} ${id} was deleted`, {
        sqlstate: '23503',
        constraint: `${mutation.table.name}_${column}_fkey`,
      })
  }
}

/** Scope keys of a row that an agent makes; refuses where it may not make it. */
export function keysOfNewRow(context: DecisionContext, { table, patch }: Mutation): string[] {
  const { owner } = table
  const { principal } = context
  switch (owner.kind) {
    case 'column':
      if (patch[owner.column] !== principal.userId)
        refuse('forbidden', `${table.name}.${owner.column} is not you`)
      return [userKey(principal.userId)]
    case 'parent': {
      const parent = parentOf(context, table, patch)
      if (parent === undefined)
        return refuse('forbidden', `${table.name}.${owner.column} is not yours`)
      mustMayWrite(context, parent, 'write')
      return [...parent.keys]
    }
    case 'shared':
      if (!roleAccess[principal.role].write.includes(owner.key))
        refuse('forbidden', `a ${principal.role} does not write ${table.name}`)
      if (owner.ownWritesOnly && patch[owner.column] !== principal.userId)
        refuse('forbidden', `${table.name}.${owner.column} is not you`)
      return keysAfter(table, patch, [])
    default:
      return refuse('forbidden', `agents do not insert into ${table.name}`)
  }
}

function parentOf(
  { state }: DecisionContext,
  table: TableDefinition,
  patch: StoredRow,
): WorkingRow | undefined {
  if (table.owner.kind !== 'parent') return undefined
  const { table: name, column } = table.owner
  const reference = referencedRows({ table, patch } as Mutation).find(
    (candidate) => candidate.column === column,
  )
  return reference === undefined || reference.target.name !== name
    ? undefined
    : state.get(reference.target, reference.id)
}

/** Whether the writer may change or delete a row that it sees. */
export function mustMayWrite(
  { principal }: DecisionContext,
  row: WorkingRow,
  action: 'write' | 'delete',
): void {
  const { table, id } = row
  const { owner } = table
  const own = row.keys.includes(userKey(principal.userId))
  if (owner.kind !== 'shared') {
    if (!own || (owner.kind === 'self' && id !== principal.userId))
      refuse('forbidden', `${table.name} ${id} is not yours`)
    return
  }
  if (!roleAccess[principal.role][action].includes(owner.key))
    refuse('forbidden', `a ${principal.role} does not ${action} ${table.name}`)
  if (owner.ownWritesOnly && !own) refuse('forbidden', `${table.name} ${id} is not yours`)
}

/** Scope keys of a row once it is changed. */
export function keysAfter(
  table: TableDefinition,
  image: StoredRow,
  before: readonly string[],
): string[] {
  const { owner } = table
  if (owner.kind !== 'shared') return before.length > 0 ? [...before] : [profileKey]
  const user = image[owner.column]
  return typeof user === 'string' ? [owner.key, userKey(user)] : [owner.key]
}
