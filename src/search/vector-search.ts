import type { Json } from '../../schema/define.ts'
import { AgentDBError } from '../../schema/errors.ts'
import type { Collection } from '../../schema/tables/embeddings.ts'
import { decodeVector } from '../../schema/values/vector.ts'
import type { Connection } from '../sqlite/connection.ts'
import type { Embedder } from '../vector/embedder.ts'
import { ExactIndex } from '../vector/exact-index.ts'
import type { Place } from '../vector/graph/change-source.ts'
import type { GraphIndex } from '../vector/graph-index.ts'
import { payloadCondition, type PayloadFilter } from './payload-filter.ts'
import { validated, type SearchOptions, type SearchResult } from './search-options.ts'

/** The graph of some vectors, where there is one by now. It may be another one each time. */
export type GraphSource = (place: Place) => GraphIndex | undefined

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
  readonly #graphs: GraphSource
  #watermark = 0

  constructor(connection: Connection, embedder: Embedder, graphs: GraphSource = () => undefined) {
    this.#connection = connection
    this.#embedder = embedder
    this.#graphs = graphs
  }

  async search(options: SearchOptions): Promise<SearchResult[]> {
    const { collection, filter, minScore, k = 10 } = validated(options)
    const probe = await this.#probe(options)
    this.#follow()
    const cache =
      this.#caches.get(place(collection, probe.model, probe.vector.length)) ??
      this.#only(collection, probe)
    if (cache === undefined) return []
    // The planner is to choose; asking starts the graph of a place that has become large.
    this.#graphs({ collection, model: cache.model, dimension: cache.index.dimension })
    const among = filter === undefined ? undefined : this.#allowed(collection, filter)
    const found = cache.index.search(probe.vector, k, among)
    return found
      .filter(({ score }) => minScore === undefined || score >= minScore)
      .flatMap(({ id, score }) => this.#result(id, score))
  }

  async #probe(
    options: SearchOptions,
  ): Promise<{ vector: Float32Array; model: string | undefined }> {
    if (options.vector !== undefined) return { vector: options.vector, model: undefined }
    const [vector] = await this.#embedder.embed([options.text ?? ''])
    if (!(vector instanceof Float32Array)) {
      throw new AgentDBError(
        'INVALID_VALUE',
        `the embedder ${this.#embedder.model} gave no Float32Array`,
      )
    }
    return { vector, model: this.#embedder.model }
  }

  /** A query by vector names no model: it is taken where exactly one model has this dimension. */
  #only(
    collection: Collection,
    probe: { vector: Float32Array; model: string | undefined },
  ): Cache | undefined {
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

  #allowed(collection: Collection, filter: PayloadFilter): string[] {
    const { sql, parameters } = payloadCondition(filter)
    return this.#connection
      .all<{ id: string }>(
        `SELECT e.id FROM embeddings e WHERE e.collection = ? AND ${sql}`,
        collection,
        ...parameters,
      )
      .map(({ id }) => id)
  }

  #result(id: string, score: number): SearchResult[] {
    const row = this.#connection.get<{
      collection: Collection
      model: string
      content_preview: string | null
      payload: string
    }>('SELECT collection, model, content_preview, payload FROM embeddings WHERE id = ?', id)
    if (row === undefined) return []
    const { collection, model, content_preview: contentPreview } = row
    return [
      { id, score, collection, model, contentPreview, payload: JSON.parse(row.payload) as Json },
    ]
  }
}

interface Change {
  id: string
  seq: number
  collection: Collection | null
  model: string | null
  dimension: number | null
  vector: Uint8Array | null
}

const place = (collection: string, model: string | undefined, dimension: number): string =>
  `${collection} ${model ?? '?'} ${dimension}`
