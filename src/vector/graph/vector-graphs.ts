import type { Collection } from '../../../schema/tables/embeddings.ts'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import type { Worker } from 'node:worker_threads'
import type { GraphIndex } from '../graph-index.ts'
import type { VectorSpace } from '../vector-space.ts'
import type { ChangeSource } from './change-source.ts'
import { engineNames, type EngineName } from './engine.ts'
import { FollowedGraph, type GraphEvent, type GraphStatus } from './followed-graph.ts'
import { GraphThread } from './graph-thread.ts'
import { startGraphWorker } from './start-worker.ts'

/** How vectors may be searched: `auto` takes what is installed, `exact` never builds a graph. */
export const vectorIndexes = ['auto', 'exact', ...engineNames] as const
export type VectorIndex = (typeof vectorIndexes)[number]

/** Of the engines that are installed `auto` takes the first (docs/decisions/0010). */
const preferred: readonly EngineName[] = ['usearch', 'hnswlib']

/** Vectors from which a place gets a graph: below, an exact scan is as fast and needs nothing. */
export const GRAPH_THRESHOLD = 10_000
/** Edges and candidates of the seeds' collections (QD-002). */
const M = 16
const EF_CONSTRUCT = 100
const POLL_MS = 1000
const SAVE_RETRY_MS = 30_000

export interface VectorGraphsOptions {
  readonly index: VectorIndex
  /** Of the store's file; `':memory:'` or none: graphs have no files. */
  readonly storePath: string
  /** Distinguishes stores that lie under one path, one after another. */
  readonly storeId: string
  readonly source: ChangeSource
  /** Default: {@link GRAPH_THRESHOLD}. */
  readonly threshold?: number | undefined
  readonly saveRetryMs?: number | undefined
  readonly pollMs?: number | undefined
  readonly startWorker?: (() => Worker) | undefined
  readonly onEvent?: ((event: GraphEvent) => void) | undefined
}

/** The graphs of one store: one thread, one graph for each place that is large enough, made when it is first asked for. */
export class VectorGraphs {
  readonly #options: VectorGraphsOptions
  readonly #thread: GraphThread
  readonly #graphs = new Map<string, FollowedGraph>()
  /** The number of the newest change before which a small place need not be counted again. */
  readonly #countAt = new Map<string, number>()
  #number = 0
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(options: VectorGraphsOptions) {
    this.#options = options
    this.#thread = new GraphThread(options.startWorker ?? startGraphWorker)
  }

  /**
   * The graph of a place, if it can be searched now. Otherwise undefined, and the exact scan answers: the place is
   * small, the graph is still being built in the background, its thread is starting again, or there is no engine.
   */
  of(collection: Collection, model: string, dimension: number): GraphIndex | undefined {
    if (this.#options.index === 'exact' || this.#isClosed) return undefined
    const place: VectorSpace = { collection, model, dimension }
    const key = keyOf(place)
    const graph = this.#graphs.get(key)
    if (graph !== undefined) {
      graph.poke()
      return graph.isReady ? graph : undefined
    }
    if (this.#isLarge(key, place)) this.#start(key, place)
    return undefined
  }

  status(): GraphStatus[] {
    return [...this.#graphs.values()].map((graph) => graph.status())
  }

  /** Saves graphs that changed much and ends the thread. Closing twice is harmless. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    clearInterval(this.#timer)
    await Promise.allSettled([...this.#graphs.values()].map((graph) => graph.close()))
    await this.#thread.close()
  }

  #isLarge(key: string, place: VectorSpace): boolean {
    const { source, threshold = GRAPH_THRESHOLD } = this.#options
    const head = source.head()
    if (head < (this.#countAt.get(key) ?? 0)) return false
    const count = source.count(place, threshold)
    this.#countAt.set(key, head + threshold - count)
    return count >= threshold
  }

  #start(key: string, place: VectorSpace): void {
    const { index, source, storeId, onEvent, saveRetryMs = SAVE_RETRY_MS } = this.#options
    const graph = new FollowedGraph({
      spec: {
        ...place,
        engines: index === 'auto' || index === 'exact' ? preferred : [index],
        m: M,
        efConstruct: EF_CONSTRUCT,
        storeId,
        files: cacheFiles(this.#options.storePath, place),
      },
      source,
      thread: this.#thread,
      nextNumber: () => ++this.#number,
      onEvent: onEvent ?? (() => undefined),
      saveRetryMs,
    })
    this.#graphs.set(key, graph)
    this.#timer ??= setInterval(() => this.#poke(), this.#options.pollMs ?? POLL_MS).unref()
    void graph.follow()
  }

  #poke(): void {
    try {
      for (const graph of this.#graphs.values()) graph.poke()
    } catch {
      // The rows cannot be read just now; a search would say why, and the next turn comes soon.
    }
  }
}

/** Beside the store: `agent.db-vectors/code_embeddings-3f9c21aa04be77d0-1536-usearch.hnsw`. */
export function cacheFiles(
  storePath: string,
  { collection, model, dimension }: VectorSpace,
): Record<EngineName, string> | undefined {
  if (storePath === ':memory:' || storePath === '') return undefined
  const hash = createHash('sha256').update(model).digest('hex').slice(0, 16)
  const name = collection.replaceAll(/[^\w]/g, '_')
  const fileOf = (engine: EngineName): string =>
    join(`${storePath}-vectors`, `${name}-${hash}-${dimension}-${engine}.hnsw`)
  return { hnswlib: fileOf('hnswlib'), usearch: fileOf('usearch') }
}

const keyOf = ({ collection, model, dimension }: VectorSpace): string =>
  JSON.stringify([collection, model, dimension])
