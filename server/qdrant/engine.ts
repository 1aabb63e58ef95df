import { QdrantClient, type Schemas } from '@qdrant/js-client-rest'

/**
 * What went wrong, as far as the caller can act on it:
 * - `away`: no answer, a half one, or "not now": the same call may succeed later
 * - `refused`: this call will never succeed (400, 422)
 * - `missing`: the collection is not there (404)
 * - `denied`: the key is missing, wrong, or may only read (401, 403)
 */
export type QdrantFailureKind = 'away' | 'refused' | 'missing' | 'denied'

/** A call of Qdrant that failed. Its message holds no key and no vector. */
export class QdrantFailure extends Error {
  readonly kind: QdrantFailureKind

  constructor(kind: QdrantFailureKind, message: string, cause?: unknown) {
    super(message, { cause })
    this.name = 'QdrantFailure'
    this.kind = kind
  }
}

export interface QdrantPlace {
  /** `http://host:6333`, `https://host:6333/prefix`. Without a port 6333, as all of Qdrant's clients do. */
  readonly url: string
  readonly apiKey: string | undefined
  /** Milliseconds until a call counts as failed. */
  readonly timeoutMs: number
}

/** Weights by the number of a term. */
export interface SparseVector {
  readonly indices: readonly number[]
  readonly values: readonly number[]
}

/** The unnamed vector is the dense one; a point without vectors is in no search. */
export interface PointVectors {
  readonly ''?: readonly number[]
  readonly text?: SparseVector
}

export interface Point {
  /** A row's id; numbers are our own points. */
  readonly id: string | number
  readonly vector: PointVectors
  readonly payload: Readonly<Record<string, unknown>>
}

export interface StoredPoint {
  readonly id: string | number
  readonly payload: Readonly<Record<string, unknown>>
}

export interface ScoredPoint extends StoredPoint {
  readonly score: number
}

/** A filter in Qdrant's own terms. */
export type Filter = Schemas['Filter']
export type Query = Schemas['QueryRequest']
type NewCollection = Schemas['CreateCollection']
type IndexSchema = Schemas['PayloadFieldSchema']

export interface CollectionFacts {
  readonly dimension: number
  readonly distance: string
  readonly metadata: Readonly<Record<string, unknown>>
  readonly indexes: ReadonlySet<string>
  readonly points: number
}

/** `update_filter`, which fences writes, came with it; an older server ignores the field and writes unfenced. */
const VERSION_MIN = [1, 16] as const

/**
 * The one door to Qdrant. Every write waits until it is applied and checks that it was: without waiting, Qdrant
 * acknowledges and drops what it cannot take.
 */
export class QdrantEngine {
  readonly #client: QdrantClient

