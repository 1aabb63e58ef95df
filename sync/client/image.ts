import { valueBeforeAdded, type Stored, type StoredRow } from '../../schema/codec.ts'
import { agentColumns, mustColumn, type TableDefinition } from '../../schema/define.ts'

/**
 * Images and patches as the side tables keep them: JSON of stored forms, bytes as hex (which is how the triggers, in
 * SQL, can write them).
 */
export function decodeImage(table: TableDefinition, text: string): StoredRow {
  const parsed = JSON.parse(text) as Record<string, string | number | null>
  const row: Record<string, Stored> = parsed
  for (const [name, value] of Object.entries(parsed)) {
    if (typeof value === 'string' && table.columns[name]?.shape.kind === 'vector')
      row[name] = Buffer.from(value, 'hex')
  }
  return row
}

/** A row with all its columns: one that came after it was made is as in another row, or as it was added. */
export function completed(table: TableDefinition, row: StoredRow, from?: StoredRow): StoredRow {
  const missing = agentColumns(table).filter((name) => !Object.hasOwn(row, name))
  if (missing.length === 0) return row
  const values = missing.map((name): [string, Stored] => [
    name,
    from !== undefined && Object.hasOwn(from, name)
      ? (from[name] ?? null)
      : valueBeforeAdded(mustColumn(table, name)),
  ])
  return { ...row, ...Object.fromEntries(values) }
}

/** An authoritative image that was kept, maybe before the store was upgraded. */
export const decodeBase = (table: TableDefinition, text: string): StoredRow =>
  completed(table, decodeImage(table, text))

export function encodeImage(row: StoredRow): string {
  return JSON.stringify(
    Object.fromEntries(
      Object.entries(row).map(([name, value]) => [
        name,
        value instanceof Uint8Array ? Buffer.from(value).toString('hex').toUpperCase() : value,
      ]),
    ),
  )
}

/** A placeholder row for what lies outside the scope: valid, recognizable, never shown. */
export function stubImage(table: TableDefinition, id: string, ownUserId: string): StoredRow {
  const row: Record<string, Stored> = {}
  for (const name of agentColumns(table)) {
    const shape = mustColumn(table, name)
    row[name] = shape.nullable ? null : placeholder(table, name, id, ownUserId)
  }
  return row
}

function placeholder(table: TableDefinition, name: string, id: string, ownUserId: string): Stored {
  const shape = mustColumn(table, name)
  if (name === 'id') return id
  if (name === 'email') return `${id}@stub.invalid`
  if (shape.references !== undefined) return shape.references.table === 'users' ? ownUserId : id
  switch (shape.kind) {
    case 'enum':
      return shape.values?.[0] ?? ''
    case 'timestamp':
      return shape.default === undefined
        ? '9999-12-31T23:59:59.999999Z'
        : '0001-01-01T00:00:00.000000Z'
    case 'integer':
    case 'boolean':
      return 1
    case 'json':
      return '{}'
    case 'inet':
      return '0.0.0.0'
    case 'vector':
      return new Uint8Array(4)
    default:
      // The one text column with a rule of its own is a message's role.
      return name === 'role'
        ? 'system'
        : name === 'collection'
          ? 'incident_knowledge'
          : `stub-${id}`
  }
}
