import { AgentDBError } from '../../schema/errors.ts'
import { readIdentity, type Connection } from '../../src/internal-for-sync.ts'
import type { PushRequest } from '../protocol/messages.ts'
import { ancestorToTell, markIntroduced, unintroduced } from './fork-store.ts'
import { noteCentreIsBehind } from './newer-schema.ts'
import { Outbox, type Pending } from './outbox.ts'
import type { StoreCursor } from './puller.ts'
import type { Transport } from './transport.ts'

export interface PusherOptions {
  readonly connection: Connection
  readonly transport: Transport
  readonly signal: AbortSignal
  /** Throws when the token is not of this store's user. */
  readonly checkToken: () => Promise<void>
  readonly cursor: () => StoreCursor
  /** The centre knows other work under the numbers of a client. */
  readonly onStoreFork: (clientId: string, error: AgentDBError) => void
}

/** How long a push waits for its acknowledgement before it is sent again. */
const ACKNOWLEDGEMENT_MS_MAX = 15_000

/** Sends the outbox, in order, one push at a time. Nothing leaves it here: only a batch acknowledges. */
export class Pusher {
  readonly #options: PusherOptions
  readonly #outbox: Outbox
  /** Sent and not yet acknowledged; a hint only, lost on restart. */
  #sentThrough = 0
  #sentAtMs = 0
  #exclusive: Promise<unknown> = Promise.resolve()
  /** Whether the centre has asked for the introduction again since it last took a push. */
  #isToldAgain = false
  /** A client that the centre was told the ancestor of. */
  #introduced: string | undefined

  constructor(options: PusherOptions) {
    this.#options = options
    this.#outbox = new Outbox(options.connection)
  }

  pending(): Pending {
    return this.#outbox.pending()
  }

  /** Sends all again that is not acknowledged: after a failure nobody knows what arrived. */
  forgetSent(): void {
    this.#sentThrough = 0
    this.#introduced = undefined
  }

  /** Resolves when no push is under way. */
  async rest(): Promise<void> {
    await this.#exclusive.catch(() => undefined)
  }

  /** Sends what has not been sent; what stays unacknowledged for long, or `again`, is sent again from there. */
  async pushAll(again: boolean): Promise<void> {
    const { connection, checkToken, cursor } = this.#options
    await checkToken()
    await this.#serialized(async () => {
      for (;;) {
        await this.#introduce()
        const { clientId, ackedSeq, hydrating } = cursor()
        // Pages are of no one position; what is written on top of them is sent when they are whole.
        if (hydrating && unintroduced(connection) === undefined) return
        const overdue = performance.now() - this.#sentAtMs > ACKNOWLEDGEMENT_MS_MAX
        if (this.#sentThrough < ackedSeq || again || overdue) this.#sentThrough = ackedSeq
        again = false
        const request = this.#outbox.nextPush(this.#sentThrough + 1)
        if (request === undefined) return markIntroduced(connection, clientId)
        const nextSeq = await this.#push(request)
        // A batch may have shown meanwhile that these numbers are another's.
        if (nextSeq === undefined || cursor().clientId !== request.clientId) continue
        this.#sentThrough = Math.max(nextSeq - 1, this.#sentThrough)
        this.#sentAtMs = performance.now()
      }
    })
  }

  /**
   * After a fork all that is pending is sent before anything is pulled: some of it the centre may have applied, and its
   * rows are to come in the batch that says so.
   */
  async mustBeKnown(): Promise<void> {
    if (unintroduced(this.#options.connection) !== undefined) await this.pushAll(false)
  }

  /**
   * Where to go on; undefined where the queue is another now: the centre has other work under these numbers, and the store
   * forked, or does not know yet what it was sent; or where the centre went back and lost the introduction.
   */
  async #push(request: PushRequest): Promise<number | undefined> {
    const { connection, transport, signal, onStoreFork } = this.#options
    try {
      const { nextSeq } = await transport.push(request, signal)
      this.#isToldAgain = false
      return nextSeq
    } catch (error) {
      if (hasCode(error, 'SCHEMA_BEHIND') && noteCentreIsBehind(connection)) return undefined
      if (hasCode(error, 'NOT_INTRODUCED')) {
        this.#introduced = undefined
        // Asked a second time in a row, it waits like after any failure.
        this.#isToldAgain = !this.#isToldAgain
        if (this.#isToldAgain) return undefined
      }
      if (!hasCode(error, 'STORE_FORKED')) throw error
      onStoreFork(request.clientId, error)
      return undefined
    }
  }

  /** Tells the centre what the store was before it forked. Nothing may come before this. */
  async #introduce(): Promise<void> {
    const { connection, transport, signal } = this.#options
    const { clientId } = readIdentity(connection)
    const ancestor = ancestorToTell(connection)
    if (ancestor === undefined || this.#introduced === clientId) return
    await transport.introduce({ clientId, ...ancestor }, signal)
    this.#introduced = clientId
  }

  /** One push at a time: two in flight could arrive in the other order. */
  #serialized<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#exclusive.catch(() => undefined).then(work)
    this.#exclusive = next
    return next
  }
}

/** Whether an error is AgentDB's own, of one kind. */
export const hasCode = (error: unknown, code: AgentDBError['code']): error is AgentDBError =>
  error instanceof AgentDBError && error.code === code
