import { setImmediate } from 'node:timers/promises'
import type { GraphIndex } from '../vector/graph-index.ts'
import type { ScanIndex } from '../vector/scan-index.ts'
import { calibrate, CALIBRATION_QUERIES, efFor, type Calibration } from './ef-calibration.ts'

/** `ef` is measured for these numbers of neighbours; one between takes the next. */
const K_STEPS = [10, 20, 50, 100, 200, 500, 1000]
/** A graph that has grown or shrunk by more is measured anew. */
const DRIFT = 0.2
/** A measurement that failed is not tried again before. */
const RETRY_MS = 5000

interface State {
  /** The last that ended. */
  done?: Calibration
  failure?: { readonly reason: string; readonly at: number }
  isRunning: boolean
}

/**
 * What `ef` each graph needs, measured in the background on the last queries that were asked; until then there is no
 * answer, and searches are exact. Stored vectors would be poor samples: a graph finds the neighbours of what is in it
 * with less effort than those of what is not.
 */
export class GraphCalibrations {
  readonly #states = new WeakMap<GraphIndex, Map<number, State>>()
  readonly #recent = new WeakMap<ScanIndex, Float32Array[]>()
  readonly #running = new Set<Promise<void>>()
  readonly #changedSince: (watermark: number) => Iterable<string>
  #isStopped = false

  /** `changedSince` gives the ids that changed after a watermark. */
  constructor(changedSince: (watermark: number) => Iterable<string>) {
    this.#changedSince = changedSince
  }

  /** A query that was asked. One that is asked again tells nothing new. */
  note(scan: ScanIndex, query: Float32Array): void {
    const queries = this.#recentOf(scan)
    if (queries.some((other) => other.every((component, i) => component === query[i]))) return
    queries.push(query.slice())
    if (queries.length > CALIBRATION_QUERIES) queries.shift()
  }

  /** The least `ef` that reaches the recall; or why none is known. */
  efFor(graph: GraphIndex, scan: ScanIndex, k: number, recall: number): number | string {
    const step = K_STEPS.find((one) => one >= k)
    if (step === undefined) return `k = ${k} is more than a graph is asked for`
    const state = this.#stateOf(graph, step)
    const { done, failure } = state
    const isStale = done === undefined || Math.abs(graph.size - done.size) > DRIFT * done.size
    const isDue = failure === undefined || performance.now() - failure.at >= RETRY_MS
    const asked = this.#recentOf(scan).length
    const isReady = asked === CALIBRATION_QUERIES
    if (isStale && isDue && isReady && !state.isRunning) this.#start(graph, scan, step, state)
    if (done !== undefined)
      return efFor(done, recall) ?? `the graph did not reach a recall of ${recall} with any ef`
    if (failure !== undefined) return `the graph could not be measured: ${failure.reason}`
    return isReady
      ? 'the recall of the graph is being measured'
      : `the recall of the graph is measured on ${CALIBRATION_QUERIES} queries, of which ${asked} were asked`
  }

  /** Resolves when nothing is being measured. */
  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running)
  }

  stop(): void {
    this.#isStopped = true
  }

  #recentOf(scan: ScanIndex): Float32Array[] {
    const queries = this.#recent.get(scan) ?? []
    this.#recent.set(scan, queries)
    return queries
  }

  #stateOf(graph: GraphIndex, step: number): State {
    const states = this.#states.get(graph) ?? new Map<number, State>()
    this.#states.set(graph, states)
    const state = states.get(step) ?? { isRunning: false }
    states.set(step, state)
    return state
  }

  #start(graph: GraphIndex, scan: ScanIndex, k: number, state: State): void {
    state.isRunning = true
    const running = this.#measure(graph, scan, k, state).finally(() => {
      state.isRunning = false
      this.#running.delete(running)
    })
    this.#running.add(running)
  }

  async #measure(graph: GraphIndex, scan: ScanIndex, k: number, state: State): Promise<void> {
    try {
      // Not in the middle of the search that asked.
      await this.#pause()
      const queries = [...this.#recentOf(scan)]
      const newer = new Set(this.#changedSince(graph.watermark))
      state.done = await calibrate({ graph, scan, k, queries, newer, pause: () => this.#pause() })
      delete state.failure
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      state.failure = { reason, at: performance.now() }
    }
  }

  async #pause(): Promise<void> {
    await setImmediate()
    if (this.#isStopped) throw new Error('the store was closed')
  }
}
