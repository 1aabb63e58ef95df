import type { Collection } from '../../schema/tables/embeddings.ts'

/** Vectors that can be compared with each other. */
export interface VectorSpace {
  readonly collection: Collection
  readonly model: string
  readonly dimension: number
}
