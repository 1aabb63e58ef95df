import { AgentDBError } from '../../schema/errors.ts'
import { timestampOfMicros, type Clock } from '../../schema/values/timestamp.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import type { ChecksumResponse } from '../protocol/messages.ts'
import type { AppliedBatch, Change } from './apply-batch.ts'
import { Backoff } from './backoff.ts'
import { Emitter } from './emitter.ts'
import { forkStore, lastFork, type Fork } from './fork-store.ts'
import { heal, mustHaveAllThatIsKept } from './healer.ts'
import type { Healed } from './heal-store.ts'
import { pruneKept } from './kept.ts'
import { localChecksum } from './local-checksum.ts'
import type { Outcome } from './outcome-log.ts'
import { countParked, holdsAny, ParkedRetry } from './parked.ts'
import { hasCode, Pusher } from './pusher.ts'
import { Puller, type Progress, type StoreCursor } from './puller.ts'
import { lockStore } from './store-lock.ts'
import { RetryLaterError, type Transport } from './transport.ts'

/**
 * States of the engine:
 *
 *   idle ──start──▶ connecting ──first batch──▶ live ──error──▶ waiting ──timer──▶ connecting
 *                        └────────error──────────▶ waiting
 *   any ──wrong user, unknown schema──▶ stopped                any ──close──▶ closed
 *
 * `stopped` needs someone to act; the queue is kept and the local store works on.
 */
export type SyncState = 'idle' | 'connecting' | 'live' | 'waiting' | 'stopped' | 'closed'

export interface SyncStatus {
  readonly state: SyncState
  /** Local transactions that no batch has acknowledged. */
  readonly pending: number
  /** Those of them that wait: for a row which the centre has lost, or for a centre that knows what they write. */
  readonly parked: number
  /** Age of the oldest of them in milliseconds. */
  readonly oldestPendingAgeMs: number | undefined
  readonly lastError:
    | { readonly code: string; readonly message: string; readonly at: string }
    | undefined
  /** When the next attempt is due, while waiting. */
  readonly nextRetryAt: string | undefined
  /** Position of the centre up to which this store has seen everything. */
  readonly position: number
  /** The whole scope is being read: what is there may be incomplete, and nothing is pushed until it is there. */
  readonly hydrating: boolean
  /** When this store last became a client of its own, since its file was copied or restored. */
  readonly lastFork: Fork | undefined
}

export type SyncEvents = {
  /** What became of each mutation of this store. */
  outcome: Outcome
  status: SyncStatus
  /** Rows that a batch of the centre changed here. */
  change: readonly Change[]
  /** How far reading the whole scope has come; a small one comes at once, without. */
  progress: Progress
  /** The centre knows other work under this store's numbers: it became a client of its own, and goes on. */
  fork: Fork
  /** The centre went back: what it lost and this store has is on its way, as its operator decided. */
  heal: Healed
}

export interface EngineOptions {
  readonly connection: Connection
  readonly clock: Clock
  readonly transport: Transport
  readonly random: () => number
  /** Throws when the token is not of this store's user. */
  readonly checkToken: () => Promise<void>
  /** How long a pull is held open by the centre. */
  readonly pullWaitMs: number
  readonly retryMinMs: number
  readonly retryMaxMs: number
  /** For how long what the centre took is kept, so that it can be brought back. Default: 7 days. */
  readonly healingWindowMs?: number | undefined
}

/** Errors that trying again does not mend. */
const stopping: ReadonlySet<string> = new Set([
  'FORKED',
  'TOKEN_USER_MISMATCH',
  'SCHEMA_UNKNOWN',
  'STORE_CLOSED',
  'STORE_CORRUPT',
])

/** After a stream that brought nothing, single requests do for this long. */
const LIVE_RETRY_MS = 5 * 60_000
/** Writes of other processes are looked for this often. */
const OUTBOX_POLL_MS = 1000

/**
 * Runs sync for one store: a loop that pushes whenever the outbox has something, and one that pulls all the time. Every
 * failure waits on a timer, never on the next write.
 */
