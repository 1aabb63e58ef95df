import type { ColumnShape, TableDefinition } from '../define.ts'
import { agentColumns, columnWrite, mustColumn } from '../define.ts'
import { allTables } from '../tables.ts'

/**
 * What the log keeps of an inserted row. Where rows hardly ever change, nothing: as long as the row is as it was
 * inserted, it is its own image. Before it changes or goes, whoever does that, a trigger puts the image into the log.
 */
export const isLoggedByReference = ({ writeClass }: TableDefinition): boolean =>
  writeClass === 'append' || writeClass === 'push-only'

/** Columns of a row that are sent when it is inserted. */
export const sentColumns = (table: TableDefinition): string[] =>
  agentColumns(table).filter((name) => columnWrite(table, name) !== 'never')

/** A column as JSON can hold it, in SQL; bytes as hex. */
export function jsonValue(table: TableDefinition, name: string, row: string): string {
  const value = `${row}.${name}`
  const { kind, nullable } = mustColumn(table, name)
  if (kind !== 'vector') return value
  // hex(NULL) is '', which would be a vector of no dimensions.
  return nullable ? `iif(${value} IS NULL, NULL, hex(${value}))` : `hex(${value})`
}

/** Columns of a row as a JSON object in SQL. */
export const jsonObject = (table: TableDefinition, names: readonly string[], row: string): string =>
  `json_object(${names.map((name) => `'${name}', ${jsonValue(table, name, row)}`).join(', ')})`

/** Columns of the log, each inserted row with its image: to be selected from in place of `sync_log`. */
export const loggedMutations = `(SELECT n, tx, tbl, id, op, pushed, blocked, ref, before,
    CASE WHEN patch IS NULL AND op = 'insert' THEN CASE tbl${allTables
      .filter(isLoggedByReference)
      .map(
        (table) =>
          ` WHEN ${table.number} THEN (SELECT ${jsonObject(table, sentColumns(table), 'r')} FROM ${table.name} r WHERE r.id = sync_log.id)`,
      )
      .join('')} END ELSE patch END AS patch
  FROM sync_log)`

/**
 * Bytes of a row that is logged by reference, or somewhat more, in SQL. What has a bound counts with it; of the rest only
 * the lengths are looked at.
 */
export function rowSize(table: TableDefinition, row: string): string {
  let bounded = 0
  const lengths: string[] = []
  for (const name of sentColumns(table)) {
    const shape = mustColumn(table, name)
    const bound = boundOf(shape)
    if (bound !== undefined) bounded += bound
    else
      lengths.push(
        shape.nullable ? `ifnull(octet_length(${row}.${name}), 0)` : `octet_length(${row}.${name})`,
      )
  }
  return [String(bounded), ...lengths].join(' + ')
}

function boundOf({ kind }: ColumnShape): number | undefined {
  switch (kind) {
    case 'uuid':
      return 36
    case 'timestamp':
      return 27
    case 'integer':
      return 11
    case 'boolean':
      return 1
    default:
      return undefined
  }
}
