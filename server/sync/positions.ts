import { newId } from '../../schema/values/id.ts'
import { parseSnapshot, type Snapshot } from '../../sync/merge/snapshot.ts'
import type { Database, Session } from '../postgres/database.ts'

/**
 * Positions of the centre (`SYNC-DESIGN.md` 1). A position is a committed row of `sync.batch` with a snapshot; what
 * lies between two positions is decided by their snapshots, never by the order of a sequence.
 */
export interface Batch {
  readonly position: number
  readonly nonce: string
  readonly snapshot: string
}

const BATCH_LOCK = 7_203_952
/** Tells the other servers of a batch. Once a batch: a notify in every writing transaction would queue all writers. */
export const BATCH_CHANNEL = 'agentdb_batch'

/** Log rows committed since a snapshot; `$p` stands for its text. */
export const newerThan = (alias: string, snapshot: string): string =>
  `(${alias}.xid >= pg_snapshot_xmax(${snapshot}) OR ${alias}.xid = ANY (ARRAY(SELECT pg_snapshot_xip(${snapshot}))))`

/** Log rows in `(from, to]`: visible in the later snapshot and not in the earlier. */
export const betweenSnapshots = (alias: string, from: string, to: string): string =>
  `${newerThan(alias, `${from}::pg_snapshot`)} AND ${alias}.xid < pg_snapshot_xmax(${to}::pg_snapshot) AND pg_visible_in_snapshot(${alias}.xid, ${to}::pg_snapshot)`

export async function latestBatch(session: Session): Promise<Batch | undefined> {
  const { rows } = await session.query<Batch>(
    'SELECT position, nonce, snapshot::text AS snapshot FROM sync.batch ORDER BY position DESC LIMIT 1',
  )
  return rows[0]
}

/** The batch of a position; undefined where it was thinned away. */
export async function batchAt(session: Session, position: number): Promise<Batch | undefined> {
  const { rows } = await session.query<Batch>(
    'SELECT position, nonce, snapshot::text AS snapshot FROM sync.batch WHERE position = $1',
    [position],
  )
  return rows[0]
}

/**
 * Makes a batch when something is new, and returns it. The lock is taken in one statement and the snapshot in the next:
 * in one and the same, position n+1 could hold an older snapshot than n. `wait` waits for another server's turn.
 */
export function advance(database: Database, wait: boolean): Promise<Batch | undefined> {
  return database.transaction(async (session) => {
    // No crash may take back what a client has seen, whatever the database's default is.
    const turn = await session.query<{ locked: boolean; started: string }>(
      wait
        ? `SELECT true AS locked, ${beforeBatch} FROM (SELECT pg_advisory_xact_lock($1)) taken`
        : `SELECT pg_try_advisory_xact_lock($1) AS locked, ${beforeBatch}`,
      [BATCH_LOCK],
    )
    const [{ locked, started } = { locked: false, started: '' }] = turn.rows
    if (!locked) return undefined
    const made = await makeBatch(session, started)
    if (made !== 'another life') return made
    await session.query(
      'INSERT INTO sync.history (nonce, first_position, started) SELECT $1, coalesce(max(position), 0) + 1, $2 FROM sync.batch',
      [newId(), started],
    )
    const first = await makeBatch(session, started)
    return first === 'another life' ? undefined : first
  })
}

const beforeBatch = `pg_postmaster_start_time()::text AS started, set_config('synchronous_commit', 'on', true)`

/**
 * A batch, if there is something new or this is the first of its history; says so when the latest history is of another
 * life of the database server: after a restart, a restore or a promotion it is a new one.
 */
async function makeBatch(
  session: Session,
  started: string,
): Promise<Batch | 'another life' | undefined> {
  const { rows } = await session.query<
    { [K in keyof Batch]: Batch[K] | null } & { alive: boolean }
  >(
    `WITH history AS (SELECT nonce, first_position, started FROM sync.history ORDER BY first_position DESC, at DESC LIMIT 1),
    last AS (SELECT position, snapshot FROM sync.batch ORDER BY position DESC LIMIT 1),
    made AS (INSERT INTO sync.batch (position, snapshot, nonce)
      SELECT coalesce(last.position, 0) + 1, pg_current_snapshot(), history.nonce FROM history LEFT JOIN last ON true
      WHERE history.started = $1 AND (last.position IS NULL OR last.position < history.first_position
        OR EXISTS (SELECT 1 FROM sync.log l WHERE ${newerThan('l', 'last.snapshot')}))
      RETURNING position, nonce, snapshot::text AS snapshot)
    SELECT coalesce(history.started = $1, false) AS alive, made.*,
      CASE WHEN made.position IS NOT NULL THEN pg_notify($2, made.position::text) END
    FROM (SELECT 1) one LEFT JOIN history ON true LEFT JOIN made ON true`,
    [started, BATCH_CHANNEL],
  )
  const [row] = rows
  if (row?.alive !== true) return 'another life'
  const { position, nonce, snapshot } = row
  return position === null || nonce === null || snapshot === null
    ? undefined
    : { position, nonce, snapshot }
}

/** Whether a position that a client holds is one of this centre's past. */
export async function isOfThisHistory(
  session: Session,
  nonce: string,
  position: number,
): Promise<boolean> {
  const { rows } = await session.query<{ valid: boolean }>(
    `SELECT $2 <= (SELECT max(b.position) FROM sync.batch b)
      AND $2 < coalesce((SELECT min(later.first_position) FROM sync.history later WHERE later.first_position > h.first_position), 9007199254740991) AS valid
    FROM sync.history h WHERE h.nonce = $1`,
    [nonce, position],
  )
  return rows[0]?.valid === true
}

/**
 * The snapshot of the position that a mutation was based on; bases round down to a batch that is kept. Undefined when
 * the writer has seen nothing of this history: then every change is concurrent.
 */
export async function baseSnapshot(
  session: Session,
  base: { nonce: string | null; position: number },
): Promise<Snapshot | undefined> {
  if (base.nonce === null || !(await isOfThisHistory(session, base.nonce, base.position)))
    return undefined
  const { rows } = await session.query<{ snapshot: string }>(
    'SELECT snapshot::text AS snapshot FROM sync.batch WHERE position <= $1 ORDER BY position DESC LIMIT 1',
    [base.position],
  )
  return rows[0] === undefined ? undefined : parseSnapshot(rows[0].snapshot)
}
