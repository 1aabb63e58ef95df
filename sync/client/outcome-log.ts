import type { TableDefinition } from '../../schema/define.ts'
import { loggedMutations } from '../../schema/sqlite/logged-images.ts'
import { tableOfNumber } from '../../schema/tables.ts'
import { newId } from '../../schema/values/id.ts'
import { canonicalTimestamp } from '../../schema/values/timestamp.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import { formerClients } from './fork-store.ts'
import type { LogPart } from './log-part.ts'
import type { OutcomeKind, WireConflict, WireOutcome } from '../protocol/messages.ts'

/** What became of one mutation of this store. */
export interface Outcome {
  readonly kind: OutcomeKind
  /** Number and random id of the local transaction, and the mutation's place in it. */
  readonly transaction: number
  readonly transactionId: string
  readonly n: number
  readonly table: string
  readonly id: string
  readonly op: 'insert' | 'update' | 'delete'
  readonly reason?: string | undefined
  readonly message?: string | undefined
  readonly sqlstate?: string | undefined
  readonly constraint?: string | undefined
  readonly dependsOn?: string | undefined
  /** Columns that came out other than they were sent, with what stands now. */
  readonly changed?: Readonly<Record<string, unknown>> | undefined
  /** The row as it stands at the centre, where a write to it was rejected and it may be seen. */
  readonly serverRow?: Readonly<Record<string, unknown>> | undefined
}

interface AcknowledgedRow {
  tx: number
  tx_id: string
  tbl: number
  id: string
  op: Outcome['op']
  patch: string | null
  before: string | null
}

/** The batches that acknowledged something which stay known by their position; `tx.visible` of older ones is told a later one. */
const ACKNOWLEDGEMENTS_KEPT = 1000

const OVERWROTE =
  'it was written as it was wanted; the concurrent value that it overwrote is on record'

/** Turns what a batch says of this store's transactions into outcomes, and keeps every one that is not `applied`. */
export class OutcomeLog {
  readonly #connection: Connection
  readonly #clientId: string

  constructor(connection: Connection, clientId: string) {
    this.#connection = connection
    this.#clientId = clientId
  }

