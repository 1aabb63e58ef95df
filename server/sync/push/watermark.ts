import { AgentDBError } from '../../../schema/errors.ts'
import type { PushRequest } from '../../../sync/protocol/messages.ts'
import type { Session } from '../../postgres/database.ts'
import type { Window } from './missing.ts'
import type { ClientTransaction } from './transaction.ts'

/** Where a client's watermark stands. */
export interface Watermark {
  /** Whether the client is bound to its user; not where the database went back to before that. */
  readonly isBound: boolean
  readonly seq: number
  readonly id: string | null
  /** Whether its store has told what it was before it forked. */
  readonly isIntroduced: boolean
  /** The client that its store was before it forked. */
  readonly ancestor: string | null
  /** Whether some store that was this client is another one now: both may have the same work in their queues. */
  readonly isAncestor: boolean
  /** Whether it became a client of its own because the centre went back. */
  readonly isHealing: boolean
  /** Whether rows may be missing because the centre went back. */
  readonly window: Window
}

/**
 * A store that forked has told what it was; where the centre went back to before that, it would take it for new. A pull may
 * have bound the client again since.
 */
export function mustBeIntroduced({ introduced }: PushRequest, isIntroduced: boolean): void {
  if (introduced !== true || isIntroduced) return
  throw new AgentDBError(
    'NOT_INTRODUCED',
    'the centre has lost what this store was before it forked: it is to tell again',
  )
}

/** Where the centre is with a client; with the lock nobody else moves it. */
export async function readWatermark(
  session: Session,
  clientId: string,
  lock: '' | 'FOR UPDATE',
): Promise<Watermark> {
  const { rows } = await session.query<{
    seq: number
    tx_id: string | null
    introduced: boolean
    ancestor: string | null
    forked: boolean
    healing: boolean
    open: boolean | null
  }>(
    `SELECT seq, tx_id, introduced, ancestor, EXISTS (SELECT 1 FROM sync.client d WHERE d.ancestor = $1) AS forked, EXISTS (SELECT 1 FROM sync.healed h WHERE h.client_id = $1) AS healing, (SELECT coalesce(bool_or(f.open_until > now() AND f.decision <> 'none'), false) FROM sync.fork f HAVING count(*) > 0) AS open
    FROM sync.client WHERE client_id = $1 ${lock}`,
    [clientId],
  )
  const [row] = rows
  const open = row?.open ?? undefined
  return {
    isBound: row !== undefined,
    seq: row?.seq ?? 0,
    id: row?.tx_id ?? null,
    isIntroduced: row?.introduced ?? false,
    ancestor: row?.ancestor ?? null,
    isAncestor: row?.forked ?? false,
    isHealing: row?.healing ?? false,
    window: open === undefined ? 'none' : open ? 'open' : 'over',
  }
}

export function mustBeContiguous(transactions: readonly ClientTransaction[]): void {
  for (const [i, { seq }] of transactions.entries()) {
    if (seq !== (transactions[0]?.seq ?? 0) + i)
      throw new AgentDBError(
        'PROTOCOL',
        `transactions.${i}.seq: ${seq} does not follow the one before`,
      )
  }
}

/**
 * A sequence number is no identity: a file that was restored, copied or cut by a power loss uses it again. `previous` is
 * the id of the transaction before the first of these.
 */
export async function mustBeSameStore(
  session: Session,
  clientId: string,
  mark: Watermark,
  previous: string | undefined,
  transactions: readonly ClientTransaction[],
): Promise<void> {
  const first = transactions[0]?.seq ?? 0
  if (first > mark.seq + 1) {
    throw new AgentDBError(
      'FORKED',
      `the centre has this store's transactions up to ${mark.seq}, and ${first} comes: the centre went back`,
    )
  }
  const known = transactions.filter(({ seq }) => seq <= mark.seq)
  const own = known.length === 0 ? previous : transactions.find(({ seq }) => seq === mark.seq)?.id
  const same = own === undefined ? await wereApplied(session, clientId, known) : own === mark.id
  if (mark.seq > 0 && !same) {
    throw new AgentDBError(
      'STORE_FORKED',
      `transaction ${mark.seq} of this store is another one at the centre: the file was restored or copied`,
    )
  }
}

/** Whether transactions that a client sends again are the ones that the centre has under their numbers. */
async function wereApplied(
  session: Session,
  clientId: string,
  transactions: readonly ClientTransaction[],
): Promise<boolean> {
  const { rows } = await session.query<{ tx_id: string; seq: number }>(
    `SELECT tx_id, seq FROM sync.applied WHERE tx_id = ANY($2::text[]) AND client_id = $1
    UNION ALL SELECT tx_id, seq FROM sync.repeated WHERE client_id = $1 AND seq = ANY($3::bigint[])`,
    [clientId, transactions.map(({ id }) => id), transactions.map(({ seq }) => seq)],
  )
  const seqs = new Map(rows.map(({ tx_id: id, seq }) => [id, seq]))
  return transactions.length > 0 && transactions.every(({ id, seq }) => seqs.get(id) === seq)
}
