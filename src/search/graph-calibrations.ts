import { setImmediate } from 'node:timers/promises'
import type { GraphIndex } from '../vector/graph-index.ts'
import type { ScanIndex } from '../vector/scan-index.ts'
import { calibrate, CALIBRATION_QUERIES, efFor, type Calibration } from './ef-calibration.ts'

/** `ef` is measured for these numbers of neighbours; one between takes the next. */
const K_STEPS = [10, 20, 50, 100, 200, 500, 1000]
/** A graph that has grown or shrunk by more is measured anew. */
const DRIFT = 0.2
/** Queries as they come in are better samples than stored vectors; so many of the last are remembered. */
const RECENT_QUERIES = CALIBRATION_QUERIES / 2

interface State {
  /** The last that ended. */
  done?: Calibration
  failure?: { readonly reason: string; readonly size: number }
  isRunning: boolean
}

/**
 * What `ef` each graph needs, measured in the background when it is first wanted; until then there is no answer, and
 * searches are exact.
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

  /** A query that was asked. */
  note(scan: ScanIndex, query: Float32Array): void {
    const queries = this.#recent.get(scan) ?? []
    queries.push(query.slice())
    if (queries.length > RECENT_QUERIES) queries.shift()
    this.#recent.set(scan, queries)
  }

  /** The least `ef` that reaches the recall; or why none is known. */
  efFor(graph: GraphIndex, scan: ScanIndex, k: number, recall: number): number | string {
    const step = K_STEPS.find((one) => one >= k)
    if (step === undefined) return `k = ${k} is more than a graph is asked for`
    const state = this.#stateOf(graph, step)
    const { done, failure } = state
    const known = done?.size ?? failure?.size
    const isStale = known === undefined || Math.abs(graph.size - known) > DRIFT * known
    if (isStale && !state.isRunning) this.#start(graph, scan, step, state)
    if (done === undefined) {
      return failure === undefined
        ? 'the recall of the graph is being measured'
        : `the graph could not be measured: ${failure.reason}`
    }
    const ef = efFor(done, recall)
    return ef ?? `the graph did not reach a recall of ${recall} with any ef`
  }

  /** Resolves when nothing is being measured. */
  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running)
  }

  stop(): void {
    this.#isStopped = true
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
    const { size } = graph
    try {
      // Not in the middle of the search that asked.
      await this.#pause()
      const asked = (this.#recent.get(scan) ?? []).map((vector) => ({ vector }))
      const queries = [...asked, ...scan.sample(CALIBRATION_QUERIES - asked.length)]
      const newer = new Set(this.#changedSince(graph.watermark))
      state.done = await calibrate({ graph, scan, k, queries, newer, pause: () => this.#pause() })
      delete state.failure
    } catch (error) {
      state.failure = { reason: error instanceof Error ? error.message : String(error), size }
    }
  }

  async #pause(): Promise<void> {
    await setImmediate()
    if (this.#isStopped) throw new Error('the store was closed')
  }
}
