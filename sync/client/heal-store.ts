import type { Stored } from '../../schema/codec.ts'
import { agentColumns, columnWrite } from '../../schema/define.ts'
import { tableOfNumber } from '../../schema/tables.ts'
import { newId } from '../../schema/values/id.ts'
import { readIdentity, type Connection } from '../../src/internal-for-sync.ts'
import type { HealResponse } from '../protocol/messages.ts'
import { becomeClient, healingLeft, renumber, type Fork } from './fork-store.ts'
import { decodeImage, encodeImage } from './image.ts'
import { seenHistories } from './kept.ts'
import { releaseHeld } from './newer-schema.ts'
import { PARKED_FROM } from './parked.ts'

/** What the centre answered, once someone decided. */
export type HealPlan = HealResponse & { readonly decision: 'all' | 'after' | 'none' }

/** What a store did when the centre had gone back. */
export interface Healed {
  /** The fork of the centre's history. */
  readonly fork: string
  readonly decision: HealPlan['decision']
  readonly at: string
  /** Acknowledged transactions that are sent again, and those that are not, as decided: they are in `syncConflicts`. */
  readonly offered: number
  readonly withheld: number
}

interface KeptTransaction {
  n: number
  seq: number
  id: string
  clock: number
  nonce: string | null
  position: number
}

interface KeptMutation {
  tbl: number
  id: string
  op: 'insert' | 'update' | 'delete'
  patch: string | null
  before: string | null
  pushed: number
  ref: string | null
}

/** When the centre acknowledged the first transaction of this store that it may have lost; null where there is none. */
export function lostSince(
  connection: Connection,
  common: Pick<HealResponse, 'nonce' | 'position'>,
): number | null {
  const row = connection.get<{ at: number | null }>(
    `SELECT min(acked_at) AS at FROM sync_kept_tx WHERE ${lost}`,
    ...lostParameters(connection, common),
  )
  return row?.at ?? null
}

/** Kept transactions beyond the common position: of a later history, or later in the last that both know. */
const lost =
  '(acked_nonce = ? AND acked_position > ?) OR acked_nonce IN (SELECT value FROM json_each(?))'

function lostParameters(
  connection: Connection,
  { nonce, position }: Pick<HealResponse, 'nonce' | 'position'>,
): [string, number, string] {
  const seen = seenHistories(connection).map((history) => history.nonce)
  return [nonce ?? '', position, JSON.stringify(seen.slice(seen.indexOf(nonce ?? '') + 1))]
}

/**
 * Brings the store in line with a centre that went back, as its operator decided; one SQLite transaction, so that it
 * happens whole or not at all. What the centre lost goes back into the queue, before what is pending, under its random
 * ids: what the centre has after all it knows by them. The store becomes a client of its own, since its numbers no longer
 * fit, and reads its scope anew.
 */
export function healStore(
  connection: Connection,
  from: string,
  plan: HealPlan,
  at: string,
): { readonly healed: Healed; readonly fork: Fork | undefined } | undefined {
  return connection.applying(() => {
    const identity = readIdentity(connection)
    const name = plan.fork
    if (identity.clientId !== from || name === null) return undefined
    const all = connection.all<KeptTransaction>(
      `SELECT n, seq, id, clock, nonce, position FROM sync_kept_tx WHERE ${lost} ORDER BY n`,
      ...lostParameters(connection, plan),
    )
    const goesBack = ({ clock }: KeptTransaction): boolean =>
      plan.decision === 'all' || (plan.decision === 'after' && clock > (plan.after ?? 0))
    const offered = all.filter(goesBack)
    const withheld = all.filter((one) => !goesBack(one))
    for (const one of withheld) withhold(connection, one, plan, at)
    const acked =
      connection.get<{ seq: number }>('SELECT acked_seq AS seq FROM sync_state')?.seq ?? 0
    const mustFork = all.length > 0 || acked > plan.seq
    let fork: Fork | undefined
    if (mustFork) {
      const again = healingLeft(connection)?.offered ?? 0
      releaseHeld(connection, PARKED_FROM)
      const count = requeue(connection, offered) + again
      const ancestor = { clientId: from, ...lastCommon(connection) }
      const heal = { fork: name, offered: count, withheld: withheld.length }
      fork = becomeClient(connection, { ancestor, heal }, { at, reason: 'the centre went back' })
    }
    startAnew(connection, plan)
    const { decision } = plan
    const healed = { fork: name, decision, at, offered: offered.length, withheld: withheld.length }
    return { healed, fork }
  })
}

/** The last transaction that the centre still has, of those that are kept. */
function lastCommon(connection: Connection): { seq: number; id: string | null } {
  return (
    connection.get<{ seq: number; id: string }>(
      'SELECT seq, id FROM sync_kept_tx ORDER BY n DESC LIMIT 1',
    ) ?? { seq: 0, id: null }
  )
}

