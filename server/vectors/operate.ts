import { AgentDBError } from '../../schema/errors.ts'
import type { Collection } from '../../schema/tables/embeddings.ts'
import type { Database } from '../postgres/database.ts'
import type { QdrantEngine } from '../qdrant/engine.ts'
import { namesOf, sameSpace, type VectorSpace } from '../qdrant/layout.ts'
import { Collections } from './collections.ts'
import type { VectorService } from './service.ts'
import { defaultOf, makeDefault, readGenerations, requestGeneration } from './state.ts'
import type { Generation } from './state.ts'

export interface Progress {
  readonly rows: number
  readonly total: number
  readonly done: boolean
}

/** What operators do with collections. Whoever holds the lease does the work: a server that runs, or this process. */
export class VectorOperations {
  readonly #database: Database
  readonly #service: VectorService
  readonly #engine: QdrantEngine
  readonly #signal: AbortSignal | undefined

  /** `signal` ends the waiting; what was begun goes on at the next start. */
  constructor(database: Database, service: VectorService, signal?: AbortSignal) {
    this.#database = database
    this.#service = service
    this.#signal = signal
    this.#engine = service.engine
  }

  /** Live collections, of one name or all. */
  async live(collection: Collection | undefined): Promise<Generation[]> {
    return (await readGenerations(this.#database)).filter(
      (one) => one.state === 'live' && (collection === undefined || one.collection === collection),
    )
  }

  /** Makes fresh collections, fills them from the rows, and switches to them; what is there serves until then. */
  async reindex(
    collection: Collection | undefined,
    onProgress: (name: string, progress: Progress) => void,
  ): Promise<string[]> {
    const names: string[] = []
    for (const space of await this.live(collection)) names.push(await this.#requestNext(space))
    await this.#filled(names, onProgress)
    return names
  }

  /** Makes another model the collection's usual one. Vectors of it that exist are in Qdrant before. */
  async switchModel(
    space: VectorSpace,
    force: boolean,
    onProgress: (name: string, progress: Progress) => void,
  ): Promise<{ name: string; rows: number; left: number; before: string | null }> {
    const { rows, left } = await this.#coverage(space)
    if (rows === 0 && !force) {
      throw new AgentDBError(
        'NOT_FOUND',
        `${space.collection} has no row of the model ${space.model} with ${space.dimension} dimensions: embed first, or give --force`,
      )
    }
    const known = await readGenerations(this.#database)
    const before = defaultOf(known, space.collection)
    const same = known.filter((one) => sameSpace(one, space))
    const live = same.find(({ state }) => state === 'live')
    const name = live?.name ?? (await this.#requestNext(space))
    await this.#filled([name], onProgress)
    await makeDefault(this.#database, space)
    await this.#collections().pointAliases()
    return { name, rows, left, before: before === undefined ? null : before.model }
  }

  /** Drops the collections of all models but the usual one; their rows stay, and are searched exactly. */
  async dropOld(collection: Collection): Promise<string[]> {
    const known = await readGenerations(this.#database)
    const usual = defaultOf(known, collection)
    const old = known.filter(
      (one) =>
        one.collection === collection &&
        one.state === 'live' &&
        usual !== undefined &&
        !sameSpace(one, usual),
    )
    for (const { name } of old) {
      // First nobody looks there any more, then it goes.
      await this.#database.query(
        `UPDATE sync.vector_collection SET state = 'off' WHERE name = $1`,
        [name],
      )
      await this.#engine.drop(name)
    }
    return old.map(({ name }) => name)
  }

  /** Dimensions of a model's rows in a collection. */
  async dimensionsOf(collection: Collection, model: string): Promise<number[]> {
    const { rows } = await this.#database.query<{ dimension: number }>(
      'SELECT DISTINCT dimension FROM embeddings WHERE collection = $1 AND model = $2 ORDER BY 1',
      [collection, model],
    )
    return rows.map(({ dimension }) => dimension)
  }

  async #coverage({ collection, model, dimension }: VectorSpace): Promise<{
    rows: number
    left: number
  }> {
    const { rows } = await this.#database.query<{ rows: number; left: number }>(
      `SELECT count(*) FILTER (WHERE model = $2 AND dimension = $3) AS rows,
        count(*) FILTER (WHERE model <> $2 OR dimension <> $3) AS left FROM embeddings WHERE collection = $1`,
      [collection, model, dimension],
    )
    return rows[0] ?? { rows: 0, left: 0 }
  }

  #collections(): Collections {
    return new Collections(this.#database, this.#engine, this.#service.settings)
  }

  async #requestNext(space: VectorSpace): Promise<string> {
    const known = await readGenerations(this.#database)
    const same = known.filter((one) => sameSpace(one, space))
    const wanted = same.find(({ state }) => state === 'filling')
    if (wanted !== undefined) return wanted.name
    const generation = Math.max(0, ...same.map((one) => one.generation)) + 1
    const name = namesOf(this.#service.settings.prefix, space).generation(generation)
    await requestGeneration(this.#database, space, { name, generation })
    return name
  }

  /** Resolves when all of them are live; tells how far each is. */
  async #filled(
    names: readonly string[],
    onProgress: (name: string, progress: Progress) => void,
  ): Promise<void> {
    for (;;) {
      this.#signal?.throwIfAborted()
      const known = await readGenerations(this.#database)
      const wanted = known.filter((one) => names.includes(one.name))
      const current = wanted.find(({ state }) => state === 'filling')
      if (current === undefined) {
        for (const { name, rowsTotal } of wanted)
          onProgress(name, { rows: rowsTotal, total: rowsTotal, done: true })
        return
      }
      const { name, rowsDone, rowsTotal } = current
      onProgress(name, { rows: rowsDone, total: rowsTotal, done: false })
      await this.#service.nextPass()
    }
  }
}
