import type * as hnswlib from 'hnswlib-node'
import type { EngineMatches, EngineSettings, VectorEngine } from './engine.ts'
import { hnswlibNodeCount, isWholeHnswlibFile } from './engine-files.ts'

export type Hnswlib = Pick<typeof hnswlib, 'HierarchicalNSW'>

const CAPACITY_FIRST = 1024
/** Half as much again: the old and the new block are both in memory while one is copied into the other. */
const GROWTH = 1.5

/** hnswlib through hnswlib-node: 32-bit floats. It takes only plain arrays, so one is filled again for each call. */
export class HnswlibEngine implements VectorEngine {
  readonly #index: InstanceType<Hnswlib['HierarchicalNSW']>
  readonly #components: number[]
  #capacity = CAPACITY_FIRST
  #count = 0
  #ef = 10
  #tombstones = 0

  constructor(library: Hnswlib, { dimension, m, efConstruct }: EngineSettings) {
    this.#index = new library.HierarchicalNSW('cosine', dimension)
    this.#index.initIndex({ maxElements: CAPACITY_FIRST, m, efConstruction: efConstruct })
    // Filled with a fraction, so that V8 lays it out as plain doubles from the start.
    this.#components = Array.from({ length: dimension }, () => 0.5)
  }

  get tombstones(): number {
    return this.#tombstones
  }

  add(label: number, vector: Float32Array): void {
    if (this.#count === this.#capacity) {
      const capacity = Math.max(CAPACITY_FIRST, Math.ceil(this.#capacity * GROWTH))
      this.#index.resizeIndex(capacity)
      this.#capacity = capacity
    }
    this.#index.addPoint(this.#filled(vector), label)
    this.#count += 1
  }

  remove(label: number): void {
    this.#index.markDelete(label)
    this.#tombstones += 1
  }

  search(vector: Float32Array, k: number, ef: number): EngineMatches {
    const live = this.#count - this.#tombstones
    if (live === 0) return { labels: [], scores: [] }
    if (ef !== this.#ef) {
      this.#index.setEf(ef)
      this.#ef = ef
    }
    const found = this.#index.searchKnn(this.#filled(vector), Math.min(k, live))
    return { labels: found.neighbors, scores: found.distances.map((distance) => 1 - distance) }
  }

  /** In a thread of its own: hnswlib only reads while it saves, as a search does. */
  async save(path: string): Promise<void> {
    await this.#index.writeIndex(path)
  }

  isWhole(path: string): Promise<boolean> {
    return isWholeHnswlibFile(path)
  }

  async load(path: string, dead: readonly number[]): Promise<void> {
    this.#tombstones = 0
    // An empty graph comes back without room for anything, and cannot be given any: it frees the memory twice.
    if ((await hnswlibNodeCount(path)) === 0) return
    await this.#index.readIndex(path)
    this.#count = this.#index.getCurrentCount()
    this.#capacity = this.#index.getMaxElements()
    // The library does not save it, and has 10 again.
    this.#ef = 10
    // The library kept the marks.
    this.#tombstones = dead.length
  }

  #filled(vector: Float32Array): number[] {
    const components = this.#components
    for (let i = 0; i < components.length; i++) components[i] = vector[i] as number
    return components
  }
}
