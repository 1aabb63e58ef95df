import { AgentDBError, preview } from '../../schema/errors.ts'
import { tableNames, tableOfName, tableOfNumber, type TableName } from '../../schema/tables.ts'
import type { Connection } from '../sqlite/connection.ts'

/** A column of a row that shows a placeholder. */
export interface Placeholder {
  readonly table: TableName
  readonly id: string
  readonly column: string
}

/** Reads `sync_placeholder`; the sync engine writes it, with the row. */
export class Placeholders {
  readonly #connection: Connection

  constructor(connection: Connection) {
    this.#connection = connection
  }

  /**
   * The columns whose value here only stands for one that the centre has and no agent can hold: a timestamp that is
   * `infinity`, before year 1 or after 9999 (shown as the first or last moment there is), JSON with a number beyond a
   * double or nested too deep (`{ $agentdb: ... }`), an array of arrays (`[]`), a vector with NaN (zeros).
   *
   * Such a row can be edited like any other: a placeholder is never sent, and the centre keeps its value until someone
   * writes a new one to that column. A column that has a pending write of this store shows that write and is not listed.
   *
   * @example
   * const hidden = new Set(db.placeholders.list({ table: 'incidents', id }).map(({ column }) => column))
   * const end = hidden.has('resolved_at') ? 'see the centre' : db.incidents.find(id)?.resolved_at
   *
   * @throws AgentDBError `INVALID_VALUE` for a table that does not exist
   */
  list(filter: { readonly table?: TableName; readonly id?: string } = {}): Placeholder[] {
    const number = filter.table === undefined ? null : numberOf(filter.table)
    const id = filter.id ?? null
    return this.#connection
      .all<{ tbl: number; id: string; name: string }>(
        `SELECT p.tbl, p.id, c.value AS name FROM sync_placeholder p, json_each(p.columns) c
        WHERE (? IS NULL OR p.tbl = ?) AND (? IS NULL OR p.id = ?)
          AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = p.id AND l.tbl = p.tbl AND l.blocked = 0
            AND (l.op = 'delete' OR json_type(l.patch, '$.' || c.value) IS NOT NULL))
        ORDER BY p.tbl, p.id, c.key`,
        number,
        number,
        id,
        id,
      )
      .flatMap((row) => {
        const table = tableOfNumber(row.tbl)
        return table === undefined
          ? []
          : [{ table: table.name as TableName, id: row.id, column: row.name }]
      })
  }
}

function numberOf(name: string): number {
  const table = tableOfName(name)
  if (table !== undefined) return table.number
  throw new AgentDBError(
    'INVALID_VALUE',
    `placeholders.list: there is no table ${preview(name)}; there are ${tableNames.join(', ')}`,
  )
}
