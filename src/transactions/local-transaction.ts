import { AgentDBError } from '../../schema/errors.ts'

/** A place in the centre's order of commits. Positions compare only within one history. */
export interface CentrePosition {
  /** Name of the centre's history; null while the store has never met the centre. */
  readonly history: string | null
  readonly position: number
}

/** What became of a mutation that was not simply applied. */
export interface TransactionOutcome {
  readonly kind: 'merged' | 'superseded' | 'rejected' | 'dependency_failed'
  readonly table: string
  readonly rowId: string
  readonly op: 'insert' | 'update' | 'delete'
  /** Stable word for why, such as `forbidden`, `deleted`, `unique`, `check`, `concurrent`, `next_version`. */
  readonly reason: string | null
  readonly message: string | null
  /** Its record in `db.syncConflicts`, unless someone has retried or discarded that. */
  readonly conflictId: string
}

/** A local transaction that the centre took. */
export interface Acceptance extends CentrePosition {
  /** Mutations of it that were `merged` or `superseded`; those that were simply applied are not listed. */
  readonly outcomes: readonly TransactionOutcome[]
}

/**
 * A local transaction, as `db.transaction` hands it to its work. It can be kept and asked later, also after the
 * acknowledgement. Only a batch of the centre acknowledges: both promises wait for one that this store has applied,
 * whichever process syncs it. They do not keep a process alive, and cost nothing as long as nobody asks.
 *
 * @example
 * const sent = db.transaction((tx) => {
 *   db.incidents.create({ title: 'Checkout answers 500', severity: 'high', source: 'pager' })
 *   return tx
 * })
 * try {
 *   const { outcomes } = await sent.accepted
 *   console.log(outcomes.length === 0 ? 'as written' : outcomes)
 * } catch (error) {
 *   if (error instanceof TransactionRejectedError) console.error(error.message, error.outcomes)
 * }
 */
export interface LocalTransaction {
  /**
   * Random id for life, 32 hexadecimal digits: what the centre knows it by, and `Conflict.transactionId`. Undefined as
   * long as it wrote nothing; final once it committed.
   */
  readonly id: string | undefined
  /**
   * Resolves when the centre took the transaction: every mutation was `applied`, `merged` or `superseded`. At once for
   * one that wrote nothing. Rejects with a {@link TransactionRejectedError} when the centre refused it, and with
   * `TRANSACTION_ROLLED_BACK` or `STORE_CLOSED`.
   */
  readonly accepted: Promise<Acceptance>
  /**
   * Resolves with the position from which this store shows the centre's rows with the outcome of this transaction,
   * whatever it was. At once for one that wrote nothing. Rejects with `TRANSACTION_ROLLED_BACK` or `STORE_CLOSED`.
   *
   * @example
   * const edit = db.transaction((tx) => {
   *   db.users.update(db.userId, { timezone: 'Europe/Berlin' })
   *   return tx
   * })
   * const { position } = await edit.visible
   */
  readonly visible: Promise<CentrePosition>
}

/**
 * The centre refused a local transaction: nothing of it happened there, and here it is undone. What it would have
 * written stays in `db.syncConflicts`, to be retried or discarded.
 *
 * @example
 * const undo = (error: unknown): void => {
 *   if (!(error instanceof TransactionRejectedError)) throw error
 *   for (const { conflictId } of error.outcomes) db.syncConflicts.discard(conflictId)
 * }
 */
export class TransactionRejectedError extends AgentDBError {
  override readonly code = 'TRANSACTION_REJECTED'
  readonly transactionId: string
  /** One for each mutation: the culprit is `rejected`, the others are `dependency_failed`. */
  readonly outcomes: readonly TransactionOutcome[]

  constructor(transactionId: string, outcomes: readonly TransactionOutcome[]) {
    const culprit = outcomes.find(({ kind }) => kind === 'rejected') ?? outcomes[0]
    const what = culprit === undefined ? '' : `: ${culprit.op} ${culprit.table} ${culprit.rowId}: `
    const why = culprit === undefined ? '' : (culprit.message ?? culprit.reason ?? culprit.kind)
    super('TRANSACTION_REJECTED', `the centre refused the local transaction${what}${why}`, {
      table: culprit?.table,
    })
    this.name = 'TransactionRejectedError'
    this.transactionId = transactionId
    this.outcomes = outcomes
  }
}
