import type { Database, Session } from '../postgres/database.ts'
import type { Batch } from './positions.ts'

/**
 * What the log keeps. Below the floor nothing can be read any more: whoever stands there reads its whole scope again.
 * The floor is committed before anything is dropped, and readers look at it after they have read.
 */
export async function floorOf(session: Session): Promise<number> {
  const { rows } = await session.query<{ position: number }>('SELECT position FROM sync.floor')
  return rows[0]?.position ?? 0
}

export interface Pruned {
  /** Position below which the log is gone. */
  readonly floor: number
  readonly partitions: readonly string[]
  /** Batches that were thinned away; those left are the bases of late pushes. */
  readonly batches: number
}

/**
 * Drops what the log has from before a moment. Batches below the floor are thinned to the last of each minute, and kept:
 * late pushes are based on them.
 */
export async function pruneLog(database: Database, before: Date): Promise<Pruned> {
  const floor = await raiseFloor(database, before)
  if (floor === undefined) return { floor: await floorOf(database), partitions: [], batches: 0 }
  const partitions = await dropPartitions(database, before, floor)
  await database.query(`DELETE FROM sync.log_default l WHERE l.at < $1 AND ${below('$2')}`, [
    before.toISOString(),
    floor.snapshot,
  ])
  const { rowCount } = await database.query(
    `DELETE FROM sync.batch b WHERE b.position < $1 AND EXISTS (SELECT 1 FROM sync.batch later
      WHERE later.position > b.position AND later.position < $1 AND later.nonce = b.nonce
        AND date_trunc('minute', later.at) = date_trunc('minute', b.at))`,
    [floor.position],
  )
  return { floor: floor.position, partitions, batches: rowCount }
}

/** Log rows that every batch from the floor on contains. */
const below = (snapshot: string): string =>
  `pg_visible_in_snapshot(l.xid, ${snapshot}::pg_snapshot)`

/** The floor is the last batch from before the moment; undefined where it need not move. */
async function raiseFloor(database: Database, before: Date): Promise<Batch | undefined> {
  const { rows } = await database.query<Batch>(
    `SELECT b.position, b.nonce, b.snapshot::text AS snapshot FROM sync.batch b
    WHERE b.at < $1 AND b.position > coalesce((SELECT position FROM sync.floor), 0) ORDER BY b.position DESC LIMIT 1`,
    [before.toISOString()],
  )
  const [floor] = rows
  if (floor === undefined) return undefined
  await database.query(
    `INSERT INTO sync.floor (one, position) VALUES (true, $1)
    ON CONFLICT (one) DO UPDATE SET position = greatest(sync.floor.position, excluded.position)`,
    [floor.position],
  )
  return floor
}

/** A partition goes when its time is over and no row of a transaction that ran long lies above the floor. */
async function dropPartitions(database: Database, before: Date, floor: Batch): Promise<string[]> {
  const { rows } = await database.query<{ name: string }>(
    `SELECT c.relname AS name FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'sync.log'::regclass AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
      AND (regexp_match(pg_get_expr(c.relpartbound, c.oid), $re$TO \\('([^']+)'\\)$re$))[1]::timestamptz <= $1
    ORDER BY c.relname`,
    [before.toISOString()],
  )
  const dropped: string[] = []
  for (const { name } of rows) if (await dropPartition(database, name, floor)) dropped.push(name)
  return dropped
}

/** False where a row of it is still needed, or where it would have had to wait: all writers would wait behind it. */
async function dropPartition(database: Database, name: string, floor: Batch): Promise<boolean> {
  try {
    return await database.transaction(async (session) => {
      const above = await session.query(
        `SELECT 1 FROM sync.${name} l WHERE NOT ${below('$1')} LIMIT 1`,
        [floor.snapshot],
      )
      if (above.rowCount > 0) return false
      await session.query(`SET LOCAL lock_timeout = '250ms'`)
      await session.query(`DROP TABLE sync.${name}`)
      return true
    })
  } catch (error) {
    if ((error as { code?: unknown }).code === LOCK_NOT_AVAILABLE) return false
    throw error
  }
}

const LOCK_NOT_AVAILABLE = '55P03'
