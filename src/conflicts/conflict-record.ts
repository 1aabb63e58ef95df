import { decodeValue, type Stored } from '../../schema/codec.ts'
import type { ColumnShape, TableDefinition } from '../../schema/define.ts'
import { tableOfName } from '../../schema/tables.ts'
import { lossyNumber } from '../../schema/values/canonical-json.ts'

/**
 * What became of a write that did not simply apply.
 *
 * - `rejected`, `dependency_failed`: it did not happen; `mine` is what it would have written
 * - `superseded`, `merged`: a concurrent change won, in whole or in part
 * - `overwritten`: a value that stood was overwritten by a concurrent change that won
 * - `blocked`: it no longer fits what the centre sent; hidden until its outcome arrives
 */
export type ConflictState = (typeof conflictStates)[number]

export const conflictStates = [
  'rejected',
  'dependency_failed',
  'superseded',
  'merged',
  'overwritten',
  'blocked',
] as const

/** Columns and their values, as the repositories give them. */
export type Values = Readonly<Record<string, unknown>>

/** One write that did not simply apply, with both sides. */
export interface Conflict {
  readonly id: string
  readonly at: string
  readonly state: ConflictState
  readonly table: string
  readonly rowId: string
  readonly op: 'insert' | 'update' | 'delete' | null
  /** Stable word for why, such as `forbidden`, `deleted`, `unique`, `check`. */
  readonly reason: string | null
  readonly sqlstate: string | null
  readonly constraint: string | null
  readonly message: string | null
  /** Id of the transaction or row that this one needed. */
  readonly dependsOn: string | null
  /** Number and random id of the local transaction. */
  readonly transaction: number | null
  readonly transactionId: string | null
  /** What this store wrote: all columns of an insert, the changed ones of an update (whole groups), null of a delete. */
  readonly mine: Values | null
  /** The same columns before; of a delete the whole row. Null where there was nothing, or nobody knows. */
  readonly base: Values | null
  /** What stands at the centre: the row, of a merge only the columns that came out otherwise. Null where it may not be seen. */
  readonly theirs: Values | null
}

/** A record as the side table keeps it: values as JSON of stored forms, bytes as hex. */
export interface ConflictRow {
  id: string
  at: string
  state: ConflictState
  tx: number | null
  tx_id: string | null
  table_name: string
  row_id: string
  op: Conflict['op']
  reason: string | null
  sqlstate: string | null
  constraint_name: string | null
  message: string | null
  depends_on: string | null
  mine: string | null
  base: string | null
  theirs: string | null
}

export function toConflict(row: ConflictRow): Conflict {
  const table = tableOfName(row.table_name)
  return {
    id: row.id,
    at: row.at,
    state: row.state,
    table: row.table_name,
    rowId: row.row_id,
    op: row.op,
    reason: row.reason,
    sqlstate: row.sqlstate,
    constraint: row.constraint_name,
    message: row.message,
    dependsOn: row.depends_on,
    transaction: row.tx,
    transactionId: row.tx_id,
    mine: decodedValues(table, row.mine),
    base: decodedValues(table, row.base),
    theirs: decodedValues(table, row.theirs),
  }
}

/** Stored forms of one side of a record. */
export function storedValues(
  table: TableDefinition | undefined,
  text: string | null,
): Record<string, Stored> | null {
  const parsed = text === null ? null : (JSON.parse(text) as Record<string, Stored> | null)
  if (parsed === null) return null
  for (const [name, value] of Object.entries(parsed)) {
    if (typeof value === 'string' && table?.columns[name]?.shape.kind === 'vector')
      parsed[name] = Buffer.from(value, 'hex')
  }
  return parsed
}

/** One side of a record, as the repositories give values. */
export function decodedValues(
  table: TableDefinition | undefined,
  text: string | null,
): Values | null {
  const stored = storedValues(table, text)
  if (stored === null) return null
  return Object.fromEntries(
    Object.entries(stored).map(([name, value]) => {
      const shape = table?.columns[name]?.shape
      return [name, shape === undefined ? value : readable(shape, value)]
    }),
  )
}

/** Raw SQL may have written what is no value of its column: it was refused for that, and is shown as it is. */
function readable(shape: ColumnShape, value: Stored): unknown {
  // Parsed, a number that no double holds would be another one: the text stays.
  if (shape.kind === 'json' && typeof value === 'string' && lossyNumber(value) !== undefined)
    return value
  try {
    return decodeValue(shape, value)
  } catch {
    return value
  }
}
