import { Pool } from 'pg'
import type { VectorSpace } from '../../server/qdrant/layout.ts'

/** A row of `embeddings` as an agent gives it. */
export interface NewEmbedding {
  readonly id: string
  readonly vector: Float32Array
  readonly content: string
  readonly payload: Readonly<Record<string, string>>
}

/** Rows of one user, straight into the table with its triggers. */
export class EmbeddingInserts implements AsyncDisposable {
  readonly #pool: Pool
  readonly #userId: string

  constructor(url: string, userId: string) {
    this.#pool = new Pool({ connectionString: url, max: 1 })
    this.#userId = userId
  }

  /** One statement, and so one commit. */
  async insert(
    { collection, model, dimension }: VectorSpace,
    rows: readonly NewEmbedding[],
  ): Promise<void> {
    await this.#pool.query(
      `INSERT INTO embeddings (user_id, collection, model, dimension, id, vector, content, payload)
      SELECT $1::uuid, $2::text, $3::text, $4::integer, u.* FROM unnest($5::uuid[], $6::bytea[], $7::text[], $8::jsonb[]) u`,
      [
        this.#userId,
        collection,
        model,
        dimension,
        rows.map(({ id }) => id),
        rows.map(({ vector }) => Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength)),
        rows.map(({ content }) => content),
        rows.map(({ payload }) => JSON.stringify(payload)),
      ],
    )
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.end()
  }
}
