import type { Polarity } from '../../schema/tables/memory.ts'
import type { NewRow } from '../../schema/types.ts'
import { newId } from '../../schema/values/id.ts'
import type { Repository } from '../repositories/repository.ts'
import type { Embedder } from '../vector/embedder.ts'
import { embedTexts, failed } from './callbacks.ts'
import { provenanceHash } from './provenance.ts'
import type { MemoryItemText, StoredMemoryItem, TrajectorySource } from './types.ts'

/** Items that belong together, before they have vectors and ids. */
export interface NewRecord {
  readonly query: string
  readonly polarity: Polarity
  readonly items: readonly MemoryItemText[]
  readonly trajectories: readonly TrajectorySource[]
  readonly trajectoryIds: readonly string[]
  readonly taskId: string | null
  readonly templateId: string | null
  readonly expiresAt: string | null
  /** Of the task, where it is known already. */
  readonly key?: { readonly model: string; readonly vector: Float32Array } | undefined
}

/** Writes records: vectors first, which takes time, then all items in one transaction. */
export class RecordWriter {
  readonly #items: Repository<'memory_items'>
  readonly #embedder: Embedder

  constructor(items: Repository<'memory_items'>, embedder: Embedder) {
    this.#items = items
    this.#embedder = embedder
  }

  async add(record: NewRecord): Promise<StoredMemoryItem[]> {
    const write = await this.prepare(record)
    return write()
  }

  /** Makes the vectors; what it returns writes the items. */
  async prepare(record: NewRecord): Promise<() => StoredMemoryItem[]> {
    const { items, query, key } = record
    if (items.length === 0) return () => []
    const { model } = this.#embedder
    // Vectors of two models are never compared: text that cannot be embedded as its task was has none.
    const embedsItems = key === undefined || key.model === model
    const texts = [...(key === undefined ? [query] : []), ...(embedsItems ? items.map(textOf) : [])]
    const vectors = texts.length === 0 ? [] : await embedTexts(this.#embedder, texts)
    const queryVector = key?.vector ?? vectors.shift()
    if (queryVector === undefined) throw new Error('bug in AgentDB: a task without a vector')
    mustFit(queryVector, vectors, model)
    const recordId = newId()
    const rows = items.map((item, i) => ({
      ...rowOf(record, item, queryVector),
      record_id: recordId,
      model: key?.model ?? model,
      text_vector: vectors[i] ?? null,
    }))
    return () => this.#items.createMany(rows)
  }
}

/** An imported vector that says it is of our model must look like it. */
function mustFit(key: Float32Array, vectors: readonly Float32Array[], model: string): void {
  const other = vectors.find(({ length }) => length !== key.length)
  if (other !== undefined)
    throw failed(`embed (${model})`, `gave ${other.length} dimensions; the task has ${key.length}`)
}

function rowOf(
  record: NewRecord,
  { title, description, content }: MemoryItemText,
  queryVector: Float32Array,
): Omit<NewRow<'memory_items'>, 'record_id' | 'model'> {
  const { query, polarity, trajectories, trajectoryIds, taskId, templateId, expiresAt } = record
  const item = { title, description, content }
  return {
    ...item,
    polarity,
    task_id: taskId,
    template_id: templateId,
    trajectory_ids: trajectoryIds,
    provenance_hash: trajectories.length === 0 ? null : provenanceHash(item, trajectories),
    source_query: query,
    dimension: queryVector.length,
    query_vector: queryVector,
    expires_at: expiresAt,
  }
}

/** What the text vector embeds. */
const textOf = ({ title, description, content }: MemoryItemText): string =>
  `${title}\n${description}\n${content}`

export function recordOf(
  trajectories: readonly TrajectorySource[],
  polarity: Polarity,
): Omit<NewRecord, 'items' | 'expiresAt'> {
  const [first] = trajectories
  return {
    query: first?.query ?? '',
    polarity,
    trajectories,
    trajectoryIds: trajectories.map(({ id }) => id),
    taskId: first?.task_id ?? null,
    templateId: first?.template_id ?? null,
  }
}
