import type { Json } from '../../schema/define.ts'
import type { Collection } from '../../schema/tables/embeddings.ts'
import { decodeVector } from '../../schema/values/vector.ts'
import type { Connection } from '../sqlite/connection.ts'
import { cosine } from '../vector/cosine.ts'
import { GIVEN_MODEL_WEIGHT, type Embedder } from '../vector/embedder.ts'
import { better, fuse, type Fused } from './fusion.ts'
import { grouped, type Candidate } from './grouping.ts'
import { rowCondition, type Condition } from './payload-filter.ts'
import {
  planned,
  SEARCH_K_MAX,
  type ExplainedSearch,
  type ExplainOptions,
  type SearchOptions,
  type SearchPlan,
  type SearchResult,
} from './search-options.ts'
import { matchExpression } from './text-query.ts'
import { TextSearch, type TextHit } from './text-search.ts'
import {
  identifiersIndex,
  mustSource,
  type SourceDefinition,
  type TextIndexDefinition,
} from './text-sources.ts'
import type { VectorPlan } from './vector-plan.ts'
import { VectorSearch, type Probe, type VectorSearchOptions } from './vector-search.ts'

/** Search in words, in vectors and in both, over one or several sources. */
export class Search {
  readonly #connection: Connection
  readonly #embedder: Embedder
  readonly #vectors: VectorSearch
  readonly #texts: TextSearch

  constructor(connection: Connection, embedder: Embedder, options: VectorSearchOptions = {}) {
    this.#connection = connection
    this.#embedder = embedder
    this.#vectors = new VectorSearch(connection, embedder, options)
    this.#texts = new TextSearch(connection)
  }

  async search(options: SearchOptions): Promise<SearchResult[]> {
    return (await this.explain(options)).results
  }

  async explain(options: SearchOptions | ExplainOptions): Promise<ExplainedSearch> {
    const plan = planned(options)
    const sources = plan.sources.map(mustSource)
    const needsProbe = plan.mode !== 'text' && sources.some(({ hasVectors }) => hasVectors)
    const probe = needsProbe ? await this.#vectors.probe(plan) : undefined
    const found: Candidate[] = []
    const plans: VectorPlan[] = []
    for (const source of sources)
      found.push(...(await this.#candidates(source, plan, probe, plans)))
    // One reading, since each statement on its own would take and give back the lock of the file.
    const results = this.#connection.reading(() => this.#results(found.toSorted(better), plan))
    return {
      results: plan.highlight === undefined ? results : this.#highlighted(results, plan),
      plans,
    }
  }

  /** Resolves when no graph is being measured. */
  settled(): Promise<void> {
    return this.#vectors.settled()
  }

  /** The best of one source, best first. How its vectors were searched goes into `plans`. */
  async #candidates(
    source: SourceDefinition,
    plan: SearchPlan,
    probe: Probe | undefined,
    plans: VectorPlan[],
  ): Promise<Candidate[]> {
    const condition = rowCondition(source, plan)
    const depth = depthOf(plan)
    if (probe === undefined || !source.hasVectors) {
      const words = await this.#words(source, plan, condition, depth)
      return fuse(words, [], 0).map((fused) => ({ ...fused, source }))
    }
    const { neighbours: near, plan: made } = await this.#vectors.nearest({
      collection: source.name as Collection,
      probe,
      k: depth,
      recall: plan.recall,
      filter: plan.filter,
      condition,
      range: [plan.from, plan.to, plan.userId].some((one) => one !== undefined) ? plan : undefined,
    })
    plans.push(made)
    const isFit = ({ vectorScore }: Fused): boolean =>
      plan.minScore === undefined || (vectorScore ?? -1) >= plan.minScore
    if (plan.mode === 'vector') {
      return near
        .map(({ id, score }) => ({ id, score, textScore: null, vectorScore: score, source }))
        .filter(isFit)
    }
    const known = new Set(near.map(({ id }) => id))
    const words = await this.#words(source, plan, condition, depth, [...known])
    const missing = words.filter(({ id }) => !known.has(id)).map(({ id }) => id)
    const weight = plan.vectorWeight ?? this.#embedder.vectorWeight ?? GIVEN_MODEL_WEIGHT
    return fuse(words, [...near, ...this.#cosines(missing, probe)], weight)
      .filter(isFit)
      .map((fused) => ({ ...fused, source }))
  }

  /** The best by words, and whatever of `near` has words, too. */
  async #words(
    source: SourceDefinition,
    plan: SearchPlan,
    condition: Condition,
    limit: number,
    near: readonly string[] = [],
  ): Promise<TextHit[]> {
    const expression = matchExpression(plan.text ?? '', plan.match)
    if (expression === undefined) return []
    const index = indexOf(source, plan)
    return this.#texts.search({ source, index, expression, condition, limit, near })
  }

