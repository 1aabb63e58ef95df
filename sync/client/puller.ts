import { AgentDBError } from '../../schema/errors.ts'
import { timestampOfMicros, type Clock } from '../../schema/values/timestamp.ts'
import { readIdentity, type Connection } from '../../src/internal-for-sync.ts'
import type { PullResponse } from '../protocol/messages.ts'
import { applyBatch, NeedsWholeScopeSignal, type AppliedBatch } from './apply-batch.ts'
import { Slices } from './hydration.ts'
import type { Transport } from './transport.ts'

/** Where a store stands. */
export interface StoreCursor {
  readonly clientId: string
  /** What to ask from: while the whole scope is read, after its last page. */
  readonly cursor: string | undefined
  readonly nonce: string | null
  readonly position: number
  readonly ackedSeq: number
  /** The whole scope is being read: what is there may be incomplete, and is not of one position. */
  readonly hydrating: boolean
}

/** How far reading the whole scope has come. */
export interface Progress {
  readonly phase: 'hydrating'
  /** Why it is read: a new store, or what made it necessary. */
  readonly reason: 'new' | 'history_pruned' | 'schema_changed' | 'role_changed'
  readonly rows: number
  /** As counted when it began. */
  readonly total: number
  readonly done: boolean
}

export interface PullerOptions {
  readonly connection: Connection
  readonly clock: Clock
  readonly transport: Transport
  readonly signal: AbortSignal
  readonly isOver: () => boolean
  readonly onApplied: (applied: AppliedBatch) => void
  /** Before a scope is read from the beginning; what it throws leaves everything as it is. */
  readonly onFirstPage: (nonce: string) => Promise<void>
  readonly onProgress: (progress: Progress) => void
}

/** Brings what the centre tells into the store: single pulls, one stream, and the whole scope page by page. */
export class Puller {
  readonly #options: PullerOptions
  #waiting: AbortController | undefined
  #isStreaming = false
  #applying: Promise<unknown> = Promise.resolve()

  constructor(options: PullerOptions) {
    this.#options = options
  }

