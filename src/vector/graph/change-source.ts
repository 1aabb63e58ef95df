import type { VectorSpace } from '../vector-space.ts'

/** Changes in the order of their numbers, as a graph of one place sees them. */
export interface ChangeSlice {
  /** Rows that are in the place now, with their vectors one after another. */
  readonly ids: readonly string[]
  readonly stamps: Float64Array<ArrayBuffer>
  readonly vectors: Float32Array<ArrayBuffer>
  /** Rows that are gone, or in another place. */
  readonly deletes: readonly string[]
  /** Number of the last change in it; `after` when there is none. */
  readonly last: number
}

export interface StampSlice {
  readonly ids: readonly string[]
  readonly stamps: Float64Array<ArrayBuffer>
  /** {@link IN_PLACE}, {@link NEWER}, or 0 for a row that is gone or in another place. */
  readonly kinds: Uint8Array<ArrayBuffer>
  readonly last: number
}

/**
 * The change sequence of the embeddings of one store. Each call is short: it reads for a few milliseconds and leaves
 * the rest to the next, because it runs on the thread of the agent.
 */
export interface ChangeSource {
  readonly isOpen: boolean
  /** Number of the newest change; 0 when there is none. */
  head(): number
  /**
   * Number of the last change that is not told of any more, though its row is gone. What followed only to before it must
   * be made anew; to be read after the changes.
   */
  forgotten(): number
  /** Rows of a place, counted up to `limit`. */
  count(place: VectorSpace, limit: number): number
  changes(place: VectorSpace, after: number, deletesAfter: number): ChangeSlice
  /** Every change with its stamp; what is newer than `watermark` is {@link NEWER}. */
  stamps(place: VectorSpace, after: number, watermark: number): StampSlice
}

export const ELSEWHERE = 0
export const IN_PLACE = 1
export const NEWER = 2
