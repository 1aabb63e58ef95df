import type { ColumnShape, IndexDefinition, TableDefinition } from '../define.ts'
import { agentColumns, mustColumn } from '../define.ts'
import { allTables } from '../tables.ts'
import { captureTriggers, openTransaction } from './capture.ts'
import { sqliteNow } from './expressions.ts'
import { syncTables } from './sync-tables.ts'
import { views } from './views.ts'

const millis = `printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER))`
const newUuidV7 =
  `lower(substr(${millis}, 1, 8) || '-' || substr(${millis}, 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' ||` +
  ` substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))`

/** The whole schema of the embedded store, in order of creation. */
export function sqliteSchema(): string {
  return [
    ...syncTables,
    ...allTables.flatMap((table) => [createTable(table), ...createIndexes(table)]),
    openTransaction,
    ...allTables.flatMap((table) => captureTriggers(table)),
    ...views,
  ]
    .map((statement) => `${statement.trim()};\n`)
    .join('\n')
}

function createTable(table: TableDefinition): string {
  const names = agentColumns(table)
  const lines = [
    ...names.map((name) => columnLine(table, name)),
    ...table.uniques
      .filter((unique) => unique.columns.every((name) => names.includes(name)))
      .map((unique) => `CONSTRAINT ${unique.name} UNIQUE (${unique.columns.join(', ')})`),
    ...table.checks.flatMap((check) =>
      check.sqlite === null ? [] : [`CONSTRAINT ${check.name} CHECK (${check.sqlite})`],
    ),
  ]
  return `-- ${table.comment}\nCREATE TABLE ${table.name} (\n  ${lines.join(',\n  ')}\n) STRICT`
}

function columnLine(table: TableDefinition, name: string): string {
  const shape = mustColumn(table, name)
  const parts = [name, sqliteType(shape)]
  if (name === 'id') parts.push('PRIMARY KEY')
  if (!shape.nullable) parts.push('NOT NULL')
  const fallback = defaultExpression(shape)
  if (fallback !== undefined) parts.push(`DEFAULT ${fallback}`)
  if (shape.references !== undefined) {
    const { table: target, onDelete } = shape.references
    parts.push(`REFERENCES ${target}(id) ON DELETE ${onDelete.toUpperCase()}`)
  }
  const check = typeCheck(name, shape)
  if (check !== undefined) parts.push(`CONSTRAINT ${table.name}_${name}_type CHECK (${check})`)
  return parts.join(' ')
}

function sqliteType(shape: ColumnShape): string {
  if (shape.kind === 'vector') return 'BLOB'
  return shape.kind === 'integer' || shape.kind === 'boolean' ? 'INTEGER' : 'TEXT'
}

function defaultExpression(shape: ColumnShape): string | undefined {
  const fallback = shape.default
  switch (fallback?.kind) {
    case 'literal':
      if (typeof fallback.value === 'boolean') return fallback.value ? '1' : '0'
      return typeof fallback.value === 'number' ? String(fallback.value) : `'${fallback.value}'`
    case 'now':
      return `(${sqliteNow})`
    case 'new-id':
      return `(${newUuidV7})`
    default:
      return undefined
  }
}

/** What a column of this kind holds, for writers that do not come through a repository. */
function typeCheck(name: string, shape: ColumnShape): string | undefined {
  switch (shape.kind) {
    case 'uuid':
      return `length(${name}) = 36 AND ${name} = lower(${name})`
    case 'text':
      return shape.maxLength === undefined ? undefined : `length(${name}) <= ${shape.maxLength}`
    case 'enum':
      return `${name} IN (${(shape.values ?? []).map((value) => `'${value}'`).join(', ')})`
    case 'integer':
      return `${name} BETWEEN -2147483648 AND 2147483647`
    case 'boolean':
      return `${name} IN (0, 1)`
    case 'timestamp':
      return `${name} LIKE '____-__-__T__:__:__.______Z'`
    case 'json':
      return `json_valid(${name})`
    case 'text[]':
    case 'integer[]':
    case 'uuid[]':
      return `json_type(${name}) = 'array'`
    default:
      return undefined
  }
}

function createIndexes(table: TableDefinition): string[] {
  const names = new Set(agentColumns(table))
  return table.indexes
    .filter((index) => existsLocally(table, index, names))
    .map((index) => {
      const unique = index.unique === true ? 'UNIQUE ' : ''
      const where = index.where === undefined ? '' : ` WHERE ${index.where}`
      return `CREATE ${unique}INDEX ${index.name} ON ${table.name} (${index.on.join(', ')})${where}`
    })
}

function existsLocally(
  table: TableDefinition,
  index: IndexDefinition,
  names: ReadonlySet<string>,
): boolean {
  if (index.using === 'gin' || index.centreOnly === true) return false
  return Object.keys(table.columns).every(
    (column) => names.has(column) || !index.on.some((part) => part.includes(column)),
  )
}
