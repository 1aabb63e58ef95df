import { AgentDBError } from '../../schema/errors.ts'
import { newId } from '../../schema/values/id.ts'
import type { Database } from '../postgres/database.ts'
import { QdrantEngine, QdrantFailure } from '../qdrant/engine.ts'
import { advance, latestBatch } from '../sync/positions.ts'
import { Backoff } from './backoff.ts'
import { Breaker } from './breaker.ts'
import { VectorConsumer } from './consumer.ts'
import type { VectorSettings } from './settings.ts'
import { Lease, LeaseLost, readGenerations, readWatermark } from './state.ts'

/** Where Qdrant is. */
export interface QdrantAddress {
  readonly url: string
  readonly apiKey: string | undefined
}

const RETRY = { minMs: 100, maxMs: 30_000, random: Math.random }
const SEARCH_TIMEOUT_MS = 5000
const CLOSE_WAIT_MS = 3000

/** Runs the consumer of one server for as long as the server runs. */
export class VectorService {
  /** For searches, which give up sooner. */
  readonly engine: QdrantEngine
  /** Of searches alone: whether what is written passes says nothing of them. */
  readonly breaker = new Breaker({ ...RETRY, now: () => performance.now() })
  readonly settings: VectorSettings
  readonly #database: Database
  readonly #lease: Lease
  readonly #consumer: VectorConsumer
  readonly #onError: (error: unknown) => void
  readonly #backoff = new Backoff(RETRY)
  /** There may be a note of a failure, of this server or of the one that followed before. */
  #isNoted = true
  readonly #stop = new AbortController()
  readonly #waiting = new Set<() => void>()
  #wake: (() => void) | undefined
  #running: Promise<void> | undefined

  constructor(
    database: Database,
    address: QdrantAddress,
    settings: VectorSettings,
    onError: (error: unknown) => void,
  ) {
    this.#database = database
    this.settings = settings
    this.#onError = onError
    const { timeoutMs } = settings
    const engine = new QdrantEngine({ ...address, timeoutMs })
    this.engine = new QdrantEngine({
      ...address,
      timeoutMs: Math.min(timeoutMs, SEARCH_TIMEOUT_MS),
    })
    this.#lease = new Lease(database, newId(), settings.leaseMs)
    this.#consumer = new VectorConsumer({
      database,
      engine,
      settings,
      lease: this.#lease,
      onDead: (failure) => onError(toldOf(failure)),
    })
  }

  start(): void {
    this.#running ??= this.#run()
  }

  /** Resolves once all that was committed before the call is in Qdrant, whichever server brings it there. */
  async caughtUp(signal?: AbortSignal): Promise<void> {
    await advance(this.#database, true)
    const head = await latestBatch(this.#database)
    this.#wake?.()
    for (;;) {
      signal?.throwIfAborted()
      const watermark = await readWatermark(this.#database)
      const generations = await readGenerations(this.#database)
      const isThere = head === undefined || watermark.position >= head.position
      const isOfNow = watermark.nonce === (await latestBatch(this.#database))?.nonce
      if (isThere && isOfNow && !generations.some(({ state }) => state === 'filling')) return
      await this.nextPass()
    }
  }

  /** A search was failed by Qdrant: what it has is looked at, although the log may say nothing. */
  distrust(): void {
    this.#consumer.distrust()
  }

  async close(): Promise<void> {
    this.#stop.abort()
    this.#wake?.()
    // A call that hangs is not waited for: what it still writes is fenced.
    let timer: NodeJS.Timeout | undefined
    const patience = new Promise<void>((done) => (timer = setTimeout(done, CLOSE_WAIT_MS)))
    await Promise.race([this.#running, patience])
    clearTimeout(timer)
    for (const wake of this.#waiting) wake()
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop
    while (!signal.aborted) {
      let waitMs = this.settings.pollMs
      try {
        if (await this.#consumer.pass(signal)) await this.#succeeded()
        else this.#isNoted = true
      } catch (error) {
        if (!signal.aborted) waitMs = await this.#failed(error)
      }
      for (const wake of this.#waiting) wake()
      await this.#sleep(waitMs)
    }
    await this.#lease.release().catch(() => undefined)
  }

  /** Where nothing has changed since, no position is told that would take the note away. */
  async #succeeded(): Promise<void> {
    if (this.#isNoted) await this.#lease.forgetNote()
    this.#isNoted = false
    this.#backoff.succeeded()
  }

  /** Tells of the first failure in a row; tries again after a while. */
  async #failed(error: unknown): Promise<number> {
    this.#isNoted = true
    if (error instanceof LeaseLost) return this.settings.pollMs
    const isFirst = this.#backoff.failures === 0
    const waitMs = this.#backoff.failed()
    const told = toldOf(error)
    if (isFirst) this.#onError(told)
    try {
      await this.#lease.note(this.#backoff.failures, told.message)
    } catch {
      // The database is away, too: what was told already has to do.
    }
    return waitMs
  }

  /** Resolves after this server's next pass, and now and then, since another server may be the one that works. */
  nextPass(): Promise<void> {
    return new Promise((done) => {
      const wake = (): void => {
        clearTimeout(timer)
        this.#waiting.delete(wake)
        done()
      }
      // Another server may hold the lease: its passes are not heard here.
      const timer = setTimeout(wake, this.settings.pollMs)
      this.#waiting.add(wake)
    })
  }

  #sleep(ms: number): Promise<void> {
    if (this.#stop.signal.aborted) return Promise.resolve()
    return new Promise((done) => {
      const wake = (): void => {
        clearTimeout(timer)
        this.#wake = undefined
        done()
      }
      const timer = setTimeout(wake, ms)
      this.#wake = wake
    })
  }
}

/** A failure as the operator reads it. */
export function toldOf(error: unknown): Error {
  if (error instanceof QdrantFailure) {
    const what = {
      away: 'Qdrant does not answer',
      denied: 'Qdrant refuses the key',
      missing: 'a collection is gone from Qdrant',
      refused: 'Qdrant refuses what it is asked',
    }[error.kind]
    return new AgentDBError('QDRANT_UNREACHABLE', `${what}: ${error.message}`, { cause: error })
  }
  return error instanceof Error ? error : new Error(String(error))
}
