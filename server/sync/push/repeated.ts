import { clientKey } from '../../../schema/role-access.ts'
import type { WireOutcome } from '../../../sync/protocol/messages.ts'
import { LogKind } from '../../../sync/protocol/version.ts'
import type { Session } from '../../postgres/database.ts'
import { forgottenBefore } from '../forget.ts'
import type { ClientTransaction, Refusal } from './transaction.ts'

/** A transaction that comes again under another client's number: its store forked after it was sent. */
export interface Repeated {
  readonly seq: number
  readonly id: string
  /** The client and number under which it was applied, and the clock that it then got. */
  readonly first: { readonly clientId: string; readonly seq: number; readonly clock: number }
}

/** Those of a client's transactions that the centre has from another client of the same user. */
export async function findRepeated(
  session: Session,
  userId: string,
  transactions: readonly ClientTransaction[],
): Promise<Repeated[]> {
  const { rows } = await session.query<{
    tx_id: string
    client_id: string
    seq: number
    clock: number
  }>(
    `SELECT a.tx_id, a.client_id, a.seq, a.clock FROM sync.applied a JOIN sync.client c USING (client_id)
    WHERE a.tx_id = ANY($1::text[]) AND c.user_id = $2`,
    [transactions.map(({ id }) => id), userId],
  )
  const known = new Map(rows.map((row) => [row.tx_id, row]))
  return transactions.flatMap(({ seq, id }) => {
    const row = known.get(id)
    return row === undefined
      ? []
      : [{ seq, id, first: { clientId: row.client_id, seq: row.seq, clock: row.clock } }]
  })
}

/**
 * Transactions of a store that forked which are older than the ids that the centre has kept, by their own clock: its twin
 * may have brought them, and twice would be wrong. Asked after looking for their ids, which may be forgotten meanwhile.
 */
export async function refuseForgotten(
  session: Session,
  transactions: readonly ClientTransaction[],
): Promise<Map<string, { n: number; refusal: Refusal }>> {
  const before = await forgottenBefore(session)
  const old = transactions.filter(({ claimedClock }) => claimedClock < before)
  return new Map(old.map(({ id }) => [id, { n: 0, refusal: FORGOTTEN }]))
}

const FORGOTTEN: Refusal = {
  reason: 'too_old',
  message:
    'the store was copied or put back, and this was written before the time of which the centre remembers what it has: it may have it already',
}

/**
 * Tells what became of transactions once more, under the numbers of a store that forked: nothing is applied twice, and
 * each still ends in one outcome there. What was rejected is known by name to what depends on it.
 */
export async function recordRepeated(
  session: Session,
  clientId: string,
  repeated: readonly Repeated[],
): Promise<void> {
  if (repeated.length === 0) return
  const places = [
    repeated.map(({ first }) => first.clientId),
    repeated.map(({ first }) => first.seq),
    repeated.map(({ seq }) => seq),
  ]
  const list = `unnest($1::uuid[], $2::bigint[], $3::bigint[]) u(old_client, old_seq, seq)`
  await session.query(
    `INSERT INTO sync.repeated (client_id, seq, tx_id) SELECT $1, u.seq, u.id FROM unnest($2::bigint[], $3::text[]) u(seq, id)`,
    [clientId, repeated.map(({ seq }) => seq), repeated.map(({ id }) => id)],
  )
  await session.query(
    `INSERT INTO sync.rejected (client_id, tbl, id, seq, n)
    SELECT $4, r.tbl, r.id, u.seq, r.n FROM ${list} JOIN sync.rejected r ON r.client_id = u.old_client AND r.seq = u.old_seq
    ON CONFLICT DO NOTHING`,
    [...places, clientId],
  )
  const { rows } = await session.query<{ old: number; seq: number; detail: WireOutcome }>(
    `SELECT u.old_seq AS old, u.seq, o.detail FROM ${list} JOIN sync.outcome o ON o.client_id = u.old_client AND o.seq = u.old_seq
    ORDER BY u.seq, o.n`,
    places,
  )
  if (rows.length === 0) return
  const outcomes = rows.map(({ old, seq, detail }) => renumbered(detail, old, seq))
  await session.query(
    `WITH told AS (SELECT u.detail, u.i FROM unnest($2::jsonb[]) WITH ORDINALITY u(detail, i)),
    kept AS (INSERT INTO sync.outcome (client_id, seq, n, kind, detail)
      SELECT $1, (t.detail->>'seq')::bigint, (t.detail->>'n')::integer, t.detail->>'kind', t.detail FROM told t)
    INSERT INTO sync.log (tbl, id, op, image, keys_after)
    SELECT ${LogKind.outcome}, $1, 'insert', t.detail, $3 FROM told t ORDER BY t.i`,
    [clientId, outcomes.map((outcome) => JSON.stringify(outcome)), [clientKey(clientId)]],
  )
}

/** An outcome under another number; a sibling that it names has that number, too. */
function renumbered(outcome: WireOutcome, old: number, seq: number): WireOutcome {
  const { on } = outcome
  return on?.startsWith(`${old}.`) === true
    ? { ...outcome, seq, on: `${seq}${on.slice(String(old).length)}` }
    : { ...outcome, seq }
}
