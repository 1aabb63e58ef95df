import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { QdrantClient } from '@qdrant/js-client-rest'
import { collections, type Collection } from '../../schema/tables/embeddings.ts'
import { serve, type SyncServer } from '../../server/index.ts'
import { Database } from '../../server/postgres/database.ts'
import { QdrantEngine, type Point } from '../../server/qdrant/engine.ts'
import { field, namesOf, type VectorSpace } from '../../server/qdrant/layout.ts'
import { VectorOperations } from '../../server/vectors/operate.ts'
import { pointOf } from '../../server/vectors/rows.ts'
import { VectorService } from '../../server/vectors/service.ts'
import { vectorSettings } from '../../server/vectors/settings.ts'
import { createDatabase } from '../../test/support/databases.ts'
import { newUser } from './centre.ts'
import { EmbeddingInserts, type NewEmbedding } from './embedding-inserts.ts'
import { PlainUpserts } from './plain-upserts.ts'
import type { BenchQdrant } from './qdrant.ts'

const MODEL = 'bench'
const SEARCHED = 'code_embeddings'
/** Rows come and go here without a trace in what is searched. */
const ASIDE = 'documentation_embeddings'
const TIMEOUT_MS = 120_000
const LOOK_MS = 5

/** What searches the rows of a centre: Qdrant, or the server itself where there is none. */
export type Way = 'qdrant' | 'exact'

export interface CentreSearch {
  readonly vector: Float32Array
  readonly text?: string | undefined
  readonly filter?: Readonly<Record<string, string>> | undefined
}

interface Answer {
  readonly results: readonly { readonly id: string }[]
  readonly engine: Way
}

/** One database behind two servers, of which one has a Qdrant, with one user who owns all that is searched. */
export class VectorCentre implements AsyncDisposable {
  readonly space: VectorSpace
  readonly #aside: VectorSpace
  readonly #prefix: string
  readonly #databaseUrl: string
  readonly #qdrant: BenchQdrant
  readonly #client: QdrantClient
  readonly #engine: QdrantEngine
  readonly #open: AsyncDisposable[]
  readonly #servers = new Map<Way, SyncServer>()
  #userId = ''
  #token = ''
  #inserts: EmbeddingInserts | undefined

