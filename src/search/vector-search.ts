import type { Json } from '../../schema/define.ts'
import { AgentDBError, preview } from '../../schema/errors.ts'
import { collections, type Collection } from '../../schema/tables/embeddings.ts'
import { decodeVector } from '../../schema/values/vector.ts'
import type { Connection } from '../sqlite/connection.ts'
import type { Embedder } from '../vector/embedder.ts'
import { ExactIndex } from '../vector/exact-index.ts'

type Scalar = string | number | boolean | null

/** What a payload field must be: a value, or one of several; a list field matches by any of its elements. */
export type PayloadFilter = Readonly<
  Record<string, Scalar | readonly (string | number | boolean)[]>
>

export interface SearchOptions {
  readonly collection: Collection
  /** Embedded by the store's embedder. Give this or `vector`. */
  readonly text?: string | undefined
  readonly vector?: Float32Array | undefined
  /** Results wanted, 1 to 1000. Default: 10. */
  readonly k?: number | undefined
  readonly filter?: PayloadFilter | undefined
  /** Least score, -1 to 1. Default: none. */
  readonly minScore?: number | undefined
}

export interface SearchResult {
  readonly id: string
  /** Cosine similarity, -1 to 1; higher is nearer. */
  readonly score: number
  readonly collection: Collection
  readonly model: string
  readonly contentPreview: string | null
  readonly payload: Json
}

export const SEARCH_K_MAX = 1000

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

  async search(options: SearchOptions): Promise<SearchResult[]> {
    const { collection, filter, minScore, k = 10 } = validated(options)
    const probe = await this.#probe(options)
    this.#follow()
    const cache =
      this.#caches.get(place(collection, probe.model, probe.vector.length)) ??
      this.#only(collection, probe)
    if (cache === undefined) return []
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
    const parameters: (string | number)[] = [collection]
    const isOneOf = (alias: string, values: readonly Scalar[]): string =>
      values.map((value) => scalarTest(alias, value, parameters)).join(' OR ') || '0'
    const conditions = Object.entries(filter).map(([field, wanted]) => {
      const values: readonly Scalar[] = isList(wanted) ? wanted : [wanted]
      parameters.push(field)
      return `EXISTS (SELECT 1 FROM json_each(e.payload) p WHERE p.key = ? AND (${isOneOf('p', values)}
        OR p.type = 'array' AND EXISTS (SELECT 1 FROM json_each(p.value) f WHERE ${isOneOf('f', values)})))`
    })
    const sql = `SELECT e.id FROM embeddings e WHERE e.collection = ? ${conditions.map((condition) => `AND ${condition}`).join(' ')}`
    return this.#connection.all<{ id: string }>(sql, ...parameters).map(({ id }) => id)
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

const isList = (value: unknown): value is readonly Scalar[] => Array.isArray(value)

const isScalar = (value: unknown): boolean =>
  value === null || ['string', 'boolean'].includes(typeof value) || Number.isFinite(value)

/** Whether a row of `json_each` is this value, of this type: SQLite's `true` is the number 1. */
function scalarTest(alias: string, value: Scalar, parameters: (string | number)[]): string {
  if (value === null || typeof value === 'boolean') return `${alias}.type = '${value}'`
  parameters.push(value)
  const types = typeof value === 'string' ? `'text'` : `'integer', 'real'`
  return `(${alias}.type IN (${types}) AND ${alias}.atom = ?)`
}

const place = (collection: string, model: string | undefined, dimension: number): string =>
  `${collection} ${model ?? '?'} ${dimension}`

function refuse(message: string): never {
  throw new AgentDBError('INVALID_OPTION', `search: ${message}`)
}

function validated(options: SearchOptions): SearchOptions {
  const { collection, text, vector, k, filter, minScore } = options
  if (!collections.includes(collection))
    refuse(`there is no collection ${preview(collection)}; there are ${collections.join(', ')}`)
  if ((text === undefined) === (vector === undefined)) refuse('give text or vector, one of them')
  if (text !== undefined && typeof text !== 'string')
    refuse(`text must be a string, got ${preview(text)}`)
  if (
    vector !== undefined &&
    !(vector instanceof Float32Array && vector.length > 0 && vector.every(Number.isFinite))
  ) {
    refuse('vector must be a Float32Array of finite numbers')
  }
  if (k !== undefined && !(Number.isInteger(k) && k >= 1 && k <= SEARCH_K_MAX))
    refuse(`k must be 1 to ${SEARCH_K_MAX}, got ${preview(k)}`)
  if (minScore !== undefined && !Number.isFinite(minScore))
    refuse(`minScore must be a number, got ${preview(minScore)}`)
  if (filter !== undefined) validateFilter(filter)
  return options
}

function validateFilter(filter: unknown): void {
  if (typeof filter !== 'object' || filter === null || Array.isArray(filter))
    refuse(`filter must be an object of payload fields, got ${preview(filter)}`)
  for (const [field, wanted] of Object.entries(filter)) {
    const values: readonly unknown[] = isList(wanted) ? wanted : [wanted]
    if (!values.every(isScalar))
      refuse(`filter.${field} must be a value or a list of values, got ${preview(wanted)}`)
  }
}
