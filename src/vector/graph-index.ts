import type { Neighbour } from './neighbour.ts'

/**
 * An approximate index over the vectors of one collection, model and dimension. A cache that may lag: it holds the rows
 * as they were at its watermark.
 */
export interface GraphIndex {
  /** Vectors in it. */
  readonly size: number
  /** The last `embedding_changes.seq` that it has taken in. */
  readonly watermark: number
  /** Whether a search would have to wait for a file that is read or written. */
  readonly isAtFile: boolean
  /** About the `k` nearest, best first; a larger `ef` looks longer and misses less. */
  search(vector: Float32Array, k: number, ef: number): Promise<Neighbour[]>
}
