import type { QdrantClient, Schemas } from '@qdrant/js-client-rest'

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
  readonly #place: QdrantPlace
  #client: Promise<QdrantClient> | undefined

  constructor(place: QdrantPlace) {
    this.#place = place
  }

  /** @throws QdrantFailure `refused` where the server is older than what fencing needs */
  async mustBeRecent(): Promise<void> {
    const { version } = await this.#calling((client) => client.versionInfo())
    const [major = 0, minor = 0] = version.split('.').map(Number)
    const [majorMin, minorMin] = VERSION_MIN
    if (major > majorMin || (major === majorMin && minor >= minorMin)) return
    throw new QdrantFailure('refused', `Qdrant 1.16 or later is needed, this is ${version}`)
  }

  async names(): Promise<string[]> {
    const { collections } = await this.#calling((client) => client.getCollections())
    return collections.map(({ name }) => name)
  }

  /** Undefined where there is none. */
  async facts(name: string): Promise<CollectionFacts | undefined> {
    try {
      const info = await this.#calling((client) => client.getCollection(name))
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
    const wanted = { collection_name: name, ...collection }
    await this.#calling((client) => client.api().createCollection(wanted))
  }

  async createIndex(name: string, field: string, schema: IndexSchema): Promise<void> {
    const index = { wait: true, field_name: field, field_schema: schema }
    await this.#completed((client) => client.createPayloadIndex(name, index))
  }

  /** Nothing happens where there is none. */
  async drop(name: string): Promise<void> {
    await this.#calling((client) => client.deleteCollection(name))
  }

  async aliases(): Promise<Map<string, string>> {
    const { aliases } = await this.#calling((client) => client.getAliases())
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
    await this.#calling((client) => client.updateCollectionAliases({ actions }))
  }

  /** Points that exist are replaced only where they match `fence`; new ones are always written. */
  async upsert(name: string, points: readonly Point[], fence: Filter): Promise<void> {
    await this.#completed(async (client) => {
      const { data } = await client.api().upsertPoints({
        collection_name: name,
        wait: true,
        points: points as Schemas['PointStruct'][],
        update_filter: fence,
      })
      return data.result
    })
  }

  async remove(name: string, filter: Filter): Promise<void> {
    await this.#completed((client) => client.delete(name, { wait: true, filter }))
  }

  async retrieve(
    name: string,
    ids: readonly (string | number)[],
    fields: readonly string[],
  ): Promise<StoredPoint[]> {
    const with_payload = [...fields]
    const found = await this.#calling((client) =>
      client.retrieve(name, { ids: [...ids], with_payload, with_vector: false }),
    )
    return found.map(stored)
  }

  /** A page of points in order of id; `next` is where the one after begins, null after the last. */
  async scroll(
    name: string,
    page: { readonly from: string | number | null; readonly limit: number },
    fields: readonly string[],
  ): Promise<{ points: StoredPoint[]; next: string | number | null }> {
    const { points, next_page_offset } = await this.#calling((client) =>
      client.scroll(name, {
        offset: page.from,
        limit: page.limit,
        with_payload: [...fields],
        with_vector: false,
      }),
    )
    return { points: points.map(stored), next: (next_page_offset ?? null) as string | null }
  }

  async count(name: string, filter: Filter): Promise<number> {
    const { count } = await this.#calling((client) => client.count(name, { filter, exact: true }))
    return count
  }

  async query(name: string, query: Query): Promise<ScoredPoint[]> {
    const { points } = await this.#calling((client) => client.query(name, query))
    return points.map((point) => ({ ...stored(point), score: point.score }))
  }

  async #completed(
    call: (client: QdrantClient) => Promise<{ status?: unknown } | null | undefined>,
  ): Promise<void> {
    const result = await this.#calling(call)
    if (result?.status === 'completed') return
    // `acknowledged` and, from 1.19 on, `wait_timeout`: queued, and nobody knows what becomes of it.
    throw new QdrantFailure('away', `Qdrant did not complete it: ${String(result?.status)}`)
  }

  async #calling<T>(call: (client: QdrantClient) => Promise<T>): Promise<T> {
    const client = await (this.#client ??= clientOf(this.#place))
    try {
      return await call(client)
    } catch (error) {
      throw failureOf(error)
    }
  }
}

/** Loaded by whoever needs it: a centre without Qdrant and most commands do without. */
async function clientOf({ url, apiKey, timeoutMs }: QdrantPlace): Promise<QdrantClient> {
  const { QdrantClient } = await import('@qdrant/js-client-rest')
  const { pathname, origin } = new URL(url)
  return new QdrantClient({
    url: origin,
    // The client drops the path of a URL.
    ...(pathname === '/' ? {} : { prefix: pathname.replace(/\/$/, '') }),
    timeout: timeoutMs,
    checkCompatibility: false,
    headers: {
      // Compressed, an answer comes in two parts, and often the second waits 40 ms for word that the first has come.
      'accept-encoding': 'identity',
      // Not `apiKey`: with that the client prints a warning of its own on every start.
      ...(apiKey === undefined ? {} : { 'api-key': apiKey }),
    },
  })
}

const stored = (point: { id: string | number; payload?: unknown }): StoredPoint => ({
  id: point.id,
  payload: (point.payload ?? {}) as Record<string, unknown>,
})

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
