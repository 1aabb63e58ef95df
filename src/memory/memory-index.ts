import { createHash } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { polarities, type Polarity } from '../../schema/tables/memory.ts'
import { vectorProblem, viewVector } from '../../schema/values/vector.ts'
import type { Connection } from '../sqlite/connection.ts'
import { forgottenUpTo, goneFrom } from '../sqlite/forgotten-changes.ts'
import { ScanIndex } from '../vector/scan-index.ts'

/** Items of one record that have the same vector: they are found together. */
export interface Candidate {
  readonly recordId: string
  readonly score: number
  readonly itemIds: ReadonlySet<string>
}

interface Entry {
  readonly key: string
  readonly recordId: string
  readonly index: ScanIndex
  readonly itemIds: Set<string>
}

interface Change {
  readonly id: string
  readonly seq: number
  readonly record_id: string | null
  readonly polarity: Polarity | null
  readonly model: string | null
  readonly superseded_by: string | null
  readonly vector: Uint8Array | null
}

/** Changes read at once, vectors included. */
const CHANGES_MAX = 256

/**
 * The vectors of one column of `memory_items`, without those of superseded items: a cache that follows `memory_changes`
 * by a watermark of its own, so that writes of this process, of others and of sync are seen by the next query. The
 * items of a record share their task's vector; it is kept and compared once.
 */
export class MemoryIndex {
  readonly #connection: Connection
  readonly #sql: string
  readonly #indexes = new Map<string, ScanIndex>()
  readonly #entries = new Map<string, Entry>()
  readonly #entryOf = new Map<string, Entry>()
  #watermark = 0
  #forgotten = 0

  constructor(connection: Connection, column: 'query_vector' | 'text_vector') {
    this.#connection = connection
    this.#sql = `SELECT c.id, c.seq, m.record_id, m.polarity, m.model, m.superseded_by, m.${column} AS vector
      FROM memory_changes c LEFT JOIN memory_items m ON m.id = c.id
      WHERE c.seq > ? ORDER BY c.seq LIMIT ${CHANGES_MAX}`
  }

  /** Takes in much that has changed, in slices, so that others get their turn; {@link follow} takes in the rest. */
  async catchUp(): Promise<void> {
    while (this.#takeSlice()) await setImmediate()
  }

  /** Takes in what has changed; inside `reading`, so that all is of one state. */
  follow(): void {
    while (this.#takeSlice());
  }

  /** The `count` nearest of what was followed, best first; fewer only where there are no more. */
  nearest(
    among: { readonly model: string; readonly polarity: Polarity | undefined },
    vector: Float32Array,
    count: number,
  ): Candidate[] {
    return (among.polarity === undefined ? polarities : [among.polarity])
      .flatMap((polarity) => {
        const place = placeOf(among.model, polarity, vector.length)
        const found = this.#indexes.get(place)?.search(vector, count) ?? []
        return found.flatMap(({ id, score }) => {
          const entry = this.#entries.get(id)
          return entry === undefined ? [] : [{ ...entry, score }]
        })
      })
      .toSorted((a, b) => b.score - a.score || (a.key < b.key ? -1 : 1))
      .slice(0, count)
  }

  /** How near an item is; undefined where it has no vector. */
  scoreOf(id: string, vector: Float32Array): number | undefined {
    const entry = this.#entryOf.get(id)
    return entry?.index.search(vector, 1, [entry.key])[0]?.score
  }

  /** Whether there may be more. */
  #takeSlice(): boolean {
    const before = this.#watermark
    const changes = this.#connection.all<Change>(this.#sql, before)
    // What is forgotten goes with a change; where none came, none was.
    if (changes.length === 0) return false
    for (const change of changes) {
      this.#forget(change.id)
      this.#remember(change)
      this.#watermark = change.seq
    }
    this.#dropForgotten(before)
    return changes.length === CHANGES_MAX
  }

  /** Items that are gone without a word, where they were forgotten before they were followed so far. */
  #dropForgotten(followed: number): void {
    const forgotten = forgottenUpTo(this.#connection, 'memory_changes')
    if (forgotten <= this.#forgotten) return
    this.#forgotten = forgotten
    if (forgotten <= followed) return
    for (const id of goneFrom(this.#connection, 'memory_items', this.#entryOf.keys()))
      this.#forget(id)
  }

  #remember({ id, record_id: recordId, polarity, model, superseded_by, vector }: Change): void {
    if (recordId === null || polarity === null || model === null || vector === null) return
    // Raw SQL may write what the repository refuses; such a row is no reason to remember nothing at all.
    if (superseded_by !== null || vectorProblem(vector) !== undefined) return
    const place = placeOf(model, polarity, vector.byteLength / 4)
    const digest = createHash('sha1').update(vector).digest('base64')
    const key = `${recordId} ${digest} ${place}`
    let entry = this.#entries.get(key)
    if (entry === undefined) {
      let index = this.#indexes.get(place)
      if (index === undefined) {
        index = new ScanIndex(vector.byteLength / 4)
        this.#indexes.set(place, index)
      }
      index.set(key, viewVector(vector))
      entry = { key, recordId, index, itemIds: new Set() }
      this.#entries.set(key, entry)
    }
    entry.itemIds.add(id)
    this.#entryOf.set(id, entry)
  }

  #forget(id: string): void {
    const entry = this.#entryOf.get(id)
    if (entry === undefined) return
    this.#entryOf.delete(id)
    entry.itemIds.delete(id)
    if (entry.itemIds.size > 0) return
    entry.index.delete(entry.key)
    this.#entries.delete(entry.key)
  }
}

const placeOf = (model: string, polarity: Polarity, dimension: number): string =>
  `${polarity} ${dimension} ${model}`
