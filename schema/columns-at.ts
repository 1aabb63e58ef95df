import { agentColumns, mustColumn, type TableDefinition } from './define.ts'

const known = new WeakMap<TableDefinition, Map<number, readonly string[]>>()

/** Names of the columns that an agent of a schema version has; none where it does not know the table. */
export function agentColumnsAt(table: TableDefinition, version: number): readonly string[] {
  let byVersion = known.get(table)
  if (byVersion === undefined) known.set(table, (byVersion = new Map()))
  let found = byVersion.get(version)
  if (found === undefined) {
    const all = table.since > version ? [] : agentColumns(table)
    found = all.filter((name) => mustColumn(table, name).since <= version)
    byVersion.set(version, found)
  }
  return found
}

/** Whether a table, or a column that agents have of it, came after one version, up to another. */
export const gainedBetween = (table: TableDefinition, after: number, upTo: number): boolean =>
  agentColumnsAt(table, upTo).length > agentColumnsAt(table, after).length