  private constructor(
    qdrant: BenchQdrant,
    dimension: number,
    database: AsyncDisposable & { readonly url: string },
  ) {
    this.space = { collection: SEARCHED, model: MODEL, dimension }
    this.#aside = { ...this.space, collection: ASIDE }
    this.#prefix = `bench_${randomBytes(6).toString('hex')}_`
    this.#databaseUrl = database.url
    this.#qdrant = qdrant
    const { url, apiKey } = qdrant
    this.#client = new QdrantClient({
      url,
      checkCompatibility: false,
      ...(apiKey === undefined ? {} : { headers: { 'api-key': apiKey } }),
    })
    this.#engine = new QdrantEngine({ url, apiKey, timeoutMs: TIMEOUT_MS })
    this.#open = [database]
  }

  static async open(
    postgresUrl: string,
    qdrant: BenchQdrant,
    dimension: number,
  ): Promise<VectorCentre> {
    const database = await createDatabase(postgresUrl, 'bench_vectors')
    const centre = new VectorCentre(qdrant, dimension, database)
    try {
      await centre.#start()
      return centre
    } catch (error) {
      await centre[Symbol.asyncDispose]()
      throw error
    }
  }

  async #start(): Promise<void> {
    const model = { model: MODEL, dimension: this.space.dimension }
    const vectors = {
      models: modelsOf((name) => (name === SEARCHED || name === ASIDE ? [model] : [])),
      prefix: this.#prefix,
    }
    const common = { port: 0, databaseUrl: this.#databaseUrl, vectors }
    const { url, apiKey } = this.#qdrant
    const searching = await serve({ ...common, qdrantUrl: url, qdrantApiKey: apiKey })
    this.#servers.set('qdrant', searching)
    this.#servers.set('exact', await serve(common))
    this.#userId = await newUser(searching, 'searcher')
    this.#token = await searching.issueToken({ userId: this.#userId, agentId: 'bench' })
    this.#inserts = new EmbeddingInserts(this.#databaseUrl, this.#userId)
    this.#open.push(this.#inserts)
    await searching.vectorsCaughtUp()
  }

  /** Resolves once all of them are committed, at once. */
  async insert(rows: readonly NewEmbedding[], where: 'searched' | 'aside'): Promise<void> {
    await this.#inserts?.insert(where === 'searched' ? this.space : this.#aside, rows)
  }

  /** Has the server that follows the log look at it now; resolves when all of it is in Qdrant. */
  async caughtUp(): Promise<void> {
    await this.#servers.get('qdrant')?.vectorsCaughtUp()
  }

  /** Rows of the user that Qdrant has. */
  async points(where: 'searched' | 'aside'): Promise<number> {
    const { alias } = namesOf(this.#prefix, where === 'searched' ? this.space : this.#aside)
    return await this.#engine.count(alias, {
      must: [{ key: field.owner, match: { value: this.#userId } }],
    })
  }

  /** Looks from outside, and wakes nobody. */
  async hasAside(rows: number): Promise<void> {
    while ((await this.points('aside')) < rows) await sleep(LOOK_MS)
  }

  /** Waits for as long as Qdrant arranges what it has, within reason; says how it stands then. */
  async settled(withinMs: number): Promise<string> {
    const { alias } = namesOf(this.#prefix, this.space)
    const deadline = performance.now() + withinMs
    let info = await this.#client.getCollection(alias)
    while (info.status === 'yellow' && performance.now() < deadline) {
      await sleep(100)
      info = await this.#client.getCollection(alias)
    }
    const rows = await this.points('searched')
    // Qdrant counts the words of each row, too, which are indexed from the start.
    const inGraph = Math.max(0, (info.indexed_vectors_count ?? 0) - rows)
    return `Qdrant is ${info.status}, ${inGraph} of ${rows} vectors in its graphs, ${info.segments_count} segments`
  }

  /** Ids found by `POST /search/v1`. */
  async search(way: Way, { vector, text, filter }: CentreSearch, k: number): Promise<string[]> {
    const response = await fetch(`${this.#servers.get(way)?.url}/search/v1`, {
      method: 'POST',
      headers: { authorization: `Bearer ${this.#token}`, 'content-type': 'application/json' },
      body: JSON.stringify({ collection: SEARCHED, vector: [...vector], text, filter, k }),
    })
    const answer = await response.text()
    if (!response.ok) throw new Error(`the search was refused: ${answer}`)
    const { results, engine } = JSON.parse(answer) as Answer
    if (engine !== way) throw new Error(`the search was to be ${way}, and was ${engine}`)
    return results.map(({ id }) => id)
  }

  /** The same of Qdrant itself, with its own client: the user's nearest in the same collection. */
  async searchDirectly(vector: Float32Array, k: number): Promise<string[]> {
    const { points } = await this.#client.query(namesOf(this.#prefix, this.space).alias, {
      query: [...vector],
      filter: { must: [{ key: field.owner, match: { value: this.#userId } }] },
      limit: k,
      with_payload: false,
    })
    return points.map(({ id }) => String(id))
  }

  /** A row as the consumer sends it. */
  point({ id, vector, content, payload }: NewEmbedding): Point {
    const row = { ...this.space, id, owner: this.#userId, vector, text: content, payload }
    return pointOf({ ...row, digest: '0'.repeat(32) }, 1)
  }

  /** Beside the collection that is searched, with the same parameters. */
  plainUpserts(): PlainUpserts {
    return new PlainUpserts(this.#client, this.#engine, this.space, `${this.#prefix}plain`)
  }

  /** Ends the servers and opens what `agentdb vectors reindex` does, in this process. */
  async openOperations(): Promise<Reindexing> {
    await this.#stopServers()
    const database = await Database.open({
      url: this.#databaseUrl,
      folder: undefined,
      connectionsMax: 10,
    })
    const { url, apiKey } = this.#qdrant
    const settings = vectorSettings({ models: modelsOf(() => []), prefix: this.#prefix })
    const service = new VectorService(database, { url, apiKey }, settings, (error) => {
      console.error(error)
    })
    service.start()
    return new Reindexing(database, service)
  }

  async #stopServers(): Promise<void> {
    for (const server of this.#servers.values()) await server.close()
    this.#servers.clear()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stopServers()
    try {
      // A Qdrant that is not ours goes on.
      for (const name of await this.#engine.names())
        if (name.startsWith(this.#prefix)) await this.#engine.drop(name)
    } finally {
      for (const resource of this.#open.splice(0).toReversed())
        await resource[Symbol.asyncDispose]()
    }
  }
}

class Reindexing implements AsyncDisposable {
  readonly #database: Database
  readonly #service: VectorService

  constructor(database: Database, service: VectorService) {
    this.#database = database
    this.#service = service
  }

  async reindex(): Promise<void> {
    await this.#service.caughtUp()
    const operations = new VectorOperations(this.#database, this.#service)
    await operations.reindex(SEARCHED, () => undefined)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#service.close()
    await this.#database.close()
  }
}

const modelsOf = <T>(of: (name: Collection) => readonly T[]): Record<Collection, readonly T[]> =>
  Object.fromEntries(collections.map((name) => [name, of(name)])) as Record<
    Collection,
    readonly T[]
  >
