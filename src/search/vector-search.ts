import { AgentDBError } from '../../schema/errors.ts'
import { decodeVector } from '../../schema/values/vector.ts'
import type { Connection } from '../sqlite/connection.ts'
import type { Embedder } from '../vector/embedder.ts'
import { ExactIndex, type Neighbour } from '../vector/exact-index.ts'
import type { Condition } from './payload-filter.ts'

/** A query as a vector, with the model that made it, if known. */
export interface Probe {
  readonly vector: Float32Array
  readonly model: string | undefined
}

interface Cache {
  readonly index: ExactIndex
  readonly model: string
}

/**
 * Vector search over the rows of `embeddings`. Each (collection, model, dimension) has an in-memory matrix, a cache
 * that follows `embedding_changes` by a watermark of its own, so that writes of this process, of others and of sync are
 * all seen by the next query.
 */
export class VectorSearch {
  readonly #connection: Connection
  readonly #embedder: Embedder
  readonly #caches = new Map<string, Cache>()
  readonly #placeOf = new Map<string, string>()
  #watermark = 0

  constructor(connection: Connection, embedder: Embedder) {
    this.#connection = connection
    this.#embedder = embedder
  }

  /** What to look for: the vector, or the text embedded. */
  async probe({
    text,
    vector,
  }: {
    text?: string | undefined
    vector?: Float32Array | undefined
  }): Promise<Probe> {
    if (vector !== undefined) return { vector, model: undefined }
    const [made] = await this.#embedder.embed([text ?? ''])
    if (!(made instanceof Float32Array)) {
      throw new AgentDBError(
        'INVALID_VALUE',
        `the embedder ${this.#embedder.model} gave no Float32Array`,
      )
    }
    return { vector: made, model: this.#embedder.model }
  }

  /** The `k` nearest of a collection among the rows that fit the condition, best first. */
  nearest(collection: string, probe: Probe, k: number, condition: Condition): Neighbour[] {
    this.#follow()
    const cache =
      this.#caches.get(place(collection, probe.model, probe.vector.length)) ??
      this.#only(collection, probe)
    if (cache === undefined) return []
    const among = condition.sql === '1' ? undefined : this.#allowed(collection, condition)
    return cache.index.search(probe.vector, k, among)
  }

  /** A query by vector names no model: it is taken where exactly one model has this dimension. */
  #only(collection: string, probe: Probe): Cache | undefined {
    if (probe.model !== undefined) return undefined
    const dimension = probe.vector.length
    const fitting = [...this.#caches]
      .filter(
        ([key, { index }]) =>
          key.startsWith(`${collection} `) && index.dimension === dimension && index.size > 0,
      )
      .map(([, cache]) => cache)
    if (fitting.length > 1) {
      const models = fitting.map(({ model }) => model).join(', ')
      throw new AgentDBError(
        'INVALID_OPTION',
        `${collection} has vectors of ${dimension} dimensions from several models (${models}); search by text`,
      )
    }
    return fitting[0]
  }

  #follow(): void {
    const changes = this.#connection.all<Change>(
      'SELECT c.id, c.seq, e.collection, e.model, e.dimension, e.vector FROM embedding_changes c LEFT JOIN embeddings e ON e.id = c.id WHERE c.seq > ? ORDER BY c.seq',
      this.#watermark,
    )
    for (const change of changes) {
      this.#forget(change.id)
      if (change.vector !== null) this.#remember(change)
      this.#watermark = change.seq
    }
  }

  #remember({ id, collection, model, dimension, vector }: Change): void {
    if (collection === null || model === null || dimension === null || vector === null) return
    const key = place(collection, model, dimension)
    let cache = this.#caches.get(key)
    if (cache === undefined) {
      cache = { index: new ExactIndex(dimension), model }
      this.#caches.set(key, cache)
    }
    cache.index.set(id, decodeVector(vector))
    this.#placeOf.set(id, key)
  }

  #forget(id: string): void {
    const key = this.#placeOf.get(id)
    if (key === undefined) return
    this.#caches.get(key)?.index.delete(id)
    this.#placeOf.delete(id)
  }

  #allowed(collection: string, { sql, parameters }: Condition): string[] {
    return this.#connection
      .all<{ id: string }>(
        `SELECT e.id FROM embeddings e WHERE e.collection = ? AND ${sql}`,
        collection,
        ...parameters,
      )
      .map(({ id }) => id)
  }
}

interface Change {
  id: string
  seq: number
  collection: string | null
  model: string | null
  dimension: number | null
  vector: Uint8Array | null
}

const place = (collection: string, model: string | undefined, dimension: number): string =>
  `${collection} ${model ?? '?'} ${dimension}`
