import { AgentDBError } from '../../schema/errors.ts'
import type { Database } from '../postgres/database.ts'
import type { QdrantEngine } from '../qdrant/engine.ts'
import {
  collectionSettings,
  namesOf,
  payloadIndexes,
  POINT_LAYOUT,
  sameSpace,
  type VectorSpace,
} from '../qdrant/layout.ts'
import { Marks } from './marks.ts'
import type { VectorSettings } from './settings.ts'
import { defaultOf, makeDefault, readGenerations, requestGeneration } from './state.ts'
import type { Generation } from './state.ts'

interface Tag {
  readonly model?: unknown
  readonly layout?: unknown
}

/** Keeps what Qdrant has of collections equal to `sync.vector_collection`. */
export class Collections {
  readonly #database: Database
  readonly #engine: QdrantEngine
  readonly #settings: VectorSettings
  readonly #marks: Marks

  constructor(database: Database, engine: QdrantEngine, settings: VectorSettings) {
    this.#database = database
    this.#engine = engine
    this.#settings = settings
    this.#marks = new Marks(database, engine, settings.spread.shardNumber)
  }

  /** Asks for the collections of the configuration, once (QD-018). */
  async requestConfigured(): Promise<void> {
    const known = await readGenerations(this.#database)
    for (const space of this.#settings.spaces)
      if (!known.some((one) => sameSpace(one, space))) await this.request(space, 1)
    for (const [collection, space] of this.#settings.defaults)
      if (defaultOf(known, collection) === undefined) await makeDefault(this.#database, space)
  }

  async request(space: VectorSpace, generation: number): Promise<void> {
    const name = namesOf(this.#settings.prefix, space).generation(generation)
    await requestGeneration(this.#database, space, { name, generation })
  }

  /** Whether a space that nobody asked for gets a collection when its first row comes. What is `off` takes no place. */
  mayAdd(space: VectorSpace, known: readonly Generation[]): boolean {
    if (known.some((one) => sameSpace(one, space))) return false
    const others = known.filter((one) => one.collection === space.collection && one.state !== 'off')
    return (
      new Set(others.map(({ model, dimension }) => `${dimension} ${model}`)).size <
      this.#settings.modelsMax
    )
  }

  /**
   * A live collection that Qdrant lost, or has only an older copy of, is filled again. One whose points have an older
   * layout goes on until the next generation takes its place.
   */
  async checkLive(): Promise<void> {
    for (const generation of await readGenerations(this.#database)) {
      if (generation.state !== 'live') continue
      const tag = await this.#tagOf(generation)
      const mark = tag === undefined ? -1 : (await this.#marks.read(generation.name)).least
      if (mark < generation.marked) await this.#refill(generation)
      else if (Number(tag?.layout) < POINT_LAYOUT)
        await this.request(generation, generation.generation + 1)
    }
  }

  async #refill({ name }: Generation): Promise<void> {
    await this.#database.query(
      `UPDATE sync.vector_collection SET state = 'filling', rows_done = 0 WHERE name = $1 AND state = 'live'`,
      [name],
    )
  }

  /** Makes a collection with its indexes; goes on where an earlier attempt stopped. */
  async make(generation: Generation): Promise<void> {
    const settings = collectionSettings(generation, this.#settings.spread)
    if ((await this.#tagOf(generation)) === undefined)
      await this.#engine.create(generation.name, settings)
    const facts = await this.#engine.facts(generation.name)
    for (const [field, schema] of payloadIndexes(generation.collection))
      if (facts?.indexes.has(field) !== true)
        await this.#engine.createIndex(generation.name, field, schema)
  }

  /** Aliases of all that is live, in one call; of its space `filled` comes to the place of what was live before. */
  async pointAliases(filled?: Generation): Promise<void> {
    const aliases = new Map<string, string>()
    for (const generation of await readGenerations(this.#database)) {
      if (generation.state !== 'live' && generation.name !== filled?.name) continue
      const { name } = filled !== undefined && sameSpace(filled, generation) ? filled : generation
      const { alias, defaultAlias } = namesOf(this.#settings.prefix, generation)
      aliases.set(alias, name)
      if (generation.isDefault) aliases.set(defaultAlias, name)
    }
    const taken = (await this.#engine.names()).find((name) => aliases.has(name))
    if (taken !== undefined) {
      throw new AgentDBError(
        'QDRANT_MISMATCH',
        `Qdrant has a collection ${taken}, which is to be an alias of ours: remove it, or give the option prefix`,
      )
    }
    await this.#engine.pointAliases(aliases)
  }

  /** Removes generations that another one has replaced. */
  async dropRetired(): Promise<void> {
    for (const { name, state } of await readGenerations(this.#database)) {
      if (state !== 'retired') continue
      await this.#engine.drop(name)
      await this.#database.query('DELETE FROM sync.vector_collection WHERE name = $1', [name])
    }
  }

  /**
   * What we wrote on a collection when we made it; undefined where there is none.
   *
   * @throws AgentDBError `QDRANT_MISMATCH`: what has our name is never dropped by itself
   */
  async #tagOf({ name, model, dimension }: Generation): Promise<Tag | undefined> {
    const facts = await this.#engine.facts(name)
    if (facts === undefined) return undefined
    const ours = facts.metadata['agentdb'] as Tag | undefined
    if (facts.dimension === dimension && facts.distance === 'Cosine' && ours?.model === model)
      return ours
    throw new AgentDBError(
      'QDRANT_MISMATCH',
      `the collection ${name} in Qdrant has ${facts.dimension} dimensions, ${facts.distance}, model ${String(ours?.model)}; it should have ${dimension}, Cosine, ${model}`,
    )
  }
}
