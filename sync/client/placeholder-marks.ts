import type { TableDefinition } from '../../schema/define.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import type { RowRef } from './row-ref.ts'

/**
 * Which columns of authoritative images only stand for what cannot be held here. A mark comes and goes with its image,
 * whatever is pending on top of it.
 */
export class PlaceholderMarks {
  readonly #connection: Connection
  readonly #added: { ref: RowRef; columns: readonly string[] }[] = []

  constructor(connection: Connection) {
    this.#connection = connection
  }

  add(ref: RowRef, columns: readonly string[]): void {
    if (columns.length > 0) this.#added.push({ ref, columns })
  }

  /** Replaces the marks of the rows whose image came, or which went. */
  save(came: Iterable<RowRef>): void {
    if (this.#holdsAny()) for (const { table, id } of came) this.#remove(table, id)
    for (const { ref, columns } of this.#added) {
      this.#connection.run(
        'INSERT OR REPLACE INTO sync_placeholder (id, tbl, columns) VALUES (?, ?, ?)',
        ref.id,
        ref.table.number,
        JSON.stringify(columns),
      )
    }
  }

  #holdsAny(): boolean {
    return this.#connection.get('SELECT 1 FROM sync_placeholder LIMIT 1') !== undefined
  }

  #remove(table: TableDefinition, id: string): void {
    this.#connection.run('DELETE FROM sync_placeholder WHERE id = ? AND tbl = ?', id, table.number)
  }
}

/** The columns at some indexes of a shape; those that this agent does not know are not here to be marked. */
export const namesAt = (
  table: TableDefinition,
  columns: readonly string[],
  indexes: readonly number[],
): string[] =>
  indexes
    .map((i) => columns[i])
    .filter((name) => name !== undefined && Object.hasOwn(table.columns, name)) as string[]
