import { encodeColumn, type Stored } from '../../schema/codec.ts'
import {
  agentColumns,
  columnWrite,
  mustColumn,
  references,
  type ColumnShape,
  type StateMachine,
  type TableDefinition,
} from '../../schema/define.ts'
import { AgentDBError, preview, type ErrorDetails } from '../../schema/errors.ts'
import { mustTable, type TableName } from '../../schema/tables.ts'
import { isLegal } from '../../schema/transitions.ts'
import type { NewRow, Patch, Row } from '../../schema/types.ts'
import { newId } from '../../schema/values/id.ts'
import { timestampOfMicros, type Clock } from '../../schema/values/timestamp.ts'
import type { Connection, Statement } from '../sqlite/connection.ts'
import { fromSqlite } from '../sqlite/errors.ts'
import { compileList, notStub, type ListOptions } from './list-query.ts'
import { rowDecoder, type RowDecoder } from './row-codec.ts'
import { RowInserter, type RowBatch } from './row-inserter.ts'

export interface RepositoryContext {
  readonly connection: Connection
  readonly clock: Clock
  /** The user whose store it is. */
  readonly userId: string
}

/** A column as an insert needs it, looked up once. */
interface InsertColumn {
  readonly name: string
  readonly shape: ColumnShape
}

/** The next number of each group, while one call inserts: nothing else can write meanwhile. */
type NextNumbers = Map<Stored, number>

/**
 * One table of the store: typed, validated, synchronous. Every call is atomic; group several with `db.transaction`.
 *
 * @example
 * const c = db.conversations.create({ user_id: db.userId, title: 'Deploy help' })
 * db.conversations.update(c.id, { title: 'Deploy and roll back' })
 * db.conversations.list({ where: { archived_at: null }, orderBy: 'started_at desc', limit: 20 })
 */
export class Repository<N extends TableName> {
  protected readonly context: RepositoryContext
  protected readonly table: TableDefinition
  readonly #columns: readonly string[]
  readonly #decode: RowDecoder<Row<N>>
  readonly #inserts: readonly InsertColumn[]
  /** Places among the columns of those that an agent may give. */
  readonly #places: ReadonlyMap<string, number>
  readonly #nothingGiven: readonly (Stored | undefined)[]
  #find: Statement<Stored[], Stored[]> | undefined
  readonly #inserter: RowInserter

