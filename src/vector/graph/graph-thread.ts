import type { Worker } from 'node:worker_threads'
import { AgentDBError, errorCodes, type ErrorCode } from '../../../schema/errors.ts'
import type { AnswerTo, Call, Reply, Request } from './messages.ts'

interface Waiting {
  readonly isForeground: boolean
  readonly isFileWork: boolean
  resolve(value: unknown): void
  reject(error: unknown): void
}

const RESTART_MS_FIRST = 100
const RESTART_MS_MAX = 60_000

/**
 * The worker as its owner sees it: calls that are answered. A thread that dies takes its calls along and is started
 * again at the next call, after a pause that doubles while it keeps dying.
 */
export class GraphThread {
  readonly #start: () => Worker
  readonly #waiting = new Map<number, Waiting>()
  #worker: Worker | undefined
  #calls = 0
  #foreground = 0
  #life = 0
  #pauseMs = RESTART_MS_FIRST
  #mayStartAt = 0
  #isClosed = false

  constructor(start: () => Worker) {
    this.#start = start
  }

  /** Changes whenever a new thread takes over: what the old one held is gone. */
  get life(): number {
    return this.#life
  }

  get isRunning(): boolean {
    return this.#worker !== undefined
  }

  /** Whether it reads or writes a graph's file: an engine may not give the thread back before that is done. */
  get isAtFile(): boolean {
    for (const { isFileWork } of this.#waiting.values()) if (isFileWork) return true
    return false
  }

  /** Milliseconds until a thread may be started; 0 when one runs. */
  pauseMs(): number {
    return this.#worker === undefined ? Math.max(0, this.#mayStartAt - performance.now()) : 0
  }

  /**
   * `isForeground`: someone waits for it, so it keeps the process alive.
   *
   * @throws AgentDBError `VECTOR_INDEX_UNAVAILABLE` when the thread ends before it answers, and what the call itself throws
   */
  call<R extends Request>(
    request: R,
    transfer: readonly ArrayBuffer[] = [],
    isForeground = false,
  ): Promise<AnswerTo<R>> {
    return new Promise<unknown>((resolve, reject) => {
      const worker = this.#running()
      const call = ++this.#calls
      const isFileWork = request.type === 'save' || (request.type === 'open' && request.mayLoad)
      this.#waiting.set(call, { isForeground, isFileWork, resolve, reject })
      if (isForeground && ++this.#foreground === 1) worker.ref()
      const message: Call = { call, request }
      worker.postMessage(message, [...transfer])
    }) as Promise<AnswerTo<R>>
  }

  async close(): Promise<void> {
    this.#isClosed = true
    const worker = this.#worker
    this.#worker = undefined
    this.#failAll('the store is closed')
    await worker?.terminate()
  }

  #running(): Worker {
    if (this.#worker !== undefined) return this.#worker
    if (this.#isClosed) throw unavailable('the store is closed')
    if (this.pauseMs() > 0) throw unavailable('its thread has ended and starts again in a moment')
    const worker = this.#start()
    worker.unref()
    worker.on('message', (reply: Reply) => this.#answered(reply))
    worker.on('messageerror', (error) => this.#ended(worker, error))
    worker.on('error', (error) => this.#ended(worker, error))
    worker.on('exit', (code) => this.#ended(worker, new Error(`exit code ${code}`)))
    this.#worker = worker
    this.#life += 1
    return worker
  }

  #answered(reply: Reply): void {
    const waiting = this.#taken(reply.call)
    if (waiting === undefined) return
    if (reply.ok) {
      this.#pauseMs = RESTART_MS_FIRST
      waiting.resolve(reply.value)
    } else {
      waiting.reject(errorOf(reply))
    }
  }

  #taken(call: number): Waiting | undefined {
    const waiting = this.#waiting.get(call)
    if (waiting === undefined) return undefined
    this.#waiting.delete(call)
    if (waiting.isForeground && --this.#foreground === 0) this.#worker?.unref()
    return waiting
  }

  #ended(worker: Worker, cause: unknown): void {
    if (this.#worker !== worker) return
    this.#worker = undefined
    this.#mayStartAt = performance.now() + this.#pauseMs
    this.#pauseMs = Math.min(this.#pauseMs * 2, RESTART_MS_MAX)
    this.#failAll(`its thread has ended: ${cause instanceof Error ? cause.message : String(cause)}`)
    void worker.terminate()
  }

  #failAll(reason: string): void {
    for (const call of this.#waiting.keys()) this.#taken(call)?.reject(unavailable(reason))
  }
}

export const unavailable = (reason: string): AgentDBError =>
  new AgentDBError('VECTOR_INDEX_UNAVAILABLE', `the vector graph cannot be used: ${reason}`)

function errorOf({ code, message }: Extract<Reply, { ok: false }>): Error {
  const known = errorCodes.find((one): one is ErrorCode => one === code)
  return known === undefined ? new Error(message) : new AgentDBError(known, message)
}
