import type { Database } from '../postgres/database.ts'
import { QdrantFailure, type QdrantEngine } from '../qdrant/engine.ts'
import { field, sameSpace, type VectorSpace } from '../qdrant/layout.ts'
import { latestBatch, newerThan } from '../sync/positions.ts'
import { compare } from './compare.ts'
import { EMBEDDINGS, readRows } from './rows.ts'
import { readGenerations, readWatermark, type Generation } from './state.ts'

export interface DeadLetter {
  readonly name: string
  readonly id: string
  readonly reason: string
  readonly at: string
}

export interface CollectionReport {
  readonly name: string
  readonly collection: string
  readonly model: string
  readonly dimension: number
  readonly state: string
  readonly isDefault: boolean
  readonly rows: number
  /** Null where Qdrant does not answer or has no such collection. */
  readonly points: number | null
  readonly tombstones: number | null
  readonly deadLetters: number
}

/** How Qdrant stands to the rows. */
export interface VectorStatus {
  /** Position up to which Qdrant follows, and the newest one. */
  readonly position: number
  readonly head: number
  /** Changed rows that Qdrant does not have yet, and since when the oldest waits. */
  readonly pending: number
  readonly pendingSince: string | null
  /** The centre's history changed and Qdrant was not compared with it yet. */
  readonly isForked: boolean
  readonly appliedAt: string | null
  /** Whether a server follows the log now. */
  readonly isFollowed: boolean
  /** Failures in a row of the server that follows. */
  readonly failures: number
  readonly error: string | null
  readonly errorAt: string | null
  readonly qdrant: string
  readonly collections: readonly CollectionReport[]
  /** At most the 20 latest. */
  readonly deadLetters: readonly DeadLetter[]
}

const DEAD_SHOWN_MAX = 20

export async function vectorStatus(
  database: Database,
  engine: QdrantEngine,
): Promise<VectorStatus> {
  const watermark = await readWatermark(database)
  const head = await latestBatch(database)
  const { rows: states } = await database.query<{
    applied_at: string | null
    followed: boolean
    failures: number
    error: string | null
    error_at: string | null
  }>(
    `SELECT applied_at, coalesce(held_until > clock_timestamp(), false) AS followed, failures, error, error_at
    FROM sync.vector_state`,
  )
  const [state] = states
  const { rows: waiting } = await database.query<{ pending: number; since: string | null }>(
    `SELECT count(DISTINCT l.id) AS pending, min(l.at) AS since FROM sync.log l
    WHERE l.tbl = ${EMBEDDINGS} AND ($1::text IS NULL OR ${newerThan('l', '$1::pg_snapshot')})`,
    [watermark.snapshot],
  )
  const { rows: deadLetters } = await database.query<DeadLetter>(
    `SELECT name, id, reason, at FROM sync.vector_dead ORDER BY at DESC, id LIMIT ${DEAD_SHOWN_MAX}`,
  )
  const collections: CollectionReport[] = []
  for (const generation of await readGenerations(database))
    collections.push(await collectionReport(database, engine, generation))
  return {
    position: watermark.position,
    head: head?.position ?? 0,
    pending: waiting[0]?.pending ?? 0,
    pendingSince: waiting[0]?.since ?? null,
    isForked: watermark.nonce !== null && watermark.nonce !== head?.nonce,
    appliedAt: state?.applied_at ?? null,
    isFollowed: state?.followed ?? false,
    failures: state?.failures ?? 0,
    error: state?.error ?? null,
    errorAt: state?.error_at ?? null,
    qdrant: await answerOf(engine),
    collections,
    deadLetters,
  }
}

/** What the server that follows the log now fails at; null where none does, or nothing fails. */
export async function followerError(database: Database): Promise<string | null> {
  const { rows } = await database.query<{ error: string | null }>(
    'SELECT error FROM sync.vector_state WHERE held_until > clock_timestamp()',
  )
  return rows[0]?.error ?? null
}

