import type { Json } from '../../schema/define.ts'
import { AgentDBError, preview } from '../../schema/errors.ts'
import { collections, type Collection } from '../../schema/tables/embeddings.ts'
import type { Row } from '../../schema/types.ts'
import type { Embedder } from '../vector/embedder.ts'
import { HALF_MAX, roundedToHalf } from '../vector/half-precision.ts'
import { Repository, type RepositoryContext } from './repository.ts'

export interface PutEmbedding {
  /** Default: a new id. An id that exists is embedded again. */
  readonly id?: string | undefined
  readonly collection: Collection
  /** Embedded unless `vector` is given. Kept whole for text search, its first characters as preview. */
  readonly content?: string | undefined
  readonly vector?: Float32Array | undefined
  /** Name of the model that made `vector`. Default: `custom`. */
  readonly model?: string | undefined
  readonly payload?: Readonly<Record<string, Json>> | undefined
}

/** Characters of content kept beside a vector (QD-006, QD-007). */
const PREVIEW_LENGTH: Readonly<Record<Collection, number>> = {
  code_embeddings: 200,
  documentation_embeddings: 200,
  conversation_embeddings: 200,
  incident_knowledge: 500,
}

/** Embeddings are rows like any other, with {@link put} on top. */
export class EmbeddingRepository extends Repository<'embeddings'> {
  readonly #embedder: Embedder
  readonly #halfPrecision: ReadonlySet<Collection>

  /** Vectors of the collections of `halfPrecision` are put as 16-bit floats hold them. */
  constructor(
    context: RepositoryContext,
    embedder: Embedder,
    halfPrecision: readonly Collection[] = [],
  ) {
    super(context, 'embeddings')
    this.#embedder = embedder
    this.#halfPrecision = new Set(halfPrecision)
  }

  /**
   * Stores a vector with its payload, embedding `content` if no vector is given.
   *
   * @example
   * await db.embeddings.put({ collection: 'documentation_embeddings', content: text, payload: { title: 'Rollback' } })
   */
  async put(input: PutEmbedding): Promise<Row<'embeddings'>> {
    const [row] = await this.putMany([input])
    if (row === undefined) throw new AgentDBError('INVALID_VALUE', 'nothing was embedded')
    return row
  }

