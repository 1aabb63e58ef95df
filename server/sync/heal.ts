import type { HealRequest, HealResponse } from '../../sync/protocol/messages.ts'
import type { Session } from '../postgres/database.ts'
import { commonPart, type CommonPart, type KnownHistory } from './common-part.ts'

/** What an operator decided on a fork of the history. */
export type Decision = 'all' | 'after' | 'none'

/** Gap up to which a server that may heals without asking. */
const AUTOMATIC_GAP_MICROS_MAX = 60_000_000

/** For how long after a decision what is lost may come back, unless said otherwise. */
export const HEALING_DAYS = 7

/** Where the history that a client has seen and the centre's part; undefined where they do not. */
export async function findCommonPart(
  session: Session,
  seen: HealRequest['histories'],
): Promise<CommonPart | undefined> {
  const { rows } = await session.query<KnownHistory>(
    `SELECT h.nonce, h.first_position AS first,
      (SELECT min(later.first_position) - 1 FROM sync.history later WHERE later.first_position > h.first_position) AS end
    FROM sync.history h ORDER BY h.first_position, h.at`,
  )
  return commonPart(rows, seen)
}

interface ForkRow {
  decision: Decision | null
  after_clock: number | null
  begun: number
  /** When the last common position was made, by the centre's clock. */
  common_at: number | null
}

/** Notes that the history went back, and says what was decided about it. */
export async function askForDecision(
  session: Session,
  { fork, nonce, position, end }: CommonPart,
  lostSince: number | null | undefined,
  healAutomatically: boolean,
): Promise<Pick<HealResponse, 'decision' | 'fork' | 'nonce' | 'position' | 'after'>> {
  await session.query(
    `INSERT INTO sync.fork (nonce, common_nonce, common_position) VALUES ($1, $2, $3) ON CONFLICT (nonce) DO NOTHING`,
    [fork, nonce, end],
  )
  const { rows } = await session.query<ForkRow>(
    `SELECT f.decision, f.after_clock, (extract(epoch FROM h.at) * 1000000)::bigint AS begun,
      (SELECT (extract(epoch FROM b.at) * 1000000)::bigint FROM sync.batch b WHERE b.position <= f.common_position ORDER BY b.position DESC LIMIT 1) AS common_at
    FROM sync.fork f JOIN sync.history h USING (nonce) WHERE f.nonce = $1`,
    [fork],
  )
  const [row] = rows
  // What this store lost, or where it lost nothing, all that can have been lost.
  const since = lostSince ?? row?.common_at ?? 0
  const mayHeal =
    healAutomatically &&
    lostSince !== undefined &&
    (row?.begun ?? 0) - since < AUTOMATIC_GAP_MICROS_MAX
  if (row?.decision === null && mayHeal)
    await decide(session, { decision: 'all', after: null, fork })
  const decision = row?.decision ?? (mayHeal ? 'all' : 'waiting')
  return { decision, fork, nonce, position, after: row?.after_clock ?? null }
}

/** Decides on every fork that waits for it, or on one; returns their names. */
export async function decide(
  session: Session,
  {
    decision,
    after,
    days = HEALING_DAYS,
    fork = null,
  }: { decision: Decision; after: number | null; days?: number; fork?: string | null },
): Promise<string[]> {
  const { rows } = await session.query<{ nonce: string }>(
    `UPDATE sync.fork SET decision = $1, after_clock = $2, decided_at = now(), open_until = now() + $3 * interval '1 day'
    WHERE decision IS NULL AND nonce = coalesce($4, nonce) RETURNING nonce`,
    [decision, after, days, fork],
  )
  return rows.map(({ nonce }) => nonce)
}

/** A fork of the history as `agentdb heal` tells of it. */
export interface ForkReport {
  readonly fork: string
  readonly commonPosition: number
  readonly noticedAt: string
  readonly decision: Decision | null
  readonly decidedAt: string | null
  /** Until when what is lost may come back. */
  readonly openUntil: string | null
  readonly clients: readonly {
    readonly clientId: string
    readonly email: string | null
    readonly agentId: string
    readonly at: string
    /** Transactions that it had got acknowledged beyond the common position. */
    readonly offered: number
    /** Of those, what is back by now; the rest the centre had, refused, or has not got yet. */
    readonly broughtBack: number
    readonly alreadyThere: number
    readonly refused: number
    readonly parked: number
    /** What was not sent, as decided; its store keeps it in `sync_conflicts`. */
    readonly withheld: number
  }[]
}

export async function report(session: Session): Promise<ForkReport[]> {
  const forks = await session.query<Omit<ForkReport, 'clients'>>(
    `SELECT nonce AS fork, common_position AS "commonPosition", noticed_at::text AS "noticedAt", decision,
      decided_at::text AS "decidedAt", open_until::text AS "openUntil" FROM sync.fork ORDER BY noticed_at`,
  )
  const clients = await session.query<ForkReport['clients'][number] & { fork: string }>(
    `SELECT h.fork, h.client_id AS "clientId", u.email, h.agent_id AS "agentId", h.at::text AS at, h.offered, h.withheld,
      (SELECT count(*) FROM sync.applied a WHERE a.client_id = h.client_id AND a.seq <= h.offered
        AND NOT EXISTS (SELECT 1 FROM sync.outcome o WHERE o.client_id = a.client_id AND o.seq = a.seq AND o.kind = 'rejected'))::integer AS "broughtBack",
      (SELECT count(*) FROM sync.repeated r WHERE r.client_id = h.client_id AND r.seq <= h.offered
        AND NOT EXISTS (SELECT 1 FROM sync.outcome o WHERE o.client_id = r.client_id AND o.seq = r.seq AND o.kind = 'parked'))::integer AS "alreadyThere",
      (SELECT count(DISTINCT o.seq) FROM sync.outcome o WHERE o.client_id = h.client_id AND o.kind = 'rejected' AND o.seq <= h.offered)::integer AS refused,
      (SELECT count(*) FROM sync.parked p WHERE p.client_id = h.client_id)::integer AS parked
    FROM sync.healed h LEFT JOIN users u ON u.id = h.user_id ORDER BY h.at`,
  )
  return forks.rows.map((fork) => ({
    ...fork,
    clients: clients.rows
      .filter((client) => client.fork === fork.fork)
      .map(({ fork: _fork, ...client }) => client),
  }))
}
