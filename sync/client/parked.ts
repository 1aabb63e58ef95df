import type { Connection } from '../../src/internal-for-sync.ts'

/**
 * Parked transactions: they need a row that the centre has lost and whose author has not come back yet. They have left
 * the queue, so that what follows goes on, and are still pending: numbers from here on are no numbers of the queue.
 */
export const PARKED_FROM = 2 ** 52
/** From here on: transactions with what the centre does not know yet, until it is upgraded. */
export const HELD_FROM = PARKED_FROM + 2 ** 51

/** Takes transactions out of the queue, in their order. Runs inside the caller's transaction. */
export function park(connection: Connection, seqs: Iterable<number>): void {
  for (const seq of [...seqs].toSorted((a, b) => a - b)) {
    if (connection.get('SELECT 1 FROM sync_tx WHERE seq = ?', seq) === undefined) continue
    renumber(connection, seq, freeNumber(connection, PARKED_FROM, HELD_FROM))
  }
}

/**
 * Takes transactions out of the queue that were not sent, in their order; an empty one takes the place of each. Runs
 * inside the caller's transaction.
 */
export function hold(connection: Connection, seqs: readonly number[]): void {
  for (const seq of seqs) {
    const to = freeNumber(connection, HELD_FROM, Number.MAX_SAFE_INTEGER)
    renumber(connection, seq, to)
    connection.run(
      `INSERT INTO sync_tx (seq, id, clock, nonce, position, first_n)
      SELECT ?, lower(hex(randomblob(16))), clock, nonce, position, first_n FROM sync_tx WHERE seq = ?`,
      seq,
      to,
    )
  }
}

function freeNumber(connection: Connection, from: number, below: number): number {
  const last = connection.get<{ seq: number | null }>(
    'SELECT max(seq) AS seq FROM sync_tx WHERE seq >= ? AND seq < ?',
    from,
    below,
  )
  return (last?.seq ?? from - 1) + 1
}

export const countParked = (connection: Connection, below = Number.MAX_SAFE_INTEGER): number =>
  connection.get<{ count: number }>(
    'SELECT count(*) AS count FROM sync_tx WHERE seq >= ? AND seq < ?',
    PARKED_FROM,
    below,
  )?.count ?? 0

/** Whether anything waits for the centre's upgrade. */
export const holdsAny = (connection: Connection): boolean =>
  connection.get('SELECT 1 FROM sync_tx WHERE seq >= ? LIMIT 1', HELD_FROM) !== undefined

/**
 * Puts what is parked at the end of the queue, in its order: all of it, or what has a number below. Runs inside the
 * caller's transaction.
 */
export function unpark(connection: Connection, below = Number.MAX_SAFE_INTEGER): void {
  const parked = connection.all<{ seq: number }>(
    'SELECT seq FROM sync_tx WHERE seq >= ? AND seq < ? ORDER BY seq',
    PARKED_FROM,
    below,
  )
  for (const { seq } of parked) {
    const next = connection.get<{ tx: number; n: number }>(
      'SELECT tx, (SELECT coalesce(max(n), 0) FROM sync_log) AS n FROM sync_state',
    )
    if (next === undefined) return
    // Mutations lie in the order of the queue.
    connection.run(
      `UPDATE sync_conflicts SET n = n + ? WHERE state = 'blocked' AND tx = ?`,
      next.n,
      seq,
    )
    connection.run('UPDATE sync_log SET n = -n - ? WHERE tx = ?', next.n, seq)
    connection.run('UPDATE sync_log SET n = -n WHERE tx = ?', seq)
    renumber(connection, seq, next.tx)
    connection.run(
      'UPDATE sync_tx SET first_n = coalesce((SELECT min(n) FROM sync_log WHERE tx = sync_tx.seq), ? + 1) WHERE seq = ?',
      next.n,
      next.tx,
    )
    connection.run('UPDATE sync_state SET tx = tx + 1')
  }
}

function renumber(connection: Connection, from: number, to: number): void {
  connection.run('UPDATE sync_tx SET seq = ? WHERE seq = ?', to, from)
  connection.run('UPDATE sync_log SET tx = ? WHERE tx = ?', to, from)
  connection.run(`UPDATE sync_conflicts SET tx = ? WHERE state = 'blocked' AND tx = ?`, to, from)
}

/** How often parked transactions are sent again, to learn that they wait no longer. */
const RETRY_MS = 30_000
/** Rows that come may be what some wait for; but not more often than this. */
const BROUGHT_MS = 1000

/** Sends parked transactions again: on a timer, when rows come, and when asked. */
export class ParkedRetry {
  readonly #connection: Connection
  #lastMs = performance.now()

  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** Puts them back into the queue; says whether there were any that could. */
  now(): boolean {
    this.#lastMs = performance.now()
    if (countParked(this.#connection, HELD_FROM) === 0 || this.#areOvertaken()) return false
    this.#connection.applying(() => unpark(this.#connection, HELD_FROM))
    return true
  }

  /** Whether a later change of one of their rows is in the queue: decided first, it waits behind them, or is done. */
  #areOvertaken(): boolean {
    const later = this.#connection.get(
      `SELECT 1 FROM sync_log p JOIN sync_log l ON l.id = p.id AND l.tbl = p.tbl
      WHERE p.tx >= ? AND p.tx < ? AND l.tx < ? LIMIT 1`,
      PARKED_FROM,
      HELD_FROM,
      PARKED_FROM,
    )
    return later !== undefined
  }

  ifDue(): void {
    if (performance.now() - this.#lastMs > RETRY_MS) this.now()
  }

  /** Rows came. */
  brought(): boolean {
    return performance.now() - this.#lastMs > BROUGHT_MS && this.now()
  }
}
