import type { Session } from '../postgres/database.ts'
import type { VectorSpace } from '../qdrant/layout.ts'
import { betweenSnapshots, newerThan } from '../sync/positions.ts'
import { EMBEDDINGS } from './rows.ts'

/** What the log says of one embedding between two positions. */
export interface Change {
  readonly id: string
  /** Everything that happened to it is that it was inserted. */
  readonly isNew: boolean
  /** Spaces that it was in meanwhile. */
  readonly spaces: readonly VectorSpace[]
}

/** More changed rows than this are cheaper found by comparing everything. */
export const CHANGES_MAX = 50_000

interface ChangeRow {
  id: string
  isNew: boolean
  spaces: (VectorSpace | null)[]
}

/** Rows of `embeddings` that changed between two snapshots, in order of id; undefined where there are too many. */
export async function readChanges(
  session: Session,
  span: { readonly from: string; readonly to: string },
): Promise<Change[] | undefined> {
  const { rows } = await session.query<ChangeRow>(
    `SELECT l.id, bool_and(l.op = 'insert') AS "isNew",
      jsonb_agg(DISTINCT CASE WHEN l.image IS NOT NULL THEN jsonb_build_object('collection', l.image -> 'collection',
        'model', l.image -> 'model', 'dimension', l.image -> 'dimension') END) AS spaces
    FROM sync.log l WHERE l.tbl = ${EMBEDDINGS} AND ${betweenSnapshots('l', '$1', '$2')}
    GROUP BY l.id ORDER BY l.id LIMIT ${CHANGES_MAX + 1}`,
    [span.from, span.to],
  )
  if (rows.length > CHANGES_MAX) return undefined
  return rows.map(({ id, isNew, spaces }) => ({
    id,
    isNew,
    spaces: spaces.filter((space) => space !== null),
  }))
}

/** Ids of a user's embeddings that changed after a snapshot; undefined where they are more than `max`. */
export async function changedSince(
  session: Session,
  snapshot: string,
  key: string,
  max: number,
): Promise<string[] | undefined> {
  const { rows } = await session.query<{ id: string }>(
    `SELECT DISTINCT l.id FROM sync.log l WHERE l.tbl = ${EMBEDDINGS} AND ${newerThan('l', '$1::pg_snapshot')}
      AND (l.keys_before @> ARRAY[$2::text] OR l.keys_after @> ARRAY[$2::text]) LIMIT ${max + 1}`,
    [snapshot, key],
  )
  return rows.length > max ? undefined : rows.map(({ id }) => id)
}