  /** Outcomes of all mutations up to a transaction, in order. */
  settle(
    { seq, belowN }: LogPart,
    outcomes: readonly WireOutcome[],
    at: string,
    batch: { readonly nonce: string; readonly position: number },
  ): Outcome[] {
    this.#keepPosition(seq, batch)
    const rows = this.#connection.all<AcknowledgedRow>(
      `SELECT l.tx, t.id AS tx_id, l.tbl, l.id, l.op, l.patch, l.before FROM ${loggedMutations} l JOIN sync_tx t ON t.seq = l.tx
      WHERE l.tx <= ? AND l.n < ? AND l.pushed = 1 ORDER BY l.n`,
      seq,
      belowN,
    )
    this.#connection.run(`DELETE FROM sync_conflicts WHERE state = 'blocked' AND tx <= ?`, seq)
    const told = new Map(outcomes.map((outcome) => [`${outcome.seq}.${outcome.n}`, outcome]))
    let n = 0
    let tx = -1
    return rows.flatMap((row) => {
      n = row.tx === tx ? n + 1 : 0
      tx = row.tx
      const table = tableOfNumber(row.tbl)
      if (table === undefined) return []
      const outcome = toOutcome(row, table, n, told.get(`${row.tx}.${n}`))
      if (outcome.kind !== 'applied') this.#keep(outcome, row, at)
      return [outcome]
    })
  }

  /** Records that a pending mutation no longer fits and is hidden until its outcome arrives. */
  block(
    table: TableDefinition,
    mutation: { tx: number; n: number; id: string; op: string; patch: string | null },
    why: string,
    at: string,
  ): void {
    const logged = this.#connection.get<{ tx_id: string; before: string | null }>(
      'SELECT t.id AS tx_id, l.before FROM sync_log l JOIN sync_tx t ON t.seq = l.tx WHERE l.n = ?',
      mutation.n,
    )
    this.#insert({
      id: newId(),
      at,
      state: 'blocked',
      tx: mutation.tx,
      tx_id: logged?.tx_id ?? null,
      n: mutation.n,
      table_name: table.name,
      row_id: mutation.id,
      op: mutation.op,
      reason: 'does_not_fit',
      sqlstate: null,
      constraint_name: null,
      message: why,
      depends_on: null,
      mine: mutation.patch,
      base: logged?.before ?? null,
      theirs: null,
    })
  }

  /**
   * Keeps a value that lost. Where an outcome of the same batch already says so, only that it was told: a pull of the
   * whole scope brings it again.
   */
  keepConflict(conflict: WireConflict, settled: readonly Outcome[]): void {
    const mineLost = this.#isMine(conflict)
    const told = settled.some(
      ({ kind, id }) => id === conflict.rowId && (kind === 'superseded' || kind === 'merged'),
    )
    const isTold = mineLost && told
    this.#insert({
      id: conflict.id,
      // Records are ordered by it as text.
      at: canonicalTimestamp(conflict.at),
      state: 'overwritten',
      tx: null,
      tx_id: null,
      n: null,
      table_name: conflict.table,
      row_id: conflict.rowId,
      op: 'update',
      reason: 'concurrent',
      sqlstate: null,
      constraint_name: null,
      message: mineLost
        ? 'a later concurrent change overwrote this value'
        : 'this value overwrote a concurrent one',
      depends_on: null,
      mine: isTold ? null : JSON.stringify(mineLost ? conflict.lost : conflict.kept),
      base: null,
      theirs: isTold ? null : JSON.stringify(mineLost ? conflict.kept : conflict.lost),
      resolved: isTold ? 'told' : null,
    })
  }

  /** Whether it is this store that lost. Under a former name it may be its twin, but never where it won itself. */
  #isMine({ loser, winner }: WireConflict): boolean {
    if (loser === this.#clientId || winner === this.#clientId) return loser === this.#clientId
    return loser !== null && formerClients(this.#connection).includes(loser)
  }

  #keep(outcome: Outcome, row: AcknowledgedRow, at: string): void {
    const hasWon = outcome.kind === 'merged' && outcome.changed === undefined
    // Both sides' changes stand: there is nothing to decide, only an outcome to be asked for.
    const isCombined = outcome.reason === 'combined'
    this.#insert({
      id: newId(),
      at,
      state: outcome.kind,
      tx: outcome.transaction,
      tx_id: outcome.transactionId,
      n: outcome.n,
      table_name: outcome.table,
      row_id: outcome.id,
      op: outcome.op,
      reason:
        outcome.reason ??
        (outcome.kind === 'superseded' || outcome.kind === 'merged' ? 'concurrent' : null),
      sqlstate: outcome.sqlstate ?? null,
      constraint_name: outcome.constraint ?? null,
      message: outcome.message ?? (hasWon ? OVERWROTE : null),
      depends_on: outcome.dependsOn ?? null,
      mine: isCombined ? null : row.patch,
      base: isCombined ? null : (this.#imageBefore(row) ?? row.before),
      theirs: isCombined ? null : JSON.stringify(outcome.changed ?? outcome.serverRow ?? null),
      resolved: isCombined ? 'told' : null,
    })
  }

  #keepPosition(seq: number, { nonce, position }: { nonce: string; position: number }): void {
    // Numbers beyond the watermark are those of a client that this store once was.
    this.#connection.run('DELETE FROM sync_ack WHERE seq > (SELECT acked_seq FROM sync_state)')
    this.#connection.run(
      'INSERT INTO sync_ack (seq, nonce, position) VALUES (?, ?, ?)',
      seq,
      nonce,
      position,
    )
    this.#connection.run(
      'DELETE FROM sync_ack WHERE seq <= (SELECT seq FROM sync_ack ORDER BY seq DESC LIMIT 1 OFFSET ?)',
      ACKNOWLEDGEMENTS_KEPT,
    )
  }

  /** What a delete would have removed. */
  #imageBefore({ op, tbl, id }: AcknowledgedRow): string | null {
    if (op !== 'delete') return null
    const row = this.#connection.get<{ image: string | null }>(
      'SELECT image FROM sync_base WHERE id = ? AND tbl = ?',
      id,
      tbl,
    )
    return row?.image ?? null
  }

  #insert(row: Readonly<Record<string, string | number | null>>): void {
    const names = Object.keys(row)
    this.#connection.run(
      `INSERT OR IGNORE INTO sync_conflicts (${names.join(', ')}) VALUES (${names.map(() => '?').join(', ')})`,
      ...Object.values(row),
    )
  }
}

function toOutcome(
  row: AcknowledgedRow,
  table: TableDefinition,
  n: number,
  told: WireOutcome | undefined,
): Outcome {
  return {
    kind: told === undefined || told.kind === 'parked' ? 'applied' : told.kind,
    transaction: row.tx,
    transactionId: row.tx_id,
    n,
    table: table.name,
    id: row.id,
    op: row.op,
    reason: told?.reason,
    message: told?.message,
    sqlstate: told?.sqlstate,
    constraint: told?.constraint,
    dependsOn: told?.on,
    changed: told?.changed,
    serverRow: told?.server_row ?? undefined,
  }
}