async function answerOf(engine: QdrantEngine): Promise<string> {
  try {
    await engine.mustBeRecent()
    return 'ok'
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

async function collectionReport(
  database: Database,
  engine: QdrantEngine,
  generation: Generation,
): Promise<CollectionReport> {
  const { name, collection, model, dimension, state, isDefault } = generation
  const { rows } = await database.query<{ rows: number; dead: number }>(
    `SELECT (SELECT count(*) FROM embeddings WHERE collection = $1 AND model = $2 AND dimension = $3) AS rows,
      (SELECT count(*) FROM sync.vector_dead WHERE name = $4) AS dead`,
    [collection, model, dimension, name],
  )
  const count = async (kind: string): Promise<number | null> => {
    try {
      return await engine.count(name, { must: [{ key: field.kind, match: { value: kind } }] })
    } catch (error) {
      if (error instanceof QdrantFailure) return null
      throw error
    }
  }
  return {
    name,
    collection,
    model,
    dimension,
    state,
    isDefault,
    rows: rows[0]?.rows ?? 0,
    points: await count('row'),
    tombstones: await count('tombstone'),
    deadLetters: rows[0]?.dead ?? 0,
  }
}

export interface Verdict {
  readonly name: string
  readonly rows: number
  /** Rows without a point, points of another version of their row, points without a row. */
  readonly missing: readonly string[]
  readonly different: readonly string[]
  readonly extra: readonly string[]
  /** Rows that have no point because Qdrant refuses them: dead letters. */
  readonly refused: readonly string[]
}

type Differences = Pick<Verdict, 'missing' | 'different' | 'extra'>

/** Ids that a verdict names of each kind. */
const NAMED_MAX = 1000

/**
 * Compares a live collection with its rows in both directions, by id and digest. What seems to differ is looked at
 * again after `caughtUp`, since rows change while they are read. What Qdrant refuses is not said to be missing, too.
 */
export async function verifyCollection(
  database: Database,
  engine: QdrantEngine,
  generation: Generation,
  { caughtUp, onRows }: { caughtUp: () => Promise<void>; onRows: (rows: number) => void },
): Promise<Verdict> {
  const suspects = new Set<string>()
  let rows = 0
  for await (const page of compare(database, engine, generation, generation.name)) {
    for (const id of [...page.missing, ...page.different, ...page.extra]) suspects.add(id)
    rows = page.rows
    onRows(rows)
    if (suspects.size > NAMED_MAX) break
  }
  const { name } = generation
  let differences: Differences = { missing: [], different: [], extra: [] }
  if (suspects.size > 0) {
    await caughtUp()
    differences = await lookAgain(database, engine, generation, [...suspects])
  }
  return { name, rows, ...differences, refused: await refusedOf(database, name) }
}

async function refusedOf(database: Database, name: string): Promise<string[]> {
  const { rows } = await database.query<{ id: string }>(
    `SELECT id FROM sync.vector_dead WHERE name = $1 ORDER BY id LIMIT ${NAMED_MAX}`,
    [name],
  )
  return rows.map(({ id }) => id)
}

async function lookAgain(
  database: Database,
  engine: QdrantEngine,
  generation: Generation & VectorSpace,
  ids: readonly string[],
): Promise<Differences> {
  const { name } = generation
  const points = await engine.retrieve(name, ids, [field.kind, field.digest])
  const live = points.filter(({ payload }) => payload[field.kind] !== 'tombstone')
  const digests = new Map(live.map(({ id, payload }) => [String(id), payload[field.digest]]))
  const rows = (await readRows(database, ids)).filter((row) => sameSpace(row, generation))
  const there = new Set(rows.map(({ id }) => id))
  const { rows: letters } = await database.query<{ id: string }>(
    'SELECT id FROM sync.vector_dead WHERE name = $1 AND id = ANY ($2::uuid[])',
    [name, ids],
  )
  const dead = new Set(letters.map(({ id }) => id))
  const expected = rows.filter(({ id }) => !dead.has(id))
  return {
    missing: expected.flatMap(({ id }) => (digests.has(id) ? [] : [id])),
    different: expected.flatMap(({ id, digest }) =>
      digests.has(id) && digests.get(id) !== digest ? [id] : [],
    ),
    extra: [...digests.keys()].filter((id) => !there.has(id)),
  }
}
