import type { Session } from '../postgres/database.ts'
import { betweenSnapshots } from './positions.ts'

/** One entry of `sync.log`. The image stays text until someone needs it. */
export interface LogEntry {
  readonly tbl: number
  readonly id: string
  readonly image: string | null
  readonly keysBefore: readonly string[]
  readonly keysAfter: readonly string[]
}

interface LogRow {
  tbl: number
  id: string
  image: string | null
  keys_before: string[] | null
  keys_after: string[] | null
}

/** Entries between two snapshots in order of `seq`, all of them or those that concern some scope keys. */
export async function readLog(
  session: Session,
  span: { from: string; to: string },
  keys?: readonly string[],
): Promise<LogEntry[]> {
  const filter =
    keys === undefined ? '' : 'AND (l.keys_before && $3::text[] OR l.keys_after && $3::text[])'
  const { rows } = await session.query<LogRow>(
    `SELECT l.tbl, l.id, l.image::text AS image, l.keys_before, l.keys_after FROM sync.log l
    WHERE ${betweenSnapshots('l', '$1', '$2')} ${filter} ORDER BY l.seq`,
    keys === undefined ? [span.from, span.to] : [span.from, span.to, keys],
  )
  return rows.map((row) => ({
    tbl: row.tbl,
    id: row.id,
    image: row.image,
    keysBefore: row.keys_before ?? [],
    keysAfter: row.keys_after ?? [],
  }))
}
