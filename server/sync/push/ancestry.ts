import { AgentDBError } from '../../../schema/errors.ts'
import type { IntroduceRequest } from '../../../sync/protocol/messages.ts'
import type { Session } from '../../postgres/database.ts'
import type { Principal } from '../principal.ts'
import type { Repeated } from './repeated.ts'

/**
 * The clients that a client's store was before it forked, each with the clock up to which its mutations are this
 * store's own: beyond, they are those of the file's twin.
 */
export type Ancestry = ReadonlyMap<string, number>

/** Longest chain of forks that is followed; older ancestors' mutations have long been seen. */
const GENERATIONS_MAX = 16

/** Whether a change is the client's own: made by it, or by what its store was, before it forked. */
export const isOwn = (
  { clientId, ancestry }: { readonly clientId: string; readonly ancestry: Ancestry },
  writer: string | null,
  clock: number,
): boolean => {
  if (writer === null) return false
  return writer === clientId || clock <= (ancestry.get(writer) ?? -1)
}

export async function loadAncestry(session: Session, clientId: string): Promise<Ancestry> {
  const { rows } = await session.query<{ id: string; clock: number | null }>(
    `WITH RECURSIVE line (id, clock, generation) AS (
      SELECT c.ancestor, c.common_clock, 1 FROM sync.client c WHERE c.client_id = $1 AND c.ancestor IS NOT NULL
      UNION ALL
      SELECT c.ancestor, least(c.common_clock, line.clock), line.generation + 1 FROM line JOIN sync.client c ON c.client_id = line.id
      WHERE c.ancestor IS NOT NULL AND line.generation < ${GENERATIONS_MAX})
    SELECT id, clock FROM line`,
    [clientId],
  )
  return new Map(rows.flatMap(({ id, clock }) => (clock === null ? [] : [[id, clock] as const])))
}

/**
 * Records what a new client was before its store forked. What a store may claim is only that two clients of the same
 * user and agent are one.
 */
export async function recordAncestor(
  session: Session,
  principal: Principal,
  { clientId, ancestor, heal }: IntroduceRequest,
): Promise<void> {
  // Told is told, whatever is noted of it: the store need not tell it again.
  await session.query('UPDATE sync.client SET introduced = true WHERE client_id = $1', [clientId])
  const { rows } = await session.query<{ user_id: string; agent_id: string }>(
    'SELECT user_id, agent_id FROM sync.client WHERE client_id = $1',
    [ancestor.clientId],
  )
  const [known] = rows
  // One that this centre has never met, as after it went back, is noted all the same: its transactions may yet come.
  // Whose name was taken by someone else wrote nothing under it: there is nothing to note, and nothing to refuse.
  if (known !== undefined && known.user_id !== principal.userId) return
  if (known !== undefined && known.agent_id !== principal.agentId)
    throw new AgentDBError('FORBIDDEN', 'the store was a client of another agent')
  if (ancestor.clientId === clientId)
    throw new AgentDBError('PROTOCOL', 'ancestor.clientId: a client is not its own ancestor')
  const { rowCount } = await session.query(
    `UPDATE sync.client c SET ancestor = $2, common_seq = $3,
      common_clock = (SELECT a.clock FROM sync.applied a WHERE a.tx_id = $4 AND a.client_id = $2)
    WHERE c.client_id = $1 AND c.ancestor IS NULL AND c.seq = 0`,
    [clientId, ancestor.clientId, ancestor.seq, ancestor.id],
  )
  if (rowCount === 0) return
  if (heal !== null) {
    await session.query(
      `INSERT INTO sync.healed (client_id, fork, user_id, agent_id, ancestor, offered, withheld)
      VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
      [
        clientId,
        heal.fork,
        principal.userId,
        principal.agentId,
        ancestor.clientId,
        heal.offered,
        heal.withheld,
      ],
    )
  }
  // What depends on an insert that was rejected before the fork is still named after it.
  await session.query(
    `INSERT INTO sync.rejected (client_id, tbl, id, seq, n)
    SELECT $1, r.tbl, r.id, r.seq, r.n FROM sync.rejected r WHERE r.client_id = $2 AND r.seq <= $3 ON CONFLICT DO NOTHING`,
    [clientId, ancestor.clientId, ancestor.seq],
  )
}

/** A transaction that comes again was common to both: the common part reaches further than the store knew. */
export async function extendCommonPart(
  session: Session,
  clientId: string,
  ancestry: Ancestry,
  repeated: readonly Repeated[],
): Promise<Ancestry> {
  const extended = new Map(ancestry)
  for (const { first } of repeated) {
    const clock = Math.max(first.clock, extended.get(first.clientId) ?? -1)
    if (first.clientId === clientId || clock === extended.get(first.clientId)) continue
    extended.set(first.clientId, clock)
    await session.query(
      `UPDATE sync.client SET common_seq = greatest(common_seq, $3), common_clock = greatest(common_clock, $4)
      WHERE client_id = $1 AND ancestor = $2`,
      [clientId, first.clientId, first.seq, clock],
    )
  }
  return extended
}
