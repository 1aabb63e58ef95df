import type { Stored } from '../../schema/codec.ts'
import { timestampOfMicros } from '../../schema/values/timestamp.ts'
import { DIMENSION_MAX } from '../../schema/values/vector.ts'
import { fault, type Allowance } from './fault.ts'
import { floatsOf } from './half-float.ts'
import { laneKinds, nullCount, REPEATED_TEXT_MAX, type LaneKind } from './lanes.ts'

type Fields = Readonly<Record<string, unknown>>
type Reader = (fields: Fields, rows: number, place: string, allowance: Allowance) => Stored[]

/** The values of a lane that came over the wire, one for each of `rows`; throws `PROTOCOL` for anything else. */
export function unpackLane(
  lane: unknown,
  rows: number,
  place: string,
  allowance: Allowance,
): readonly Stored[] {
  allowance.takeCells(place, rows)
  if (Array.isArray(lane)) return checkPlain(lane, rows, place)
  if (!isFields(lane)) return fault(place, 'is no lane')
  return readers[kindOf(lane, place)](lane, rows, place, allowance)
}

const readers: Readonly<Record<LaneKind, Reader>> = {
  all: readAll,
  dict: readDictionary,
  steps: readSteps,
  uuid: (fields, rows, place) => readDigits(fields, 'uuid', rows, place),
  hex: (fields, rows, place) => readDigits(fields, 'hex', rows, place),
  time: readTimes,
  text: readTexts,
  f32: (fields, rows, place) => readVectors(fields, 'f32', rows, place),
  f16: (fields, rows, place) => readVectors(fields, 'f16', rows, place),
}

const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !(value instanceof Uint8Array)

function kindOf(lane: Fields, place: string): LaneKind {
  return laneKinds.find((kind) => Object.hasOwn(lane, kind)) ?? fault(place, 'is no lane we know')
}

const isStored = (value: unknown): value is Stored =>
  value === null ||
  typeof value === 'string' ||
  (typeof value === 'number' && Number.isFinite(value)) ||
  value instanceof Uint8Array

function checkPlain(values: unknown[], rows: number, place: string): Stored[] {
  if (values.length !== rows) fault(place, `has ${values.length} values for ${rows} rows`)
  for (let i = 0; i < rows; i++)
    if (!isStored(values[i])) fault(`${place}.${i}`, 'is no text, number, bytes or null')
  return values as Stored[]
}

function readAll({ all }: Fields, rows: number, place: string, allowance: Allowance): Stored[] {
  if (!isStored(all) || all instanceof Uint8Array)
    return fault(`${place}.all`, 'is no text, number or null')
  if (typeof all === 'string') {
    mustBeShort(all, `${place}.all`)
    allowance.takeCharacters(place, all.length * rows)
  }
  return Array.from<Stored>({ length: rows }).fill(all)
}

function mustBeShort(text: string, place: string): void {
  if (text.length > REPEATED_TEXT_MAX)
    fault(place, `has ${text.length} characters, of at most ${REPEATED_TEXT_MAX}`)
}

function readDictionary(
  { dict, size, index }: Fields,
  rows: number,
  place: string,
  allowance: Allowance,
): Stored[] {
  if (typeof size !== 'number' || !Number.isInteger(size) || size < 1 || size > rows)
    return fault(`${place}.size`, `must be a number of 1 to ${rows}`)
  if (isFields(dict) && !Array.isArray(dict) && (Object.hasOwn(dict, 'dict') || 'all' in dict))
    return fault(`${place}.dict`, 'repeats itself')
  const entries = unpackLane(dict, size, `${place}.dict`, allowance)
  for (const [i, entry] of entries.entries()) {
    if (entry instanceof Uint8Array)
      return fault(`${place}.dict.${i}`, 'is no text, number or null')
    if (typeof entry === 'string') mustBeShort(entry, `${place}.dict.${i}`)
  }
  const numbers = readUnsigned(index, rows, size <= 256 ? 1 : 2, `${place}.index`)
  const values: Stored[] = []
  let characters = 0
  for (let i = 0; i < rows; i++) {
    const value = entries[numbers[i] ?? 0]
    if (value === undefined) return fault(`${place}.index.${i}`, `is beyond the ${size} entries`)
    if (typeof value === 'string') characters += value.length
    values.push(value)
  }
  allowance.takeCharacters(place, characters)
  return values
}

function readUnsigned(
  bytes: unknown,
  rows: number,
  width: number,
  place: string,
): Uint8Array | Uint16Array | Uint32Array {
  const own = mustBytes(bytes, rows * width, place)
  if (width === 1) return own
  const numbers = width === 2 ? new Uint16Array(rows) : new Uint32Array(rows)
  for (let i = 0, at = 0; i < rows; i++) {
    let value = 0
    for (let shift = 0; shift < 8 * width; shift += 8) value |= (own[at++] ?? 0) << shift
    numbers[i] = value
  }
  return numbers
}

function mustBytes(value: unknown, length: number, place: string): Uint8Array {
  if (!(value instanceof Uint8Array)) return fault(place, 'is not bytes')
  if (value.byteLength !== length) fault(place, `has ${value.byteLength} bytes, not ${length}`)
  return value
}

function readSteps({ steps, from }: Fields, rows: number, place: string): number[] {
  if (!Array.isArray(steps)) return fault(`${place}.steps`, 'is no array')
  if (steps.length !== rows) fault(`${place}.steps`, `has ${steps.length} values for ${rows} rows`)
  if (!Number.isSafeInteger(from)) fault(`${place}.from`, 'is no integer')
  let value = from as number
  return steps.map((step: unknown, i) => {
    if (!Number.isSafeInteger(step)) fault(`${place}.steps.${i}`, 'is no integer')
    value += step as number
    if (!Number.isSafeInteger(value)) fault(`${place}.steps.${i}`, 'leads too far')
    return value
  })
}

