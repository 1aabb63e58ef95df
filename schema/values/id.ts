import { randomFillSync } from 'node:crypto'
import { v7 } from 'uuid'
import { ValueProblem } from './canonical-json.ts'

/**
 * Ids are UUIDs, version 7 where we make them: time-ordered, so that indexes grow at one end.
 *
 *   019aa3c1-7b1e-7c2a-9f53-2d1c8e0b4a77
 */
const pattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** Random bytes for ids to come: asked for one by one, they would cost three times the rest of an id. */
const pool = new Uint8Array(16 * 256)
let used = pool.length
let msecs = 0
let sequence = 0

/** A new id. Ids of one process are monotonic: a clock that stands still or goes back is counted on from. */
export function newId(): string {
  if (used === pool.length) {
    randomFillSync(pool)
    used = 0
  }
  const random = pool.subarray(used, used + 16)
  used += 16
  const now = Date.now()
  if (now > msecs) {
    msecs = now
    const [a = 0, b = 0, c = 0, d = 0] = random
    sequence = ((a & 0x7f) << 24) | (b << 16) | (c << 8) | d
  } else {
    sequence = (sequence + 1) | 0
    if (sequence === 0) msecs += 1
  }
  return v7({ random, msecs, seq: sequence })
}

/** Ids begin anew, as in a process that just started; for simulators, whose runs must not depend on each other. */
export function forgetIds(): void {
  used = pool.length
  msecs = 0
}

export const isId = (text: unknown): text is string =>
  typeof text === 'string' && pattern.test(text)

/** Lower-case id; throws {@link ValueProblem}. */
export function canonicalId(value: unknown): string {
  if (typeof value !== 'string') throw new ValueProblem('is not a UUID')
  if (pattern.test(value)) return value
  const lower = value.toLowerCase()
  if (!pattern.test(lower)) throw new ValueProblem('is not a UUID')
  return lower
}
