import { v7 } from 'uuid'
import { ValueProblem } from './canonical-json.ts'

/**
 * Ids are UUIDs, version 7 where we make them: time-ordered, so that indexes grow at one end.
 *
 *   019aa3c1-7b1e-7c2a-9f53-2d1c8e0b4a77
 */
const pattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

/** A new id. Ids of one process are monotonic. */
export const newId = (): string => v7()

export const isId = (text: unknown): text is string =>
  typeof text === 'string' && pattern.test(text)

/** Lower-case id; throws {@link ValueProblem}. */
export function canonicalId(value: unknown): string {
  if (typeof value !== 'string') throw new ValueProblem('is not a UUID')
  const lower = value.toLowerCase()
  if (!pattern.test(lower)) throw new ValueProblem('is not a UUID')
  return lower
}
