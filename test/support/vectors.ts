import { randomBytes } from 'node:crypto'
import { sql } from 'kysely'
import { collections, type Collection } from '../../schema/tables/embeddings.ts'
import { newId } from '../../schema/values/id.ts'
import type { VectorOptions } from '../../server/index.ts'
import type { Centre } from './centre.ts'

/** The model of these tests; small, so that a test is about its subject and not about bytes. */
export const MODEL = 'test-model'
export const DIMENSION = 4

/**
 * Options of a centre that shares a Qdrant with others: names of its own, quick to notice. Only the collections named are
 * made at set-up, since making one takes longer than most of what is tested.
 */
export function vectorOptions(
  more: VectorOptions = {},
  made: readonly Collection[] = ['code_embeddings'],
): VectorOptions {
  const model = { model: MODEL, dimension: DIMENSION }
  const models = Object.fromEntries(
    collections.map((name) => [name, made.includes(name) ? [model] : []]),
  )
  return {
    models,
    prefix: `t${randomBytes(6).toString('hex')}_`,
    pollMs: 20,
    leaseMs: 500,
    ...more,
  }
}

export interface NewEmbedding {
  readonly id?: string
  readonly collection?: Collection
  readonly model?: string
  readonly vector?: readonly number[]
  readonly preview?: string | null
  readonly content?: string | null
  readonly payload?: unknown
}

/** Inserts rows as their owner, past every rule, in one statement; returns their ids. */
export async function embed(
  centre: Pick<Centre, 'db'>,
  user: { readonly id: string },
  rows: readonly NewEmbedding[],
): Promise<string[]> {
  const ids = rows.map(({ id }) => id ?? newId())
  const values = rows.map((row, i) => {
    const vector = row.vector ?? [1, 0, 0, 0]
    return sql`(${ids[i]}::uuid, ${user.id}::uuid, ${row.collection ?? 'code_embeddings'}, ${row.model ?? MODEL},
      ${vector.length}::integer, ${bytesOf(vector)}::bytea, ${row.preview ?? null}, ${row.content ?? null}::text, ${JSON.stringify(row.payload ?? {})}::jsonb)`
  })
  await sql`INSERT INTO embeddings (id, user_id, collection, model, dimension, vector, content_preview, content, payload)
    VALUES ${sql.join(values)}`.execute(centre.db)
  return ids
}

/** As PostgreSQL takes bytes. */
export const bytesOf = (vector: readonly number[]): string =>
  `\\x${Buffer.from(new Float32Array(vector).buffer).toString('hex')}`

/** What Qdrant has under an alias, by id, tombstones and marks left out: the digests of its points. */
export async function pointsOf(url: string, alias: string): Promise<Map<string, string>> {
  const points = new Map<string, string>()
  let offset: string | null = null
  do {
    const { result } = (await qdrantCall(url, 'POST', `/collections/${alias}/points/scroll`, {
      limit: 1000,
      offset,
      with_payload: ['_kind', '_digest'],
    })) as {
      result: {
        points: { id: string; payload: Record<string, string> }[]
        next_page_offset: string | null
      }
    }
    for (const { id, payload } of result.points)
      if (payload['_kind'] === 'row') points.set(id, payload['_digest'] ?? '')
    offset = result.next_page_offset
  } while (offset !== null)
  return points
}

/** What the rows of a collection and model come to, computed here and not by the product. */
export async function rowsOf(
  centre: Pick<Centre, 'db'>,
  collection: Collection = 'code_embeddings',
  model = MODEL,
): Promise<Map<string, string>> {
  const { rows } = await sql<{ id: string; digest: string }>`
    SELECT id, md5(concat_ws(chr(10), '3', user_id, collection, model, dimension, md5(vector),
      md5(coalesce(left(content, 8192), content_preview, '')), md5(payload::text))) AS digest
    FROM embeddings WHERE collection = ${collection} AND model = ${model} ORDER BY id`.execute(
    centre.db,
  )
  return new Map(rows.map(({ id, digest }) => [id, digest]))
}

/** A plain call of Qdrant, as an outsider makes it. */
export async function qdrantCall(
  url: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<unknown> {
  const answer = await fetch(`${url}${path}`, {
    method,
    headers: { 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const json: unknown = await answer.json()
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(json)}`)
  return json
}
