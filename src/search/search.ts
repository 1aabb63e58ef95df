import type { Json } from '../../schema/define.ts'
import type { Collection } from '../../schema/tables/embeddings.ts'
import { decodeVector } from '../../schema/values/vector.ts'
import type { Connection } from '../sqlite/connection.ts'
import { cosine } from '../vector/cosine.ts'
import { GIVEN_MODEL_WEIGHT, type Embedder } from '../vector/embedder.ts'
import { better, fuse, type Fused } from './fusion.ts'
import {
  grouped,
  groupValue,
  isGroupValue,
  ofOtherGroups,
  type Candidate,
  type GroupValue,
} from './grouping.ts'
import {
  rowCondition,
  type Condition,
  type PayloadFilter,
  type RowRange,
} from './payload-filter.ts'
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

  /**
   * The best of one source, best first. How its vectors were searched goes into `plans`. While the best rows are of fewer
   * groups than are wanted, the best of other groups are looked for, too.
   */
  async #candidates(
    source: SourceDefinition,
    plan: SearchPlan,
    probe: Probe | undefined,
    plans: VectorPlan[],
  ): Promise<Candidate[]> {
    const condition = rowCondition(source, plan)
    const { filter } = plan
    const hasRange = [plan.from, plan.to, plan.userId].some((one) => one !== undefined)
    const range = hasRange ? plan : undefined
    let found = await this.#found({ source, plan, probe, condition, filter, range })
    if (found.vectorPlan !== undefined) plans.push(found.vectorPlan)
    let groups: number | undefined
    for (;;) {
      const candidates = this.#fused(found, source, plan)
      if (plan.group === undefined || found.isAll) return candidates
      const values = [...this.#groupValues(candidates, plan.group.field).values()]
      const known = new Set(values.map(String)).size
      if (known >= plan.k + plan.offset || known === groups) return candidates
      groups = known
      const others = ofOtherGroups(condition, source, plan.group.field, values)
      const more = await this.#found({ source, plan, probe, condition: others })
      found = {
        words: [...found.words, ...more.words],
        vectors: [...found.vectors, ...more.vectors],
        isAll: more.isAll,
      }
    }
  }

  /** The best of either side. */
  async #found(look: Look): Promise<Found> {
    const { source, plan, probe, condition, filter, range } = look
    const depth = depthOf(plan)
    if (probe === undefined || !source.hasVectors) {
      const words = await this.#words(look)
      return { words, vectors: [], isAll: words.length < depth }
    }
    const { neighbours: near, plan: vectorPlan } = await this.#vectors.nearest({
      collection: source.name as Collection,
      probe,
      k: depth,
      recall: plan.recall,
      filter,
      range,
      condition,
    })
    const { minScore = -Infinity } = plan
    const isAllNear = near.length < depth || near.some(({ score }) => score < minScore)
    if (plan.mode === 'vector') return { words: [], vectors: near, isAll: isAllNear, vectorPlan }
    const known = new Set(near.map(({ id }) => id))
    const words = await this.#words(look, [...known])
    const missing = words.filter(({ id }) => !known.has(id)).map(({ id }) => id)
    const vectors = [...near, ...this.#cosines(missing, probe)]
    return { words, vectors, isAll: isAllNear && words.length < depth, vectorPlan }
  }

  #fused({ words, vectors }: Found, source: SourceDefinition, plan: SearchPlan): Candidate[] {
    const { mode, minScore } = plan
    const ofEmbedder = this.#embedder.vectorWeight ?? GIVEN_MODEL_WEIGHT
    const weight = mode === 'text' || !source.hasVectors ? 0 : (plan.vectorWeight ?? ofEmbedder)
    const fused: Fused[] =
      mode === 'vector'
        ? vectors.map(({ id, score }) => ({ id, score, textScore: null, vectorScore: score }))
        : fuse(words, vectors, weight)
    return fused
      .filter(({ vectorScore }) => minScore === undefined || (vectorScore ?? -1) >= minScore)
      .map((each) => ({ ...each, source }))
  }

  /** The best by words, and whatever of `near` has words, too. */
  async #words(
    { source, plan, condition }: Look,
    near: readonly string[] = [],
  ): Promise<TextHit[]> {
    const expression = matchExpression(plan.text ?? '', plan.match)
    if (expression === undefined) return []
    const index = indexOf(source, plan)
    const limit = depthOf(plan)
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

  /** What rows have in a field of their payload. */
  #groupValues(found: readonly Candidate[], field: string): Map<string, GroupValue> {
    const values = new Map<string, GroupValue>()
    for (const source of new Set(found.map((candidate) => candidate.source))) {
      const ids = found.filter((candidate) => candidate.source === source).map(({ id }) => id)
      const rows = this.#connection.all<{ id: string; value: GroupValue }>(
        `SELECT e.id, ${groupValue} AS value
        FROM json_each(?) j JOIN ${source.index.table} e ON e.id = j.value JOIN json_each(${source.payload}) p
        WHERE p.key = ? AND ${isGroupValue}`,
        JSON.stringify(ids),
        field,
      )
      for (const { id, value } of rows) values.set(keyOf({ source, id }), value)
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

/** What is looked for among which rows of a source. */
interface Look {
  readonly source: SourceDefinition
  readonly plan: SearchPlan
  readonly probe: Probe | undefined
  readonly condition: Condition
  /** What the condition is made of, where it is of that alone. */
  readonly filter?: PayloadFilter | undefined
  readonly range?: RowRange | undefined
}

/** What both sides gave of a source. */
interface Found {
  readonly words: readonly TextHit[]
  readonly vectors: readonly TextHit[]
  /** Whether there is nothing more to be found. */
  readonly isAll: boolean
  readonly vectorPlan?: VectorPlan
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

/** Rows that each side gives; what neither has among them is not found, unless it is of a group that is wanted. */
function depthOf({ mode, k, offset, group }: SearchPlan): number {
  const wanted = k + offset
  if (mode === 'vector' && group === undefined) return wanted
  const times = group === undefined ? 4 : 10 * group.size
  return Math.min(SEARCH_K_MAX, Math.max(DEPTH_MIN, wanted * times))
}

const DEPTH_MIN = 200
