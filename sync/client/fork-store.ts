import { newId } from '../../schema/values/id.ts'
import { readIdentity, type Connection } from '../../src/internal-for-sync.ts'
import type { IntroduceRequest } from '../protocol/messages.ts'
import { releaseHeld } from './newer-schema.ts'
import { PARKED_FROM } from './parked.ts'

/** What a store was before it forked, up to where the centre is known to have it; and why, if it went back. */
export type Ancestor = Omit<IntroduceRequest, 'clientId'>

/** A store that became a client of its own. */
export interface Fork {
  readonly from: string
  readonly to: string
  readonly at: string
  /** Why, in words. */
  readonly reason: string
  /** Local transactions that are sent under the new client. */
  readonly pending: number
}

/** What `sync_state.ancestor` holds. */
interface Kept extends Ancestor {
  readonly at: string
  readonly reason: string
  readonly pending: number
  /** Every client that it was, the last one first. */
  readonly former: readonly string[]
}

/** Former names that are kept; records of older ones have long come. */
const FORMER_MAX = 16

/**
 * Makes the store a client of its own, since the centre knows other transactions under its numbers: the file was copied,
 * or an older copy of it was put back. One SQLite transaction; undefined where the store is that client no longer.
 *
 * Pending transactions keep their random ids, by which the centre tells what it has applied already, and are numbered
 * from 1. Position and cursor stay: the rows are the centre's up to there.
 */
export function forkStore(
  connection: Connection,
  from: string,
  why: { readonly at: string; readonly reason: string },
): Fork | undefined {
  return connection.applying(() => {
    if (readIdentity(connection).clientId !== from) return undefined
    const heal = healingLeft(connection)
    releaseHeld(connection, PARKED_FROM)
    renumber(connection, 1)
    const acked = connection.get<{ seq: number; id: string | null }>(
      'SELECT acked_seq AS seq, acked_id AS id FROM sync_state',
    )
    const ancestor = { clientId: from, seq: acked?.seq ?? 0, id: acked?.id ?? null }
    return becomeClient(connection, { ancestor, heal }, why)
  })
}

/** Gives the store a new client id, once its queue is numbered from 1. Runs inside the caller's transaction. */
export function becomeClient(
  connection: Connection,
  ancestor: Ancestor,
  { at, reason }: { readonly at: string; readonly reason: string },
): Fork {
  const to = newId()
  const pending =
    connection.get<{ count: number }>('SELECT count(*) AS count FROM sync_tx')?.count ?? 0
  const former = [ancestor.ancestor.clientId, ...formerClients(connection)].slice(0, FORMER_MAX)
  const kept: Kept = { ...ancestor, at, reason, pending, former }
  connection.run(
    `UPDATE sync_state SET client_id = ?, ancestor = ?, introduced = 0, tx = ?, acked_seq = 0, acked_id = NULL, durable_seq = 0`,
    to,
    JSON.stringify(kept),
    pending + 1,
  )
  connection.run('DELETE FROM sync_ack')
  return { from: ancestor.ancestor.clientId, to, at, reason, pending }
}

/** The clients that this store was before it forked, the last one first. */
export function formerClients(connection: Connection): readonly string[] {
  const row = connection.get<{ ancestor: string | null }>('SELECT ancestor FROM sync_state')
  return row?.ancestor == null ? [] : (JSON.parse(row.ancestor) as Kept).former
}

/** Numbers the pending transactions from a number on, in their order. Runs inside the caller's transaction. */
export function renumber(connection: Connection, from: number): void {
  const first = connection.get<{ seq: number | null }>('SELECT min(seq) AS seq FROM sync_tx')
  const shift = (first?.seq ?? from) - from
  if (shift === 0) return
  // By way of the negative: no number may be taken twice meanwhile.
  connection.run('UPDATE sync_tx SET seq = ? - seq', shift)
  connection.run('UPDATE sync_tx SET seq = -seq')
  connection.run('UPDATE sync_log SET tx = tx - ?', shift)
  connection.run(`UPDATE sync_conflicts SET tx = tx - ? WHERE state = 'blocked'`, shift)
}

/** The ancestor that the centre is still to be told of. */
export function unintroduced(connection: Connection): Ancestor | undefined {
  const isTold = connection.get('SELECT 1 FROM sync_state WHERE introduced = 0') === undefined
  return isTold ? undefined : ancestorToTell(connection)
}

/**
 * The ancestor to tell before anything is sent: also what the centre was told already, as long as no batch has acknowledged
 * anything of this client. A centre that went back meanwhile has forgotten it.
 */
export function ancestorToTell(connection: Connection): Ancestor | undefined {
  const row = connection.get<{ ancestor: string | null }>(
    'SELECT ancestor FROM sync_state WHERE introduced = 0 OR acked_seq = 0',
  )
  if (row?.ancestor == null) return undefined
  const { ancestor, heal } = JSON.parse(row.ancestor) as Kept
  return { ancestor, heal }
}

/** What an earlier healing put back at the head of the queue and no batch has acknowledged yet; null where nothing is left. */
export function healingLeft(connection: Connection): Ancestor['heal'] {
  const row = connection.get<{ ancestor: string | null }>('SELECT ancestor FROM sync_state')
  const heal = row?.ancestor == null ? null : (JSON.parse(row.ancestor) as Kept).heal
  if (heal === null) return null
  const left = connection.get<{ count: number }>(
    'SELECT count(*) AS count FROM sync_tx WHERE seq <= ?',
    heal.offered,
  )
  return left === undefined || left.count === 0 ? null : { ...heal, offered: left.count }
}

/** The centre knows the ancestor of a client, and has all that was pending when it forked. */
export function markIntroduced(connection: Connection, clientId: string): void {
  // Asked after every push: a store at rest must not be written to, be it with what stands there.
  if (unintroduced(connection) === undefined) return
  connection.run('UPDATE sync_state SET introduced = 1 WHERE client_id = ?', clientId)
}

/** The last time that this store became a client of its own, if it ever did. */
export function lastFork(connection: Connection): Fork | undefined {
  const row = connection.get<{ client: string; ancestor: string | null }>(
    'SELECT client_id AS client, ancestor FROM sync_state',
  )
  if (row?.ancestor == null) return undefined
  const { ancestor, at, reason, pending } = JSON.parse(row.ancestor) as Kept
  return { from: ancestor.clientId, to: row.client, at, reason, pending }
}
