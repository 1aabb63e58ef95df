import { appRole } from '../../schema/postgres/access.ts'
import type { Collection } from '../../schema/tables/embeddings.ts'
import type { Database, Session } from '../postgres/database.ts'
import type { VectorSpace } from '../qdrant/layout.ts'
import type { Principal } from '../sync/principal.ts'
import { lexicalMembersOf, lexicalText, textOf, type RowFilter } from './rows.ts'

/** Runs `work` as the caller: row-level security decides which rows there are. */
export function asPrincipal<T>(
  database: Database,
  principal: Principal,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  return database.transaction(async (session) => {
    await session.query(
      `SELECT set_config('app.user_id', $1, true), set_config('app.user_role', $2, true), set_config('role', '${appRole}', true)`,
      [principal.userId, principal.role],
    )
    return await work(session)
  }, 'REPEATABLE READ READ ONLY')
}

/** A row that the caller may see. */
export interface VisibleRow extends VectorSpace {
  readonly id: string
  readonly contentPreview: string | null
  readonly payload: unknown
}

/** Bytes of payloads beyond which no further row is read: an answer is held in memory, several times over. */
const PAYLOAD_BYTES_MAX = 16 * 1024 * 1024

/** Of some rows, best first, those that the caller may see, as they are now; as many as their payloads leave room for. */
export async function visibleRows(
  session: Session,
  ids: readonly string[],
): Promise<Map<string, VisibleRow>> {
  const { rows } = await session.query<VisibleRow>(
    `SELECT v.id, v.collection, v.model, v.dimension, v.preview AS "contentPreview", v.payload
    FROM (SELECT e.id, e.collection, e.model, e.dimension, e.content_preview AS preview, e.payload,
        sum(octet_length(e.payload::text)) OVER
          (ORDER BY wanted.rank ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
      FROM unnest($1::uuid[]) WITH ORDINALITY AS wanted(id, rank) JOIN embeddings e ON e.id = wanted.id
      -- Said again, so that they are looked up by their ids, and not found by reading all.
      WHERE e.id = ANY ($1::uuid[])) v
    WHERE coalesce(v.before, 0) < ${PAYLOAD_BYTES_MAX}`,
    [ids],
  )
  return new Map(rows.map((row) => [row.id, row]))
}

/** A row that a search may find. */
export interface Candidate {
  readonly id: string
  /** Another one whenever the row has changed. */
  readonly version: string
  /** What its payload has as its time, where the filter asks for a span. */
  readonly moment: string | null
}

/** Characters of what may be a time: more than any has. */
const MOMENT_LENGTH_MAX = 64

/**
 * The caller's rows of a space that a filter may let through, of `among` or all. Times are left to {@link isInSpan}: what
 * an agent wrote there need not be one.
 */
export async function candidates(
  session: Session,
  { collection, model, dimension }: VectorSpace,
  filter: RowFilter,
  among: readonly string[] | undefined,
): Promise<Candidate[]> {
  const parameters: unknown[] = [collection, model, dimension]
  const conditions = [...filter.keywords].map(([name, values]) => {
    parameters.push(name, values)
    const field = `$${parameters.length - 1}::text`
    const wanted = `$${parameters.length}::text[]`
    return `AND CASE jsonb_typeof(e.payload -> ${field}) WHEN 'string' THEN e.payload ->> ${field} = ANY (${wanted})
      WHEN 'array' THEN e.payload -> ${field} ?| ${wanted} ELSE false END`
  })
  if (among !== undefined) {
    parameters.push(among)
    conditions.push(`AND e.id = ANY ($${parameters.length}::uuid[])`)
  }
  let moment = 'NULL'
  if (filter.since !== undefined || filter.until !== undefined) {
    const field = `$${parameters.push(filter.timeField)}::text`
    moment = `CASE jsonb_typeof(e.payload -> ${field}) WHEN 'string'
      THEN left(e.payload ->> ${field}, ${MOMENT_LENGTH_MAX}) END`
  }
  const { rows } = await session.query<Candidate>(
    `SELECT e.id, e.updated_at::text AS version, ${moment} AS moment FROM embeddings e
    WHERE e.collection = $1 AND e.model = $2 AND e.dimension = $3 ${conditions.join(' ')} ORDER BY e.id`,
    parameters,
  )
  return rows
}

export async function readVectors(
  session: Session,
  ids: readonly string[],
): Promise<{ id: string; vector: Float32Array }[]> {
  const { rows } = await session.query<{ id: string; vector: Float32Array }>(
    'SELECT e.id, e.vector FROM embeddings e WHERE e.id = ANY ($1::uuid[])',
    [ids],
  )
  return rows
}

/** What words are looked for in. */
export async function readTexts(
  session: Session,
  ids: readonly string[],
): Promise<Map<string, string>> {
  const { rows } = await session.query<{ id: string; text: string | null; members: unknown }>(
    `SELECT e.id, ${textOf('e')} AS text, ${lexicalMembersOf('e')} AS members
    FROM embeddings e WHERE e.id = ANY ($1::uuid[])`,
    [ids],
  )
  return new Map(rows.map(({ id, text, members }) => [id, lexicalText(text, members)]))
}

/** Whether the caller has any vector of a space. */
export async function hasRows(
  session: Session,
  { collection, model, dimension }: VectorSpace,
): Promise<boolean> {
  const { rowCount } = await session.query(
    'SELECT 1 FROM embeddings e WHERE e.collection = $1 AND e.model = $2 AND e.dimension = $3 LIMIT 1',
    [collection, model, dimension],
  )
  return rowCount > 0
}

/** Models of which the caller has vectors of a dimension in a collection. */
export async function modelsOf(
  session: Session,
  collection: Collection,
  dimension: number | undefined,
): Promise<{ model: string; dimension: number }[]> {
  const { rows } = await session.query<{ model: string; dimension: number }>(
    `SELECT DISTINCT e.model, e.dimension FROM embeddings e
    WHERE e.collection = $1 AND ($2::integer IS NULL OR e.dimension = $2) ORDER BY 1, 2`,
    [collection, dimension ?? null],
  )
  return rows
}
