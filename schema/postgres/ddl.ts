import type { ColumnShape, TableDefinition } from '../define.ts'
import { mustColumn } from '../define.ts'
import { enums } from '../enums.ts'
import { allTables } from '../tables.ts'
import { accessStatements } from './access.ts'
import { captureStatements, keysFunction, moveFunction } from './capture.ts'
import { domainFunctions, domainViews, idFunction } from './functions.ts'
import { syncSchema } from './sync-schema.ts'

/** The whole schema of the centre, in order of creation. */
export function postgresSchema(): string {
  const synced = allTables.filter((table) => table.writeClass !== 'push-only')
  return [
    ...extensions,
    idFunction,
    ...enums.map(
      ({ name, values }) =>
        `CREATE TYPE ${name} AS ENUM (${values.map((value) => `'${value}'`).join(', ')})`,
    ),
    ...syncSchema,
    ...allTables.flatMap((table) => [
      createTable(table),
      ...createIndexes(table),
      ...comments(table),
    ]),
    ...domainFunctions,
    ...allTables.flatMap(updatedAtTrigger),
    ...domainViews,
    ...synced.map(keysFunction),
    ...synced.flatMap(moveFunction),
    ...synced.flatMap(captureStatements),
    // PostgreSQL lets everyone run every function; those that read past row-level security are the owner's alone.
    `REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA sync FROM PUBLIC`,
    ...allTables.flatMap(accessStatements),
    ...migrationTable,
    ...allTables.map((table) => `ANALYZE ${table.name}`),
  ]
    .map((statement) => `${statement.trim()};\n`)
    .join('\n')
}

/** PG-002. Not every server lets us have `pg_stat_statements`; nothing but monitoring needs it. */
const extensions: readonly string[] = [
  `CREATE EXTENSION IF NOT EXISTS "uuid-ossp"`,
  `CREATE EXTENSION IF NOT EXISTS pgcrypto`,
  `CREATE EXTENSION IF NOT EXISTS pg_trgm`,
  `DO $$ BEGIN
  CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
EXCEPTION WHEN OTHERS THEN RAISE NOTICE 'pg_stat_statements is not available: %', SQLERRM;
END $$`,
]

const migrationTable: readonly string[] = [
  `CREATE TABLE IF NOT EXISTS schema_migrations (
  version bigint PRIMARY KEY,
  name varchar(255) NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now(),
  checksum varchar(64) NOT NULL,
  execution_time_ms integer NOT NULL,
  success boolean NOT NULL DEFAULT true
)`,
  `CREATE INDEX IF NOT EXISTS idx_schema_migrations_applied_at ON schema_migrations (applied_at DESC)`,
]

function createTable(table: TableDefinition): string {
  const key = table.partitionedBy === undefined ? 'id' : `id, ${table.partitionedBy}`
  const lines = [
    ...Object.keys(table.columns).map((name) => columnLine(table, name)),
    `CONSTRAINT ${table.name}_pkey PRIMARY KEY (${key})`,
    ...table.uniques.map(
      ({ name, columns }) => `CONSTRAINT ${name} UNIQUE (${columns.join(', ')})`,
    ),
    ...table.checks.map(({ name, postgres }) => `CONSTRAINT ${name} CHECK (${postgres})`),
  ]
  const partition =
    table.partitionedBy === undefined ? '' : ` PARTITION BY RANGE (${table.partitionedBy})`
  return `CREATE TABLE ${table.name} (\n  ${lines.join(',\n  ')}\n)${partition}`
}

function columnLine(table: TableDefinition, name: string): string {
  const shape = mustColumn(table, name)
  const parts = [name, postgresType(shape)]
  if (!shape.nullable) parts.push('NOT NULL')
  const fallback = defaultExpression(shape)
  if (fallback !== undefined) parts.push(`DEFAULT ${fallback}`)
  if (shape.references !== undefined) {
    const { table: target, onDelete } = shape.references
    parts.push(`REFERENCES ${target}(id) ON DELETE ${onDelete.toUpperCase()}`)
  }
  return parts.join(' ')
}

/** PostgreSQL's type of a column; also the cast of a parameter that holds it. */
export function postgresType(shape: ColumnShape): string {
  switch (shape.kind) {
    case 'text':
      return shape.maxLength === undefined ? 'text' : `varchar(${shape.maxLength})`
    case 'enum':
      return shape.enumName ?? 'text'
    case 'timestamp':
      return 'timestamptz'
    case 'json':
      return 'jsonb'
    case 'vector':
      return 'bytea'
    default:
      return shape.kind
  }
}

function defaultExpression(shape: ColumnShape): string | undefined {
  const fallback = shape.default
  switch (fallback?.kind) {
    case 'literal':
      if (shape.kind.endsWith('[]')) return `'{}'`
      return typeof fallback.value === 'string' ? `'${fallback.value}'` : String(fallback.value)
    case 'now':
      return 'now()'
    case 'new-id':
      return 'uuid_generate_v7()'
    default:
      return undefined
  }
}

function createIndexes(table: TableDefinition): string[] {
  return table.indexes.map((index) => {
    const unique = index.unique === true ? 'UNIQUE ' : ''
    const using = index.using === undefined ? '' : ` USING ${index.using}`
    const where = index.where === undefined ? '' : ` WHERE ${index.where}`
    return `CREATE ${unique}INDEX ${index.name} ON ${table.name}${using} (${index.on.join(', ')})${where}`
  })
}

const quoted = (text: string): string => `'${text.replaceAll("'", "''")}'`

function comments(table: TableDefinition): string[] {
  return [
    `COMMENT ON TABLE ${table.name} IS ${quoted(table.comment)}`,
    ...Object.entries(table.columns).flatMap(([name, { shape }]) =>
      shape.comment === undefined
        ? []
        : [`COMMENT ON COLUMN ${table.name}.${name} IS ${quoted(shape.comment)}`],
    ),
  ]
}

function updatedAtTrigger(table: TableDefinition): string[] {
  if (!Object.hasOwn(table.columns, 'updated_at')) return []
  return [
    `CREATE TRIGGER update_${table.name}_updated_at BEFORE UPDATE ON ${table.name} FOR EACH ROW EXECUTE FUNCTION update_updated_at_column()`,
  ]
}
