import type { ColumnShape, Json, TableDefinition } from './define.ts'
import { mustColumn } from './define.ts'
import { AgentDBError, preview, unreachable } from './errors.ts'
import {
  canonicalJson,
  canonicalizeJsonText,
  textProblem,
  ValueProblem,
} from './values/canonical-json.ts'
import { canonicalId } from './values/id.ts'
import { canonicalInet } from './values/inet.ts'
import { canonicalTimestamp } from './values/timestamp.ts'
import { decodeVector, encodeVector, vectorProblem } from './values/vector.ts'

/**
 * A column's value has two forms. The **value** is what a program reads and writes: objects, booleans, Float32Array.
 * The **stored** form is what SQLite keeps and the wire carries: text, integers, bytes, null. JSON and arrays are
 * canonical JSON text, booleans 0 or 1, vectors bytes. Equal values have equal stored forms.
 */
export type Stored = string | number | Uint8Array | null
export type StoredRow = Readonly<Record<string, Stored>>

/** Longest text or JSON value, in bytes of UTF-16; rows beyond belong into an object store. */
export const VALUE_LENGTH_MAX = 16 * 1024 * 1024

const INTEGER_MIN = -2_147_483_648
const INTEGER_MAX = 2_147_483_647

/** What rows have in a column that came after them: its default, or null. */
export function valueBeforeAdded({ default: fallback }: ColumnShape): Stored {
  if (fallback?.kind !== 'literal') return null
  return typeof fallback.value === 'boolean' ? Number(fallback.value) : fallback.value
}

/** Stored form of a program's value; throws {@link ValueProblem}. */
export function encodeValue(shape: ColumnShape, value: unknown): Stored {
  if (value === null || value === undefined) return checkNull(shape)
  switch (shape.kind) {
    case 'boolean':
      if (typeof value !== 'boolean') throw new ValueProblem('is not a boolean')
      return value ? 1 : 0
    case 'json':
      return checkLength(canonicalJson(value))
    case 'text[]':
    case 'integer[]':
    case 'uuid[]':
      return encodeArray(shape, value)
    case 'vector':
      return encodeVector(value)
    case 'uuid':
    case 'text':
    case 'enum':
    case 'integer':
    case 'timestamp':
    case 'inet':
      return encodeScalar(shape, value)
    default:
      return unreachable(shape.kind)
  }
}

function checkNull(shape: ColumnShape): null {
  if (!shape.nullable) throw new ValueProblem('is required')
  return null
}

function checkLength(text: string): string {
  if (text.length > VALUE_LENGTH_MAX) {
    throw new ValueProblem(`is longer than ${VALUE_LENGTH_MAX / 1024 / 1024} MB`)
  }
  return text
}

function encodeScalar(shape: ColumnShape, value: unknown): string | number {
  switch (shape.kind) {
    case 'uuid':
      return canonicalId(value)
    case 'timestamp':
      return canonicalTimestamp(value)
    case 'inet':
      return canonicalInet(value)
    case 'integer':
      return encodeInteger(value)
    case 'enum':
      return encodeEnum(shape, value)
    default:
      return encodeText(shape, value)
  }
}

function encodeInteger(value: unknown): number {
  if (typeof value !== 'number' || !Number.isInteger(value))
    throw new ValueProblem('is not an integer')
  if (value < INTEGER_MIN || value > INTEGER_MAX) {
    throw new ValueProblem(`is outside ${INTEGER_MIN} to ${INTEGER_MAX}`)
  }
  return value === 0 ? 0 : value
}

function encodeEnum(shape: ColumnShape, value: unknown): string {
  const values = shape.values ?? []
  if (typeof value !== 'string' || !values.includes(value)) {
    throw new ValueProblem(`is not one of ${values.join(', ')}`)
  }
  return value
}

function encodeText(shape: ColumnShape, value: unknown): string {
  if (typeof value !== 'string') throw new ValueProblem('is not a string')
  const problem = textProblem(value)
  if (problem !== undefined) throw new ValueProblem(problem)
  const max = shape.maxLength
  if (max !== undefined && value.length > max) {
    // Both databases count characters, not code units.
    if (codePoints(value, max + 1) > max) throw new ValueProblem(`is longer than ${max} characters`)
  }
  return checkLength(value)
}

