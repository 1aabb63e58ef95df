/** Values with the rows that have them. */
export class IdPostings {
  readonly #idsOf = new Map<string, Set<string>>()
  /** Most rows have one value: no list is kept of it. */
  readonly #keysOf = new Map<string, string | string[]>()
  #size = 0

  /** Entries: a row and a value each. */
  get size(): number {
    return this.#size
  }

  idsOf(key: string): ReadonlySet<string> {
    return this.#idsOf.get(key) ?? NONE
  }

  /** Entries added: 0 where the row has the value already. */
  add(id: string, key: string): number {
    const ids = this.#idsOf.get(key) ?? new Set<string>()
    if (ids.has(id)) return 0
    this.#idsOf.set(key, ids.add(id))
    const keys = this.#keysOf.get(id)
    if (keys === undefined) this.#keysOf.set(id, key)
    else if (typeof keys === 'string') this.#keysOf.set(id, [keys, key])
    else keys.push(key)
    this.#size += 1
    return 1
  }

  /** Entries removed. */
  remove(id: string): number {
    const known = this.#keysOf.get(id) ?? []
    const keys = typeof known === 'string' ? [known] : known
    for (const key of keys) {
      const ids = this.#idsOf.get(key)
      ids?.delete(id)
      if (ids?.size === 0) this.#idsOf.delete(key)
    }
    this.#keysOf.delete(id)
    this.#size -= keys.length
    return keys.length
  }
}

const NONE: ReadonlySet<string> = new Set()
