import type { Database, Session } from '../postgres/database.ts'

/**
 * What the centre remembers of transactions that it has decided: their random ids (`sync.applied`), by which it knows
 * them again under another number, and what became of them (`sync.outcome`). Both may go once the client has its
 * acknowledgement and the time is over in which a restored centre is healed by those ids. So do the numbers under which a
 * client brought what the centre had already (`sync.repeated`). What has to last is elsewhere: a client's own numbers are
 * told by its watermark, which stays.
 *
 * Names of rows whose insert was refused (`sync.rejected`) stay: a store that was away for years may yet bring what it
 * wrote on top of them before it heard, and no queue is refused for its age.
 */

/** Rows that one statement takes away; short, so that nothing waits behind it for long. */
const FORGOTTEN_AT_ONCE = 5000

const MOMENT = 'ids_forgotten_before'

/** Microseconds since 1970: ids of transactions that are older may be forgotten. */
export async function forgottenBefore(session: Session): Promise<number> {
  const { rows } = await session.query<{ value: string }>(
    'SELECT value FROM sync.setting WHERE name = $1',
    [MOMENT],
  )
  return Number(rows[0]?.value ?? 0)
}

/**
 * Forgets what was decided before a moment, in batches; says how many transactions. The moment is committed before
 * anything goes, and readers look at it after they have looked for an id. While a restored centre waits for a decision,
 * or may yet get back what it lost, nothing goes.
 */
export async function forgetDecided(
  database: Database,
  before: Date,
  atOnce = FORGOTTEN_AT_ONCE,
): Promise<number> {
  const healing = await database.query(
    'SELECT 1 FROM sync.fork WHERE decision IS NULL OR open_until > now() LIMIT 1',
  )
  if (healing.rowCount > 0) return 0
  await database.query(
    `INSERT INTO sync.setting (name, value) VALUES ($1, $2)
    ON CONFLICT (name) DO UPDATE SET value = greatest(sync.setting.value::bigint, excluded.value::bigint)::text`,
    [MOMENT, String(before.getTime() * 1000)],
  )
  const parameters = [before.toISOString(), atOnce]
  let forgotten = 0
  for (let count = atOnce; count >= atOnce; forgotten += count)
    count = (await database.query<{ n: number }>(forget, parameters)).rows[0]?.n ?? 0
  for (const statement of [forgetRetold, forgetRepeated])
    for (let count = atOnce; count >= atOnce;)
      count = (await database.query(statement, parameters)).rowCount
  return forgotten
}

/**
 * The client has its acknowledgement. What a store brought back after a restore stays known: an agent that was away all
 * the time may have the same, and comes with it under numbers that the centre has not met.
 */
const mayGo = (alias: string): string =>
  `${alias}.seq <= c.acked_seq AND NOT EXISTS (SELECT 1 FROM sync.healed h WHERE h.client_id = ${alias}.client_id)`

const forget = `WITH old AS (SELECT a.tx_id FROM sync.applied a JOIN sync.client c USING (client_id) WHERE a.at < $1 AND ${mayGo('a')} LIMIT $2),
  gone AS (DELETE FROM sync.applied a USING old WHERE a.tx_id = old.tx_id RETURNING a.client_id, a.seq),
  told AS (DELETE FROM sync.outcome o USING gone WHERE o.client_id = gone.client_id AND o.seq = gone.seq)
  SELECT count(*)::integer AS n FROM gone`

/** Outcomes that were told once more, under the number of a store that forked or waited: those have no id of their own. */
const forgetRetold = `DELETE FROM sync.outcome o USING (
    SELECT u.client_id, u.seq, u.n FROM sync.outcome u JOIN sync.repeated r USING (client_id, seq) JOIN sync.client c USING (client_id)
    WHERE u.at < $1 AND ${mayGo('u')} LIMIT $2) old
  WHERE o.client_id = old.client_id AND o.seq = old.seq AND o.n = old.n`

/** After the outcomes: by these rows they are found. */
const forgetRepeated = `DELETE FROM sync.repeated r USING (
    SELECT u.client_id, u.seq FROM sync.repeated u JOIN sync.client c USING (client_id)
    WHERE u.at < $1 AND ${mayGo('u')} AND NOT EXISTS (SELECT 1 FROM sync.outcome o WHERE o.client_id = u.client_id AND o.seq = u.seq)
    LIMIT $2) old
  WHERE r.client_id = old.client_id AND r.seq = old.seq`

/** Conflicts of a user's clients that a store which reads its whole scope is told, the newest of them. */
export const CONFLICTS_TOLD_MAX = 1000

/**
 * Forgets conflicts that nobody can be told any more: the log does not go back to them (`before`), and a store that reads
 * its whole scope gets newer ones of its user, as many as it is told. Says how many.
 */
export async function forgetConflicts(database: Database, before: Date): Promise<number> {
  const { rowCount } = await database.query(forgetUntold, [
    before.toISOString(),
    CONFLICTS_TOLD_MAX,
  ])
  return rowCount
}

/** Of a client that is not known here nobody can say whose it is: what names one stays. */
const forgetUntold = `WITH told AS (
    SELECT c.id, c.at, l.user_id FROM sync.conflict c JOIN sync.client l ON l.client_id = c.loser
    UNION SELECT c.id, c.at, w.user_id FROM sync.conflict c JOIN sync.client w ON w.client_id = c.winner),
  placed AS (SELECT id, rank() OVER (PARTITION BY user_id ORDER BY at DESC) AS place FROM told)
  DELETE FROM sync.conflict c WHERE c.at < $1
    AND NOT EXISTS (SELECT 1 FROM placed p WHERE p.id = c.id AND p.place <= $2)
    AND (SELECT count(*) FROM sync.client k WHERE k.client_id IN (c.loser, c.winner))
      = (SELECT count(DISTINCT n.id) FROM (VALUES (c.loser), (c.winner)) n(id) WHERE n.id IS NOT NULL)`
