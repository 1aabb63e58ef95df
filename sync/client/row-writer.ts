import type { Stored, StoredRow } from '../../schema/codec.ts'
import { agentColumns, type TableDefinition } from '../../schema/define.ts'
import type { Connection } from '../../src/internal-for-sync.ts'

/** Why a row did not fit the local constraints. */
export type Misfit =
  | { readonly kind: 'unique'; readonly others: readonly string[] }
  | { readonly kind: 'check' }

/**
 * Writes rows while a batch is applied. UPSERT by id and DELETE, with foreign keys off: REPLACE and delete-and-insert
 * would cascade and remove other rows.
 */
export class RowWriter {
  readonly #connection: Connection

  constructor(connection: Connection) {
    this.#connection = connection
  }

  read(table: TableDefinition, id: string): StoredRow | undefined {
    return this.#connection.get<StoredRow>(
      `SELECT ${agentColumns(table).join(', ')} FROM ${table.name} WHERE id = ?`,
      id,
    )
  }

  exists(table: TableDefinition, id: string): boolean {
    return this.#connection.get(`SELECT 1 FROM ${table.name} WHERE id = ?`, id) !== undefined
  }

  remove(table: TableDefinition, id: string): boolean {
    this.unmarkStub(table, id)
    return this.#connection.run(`DELETE FROM ${table.name} WHERE id = ?`, id) > 0
  }

  /** Writes a row; says what is in the way instead of throwing. */
  upsert(table: TableDefinition, row: StoredRow): Misfit | undefined {
    try {
      this.#upsert(table, row)
      this.unmarkStub(table, String(row['id']))
      return undefined
    } catch (error) {
      const { code } = error as { code?: unknown }
      if (code === 'SQLITE_CONSTRAINT_UNIQUE')
        return { kind: 'unique', others: this.#collisions(table, row) }
      if (code === 'SQLITE_CONSTRAINT_CHECK' || code === 'SQLITE_CONSTRAINT_NOTNULL')
        return { kind: 'check' }
      throw error
    }
  }

  /** Writes an authoritative row that the local checks refuse: the centre has it, so it is held. */
  upsertUnchecked(table: TableDefinition, row: StoredRow): void {
    this.#connection.pragma('ignore_check_constraints = ON')
    try {
      const { sql, values } = upsertStatement(table, row)
      this.#connection.prepareOwn(sql).run(...values)
    } finally {
      this.#connection.pragma('ignore_check_constraints = OFF')
    }
  }

  markStub(table: TableDefinition, id: string): void {
    this.#connection.run(
      'INSERT OR IGNORE INTO sync_stub (id, tbl) VALUES (?, ?)',
      id,
      table.number,
    )
  }

  unmarkStub(table: TableDefinition, id: string): void {
    this.#connection.run('DELETE FROM sync_stub WHERE id = ? AND tbl = ?', id, table.number)
  }

  #upsert(table: TableDefinition, row: StoredRow): void {
    const { sql, values } = upsertStatement(table, row)
    this.#connection.run(sql, ...values)
  }

  /** Ids of other rows that hold one of the row's unique keys. */
  #collisions(table: TableDefinition, row: StoredRow): string[] {
    const keys = [
      ...table.uniques.map(({ columns }) => ({ on: [...columns], where: '1' })),
      ...table.indexes
        .filter(({ unique }) => unique)
        .map(({ on, where }) => ({ on: [...on], where: where ?? '1' })),
    ]
    const names = agentColumns(table)
    const given = `SELECT ${names.map((name) => `? AS ${name}`).join(', ')}`
    const values = names.map((name) => row[name] ?? null)
    return keys.flatMap(({ on, where }) => {
      if (!on.every((part) => names.some((name) => part.includes(name)))) return []
      return this.#connection
        .all<{ id: string }>(
          `SELECT t.id FROM ${table.name} t WHERE (${on.join(', ')}) = (SELECT ${on.join(', ')} FROM (${given})) AND ${where} AND t.id <> ?`,
          ...values,
          row['id'] ?? null,
        )
        .map(({ id }) => id)
    })
  }
}

const statements = new WeakMap<TableDefinition, string>()

function upsertStatement(
  table: TableDefinition,
  row: StoredRow,
): { sql: string; values: Stored[] } {
  const names = agentColumns(table)
  let sql = statements.get(table)
  if (sql === undefined) {
    const rest = names.filter((name) => name !== 'id')
    sql = `INSERT INTO ${table.name} (${names.join(', ')}) VALUES (${names.map(() => '?').join(', ')})
      ON CONFLICT (id) DO UPDATE SET ${rest.map((name) => `${name} = excluded.${name}`).join(', ')}`
    statements.set(table, sql)
  }
  return { sql, values: names.map((name) => row[name] ?? null) }
}