  cursor(): StoreCursor {
    const row = this.#options.connection.get<{
      client_id: string
      cursor: string | null
      page_cursor: string | null
      nonce: string | null
      position: number
      acked_seq: number
    }>('SELECT client_id, cursor, page_cursor, nonce, position, acked_seq FROM sync_state')
    return {
      clientId: row?.client_id ?? '',
      // Empty where the first page of a whole scope was broken off: it is asked for from the beginning.
      cursor: (row?.page_cursor ?? row?.cursor ?? '') || undefined,
      nonce: row?.nonce ?? null,
      position: row?.position ?? 0,
      ackedSeq: row?.acked_seq ?? 0,
      hydrating: row?.page_cursor != null || row?.cursor == null,
    }
  }

  /** Ends a pull that waits, or the stream: what it was asked for is of no use any more. */
  interrupt(): void {
    this.#waiting?.abort()
  }

  /**
   * One pull; one that does not wait goes on until the store is at the head. False where it was broken off before that,
   * as when the sync is closed between two pages.
   */
  async pull(waitMs: number): Promise<boolean> {
    // A pull that waits would apply its batch after one asked for later; the later one takes its place.
    if (waitMs === 0 && !this.#isStreaming) this.interrupt()
    const abort = new AbortController()
    if (waitMs > 0) this.#waiting = abort
    const signal = AbortSignal.any([this.#options.signal, abort.signal])
    try {
      // An answer made for where the store no longer stands is dropped; who wants the head now asks again.
      for (;;) {
        const isApplied = await this.#pullFrom(this.cursor(), waitMs, signal)
        if (isApplied || waitMs > 0 || this.#options.isOver()) return isApplied
      }
    } catch (error) {
      if (error instanceof NeedsWholeScopeSignal) return this.#pullWhole()
      if (abort.signal.aborted && !this.#options.signal.aborted) return false
      throw error
    }
  }

  /** Takes batches from one stream for as long as it lasts; `onBatch` hears of each. Throws when it ends by itself. */
  async follow(onBatch: () => void): Promise<void> {
    const { transport, signal, isOver } = this.#options
    const abort = new AbortController()
    this.#waiting = abort
    this.#isStreaming = true
    let from = this.cursor()
    const slices = new Slices()
    const either = AbortSignal.any([signal, abort.signal])
    try {
      for await (const batch of transport.live?.(from, either) ?? []) {
        if (isOver()) return
        onBatch()
        const isApplied = await this.#apply(batch, from, slices)
        // Passed over though the store has not seen it: what follows it would be, too. It is asked for again.
        if (!isApplied) return
        from =
          batch.page?.last === false
            ? { ...from, cursor: batch.cursor }
            : { ...from, nonce: batch.nonce, position: batch.position, cursor: batch.cursor }
      }
    } catch (error) {
      if (error instanceof NeedsWholeScopeSignal) {
        await this.#pullWhole()
        return
      }
      if (abort.signal.aborted && !signal.aborted) return
      throw error
    } finally {
      this.#isStreaming = false
    }
    if (!isOver()) throw new AgentDBError('UNREACHABLE', 'the centre ended the live stream')
  }

  async #pullWhole(): Promise<boolean> {
    const { signal } = this.#options
    return await this.#pullFrom({ ...this.cursor(), cursor: undefined }, 0, signal)
  }

  /** False where the answer came too late to be of use. */
  async #pullFrom(from: StoreCursor, waitMs: number, signal: AbortSignal): Promise<boolean> {
    const { transport, isOver } = this.#options
    const ask = (cursor: string | undefined): Promise<PullResponse> =>
      transport.pull({ ...from, cursor, waitMs }, signal)
    const slices = new Slices()
    let batch = await ask(from.cursor)
    let asked = from
    for (;;) {
      if (isOver()) return false
      // The next page is on its way while this one goes in.
      const isOpen = batch.page?.last === false
      const next = isOpen ? ask(batch.cursor) : undefined
      next?.catch(() => undefined)
      if (!(await this.#apply(batch, asked, slices))) return false
      if (next === undefined) return true
      asked = { ...asked, cursor: batch.cursor }
      batch = await next
    }
  }

  /**
   * Applies what the centre has told of the span after `from`. False where the store no longer stands within that span:
   * another pull was faster (I4). Within it, rows that the store has already seen come once more as they are now.
   */
  async #apply(batch: PullResponse, from: StoreCursor, slices: Slices): Promise<boolean> {
    const { connection, isOver, onFirstPage, onProgress } = this.#options
    if (batch.page?.first === true) await onFirstPage(batch.nonce)
    return this.#alone(async () => {
      if (isOver()) return false
      const fit = fitOf(batch, from, this.cursor())
      // Beyond it already, by the stream: whoever asked has what it asked for.
      if (fit !== 'next') return fit === 'seen'
      const { page } = batch
      connection.setLoading(page?.last === false)
      if (page === null) {
        this.#applyNow(batch)
        return true
      }
      await slices.apply(batch, from.cursor, (slice) => this.#applyNow(slice))
      const { rows, total, reason = 'new', last: done } = page
      if (!(page.first && done)) onProgress({ phase: 'hydrating', reason, rows, total, done })
      return true
    })
  }

  /** One answer at a time: between two slices of a page no other may come in. */
  #alone<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#applying.catch(() => undefined).then(work)
    this.#applying = next
    return next
  }

  #applyNow(batch: PullResponse): void {
    const { connection, clock, onApplied } = this.#options
    const at = timestampOfMicros(clock())
    onApplied(applyBatch(connection, readIdentity(connection), batch, at))
  }
}

/** What an answer is to a store that has gone on since it asked: what comes next, what it has, or of no use. */
function fitOf(
  { nonce, position, page }: PullResponse,
  from: StoreCursor,
  now: StoreCursor,
): 'next' | 'seen' | 'late' {
  // A store that forked meanwhile is not who asked.
  if (now.clientId !== from.clientId) return 'late'
  // Pages follow each other; only a first one may come from anywhere.
  if (page?.first === false) return now.cursor === from.cursor ? 'next' : 'late'
  // While the whole scope is read the rows are of no position that a span could follow.
  if (page === null && now.hydrating) return 'late'
  // Of another history, before or after the store's own; that one need not contain what has come since the store asked.
  if (nonce !== now.nonce)
    return now.nonce === from.nonce && now.position === from.position ? 'next' : 'late'
  if (position < now.position) return page === null ? 'seen' : 'late'
  return page === null && from.position > now.position ? 'late' : 'next'
}