  constructor({ url, apiKey, timeoutMs }: QdrantPlace) {
    const { pathname, origin } = new URL(url)
    this.#client = new QdrantClient({
      url: origin,
      // The client drops the path of a URL.
      ...(pathname === '/' ? {} : { prefix: pathname.replace(/\/$/, '') }),
      timeout: timeoutMs,
      checkCompatibility: false,
      // Not `apiKey`: with that the client prints a warning of its own on every start.
      ...(apiKey === undefined ? {} : { headers: { 'api-key': apiKey } }),
    })
  }

  /** @throws QdrantFailure `refused` where the server is older than what fencing needs */
  async mustBeRecent(): Promise<void> {
    const { version } = await calling(() => this.#client.versionInfo())
    const [major = 0, minor = 0] = version.split('.').map(Number)
    const [majorMin, minorMin] = VERSION_MIN
    if (major > majorMin || (major === majorMin && minor >= minorMin)) return
    throw new QdrantFailure('refused', `Qdrant 1.16 or later is needed, this is ${version}`)
  }

  async names(): Promise<string[]> {
    const { collections } = await calling(() => this.#client.getCollections())
    return collections.map(({ name }) => name)
  }

  /** Undefined where there is none. */
  async facts(name: string): Promise<CollectionFacts | undefined> {
    try {
      const info = await calling(() => this.#client.getCollection(name))
      const vectors = info.config.params.vectors as { size?: number; distance?: string } | undefined
      return {
        dimension: vectors?.size ?? 0,
        distance: vectors?.distance ?? '',
        metadata: info.config.metadata ?? {},
        indexes: new Set(Object.keys(info.payload_schema)),
        points: info.points_count ?? 0,
      }
    } catch (error) {
      if (error instanceof QdrantFailure && error.kind === 'missing') return undefined
      throw error
    }
  }

  /** By the client's lower layer: the upper one drops `metadata`. */
  async create(name: string, collection: NewCollection): Promise<void> {
    const api = this.#client.api()
    await calling(() => api.createCollection({ collection_name: name, ...collection }))
  }

  async createIndex(name: string, field: string, schema: IndexSchema): Promise<void> {
    const index = { wait: true, field_name: field, field_schema: schema }
    await completed(() => this.#client.createPayloadIndex(name, index))
  }

  /** Nothing happens where there is none. */
  async drop(name: string): Promise<void> {
    await calling(() => this.#client.deleteCollection(name))
  }

  async aliases(): Promise<Map<string, string>> {
    const { aliases } = await calling(() => this.#client.getAliases())
    return new Map(aliases.map(({ alias_name, collection_name }) => [alias_name, collection_name]))
  }

  /** All at once: nobody sees one of them moved and not the other. */
  async pointAliases(aliases: ReadonlyMap<string, string>): Promise<void> {
    const known = await this.aliases()
    const moved = [...aliases].filter(([alias, name]) => known.get(alias) !== name)
    if (moved.length === 0) return
    const actions = moved.flatMap(([alias_name, collection_name]) => [
      ...(known.has(alias_name) ? [{ delete_alias: { alias_name } }] : []),
      { create_alias: { alias_name, collection_name } },
    ])
    await calling(() => this.#client.updateCollectionAliases({ actions }))
  }

  /** Points that exist are replaced only where they match `fence`; new ones are always written. */
  async upsert(name: string, points: readonly Point[], fence: Filter): Promise<void> {
    const api = this.#client.api()
    await completed(async () => {
      const { data } = await api.upsertPoints({
        collection_name: name,
        wait: true,
        points: points as Schemas['PointStruct'][],
        update_filter: fence,
      })
      return data.result
    })
  }

  async remove(name: string, filter: Filter): Promise<void> {
    await completed(() => this.#client.delete(name, { wait: true, filter }))
  }

  async retrieve(
    name: string,
    ids: readonly (string | number)[],
    fields: readonly string[],
  ): Promise<StoredPoint[]> {
    const with_payload = [...fields]
    const found = await calling(() =>
      this.#client.retrieve(name, { ids: [...ids], with_payload, with_vector: false }),
    )
    return found.map(stored)
  }

  /** A page of points in order of id; `next` is where the one after begins, null after the last. */
  async scroll(
    name: string,
    page: { readonly from: string | number | null; readonly limit: number },
    fields: readonly string[],
  ): Promise<{ points: StoredPoint[]; next: string | number | null }> {
    const { points, next_page_offset } = await calling(() =>
      this.#client.scroll(name, {
        offset: page.from,
        limit: page.limit,
        with_payload: [...fields],
        with_vector: false,
      }),
    )
    return { points: points.map(stored), next: (next_page_offset ?? null) as string | null }
  }

  async count(name: string, filter: Filter): Promise<number> {
    const { count } = await calling(() => this.#client.count(name, { filter, exact: true }))
    return count
  }

  async query(name: string, query: Query): Promise<ScoredPoint[]> {
    const { points } = await calling(() => this.#client.query(name, query))
    return points.map((point) => ({ ...stored(point), score: point.score }))
  }
}

const stored = (point: { id: string | number; payload?: unknown }): StoredPoint => ({
  id: point.id,
  payload: (point.payload ?? {}) as Record<string, unknown>,
})

async function completed(
  call: () => Promise<{ status?: unknown } | null | undefined>,
): Promise<void> {
  const result = await calling(call)
  if (result?.status === 'completed') return
  // `acknowledged` and, from 1.19 on, `wait_timeout`: queued, and nobody knows what becomes of it.
  throw new QdrantFailure('away', `Qdrant did not complete it: ${String(result?.status)}`)
}

async function calling<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (error) {
    throw failureOf(error)
  }
}

const kinds: Readonly<Record<number, QdrantFailureKind>> = {
  400: 'refused',
  401: 'denied',
  403: 'denied',
  404: 'missing',
  409: 'refused',
  413: 'refused',
  422: 'refused',
}

function failureOf(error: unknown): QdrantFailure {
  const { status, data, cause } = error as { status?: unknown; data?: unknown; cause?: unknown }
  if (typeof status === 'number') {
    const said = (data as { status?: { error?: unknown } } | undefined)?.status?.error ?? data
    const text = typeof said === 'string' ? said : JSON.stringify(said ?? null)
    return new QdrantFailure(kinds[status] ?? 'away', `${status} ${text.slice(0, 300)}`, error)
  }
  const message = error instanceof Error ? error.message : String(error)
  const why = cause instanceof Error && cause.message !== '' ? `: ${cause.message}` : ''
  return new QdrantFailure('away', `${message}${why}`, error)
}
