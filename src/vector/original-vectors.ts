import type { Kernels } from './kernels.ts'

interface OriginalVectorsOptions {
  readonly fetch: ((id: string) => Float32Array | undefined) | undefined
  readonly bytesMax: number
}

/** Vectors as they were given, by row: in memory up to a number of bytes, from then on asked for one by one. */
export class OriginalVectors {
  readonly #dimension: number
  /** Components of a row, zeros at the end. */
  readonly #length: number
  readonly #newKernels: () => Kernels
  readonly #options: OriginalVectorsOptions
  #kernels: Kernels
  #areKept = true
  #queryNorm = 0

  constructor(dimension: number, kernels: () => Kernels, options: OriginalVectorsOptions) {
    this.#dimension = dimension
    this.#length = Math.ceil(dimension / 4) * 4
    this.#newKernels = kernels
    this.#options = options
    this.#kernels = kernels()
  }

  get areKept(): boolean {
    return this.#areKept
  }

  get memoryBytes(): number {
    return this.#kernels.buffer.byteLength
  }

  set(row: number, vector: Float32Array): void {
    if (!this.#areKept) return
    if ((row + 1) * this.#length * 4 > this.#options.bytesMax) {
      this.#areKept = false
      this.#kernels = this.#newKernels()
      return
    }
    this.#kernels.ensure(this.#addressOf(row + 1))
    this.#write(row, vector)
  }

  move(from: number, to: number): void {
    if (!this.#areKept) return
    const start = this.#addressOf(from)
    const end = this.#addressOf(from + 1)
    new Uint8Array(this.#kernels.buffer).copyWithin(this.#addressOf(to), start, end)
  }

  /** A copy; undefined where the row cannot be fetched. */
  vector(row: number, id: string): Float32Array | undefined {
    if (!this.#areKept) return this.#options.fetch?.(id)
    return new Float32Array(this.#kernels.buffer, this.#addressOf(row), this.#dimension).slice()
  }

  /** The query of the calls of {@link cosine} that follow. */
  ask(query: Float32Array): void {
    // One row more: where nothing is kept, row 0 takes what was fetched.
    this.#kernels.ensure(this.#addressOf(1))
    new Float64Array(this.#kernels.buffer, 0, this.#dimension).set(query)
    let squares = 0
    for (const component of query) squares += component * component
    this.#queryNorm = Math.sqrt(squares)
  }

  /** Cosine of a row and the query, in double precision; undefined where the row cannot be fetched. */
  cosine(row: number, id: string, norm: number): number | undefined {
    if (norm === 0 || this.#queryNorm === 0) return 0
    let at = row
    if (!this.#areKept) {
      const vector = this.#options.fetch?.(id)
      if (vector?.length !== this.#dimension) return undefined
      this.#write(0, vector)
      at = 0
    }
    const dot = this.#kernels.dot(this.#addressOf(at), 0, this.#length)
    return Math.max(-1, Math.min(1, dot / (norm * this.#queryNorm)))
  }

  #write(row: number, vector: Float32Array): void {
    new Float32Array(this.#kernels.buffer, this.#addressOf(row), this.#dimension).set(vector)
  }

  /** The query comes first, 8 bytes a component. */
  #addressOf(row: number): number {
    return 8 * this.#length + 4 * row * this.#length
  }
}
