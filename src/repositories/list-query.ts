import { encodeColumn, type Stored } from '../../schema/codec.ts'
import { agentColumns, mustColumn, type TableDefinition } from '../../schema/define.ts'
import { AgentDBError, preview } from '../../schema/errors.ts'

/** What a column is compared with: a value (`=`), `null`, a list (`IN`), or operators. */
export type Comparison<V> =
  | V
  | null
  | readonly V[]
  | {
      readonly eq?: V | null
      readonly ne?: V | null
      readonly lt?: V
      readonly lte?: V
      readonly gt?: V
      readonly gte?: V
      readonly in?: readonly V[]
      /** SQL LIKE pattern; text columns. */
      readonly like?: string
      /** The array column has this element. */
      readonly contains?: string | number
    }

export type Where<R> = { readonly [K in keyof R]?: Comparison<R[K]> | undefined }

type Direction = 'asc' | 'desc'

/** `'created_at'`, `'created_at desc'`, `{ created_at: 'desc' }`, or several of these in a list. */
export type OrderBy<R> = OrderTerm<R> | readonly OrderTerm<R>[]
type OrderTerm<R> =
  | (keyof R & string)
  | `${keyof R & string} ${Direction}`
  | { readonly [K in keyof R & string]?: Direction }

export interface ListOptions<R> {
  readonly where?: Where<R> | undefined
  /** Default: by id, which is by time of creation. The id always breaks ties. */
  readonly orderBy?: OrderBy<R> | undefined
  /** Most rows to return. Default: all. */
  readonly limit?: number | undefined
  /** The last row of the page before. */
  readonly after?: R | undefined
  /** Also rows with `deleted_at` set. Default: false. */
  readonly includeDeleted?: boolean | undefined
}

/** Stubs stand in for rows outside the scope; nobody sees them. */
export const notStub = (table: TableDefinition): string =>
  `NOT EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = t.id AND b.tbl = ${table.number})`

export interface CompiledList {
  readonly sql: string
  readonly parameters: Stored[]
}

const symbols = {
  eq: 'IS',
  ne: 'IS NOT',
  lt: '<',
  lte: '<=',
  gt: '>',
  gte: '>=',
  like: 'LIKE',
} as const
const optionNames: ReadonlySet<string> = new Set([
  'where',
  'orderBy',
  'limit',
  'after',
  'includeDeleted',
])

/** SQL of a list: conditions, stable order, keyset page. Costs an index range, whatever page it is. */
export function compileList<R>(table: TableDefinition, options: ListOptions<R>): CompiledList {
  for (const name of Object.keys(options)) {
    if (!optionNames.has(name)) {
      throw new AgentDBError(
        'INVALID_OPTION',
        `list of ${table.name}: there is no option ${preview(name)}`,
      )
    }
  }
  const parameters: Stored[] = []
  const conditions = [notStub(table)]
  if (table.softDelete !== undefined && options.includeDeleted !== true) {
    conditions.push(`t.${table.softDelete} IS NULL`)
  }
  for (const [column, comparison] of Object.entries(options.where ?? {})) {
    if (comparison === undefined) continue
    conditions.push(...compileComparison(table, column, comparison, parameters))
  }
  const order = orderTerms(table, options.orderBy)
  if (options.after !== undefined) {
    conditions.push(
      afterCondition(table, order, options.after as Record<string, unknown>, parameters),
    )
  }
  const by = order.map(({ column, direction }) => `t.${column} ${direction}`).join(', ')
  const limit = limitClause(table, options.limit)
  const columns = agentColumns(table)
    .map((name) => `t.${name}`)
    .join(', ')
  return {
    sql: `SELECT ${columns} FROM ${table.name} t WHERE ${conditions.join(' AND ')} ORDER BY ${by}${limit}`,
    parameters,
  }
}

function limitClause(table: TableDefinition, limit: number | undefined): string {
  if (limit === undefined) return ''
  if (!Number.isSafeInteger(limit) || limit < 0) {
    throw new AgentDBError(
      'INVALID_OPTION',
      `list of ${table.name}: limit must be a whole number, got ${preview(limit)}`,
    )
  }
  return ` LIMIT ${limit}`
}

function mustAgentColumn(table: TableDefinition, column: string): void {
  const shape = Object.hasOwn(table.columns, column) ? mustColumn(table, column) : undefined
  if (shape === undefined || shape.serverOnly) {
    throw new AgentDBError(
      'UNKNOWN_COLUMN',
      `${table.name} has no column ${preview(column)}; it has ${agentColumns(table).join(', ')}`,
      {
        table: table.name,
        column,
      },
    )
  }
}

