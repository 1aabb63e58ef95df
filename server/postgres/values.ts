import type { Stored } from '../../schema/codec.ts'
import {
  agentColumns,
  mustColumn,
  type ColumnShape,
  type TableDefinition,
} from '../../schema/define.ts'
import { unreachable } from '../../schema/errors.ts'
import { canonicalJson, lossyNumber, textProblem } from '../../schema/values/canonical-json.ts'
import { canonicalTimestamp, TIMESTAMP_MAX, TIMESTAMP_MIN } from '../../schema/values/timestamp.ts'

/**
 * Between the stored form and PostgreSQL. In: text that a cast turns into the column's type, so that one
 * `unnest($1::text[], ...)` carries any table. Out: the `jsonb` image of the log.
 */
export function toPostgresText(shape: ColumnShape, stored: Stored): string | null {
  if (stored === null) return null
  switch (shape.kind) {
    case 'vector':
      return `\\x${Buffer.from(stored as Uint8Array).toString('hex')}`
    case 'text[]':
    case 'integer[]':
    case 'uuid[]':
      return arrayLiteral(JSON.parse(stored as string) as (string | number | null)[])
    default:
      return String(stored)
  }
}

function arrayLiteral(elements: readonly (string | number | null)[]): string {
  const parts = elements.map((element) =>
    element === null
      ? 'NULL'
      : `"${String(element).replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`,
  )
  return `{${parts.join(',')}}`
}

type Image = Readonly<Record<string, unknown>>

/** Parses an image's text; `exact` says whether every number in it survives a double. */
export function parseImage(text: string): { image: Image; exact: boolean } {
  return { image: JSON.parse(text) as Image, exact: lossyNumber(text) === undefined }
}

/**
 * What stands in an agent's row for a value that it cannot hold (a JSON number beyond a double, a date beyond ISO).
 * It is marked, equal on every side, and never stops a pull.
 */
export const UNHOLDABLE = '{"$agentdb":"value cannot be represented here"}'

/** Stored forms of a row, in order of the table's agent columns. */
export function storedFromImage(table: TableDefinition, image: Image, exact: boolean): Stored[] {
  return agentColumns(table).map((name) =>
    fromImage(mustColumn(table, name), image[name] ?? null, exact),
  )
}

function fromImage(shape: ColumnShape, value: unknown, exact: boolean): Stored {
  if (value === null) return shape.kind === 'json' && !shape.nullable ? 'null' : null
  switch (shape.kind) {
    case 'json':
      return jsonFromImage(value, exact)
    case 'boolean':
      return value === true ? 1 : 0
    case 'timestamp':
      return timestampFromImage(value as string)
    case 'vector':
      return Buffer.from((value as string).slice(2), 'hex')
    case 'text[]':
    case 'integer[]':
    case 'uuid[]':
      return flatArray(value)
    case 'integer':
      return Number(value)
    case 'uuid':
    case 'text':
    case 'enum':
    case 'inet':
      return textFromImage(value as string)
    default:
      return unreachable(shape.kind)
  }
}

function jsonFromImage(value: unknown, exact: boolean): string {
  if (!exact) return UNHOLDABLE
  try {
    return canonicalJson(value)
  } catch {
    return UNHOLDABLE
  }
}

/** An array of arrays, which only SQL at the centre can make, has no type here. */
function flatArray(value: unknown): string {
  const isFlat = Array.isArray(value) && !value.some((element) => Array.isArray(element))
  return isFlat ? JSON.stringify(value) : '[]'
}

const textFromImage = (text: string): string => (textProblem(text) === undefined ? text : '')

function timestampFromImage(text: string): string {
  if (text === 'infinity') return TIMESTAMP_MAX
  if (text === '-infinity') return TIMESTAMP_MIN
  try {
    return canonicalTimestamp(text)
  } catch {
    return text.endsWith('BC') ? TIMESTAMP_MIN : TIMESTAMP_MAX
  }
}
