import { AgentDBError } from '../../schema/errors.ts'
import { mustTable, tableOfNumber } from '../../schema/tables.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import type { PullResponse } from '../protocol/messages.ts'
import { keepAcknowledged } from './kept.ts'
import { logUpTo } from './log-part.ts'
import type { Outcome, OutcomeLog } from './outcome-log.ts'
import { park } from './parked.ts'
import type { RowRef } from './row-ref.ts'
import { readState } from './store-position.ts'

/** A number whose transaction is not this store's own: the file was restored, copied, or cut by a power loss. */
export function mustBeOurWatermark(
  connection: Connection,
  watermark: PullResponse['watermark'],
): void {
  if (watermark === null) return
  const { seq, id } = watermark
  const state = readState(connection)
  const own =
    seq === state.acked_seq
      ? state.acked_id
      : connection.get<{ id: string }>('SELECT id FROM sync_tx WHERE seq = ?', seq)?.id
  if (own === id || seq < state.acked_seq) return
  throw new AgentDBError(
    'STORE_FORKED',
    `the centre has another transaction ${seq} of this store: the file was restored, copied or cut by a power loss`,
  )
}

/** What a watermark ended. */
export interface Acknowledged {
  readonly settled: Outcome[]
  readonly mutated: readonly RowRef[]
  /** Rows that derived something from those. */
  readonly around: readonly RowRef[]
  /** Refused rows of which no image ever comes. */
  readonly refused: readonly RowRef[]
}

/**
 * Acknowledged mutations leave the outbox here, in the transaction that brings their rows: sooner, a row would vanish;
 * later, a counter would count twice.
 */
export function acknowledge(
  connection: Connection,
  log: OutcomeLog,
  batch: PullResponse,
  at: string,
): Acknowledged {
  const { watermark, outcomes } = batch
  if (watermark === null || watermark.seq <= readState(connection).acked_seq)
    return { settled: [], mutated: [], around: [], refused: [] }
  const parked = outcomes.filter(({ kind }) => kind === 'parked').map(({ seq }) => seq)
  park(connection, new Set(parked))
  const part = logUpTo(connection, watermark.seq)
  const settled = log.settle(part, outcomes, at, batch)
  const refusals = settled.filter(({ kind }) => isRefusal(kind))
  keepAcknowledged(connection, part, new Set(refusals.map(({ transaction }) => transaction)), batch)
  const mutated: RowRef[] = []
  const around: RowRef[] = []
  const rows = connection.all<{ tbl: number; id: string; ref: string | null }>(
    'SELECT DISTINCT tbl, id, ref FROM sync_log WHERE tx <= ? AND n < ?',
    part.seq,
    part.belowN,
  )
  for (const { tbl, id, ref } of rows) {
    const table = tableOfNumber(tbl)
    if (table === undefined) continue
    mutated.push({ table, id })
    if (ref !== null) around.push({ table: mustTable('conversations'), id: ref })
  }
  connection.run('DELETE FROM sync_log WHERE tx <= ? AND n < ?', part.seq, part.belowN)
  connection.run('DELETE FROM sync_tx WHERE seq <= ?', watermark.seq)
  connection.run('UPDATE sync_state SET acked_seq = ?, acked_id = ?', watermark.seq, watermark.id)
  return {
    settled,
    mutated,
    around,
    refused: refusals
      .map(({ table, id }) => ({ table: mustTable(table), id }))
      .filter(({ table }) => table.writeClass === 'push-only'),
  }
}

const isRefusal = (kind: Outcome['kind']): boolean =>
  kind === 'rejected' || kind === 'dependency_failed'
