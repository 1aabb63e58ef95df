import type * as usearch from 'usearch'
import type { EngineMatches, EngineSettings, VectorEngine } from './engine.ts'
import { isWholeUsearchFile } from './engine-files.ts'

export type Usearch = Pick<typeof usearch, 'Index' | 'MetricKind' | 'ScalarKind'>

/** One: the worker is a thread of its own, and more would take the processor from the agent. */
const THREADS = 1

type Matches = Pick<usearch.Matches, 'keys' | 'distances'>

/** usearch with 16-bit floats: half the memory and the traffic, no loss of recall that could be measured. */
export class UsearchEngine implements VectorEngine {
  readonly #index: InstanceType<Usearch['Index']>
  readonly #key = new BigUint64Array(1)
  /**
   * Removed vectors stay in the library's graph and are left out of what it finds. Its own `remove` marks places in a
   * hash table that nothing ever clears: after some thousands of removes and adds a lookup never ends.
   */
  readonly #dead = new Set<number>()

  constructor(library: Usearch, { dimension, m, efConstruct }: EngineSettings) {
    const { Index, MetricKind, ScalarKind } = library
    this.#index = new Index({
      dimensions: dimension,
      metric: MetricKind.Cos,
      quantization: ScalarKind.F16,
      connectivity: m,
      expansion_add: efConstruct,
      expansion_search: 1,
      multi: false,
    })
  }

  get tombstones(): number {
    return this.#dead.size
  }

  add(label: number, vector: Float32Array): void {
    this.#key[0] = BigInt(label)
    this.#index.add(this.#key, vector, THREADS)
  }

  remove(label: number): void {
    this.#dead.add(label)
  }

  /** It looks at as many candidates as are asked for: that is how `ef` can differ from search to search. */
  search(vector: Float32Array, k: number, ef: number): EngineMatches {
    const count = this.#index.size()
    const wanted = Math.min(k, count - this.#dead.size)
    if (wanted === 0) return { labels: [], scores: [] }
    for (
      let candidates = Math.min(Math.max(k, ef), count);
      ;
      candidates = Math.min(candidates * 2, count)
    ) {
      const found = this.#living(this.#index.search(vector, candidates, THREADS), wanted)
      if (found.labels.length === wanted || candidates === count) return found
    }
  }

  #living({ keys, distances }: Matches, wanted: number): EngineMatches {
    const labels: number[] = []
    const scores: number[] = []
    for (let i = 0; i < keys.length && labels.length < wanted; i++) {
      const label = Number(keys[i])
      if (this.#dead.has(label)) continue
      labels.push(label)
      scores.push(1 - (distances[i] ?? Number.NaN))
    }
    return { labels, scores }
  }

  async save(path: string): Promise<void> {
    this.#index.save(path)
  }

  isWhole(path: string): Promise<boolean> {
    return isWholeUsearchFile(path)
  }

  async load(path: string, dead: readonly number[]): Promise<void> {
    this.#index.load(path)
    this.#dead.clear()
    for (const label of dead) this.#dead.add(label)
  }
}
