import type { Json } from '../../schema/define.ts'
import { AgentDBError } from '../../schema/errors.ts'
import { userKey } from '../../schema/role-access.ts'
import type { Collection } from '../../schema/tables/embeddings.ts'
import type { Claims } from '../auth/tokens.ts'
import { Admission } from '../http/admission.ts'
import type { Database } from '../postgres/database.ts'
import { QdrantFailure } from '../qdrant/engine.ts'
import type { Filter, Query, ScoredPoint } from '../qdrant/engine.ts'
import { field, namesOf, sameSpace, type VectorSpace } from '../qdrant/layout.ts'
import { latestBatch } from '../sync/positions.ts'
import { loadPrincipal, type Principal } from '../sync/principal.ts'
import { floorOf } from '../sync/retention.ts'
import { changedSince } from './changes.ts'
import { ExactSearch, fusedDepth, type ResolvedSearch } from './exact-search.ts'
import { byScore, RRF_K, type Ranked } from './fusion.ts'
import { asPrincipal, hasRows, modelsOf, visibleRows } from './principal-rows.ts'
import { meets, type RowFilter } from './rows.ts'
import type { Search } from './search-request.ts'
import { toldOf, type VectorService } from './service.ts'
import type { VectorSettings } from './settings.ts'
import { sparseOfQuery } from './sparse.ts'
import { defaultOf, readGenerations, readWatermark } from './state.ts'

export interface FoundRow {
  readonly id: string
  /** Cosine, -1 to 1; of a fused search the sum of 1 / (60 + rank); of words alone their weight. Higher is better. */
  readonly score: number
  readonly collection: Collection
  readonly model: string
  readonly contentPreview: string | null
  readonly payload: Json
}

export interface SearchAnswer {
  readonly results: readonly FoundRow[]
  /** What searched: Qdrant, or the rows themselves. */
  readonly engine: 'qdrant' | 'exact'
}

/** Rows of a user that Qdrant may lack before all of them are read instead. */
const PENDING_MAX = 2000
/** Searches at the same time; what reads rows holds a database connection meanwhile. */
const SEARCHES = { running: 4, waiting: 200 } as const
/** How often a search asks deeper because what it found was not the caller's, or is gone. */
const ROUNDS_MAX = 3
/** Results asked for beyond those wanted, since some may be gone. */
const SPARE = 10

/**
 * Search at the centre: what the caller may see, nearest first. Qdrant proposes, PostgreSQL decides: every result is read
 * under row-level security as the caller before it leaves. What changed after Qdrant's watermark is scored here.
 */
export class SearchService {
  readonly #database: Database
  readonly #vectors: VectorService | undefined
  readonly #settings: VectorSettings
  readonly #onError: (error: unknown) => void
  readonly #exact = new ExactSearch()
  readonly #admission = new Admission('searches', SEARCHES)

  constructor(
    database: Database,
    vectors: VectorService | undefined,
    settings: VectorSettings,
    onError: (error: unknown) => void,
  ) {
    this.#database = database
    this.#vectors = vectors
    this.#settings = settings
    this.#onError = onError
  }

  /** @throws AgentDBError `UNAUTHORIZED`, `FORBIDDEN`, `INVALID_OPTION`, `OVERLOADED` */
  search(claims: Claims, search: Search): Promise<SearchAnswer> {
    return this.#admission.run(async () => {
      const principal = await loadPrincipal(this.#database, claims)
      const resolved = await this.#resolve(principal, search)
      if (resolved === undefined) return { results: [], engine: 'exact' }
      return (
        (await this.#byQdrant(principal, resolved)) ?? (await this.#byRows(principal, resolved))
      )
    })
  }

