/** Some rows. */
export interface IdSet extends Iterable<string> {
  /** At most. */
  readonly size: number
  has(id: string): boolean
}

/** Rows that are in each of some parts: in any of the sets of that part. */
export class Matching {
  /** Fewest rows first. */
  readonly #parts: readonly (readonly IdSet[])[]
  /** Rows at most; exact for one set. */
  readonly count: number

  constructor(parts: readonly (readonly IdSet[])[]) {
    const sized = parts
      .map((sets) => ({ sets, size: sets.reduce((sum, { size }) => sum + size, 0) }))
      .toSorted((a, b) => a.size - b.size)
    this.#parts = sized.map(({ sets }) => sets)
    this.count = sized[0]?.size ?? 0
  }

  /** Those that are in a set each, too. */
  within(sets: readonly IdSet[]): Matching {
    return new Matching([...this.#parts, ...sets.map((set) => [set])])
  }

  has(id: string): boolean {
    return this.#parts.every((sets) => sets.some((set) => set.has(id)))
  }

  /** An id may come twice. */
  *[Symbol.iterator](): IterableIterator<string> {
    const [first = [], ...others] = this.#parts
    for (const set of first) {
      for (const id of set)
        if (others.every((sets) => sets.some((other) => other.has(id)))) yield id
    }
  }
}
