import { decodeVector } from '../../schema/values/vector.ts'
import type { Connection } from '../sqlite/connection.ts'
import { forgottenUpTo } from '../sqlite/forgotten-changes.ts'
import {
  ELSEWHERE,
  IN_PLACE,
  NEWER,
  type ChangeSlice,
  type ChangeSource,
  type StampSlice,
} from '../vector/graph/change-source.ts'
import type { VectorSpace } from '../vector/vector-space.ts'

/** A slice ends when either is used up: the agent's thread is held no longer than that. */
const SLICE_MS = 2
const SLICE_BYTES = 256 * 1024

interface ChangeRow {
  readonly id: string
  readonly seq: number
  readonly stamp: number
  readonly isHere: number | null
  readonly vector: Uint8Array | null
}

const isHere = 'e.collection = ? AND e.model = ? AND e.dimension = ?'

const CHANGES = `SELECT c.id, c.seq, c.stamp, ${isHere} AS isHere, CASE WHEN ${isHere} THEN e.vector END AS vector
  FROM embedding_changes c LEFT JOIN embeddings e ON e.id = c.id WHERE c.seq > ? ORDER BY c.seq`

const STAMPS = `SELECT c.id, c.seq, c.stamp, ${isHere} AS isHere
  FROM embedding_changes c LEFT JOIN embeddings e ON e.id = c.id WHERE c.seq > ? ORDER BY c.seq`

const isLittleEndian = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1

/** `embedding_changes` of a store, in slices. */
export class StoreChanges implements ChangeSource {
  readonly #connection: Connection

  constructor(connection: Connection) {
    this.#connection = connection
  }

  get isOpen(): boolean {
    return this.#connection.isOpen
  }

  head(): number {
    return (
      this.#connection.get<{ head: number | null }>(
        'SELECT max(seq) AS head FROM embedding_changes',
      )?.head ?? 0
    )
  }

  forgotten(): number {
    return forgottenUpTo(this.#connection, 'embedding_changes')
  }

  /** By the index of collection and model alone: a model has one dimension, and rows are not touched. */
  count({ collection, model }: VectorSpace, limit: number): number {
    return (
      this.#connection.get<{ count: number }>(
        'SELECT count(*) AS count FROM (SELECT 1 FROM embeddings WHERE collection = ? AND model = ? LIMIT ?)',
        collection,
        model,
        limit,
      )?.count ?? 0
    )
  }

  changes(place: VectorSpace, after: number, deletesAfter: number): ChangeSlice {
    const where = [place.collection, place.model, place.dimension]
    const found: { id: string; stamp: number; vector: Uint8Array }[] = []
    const deletes: string[] = []
    const vectorBytes = place.dimension * 4
    const end = performance.now() + SLICE_MS
    let last = after
    const rows = this.#connection.prepare(CHANGES).iterate(...where, ...where, after)
    for (const row of rows as IterableIterator<ChangeRow>) {
      last = row.seq
      if (row.isHere === 1 && row.vector?.byteLength === vectorBytes)
        found.push({ id: row.id, stamp: row.stamp, vector: row.vector })
      else if (row.seq > deletesAfter) deletes.push(row.id)
      if (found.length * vectorBytes >= SLICE_BYTES || performance.now() > end) break
    }
    const vectors = new Float32Array(found.length * place.dimension)
    const bytes = new Uint8Array(vectors.buffer)
    for (const [i, { vector }] of found.entries()) {
      if (isLittleEndian) bytes.set(vector, i * vectorBytes)
      else vectors.set(decodeVector(vector), i * place.dimension)
    }
    const stamps = Float64Array.from(found, ({ stamp }) => stamp)
    return { ids: found.map(({ id }) => id), stamps, vectors, deletes, last }
  }

  stamps(place: VectorSpace, after: number, watermark: number): StampSlice {
    const { collection, model, dimension } = place
    const end = performance.now() + SLICE_MS
    const found: ChangeRow[] = []
    const all = this.#connection.prepare(STAMPS).iterate(collection, model, dimension, after)
    for (const row of all as IterableIterator<ChangeRow>) {
      found.push(row)
      if (performance.now() > end) break
    }
    return stampSlice(found, after, watermark)
  }
}

const stampSlice = (rows: readonly ChangeRow[], after: number, watermark: number): StampSlice => ({
  ids: rows.map(({ id }) => id),
  stamps: Float64Array.from(rows, ({ stamp }) => stamp),
  kinds: Uint8Array.from(rows, (row) => kindOf(row, watermark)),
  last: rows.at(-1)?.seq ?? after,
})

function kindOf({ seq, isHere: here }: ChangeRow, watermark: number): number {
  if (seq > watermark) return NEWER
  return here === 1 ? IN_PLACE : ELSEWHERE
}
