import type { GraphIndex } from '../../src/vector/graph-index.ts'
import type { Neighbour } from '../../src/vector/neighbour.ts'
import { ScanIndex } from '../../src/vector/scan-index.ts'

export interface LossyGraphOptions {
  readonly watermark: number
  /** Share of the vectors that a walk of this `ef` sees. Default: all. */
  readonly seen?: (ef: number) => number
  /** Runs before each answer. */
  readonly before?: () => unknown
}

/** Vectors as they were at a watermark, some of which a search misses: which ones depends on the query and on `ef`. */
export class LossyGraph implements GraphIndex {
  readonly watermark: number
  isAtFile = false
  readonly asked: { readonly k: number; readonly ef: number }[] = []
  readonly #scan: ScanIndex
  readonly #ids: string[]
  readonly #options: LossyGraphOptions

  constructor(vectors: Iterable<readonly [string, Float32Array]>, options: LossyGraphOptions) {
    const all = [...vectors]
    this.#scan = new ScanIndex(all[0]?.[1].length ?? 1)
    for (const [id, vector] of all) this.#scan.set(id, vector)
    this.#ids = all.map(([id]) => id)
    this.#options = options
    this.watermark = options.watermark
  }

  get size(): number {
    return this.#scan.size
  }

  async search(vector: Float32Array, k: number, ef: number): Promise<Neighbour[]> {
    await this.#options.before?.()
    this.asked.push({ k, ef })
    const share = this.#options.seen?.(ef) ?? 1
    const salt = vector.reduce((sum, component) => sum + Math.abs(component) * 1e4, 0)
    const isSeen = (i: number): boolean =>
      Math.abs(Math.sin(salt + i * 12.9898) * 43_758.5453) % 1 < share
    return this.#scan.search(
      vector,
      k,
      this.#ids.filter((_, i) => isSeen(i)),
    )
  }
}