  /** As {@link put}, embedded together and written in one transaction. */
  async putMany(inputs: readonly PutEmbedding[]): Promise<Row<'embeddings'>[]> {
    for (const input of inputs) validate(input)
    const texts = inputs
      .filter(({ vector }) => vector === undefined)
      .map(({ content }) => content ?? '')
    const made = texts.length === 0 ? [] : [...(await this.#embedder.embed(texts))]
    if (made.length !== texts.length || made.some((vector) => !(vector instanceof Float32Array))) {
      throw new AgentDBError(
        'INVALID_VALUE',
        `the embedder ${this.#embedder.model} gave ${made.length} vectors for ${texts.length} texts`,
      )
    }
    return this.context.connection.transaction(() =>
      inputs.map((input) => this.#store(input, input.vector ?? (made.shift() as Float32Array))),
    )
  }

  #rounded(collection: Collection, vector: Float32Array): Float32Array {
    if (!this.#halfPrecision.has(collection)) return vector
    const rounded = roundedToHalf(vector)
    if (rounded !== undefined) return rounded
    throw new AgentDBError(
      'INVALID_VALUE',
      `embeddings.vector has a component that half precision cannot hold: ${collection} takes -${HALF_MAX} to ${HALF_MAX}`,
      { table: 'embeddings', column: 'vector' },
    )
  }

  #store(input: PutEmbedding, whole: Float32Array): Row<'embeddings'> {
    const vector = this.#rounded(input.collection, whole)
    const content = {
      model: input.vector === undefined ? this.#embedder.model : (input.model ?? 'custom'),
      dimension: vector.length,
      vector,
      content_preview: contentPreview(input),
      content: input.content ?? null,
      payload: this.#payload(input),
    }
    const existing = input.id === undefined ? undefined : this.find(input.id)
    if (existing !== undefined) {
      mustStayIn(existing.collection, input.collection)
      return this.update(existing.id, content)
    }
    return this.create({
      ...(input.id === undefined ? {} : { id: input.id }),
      collection: input.collection,
      ...content,
    })
  }

  /** Fields that follow from the content are filled in; what the caller gives stands. */
  #payload({ collection, content, payload = {} }: PutEmbedding): Json {
    const filled: Record<string, Json> = {}
    const shown =
      content === undefined ? undefined : characters(content, PREVIEW_LENGTH[collection])
    if (collection === 'conversation_embeddings') {
      filled['timestamp'] = this.now()
      filled['user_id'] = this.context.userId
    } else {
      filled['indexed_at'] = this.now()
    }
    if (collection === 'conversation_embeddings' && content !== undefined) {
      filled['content_preview'] = shown ?? ''
      filled['char_count'] = Array.from(content).length
    }
    if (collection === 'incident_knowledge' && shown !== undefined)
      filled['resolution_preview'] = shown
    return { ...filled, ...payload }
  }
}

const characters = (text: string, count: number): string =>
  Array.from(text.slice(0, count * 2))
    .slice(0, count)
    .join('')

const contentPreview = ({ collection, content }: PutEmbedding): string | null =>
  content === undefined ? null : characters(content, PREVIEW_LENGTH[collection])

/** Types of the payload fields of the seeds (QD-004 to QD-007). Other fields are free. */
const payloadFields: Readonly<
  Record<Collection, Readonly<Record<string, 'string' | 'number' | 'strings'>>>
> = {
  code_embeddings: {
    file_path: 'string',
    function_name: 'string',
    language: 'string',
    project_id: 'string',
    indexed_at: 'string',
  },
  documentation_embeddings: {
    title: 'string',
    section: 'string',
    url: 'string',
    indexed_at: 'string',
  },
  conversation_embeddings: {
    conversation_id: 'string',
    message_id: 'string',
    user_id: 'string',
    content_preview: 'string',
    timestamp: 'string',
    char_count: 'number',
  },
  incident_knowledge: {
    incident_id: 'string',
    title: 'string',
    severity: 'string',
    services: 'strings',
    resolution_preview: 'string',
    indexed_at: 'string',
  },
}

function mustStayIn(collection: string, wanted: string): void {
  if (collection === wanted) return
  throw new AgentDBError(
    'INVALID_VALUE',
    `embeddings.collection never changes: the id is in ${collection} (got ${preview(wanted)})`,
    { table: 'embeddings', column: 'collection', value: wanted },
  )
}

function validate({ collection, content, vector, payload }: PutEmbedding): void {
  if (!collections.includes(collection)) {
    throw new AgentDBError(
      'INVALID_VALUE',
      `embeddings.collection is not one of ${collections.join(', ')} (got ${preview(collection)})`,
      { table: 'embeddings', column: 'collection', value: collection },
    )
  }
  if (content === undefined && vector === undefined) {
    throw new AgentDBError('INVALID_VALUE', 'embeddings.put needs content or vector', {
      table: 'embeddings',
      column: 'vector',
    })
  }
  if (content !== undefined && typeof content !== 'string') {
    throw new AgentDBError(
      'INVALID_VALUE',
      `embeddings.content is not a string (got ${preview(content)})`,
      { table: 'embeddings', column: 'content', value: content },
    )
  }
  for (const [field, type] of Object.entries(payloadFields[collection])) {
    const value = payload?.[field]
    if (value === undefined || value === null) continue
    const fits =
      type === 'strings'
        ? Array.isArray(value) && value.every((item) => typeof item === 'string')
        : typeof value === type
    if (!fits) {
      throw new AgentDBError(
        'INVALID_VALUE',
        `embeddings.payload.${field} of ${collection} is not ${type === 'strings' ? 'a list of strings' : `a ${type}`} (got ${preview(value)})`,
        { table: 'embeddings', column: 'payload', value },
      )
    }
  }
}
