import { AgentDBError, preview } from '../../../schema/errors.ts'
import { DIMENSION_MAX } from '../../../schema/values/vector.ts'

/** Neighbours that one search of a graph may ask for, and candidates that it may look at. */
export const GRAPH_K_MAX = 10_000
export const GRAPH_EF_MAX = 10_000
const ID_LENGTH_MAX = 200

const refuse = (name: string, why: string, value: unknown): never => {
  throw new AgentDBError('INVALID_VALUE', `vector graph: ${name} ${why} (got ${preview(value)})`, {
    value,
  })
}

/**
 * The vector at length 1, in an array of our own. Reckoned in doubles: the squares of what a 32-bit float holds
 * overflow and vanish in 32 bits.
 *
 * @throws AgentDBError `INVALID_VALUE`
 */
export function unitVector(dimension: number, vector: unknown): Float32Array {
  if (!(vector instanceof Float32Array)) return refuse('vector', 'is not a Float32Array', vector)
  if (vector.length !== dimension)
    return refuse('vector', `has not ${dimension} dimensions`, vector.length)
  let squares = 0
  for (let i = 0; i < dimension; i++) {
    const component = vector[i] as number
    squares += component * component
  }
  if (!Number.isFinite(squares)) refuse('vector', 'has a component that is not finite', vector)
  if (squares === 0) refuse('vector', 'has no direction: all components are 0', vector)
  const scale = 1 / Math.sqrt(squares)
  const unit = new Float32Array(dimension)
  for (let i = 0; i < dimension; i++) unit[i] = (vector[i] as number) * scale
  return unit
}

/** @throws AgentDBError `INVALID_VALUE` */
export function checkId(id: unknown): asserts id is string {
  if (typeof id !== 'string' || id.length === 0 || id.length > ID_LENGTH_MAX)
    refuse('id', `is not a string of 1 to ${ID_LENGTH_MAX} characters`, id)
}

/** @throws AgentDBError `INVALID_VALUE` */
export function checkStamp(stamp: unknown): asserts stamp is number {
  if (!Number.isSafeInteger(stamp) || (stamp as number) < 0)
    refuse('stamp', 'is not a whole number', stamp)
}

/** @throws AgentDBError `INVALID_VALUE` */
export function checkSearch(k: unknown, ef: unknown): void {
  if (!isWithin(k, GRAPH_K_MAX)) refuse('k', `is not 1 to ${GRAPH_K_MAX}`, k)
  if (!isWithin(ef, GRAPH_EF_MAX)) refuse('ef', `is not 1 to ${GRAPH_EF_MAX}`, ef)
}

/** @throws AgentDBError `INVALID_VALUE` */
export function checkSettings(dimension: unknown, m: unknown, efConstruct: unknown): void {
  if (!isWithin(dimension, DIMENSION_MAX))
    refuse('dimension', `is not 1 to ${DIMENSION_MAX}`, dimension)
  if (!isWithin(m, 256) || m === 1) refuse('m', 'is not 2 to 256', m)
  if (!isWithin(efConstruct, GRAPH_EF_MAX))
    refuse('efConstruct', `is not 1 to ${GRAPH_EF_MAX}`, efConstruct)
}

const isWithin = (value: unknown, most: number): boolean =>
  Number.isInteger(value) && (value as number) >= 1 && (value as number) <= most
