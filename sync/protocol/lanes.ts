import type { Stored } from '../../schema/codec.ts'
import { microsOfTimestamp, timestampOfMicros } from '../../schema/values/timestamp.ts'
import { halvesOf } from './half-float.ts'

/**
 * The values of one column of many rows, as they travel. `nulls` has a bit for each row, set where its value is null,
 * for which the lane then holds nothing (a text: nothing but a length of 0).
 *
 * | lane     | holds                                                                            |
 * | -------- | -------------------------------------------------------------------------------- |
 * | an array | the values                                                                       |
 * | `all`    | one value, that of every row                                                     |
 * | `dict`   | the `size` distinct values, and for each row an index of 1 or 2 bytes            |
 * | `steps`  | integers, each as its distance from the one before; the first from `from`        |
 * | `uuid`   | ids, 16 bytes each                                                               |
 * | `hex`    | 32 hexadecimal digits, 16 bytes each                                             |
 * | `time`   | timestamps, microseconds since 1970, as `steps`                                  |
 * | `text`   | UTF-8 of all texts without a gap; lengths in UTF-16 units, of 1, 2 or 4 bytes     |
 * | `f32`    | vectors of so many dimensions, without a gap                                     |
 * | `f16`    | the same of 16-bit floats; only where they are the same numbers                  |
 *
 * Numbers of several bytes are little-endian. Which lane a column takes is its sender's choice, by what is shortest.
 */
export type Lane =
  | readonly Stored[]
  | { readonly all: Stored }
  | { readonly dict: Lane; readonly size: number; readonly index: Uint8Array }
  | { readonly steps: readonly number[]; readonly from: number }
  | { readonly uuid: Uint8Array; readonly nulls?: Uint8Array }
  | { readonly hex: Uint8Array; readonly nulls?: Uint8Array }
  | { readonly time: Lane; readonly nulls?: Uint8Array }
  | { readonly text: Uint8Array; readonly lengths: Uint8Array; readonly nulls?: Uint8Array }
  | { readonly f32: Uint8Array; readonly dimensions: number; readonly nulls?: Uint8Array }
  | { readonly f16: Uint8Array; readonly dimensions: number; readonly nulls?: Uint8Array }

/** Names of the lanes, in the order of their description; the wire's hash covers them. */
export const laneKinds = [
  'all',
  'dict',
  'steps',
  'uuid',
  'hex',
  'time',
  'text',
  'f32',
  'f16',
] as const
export type LaneKind = (typeof laneKinds)[number]

/** Fewer rows travel as they are. */
const ROWS_MIN = 4
/** A text that is repeated may have so many characters to be said once: what unfolds from it must stay small. */
export const REPEATED_TEXT_MAX = 64
const DICTIONARY_MAX = 65_536

const NULL = 1
const TEXT = 2
const NUMBER = 4
const BYTES = 8

/** The lane of a column's values. */
export function packLane(values: readonly Stored[]): Lane {
  if (values.length < ROWS_MIN) return values
  let kinds = 0
  for (const value of values) kinds |= kindOf(value)
  switch (kinds & ~NULL) {
    case 0:
      return { all: null }
    case TEXT:
      return packRepeated(values) ?? packText(values as readonly (string | null)[])
    case NUMBER:
      return packRepeated(values) ?? packNumbers(values, kinds) ?? values
    case BYTES:
      return packVectors(values as readonly (Uint8Array | null)[]) ?? values
    default:
      return values
  }
}

function kindOf(value: Stored): number {
  if (value === null) return NULL
  if (typeof value === 'string') return TEXT
  return typeof value === 'number' ? NUMBER : BYTES
}

/** Undefined where too few values come again. */
function packRepeated(values: readonly Stored[]): Lane | undefined {
  const entries = new Map<Stored, number>()
  const index = new Uint16Array(values.length)
  for (let i = 0; i < values.length; i++) {
    const value = values[i] ?? null
    let at = entries.get(value)
    if (at === undefined) {
      at = entries.size
      const isTooLong = typeof value === 'string' && value.length > REPEATED_TEXT_MAX
      if (isTooLong || at === DICTIONARY_MAX || (at > 16 && at > i / 2)) return undefined
      entries.set(value, at)
    }
    index[i] = at
  }
  const { size } = entries
  if (size === 1) return { all: values[0] ?? null }
  if (size > values.length / 2) return undefined
  const distinct = [...entries.keys()]
  const dict = distinct.every((value) => typeof value === 'string') ? packText(distinct) : distinct
  return { dict, size, index: unsigned(index, size <= 256 ? 1 : 2) }
}

/** Integers whose distances are shorter than they are. */
function packNumbers(values: readonly Stored[], kinds: number): Lane | undefined {
  return kinds === NUMBER ? packSteps(values as readonly number[]) : undefined
}

function packSteps(values: readonly number[]): Lane | undefined {
  const steps: number[] = []
  const from = values[0] ?? 0
  let before = from
  let largest = 0
  for (const value of values) {
    if (!Number.isSafeInteger(value)) return undefined
    const step = value - before
    steps.push(step)
    largest = Math.max(largest, Math.abs(step))
    before = value
  }
  return largest < Math.max(Math.abs(from), Math.abs(before)) / 256 ? { from, steps } : undefined
}

