/**
 * Exact nearest neighbours by cosine: unit vectors in one matrix, scanned whole. 10 000 x 1536 is about 15 million
 * multiplications a query; ten times the rows cost ten times as long.
 */
export interface Neighbour {
  readonly id: string
  /** Cosine of the angle, -1 to 1. */
  readonly score: number
}

export class ExactIndex {
  readonly dimension: number
  readonly #rows = new Map<string, number>()
  #ids: string[] = []
  #matrix: Float32Array

  constructor(dimension: number) {
    this.dimension = dimension
    this.#matrix = new Float32Array(dimension * 64)
  }

  get size(): number {
    return this.#ids.length
  }

  set(id: string, vector: Float32Array): void {
    const { dimension } = this
    let row = this.#rows.get(id)
    if (row === undefined) {
      row = this.#ids.length
      this.#ids.push(id)
      this.#rows.set(id, row)
      this.#grow()
    }
    this.#matrix.set(unit(vector), row * dimension)
  }

  delete(id: string): void {
    const row = this.#rows.get(id)
    if (row === undefined) return
    const { dimension } = this
    const last = this.#ids.length - 1
    const moved = this.#ids[last]
    if (moved !== undefined && last !== row) {
      this.#matrix.copyWithin(row * dimension, last * dimension, (last + 1) * dimension)
      this.#ids[row] = moved
      this.#rows.set(moved, row)
    }
    this.#ids.pop()
    this.#rows.delete(id)
  }

  /** The `k` nearest, best first; of equals the lower id. `among` limits it to some ids. */
  search(query: Float32Array, k: number, among?: readonly string[]): Neighbour[] {
    const probe = unit(query)
    const best = new TopK(k)
    if (among === undefined) {
      for (let row = 0; row < this.#ids.length; row++)
        best.offer(this.#score(probe, row), this.#ids[row] ?? '')
    } else {
      for (const id of among) {
        const row = this.#rows.get(id)
        if (row !== undefined) best.offer(this.#score(probe, row), id)
      }
    }
    return best.sorted()
  }

  /** Four sums side by side keep the pipeline full; V8 does not do that for us. */
  #score(probe: Float32Array, row: number): number {
    const matrix = this.#matrix
    const { dimension } = this
    const offset = row * dimension
    let a = 0
    let b = 0
    let c = 0
    let d = 0
    let i = 0
    for (; i + 3 < dimension; i += 4) {
      a += (probe[i] as number) * (matrix[offset + i] as number)
      b += (probe[i + 1] as number) * (matrix[offset + i + 1] as number)
      c += (probe[i + 2] as number) * (matrix[offset + i + 2] as number)
      d += (probe[i + 3] as number) * (matrix[offset + i + 3] as number)
    }
    for (; i < dimension; i++) a += (probe[i] as number) * (matrix[offset + i] as number)
    return a + b + c + d
  }

  #grow(): void {
    const needed = this.#ids.length * this.dimension
    if (needed <= this.#matrix.length) return
    const grown = new Float32Array(Math.max(needed, this.#matrix.length * 2))
    grown.set(this.#matrix)
    this.#matrix = grown
  }
}

function unit(vector: Float32Array): Float32Array {
  let squares = 0
  for (const component of vector) squares += component * component
  if (squares === 0) return vector
  const scale = 1 / Math.sqrt(squares)
  return vector.map((component) => component * scale)
}

/** The best k of a stream: a sorted list while k is small, which it is. */
class TopK {
  readonly #k: number
  readonly #found: Neighbour[] = []
  #worst = Number.NEGATIVE_INFINITY

  constructor(k: number) {
    this.#k = k
  }

  offer(score: number, id: string): void {
    if (this.#found.length >= this.#k && score < this.#worst) return
    let at = this.#found.length
    while (at > 0 && before({ id, score }, this.#found[at - 1])) at -= 1
    this.#found.splice(at, 0, { id, score })
    if (this.#found.length > this.#k) this.#found.pop()
    this.#worst = this.#found.at(-1)?.score ?? Number.NEGATIVE_INFINITY
  }

  sorted(): Neighbour[] {
    return this.#found
  }
}

const before = (a: Neighbour, b: Neighbour | undefined): boolean =>
  b === undefined || a.score > b.score || (a.score === b.score && a.id < b.id)
