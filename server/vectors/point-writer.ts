import type { Database } from '../postgres/database.ts'
import { QdrantFailure, type Filter, type Point, type QdrantEngine } from '../qdrant/engine.ts'
import { field } from '../qdrant/layout.ts'
import { pointOf, tombstoneOf, type EmbeddingRow } from './rows.ts'

/** Numbers of one request; as JSON at most about 20 bytes each. */
const NUMBERS_MAX = 200_000
const POINTS_MAX = 256

/**
 * Writes points such that the latest version stands, whatever order writes arrive in. A point that exists gives way to
 * later versions only; one that was deleted leaves a tombstone, because Qdrant inserts what is not there unfenced.
 */
export class PointWriter {
  readonly #database: Database
  readonly #engine: QdrantEngine
  readonly #onDead: (failure: QdrantFailure) => void

  /** `onDead` hears of each row once that Qdrant refuses. */
  constructor(database: Database, engine: QdrantEngine, onDead: (failure: QdrantFailure) => void) {
    this.#database = database
    this.#engine = engine
    this.#onDead = onDead
  }

  /** Rows as points of a collection. What Qdrant refuses for good becomes a dead letter, and its older point goes. */
  async put(name: string, rows: readonly EmbeddingRow[], version: number): Promise<void> {
    const [first] = rows
    if (first === undefined) return
    const size = Math.min(POINTS_MAX, Math.max(1, Math.floor(NUMBERS_MAX / first.dimension)))
    const dead = new Set<string>()
    for (let at = 0; at < rows.length; at += size) {
      const points = rows.slice(at, at + size).map((row) => pointOf(row, version))
      await this.#putSome(name, points, version, dead)
    }
    const well = rows.map(({ id }) => id).filter((id) => !dead.has(id))
    await this.forgetDead(name, well)
  }

  /** Tombstones in place of points. */
  async remove(name: string, ids: readonly string[], version: number): Promise<void> {
    await this.forgetDead(name, ids)
    for (let at = 0; at < ids.length; at += POINTS_MAX) {
      const some = ids.slice(at, at + POINTS_MAX)
      const tombstones = some.map((id) => tombstoneOf(id, version, Date.now()))
      await this.#engine.upsert(name, tombstones, olderThan(version))
    }
  }

  /** One bad point fails its whole request: halves are tried until it is found, and joins the `dead`. */
  async #putSome(
    name: string,
    points: readonly Point[],
    version: number,
    dead: Set<string>,
  ): Promise<void> {
    try {
      return await this.#engine.upsert(name, points, olderThan(version))
    } catch (error) {
      if (!(error instanceof QdrantFailure) || error.kind !== 'refused') throw error
      const [only] = points
      if (points.length === 1 && only !== undefined) {
        dead.add(String(only.id))
        return await this.#bury(name, String(only.id), version, error)
      }
      const half = points.length >> 1
      await this.#putSome(name, points.slice(0, half), version, dead)
      await this.#putSome(name, points.slice(half), version, dead)
    }
  }

  /** A tombstone tells whether the point is at fault: where Qdrant refuses that, too, it would refuse every row. */
  async #bury(name: string, id: string, version: number, reason: QdrantFailure): Promise<void> {
    await this.#engine.upsert(name, [tombstoneOf(id, version, Date.now())], olderThan(version))
    const { rows } = await this.#database.query<{ isNew: boolean }>(
      `INSERT INTO sync.vector_dead (name, id, reason) VALUES ($1, $2, $3)
      ON CONFLICT (name, id) DO UPDATE SET reason = excluded.reason, at = now() RETURNING xmax = 0 AS "isNew"`,
      [name, id, reason.message],
    )
    const what = `the row ${id} in ${name}, which is left out until it changes`
    if (rows[0]?.isNew === true)
      this.#onDead(new QdrantFailure('refused', `${what}: ${reason.message}`, reason))
  }

  /** Of rows that Qdrant has now, or that are gone. */
  async forgetDead(name: string, ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return
    await this.#database.query(
      'DELETE FROM sync.vector_dead WHERE name = $1 AND id = ANY ($2::uuid[])',
      [name, ids],
    )
  }
}

/** Also what has no version, which nobody of us wrote. */
export const olderThan = (version: number): Filter => ({
  must_not: [{ key: field.version, range: { gte: version } }],
})
