import { setImmediate } from 'node:timers/promises'
import { AgentDBError } from '../../schema/errors.ts'
import type { Collection } from '../../schema/tables/embeddings.ts'
import type { Connection } from '../sqlite/connection.ts'
import type { Embedder } from '../vector/embedder.ts'
import type { GraphIndex } from '../vector/graph-index.ts'
import type { Neighbour } from '../vector/neighbour.ts'
import type { Test } from '../vector/sweep.ts'
import type { VectorSpace } from '../vector/vector-space.ts'
import { GraphCalibrations } from './graph-calibrations.ts'
import { Matching } from './matching.ts'
import type { Condition, PayloadFilter, RowRange } from './payload-filter.ts'
import { COSTS, plan, type Costs, type Plan, type PlanInput } from './planner.ts'
import { VectorCaches, type VectorCache } from './vector-caches.ts'
import type { VectorPlan } from './vector-plan.ts'

/** The graph of some vectors, where there is one by now. It may be another one each time. */
export type GraphSource = (space: VectorSpace) => GraphIndex | undefined

export interface VectorSearchOptions {
  /** Default: no graphs; every search is exact. */
  readonly graphs?: GraphSource | undefined
  readonly costs?: Costs | undefined
}

/** A query as a vector. */
export interface Probe {
  readonly vector: Float32Array
  /** Undefined where a vector was given, which names no model. */
  readonly model: string | undefined
}

/** What is nearest to what, among which rows. */
export interface NearestRequest {
  readonly collection: Collection
  readonly probe: Probe
  readonly k: number
  readonly recall: number
  /** What the payloads must be: their fields are kept in memory. */
  readonly filter: PayloadFilter | undefined
  /** Their time and owner; undefined where they may be any. */
  readonly range: RowRange | undefined
  /** All of that, of rows `e` of `embeddings`, or more, which is asked in SQL; `1` is any. */
  readonly condition: Condition
}

/** The nearest, best first, and how they were found. */
export interface Nearest {
  readonly neighbours: readonly Neighbour[]
  readonly plan: VectorPlan
}

/** What a query meets: the vectors, those that its filter leaves, the graph, and the plan made of that. */
interface Scene {
  readonly cache: VectorCache
  readonly matching: Matching | undefined
  readonly graph: GraphIndex | undefined
  /** The graph's at this moment; what is newer than it is compared exactly. */
  readonly watermark: number
  readonly behind: number
  readonly plan: Plan
}

/** Vector search over the rows of `embeddings`: the planner's choice of scan and graph, with their results checked. */
export class VectorSearch {
  readonly #connection: Connection
  readonly #embedder: Embedder
  readonly #graphs: GraphSource
  readonly #costs: Costs
  readonly #caches: VectorCaches
  readonly #calibrations: GraphCalibrations

  constructor(connection: Connection, embedder: Embedder, options: VectorSearchOptions = {}) {
    const { graphs = () => undefined, costs = COSTS } = options
    this.#connection = connection
    this.#embedder = embedder
    this.#graphs = graphs
    this.#costs = costs
    const caches = new VectorCaches(connection)
    this.#caches = caches
    this.#calibrations = new GraphCalibrations((watermark) => caches.changedSince(watermark))
    connection.onClose(() => this.#calibrations.stop())
  }

  /** The `k` nearest of a collection among the rows that fit, best first. */
  async nearest(request: NearestRequest): Promise<Nearest> {
    const { collection, filter, range } = request
    await this.#caches.catchUp()
    if (filter !== undefined) await this.#caches.postings(collection).load(filter)
    if (range !== undefined) await this.#caches.facts(collection).load()
    let step = this.#connection.reading(() => this.#begin(request))
    if (isScene(step) && step.plan.method === 'hnsw') step = await this.#throughGraph(request, step)
    return isScene(step) ? this.#inPieces(request, step) : step
  }

  /** Resolves when no graph is being measured. */
  settled(): Promise<void> {
    return this.#calibrations.settled()
  }

  /** The answer, or what takes longer than one piece. */
  #begin(request: NearestRequest): Nearest | Scene {
    const scene = this.#scene(request)
    if (scene === undefined) return nothing(request)
    return scene.plan.method === 'hnsw' ? scene : this.#exact(request, scene)
  }

