import type { Worker } from 'node:worker_threads'
import type { AgentDB } from '../../src/agent-db.ts'
import { internalsOf } from '../../src/internals.ts'
import { StoreChanges } from '../../src/search/store-changes.ts'
import { readIdentity } from '../../src/sqlite/store-state.ts'
import type { VectorSpace } from '../../src/vector/vector-space.ts'
import type { GraphEvent } from '../../src/vector/graph/followed-graph.ts'
import type { ChangeSlice } from '../../src/vector/graph/change-source.ts'
import { startGraphWorker } from '../../src/vector/graph/start-worker.ts'
import type { Call, Request } from '../../src/vector/graph/messages.ts'
import { VectorGraphs, type VectorIndex } from '../../src/vector/graph/vector-graphs.ts'
import type { GraphIndex } from '../../src/vector/graph-index.ts'

export const place = {
  collection: 'code_embeddings',
  model: 'm',
  dimension: 8,
} as const satisfies VectorSpace

class FaultyChanges extends StoreChanges {
  failure: Error | undefined

  override changes(...wanted: Parameters<StoreChanges['changes']>): ChangeSlice {
    const { failure } = this
    this.failure = undefined
    if (failure !== undefined) throw failure
    return super.changes(...wanted)
  }
}

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
  /** What the threads were asked, and what a graph told of its file at that moment. */
  readonly asked: { readonly request: Request; readonly isAtFile: boolean | undefined }[] = []
  readonly #source: FaultyChanges
  readonly #waiting = new Set<() => void>()

  constructor(db: AgentDB, { index = 'auto', threshold = 1 }: Options = {}) {
    const { connection } = internalsOf(db)
    this.#source = new FaultyChanges(connection)
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
        const post = worker.postMessage.bind(worker)
        worker.postMessage = (
          call: Call,
          transfer?: Parameters<Worker['postMessage']>[1],
        ): void => {
          this.asked.push({ request: call.request, isAtFile: this.of()?.isAtFile })
          post(call, transfer)
        }
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

  /** The next reading of changes fails. */
  failToRead(failure: Error): void {
    this.#source.failure = failure
  }

  /** Numbers of the graphs that a thread was told to open and not to close. */
  heldByThread(): number[] {
    const held = new Set<number>()
    for (const { request } of this.asked) {
      if (request.type === 'open') held.add(request.graph)
      if (request.type === 'close') held.delete(request.graph)
    }
    return [...held]
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