/** The rows that are null; throws where the bits and the rows do not fit together. */
function readNulls(nulls: unknown, rows: number, place: string): Uint8Array | undefined {
  if (nulls === undefined) return undefined
  const bits = mustBytes(nulls, Math.ceil(rows / 8), `${place}.nulls`)
  if (rows % 8 !== 0 && (bits.at(-1) ?? 0) >> (rows % 8) !== 0)
    fault(`${place}.nulls`, `has bits beyond ${rows} rows`)
  return bits
}

const isNull = (nulls: Uint8Array | undefined, row: number): boolean =>
  nulls !== undefined && ((nulls[row >> 3] ?? 0) & (1 << (row & 7))) !== 0

/** Puts nulls between values. */
function spread(
  rows: number,
  nulls: Uint8Array | undefined,
  next: (n: number) => Stored,
): Stored[] {
  const values: Stored[] = []
  for (let i = 0, n = 0; i < rows; i++) values.push(isNull(nulls, i) ? null : next(n++))
  return values
}

const digits = Uint8Array.from('0123456789abcdef', (digit) => digit.charCodeAt(0))

function readDigits(fields: Fields, kind: 'uuid' | 'hex', rows: number, place: string): Stored[] {
  const nulls = readNulls(fields['nulls'], rows, place)
  const count = rows - nullCount(nulls)
  const bytes = mustBytes(fields[kind], count * 16, `${place}.${kind}`)
  const length = kind === 'uuid' ? 36 : 32
  const text = Buffer.alloc(count * length, '-')
  for (let i = 0, at = 0; i < bytes.byteLength; i++) {
    const inId = i & 15
    if (kind === 'uuid' && (inId === 4 || inId === 6 || inId === 8 || inId === 10)) at += 1
    const byte = bytes[i] ?? 0
    text[at++] = digits[byte >> 4] ?? 0
    text[at++] = digits[byte & 15] ?? 0
  }
  // Each a string of its own: a slice of all would keep all alive.
  return spread(rows, nulls, (n) => text.toString('latin1', n * length, (n + 1) * length))
}

function readTimes(fields: Fields, rows: number, place: string, allowance: Allowance): Stored[] {
  const nulls = readNulls(fields['nulls'], rows, place)
  const micros = timesOf(fields['time'], rows - nullCount(nulls), `${place}.time`, allowance)
  // Whatever a number counts exactly lies in years that timestamps have.
  return spread(rows, nulls, (n) => timestampOfMicros(micros[n] as number))
}

function timesOf(
  lane: unknown,
  rows: number,
  place: string,
  allowance: Allowance,
): readonly Stored[] {
  if (!Array.isArray(lane) && !(isFields(lane) && Object.hasOwn(lane, 'steps')))
    return fault(place, 'is neither an array nor steps')
  const micros = unpackLane(lane, rows, place, allowance)
  for (const [i, time] of micros.entries())
    if (!Number.isSafeInteger(time)) fault(`${place}.${i}`, 'is no integer')
  return micros
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function readTexts(fields: Fields, rows: number, place: string): Stored[] {
  const nulls = readNulls(fields['nulls'], rows, place)
  const bytes = fields['text']
  const lengths = fields['lengths']
  if (!(bytes instanceof Uint8Array)) return fault(`${place}.text`, 'is not bytes')
  if (!(lengths instanceof Uint8Array)) return fault(`${place}.lengths`, 'is not bytes')
  const width = rows === 0 ? 1 : lengths.byteLength / rows
  if (width !== 1 && width !== 2 && width !== 4)
    fault(`${place}.lengths`, `has ${lengths.byteLength} bytes for ${rows} rows`)
  const ends = readUnsigned(lengths, rows, width, `${place}.lengths`)
  const text = decodeText(bytes, `${place}.text`)
  const values: Stored[] = []
  let at = 0
  for (let i = 0; i < rows; i++) {
    const end = at + (ends[i] ?? 0)
    if (end > text.length) fault(`${place}.lengths.${i}`, 'leads beyond the text')
    if (isNull(nulls, i) && end > at) fault(`${place}.lengths.${i}`, 'is a length of a null')
    values.push(isNull(nulls, i) ? null : text.slice(at, end))
    at = end
  }
  if (at !== text.length) fault(`${place}.text`, `has ${text.length} characters, of ${at} in all`)
  return values
}

function decodeText(bytes: Uint8Array, place: string): string {
  try {
    return utf8.decode(bytes)
  } catch {
    return fault(place, 'is not UTF-8')
  }
}

function readVectors(fields: Fields, kind: 'f32' | 'f16', rows: number, place: string): Stored[] {
  const nulls = readNulls(fields['nulls'], rows, place)
  const { dimensions } = fields
  if (!Number.isInteger(dimensions) || Number(dimensions) < 1 || Number(dimensions) > DIMENSION_MAX)
    return fault(`${place}.dimensions`, `must be a number of 1 to ${DIMENSION_MAX}`)
  const count = rows - nullCount(nulls)
  const width = kind === 'f32' ? 4 : 2
  const bytes = mustBytes(fields[kind], count * width * Number(dimensions), `${place}.${kind}`)
  const floats = kind === 'f32' ? bytes : floatsOf(bytes)
  const size = 4 * Number(dimensions)
  return spread(rows, nulls, (n) => floats.subarray(n * size, (n + 1) * size))
}
