import type { Database } from '../postgres/database.ts'
import type { Point, QdrantEngine } from '../qdrant/engine.ts'
import { field } from '../qdrant/layout.ts'
import { olderThan } from './point-writer.ts'

/** Of so many for each shard one, as good as certainly, lies in each: Qdrant spreads points by a hash of their id. */
const MARKS_PER_SHARD = 16

/**
 * Our own points of a collection, which tell up to where it follows: of each shard, since one alone may come back from an
 * older disk. Rows have UUIDs; these numbers are nobody's.
 */
export class Marks {
  readonly #database: Database
  readonly #engine: QdrantEngine
  readonly #ids: readonly number[]

  constructor(database: Database, engine: QdrantEngine, shards: number) {
    this.#database = database
    this.#engine = engine
    this.#ids = Array.from({ length: shards === 1 ? 1 : MARKS_PER_SHARD * shards }, (_, i) => i)
  }

  /** Qdrant has them before the database hears of it. */
  async set(name: string, version: number): Promise<void> {
    const payload = { [field.kind]: 'mark', [field.version]: version }
    const marks = this.#ids.map((id): Point => ({ id, vector: {}, payload }))
    await this.#engine.upsert(name, marks, olderThan(version))
    await this.#database.query(
      'UPDATE sync.vector_collection SET marked = greatest(marked, $2) WHERE name = $1',
      [name, version],
    )
  }

  /** Versions up to which the shard that is behind follows, and the one that is ahead; 0 where one does not say. */
  async read(name: string): Promise<{ least: number; greatest: number }> {
    const marks = await this.#engine.retrieve(name, this.#ids, [field.version])
    const versions = new Map(marks.map(({ id, payload }) => [id, Number(payload[field.version])]))
    const known = this.#ids.map((id) => versions.get(id) ?? 0)
    return { least: Math.min(...known), greatest: Math.max(...known) }
  }
}
