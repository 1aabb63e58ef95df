import type { Worker } from 'node:worker_threads'
import type { AgentDB } from '../../src/agent-db.ts'
import { internalsOf } from '../../src/internals.ts'
import { StoreChanges } from '../../src/search/store-changes.ts'
import { readIdentity } from '../../src/sqlite/store-state.ts'
import type { VectorSpace } from '../../src/vector/vector-space.ts'
import type { GraphEvent } from '../../src/vector/graph/followed-graph.ts'
import { startGraphWorker } from '../../src/vector/graph/start-worker.ts'
import { VectorGraphs, type VectorIndex } from '../../src/vector/graph/vector-graphs.ts'
import type { GraphIndex } from '../../src/vector/graph-index.ts'

export const place = {
  collection: 'code_embeddings',
  model: 'm',
  dimension: 8,
} as const satisfies VectorSpace

interface Options {
  readonly index?: VectorIndex
  readonly threshold?: number
}

/** The graphs of a store, for places of any size, with all that they tell. */
export class GraphRun implements AsyncDisposable {
  readonly graphs: VectorGraphs
  readonly events: GraphEvent[] = []
  /** Threads that were started, in order. */
  readonly workers: Worker[] = []
  readonly #source: StoreChanges
  readonly #waiting = new Set<() => void>()

  constructor(db: AgentDB, { index = 'auto', threshold = 1 }: Options = {}) {
    const { connection } = internalsOf(db)
    this.#source = new StoreChanges(connection)
    this.graphs = new VectorGraphs({
      index,
      threshold,
      storePath: db.path,
      storeId: readIdentity(connection).clientId,
      source: this.#source,
      pollMs: 20,
      saveRetryMs: 20,
      startWorker: () => {
        const worker = startGraphWorker()
        this.workers.push(worker)
        return worker
      },
      onEvent: (event) => {
        this.events.push(event)
        for (const done of this.#waiting) done()
        this.#waiting.clear()
      },
    })
  }

  /** Resolves with the first event of a kind that comes after `from` others of any kind. */
  async event(kind: GraphEvent['kind'], from = 0): Promise<GraphEvent> {
    for (;;) {
      const found = this.events.slice(from).find((event) => event.kind === kind)
      if (found !== undefined) return found
      await new Promise<void>((done) => this.#waiting.add(done))
    }
  }

  of({ collection, model, dimension }: VectorSpace = place): GraphIndex | undefined {
    return this.graphs.of(collection, model, dimension)
  }

  /** The graph of a place, once it has all rows. */
  async whole(at: VectorSpace = place): Promise<GraphIndex> {
    for (;;) {
      const seen = this.events.length
      const graph = this.of(at)
      if (graph === undefined) await this.event('ready', seen)
      else if (graph.watermark >= this.#source.head()) return graph
      else await graph.search(new Float32Array(at.dimension).fill(1), 1, 10).catch(() => undefined)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.graphs.close()
  }
}

/** Stores vectors under ids, in one transaction. */
export function putVectors(
  db: AgentDB,
  vectors: Iterable<readonly [string, Float32Array]>,
  { collection, model, dimension }: VectorSpace = place,
): void {
  db.transaction(() => {
    for (const [id, vector] of vectors) {
      const known = db.embeddings.find(id)
      if (known === undefined) db.embeddings.create({ id, collection, model, dimension, vector })
      else db.embeddings.update(id, { model, dimension, vector })
    }
  })
}
