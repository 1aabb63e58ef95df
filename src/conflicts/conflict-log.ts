import { decodeValue, type Stored } from '../../schema/codec.ts'
import { lossyNumber } from '../../schema/values/canonical-json.ts'
import { tableOfName } from '../../schema/tables.ts'
import type { Connection } from '../sqlite/connection.ts'

/**
 * What became of a write that did not simply apply.
 *
 * - `rejected`, `dependency_failed`: it did not happen; `mine` is what it would have written
 * - `superseded`, `merged`: a concurrent change won, in whole or in part
 * - `overwritten`: a value that stood was overwritten by a concurrent change that won
 * - `blocked`: it no longer fits what the centre sent; hidden until its outcome arrives
 */
export type ConflictState =
  | 'rejected'
  | 'dependency_failed'
  | 'superseded'
  | 'merged'
  | 'overwritten'
  | 'blocked'

/** Columns and their values, as the repositories give them. */
export type Values = Readonly<Record<string, unknown>>

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
  readonly mine: Values | null
  readonly base: Values | null
  readonly theirs: Values | null
}

interface ConflictRow {
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

/** Reads `sync_conflicts`; the sync engine writes it. Nothing in it is ever dropped. */
export class ConflictLog {
  readonly #connection: Connection

  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** Newest first. */
  list(filter: { state?: ConflictState; table?: string } = {}): Conflict[] {
    return this.#connection
      .all<ConflictRow>(
        'SELECT * FROM sync_conflicts WHERE (? IS NULL OR state = ?) AND (? IS NULL OR table_name = ?) ORDER BY at DESC, id DESC',
        filter.state ?? null,
        filter.state ?? null,
        filter.table ?? null,
        filter.table ?? null,
      )
      .map(toConflict)
  }

  get(id: string): Conflict | undefined {
    const row = this.#connection.get<ConflictRow>('SELECT * FROM sync_conflicts WHERE id = ?', id)
    return row === undefined ? undefined : toConflict(row)
  }
}

/** Values as the repositories give them; the side table keeps stored forms, bytes as hex. */
function parse(tableName: string, text: string | null): Values | null {
  if (text === null || text === 'null') return null
  const stored = JSON.parse(text) as Record<string, Stored>
  const table = tableOfName(tableName)
  return Object.fromEntries(
    Object.entries(stored).map(([name, value]) => {
      const shape = table?.columns[name]?.shape
      if (shape === undefined) return [name, value]
      // Parsed, a number that no double holds would be another one: the text stays.
      if (shape.kind === 'json' && typeof value === 'string' && lossyNumber(value) !== undefined)
        return [name, value]
      const isHex = shape.kind === 'vector' && typeof value === 'string'
      return [name, decodeValue(shape, isHex ? Buffer.from(value, 'hex') : value)]
    }),
  )
}

function toConflict(row: ConflictRow): Conflict {
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
    mine: parse(row.table_name, row.mine),
    base: parse(row.table_name, row.base),
    theirs: parse(row.table_name, row.theirs),
  }
}
