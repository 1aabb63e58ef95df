import { valueBeforeAdded, VALUE_LENGTH_MAX, type Stored } from '../../schema/codec.ts'
import { agentColumnsAt } from '../../schema/columns-at.ts'
import { mustColumn, type ColumnShape, type TableDefinition } from '../../schema/define.ts'
import { unreachable } from '../../schema/errors.ts'
import { canonicalJson, lossyMembers, ValueProblem } from '../../schema/values/canonical-json.ts'
import { canonicalInet } from '../../schema/values/inet.ts'
import {
  PLACEHOLDER_ARRAY,
  PLACEHOLDER_INET,
  PLACEHOLDER_JSON,
} from '../../schema/values/placeholder.ts'
import { canonicalTimestamp, TIMESTAMP_MAX, TIMESTAMP_MIN } from '../../schema/values/timestamp.ts'
import { vectorProblem } from '../../schema/values/vector.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'

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

/** Parses an image's text; `lossy` names the columns with a number that does not survive a double. */
export function parseImage(text: string): { image: Image; lossy: ReadonlySet<string> } {
  return { image: JSON.parse(text) as Image, lossy: lossyMembers(text) }
}

export interface StoredImage {
  /** Stored forms, in order of the columns that an agent of the schema version has. */
  readonly values: Stored[]
  /** Indexes of the values that are placeholders, ascending; undefined where none is. */
  readonly placeholders: number[] | undefined
}

/**
 * A row as agents of a schema version hold it. A value that they cannot hold comes as a placeholder and never stops a
 * pull. A value of an enum that came later they hold as it is.
 */
export function storedFromImage(
  table: TableDefinition,
  image: Image,
  lossy: ReadonlySet<string>,
  version = SCHEMA_VERSION,
): StoredImage {
  let placeholders: number[] | undefined
  const values = agentColumnsAt(table, version).map((name, i) => {
    const shape = mustColumn(table, name)
    // Logged before the column was there.
    if (shape.since > 1 && !Object.hasOwn(image, name)) return valueBeforeAdded(shape)
    const value = image[name] ?? null
    const stored = fromImage(shape, value, lossy.has(name))
    if (stored !== undefined) return stored
    placeholders ??= []
    placeholders.push(i)
    return placeholder(shape, value)
  })
  return { values, placeholders }
}

/** Undefined for what cannot be held. */
function fromImage(shape: ColumnShape, value: unknown, isLossy: boolean): Stored | undefined {
  if (value === null) return shape.kind === 'json' && !shape.nullable ? 'null' : null
  switch (shape.kind) {
    case 'json':
      return isLossy ? undefined : held(canonicalJson, value)
    case 'boolean':
      return value === true ? 1 : 0
    case 'timestamp':
      return held(canonicalTimestamp, value)
    case 'inet':
      return held(canonicalInet, value)
    case 'vector':
      return vectorFromImage(value as string)
    case 'text[]':
    case 'integer[]':
    case 'uuid[]':
      return flatArray(value)
    case 'integer':
      return Number(value)
    case 'uuid':
    case 'text':
    case 'enum':
      return value as string
    default:
      return unreachable(shape.kind)
  }
}

function held(canonical: (value: unknown) => string, value: unknown): string | undefined {
  try {
    return canonical(value)
  } catch (error) {
    if (error instanceof ValueProblem) return undefined
    throw error
  }
}

/** An array of arrays, which only SQL at the centre can make, has no type here. */
function flatArray(value: unknown): string | undefined {
  const isFlat = Array.isArray(value) && !value.some((element) => Array.isArray(element))
  const text = isFlat ? JSON.stringify(value) : undefined
  return text === undefined || text.length > VALUE_LENGTH_MAX ? undefined : text
}

const bytesOf = (image: string): Buffer => Buffer.from(image.slice(2), 'hex')

function vectorFromImage(image: string): Uint8Array | undefined {
  const bytes = bytesOf(image)
  return vectorProblem(bytes) === undefined ? bytes : undefined
}

function placeholder(shape: ColumnShape, value: unknown): Stored {
  switch (shape.kind) {
    case 'json':
      return PLACEHOLDER_JSON
    case 'timestamp':
      return timestampPlaceholder(value as string)
    case 'inet':
      return PLACEHOLDER_INET
    case 'vector':
      return new Uint8Array(bytesOf(value as string).byteLength)
    default:
      return PLACEHOLDER_ARRAY
  }
}

/** On the same side of every moment that can be held, so that times stay in order. */
const timestampPlaceholder = (text: string): string =>
  text === '-infinity' || text.endsWith('BC') ? TIMESTAMP_MIN : TIMESTAMP_MAX
