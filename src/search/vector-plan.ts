import type { Collection } from '../../schema/tables/embeddings.ts'
import type { Alternative, SearchMethod } from './planner.ts'

/** How the vectors of a collection were searched, and why so. */
export interface VectorPlan {
  readonly collection: Collection
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
