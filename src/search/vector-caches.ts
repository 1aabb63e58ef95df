import { setImmediate } from 'node:timers/promises'
import type { Collection } from '../../schema/tables/embeddings.ts'
import { decodeVector, viewVector } from '../../schema/values/vector.ts'
import type { Connection } from '../sqlite/connection.ts'
import { forgottenUpTo, goneFrom } from '../sqlite/forgotten-changes.ts'
import { ScanIndex } from '../vector/scan-index.ts'
import type { VectorSpace } from '../vector/vector-space.ts'
import { PayloadPostings } from './payload-postings.ts'
import { RowFacts } from './row-facts.ts'

export interface VectorCache {
  readonly space: VectorSpace
  readonly scan: ScanIndex
}

/**
 * What is kept in memory of the rows of `embeddings`: an index for each collection, model and dimension, the payload
 * fields that were filtered on, and times and owners where those were. All follow `embedding_changes` by one watermark, so that writes of this process, of
 * others and of sync are all seen by the next query.
 */
export class VectorCaches {
  readonly #connection: Connection
  readonly #caches = new Map<string, VectorCache>()
  readonly #postings = new Map<Collection, PayloadPostings>()
  readonly #facts = new Map<Collection, RowFacts>()
  #watermark = 0
  /** The last change of which it is known that it is forgotten. */
  #forgotten = 0

  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** The last change that was taken in. */
  get watermark(): number {
    return this.#watermark
  }

  get(collection: Collection, model: string, dimension: number): VectorCache | undefined {
    return this.#caches.get(keyOf(collection, model, dimension))
  }

  /** Those of any model that has vectors of this dimension. */
  ofDimension(collection: Collection, dimension: number): VectorCache[] {
    return [...this.#caches.values()].filter(
      ({ space, scan }) =>
        space.collection === collection && space.dimension === dimension && scan.size > 0,
    )
  }

  postings(collection: Collection): PayloadPostings {
    const known = this.#postings.get(collection)
    if (known !== undefined) return known
    const most = (): number => Math.max(POSTINGS_MAX, FIELDS_KEPT * this.#sizeOf(collection))
    const made = new PayloadPostings(this.#connection, collection, most)
    this.#postings.set(collection, made)
    return made
  }

  facts(collection: Collection): RowFacts {
    const known = this.#facts.get(collection)
    if (known !== undefined) return known
    const made = new RowFacts(this.#connection, collection)
    this.#facts.set(collection, made)
    return made
  }

  /** Takes in much that has changed, in slices, so that others get their turn; {@link follow} takes in the rest. */
  async catchUp(): Promise<void> {
    while (this.#takeSlice()) await setImmediate()
  }

  /** Takes in what has changed; inside `reading`, so that all is of one state. */
  follow(): void {
    while (this.#takeSlice());
  }

  /** Ids that changed after a position, gone ones too. */
  changedSince(watermark: number): string[] {
    return this.#connection
      .all<{ id: string }>('SELECT id FROM embedding_changes WHERE seq > ?', watermark)
      .map(({ id }) => id)
  }

  /** Vectors of a collection, of any model. */
  #sizeOf(collection: Collection): number {
    let size = 0
    for (const { space, scan } of this.#caches.values())
      if (space.collection === collection) size += scan.size
    return size
  }

  /** Whether there may be more. */
  #takeSlice(): boolean {
    const before = this.#watermark
    const changes = this.#connection.all<Change>(
      `SELECT c.id, c.seq, e.collection, e.model, e.dimension, e.vector
      FROM embedding_changes c LEFT JOIN embeddings e ON e.id = c.id
      WHERE c.seq > ? ORDER BY c.seq LIMIT ${CHANGES_MAX}`,
      before,
    )
    // What is forgotten goes with a change; where none came, none was.
    if (changes.length === 0) return false
    for (const change of changes) {
      this.#take(change)
      this.#watermark = change.seq
    }
    const forgotten = forgottenUpTo(this.#connection, 'embedding_changes')
    if (forgotten > this.#forgotten) {
      this.#forgotten = forgotten
      if (forgotten > before) this.#dropGone()
    }
    return changes.length === CHANGES_MAX
  }

  /** What is gone without a word: it was forgotten before it was followed so far. */
  #dropGone(): void {
    for (const { scan } of this.#caches.values())
      for (const id of goneFrom(this.#connection, 'embeddings', scan.ids())) scan.delete(id)
    this.#postings.clear()
    this.#facts.clear()
  }

  #take({ id, collection, model, dimension, vector }: Change): void {
    const isThere = collection !== null && model !== null && dimension !== null && vector !== null
    const space = isThere ? keyOf(collection, model, dimension) : undefined
    for (const [key, { scan }] of this.#caches) if (key !== space) scan.delete(id)
    for (const postings of this.#postings.values()) postings.changed(id)
    for (const facts of this.#facts.values()) facts.changed(id)
    if (!isThere) return
    const { scan } = this.#cache(collection, model, dimension)
    // Raw SQL may write what the repository refuses; such a row is no reason to find nothing at all.
    if (!scan.trySet(id, viewVector(vector))) scan.delete(id)
  }

  #cache(collection: Collection, model: string, dimension: number): VectorCache {
    const key = keyOf(collection, model, dimension)
    const known = this.#caches.get(key)
    if (known !== undefined) return known
    const scan = new ScanIndex(dimension, { fetch: (id) => this.#original(id) })
    const made = { space: { collection, model, dimension }, scan }
    this.#caches.set(key, made)
    return made
  }

  #original(id: string): Float32Array | undefined {
    const row = this.#connection.get<{ vector: Uint8Array }>(
      'SELECT vector FROM embeddings WHERE id = ?',
      id,
    )
    return row === undefined ? undefined : decodeVector(row.vector)
  }
}

/**
 * Entries of payload fields that are kept for a collection, some 160 bytes each: at least so many, and where there are more
 * rows, so many fields of one value a row.
 */
const POSTINGS_MAX = 1_000_000
const FIELDS_KEPT = 4

/** Changes read at once, vectors included. */
const CHANGES_MAX = 256

interface Change {
  id: string
  seq: number
  collection: Collection | null
  model: string | null
  dimension: number | null
  vector: Uint8Array | null
}

const keyOf = (collection: string, model: string, dimension: number): string =>
  `${collection} ${model} ${dimension}`
