import { referencesTo, tableOfNumber } from '../../schema/tables.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import type { RowRef } from './row-ref.ts'
import type { RowWriter } from './row-writer.ts'

/** A stub goes with its last reference. */
export function sweepStubs(connection: Connection, writer: RowWriter): void {
  for (let swept = -1; swept !== 0;) {
    swept = 0
    for (const { id, tbl } of connection.all<{ id: string; tbl: number }>(
      'SELECT id, tbl FROM sync_stub',
    )) {
      const table = tableOfNumber(tbl)
      if (table === undefined || isReferenced(connection, { table, id })) continue
      writer.remove(table, id)
      swept += 1
    }
  }
}

const isReferenced = (connection: Connection, { table, id }: RowRef): boolean =>
  (referencesTo.get(table.name) ?? []).some(
    (reference) =>
      connection.get(
        `SELECT 1 FROM ${reference.table.name} WHERE ${reference.column} = ? LIMIT 1`,
        id,
      ) !== undefined,
  )
