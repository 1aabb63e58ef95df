import { AgentDBError } from '../../schema/errors.ts'
import { refuseAsyncFunction, type Connection } from '../sqlite/connection.ts'
import {
  Acknowledgements,
  storeClosed,
  type Acknowledgement,
  type Committed,
} from './acknowledgements.ts'
import {
  TransactionRejectedError,
  type Acceptance,
  type CentrePosition,
  type LocalTransaction,
} from './local-transaction.ts'

/** Runs local transactions and gives each its handle; nested ones have that of the outermost. */
export class Transactions {
  readonly #connection: Connection
  readonly #acknowledgements: Acknowledgements
  #current: Handle | undefined

  constructor(connection: Connection) {
    this.#connection = connection
    this.#acknowledgements = new Acknowledgements(connection)
  }

  run<T>(work: (tx: LocalTransaction) => T): T {
    refuseAsyncFunction(work)
    const connection = this.#connection
    const outer = this.#current
    if (outer !== undefined) return connection.transaction(() => work(outer))
    const handle = new Handle(connection, this.#acknowledgements)
    this.#current = handle
    let committed: Committed | undefined
    try {
      const result = connection.transaction(() => {
        const value = work(handle)
        committed = openTransaction(connection)
        return value
      })
      handle.end(committed === undefined ? { kind: 'empty' } : { kind: 'committed', committed })
      return result
    } catch (error) {
      handle.end({ kind: 'rolled-back', error })
      throw error
    } finally {
      this.#current = undefined
    }
  }
}

/** The transaction that is open, once it has written something. */
const openTransaction = (connection: Connection): Committed | undefined =>
  connection.get<Committed>(
    'SELECT t.seq, t.id, s.client_id AS clientId FROM sync_state s JOIN sync_tx t ON t.seq = s.tx',
  )

/**
 *   open ──commit──▶ committed ──batch──▶ acknowledged
 *     ├────commit, nothing written──▶ empty
 *     └────throw──▶ rolled-back
 */
type State =
  | { readonly kind: 'open' }
  | { readonly kind: 'committed'; readonly committed: Committed }
  | { readonly kind: 'empty' }
  | { readonly kind: 'rolled-back'; readonly error: unknown }

class Handle implements LocalTransaction {
  readonly #connection: Connection
  readonly #acknowledgements: Acknowledgements
  #state: State = { kind: 'open' }
  #ended: (() => void) | undefined
  #acknowledged: Promise<Acknowledgement> | undefined
  #accepted: Promise<Acceptance> | undefined
  #visible: Promise<CentrePosition> | undefined

  constructor(connection: Connection, acknowledgements: Acknowledgements) {
    this.#connection = connection
    this.#acknowledgements = acknowledgements
  }

  get id(): string | undefined {
    switch (this.#state.kind) {
      case 'open':
        return openTransaction(this.#connection)?.id
      case 'committed':
        return this.#state.committed.id
      default:
        return undefined
    }
  }

  get accepted(): Promise<Acceptance> {
    this.#accepted ??= quiet(
      this.#acknowledgement().then((acknowledgement) => {
        const { outcomes } = acknowledgement
        const isRefused = outcomes.some(
          ({ kind }) => kind === 'rejected' || kind === 'dependency_failed',
        )
        if (isRefused) throw new TransactionRejectedError(this.id ?? '', outcomes)
        return acknowledgement
      }),
    )
    return this.#accepted
  }

  get visible(): Promise<CentrePosition> {
    this.#visible ??= quiet(
      this.#acknowledgement().then(({ history, position }) => ({ history, position })),
    )
    return this.#visible
  }

  end(state: State): void {
    this.#state = state
    this.#ended?.()
  }

  /** Asked once, whoever asks: an answer stays what it was, also after the store is closed. */
  #acknowledgement(): Promise<Acknowledgement> {
    this.#acknowledged ??= this.#ask()
    return this.#acknowledged
  }

  async #ask(): Promise<Acknowledgement> {
    if (this.#state.kind === 'open') {
      await new Promise<void>((done) => {
        this.#ended = done
      })
    }
    const state = this.#state
    if (state.kind === 'committed') return this.#acknowledgements.of(state.committed)
    if (state.kind === 'rolled-back') throw rolledBack(state.error)
    if (!this.#connection.isOpen) throw storeClosed()
    return { ...this.#acknowledgements.position(), outcomes: [] }
  }
}

const rolledBack = (cause: unknown): AgentDBError =>
  new AgentDBError(
    'TRANSACTION_ROLLED_BACK',
    `the local transaction threw and was rolled back: ${cause instanceof Error ? cause.message : String(cause)}`,
    { cause },
  )

/** Who reads one promise and not the other must not be ended by the other's rejection. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined)
  return promise
}