export class SyncEngine {
  readonly #options: EngineOptions
  readonly #pusher: Pusher
  readonly #emitter = new Emitter<SyncEvents>()
  readonly #abort = new AbortController()
  readonly #lock: { release(): void }
  readonly #backoff: Backoff
  readonly #puller: Puller
  readonly #stopListening: () => void
  #state: SyncState = 'idle'
  #lastError: SyncStatus['lastError']
  #nextRetryAt: string | undefined
  #wake: (() => void) | undefined
  #loops: Promise<unknown> | undefined
  #liveAfterMs = 0
  /** The last pull came through, and no later one has failed. */
  #isPulling = false
  #healing: Promise<void> | undefined
  /** How often the store was brought in line: an answer to what was asked before says nothing of how it is now. */
  #healings = 0
  readonly #parked: ParkedRetry

  constructor(options: EngineOptions) {
    this.#options = options
    const { connection } = options
    this.#lock = lockStore(connection.path)
    this.#parked = new ParkedRetry(connection)
    this.#backoff = new Backoff({
      minMs: options.retryMinMs,
      maxMs: options.retryMaxMs,
      random: options.random,
    })
    this.#puller = new Puller({
      ...options,
      signal: this.#abort.signal,
      isOver: () => this.#isOver(),
      onApplied: (applied) => this.#applied(applied),
      onFirstPage: (nonce) =>
        mustHaveAllThatIsKept(connection, options.transport, nonce, this.#abort.signal),
      onProgress: (progress) => this.#emitter.emit('progress', progress),
    })
    this.#pusher = new Pusher({
      ...options,
      signal: this.#abort.signal,
      cursor: () => this.#cursor(),
      onStoreFork: (clientId, error) => this.#fork(clientId, error),
    })
    this.#stopListening = connection.onCommit(() => this.#wake?.())
  }

  on<K extends keyof SyncEvents>(name: K, handler: (event: SyncEvents[K]) => void): () => void {
    return this.#emitter.on(name, handler)
  }

  start(): void {
    if (this.#state !== 'idle') return
    this.#become('connecting')
    this.#loops = this.#run().catch((error: unknown) => this.#broken(error))
  }

  status(): SyncStatus {
    const { connection, clock } = this.#options
    const open = connection.isOpen
    const cursor = open ? this.#cursor() : undefined
    const pending = open ? this.#pusher.pending() : undefined
    const oldest = pending?.oldestClock
    return {
      state: this.#state,
      pending: pending?.transactions ?? 0,
      parked: open ? countParked(connection) : 0,
      oldestPendingAgeMs:
        oldest === undefined ? undefined : Math.max(0, Math.round((clock() - oldest) / 1000)),
      lastError: this.#lastError,
      nextRetryAt: this.#nextRetryAt,
      position: cursor?.position ?? 0,
      hydrating: cursor?.hydrating ?? false,
      lastFork: open ? lastFork(this.#options.connection) : undefined,
    }
  }

  /** Pushes and pulls until everything that was pending at the call is acknowledged and the head is reached. */
  async now(): Promise<void> {
    this.#mustRun()
    this.#parked.now()
    let { clientId } = this.#cursor()
    let { lastSeq } = this.#pusher.pending()
    try {
      for (let rounds = 0; ; rounds++) {
        if (rounds > DRAIN_ROUNDS_MAX)
          throw new AgentDBError(
            'SERVER_ERROR',
            'the centre took the queue but no batch acknowledges it',
          )
        let wasHeld = false
        const healings = this.#healings
        try {
          await this.#pusher.pushAll(rounds > 0)
          wasHeld = holdsAny(this.#options.connection)
          if (!(await this.#pullOnce(0))) {
            this.#mustRun()
            continue
          }
        } catch (error) {
          if (!hasCode(error, 'FORKED')) throw error
          if (this.#healings === healings) await this.#heal()
          continue
        }
        const stands = this.#cursor()
        const isReleased = wasHeld && !holdsAny(this.#options.connection)
        if (stands.clientId !== clientId || isReleased) ({ lastSeq } = this.#pusher.pending())
        else if (stands.ackedSeq >= lastSeq) return this.#drained()
        ;({ clientId } = stands)
      }
    } catch (error) {
      // What stopped the sync meanwhile broke off this call, too; it is the reason.
      this.#mustRun()
      this.#failed(error)
      throw error
    }
  }

  /** Where nothing runs, nobody else would say that what had failed is well again. */
  #drained(): void {
    if (this.#state !== 'idle' || this.#lastError === undefined) return
    this.#lastError = undefined
    this.#emitter.emit('status', this.status())
  }

  /** Checksums of both sides at one position; equal when nothing differs (I1). */
  async checksums(): Promise<{ local: ChecksumResponse; central: ChecksumResponse }> {
    const central = await this.#options.transport.checksum(this.#abort.signal)
    if (!(await this.#pullOnce(0))) this.#mustRun()
    const version = Math.min(central.schema ?? SCHEMA_VERSION, SCHEMA_VERSION)
    return { local: localChecksum(this.#options.connection, version), central }
  }

  async close(): Promise<void> {
    if (this.#state === 'closed') return
    try {
      this.#become('closed')
      this.#stopListening()
      this.#abort.abort()
      this.#wake?.()
      await this.#loops
      await this.#pusher.rest()
    } finally {
      this.#lock.release()
    }
  }

  async #run(): Promise<void> {
    const pull = async (): Promise<void> => {
      try {
        await this.#pullStep()
      } catch (error) {
        this.#isPulling = false
        throw error
      }
    }
    await Promise.all([this.#loop(() => this.#pushStep()), this.#loop(pull)])
  }

  async #loop(step: () => Promise<void>): Promise<void> {
    while (!this.#isOver()) {
      const healings = this.#healings
      try {
        await step()
      } catch (caught) {
        if (this.#isOver()) return
        const error = await this.#mended(caught, healings)
        if (error === undefined) continue
        if (this.#isOver()) return
        this.#failed(error)
        if (this.#isOver()) return
        const asked = error instanceof RetryLaterError ? error.retryAfterMs : 0
        await this.#sleep(this.#backoff.next(asked))
      }
    }
  }

  async #pushStep(): Promise<void> {
    this.#parked.ifDue()
    await this.#pusher.pushAll(false)
    // Where only the push had failed, the stream goes on and would not say that all is well again.
    if (this.#isPulling && this.#state !== 'live' && !this.#isOver()) this.#become('live')
    await new Promise<void>((done) => {
      const timer = setTimeout(done, OUTBOX_POLL_MS)
      this.#wake = () => {
        clearTimeout(timer)
        done()
      }
      if (this.#isOver()) this.#wake()
    })
    this.#wake = undefined
  }

  async #pullStep(): Promise<void> {
    // Only a pull that does not wait tells at once that the centre is there.
    const isLive = this.#state === 'live' && this.#cursor().cursor !== undefined
    if (isLive && performance.now() >= this.#liveAfterMs && this.#options.transport.live)
      return this.#follow()
    await this.#pullOnce(isLive ? this.#options.pullWaitMs : 0)
    this.#backoff.reset()
    this.#isPulling = true
    if (this.#state !== 'live' && !this.#isOver()) this.#become('live')
    // What waited until the whole scope was there.
    this.#wake?.()
  }

  async #follow(): Promise<void> {
    await this.#options.checkToken()
    await this.#pusher.mustBeKnown()
    const { clientId } = this.#cursor()
    let hasBatches = false
    try {
      await this.#puller.follow(() => {
        hasBatches = true
        this.#backoff.reset()
      })
    } catch (error) {
      if (hasCode(error, 'STORE_FORKED')) return this.#fork(clientId, error)
      // A proxy that buffers swallows a stream, but not an answer.
      if (!hasBatches && hasCode(error, 'UNREACHABLE'))
        this.#liveAfterMs = performance.now() + LIVE_RETRY_MS
      throw error
    }
  }

  /** The centre knows other work under the numbers of a client: from now on the store is another one. */
  #fork(from: string, error: AgentDBError): void {
    const { connection, clock } = this.#options
    const at = timestampOfMicros(clock())
    const fork = forkStore(connection, from, { at, reason: error.message })
    if (fork === undefined) return
    this.#pusher.forgetSent()
    this.#puller.interrupt()
    this.#emitter.emit('fork', fork)
    this.#emitter.emit('status', this.status())
    this.#wake?.()
  }

  /** The centre went back; both loops notice, one heals. */
  #heal(): Promise<void> {
    this.#healing ??= this.#healNow().finally(() => {
      this.#healing = undefined
    })
    return this.#healing
  }

  async #healNow(): Promise<void> {
    const { connection, transport, clock } = this.#options
    const at = timestampOfMicros(clock())
    const { healed, fork } = await heal({ connection, transport, signal: this.#abort.signal, at })
    this.#healings += 1
    this.#pusher.forgetSent()
    this.#puller.interrupt()
    if (fork !== undefined) this.#emitter.emit('fork', fork)
    if (healed !== undefined) this.#emitter.emit('heal', healed)
    this.#emitter.emit('status', this.status())
    this.#wake?.()
  }

  /** What is left of an error: nothing where the store could be brought in line. */
  async #mended(error: unknown, healings: number): Promise<unknown> {
    if (!hasCode(error, 'FORKED')) return error
    if (this.#healings > healings) return undefined
    try {
      return await this.#heal()
    } catch (failure) {
      return failure
    }
  }

  /** False where it was broken off before the store was there. */
  async #pullOnce(waitMs: number): Promise<boolean> {
    await this.#options.checkToken()
    for (;;) {
      await this.#pusher.mustBeKnown()
      const { clientId } = this.#cursor()
      try {
        return await this.#puller.pull(waitMs)
      } catch (error) {
        if (!hasCode(error, 'STORE_FORKED')) throw error
        this.#fork(clientId, error)
      }
    }
  }

  #applied({ outcomes, changes }: AppliedBatch): void {
    for (const outcome of outcomes) this.#emitter.emit('outcome', outcome)
    if (changes.length > 0) this.#emitter.emit('change', changes)
    if (outcomes.length > 0) {
      const { clock, connection, healingWindowMs = HEALING_WINDOW_MS } = this.#options
      pruneKept(connection, clock() - healingWindowMs * 1000)
      if (this.#emitter.has('status')) this.#emitter.emit('status', this.status())
    }
    if (changes.some(({ op }) => op === 'insert') && this.#parked.brought()) this.#wake?.()
  }

  #cursor(): StoreCursor {
    return this.#puller.cursor()
  }

  /** The store itself cannot be read any more; whoever looks is told why. */
  #broken(error: unknown): void {
    if (this.#isOver()) return
    this.#abort.abort()
    this.#state = 'stopped'
    const message = error instanceof Error ? error.message : String(error)
    const at = timestampOfMicros(this.#options.clock())
    this.#lastError = { code: 'STORE_CORRUPT', message, at }
  }

  #failed(error: unknown): void {
    if (this.#isOver()) return
    const code = error instanceof AgentDBError ? error.code : 'SERVER_ERROR'
    const message = error instanceof Error ? error.message : String(error)
    this.#lastError = { code, message, at: timestampOfMicros(this.#options.clock()) }
    this.#pusher.forgetSent()
    if (stopping.has(code)) {
      this.#abort.abort()
      this.#become('stopped')
      this.#wake?.()
    } else {
      // Not started, it waits for nothing: nobody tries again but the next `now`.
      this.#become(this.#state === 'idle' ? 'idle' : 'waiting')
    }
  }

  #isOver(): boolean {
    return this.#state === 'closed' || this.#state === 'stopped'
  }

  #mustRun(): void {
    if (this.#state === 'closed')
      throw new AgentDBError('SYNC_STOPPED', 'this sync was closed; connect again')
    if (this.#state === 'stopped') {
      throw new AgentDBError(
        (this.#lastError?.code ?? 'SYNC_STOPPED') as AgentDBError['code'],
        this.#lastError?.message ?? 'sync has stopped',
      )
    }
  }

  #become(state: SyncState): void {
    this.#state = state
    if (state !== 'waiting') this.#nextRetryAt = undefined
    if (state === 'live') this.#lastError = undefined
    this.#emitter.emit('status', this.status())
  }

  async #sleep(ms: number): Promise<void> {
    this.#nextRetryAt = timestampOfMicros(this.#options.clock() + Math.round(ms * 1000))
    await new Promise<void>((done) => {
      const finish = (): void => {
        clearTimeout(timer)
        this.#abort.signal.removeEventListener('abort', finish)
        done()
      }
      const timer = setTimeout(finish, ms)
      this.#abort.signal.addEventListener('abort', finish)
    })
    if (this.#state === 'waiting') this.#become('connecting')
  }
}

/** Rounds of push and pull before `now` gives up on an acknowledgement. */
const DRAIN_ROUNDS_MAX = 20

/** As long as a restored database may lack what its clients have. */
const HEALING_WINDOW_MS = 7 * 24 * 3_600_000
