import type { Stored } from '../../schema/codec.ts'
import { agentColumns, references, type TableDefinition } from '../../schema/define.ts'
import type { Connection, Statement } from '../sqlite/connection.ts'
import { isConstraintError } from '../sqlite/errors.ts'
import { insertText, ROWS_AT_ONCE } from '../sqlite/insert-text.ts'

/** A row to be inserted: values of all columns, in their order. */
export interface InsertedRow {
  readonly stored: readonly Stored[]
  /** What the program gave, for the error that names it. */
  readonly input: Readonly<Record<string, unknown>>
}

/** Inserts rows of a table, one by one or many a statement. What fails fails for the row whose fault it is. */
export class RowInserter {
  readonly #connection: Connection
  readonly #table: TableDefinition
  readonly #explain: (error: unknown, input: InsertedRow['input']) => unknown
  /** Places of the columns that refer to other rows of the table. */
  readonly #siblings: readonly number[]
  #one: Statement | undefined
  #many: Statement | undefined

  constructor(
    connection: Connection,
    table: TableDefinition,
    explain: (error: unknown, input: InsertedRow['input']) => unknown,
  ) {
    this.#connection = connection
    this.#table = table
    this.#explain = explain
    const names = agentColumns(table)
    this.#siblings = references(table)
      .filter(({ target }) => target === table.name)
      .map(({ column }) => names.indexOf(column))
  }

  insert({ stored, input }: InsertedRow): void {
    this.#one ??= this.#prepare(1)
    try {
      this.#one.run(...stored)
    } catch (error) {
      throw this.#explain(error, input)
    }
  }

  /** Rows of one call, inside its transaction. */
  batch(): RowBatch {
    let waiting: InsertedRow[] = []
    const flush = (): void => {
      const rows = waiting
      waiting = []
      if (rows.length === ROWS_AT_ONCE) this.#insertTogether(rows)
      else for (const row of rows) this.insert(row)
    }
    return {
      flush,
      add: (row) => {
        // A reference is checked when the statement ends: it must not find a row that comes after it.
        const mayReferToLater = this.#siblings.some((place) => row.stored[place] !== null)
        if (mayReferToLater) flush()
        waiting.push(row)
        if (mayReferToLater || waiting.length === ROWS_AT_ONCE) flush()
      },
    }
  }

  #insertTogether(rows: readonly InsertedRow[]): void {
    this.#many ??= this.#prepare(ROWS_AT_ONCE)
    const values: Stored[] = []
    for (const { stored } of rows) for (const value of stored) values.push(value)
    try {
      this.#many.run(...values)
    } catch (error) {
      // Nothing of the statement is left. One by one, the row that fails is known.
      if (!isConstraintError(error)) throw error
      for (const row of rows) this.insert(row)
    }
  }

  #prepare(rows: number): Statement {
    const text = insertText(this.#table.name, agentColumns(this.#table), rows)
    return this.#connection.prepareOwn(text)
  }
}

/** Rows that wait for a statement that takes them together; `flush` inserts what waits. */
export interface RowBatch {
  add(row: InsertedRow): void
  flush(): void
}