/** Puts transactions back into the queue, before all others; says how many have anything to send. */
function requeue(connection: Connection, transactions: readonly KeptTransaction[]): number {
  const loaded = transactions
    .map((one) => ({ one, mutations: mutationsOf(connection, one.n) }))
    .filter(({ mutations }) => mutations.length > 0)
  const shift = loaded.reduce((sum, { mutations }) => sum + mutations.length, 0)
  renumber(connection, loaded.length + 1)
  if (shift > 0) {
    connection.run('UPDATE sync_log SET n = -n - ?', shift)
    connection.run('UPDATE sync_log SET n = -n')
  }
  connection.run('UPDATE sync_tx SET first_n = first_n + ?', shift)
  connection.run(`UPDATE sync_conflicts SET n = n + ? WHERE state = 'blocked'`, shift)
  let n = 0
  for (const [i, { one, mutations }] of loaded.entries()) {
    connection.run(
      'INSERT INTO sync_tx (seq, id, clock, nonce, position, first_n) VALUES (?, ?, ?, ?, ?, ?)',
      i + 1,
      one.id,
      one.clock,
      one.nonce,
      one.position,
      n + 1,
    )
    for (const { tbl, id, op, patch, before, pushed, ref } of mutations) {
      connection.run(
        `INSERT INTO sync_log (n, tx, tbl, id, op, patch, before, pushed, ref) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        ++n,
        i + 1,
        tbl,
        id,
        op,
        patch,
        before,
        pushed,
        ref,
      )
    }
  }
  keepBases(connection, loaded.flatMap(({ mutations }) => mutations).toReversed())
  for (const { n: kept } of transactions) forget(connection, kept)
  return loaded.length
}

/** Mutations of a kept transaction, each with its patch; an inserted row that is gone has nothing to send any more. */
function mutationsOf(connection: Connection, n: number): KeptMutation[] {
  return connection
    .all<KeptMutation>(
      'SELECT tbl, id, op, patch, before, pushed, ref FROM sync_kept_log WHERE tx = ? ORDER BY n',
      n,
    )
    .flatMap((mutation) => {
      if (mutation.op !== 'insert' || mutation.patch !== null) return [mutation]
      const patch = insertedImage(connection, mutation)
      return patch === undefined ? [] : [{ ...mutation, patch }]
    })
}

function insertedImage(
  connection: Connection,
  { tbl, id }: Pick<KeptMutation, 'tbl' | 'id'>,
): string | undefined {
  const table = tableOfNumber(tbl)
  if (table === undefined) return undefined
  const sent = agentColumns(table).filter((name) => columnWrite(table, name) !== 'never')
  const row = connection.get<Record<string, Stored>>(
    `SELECT ${sent.join(', ')} FROM ${table.name} WHERE id = ?`,
    id,
  )
  return row === undefined ? undefined : encodeImage(row)
}

/** What rows were before the first of their mutations that are pending again; the last of these comes first. */
function keepBases(connection: Connection, mutations: readonly KeptMutation[]): void {
  for (const { tbl, id, op, before } of mutations) {
    const table = tableOfNumber(tbl)
    if (table === undefined || table.writeClass === 'push-only') continue
    const kept = connection.get<{ image: string | null }>(
      'SELECT image FROM sync_base WHERE id = ? AND tbl = ?',
      id,
      tbl,
    )
    const current = connection.get<Record<string, Stored>>(
      `SELECT ${agentColumns(table).join(', ')} FROM ${table.name} WHERE id = ?`,
      id,
    )
    const image =
      kept === undefined
        ? current
        : kept.image === null
          ? undefined
          : decodeImage(table, kept.image)
    const earlier =
      op === 'insert' || image === undefined
        ? null
        : { ...image, ...(before === null || op === 'delete' ? {} : decodeImage(table, before)) }
    connection.run(
      'INSERT INTO sync_base (id, tbl, image) VALUES (?, ?, ?) ON CONFLICT (id, tbl) DO UPDATE SET image = excluded.image',
      id,
      tbl,
      earlier === null ? null : encodeImage(earlier),
    )
  }
}

/** What is not sent again, as decided: each of its mutations stays readable, and can be retried. */
function withhold(
  connection: Connection,
  { n, seq, id }: KeptTransaction,
  { decision }: HealPlan,
  at: string,
): void {
  for (const [place, mutation] of mutationsOf(connection, n).entries()) {
    const table = tableOfNumber(mutation.tbl)
    if (table === undefined || mutation.pushed === 0) continue
    connection.run(
      `INSERT INTO sync_conflicts (id, at, state, tx, tx_id, n, table_name, row_id, op, reason, message, mine, base)
      VALUES (?, ?, 'rejected', ?, ?, ?, ?, ?, ?, 'centre_restored', ?, ?, ?)`,
      newId(),
      at,
      seq,
      id,
      place,
      table.name,
      mutation.id,
      mutation.op,
      `the centre was restored to before it had this, and its operator decided ${decision === 'none' ? 'to bring nothing back' : 'to bring back only what was written later'}`,
      mutation.patch,
      mutation.before,
    )
  }
  forget(connection, n)
}

function forget(connection: Connection, n: number): void {
  connection.run('DELETE FROM sync_kept_log WHERE tx = ?', n)
  connection.run('DELETE FROM sync_kept_tx WHERE n = ?', n)
}

/** The histories that the centre lost are forgotten, and the scope is read from the beginning. */
function startAnew(
  connection: Connection,
  { nonce, position }: Pick<HealPlan, 'nonce' | 'position'>,
): void {
  const seen = seenHistories(connection)
  const common = seen.findIndex((history) => history.nonce === nonce)
  connection.run('DELETE FROM sync_history')
  for (const [i, history] of seen.slice(0, common + 1).entries()) {
    connection.run(
      'INSERT INTO sync_history (nonce, position) VALUES (?, ?)',
      history.nonce,
      i === common ? position : history.position,
    )
  }
  connection.run(
    'UPDATE sync_state SET nonce = NULL, position = 0, cursor = NULL, page_cursor = NULL, healing = 1',
  )
}