function packText(values: readonly (string | null)[]): Lane {
  const sample = values.find((value) => value !== null)
  const special =
    sample?.length === 36 || sample?.length === 32
      ? packDigits(values, sample.length)
      : sample?.length === 27
        ? packTimes(values)
        : undefined
  if (special !== undefined) return special
  const lengths = new Uint32Array(values.length)
  let longest = 0
  for (let i = 0; i < values.length; i++) {
    const { length } = values[i] ?? ''
    lengths[i] = length
    if (length > longest) longest = length
  }
  const width = longest < 256 ? 1 : longest < 65_536 ? 2 : 4
  return {
    text: Buffer.from(values.join('')),
    lengths: unsigned(lengths, width),
    ...nullsOf(values),
  }
}

/** Undefined where one of the texts is not in its canonical form. */
function packDigits(values: readonly (string | null)[], length: number): Lane | undefined {
  const nulls = nullsOf(values)
  const count = values.length - nullCount(nulls.nulls)
  const bytes = new Uint8Array(count * 16)
  const dashed = length === 36
  let at = 0
  for (const value of values) {
    if (value === null) continue
    if (value.length !== length || !readDigits(value, dashed, bytes, at)) return undefined
    at += 16
  }
  return dashed ? { uuid: bytes, ...nulls } : { hex: bytes, ...nulls }
}

/** Value of each lower-case hexadecimal digit by its character; all others are 255. */
const digitValues = Uint8Array.from({ length: 128 }, (_, code) => {
  const value = '0123456789abcdef'.indexOf(String.fromCharCode(code))
  return value === -1 ? 255 : value
})

const DASH = 45
const isDash = (i: number): boolean => i === 8 || i === 13 || i === 18 || i === 23

function readDigits(text: string, dashed: boolean, to: Uint8Array, from: number): boolean {
  let at = from
  for (let i = 0; i < text.length; i += 2) {
    if (dashed && isDash(i)) {
      if (text.charCodeAt(i) !== DASH) return false
      i += 1
    } else if (dashed && isDash(i + 1)) return false
    const high = digitValues[text.charCodeAt(i)] ?? 255
    const low = digitValues[text.charCodeAt(i + 1)] ?? 255
    if ((high | low) > 15) return false
    to[at++] = high * 16 + low
  }
  return at === from + 16
}

/** Undefined where one of the texts is not in its canonical form. */
function packTimes(values: readonly (string | null)[]): Lane | undefined {
  const micros: number[] = []
  for (const value of values) {
    if (value === null) continue
    const time = microsOf(value)
    if (time === undefined) return undefined
    micros.push(time)
  }
  return { time: packSteps(micros) ?? micros, ...nullsOf(values) }
}

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/

/** Microseconds since 1970 of a timestamp in its stored form; undefined for what does not come back the same. */
function microsOf(text: string): number | undefined {
  if (!TIME.test(text)) return undefined
  const micros = microsOfTimestamp(text)
  // Beyond the year 2255 a number does not count microseconds; and no 30th of February comes back.
  return Number.isSafeInteger(micros) && timestampOfMicros(micros) === text ? micros : undefined
}

/** Undefined where they have not all the same dimension. */
function packVectors(values: readonly (Uint8Array | null)[]): Lane | undefined {
  const size = values.find((value) => value !== null)?.byteLength ?? 0
  if (size === 0 || size % 4 !== 0) return undefined
  const nulls = nullsOf(values)
  const bytes = new Uint8Array((values.length - nullCount(nulls.nulls)) * size)
  let at = 0
  for (const value of values) {
    if (value === null) continue
    if (value.byteLength !== size) return undefined
    bytes.set(value, at)
    at += size
  }
  const dimensions = size / 4
  const halves = halvesOf(bytes)
  return halves === undefined
    ? { f32: bytes, dimensions, ...nulls }
    : { f16: halves, dimensions, ...nulls }
}

function nullsOf(values: readonly Stored[]): { nulls?: Uint8Array } {
  if (!values.includes(null)) return {}
  const nulls = new Uint8Array(Math.ceil(values.length / 8))
  for (let i = 0; i < values.length; i++)
    if (values[i] === null) nulls[i >> 3] = (nulls[i >> 3] ?? 0) | (1 << (i & 7))
  return { nulls }
}

export function nullCount(nulls: Uint8Array | undefined): number {
  let count = 0
  for (let byte of nulls ?? []) for (; byte !== 0; byte &= byte - 1) count += 1
  return count
}

function unsigned(values: Uint16Array | Uint32Array, width: 1 | 2 | 4): Uint8Array {
  const bytes = new Uint8Array(values.length * width)
  for (let i = 0; i < values.length; i++) {
    const value = values[i] ?? 0
    for (let byte = 0; byte < width; byte++) bytes[i * width + byte] = value >>> (8 * byte)
  }
  return bytes
}
