import { ValueProblem } from './canonical-json.ts'

/**
 * A moment: UTC, microseconds, 27 characters, so that text order is time order.
 *
 *   2026-11-20T09:30:00.123456Z
 *
 * Taken in: ISO-8601 with any offset and up to six decimals, or a `Date`. Years 0001 to 9999.
 */
const iso =
  /^(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?\s?(Z|[+-]\d{2}(?::?\d{2})?)?)?$/

export const TIMESTAMP_MIN = '0001-01-01T00:00:00.000000Z'
export const TIMESTAMP_MAX = '9999-12-31T23:59:59.999999Z'

/** The canonical form of a moment; throws {@link ValueProblem}. */
export function canonicalTimestamp(value: unknown): string {
  if (value instanceof Date) {
    if (Number.isNaN(value.getTime())) throw new ValueProblem('is an invalid Date')
    return fromParts(value.getTime(), '000')
  }
  if (typeof value !== 'string') throw new ValueProblem('is not an ISO-8601 time')
  if (isCanonicalTimestamp(value)) return value
  const utc = postgresPlainDay.exec(value)
  if (utc !== null && !value.startsWith('0000'))
    return `${value.slice(0, 10)}T${value.slice(11, 19)}.${(utc[1] ?? '').padEnd(6, '0')}Z`
  const match = iso.exec(value)
  if (match === null) throw new ValueProblem('is not an ISO-8601 time')
  const [, year, month, day, hour = '00', minute = '00', second = '00', fraction = '', zone = 'Z'] =
    match
  const micros = fraction.padEnd(6, '0')
  const base = `${year}-${month}-${day}T${hour}:${minute}:${second}`
  if (year !== '0000' && offsetMs(zone) === 0 && plainDay.test(base)) return `${base}.${micros}Z`
  const local = Date.parse(`${base}.${micros.slice(0, 3)}Z`)
  if (Number.isNaN(local) || !new Date(local).toISOString().startsWith(base)) {
    throw new ValueProblem('is not a time that exists')
  }
  return fromParts(local - offsetMs(zone), micros.slice(3))
}

const canonical = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$/

/** Of those, the ones whose day every month has: no calendar needed. */
const plainDay = /^\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d/

/** As PostgreSQL's JSON has it: most of what the centre reads. */
const postgresPlainDay = new RegExp(`${plainDay.source}(?:\\.(\\d{1,6}))?\\+00:00$`)

const canonicalPlainDay = new RegExp(`${plainDay.source}\\.\\d{6}Z$`)

function isCanonicalTimestamp(text: string): boolean {
  if (canonicalPlainDay.test(text) && !text.startsWith('0000')) return true
  if (!canonical.test(text) || text.startsWith('0000')) return false
  if (plainDay.test(text)) return true
  const parsed = new Date(`${text.slice(0, 23)}Z`)
  return !Number.isNaN(parsed.getTime()) && parsed.toISOString().slice(0, 19) === text.slice(0, 19)
}

function offsetMs(zone: string): number {
  if (zone === 'Z') return 0
  const sign = zone.startsWith('-') ? -1 : 1
  const hours = Number(zone.slice(1, 3))
  const minutes = Number(zone.slice(3).replace(':', '') || '0')
  if (hours > 15 || minutes > 59) throw new ValueProblem('has an offset that does not exist')
  return sign * (hours * 60 + minutes) * 60_000
}

/** The last millisecond that was written out: rows that are made together mostly share it. */
let lastMs = Number.NaN
let lastText = ''

function fromParts(ms: number, micros: string): string {
  if (ms !== lastMs) {
    const text = new Date(ms).toISOString()
    if (text.length !== 24 || text.startsWith('0000')) {
      throw new ValueProblem('is outside the years 0001 to 9999')
    }
    lastMs = ms
    lastText = text.slice(0, 23)
  }
  return `${lastText}${micros}Z`
}

/** A moment of microseconds since 1970. */
export function timestampOfMicros(micros: number): string {
  const ms = Math.floor(micros / 1000)
  return fromParts(ms, String(micros - ms * 1000).padStart(3, '0'))
}

/** Microseconds since 1970; exact, below 2^53 until the year 2255. */
export function microsOfTimestamp(timestamp: string): number {
  return Date.parse(`${timestamp.slice(0, 23)}Z`) * 1000 + Number(timestamp.slice(23, 26))
}

/** Wall clock in microseconds since 1970. Passed in wherever time matters, so that tests can turn it. */
export type Clock = () => number

export const systemClock: Clock = () =>
  Math.floor((performance.timeOrigin + performance.now()) * 1000)
