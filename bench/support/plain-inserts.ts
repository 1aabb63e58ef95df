import { Pool } from 'pg'
import { mustColumn } from '../../schema/define.ts'
import { agentColumns, columnWrite, tables } from '../../schema/index.ts'
import { postgresType } from '../../schema/postgres/ddl.ts'

/** Columns of a message that an agent inserts, in the order of {@link PlainInserts}. */
export const sentColumns: readonly string[] = agentColumns(tables.messages).filter(
  (column) => columnWrite(tables.messages, column) !== 'never',
)

/** The same rows, straight into the table with its triggers: what PostgreSQL itself takes. */
export class PlainInserts implements AsyncDisposable {
  readonly #pool: Pool
  readonly #sql: string

  constructor(url: string) {
    this.#pool = new Pool({ connectionString: url, max: 10 })
    const values = sentColumns.map(
      (column) => `u.${column}::${postgresType(mustColumn(tables.messages, column))}`,
    )
    this.#sql = `INSERT INTO messages (${sentColumns.join(', ')}) SELECT ${values.join(', ')}
      FROM unnest(${sentColumns.map((_, i) => `$${i + 1}::text[]`).join(', ')}) u(${sentColumns.join(', ')})`
  }

  async insert(rows: readonly (readonly (string | number | null)[])[]): Promise<void> {
    await this.#pool.query(
      this.#sql,
      sentColumns.map((_, i) => rows.map((row) => row[i] ?? null)),
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.end()
  }
}