  /** Cosines of rows that words found and vectors did not; those of another model have none. */
  #cosines(ids: readonly string[], { vector: probe, model }: Probe): TextHit[] {
    if (ids.length === 0) return []
    const rows = this.#connection.all<{ id: string; vector: Uint8Array }>(
      `SELECT e.id, e.vector FROM json_each(?) j JOIN embeddings e ON e.id = j.value
      WHERE e.dimension = ? AND (e.model = ? OR ? IS NULL)`,
      JSON.stringify(ids),
      probe.length,
      model ?? null,
      model ?? null,
    )
    return rows.map(({ id, vector }) => ({ id, score: cosine(decodeVector(vector), probe) }))
  }

  #results(found: readonly Candidate[], plan: SearchPlan): SearchResult[] {
    const { group, k, offset } = plan
    if (group !== undefined) {
      const values = this.#groupValues(found, group.field)
      const groups = grouped(found, (each) => values.get(keyOf(each)), group, plan.sources.length)
      return groups
        .slice(offset, offset + k)
        .flatMap(({ value, score, candidates }) =>
          candidates
            .flatMap((candidate) => this.#result(candidate))
            .map((result) => ({ ...result, group: { value, score } })),
        )
    }
    const results: SearchResult[] = []
    for (const candidate of found) {
      if (results.length >= offset + k) break
      results.push(...this.#result(candidate))
    }
    return results.slice(offset)
  }

  /** What rows have in a field of their payload; lists and objects group nothing. */
  #groupValues(found: readonly Candidate[], field: string): Map<string, string> {
    const values = new Map<string, string>()
    for (const source of new Set(found.map((candidate) => candidate.source))) {
      const ids = found.filter((candidate) => candidate.source === source).map(({ id }) => id)
      const rows = this.#connection.all<{ id: string; value: string | number }>(
        `SELECT e.id, CASE WHEN p.type IN ('true', 'false') THEN p.type ELSE p.atom END AS value
        FROM json_each(?) j JOIN ${source.index.table} e ON e.id = j.value JOIN json_each(${source.payload}) p
        WHERE p.key = ? AND p.type IN ('text', 'integer', 'real', 'true', 'false')`,
        JSON.stringify(ids),
        field,
      )
      for (const { id, value } of rows) values.set(keyOf({ source, id }), String(value))
    }
    return values
  }

  /** Another process may have deleted it meanwhile. */
  #result({ id, score, textScore, vectorScore, source }: Candidate): SearchResult[] {
    const row = this.#connection.get<ResultRow>(
      `SELECT ${source.model} AS model, ${source.preview} AS preview, ${source.payload} AS payload FROM ${source.index.table} e WHERE e.id = ?`,
      id,
    )
    if (row === undefined) return []
    const { model, preview: contentPreview } = row
    const payload = JSON.parse(row.payload) as Json
    const collection = source.name
    return [{ id, score, vectorScore, textScore, collection, model, contentPreview, payload }]
  }

  #highlighted(results: readonly SearchResult[], plan: SearchPlan): SearchResult[] {
    const { highlight, text, match } = plan
    const expression = matchExpression(text ?? '', match)
    const shown = new Map<string, string>()
    const indexes = new Map<TextIndexDefinition, string[]>()
    for (const { id, collection } of results) {
      const index = indexOf(mustSource(collection), plan)
      indexes.set(index, [...(indexes.get(index) ?? []), id])
    }
    if (expression !== undefined && highlight !== undefined) {
      for (const [index, ids] of indexes) {
        const found = this.#texts.highlight(index, expression, ids, highlight)
        for (const [id, words] of found) shown.set(`${index.table} ${id}`, words)
      }
    }
    return results.map((result) => {
      const { table } = mustSource(result.collection).index
      return { ...result, highlight: shown.get(`${table} ${result.id}`) ?? null }
    })
  }
}

/** An embedding may have the id of the message that it is of. */
const keyOf = ({ source, id }: Pick<Candidate, 'source' | 'id'>): string => `${source.name} ${id}`

interface ResultRow {
  readonly model: string | null
  readonly preview: string | null
  readonly payload: string
}

function indexOf(source: SourceDefinition, { match }: SearchPlan): TextIndexDefinition {
  if (match === 'substring') return identifiersIndex
  return match === 'prefix' ? source.unstemmed : source.index
}

/** Rows that each side gives; what neither has among them is not found. */
function depthOf({ mode, k, offset, group }: SearchPlan): number {
  const wanted = k + offset
  if (mode === 'vector' && group === undefined) return wanted
  const times = group === undefined ? 4 : 10 * group.size
  return Math.min(SEARCH_K_MAX, Math.max(DEPTH_MIN, wanted * times))
}

const DEPTH_MIN = 200
