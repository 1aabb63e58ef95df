import { AgentDBError, preview } from '../../schema/errors.ts'
import type { SourceDefinition } from './text-sources.ts'

type Scalar = string | number | boolean | null

/** What a payload field must be: a value, or one of several; a list field matches by any of its elements. */
export type PayloadFilter = Readonly<
  Record<string, Scalar | readonly (string | number | boolean)[]>
>

/** A condition in SQL with its parameters. */
export interface Condition {
  readonly sql: string
  readonly parameters: readonly (string | number)[]
}

/** What rows of a source must be: their payload, time and owner, as a condition on rows `e` of its table. */
export function rowCondition(
  { payload, time, owner }: SourceDefinition,
  { filter, from, to, userId }: RowFilter,
): Condition {
  const fields = filter === undefined ? undefined : payloadCondition(filter, payload)
  const sql = fields === undefined || fields.sql === '1' ? [] : [fields.sql]
  const parameters = [...(fields?.parameters ?? [])]
  for (const [test, value] of [
    [`${time} >= ?`, from],
    [`${time} < ?`, to],
    [`${owner} = ?`, userId],
  ] as const) {
    if (value === undefined) continue
    sql.push(test)
    parameters.push(value)
  }
  return { sql: sql.join(' AND ') || '1', parameters }
}

/** A range of time, its end not in it, and an owner; what is undefined may be any. */
export interface RowRange {
  /** Canonical times. */
  readonly from?: string | undefined
  readonly to?: string | undefined
  readonly userId?: string | undefined
}

export interface RowFilter extends RowRange {
  readonly filter?: PayloadFilter | undefined
}

/** A payload filter as a condition on rows `e` whose payload is the expression. */
function payloadCondition(filter: PayloadFilter, payload: string): Condition {
  const parameters: (string | number)[] = []
  const isOneOf = (alias: string, values: readonly Scalar[]): string =>
    values.map((value) => scalarTest(alias, value, parameters)).join(' OR ') || '0'
  const conditions = Object.entries(filter).map(([field, wanted]) => {
    const values: readonly Scalar[] = isList(wanted) ? wanted : [wanted]
    parameters.push(field)
    return `EXISTS (SELECT 1 FROM json_each(${payload}) p WHERE p.key = ? AND (${isOneOf('p', values)}
      OR p.type = 'array' AND EXISTS (SELECT 1 FROM json_each(p.value) f WHERE ${isOneOf('f', values)})))`
  })
  return { sql: conditions.join(' AND ') || '1', parameters }
}

const isList = (value: unknown): value is readonly Scalar[] => Array.isArray(value)

const isScalar = (value: unknown): boolean =>
  value === null || ['string', 'boolean'].includes(typeof value) || Number.isFinite(value)

/** Whether a row of `json_each` is this value, of this type: SQLite's `true` is the number 1. */
function scalarTest(alias: string, value: Scalar, parameters: (string | number)[]): string {
  if (value === null || typeof value === 'boolean') return `${alias}.type = '${value}'`
  parameters.push(value)
  const types = typeof value === 'string' ? `'text'` : `'integer', 'real'`
  return `(${alias}.type IN (${types}) AND ${alias}.atom = ?)`
}

/** @throws AgentDBError `INVALID_OPTION` */
export function validateFilter(filter: unknown): void {
  if (typeof filter !== 'object' || filter === null || Array.isArray(filter))
    refuse(`filter must be an object of payload fields, got ${preview(filter)}`)
  for (const [field, wanted] of Object.entries(filter)) {
    const values: readonly unknown[] = isList(wanted) ? wanted : [wanted]
    if (!values.every(isScalar))
      refuse(`filter.${field} must be a value or a list of values, got ${preview(wanted)}`)
  }
}

function refuse(message: string): never {
  throw new AgentDBError('INVALID_OPTION', `search: ${message}`)
}
