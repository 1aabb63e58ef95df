import type { Collection } from '../../schema/tables/embeddings.ts'
import { microsOfTimestamp } from '../../schema/values/timestamp.ts'
import type { Connection } from '../sqlite/connection.ts'
import { IdPostings } from './id-postings.ts'
import { idSlices } from './id-slices.ts'
import type { IdSet } from './matching.ts'
import type { RowRange } from './payload-filter.ts'
import { mustSource } from './text-sources.ts'
import { TimeIndex } from './time-index.ts'

/**
 * Times and owners of the rows of a collection: the time lies in the payload, and reading that of every row again for
 * each query would cost far more than the query. Read by one pass when first wanted, then kept up with the changes.
 */
export class RowFacts {
  readonly #connection: Connection
  readonly #collection: Collection
  readonly #times = new TimeIndex()
  readonly #owners = new IdPostings()
  #loaded: Promise<void> | undefined
  #isComplete = false

  constructor(connection: Connection, collection: Collection) {
    this.#connection = connection
    this.#collection = collection
  }

  get isComplete(): boolean {
    return this.#isComplete
  }

  /** Reads what is missing, in slices, so that others get their turn. */
  async load(): Promise<void> {
    this.#loaded ??= this.#fill().catch((error: unknown) => {
      this.#loaded = undefined
      throw error
    })
    await this.#loaded
  }

  /** A row has changed, moved or gone. */
  changed(id: string): void {
    if (this.#loaded === undefined) return
    this.#times.delete(id)
    this.#owners.remove(id)
    this.#read('e.id = ?', id)
  }

  /** The rows in a range of time, and those of an owner, where they are asked for. */
  in({ from, to, userId }: RowRange): IdSet[] {
    const sets: IdSet[] = []
    if (userId !== undefined) sets.push(this.#owners.idsOf(userId))
    if (from !== undefined || to !== undefined)
      sets.push(
        this.#times.between(
          from === undefined ? Number.NEGATIVE_INFINITY : microsOfTimestamp(from),
          to === undefined ? Number.POSITIVE_INFINITY : microsOfTimestamp(to),
        ),
      )
    return sets
  }

  /** Slices are of different moments, which does no harm: a row that changes meanwhile is told of by {@link changed}. */
  async #fill(): Promise<void> {
    for await (const slice of idSlices(this.#connection))
      this.#read('e.id > ? AND e.id <= ?', ...slice)
    this.#isComplete = true
  }

  #read(rows: string, ...ids: string[]): void {
    const { time, owner } = mustSource(this.#collection)
    const found = this.#connection.all<Fact>(
      `SELECT e.id, ${time} AS time, ${owner} AS owner FROM embeddings e WHERE +e.collection = ? AND ${rows}`,
      this.#collection,
      ...ids,
    )
    for (const fact of found) {
      this.#times.set(fact.id, microsOfTimestamp(fact.time))
      this.#owners.remove(fact.id)
      this.#owners.add(fact.id, fact.owner)
    }
  }
}

interface Fact {
  readonly id: string
  readonly time: string
  readonly owner: string
}
