import type { Stored, StoredRow } from '../../schema/codec.ts'
import { agentColumns, references, type TableDefinition } from '../../schema/define.ts'
import { insertText, ROWS_AT_ONCE, type Connection } from '../../src/internal-for-sync.ts'

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
  /** Rows that were seen to be there; forgotten with any removal. Many messages ask for one conversation. */
  readonly #existing = new Set<string>()
  #hasStubs: boolean

  constructor(connection: Connection) {
    this.#connection = connection
    this.#hasStubs = this.holdsAny('sync_stub')
  }

  holdsAny(sideTable: 'sync_log' | 'sync_base' | 'sync_stub'): boolean {
    return this.#connection.get(`SELECT 1 FROM ${sideTable} LIMIT 1`) !== undefined
  }

  read(table: TableDefinition, id: string): StoredRow | undefined {
    return this.#connection.get<StoredRow>(statementsOf(table).read, id)
  }

  /** The columns of a row that point at other rows, and its id. */
  readReferences(table: TableDefinition, id: string): StoredRow | undefined {
    return this.#connection.get<StoredRow>(statementsOf(table).readReferences, id)
  }

  exists(table: TableDefinition, id: string): boolean {
    const key = `${table.number}:${id}`
    if (this.#existing.has(key)) return true
    const found = this.#connection.get(statementsOf(table).exists, id) !== undefined
    if (found) this.#existing.add(key)
    return found
  }

  remove(table: TableDefinition, id: string): boolean {
    this.unmarkStub(table, id)
    this.#existing.clear()
    return this.#connection.run(statementsOf(table).remove, id) > 0
  }

  /** Writes {@link ROWS_AT_ONCE} rows that are not here and that nothing is in the way of; false without any of them. */
  insertAllNew(table: TableDefinition, rows: readonly StoredRow[]): boolean {
    const names = agentColumns(table)
    const values: Stored[] = []
    for (const row of rows) for (const name of names) values.push(row[name] ?? null)
    try {
      this.#connection.prepare(statementsOf(table).insertAllNew).run(values)
      return true
    } catch (error) {
      if (isMisfit(error) || isTaken(error)) return false
      throw error
    }
  }

  /** Writes a row that is not here and that nothing is in the way of; false without it. */
  insertNew(table: TableDefinition, row: StoredRow): boolean {
    try {
      return this.#connection.run(statementsOf(table).insertNew, ...valuesOf(table, row)) > 0
    } catch (error) {
      if (isMisfit(error)) return false
      throw error
    }
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
      if (isMisfit(error)) return { kind: 'check' }
      throw error
    }
  }

  /** Writes an authoritative row that the local checks refuse: the centre has it, so it is held. */
  upsertUnchecked(table: TableDefinition, row: StoredRow): void {
    this.#connection.pragma('ignore_check_constraints = ON')
    try {
      this.#connection.prepareOwn(statementsOf(table).upsert).run(...valuesOf(table, row))
      this.unmarkStub(table, String(row['id']))
    } finally {
      this.#connection.pragma('ignore_check_constraints = OFF')
    }
  }

  markStub(table: TableDefinition, id: string): void {
    this.#hasStubs = true
    this.#connection.run(
      'INSERT OR IGNORE INTO sync_stub (id, tbl) VALUES (?, ?)',
      id,
      table.number,
    )
  }

  /** Whether the row only stands for one outside the scope; no program sees it. */
  isStub(table: TableDefinition, id: string): boolean {
    if (!this.#hasStubs) return false
    const sql = 'SELECT 1 FROM sync_stub WHERE id = ? AND tbl = ?'
    return this.#connection.get(sql, id, table.number) !== undefined
  }

  unmarkStub(table: TableDefinition, id: string): void {
    if (!this.#hasStubs) return
    this.#connection.run('DELETE FROM sync_stub WHERE id = ? AND tbl = ?', id, table.number)
  }

  #upsert(table: TableDefinition, row: StoredRow): void {
    this.#connection.run(statementsOf(table).upsert, ...valuesOf(table, row))
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

interface Statements {
  readonly read: string
  readonly readReferences: string
  readonly exists: string
  readonly remove: string
  readonly upsert: string
  readonly insertNew: string
  readonly insertAllNew: string
}

const statements = new WeakMap<TableDefinition, Statements>()

/** Texts made once: the statement cache finds a text that it has seen without reading it. */
function statementsOf(table: TableDefinition): Statements {
  const known = statements.get(table)
  if (known !== undefined) return known
  const { name: t } = table
  const names = agentColumns(table)
  const rest = names.filter((name) => name !== 'id')
  const pointers = ['id', ...references(table).map(({ column }) => column)]
  const insert = insertText(t, names, 1)
  const made: Statements = {
    read: `SELECT ${names.join(', ')} FROM ${t} WHERE id = ?`,
    readReferences: `SELECT ${pointers.join(', ')} FROM ${t} WHERE id = ?`,
    exists: `SELECT 1 FROM ${t} WHERE id = ?`,
    remove: `DELETE FROM ${t} WHERE id = ?`,
    insertNew: `${insert} ON CONFLICT DO NOTHING`,
    insertAllNew: insertText(t, names, ROWS_AT_ONCE),
    upsert: `${insert}
      ON CONFLICT (id) DO UPDATE SET ${rest.map((name) => `${name} = excluded.${name}`).join(', ')}`,
  }
  statements.set(table, made)
  return made
}

const valuesOf = (table: TableDefinition, row: StoredRow): Stored[] =>
  agentColumns(table).map((name) => row[name] ?? null)

/** Whether the id or another unique key is another row's. */
const isTaken = (error: unknown): boolean =>
  ['SQLITE_CONSTRAINT_PRIMARYKEY', 'SQLITE_CONSTRAINT_UNIQUE'].includes(
    String((error as { code?: unknown }).code),
  )

/** Whether the row's own values are refused, rather than the writing. */
const isMisfit = (error: unknown): boolean =>
  ['SQLITE_CONSTRAINT_CHECK', 'SQLITE_CONSTRAINT_NOTNULL'].includes(
    String((error as { code?: unknown }).code),
  )
