import { AgentDBError, preview } from '../../schema/errors.ts'
import { tableNames, tableOfName, tableOfNumber, type TableName } from '../../schema/tables.ts'
import { decodedValues, type Values } from '../conflicts/conflict-record.ts'
import type { Connection } from '../sqlite/connection.ts'

/** A row that this store had, and that the centre has lost. */
export interface LostRow {
  readonly table: TableName
  readonly id: string
  /** When it went. */
  readonly at: string
  /** As it last was here. */
  readonly row: Values
}

/** Reads `sync_lost`; the sync engine writes it while it reads its scope from a centre that went back. */
export class LostRows {
  readonly #connection: Connection

  constructor(connection: Connection) {
    this.#connection = connection
  }

  /**
   * Rows that are not here any more because the centre was restored to an earlier point and does not have them. Each
   * leaves the list when it comes back, as with the agent that wrote it. Whoever wants one back writes it anew.
   *
   * @example
   * const missing = db.lostRows.list({ table: 'incidents' }).map(({ row }) => row['title'])
   *
   * @throws AgentDBError `INVALID_VALUE` for a table that does not exist
   */
  list(filter: { readonly table?: TableName } = {}): LostRow[] {
    const number = filter.table === undefined ? null : numberOf(filter.table)
    return this.#connection
      .all<{ tbl: number; id: string; image: string; at: string }>(
        'SELECT tbl, id, image, at FROM sync_lost WHERE ? IS NULL OR tbl = ? ORDER BY at, tbl, id',
        number,
        number,
      )
      .flatMap(({ tbl, id, image, at }) => {
        const table = tableOfNumber(tbl)
        const row = decodedValues(table, image)
        return table === undefined || row === null
          ? []
          : [{ table: table.name as TableName, id, at, row }]
      })
  }
}

function numberOf(name: string): number {
  const table = tableOfName(name)
  if (table !== undefined) return table.number
  throw new AgentDBError(
    'INVALID_VALUE',
    `lostRows.list: there is no table ${preview(name)}; there are ${tableNames.join(', ')}`,
  )
}
