/** Libraries that can hold a graph; both are optional native addons. */
export const engineNames = ['hnswlib', 'usearch'] as const
export type EngineName = (typeof engineNames)[number]

export interface EngineSettings {
  readonly dimension: number
  /** Edges of a node, per layer. */
  readonly m: number
  /** Candidates looked at while a vector is added. */
  readonly efConstruct: number
}

/** What an engine found: labels and cosines, best first. */
export interface EngineMatches {
  readonly labels: readonly number[]
  readonly scores: readonly number[]
}

/**
 * A native HNSW index of unit vectors under 32-bit labels. It trusts its caller: a wrong dimension, a NaN, a label
 * twice or a damaged file may end the process. {@link Graph} and the cache file keep all of that away from it.
 */
export interface VectorEngine {
  /** Removed vectors that still are in the graph and cost time there. */
  readonly tombstones: number
  /** `vector` has length 1. `label` was never used before. */
  add(label: number, vector: Float32Array): void
  /** `label` is in the graph. */
  remove(label: number): void
  search(vector: Float32Array, k: number, ef: number): EngineMatches
  /** Writes the graph; it may be searched meanwhile, not changed. May fail in silence: see {@link isWhole}. */
  save(path: string): Promise<void>
  /** Whether a file that {@link save} wrote is complete: neither library reports a full disk. */
  isWhole(path: string): Promise<boolean>
  /** Reads what {@link save} wrote into this engine, which is empty. `path` exists and is known to be undamaged. `dead`: what was removed before. */
  load(path: string, dead: readonly number[]): Promise<void>
}

export type EngineAnswer =
  | {
      readonly kind: 'available'
      readonly name: EngineName
      /** Library, its version and the processor: a file of another build is not read. */
      readonly build: string
      readonly create: (settings: EngineSettings) => VectorEngine
    }
  | { readonly kind: 'unavailable'; readonly name: EngineName; readonly reason: string }