  /** The model that a search means; undefined where the caller has no vector that it could find. */
  async #resolve(principal: Principal, search: Search): Promise<ResolvedSearch | undefined> {
    const dimension = search.vector?.length
    if (search.model !== undefined && dimension !== undefined)
      return { ...search, model: search.model, dimension }
    const usual = await this.#usual(search)
    if (usual !== undefined) {
      const isHad = await asPrincipal(this.#database, principal, (session) =>
        hasRows(session, usual),
      )
      if (isHad) return { ...search, model: usual.model, dimension: usual.dimension }
    }
    const had = await asPrincipal(this.#database, principal, (session) =>
      modelsOf(session, search.collection, dimension),
    )
    const fitting = had.filter(({ model }) => search.model === undefined || model === search.model)
    if (fitting.length > 1) {
      const models = fitting.map((one) => `${one.model} (${one.dimension})`).join(', ')
      throw new AgentDBError(
        'INVALID_OPTION',
        `search: model: you have vectors of several in ${search.collection}: ${models}; name one, with a vector`,
      )
    }
    return fitting[0] === undefined ? undefined : { ...search, ...fitting[0] }
  }

  /** The collection's usual model, where a search names none and its vector fits. */
  async #usual({ collection, model, vector }: Search): Promise<VectorSpace | undefined> {
    if (model !== undefined) return undefined
    const usual =
      defaultOf(await readGenerations(this.#database), collection) ??
      this.#settings.defaults.get(collection)
    const fits = vector === undefined || usual?.dimension === vector.length
    return fits ? usual : undefined
  }

  async #byRows(principal: Principal, search: ResolvedSearch): Promise<SearchAnswer> {
    return await asPrincipal(this.#database, principal, async (session) => {
      const ranked = await this.#exact.search(session, principal.userId, search)
      const rows = await visibleRows(
        session,
        ranked.slice(0, search.k).map(({ id }) => id),
      )
      return { engine: 'exact', results: found(ranked, rows, search) }
    })
  }

  /** Undefined where Qdrant cannot tell, and the rows must. */
  async #byQdrant(principal: Principal, search: ResolvedSearch): Promise<SearchAnswer | undefined> {
    const vectors = this.#vectors
    // Far behind, the log since the watermark would be long to read.
    if (vectors === undefined || vectors.breaker.state === 'open') return undefined
    const pending = await this.#pending(principal, search)
    if (pending === undefined) return undefined
    // How rare a word is, Qdrant alone knows: what it lacks could not be ranked among what it has.
    if (search.text !== undefined && pending.length > 0) return undefined
    const isEmpty = search.vector === undefined && sparseOfQuery(search.text ?? '') === undefined
    if (isEmpty) return { results: [], engine: 'qdrant' }
    return await this.#ask(vectors, principal, search, pending)
  }

  /** The caller's rows that Qdrant may not have as they are; undefined where it holds nothing that can be relied on. */
  async #pending(principal: Principal, search: ResolvedSearch): Promise<string[] | undefined> {
    const generations = await readGenerations(this.#database)
    const isLive = generations.some((one) => one.state === 'live' && sameSpace(one, search))
    const { nonce, position, snapshot } = await readWatermark(this.#database)
    if (!isLive || snapshot === null) return undefined
    if ((await latestBatch(this.#database))?.nonce !== nonce) return undefined
    const key = userKey(principal.userId)
    const changed = await changedSince(this.#database, snapshot, key, PENDING_MAX)
    // The floor is looked at after reading: the log may have been cut in between.
    return (await floorOf(this.#database)) > position ? undefined : changed
  }

  async #ask(
    vectors: VectorService,
    principal: Principal,
    search: ResolvedSearch,
    pending: readonly string[],
  ): Promise<SearchAnswer | undefined> {
    const { alias } = namesOf(this.#settings.prefix, search)
    const changed = new Set(pending)
    let limit = search.k + pending.length + SPARE
    for (let round = 0; round < ROUNDS_MAX; round++) {
      const query = queryOf(search, principal.userId, limit)
      const points = await this.#proposed(vectors, alias, query)
      if (points === undefined) return undefined
      const answer = await this.#judge(principal, search, points, changed)
      if (answer.results.length >= search.k || points.length < limit) return answer
      limit *= 4
    }
    return undefined
  }

  /** Undefined where Qdrant does not say: the rows still can. The first failure in a row is told, and each refusal. */
  async #proposed(
    vectors: VectorService,
    alias: string,
    query: Query,
  ): Promise<ScoredPoint[] | undefined> {
    const { breaker, engine } = vectors
    if (!breaker.allows()) return undefined
    try {
      const points = await engine.query(alias, query)
      breaker.succeeded()
      return points
    } catch (error) {
      const isFirst = breaker.failures === 0
      // Who refuses one search is there for the others.
      const isRefused = error instanceof QdrantFailure && error.kind === 'refused'
      if (isRefused) breaker.succeeded()
      else {
        breaker.failed()
        vectors.distrust()
      }
      if (isRefused || isFirst) this.#onError(toldOf(error))
      return undefined
    }
  }

  /** Of what Qdrant proposes, what is so; and what it does not have yet. */
  async #judge(
    principal: Principal,
    search: ResolvedSearch,
    points: readonly ScoredPoint[],
    changed: ReadonlySet<string>,
  ): Promise<SearchAnswer> {
    const proposed = points
      .map(({ id, score }) => ({ id: String(id), score }))
      .filter(({ id }) => !changed.has(id))
    return await asPrincipal(this.#database, principal, async (session) => {
      const fresh =
        changed.size === 0
          ? []
          : await this.#exact.search(session, principal.userId, search, [...changed])
      const ranked = [...proposed, ...fresh].toSorted(byScore)
      const rows = await visibleRows(
        session,
        ranked.map(({ id }) => id),
      )
      return { engine: 'qdrant', results: found(ranked, rows, search) }
    })
  }
}

function found(
  ranked: readonly Ranked[],
  rows: Awaited<ReturnType<typeof visibleRows>>,
  search: ResolvedSearch,
): FoundRow[] {
  return ranked
    .flatMap(({ id, score }) => {
      const row = rows.get(id)
      if (row === undefined || !sameSpace(row, search) || !meets(row.payload, search.filter))
        return []
      const { collection, model, contentPreview } = row
      return [{ id, score, collection, model, contentPreview, payload: row.payload as Json }]
    })
    .slice(0, search.k)
}

function queryOf(search: ResolvedSearch, owner: string, limit: number): Query {
  const filter = filterOf(search.filter, owner)
  const { vector, minScore, isExact } = search
  const params = { exact: isExact }
  const words = search.text === undefined ? undefined : sparseOfQuery(search.text)
  const halves = [
    ...(vector === undefined
      ? []
      : [
          {
            query: [...vector],
            filter,
            params,
            ...(minScore === undefined ? {} : { score_threshold: minScore }),
          },
        ]),
    ...(words === undefined
      ? []
      : [
          {
            query: { ...words, indices: [...words.indices], values: [...words.values] },
            using: 'text',
            filter,
          },
        ]),
  ]
  const plain = { limit, with_payload: false, with_vector: false }
  const [only] = halves
  // A text fuses, whether or not it has words: the scores are of one kind then.
  if (only !== undefined && (vector === undefined || search.text === undefined))
    return { ...only, ...plain }
  const deep = Math.max(fusedDepth(search.k), limit)
  return {
    prefetch: halves.map((half) => ({ ...half, limit: deep })),
    query: { rrf: { k: RRF_K } },
    ...plain,
  }
}

/** What row-level security says, in Qdrant's terms: embeddings are seen by the user in `user_id` alone. */
function filterOf({ keywords, timeField, since, until }: RowFilter, owner: string): Filter {
  const isTimed = since !== undefined || until !== undefined
  return {
    must: [
      { key: field.owner, match: { value: owner } },
      ...[...keywords].map(([key, values]) => ({ key, match: { any: [...values] } })),
      ...(isTimed ? [{ key: timeField, range: { gte: since ?? null, lt: until ?? null } }] : []),
    ],
  }
}
