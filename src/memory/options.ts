import { AgentDBError, preview } from '../../schema/errors.ts'
import { polarities } from '../../schema/tables/memory.ts'
import { ValueProblem } from '../../schema/values/canonical-json.ts'
import { canonicalTimestamp } from '../../schema/values/timestamp.ts'
import { vectorFault } from './callbacks.ts'
import type { RetrieveOptions } from './types.ts'

/** Most records of one retrieval. The paper warns beyond 10. */
export const RECORDS_MAX = 100
export const ITEMS_MAX = 500

export function refuse(call: string, why: string): never {
  throw new AgentDBError('INVALID_OPTION', `db.memory.${call}: ${why}`)
}

/** The names of options that a call knows; others are mistakes. */
export function mustBeKnown(call: string, options: unknown, names: readonly string[]): void {
  if (typeof options !== 'object' || options === null)
    refuse(call, `give an object of ${names.join(', ')}`)
  for (const name of Object.keys(options)) {
    if (!names.includes(name))
      refuse(call, `there is no option ${preview(name)}; there are ${names.join(', ')}`)
  }
}

/** A number within bounds, or its default. */
export function numberOf(
  call: string,
  name: string,
  given: number | undefined,
  bounds: { readonly default: number; readonly min: number; readonly max: number; whole?: boolean },
): number {
  const value = given ?? bounds.default
  const fits =
    typeof value === 'number' &&
    value >= bounds.min &&
    value <= bounds.max &&
    (bounds.whole !== true || Number.isInteger(value))
  if (!fits) refuse(call, `${name} must be ${bounds.min} to ${bounds.max}, got ${preview(given)}`)
  return value
}

/** The canonical form of a time. */
export function timeOf(call: string, name: string, given: string | Date): string {
  try {
    return canonicalTimestamp(given)
  } catch (error) {
    if (!(error instanceof ValueProblem)) throw error
    return refuse(call, `${name} ${error.message} (got ${preview(given)})`)
  }
}

const retrieveOptions = [
  'query',
  'embedding',
  'model',
  'instruction',
  'k',
  'maxItems',
  'polarity',
  'minScore',
  'by',
  'at',
  'count',
] as const satisfies readonly (keyof RetrieveOptions)[]

/** @throws AgentDBError `INVALID_OPTION` */
export function checkRetrieve(options: RetrieveOptions): void {
  const call = 'retrieve'
  mustBeKnown(call, options, retrieveOptions)
  const { query, embedding, model, instruction, polarity, by, count, minScore } = options
  if ((query === undefined) === (embedding === undefined))
    refuse(call, 'give query or embedding, one of them')
  for (const [name, value] of Object.entries({ query, model, instruction })) {
    if (value !== undefined && typeof value !== 'string')
      refuse(call, `${name} must be a string, got ${preview(value)}`)
  }
  if (embedding === undefined) {
    if (model !== undefined) refuse(call, 'model is that of embedding; a query has the store’s')
  } else {
    const fault = vectorFault(embedding)
    if (fault !== undefined) refuse(call, `embedding is a vector ${fault}`)
    if (instruction !== undefined) refuse(call, 'instruction goes with query, not with embedding')
  }
  if (polarity !== undefined && !polarities.includes(polarity))
    refuse(call, `polarity must be one of ${polarities.join(', ')}, got ${preview(polarity)}`)
  if (by !== undefined && by !== 'task' && by !== 'text')
    refuse(call, `by must be task or text, got ${preview(by)}`)
  if (count !== undefined && typeof count !== 'boolean')
    refuse(call, `count must be true or false, got ${preview(count)}`)
  if (minScore !== undefined && !(typeof minScore === 'number' && Number.isFinite(minScore)))
    refuse(call, `minScore must be a number, got ${preview(minScore)}`)
}
