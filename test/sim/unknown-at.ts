import { valueBeforeAdded, type Stored, type StoredRow } from '../../schema/codec.ts'
import { agentColumnsAt } from '../../schema/columns-at.ts'
import { agentColumns, mustColumn, type TableDefinition } from '../../schema/define.ts'

/** What a schema version does not know of a table: as the table says that rows have it which were there before. */
export function unknownAt(table: TableDefinition, schema: number): StoredRow {
  const known = agentColumnsAt(table, schema)
  return Object.fromEntries(
    agentColumns(table)
      .filter((name) => !known.includes(name))
      .map((name): [string, Stored] => [name, valueBeforeAdded(mustColumn(table, name)) ?? null]),
  )
}
