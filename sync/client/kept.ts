import { loggedMutations } from '../../schema/sqlite/logged-images.ts'
import { allTables } from '../../schema/tables.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import type { LogPart } from './log-part.ts'

/** Transactions that the centre took, kept for as long as it may yet lose them. */
const appendTables = allTables
  .filter(({ writeClass }) => writeClass === 'append')
  .map(({ number }) => number)
  .join(', ')

/**
 * Keeps the transactions up to a number, before they leave the outbox; those that were refused have nothing that could
 * be lost. Of an inserted row that never changes only the reference is kept: the row is there.
 */
export function keepAcknowledged(
  connection: Connection,
  { seq, belowN }: LogPart,
  refused: ReadonlySet<number>,
  batch: { readonly nonce: string; readonly position: number; readonly clock: number },
): void {
  connection.run(
    `INSERT INTO sync_kept_tx (seq, id, clock, nonce, position, acked_nonce, acked_position, acked_at)
    SELECT seq, id, clock, nonce, position, ?, ?, ? FROM sync_tx
    WHERE seq <= ? AND seq NOT IN (SELECT value FROM json_each(?)) ORDER BY seq ON CONFLICT (id) DO NOTHING`,
    batch.nonce,
    batch.position,
    batch.clock,
    seq,
    JSON.stringify([...refused]),
  )
  connection.run(
    `INSERT INTO sync_kept_log (tx, tbl, id, op, patch, before, pushed, ref)
    SELECT k.n, l.tbl, l.id, l.op, CASE WHEN l.op = 'insert' AND l.tbl IN (${appendTables}) THEN NULL ELSE l.patch END, l.before, l.pushed, l.ref
    FROM ${loggedMutations} l JOIN sync_tx t ON t.seq = l.tx JOIN sync_kept_tx k ON k.id = t.id
    WHERE l.tx <= ? AND l.n < ? ORDER BY l.n`,
    seq,
    belowN,
  )
}

/** Forgets a first portion of what was acknowledged before a moment; called now and then, so that all goes in time. */
export function pruneKept(connection: Connection, beforeMicros: number): void {
  const oldest = connection.get<{ acked_at: number }>(
    'SELECT acked_at FROM sync_kept_tx ORDER BY n LIMIT 1',
  )
  if (oldest === undefined || oldest.acked_at >= beforeMicros) return
  connection.transaction(() => {
    const last = connection.get<{ n: number | null }>(
      'SELECT max(n) AS n FROM (SELECT n, acked_at FROM sync_kept_tx ORDER BY n LIMIT ?) WHERE acked_at < ?',
      PRUNED_AT_ONCE_MAX,
      beforeMicros,
    )
    connection.run('DELETE FROM sync_kept_log WHERE tx <= ?', last?.n ?? 0)
    connection.run('DELETE FROM sync_kept_tx WHERE n <= ?', last?.n ?? 0)
  })
}

const PRUNED_AT_ONCE_MAX = 1000

/** A history of the centre that this store has seen, and up to where. */
export interface SeenHistory {
  readonly nonce: string
  readonly position: number
}

/** Histories of the centre that this store has seen, the present one last. */
export const seenHistories = (connection: Connection): SeenHistory[] =>
  connection.all<SeenHistory>(
    `SELECT nonce, position FROM (SELECT n, nonce, position FROM sync_history
      UNION ALL SELECT 9223372036854775807, nonce, position FROM sync_state WHERE nonce IS NOT NULL) ORDER BY n`,
  )

/** Whether anything is kept that another history acknowledged. */
export const keepsOfOtherHistories = (connection: Connection, nonce: string): boolean =>
  connection.get('SELECT 1 FROM sync_kept_tx WHERE acked_nonce <> ? LIMIT 1', nonce) !== undefined

/** Notes the end of a history, when the first batch of another one comes. */
export function noteHistory(connection: Connection, nonce: string): void {
  connection.run(
    'INSERT INTO sync_history (nonce, position) SELECT s.nonce, s.position FROM sync_state s WHERE s.nonce <> ?',
    nonce,
  )
}
