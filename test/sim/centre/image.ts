import type { Stored, StoredRow } from '../../../schema/codec.ts'
import { agentColumns, mustColumn, type TableDefinition } from '../../../schema/define.ts'

/** A row as `to_jsonb` gives it: what the log holds, and what the feed's code reads. */
export function imageOf(table: TableDefinition, row: StoredRow): Record<string, unknown> {
  return Object.fromEntries(
    agentColumns(table).map((name) => [
      name,
      jsonOf(mustColumn(table, name).kind, row[name] ?? null),
    ]),
  )
}

function jsonOf(kind: string, value: Stored): unknown {
  if (value === null) return null
  switch (kind) {
    case 'json':
    case 'text[]':
    case 'integer[]':
    case 'uuid[]':
      return JSON.parse(String(value)) as unknown
    case 'boolean':
      return value === 1
    case 'timestamp':
      return String(value).replace(/\.?0*Z$/, '+00:00')
    case 'vector':
      return `\\x${Buffer.from(value as Uint8Array).toString('hex')}`
    default:
      return value
  }
}
