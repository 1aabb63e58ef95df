import type Database from 'better-sqlite3'
import type {
  CompiledQuery,
  DatabaseConnection,
  DatabaseIntrospector,
  Dialect,
  DialectAdapter,
  Driver,
  Kysely,
  QueryCompiler,
  QueryResult,
} from 'kysely'
import { SqliteAdapter, SqliteIntrospector, SqliteQueryCompiler, TableNode } from 'kysely'
import { decodeValue, type Stored } from '../../schema/codec.ts'
import type { ColumnShape } from '../../schema/define.ts'
import { AgentDBError } from '../../schema/errors.ts'
import { tableOfName } from '../../schema/tables.ts'
import { canonicalJson } from '../../schema/values/canonical-json.ts'
import { canonicalTimestamp } from '../../schema/values/timestamp.ts'
import { encodeVector } from '../../schema/values/vector.ts'
import type { Connection } from './connection.ts'
import { fromSqlite } from './errors.ts'

/**
 * Kysely on the store's own connection: values are decoded as the repositories decode them, each writing statement is
 * a local transaction of its own, and captured like any other write.
 */
export class StoreDialect implements Dialect {
  readonly #connection: Connection

  constructor(connection: Connection) {
    this.#connection = connection
  }

  createDriver(): Driver {
    return new StoreDriver(this.#connection)
  }
  createQueryCompiler(): QueryCompiler {
    return new SqliteQueryCompiler()
  }
  createAdapter(): DialectAdapter {
    return new SqliteAdapter()
  }
  // oxlint-disable-next-line typescript/no-explicit-any -- Kysely's own signature
  createIntrospector(kysely: Kysely<any>): DatabaseIntrospector {
    return new SqliteIntrospector(kysely)
  }
}

class StoreDriver implements Driver {
  readonly #connection: DatabaseConnection

  constructor(connection: Connection) {
    this.#connection = new StoreKyselyConnection(connection)
  }

  async init(): Promise<void> {}
  async acquireConnection(): Promise<DatabaseConnection> {
    return this.#connection
  }
  async releaseConnection(): Promise<void> {}
  async destroy(): Promise<void> {}

  async beginTransaction(): Promise<void> {
    throw new AgentDBError(
      'TRANSACTION_MISUSE',
      'use db.transaction(() => { ... }): an awaited transaction on the shared connection would swallow the writes of others when it rolls back',
    )
  }
  async commitTransaction(): Promise<void> {}
  async rollbackTransaction(): Promise<void> {}
}

/** Behind comments and EXPLAIN, too: SQLite changes most settings while it compiles the statement. */
const controlsTransactions =
  /^(?:[\s;]|--[^\n]*\n|\/\*[\s\S]*?\*\/)*(?:explain\s+(?:query\s+plan\s+)?)?(?:begin|commit|end|rollback|savepoint|release|attach|detach|vacuum|pragma\b[^=(]*[=(])/i

class StoreKyselyConnection implements DatabaseConnection {
  readonly #connection: Connection

  constructor(connection: Connection) {
    this.#connection = connection
  }

  async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    if (controlsTransactions.test(query.sql)) {
      throw new AgentDBError(
        'TRANSACTION_MISUSE',
        `the store manages its own transactions and settings: ${query.sql.trim().slice(0, 40)} is refused`,
      )
    }
    try {
      const statement = this.#connection.prepare(query.sql)
      const parameters = query.parameters.map(encodeParameter)
      if (statement.readonly) return { rows: readRows<R>(statement, query, parameters) }
      return this.#connection.transaction(() => write<R>(statement, query, parameters))
    } catch (error) {
      throw fromSqlite(error)
    }
  }

  // eslint-disable-next-line require-yield -- never yields: it refuses
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new AgentDBError(
      'TRANSACTION_MISUSE',
      'streaming would hold the connection; page by key instead',
    )
  }
}

function write<R>(
  statement: Database.Statement,
  query: CompiledQuery,
  parameters: readonly unknown[],
): QueryResult<R> {
  if (statement.reader) {
    const rows = readRows<R>(statement, query, parameters)
    return { rows, numAffectedRows: BigInt(rows.length) }
  }
  const { changes, lastInsertRowid } = statement.run(...parameters)
  return { rows: [], numAffectedRows: BigInt(changes), insertId: BigInt(lastInsertRowid) }
}

function readRows<R>(
  statement: Database.Statement,
  query: CompiledQuery,
  parameters: readonly unknown[],
): R[] {
  const rows = statement.all(...parameters) as Record<string, unknown>[]
  const decoders = decodersOf(statement, query)
  if (decoders.length === 0) return rows as R[]
  for (const row of rows) {
    for (const [name, shape] of decoders) row[name] = decodeValue(shape, row[name] as Stored)
  }
  return rows as R[]
}

/** Result columns that come straight from a table's column whose stored form differs from its value. */
function decodersOf(statement: Database.Statement, query: CompiledQuery): [string, ColumnShape][] {
  const written = writtenTable(query)
  return statement.columns().flatMap(({ name, table, column }): [string, ColumnShape][] => {
    // RETURNING tells no origin; its columns are those of the table that is written.
    const definition = tableOfName(table ?? written ?? '')
    const shape = definition?.columns[column ?? name]?.shape
    return shape === undefined || passesThrough.has(shape.kind) ? [] : [[name, shape]]
  })
}

const passesThrough: ReadonlySet<string> = new Set([
  'uuid',
  'text',
  'enum',
  'integer',
  'timestamp',
  'inet',
])

function writtenTable({ query }: CompiledQuery): string | undefined {
  if (query.kind === 'InsertQueryNode') return query.into?.table.identifier.name
  if (query.kind === 'UpdateQueryNode') {
    return query.table !== undefined && TableNode.is(query.table)
      ? query.table.table.identifier.name
      : undefined
  }
  if (query.kind !== 'DeleteQueryNode') return undefined
  const [from] = query.from.froms
  return from !== undefined && TableNode.is(from) ? from.table.identifier.name : undefined
}

function encodeParameter(value: unknown): unknown {
  if (value === undefined || value === null) return null
  if (typeof value === 'boolean') return value ? 1 : 0
  if (value instanceof Float32Array) return encodeVector(value)
  if (value instanceof Uint8Array) return value
  if (value instanceof Date) return canonicalTimestamp(value)
  return typeof value === 'object' ? canonicalJson(value) : value
}
