import type { QdrantClient } from '@qdrant/js-client-rest'
import type { Point, QdrantEngine } from '../../server/qdrant/engine.ts'
import { collectionSettings, payloadIndexes, type VectorSpace } from '../../server/qdrant/layout.ts'
import { vectorSettings } from '../../server/vectors/settings.ts'

/** Points of one request, about as many as the consumer sends of 1536 dimensions. */
const BATCH = 128

/** A collection like ours that is only written to, with Qdrant's own client: what Qdrant itself takes. */
export class PlainUpserts {
  readonly #client: QdrantClient
  readonly #engine: QdrantEngine
  readonly #space: VectorSpace
  readonly #name: string

  constructor(client: QdrantClient, engine: QdrantEngine, space: VectorSpace, name: string) {
    this.#client = client
    this.#engine = engine
    this.#space = space
    this.#name = name
  }

  /** Makes the collection, empty, with the indexes that ours has. */
  async make(): Promise<void> {
    await this.#engine.drop(this.#name)
    await this.#engine.create(this.#name, collectionSettings(this.#space, vectorSettings().spread))
    for (const [field, schema] of payloadIndexes(this.#space.collection))
      await this.#engine.createIndex(this.#name, field, schema)
  }

  /** Resolves once all of them are applied. */
  async put(points: readonly Point[]): Promise<void> {
    for (let at = 0; at < points.length; at += BATCH)
      await this.#client.upsert(this.#name, {
        wait: true,
        points: points.slice(at, at + BATCH) as Upserted,
      })
  }
}

type Upserted = Extract<Parameters<QdrantClient['upsert']>[1], { points: unknown }>['points']