/** Characters as databases count them, up to `most`. */
function codePoints(text: string, most: number): number {
  let count = 0
  for (const _ of text) if (++count >= most) break
  return count
}

function encodeArray(shape: ColumnShape, value: unknown): string {
  if (!Array.isArray(value)) throw new ValueProblem('is not an array')
  const element = elementShape(shape)
  const encoded = value.map((member: unknown, i) => {
    if (member === null) return null
    try {
      return encodeScalar(element, member)
    } catch (error) {
      throw error instanceof ValueProblem ? new ValueProblem(`[${i}] ${error.message}`) : error
    }
  })
  return checkLength(JSON.stringify(encoded))
}

function elementShape(shape: ColumnShape): ColumnShape {
  const kind = shape.kind === 'integer[]' ? 'integer' : shape.kind === 'uuid[]' ? 'uuid' : 'text'
  return { ...shape, kind, maxLength: undefined }
}

/** A program's value of a stored form that was checked when it was stored. */
export function decodeValue(shape: ColumnShape, stored: Stored): unknown {
  if (stored === null) return null
  switch (shape.kind) {
    case 'boolean':
      return stored === 1
    case 'json':
    case 'text[]':
    case 'integer[]':
    case 'uuid[]':
      return JSON.parse(stored as string) as Json
    case 'vector':
      return decodeVector(stored as Uint8Array)
    default:
      return stored
  }
}

/** Checks a stored form that came over the wire or from raw SQL, and gives its canonical one. */
export function checkStored(shape: ColumnShape, stored: unknown): Stored {
  if (stored === null || stored === undefined) return checkNull(shape)
  switch (shape.kind) {
    case 'boolean':
      if (stored !== 0 && stored !== 1) throw new ValueProblem('is not a boolean')
      return stored
    case 'json':
      if (typeof stored !== 'string') throw new ValueProblem('is not JSON text')
      return nullIfJsonNull(shape, canonicalizeJsonText(checkLength(stored)))
    case 'text[]':
    case 'integer[]':
    case 'uuid[]':
      if (typeof stored !== 'string') throw new ValueProblem('is not JSON text')
      return encodeArray(shape, JSON.parse(canonicalizeJsonText(checkLength(stored))))
    case 'vector': {
      if (!(stored instanceof Uint8Array)) throw new ValueProblem('is not bytes')
      const problem = vectorProblem(stored)
      if (problem !== undefined) throw new ValueProblem(problem)
      return stored
    }
    default:
      return encodeScalar(shape, stored)
  }
}

/** PostgreSQL's row image does not tell JSON's null from SQL's: a column that may be NULL has only the latter. */
const nullIfJsonNull = (shape: ColumnShape, text: string): Stored =>
  text === 'null' && shape.nullable ? null : text

/** Runs a codec and names the table, the column and the value in what it throws. */
export function atColumn<T>(
  table: TableDefinition,
  column: string,
  value: unknown,
  run: () => T,
): T {
  try {
    return run()
  } catch (error) {
    throw named(table, column, value, error)
  }
}

function named(table: TableDefinition, column: string, value: unknown, error: unknown): unknown {
  if (!(error instanceof ValueProblem)) return error
  const { kind } = mustColumn(table, column)
  return new AgentDBError(
    'INVALID_VALUE',
    // JSON may hold secrets (environment_vars): its path is in the problem, its text is not.
    `${table.name}.${column} ${error.message} (got ${kind === 'json' ? typeof value : preview(value)})`,
    { table: table.name, column, value: kind === 'json' ? undefined : value, cause: error },
  )
}

/** Stored form of one column of a table, with an error that names it. Without a closure: it runs for each value written. */
export function encodeColumn(
  table: TableDefinition,
  column: string,
  value: unknown,
  shape: ColumnShape = mustColumn(table, column),
): Stored {
  try {
    return encodeValue(shape, value)
  } catch (error) {
    throw named(table, column, value, error)
  }
}