function compileComparison(
  table: TableDefinition,
  column: string,
  comparison: unknown,
  parameters: Stored[],
): string[] {
  mustAgentColumn(table, column)
  const shape = mustColumn(table, column)
  const isArray = shape.kind.endsWith('[]')
  // A comparand may be null for any column; the codec of a required column would refuse it.
  const encode = (value: unknown): Stored =>
    value === null ? null : encodeColumn(table, column, value)
  const inList = (values: readonly unknown[]): string => {
    // IN never finds NULL.
    const found = values.filter((value) => value !== null)
    parameters.push(...found.map(encode))
    const isOneOf = `t.${column} IN (${found.map(() => '?').join(', ')})`
    return found.length === values.length ? isOneOf : `(${isOneOf} OR t.${column} IS NULL)`
  }
  const literal = (operator: string, value: unknown, ...types: string[]): Stored => {
    if (types.includes(typeof value)) return value as string | number
    throw new AgentDBError(
      'INVALID_VALUE',
      `where of ${table.name}.${column}: ${operator} takes a ${types.join(' or a ')}, got ${preview(value)}`,
      { table: table.name, column, value },
    )
  }
  if (Array.isArray(comparison) && !isArray && shape.kind !== 'json') return [inList(comparison)]
  if (!isOperators(comparison)) {
    parameters.push(encode(comparison))
    return [`t.${column} IS ?`]
  }
  return Object.entries(comparison).flatMap(([operator, value]) => {
    if (value === undefined) return []
    if (operator === 'in' && Array.isArray(value)) return [inList(value)]
    if (operator === 'contains') {
      parameters.push(literal(operator, value, 'string', 'number'))
      return [`EXISTS (SELECT 1 FROM json_each(t.${column}) e WHERE e.value = ?)`]
    }
    if (!Object.hasOwn(symbols, operator)) {
      throw new AgentDBError(
        'INVALID_OPTION',
        `where of ${table.name}.${column}: there is no operator ${preview(operator)}`,
        { table: table.name, column },
      )
    }
    parameters.push(operator === 'like' ? literal(operator, value, 'string') : encode(value))
    return [`t.${column} ${symbols[operator as keyof typeof symbols]} ?`]
  })
}

function isOperators(value: unknown): value is Record<string, unknown> {
  if (typeof value !== 'object' || value === null) return false
  if (Array.isArray(value) || value instanceof Date || ArrayBuffer.isView(value)) return false
  const names = Object.keys(value)
  return (
    names.length > 0 &&
    names.every((name) => Object.hasOwn(symbols, name) || name === 'in' || name === 'contains')
  )
}

interface Term {
  readonly column: string
  readonly direction: Direction
}

function orderTerms<R>(table: TableDefinition, orderBy: OrderBy<R> | undefined): Term[] {
  const given =
    orderBy === undefined ? [] : Array.isArray(orderBy) ? (orderBy as unknown[]) : [orderBy]
  const terms = given.flatMap((term): Term[] => {
    if (typeof term === 'string') {
      const [column = '', direction = 'asc', ...rest] = term.trim().split(/\s+/)
      if (rest.length > 0)
        throw new AgentDBError('INVALID_OPTION', `orderBy of ${table.name}: ${preview(term)}`)
      return [{ column, direction: direction.toLowerCase() as Direction }]
    }
    return Object.entries(term as Record<string, Direction>).map(([column, direction]) => ({
      column,
      direction,
    }))
  })
  for (const { column, direction } of terms) {
    mustAgentColumn(table, column)
    if (direction !== 'asc' && direction !== 'desc') {
      throw new AgentDBError(
        'INVALID_OPTION',
        `orderBy of ${table.name}.${column}: ${preview(direction)} is neither asc nor desc`,
      )
    }
  }
  return terms.some(({ column }) => column === 'id')
    ? terms
    : [...terms, { column: 'id', direction: terms.at(-1)?.direction ?? 'asc' }]
}

/** Rows that come after `row` in this order. NULL sorts below every value, as SQLite does it. */
function afterCondition(
  table: TableDefinition,
  order: readonly Term[],
  row: Record<string, unknown>,
  parameters: Stored[],
): string {
  const alternatives = order.map(({ column, direction }, i) => {
    const equal = order.slice(0, i).map((term) => {
      parameters.push(cursorValue(table, term.column, row))
      return `t.${term.column} IS ?`
    })
    const value = cursorValue(table, column, row)
    if (value === null)
      return [...equal, direction === 'asc' ? `t.${column} IS NOT NULL` : '0'].join(' AND ')
    parameters.push(value)
    const beyond =
      direction === 'asc' ? `t.${column} > ?` : `(t.${column} < ? OR t.${column} IS NULL)`
    return [...equal, beyond].join(' AND ')
  })
  return `(${alternatives.map((alternative) => `(${alternative})`).join(' OR ')})`
}

function cursorValue(table: TableDefinition, column: string, row: Record<string, unknown>): Stored {
  if (typeof row !== 'object' || row === null || !Object.hasOwn(row, column)) {
    throw new AgentDBError(
      'INVALID_OPTION',
      `list of ${table.name}: after must be the last row of the page before; it lacks ${column}`,
      { table: table.name, column },
    )
  }
  const value = row[column]
  return value === null ? null : encodeColumn(table, column, value)
}
