/** Rows of one statement. SQLite saves each page that a statement changes, so that it can be undone: once for all of them. */
export const ROWS_AT_ONCE = 32

/** An INSERT of so many rows, all their values parameters. */
export function insertText(table: string, columns: readonly string[], rows: number): string {
  const values = `(${columns.map(() => '?').join(', ')})`
  return `INSERT INTO ${table} (${columns.join(', ')}) VALUES ${Array.from({ length: rows }, () => values).join(', ')}`
}
