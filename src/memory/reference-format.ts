import type { Json } from '../../schema/define.ts'
import { AgentDBError, preview } from '../../schema/errors.ts'
import { newId } from '../../schema/values/id.ts'
import type { Repository } from '../repositories/repository.ts'
import { APPENDED_MAX, checkedItems, vectorFault } from './callbacks.ts'
import { parseItems, writeItem } from './markdown.ts'
import { mustBeKnown, refuse } from './options.ts'
import { recordOf, type RecordWriter } from './record-writer.ts'
import type { MemoryItemText, StoredMemoryItem, Trajectory } from './types.ts'

/**
 * The two files of the paper's reference code, JSON Lines both:
 *
 *   memories     {"task_id","query","think_list","action_list","status":"success"|"fail","memory_items","template_id"}
 *   embeddings   {"id": task_id, "text": query, "embedding": [...]}
 *
 * `memory_items` is Markdown, or a list of pieces of it.
 */
export interface ReferenceFiles {
  readonly memories: string
  readonly embeddings?: string | undefined
}

export interface ImportOptions {
  /** Model that made the embeddings. Required with them, since vectors of two models are never compared. */
  readonly model?: string | undefined
}

export interface Imported {
  readonly trajectories: readonly Trajectory[]
  readonly items: readonly StoredMemoryItem[]
}

interface Destination {
  readonly trajectories: Repository<'memory_trajectories'>
  readonly writer: RecordWriter
  readonly transaction: <T>(work: () => T) => T
}

interface Line {
  readonly task_id: string
  readonly query: string
  readonly steps: Json
  readonly status: 'success' | 'fail'
  readonly items: readonly MemoryItemText[]
  readonly template_id: string | null
}

const CALL = 'importReference'

/** Vectors first, which takes time, then all rows in one transaction. */
export async function importReference(
  files: ReferenceFiles,
  options: ImportOptions,
  { trajectories, writer, transaction }: Destination,
): Promise<Imported> {
  mustBeKnown(CALL, files, ['memories', 'embeddings'])
  mustBeKnown(CALL, options, ['model'])
  const { model = '' } = options
  if (files.embeddings !== undefined && (typeof model !== 'string' || model === ''))
    refuse(CALL, 'name the model of the embeddings')
  const lines = linesOf('memories', files.memories).map(checkedLine)
  const vectors = vectorsOf(files.embeddings)
  const writes: (() => { trajectory: Trajectory; items: StoredMemoryItem[] })[] = []
  for (const { task_id, template_id, query, steps, status, items } of lines) {
    const source = { id: newId(), task_id, template_id, query, steps }
    const vector = vectors.get(task_id)
    const outcome = status === 'success' ? 'success' : 'failure'
    const write = await writer.prepare({
      ...recordOf([source], outcome),
      items,
      expiresAt: null,
      key: vector === undefined ? undefined : { model, vector },
    })
    writes.push(() => ({
      trajectory: trajectories.create({ ...source, outcome }),
      items: write(),
    }))
  }
  const written = transaction(() => writes.map((write) => write()))
  return {
    trajectories: written.map(({ trajectory }) => trajectory),
    items: written.flatMap(({ items }) => items),
  }
}

function linesOf(file: string, text: unknown): { where: string; value: unknown }[] {
  if (typeof text !== 'string') refuse(CALL, `${file} must be JSON Lines, got ${preview(text)}`)
  return text.split('\n').flatMap((line, i) => {
    if (line.trim() === '') return []
    const where = `${file} line ${i + 1}`
    try {
      return [{ where, value: JSON.parse(line) as unknown }]
    } catch (error) {
      throw unreadable(where, 'is not JSON', error)
    }
  })
}

const unreadable = (where: string, why: string, cause?: unknown): AgentDBError =>
  new AgentDBError('INVALID_VALUE', `db.memory.${CALL}: ${where} ${why}`, { cause })

