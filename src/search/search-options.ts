import type { Json } from '../../schema/define.ts'
import { AgentDBError, preview } from '../../schema/errors.ts'
import { collections, type Collection } from '../../schema/tables/embeddings.ts'
import { validateFilter, type PayloadFilter } from './payload-filter.ts'
import type { Alternative, SearchMethod } from './planner.ts'

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
  /**
   * Share of the true `k` nearest that must be found on average, 0 to 1. At 1 every vector is compared. Counts only where
   * there is a graph: without one all searches are exact. Default: 0.99.
   */
  readonly recall?: number | undefined
  /** `true` gives the plan with the results: see {@link ExplainOptions}. Default: false. */
  readonly explain?: false | undefined
}

/** As {@link SearchOptions}, telling also how the answer was found. */
export interface ExplainOptions extends Omit<SearchOptions, 'explain'> {
  readonly explain: true
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

/** How a search was answered, and why so. */
export interface SearchPlan {
  readonly method: SearchMethod
  readonly reason: string
  /** Vectors of the collection, model and dimension. */
  readonly count: number
  /** Rows that the filter leaves, at most; null without a filter. */
  readonly matching: number | null
  readonly recall: number
  /** How widely the graph looked; null unless it was asked. */
  readonly ef: number | null
  /** What the planner compared, the cheapest first. */
  readonly alternatives: readonly Alternative[]
  /** Vectors whose codes were compared, and those whose originals were. */
  readonly scanned: number
  readonly rescored: number
  /** Vectors in the graph and changes it has not taken in; null where there is none. */
  readonly graph: { readonly size: number; readonly behind: number } | null
}

export interface ExplainedSearch {
  readonly results: SearchResult[]
  readonly plan: SearchPlan
}

export const RECALL_DEFAULT = 0.99
export const SEARCH_K_MAX = 1000

/** @throws AgentDBError `INVALID_OPTION` */
export function validated(options: SearchOptions | ExplainOptions): SearchOptions {
  const { collection, text, vector, k, filter, minScore, recall, explain } = options
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
  if (recall !== undefined && !(typeof recall === 'number' && recall >= 0 && recall <= 1))
    refuse(`recall must be 0 to 1, got ${preview(recall)}`)
  if (explain !== undefined && typeof explain !== 'boolean')
    refuse(`explain must be true or false, got ${preview(explain)}`)
  if (filter !== undefined) validateFilter(filter)
  return { ...options, explain: false }
}

function refuse(message: string): never {
  throw new AgentDBError('INVALID_OPTION', `search: ${message}`)
}