  #scene(request: NearestRequest): Scene | undefined {
    const { collection, probe, k, recall } = request
    this.#caches.follow()
    const cache = this.#cache(collection, probe)
    if (cache === undefined) return undefined
    const { scan, space } = cache
    const matching = this.#matching(request)
    const graph = this.#graphs(space)
    if (graph !== undefined) this.#calibrations.note(scan, probe.vector)
    const watermark = graph?.watermark ?? 0
    const behind = this.#caches.watermark - watermark
    const input: PlanInput = {
      count: scan.size,
      dimension: space.dimension,
      k,
      recall,
      matching: matching === undefined ? undefined : Math.min(matching.count, scan.size),
      graph: graph && {
        behind,
        efFor: (wanted, share) =>
          graph.isAtFile
            ? "the graph's file is being read or written"
            : this.#calibrations.efFor(graph, scan, wanted, share),
      },
    }
    const made = plan(input, this.#costs)
    return { cache, matching, graph, watermark, behind, plan: made }
  }

  /** At once, unless all of many rows are to be compared: that is for {@link #inPieces}. */
  #exact(request: NearestRequest, scene: Scene, whyNotGraph?: string): Nearest | Scene {
    const { cache, matching, plan: made } = scene
    const { probe, k } = request
    const method = matching === undefined ? 'exact' : 'filtered exact'
    const exact = {
      ...scene,
      plan: { ...made, method, reason: whyNotGraph ?? made.reason },
    } as const
    if (made.picksRows)
      return this.#explained(request, exact, cache.scan.scan(probe.vector, k, matching))
    if (cache.scan.isLong) return exact
    const took = cache.scan.scan(probe.vector, k, testOf(matching), matching)
    return this.#explained(request, exact, took)
  }

  /** All rows, with turns for others between; the last piece tells what is true by then. */
  async #inPieces(request: NearestRequest, scene: Scene): Promise<Nearest> {
    const { cache, matching } = scene
    const { probe, k } = request
    using sweep = cache.scan.sweep(probe.vector, k, testOf(matching), matching)
    while (sweep.next()) await setImmediate()
    return this.#connection.reading(() => {
      this.#caches.follow()
      const now: Scene = { ...scene, matching: this.#matching(request) }
      return this.#explained(request, now, sweep.finish(testOf(now.matching)))
    })
  }

  async #throughGraph(request: NearestRequest, scene: Scene): Promise<Nearest | Scene> {
    const { graph, plan: made, watermark } = scene
    if (graph === undefined || made.graph === undefined) throw new Error('bug in AgentDB: no graph')
    let hits: Neighbour[] = []
    let failure: string | undefined
    try {
      hits = await graph.search(request.probe.vector, made.graph.k, made.graph.ef)
    } catch (error) {
      failure = `the graph failed (${error instanceof Error ? error.message : String(error)}): compared exactly`
    }
    return this.#connection.reading(() => {
      // Rows may have come and gone while the graph was asked.
      this.#caches.follow()
      const now: Scene = { ...scene, matching: this.#matching(request) }
      return failure === undefined
        ? this.#merged(request, now, hits, watermark)
        : this.#exact(request, now, failure)
    })
  }

  /** What the graph found and still is as it was, and all that is newer, compared exactly. */
  #merged(
    request: NearestRequest,
    scene: Scene,
    hits: readonly Neighbour[],
    watermark: number,
  ): Nearest | Scene {
    const { matching, cache, graph } = scene
    const { scan } = cache
    const newer = new Set(this.#caches.changedSince(watermark))
    const passes = (id: string): boolean => matching === undefined || matching.has(id)
    const standing = hits
      .map(({ id }) => id)
      .filter((id) => scan.has(id) && !newer.has(id) && passes(id))
    if (new Set(standing).size < request.k) {
      const why = `of ${hits.length} neighbours from the graph ${standing.length} are still there and pass the filter: compared exactly`
      return this.#exact(request, scene, why)
    }
    const took = scan.scan(request.probe.vector, request.k, [
      ...standing,
      ...[...newer].filter(passes),
    ])
    const ef = graph === undefined ? null : (scene.plan.graph?.ef ?? null)
    return this.#explained(request, scene, took, ef)
  }

  #explained(
    request: NearestRequest,
    { cache, matching, graph, behind, plan: made }: Scene,
    took: { neighbours: readonly Neighbour[]; scanned: number; rescored: number },
    ef: number | null = null,
  ): Nearest {
    const { method, reason, alternatives } = made
    const { scanned, rescored, neighbours } = took
    return {
      neighbours,
      plan: {
        collection: request.collection,
        method,
        reason,
        count: cache.scan.size,
        matching: matching?.count ?? null,
        recall: request.recall,
        ef,
        alternatives,
        scanned,
        rescored,
        graph: graph === undefined ? null : { size: graph.size, behind },
      },
    }
  }

  /** What to look for: the vector, or the text embedded. */
  async probe(wanted: {
    readonly text?: string | undefined
    readonly vector?: Float32Array | undefined
  }): Promise<Probe> {
    if (wanted.vector !== undefined) return { vector: wanted.vector, model: undefined }
    const [vector] = await this.#embedder.embed([wanted.text ?? ''])
    if (!(vector instanceof Float32Array)) {
      throw new AgentDBError(
        'INVALID_VALUE',
        `the embedder ${this.#embedder.model} gave no Float32Array`,
      )
    }
    const bad = vector.findIndex((component) => !Number.isFinite(component))
    if (vector.length === 0 || bad >= 0) {
      const what = bad >= 0 ? `${vector[bad]} at ${bad}` : 'no dimensions'
      throw new AgentDBError(
        'INVALID_VALUE',
        `the embedder ${this.#embedder.model} gave a vector with ${what}`,
      )
    }
    return { vector, model: this.#embedder.model }
  }

  /** A query by vector names no model: it is taken where exactly one model has this dimension. */
  #cache(collection: Collection, { vector, model }: Probe): VectorCache | undefined {
    const dimension = vector.length
    if (model !== undefined) return this.#caches.get(collection, model, dimension)
    const fitting = this.#caches.ofDimension(collection, dimension)
    if (fitting.length > 1) {
      const models = fitting.map(({ space }) => space.model).join(', ')
      throw new AgentDBError(
        'INVALID_OPTION',
        `${collection} has vectors of ${dimension} dimensions from several models (${models}); search by text`,
      )
    }
    return fitting[0]
  }

  #matching({ collection, condition, filter, range }: NearestRequest): Matching | undefined {
    if (condition.sql === '1') return undefined
    const kept = this.#kept(collection, filter, range)
    if (kept !== undefined) return kept
    const rows = this.#connection.all<{ id: string }>(
      `SELECT e.id FROM embeddings e WHERE e.collection = ? AND ${condition.sql}`,
      collection,
      ...condition.parameters,
    )
    return new Matching([[new Set(rows.map(({ id }) => id))]])
  }

  /** By what is kept in memory; undefined where that must be asked in SQL. */
  #kept(
    collection: Collection,
    filter: PayloadFilter = {},
    range: RowRange | undefined,
  ): Matching | undefined {
    const hasFields = Object.keys(filter).length > 0
    if (!hasFields && range === undefined) return undefined
    const fields = hasFields ? this.#caches.postings(collection).matching(filter) : new Matching([])
    if (range === undefined || fields === undefined) return fields
    const facts = this.#caches.facts(collection)
    return facts.isComplete ? fields.within(facts.in(range)) : undefined
  }
}

const isScene = (step: Nearest | Scene): step is Scene => 'cache' in step

const testOf = (matching: Matching | undefined): Test | undefined =>
  matching && ((id) => matching.has(id))

const nothing = ({ collection, recall, condition }: NearestRequest): Nearest => {
  const isFiltered = condition.sql !== '1'
  return {
    neighbours: [],
    plan: {
      collection,
      method: isFiltered ? 'filtered exact' : 'exact',
      reason: 'the collection has no vectors of this model and dimension',
      count: 0,
      matching: isFiltered ? 0 : null,
      recall,
      ef: null,
      alternatives: [],
      scanned: 0,
      rescored: 0,
      graph: null,
    },
  }
}
