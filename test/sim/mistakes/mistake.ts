/** One change of one place in the source, which must be there exactly once. */
export interface Edit {
  readonly file: string
  readonly find: string
  readonly replace: string
}

/** A known mistake, planted into a copy of the source to see whether the simulator finds it. */
export interface Mistake {
  readonly name: string
  readonly edits: readonly Edit[]
  /** What the store's SQL comes from is changed: the migration is written anew. */
  readonly changesStoreSchema?: boolean
  /** Whether two versions must meet for it to show. */
  readonly skew?: boolean
  /** The first seed to try. */
  readonly from?: number
  /** Seeds within which it must be found, with a wide margin. */
  readonly seeds: number
}
