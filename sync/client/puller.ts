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

  /** One pull; one that does not wait goes on until the store is at the head. */
  async pull(waitMs: number): Promise<void> {
    // A pull that waits would apply its batch after one asked for later; the later one takes its place.
    if (waitMs === 0 && !this.#isStreaming) this.interrupt()
    const abort = new AbortController()
    if (waitMs > 0) this.#waiting = abort
    const signal = AbortSignal.any([this.#options.signal, abort.signal])
    try {
      // An answer made for where the store no longer stands is dropped; who wants the head now asks again.
      for (;;) {
        const isApplied = await this.#pullFrom(this.cursor(), waitMs, signal)
        if (isApplied || waitMs > 0 || this.#options.isOver()) return
      }
    } catch (error) {
      if (error instanceof NeedsWholeScopeSignal) return this.#pullWhole()
      if (abort.signal.aborted && !this.#options.signal.aborted) return
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
        // Passed over though the store is not there yet: what follows it would be, too. It is asked for again.
        if (!isApplied && batch.position > this.cursor().position) return
        from = { ...from, nonce: batch.nonce, position: batch.position, cursor: batch.cursor }
      }
    } catch (error) {
      if (error instanceof NeedsWholeScopeSignal) return this.#pullWhole()
      if (abort.signal.aborted && !signal.aborted) return
      throw error
    } finally {
      this.#isStreaming = false
    }
    if (!isOver()) throw new AgentDBError('UNREACHABLE', 'the centre ended the live stream')
  }

  async #pullWhole(): Promise<void> {
    const { signal } = this.#options
    await this.#pullFrom({ ...this.cursor(), cursor: undefined }, 0, signal)
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
    if (batch.page?.first === true) await this.#options.onFirstPage(batch.nonce)
    const now = this.cursor()
    // A store that forked meanwhile is not who asked.
    if (now.clientId !== from.clientId) return false
    const isOneHistory = now.nonce === from.nonce || now.nonce === batch.nonce
    const { page } = batch
    this.#options.connection.setLoading(page?.last === false)
    if (page === null) {
      // Beyond it already, by the stream: whoever asked has what it asked for.
      if (isOneHistory && batch.position < now.position) return true
      if (!isOneHistory || from.position > now.position) return false
      // Of another history, which need not contain what has come since the store asked.
      if (now.nonce !== batch.nonce && from.position !== now.position) return false
      this.#applyNow(batch)
      return true
    }
    // Pages follow each other; only a first one may come from anywhere.
    if (!page.first && now.cursor !== from.cursor) return false
    if (page.last && isOneHistory && batch.position < now.position) return false
    await slices.apply(batch, from.cursor, (slice) => this.#applyNow(slice))
    const { rows, total, reason = 'new', last: done } = page
    if (!(page.first && done))
      this.#options.onProgress({ phase: 'hydrating', reason, rows, total, done })
    return true
  }

  #applyNow(batch: PullResponse): void {
    const { connection, clock, onApplied } = this.#options
    const at = timestampOfMicros(clock())
    onApplied(applyBatch(connection, readIdentity(connection), batch, at))
  }
}