function checkedLine({ where, value }: { where: string; value: unknown }): Line {
  if (typeof value !== 'object' || value === null) throw unreadable(where, 'is no record')
  const line = value as Readonly<Record<string, unknown>>
  const { task_id, query, status, template_id = null, memory_items = '' } = line
  const { think_list = [], action_list = [] } = line
  if (typeof task_id !== 'string' && typeof task_id !== 'number')
    throw unreadable(where, `has task_id ${preview(task_id)}`)
  if (typeof query !== 'string' || query.trim() === '')
    throw unreadable(where, `has query ${preview(query)}`)
  if (status !== 'success' && status !== 'fail')
    throw unreadable(where, `has status ${preview(status)}, not success or fail`)
  if (!isList(think_list) || !isList(action_list) || think_list.length !== action_list.length)
    throw unreadable(where, 'has think_list and action_list of different lengths')
  const pieces = isList(memory_items) ? memory_items : [memory_items]
  if (!pieces.every((piece) => typeof piece === 'string'))
    throw unreadable(where, `has memory_items ${preview(memory_items)}`)
  if (template_id !== null && typeof template_id !== 'string' && typeof template_id !== 'number')
    throw unreadable(where, `has template_id ${preview(template_id)}`)
  return {
    task_id: String(task_id),
    query,
    steps: think_list.map((think, i) => ({ think, action: action_list[i] ?? null })),
    status,
    items: checkedItems(`${CALL}: ${where}`, parseItems(pieces.join('\n\n')), APPENDED_MAX),
    template_id: template_id === null ? null : String(template_id),
  }
}

const isList = (value: unknown): value is readonly Json[] => Array.isArray(value)

function vectorsOf(text: string | undefined): Map<string, Float32Array> {
  const vectors = new Map<string, Float32Array>()
  for (const { where, value } of text === undefined ? [] : linesOf('embeddings', text)) {
    const { id, embedding } = (value ?? {}) as Readonly<Record<string, unknown>>
    if ((typeof id !== 'string' && typeof id !== 'number') || !isList(embedding))
      throw unreadable(where, 'has no id and embedding')
    const vector = Float32Array.from(embedding, Number)
    const fault = vectorFault(vector)
    if (fault !== undefined) throw unreadable(where, `has an embedding ${fault}`)
    vectors.set(String(id), vector)
  }
  return vectors
}

/**
 * All trajectories that are here, in the order of their making, each with its items that nothing superseded. The files
 * know only success and failure: what was impossible or never judged is `fail`, and items of several attempts stand with
 * the first of them.
 */
export function exportReference(
  trajectories: Repository<'memory_trajectories'>,
  items: Repository<'memory_items'>,
): Required<ReferenceFiles> {
  const itemsOf = new Map<string, StoredMemoryItem[]>()
  for (const item of items.list({ where: { superseded_by: null }, orderBy: 'created_at asc' })) {
    const [first] = item.trajectory_ids
    if (typeof first === 'string') itemsOf.set(first, [...(itemsOf.get(first) ?? []), item])
  }
  const memories: string[] = []
  const embeddings: string[] = []
  for (const trajectory of trajectories.list({ orderBy: 'created_at asc' })) {
    const own = itemsOf.get(trajectory.id) ?? []
    memories.push(JSON.stringify(lineOf(trajectory, own)))
    const [first] = own
    if (first === undefined) continue
    const { task_id: id, query: text } = trajectory
    embeddings.push(JSON.stringify({ id, text, embedding: [...first.query_vector] }))
  }
  return { memories: asLines(memories), embeddings: asLines(embeddings) }
}

const asLines = (lines: readonly string[]): string => lines.map((line) => `${line}\n`).join('')

function lineOf(trajectory: Trajectory, items: readonly StoredMemoryItem[]): object {
  const { task_id, query, steps, outcome, template_id } = trajectory
  const list = isList(steps) ? steps : [steps]
  return {
    task_id,
    query,
    think_list: list.map((step) => partOf(step, 'think') ?? ''),
    action_list: list.map((step) => partOf(step, 'action') ?? step),
    status: outcome === 'success' ? 'success' : 'fail',
    memory_items: items.map((item, i) => writeItem(item, i + 1)),
    template_id:
      template_id !== null && /^(?:0|[1-9]\d{0,14})$/.test(template_id)
        ? Number(template_id)
        : template_id,
  }
}

const partOf = (step: Json, name: 'think' | 'action'): Json | undefined =>
  typeof step === 'object' && step !== null && !isList(step) ? step[name] : undefined
