import type { Connection } from './connection.ts'

/**
 * Of the change sequences of a store the triggers keep each row that is there, and of those that are gone the latest:
 * numbers that are 100 000 behind the newest are forgotten, two with each row that goes. Whoever follows a sequence and
 * stands before the last that was forgotten may hold rows of which nobody tells it any more that they are gone.
 */
export type ChangeSequence = 'embedding_changes' | 'memory_changes'

/** Number of the last change that was forgotten; 0 when none was. To be read after the changes. */
export const forgottenUpTo = (connection: Connection, sequence: ChangeSequence): number =>
  connection.get<{ seq: number }>('SELECT seq FROM forgotten_changes WHERE name = ?', sequence)
    ?.seq ?? 0

const IDS_AT_ONCE = 5000

/** Those ids that no row has any more. */
export function* goneFrom(
  connection: Connection,
  table: 'embeddings' | 'memory_items',
  ids: Iterable<string>,
): Iterable<string> {
  const sql = `SELECT j.value AS id FROM json_each(?) j WHERE NOT EXISTS (SELECT 1 FROM ${table} r WHERE r.id = j.value)`
  const all = [...ids]
  for (let at = 0; at < all.length; at += IDS_AT_ONCE) {
    const some = JSON.stringify(all.slice(at, at + IDS_AT_ONCE))
    for (const { id } of connection.all<{ id: string }>(sql, some)) yield id
  }
}