  constructor(context: RepositoryContext, name: N) {
    this.context = context
    this.table = mustTable(name)
    this.#columns = agentColumns(this.table)
    this.#decode = rowDecoder(this.table)
    this.#inserter = new RowInserter(context.connection, this.table, (error, input) =>
      this.#explain(error, input),
    )
    this.#inserts = this.#columns.map((column) => ({
      name: column,
      shape: mustColumn(this.table, column),
    }))
    const isReadOnly = this.table.writeClass === 'pull' || this.table.owner.kind === 'self'
    this.#nothingGiven = this.#columns.map(() => undefined)
    this.#places = new Map(
      isReadOnly
        ? []
        : this.#columns.flatMap((column, place) =>
            columnWrite(this.table, column) === 'never' ? [] : [[column, place]],
          ),
    )
  }

  /** The row of an id, or undefined where there is none, it is deleted, or it lies outside the scope. */
  find(id: string): Row<N> | undefined {
    const raw = this.#findStatement().get(id)
    return raw === undefined ? undefined : this.#decode(raw)
  }

  /** Inserts a row and returns it with its defaults. */
  create(input: NewRow<N>): Row<N> {
    return this.context.connection.transaction(() => {
      const given = input as Record<string, unknown>
      const stored = this.#storedValues(given, new Map())
      this.#inserter.insert({ stored, input: given })
      return this.#decode(stored)
    })
  }

  /** Inserts rows in one transaction: all of them or none. */
  createMany(inputs: readonly NewRow<N>[]): Row<N>[] {
    return this.context.connection.transaction(() => {
      const next: NextNumbers = new Map()
      const batch = this.#inserter.batch()
      const rows = inputs.map((input) => {
        const given = input as Record<string, unknown>
        const stored = this.#storedValues(given, next, batch)
        batch.add({ stored, input: given })
        return this.#decode(stored)
      })
      batch.flush()
      return rows
    })
  }

  /** Changes columns of a row and returns it. Throws `NOT_FOUND` where there is no such row. */
  update(id: string, patch: Patch<N>): Row<N> {
    const { table } = this
    const given = Object.entries(patch).filter(([, value]) => value !== undefined)
    for (const [column] of given) this.#mustBeWritable(column)
    const parameters = given.map(([column, value]) => encodeColumn(table, column, value))
    return this.context.connection.transaction(() => {
      if (given.length > 0)
        this.#change(
          id,
          given.map(([column]) => column),
          parameters,
        )
      const row = this.find(id)
      if (row === undefined) {
        throw new AgentDBError('NOT_FOUND', `${table.name} has no row ${preview(id)}`, {
          table: table.name,
          column: 'id',
          value: id,
        })
      }
      return row
    })
  }

  /** Deletes a row (where the table has `deleted_at`: marks it). Returns whether there was one. */
  delete(id: string): boolean {
    const { table } = this
    return this.context.connection.transaction(() => {
      if (table.softDelete === undefined) {
        return (
          this.#guarded(() =>
            this.context.connection.run(`DELETE FROM ${table.name} WHERE id = ?`, id),
          ) > 0
        )
      }
      if (this.find(id) === undefined) return false
      this.#mustBeWritable(table.softDelete)
      this.#write(id, [table.softDelete], [this.now()])
      return true
    })
  }

  /**
   * Rows in a stable order, a page at a time: `after` is the last row of the page before.
   *
   * @example
   * let page = db.messages.list({ where: { conversation_id: c.id }, limit: 100 })
   * while (page.length > 0) page = db.messages.list({ where: { conversation_id: c.id }, limit: 100, after: page.at(-1) })
   */
  list(options: ListOptions<Row<N>> = {}): Row<N>[] {
    const { sql, parameters } = compileList(this.table, options)
    return this.context.connection
      .all<Record<string, Stored>>(sql, ...parameters)
      .map((row) => this.#decode(this.#columns.map((name) => row[name] ?? null)))
  }

  protected now(): string {
    return timestampOfMicros(this.context.clock())
  }

  /** Values of all columns, in their order. It goes through what is given, not through all that could be: the hot path. */
  #storedValues(input: Record<string, unknown>, next: NextNumbers, batch?: RowBatch): Stored[] {
    const { table } = this
    if (table.writeClass === 'pull' || table.owner.kind === 'self') throw madeAtTheCentre(table)
    const given = this.#nothingGiven.slice()
    for (const name of Object.keys(input)) {
      const place = this.#places.get(name)
      const column = place === undefined ? undefined : this.#inserts[place]
      const value = input[name]
      if (place === undefined || column === undefined) this.#mustBeInsertable(name)
      else if (value !== undefined) {
        if (column.shape.default?.kind === 'next-in') next.clear()
        given[place] = encodeColumn(table, name, value, column.shape)
      }
    }
    // All times of a row are one.
    let now: string | undefined
    return this.#inserts.map((column, place) => {
      const value = given[place]
      if (value !== undefined) return value
      return column.shape.default?.kind === 'now'
        ? (now ??= this.now())
        : this.#defaultValue(column, input, next, batch)
    })
  }

  /** Of a column that is left out; an explicit null stays null. */
  #defaultValue(
    { name, shape }: InsertColumn,
    input: Record<string, unknown>,
    next: NextNumbers,
    batch: RowBatch | undefined,
  ): Stored {
    switch (shape.default?.kind) {
      case 'new-id':
        return newId()
      case 'acting-user':
        return this.context.userId
      case 'next-in':
        return this.#nextIn(name, shape.default.column, input, next, batch)
      case 'literal': {
        const { value: literal } = shape.default
        return typeof literal === 'boolean' ? Number(literal) : literal
      }
      default:
        return encodeColumn(this.table, name, null, shape)
    }
  }

  #nextIn(
    column: string,
    within: string,
    input: Record<string, unknown>,
    next: NextNumbers,
    batch: RowBatch | undefined,
  ): number {
    const { table, context } = this
    const group = encodeColumn(table, within, input[within])
    let number = next.get(group)
    if (number === undefined) {
      // Rows that wait may have numbers of the group.
      batch?.flush()
      number =
        context.connection.get<{ next: number }>(
          `SELECT coalesce(max(${column}), 0) + 1 AS next FROM ${table.name} WHERE ${within} = ?`,
          group,
        )?.next ?? 1
    }
    next.set(group, number + 1)
    return number
  }

  #change(id: string, columns: readonly string[], parameters: readonly Stored[]): void {
    for (const { policy } of this.table.groups) {
      if (typeof policy !== 'object') continue
      const i = columns.indexOf(policy.column)
      if (i !== -1) this.#mustBeLegal(policy, id, String(parameters[i]))
    }
    this.#write(id, columns, parameters)
  }

  /** The centre would refuse it too, but later, and only in part. */
  #mustBeLegal(machine: StateMachine, id: string, to: string): void {
    const { name } = this.table
    const { column, transitions } = machine
    const from = this.context.connection.get<{ state: string }>(
      `SELECT ${column} AS state FROM ${name} WHERE id = ?`,
      id,
    )?.state
    if (from === undefined || isLegal(machine, from, to)) return
    const next = transitions[from] ?? []
    throw new AgentDBError(
      'ILLEGAL_TRANSITION',
      `${name}.${column} cannot go from ${from} to ${preview(to)}: ${next.length === 0 ? 'it is final' : `next is ${next.join(' or ')}`}`,
      { table: name, column, value: to },
    )
  }

  /** What changes nothing writes nothing: `updated_at` alone would differ from the centre's for ever. */
  #write(id: string, columns: readonly string[], parameters: readonly Stored[]): void {
    const { table, context } = this
    const differs = columns.map((column) => `${column} IS NOT ?`).join(' OR ')
    const assignments = columns.map((column) => `${column} = ?`)
    const all = [...parameters]
    if (Object.hasOwn(table.columns, 'updated_at')) {
      assignments.push('updated_at = ?')
      all.push(this.now())
    }
    const live = table.softDelete === undefined ? '' : ` AND ${table.softDelete} IS NULL`
    const sql = `UPDATE ${table.name} SET ${assignments.join(', ')} WHERE id = ?${live} AND (${differs})`
    this.#guarded(
      () => context.connection.run(sql, ...all, id, ...parameters),
      Object.fromEntries(columns.map((column, i) => [column, parameters[i]])),
    )
  }

  #guarded<T>(work: () => T, input: Readonly<Record<string, unknown>> = {}): T {
    try {
      return work()
    } catch (error) {
      throw this.#explain(error, input)
    }
  }

  #findStatement(): Statement<Stored[], Stored[]> {
    this.#find ??= this.#prepareFind()
    if (!this.context.connection.isOpen)
      throw new AgentDBError('STORE_CLOSED', 'the store is closed; open it again')
    return this.#find
  }

  #prepareFind(): Statement<Stored[], Stored[]> {
    const { table } = this
    const live = table.softDelete === undefined ? '' : ` AND t.${table.softDelete} IS NULL`
    const statement = this.context.connection.prepareOwn(
      `SELECT ${this.#columns.map((name) => `t.${name}`).join(', ')} FROM ${table.name} t WHERE t.id = ?${live} AND ${notStub(table)}`,
    )
    return statement.raw() as Statement<Stored[], Stored[]>
  }

  #mustBeKnown(column: string): void {
    const { table } = this
    if (this.#columns.includes(column)) return
    throw new AgentDBError(
      'UNKNOWN_COLUMN',
      `${table.name} has no column ${preview(column)}; it has ${this.#columns.join(', ')}`,
      {
        table: table.name,
        column,
      },
    )
  }

  #mustBeInsertable(column: string): void {
    this.#mustBeKnown(column)
    const { table } = this
    if (columnWrite(table, column) === 'never') this.#refuse(column, 'is kept by the store')
  }

  #mustBeWritable(column: string): void {
    this.#mustBeKnown(column)
    const { table } = this
    if (table.writeClass === 'pull') throw madeAtTheCentre(table)
    const write = columnWrite(table, column)
    if (write === 'never') this.#refuse(column, 'is kept by the store')
    if (write === 'insert') this.#refuse(column, 'never changes once the row is made')
  }

  #refuse(column: string, why: string): never {
    throw new AgentDBError('READ_ONLY_COLUMN', `${this.table.name}.${column} ${why}`, {
      table: this.table.name,
      column,
    })
  }

  /** SQLite names neither the foreign key nor the column of a check; the rows and the definition do. */
  #explain(error: unknown, input: Readonly<Record<string, unknown>>): unknown {
    const ours = fromSqlite(error, this.table.name)
    if (!(ours instanceof AgentDBError) || ours.code !== 'CONSTRAINT') return ours
    const { constraint } = ours
    const { name } = this.table
    const details = (column: string, value: unknown): ErrorDetails => ({
      table: name,
      column,
      value,
      constraint,
      cause: error,
    })
    if (constraint === 'foreignkey') {
      for (const { column, target } of references(this.table)) {
        const value = input[column]
        if (typeof value !== 'string') continue
        if (this.context.connection.get(`SELECT 1 FROM ${target} WHERE id = ?`, value)) continue
        const message = `${name}.${column}: there is no ${target} row ${preview(value)}`
        return new AgentDBError('CONSTRAINT', message, details(column, value))
      }
    }
    const check = this.table.checks.find((candidate) => candidate.name === constraint)
    const checked = this.#columns.filter((column) => mentions(check?.sqlite, column))
    const [column] = checked
    if (column === undefined || checked.length > 1) return ours
    const message = `${name}.${column} breaks ${constraint} (got ${preview(input[column])})`
    return new AgentDBError('CONSTRAINT', message, details(column, input[column]))
  }
}

const mentions = (sql: string | null | undefined, column: string): boolean =>
  new RegExp(`\\b${column}\\b`).test(sql ?? '')

const madeAtTheCentre = ({ name }: TableDefinition): AgentDBError =>
  new AgentDBError(
    'READ_ONLY_TABLE',
    `${name} rows are made at the centre; agents only read them`,
    {
      table: name,
    },
  )
