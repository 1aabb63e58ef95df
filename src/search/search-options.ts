import type { Json } from '../../schema/define.ts'
import { AgentDBError, preview } from '../../schema/errors.ts'
import { collections, type Collection } from '../../schema/tables/embeddings.ts'
import { validateFilter, type PayloadFilter } from './payload-filter.ts'

export interface SearchOptions {
  readonly collection: Collection
  /** Embedded by the store's embedder. Give this or `vector`. */
  readonly text?: string | undefined
  readonly vector?: Float32Array | undefined
  /** Results wanted, 1 to 1000. Default: 10. */
  readonly k?: number | undefined
  readonly filter?: PayloadFilter | undefined
  /** Least score, -1 to 1. Default: none. */
  readonly minScore?: number | undefined
}

export interface SearchResult {
  readonly id: string
  /** Cosine similarity, -1 to 1; higher is nearer. */
  readonly score: number
  readonly collection: Collection
  readonly model: string
  readonly contentPreview: string | null
  readonly payload: Json
}

export const SEARCH_K_MAX = 1000

/** @throws AgentDBError `INVALID_OPTION` */
export function validated(options: SearchOptions): SearchOptions {
  const { collection, text, vector, k, filter, minScore } = options
  if (!collections.includes(collection))
    refuse(`there is no collection ${preview(collection)}; there are ${collections.join(', ')}`)
  if ((text === undefined) === (vector === undefined)) refuse('give text or vector, one of them')
  if (text !== undefined && typeof text !== 'string')
    refuse(`text must be a string, got ${preview(text)}`)
  if (
    vector !== undefined &&
    !(vector instanceof Float32Array && vector.length > 0 && vector.every(Number.isFinite))
  ) {
    refuse('vector must be a Float32Array of finite numbers')
  }
  if (k !== undefined && !(Number.isInteger(k) && k >= 1 && k <= SEARCH_K_MAX))
    refuse(`k must be 1 to ${SEARCH_K_MAX}, got ${preview(k)}`)
  if (minScore !== undefined && !Number.isFinite(minScore))
    refuse(`minScore must be a number, got ${preview(minScore)}`)
  if (filter !== undefined) validateFilter(filter)
  return options
}

function refuse(message: string): never {
  throw new AgentDBError('INVALID_OPTION', `search: ${message}`)
}
