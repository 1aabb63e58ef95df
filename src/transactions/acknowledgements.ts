import { AgentDBError } from '../../schema/errors.ts'
import type { Connection } from '../sqlite/connection.ts'
import type { CentrePosition, TransactionOutcome } from './local-transaction.ts'

/** A local transaction that committed and wrote something. */
export interface Committed {
  readonly seq: number
  readonly id: string
  /** The store's client at that time: a store that forks numbers its queue anew. */
  readonly clientId: string
}

/** What a batch said of a local transaction. */
export interface Acknowledgement extends CentrePosition {
  readonly outcomes: readonly TransactionOutcome[]
}

interface Waiting {
  readonly transaction: Committed
  readonly resolve: (acknowledgement: Acknowledgement) => void
  readonly reject: (error: unknown) => void
}

/** How often the work of another process that syncs this store is looked for, while someone waits. */
const POLL_MS = 250

/**
 * Waits for the batches that acknowledge local transactions. A batch that this process applies is seen at once, one of
 * another process on a timer that keeps no process alive. Without anyone waiting there is neither listener nor timer.
 */
export class Acknowledgements {
  readonly #connection: Connection
  readonly #waiting = new Set<Waiting>()
  #stop: (() => void) | undefined
  #seen = ''

  constructor(connection: Connection) {
    this.#connection = connection
  }

  of(transaction: Committed): Promise<Acknowledgement> {
    return new Promise((resolve, reject) => {
      if (!this.#connection.isOpen) return reject(storeClosed())
      const found = this.#read(transaction)
      if (found !== undefined) return resolve(found)
      this.#waiting.add({ transaction, resolve, reject })
      this.#start()
    })
  }

  /** Where the store stands now. */
  position(): CentrePosition {
    return (
      this.#connection.get<CentrePosition>('SELECT nonce AS history, position FROM sync_state') ?? {
        history: null,
        position: 0,
      }
    )
  }

  #start(): void {
    if (this.#stop !== undefined) return
    const connection = this.#connection
    const forgetApplied = connection.onApplied(() => this.#look())
    const forgetClose = connection.onClose(() => this.#end(storeClosed()))
    // A store in memory has no other process.
    const timer =
      connection.path === ':memory:' ? undefined : setInterval(() => this.#look(), POLL_MS).unref()
    this.#stop = () => {
      forgetApplied()
      forgetClose()
      clearInterval(timer)
      this.#stop = undefined
      this.#seen = ''
    }
  }

  #look(): void {
    try {
      const mark = this.#watermark()
      const seen = `${mark.clientId}.${mark.ackedSeq}`
      if (seen === this.#seen) return
      this.#seen = seen
      for (const one of this.#waiting) {
        const found = this.#read(one.transaction, mark)
        if (found === undefined) continue
        this.#waiting.delete(one)
        one.resolve(found)
      }
      if (this.#waiting.size === 0) this.#stop?.()
    } catch (error) {
      this.#end(error)
    }
  }

  #end(error: unknown): void {
    for (const { reject } of this.#waiting) reject(error)
    this.#waiting.clear()
    this.#stop?.()
  }

  #watermark(): { clientId: string; ackedSeq: number } {
    const mark = this.#connection.get<{ clientId: string; ackedSeq: number }>(
      'SELECT client_id AS clientId, acked_seq AS ackedSeq FROM sync_state',
    )
    if (mark === undefined)
      throw new AgentDBError(
        'STORE_CORRUPT',
        'the store has lost its identity (sync_state is empty)',
      )
    return mark
  }

  #read({ seq, id, clientId }: Committed, mark = this.#watermark()): Acknowledgement | undefined {
    const connection = this.#connection
    const sameNumbers = mark.clientId === clientId
    if (sameNumbers && mark.ackedSeq < seq) return undefined
    // It may be pending under another number: its store forked, or it waits for a row that the centre has lost.
    if (connection.get('SELECT 1 FROM sync_tx WHERE id = ?', id) !== undefined) return undefined
    const batch = sameNumbers
      ? connection.get<CentrePosition>(
          'SELECT nonce AS history, position FROM sync_ack WHERE seq >= ? ORDER BY seq LIMIT 1',
          seq,
        )
      : undefined
    const outcomes = connection.all<TransactionOutcome>(
      `SELECT state AS kind, table_name AS "table", row_id AS rowId, op, reason, message, id AS conflictId
      FROM sync_conflicts WHERE tx_id = ? AND state <> 'blocked' ORDER BY n`,
      id,
    )
    return { ...(batch ?? this.position()), outcomes }
  }
}

export const storeClosed = (): AgentDBError =>
  new AgentDBError('STORE_CLOSED', 'the store is closed; open it again')
