import type { VectorSet } from '../support/vector-set.ts'

/** Of so many rows one passes: the filter `one_in_10 = 0`, say. Each row has a column for each. */
export const ONE_IN = [1000, 100, 10] as const
export type OneIn = (typeof ONE_IN)[number]

/** A store of vectors with columns to filter on, in files of one folder. Rows are known by their numbers. */
export interface StorePeer extends AsyncDisposable {
  readonly name: string
  /** How it searches. */
  readonly how: string
  /** Puts all of them in and makes what indexes it has. */
  fill(vectors: VectorSet): Promise<void>
  /** Settles how widely it looks, so that it finds a share of the nearest. */
  tune?(recall: () => Promise<number>, wanted: number): Promise<void>
  /** The rows nearest by cosine. */
  search(vector: Float32Array, k: number, oneIn?: OneIn): number[] | Promise<number[]>
  put(row: number, vector: Float32Array): unknown
  delete(row: number): unknown
  /** Opens the files once more, asks for a vector, and closes again; resolves with the milliseconds before the closing. */
  reopen(vector: Float32Array, k: number): Promise<number>
}
