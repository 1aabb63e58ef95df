export interface Version<V> {
  readonly xid: number
  /** Which commit of the database it was. */
  readonly commit: number
  /** Undefined where the transaction deleted it. */
  readonly value: V | undefined
}

/** A transaction, as far as reading asks: what it has written itself. */
export interface Reader {
  ownWrites(map: object): ReadonlyMap<string, unknown> | undefined
}

/** A table of the model with all its versions, as PostgreSQL's MVCC keeps them. */
export class VersionedMap<V> {
  readonly #versions = new Map<string, Version<V>[]>()

  /** What a statement of a transaction sees: the last commit of others, and its own writes. */
  read(key: string, reader?: Reader): V | undefined {
    const own = reader?.ownWrites(this)
    if (own?.has(key) === true) return own.get(key) as V | undefined
    return this.#versions.get(key)?.at(-1)?.value
  }

  /** Keys and values that a statement sees, in order of their first insert. */
  *entries(reader?: Reader): Iterable<[string, V]> {
    const own = reader?.ownWrites(this)
    for (const [key, versions] of this.#versions) {
      if (own?.has(key) === true) continue
      const value = versions.at(-1)?.value
      if (value !== undefined) yield [key, value]
    }
    for (const [key, value] of own ?? []) if (value !== undefined) yield [key, value as V]
  }

  /** What was committed in a snapshot. */
  at(key: string, isVisible: (xid: number) => boolean): V | undefined {
    return this.#versions.get(key)?.findLast(({ xid }) => isVisible(xid))?.value
  }

  *keys(): Iterable<string> {
    yield* this.#versions.keys()
  }

  versions(key: string): readonly Version<V>[] {
    return this.#versions.get(key) ?? []
  }

  /** Called at commit. */
  install(key: string, value: V | undefined, by: { xid: number; commit: number }): void {
    const versions = this.#versions.get(key)
    if (versions === undefined) this.#versions.set(key, [{ ...by, value }])
    else versions.push({ ...by, value })
  }

  /** Changes what is kept, all versions of it. */
  rewrite(change: (key: string, value: V) => V): void {
    for (const [key, versions] of this.#versions)
      this.#versions.set(
        key,
        versions.map((version) =>
          version.value === undefined ? version : { ...version, value: change(key, version.value) },
        ),
      )
  }

  /** Forgets what was committed later; returns the table as it was. */
  goBack(commit: number): VersionedMap<V> {
    const past = new VersionedMap<V>()
    for (const [key, versions] of this.#versions) {
      past.#versions.set(key, versions)
      const kept = versions.filter((version) => version.commit <= commit)
      if (kept.length === 0) this.#versions.delete(key)
      else this.#versions.set(key, kept)
    }
    return past
  }
}
