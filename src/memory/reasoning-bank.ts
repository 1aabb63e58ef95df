import { AgentDBError, preview } from '../../schema/errors.ts'
import { polarities } from '../../schema/tables/memory.ts'
import { isId } from '../../schema/values/id.ts'
import { timestampOfMicros } from '../../schema/values/timestamp.ts'
import { Repository, type RepositoryContext } from '../repositories/repository.ts'
import type { Embedder } from '../vector/embedder.ts'
import { APPENDED_MAX, called, checkedItems, checkedJudgement, embedTexts } from './callbacks.ts'
import { consolidate, type ConsolidateOptions, type Consolidated } from './consolidate.ts'
import { renderItems } from './markdown.ts'
import { MemoryIndex } from './memory-index.ts'
import {
  checkRetrieve,
  ITEMS_MAX,
  mustBeKnown,
  numberOf,
  RECORDS_MAX,
  refuse,
  timeOf,
} from './options.ts'
import { prune, type Pruned, type PruneOptions } from './prune.ts'
import { recordOf, RecordWriter } from './record-writer.ts'
import {
  exportReference,
  importReference,
  type Imported,
  type ImportOptions,
  type ReferenceFiles,
} from './reference-format.ts'
import { nearestItems } from './retrieval.ts'
import { traceItem, type MemoryTrace } from './trace.ts'
import type {
  AppendItems,
  Distillers,
  DistillContrast,
  DistillOptions,
  Feedback,
  Judge,
  MemoryItemText,
  RecordTrajectory,
  RetrievedItem,
  RetrieveOptions,
  StoredMemoryItem,
  Trajectory,
} from './types.ts'

/** Most items of one trajectory, and of several side by side: the paper's. */
export const DISTILLED_MAX = 3
export const CONTRASTED_MAX = 5
const ATTEMPTS_MAX = 100

/**
 * ReasoningBank (arXiv 2509.25140): an agent writes down what it did, has it judged, draws lessons from successes and
 * failures, and finds them again by the task at hand. Which model judges and distills is yours: both are functions that
 * you pass in; the store calls no model and reaches no network. All rows are synced like any other.
 *
 * @example
 * const t = db.memory.recordTrajectory({ taskId: '7', query: 'Find my first order', steps: [{ think: 'open it', action: 'click' }] })
 * await db.memory.judge(t.id, () => ({ label: 'failure', thoughts: 'It read the first page only.' }))
 * const lesson = { title: 'Read every page', description: 'For lists.', content: 'Go to the last page first.' }
 * await db.memory.distill(t.id, { success: () => [], failure: () => [lesson] })
 * const items = await db.memory.retrieve({ query: 'Find my latest order' })
 * console.log(db.memory.render(items))
 */
export class ReasoningBank {
  /** Rows of `memory_trajectories`. */
  readonly trajectories: Repository<'memory_trajectories'>
  /** Rows of `memory_items`, superseded and expired ones too. */
  readonly items: Repository<'memory_items'>
  readonly #context: RepositoryContext
  readonly #embedder: Embedder
  readonly #writer: RecordWriter
  readonly #byTask: MemoryIndex
  readonly #byText: MemoryIndex

  constructor(context: RepositoryContext, embedder: Embedder) {
    this.#context = context
    this.#embedder = embedder
    this.trajectories = new Repository(context, 'memory_trajectories')
    this.items = new Repository(context, 'memory_items')
    this.#writer = new RecordWriter(this.items, embedder)
    this.#byTask = new MemoryIndex(context.connection, 'query_vector')
    this.#byText = new MemoryIndex(context.connection, 'text_vector')
  }

  /**
   * Keeps what an agent did for a task.
   *
   * @throws AgentDBError `INVALID_OPTION`, `INVALID_VALUE`
   */
  recordTrajectory(input: RecordTrajectory): Trajectory {
    const call = 'recordTrajectory'
    mustBeKnown(call, input, trajectoryOptions)
    const { taskId, query, steps, model, templateId, attemptGroup, outcome, expiresAt } = input
    if (typeof query !== 'string' || query.trim() === '')
      refuse(call, `query must be the task in words, got ${preview(query)}`)
    return this.trajectories.create({
      task_id: taskId,
      query,
      steps,
      model,
      template_id: templateId,
      attempt_group: attemptGroup,
      outcome,
      expires_at: expiresAt === undefined ? undefined : timeOf(call, 'expiresAt', expiresAt),
    })
  }

  /**
   * Asks `judge` how a trajectory ended and keeps its label, thoughts and confidence.
   *
   * @throws AgentDBError `NOT_FOUND`, `CALLBACK_FAILED`: the trajectory is then as it was
   */
  async judge(trajectoryId: string, judge: Judge): Promise<Trajectory> {
    const trajectory = this.#mustFind(trajectoryId)
    mustBeFunction('judge', 'judge', judge)
    return this.trajectories.update(
      trajectoryId,
      checkedJudgement(await called('judge', () => judge(trajectory))),
    )
  }

  /**
   * Draws at most 3 items from a trajectory with a known outcome, with `success` or `failure` (also of what was
   * impossible), and keeps them as one record. Items are added, never replaced: see {@link consolidate}.
   *
   * @throws AgentDBError `NOT_FOUND`, `INVALID_OPTION` (judge it first), `CALLBACK_FAILED`: nothing is then written
   */
  async distill(
    trajectoryId: string,
    distillers: Distillers,
    options: DistillOptions = {},
  ): Promise<StoredMemoryItem[]> {
    const call = 'distill'
    mustBeKnown(call, distillers, ['success', 'failure'])
    mustBeKnown(call, options, ['expiresAt'])
    const trajectory = this.#mustFind(trajectoryId)
    if (trajectory.outcome === 'unknown')
      refuse(call, `trajectory ${trajectoryId} has no outcome; judge it first`)
    const polarity = trajectory.outcome === 'success' ? 'success' : 'failure'
    const distill = distillers[polarity]
    mustBeFunction(call, polarity, distill)
    const name = `distill.${polarity}`
    const given = await called(name, () => distill(trajectory))
    return this.#writer.add({
      ...recordOf([trajectory], polarity),
      items: checkedItems(name, given, DISTILLED_MAX),
      expiresAt: expiryOf(call, options),
    })
  }

  /**
   * Draws at most 5 items from two or more attempts of one task, side by side (the paper's parallel scaling).
   *
   * @throws AgentDBError `NOT_FOUND`, `INVALID_OPTION`, `CALLBACK_FAILED`: nothing is then written
   */
  async distillContrast(
    trajectoryIds: readonly string[],
    distill: DistillContrast,
    options: DistillOptions = {},
  ): Promise<StoredMemoryItem[]> {
    const call = 'distillContrast'
    mustBeKnown(call, options, ['expiresAt'])
    mustBeFunction(call, 'distill', distill)
    if (!Array.isArray(trajectoryIds) || new Set(trajectoryIds).size !== trajectoryIds.length)
      refuse(call, `give the ids of different trajectories, got ${preview(trajectoryIds)}`)
    if (trajectoryIds.length < 2 || trajectoryIds.length > ATTEMPTS_MAX)
      refuse(call, `give 2 to ${ATTEMPTS_MAX} trajectories, got ${trajectoryIds.length}`)
    const trajectories = trajectoryIds.map((id) => this.#mustFind(id))
    if (trajectories.some(({ query }) => query !== trajectories[0]?.query))
      refuse(call, 'the trajectories are of different tasks; give attempts of one query')
    const given = await called(call, () => distill(trajectories))
    return this.#writer.add({
      ...recordOf(trajectories, 'contrast'),
      items: checkedItems(call, given, CONTRASTED_MAX),
      expiresAt: expiryOf(call, options),
    })
  }

  /**
   * Keeps items that were written elsewhere, by a person or another system, as one record.
   *
   * @throws AgentDBError `INVALID_OPTION`, `INVALID_VALUE`, `CALLBACK_FAILED`
   */
  async append(input: AppendItems): Promise<StoredMemoryItem[]> {
    const call = 'append'
    mustBeKnown(call, input, appendOptions)
    const { query, polarity, items, taskId, templateId, trajectoryIds = [] } = input
    if (typeof query !== 'string' || query.trim() === '')
      refuse(call, `query must be the task in words, got ${preview(query)}`)
    if (!polarities.includes(polarity))
      refuse(call, `polarity must be one of ${polarities.join(', ')}, got ${preview(polarity)}`)
    if (!Array.isArray(items) || items.length === 0) refuse(call, 'give items')
    if (!Array.isArray(trajectoryIds) || !trajectoryIds.every(isId))
      refuse(call, `trajectoryIds must be ids, got ${preview(trajectoryIds)}`)
    return this.#writer.add({
      query,
      polarity,
      items: checkedItems(call, items, APPENDED_MAX),
      trajectories: trajectoryIds.flatMap((id) => this.trajectories.find(id) ?? []),
      trajectoryIds,
      taskId: taskId ?? null,
      templateId: templateId ?? null,
      expiresAt: expiryOf(call, { expiresAt: input.expiresAt }),
    })
  }

  /**
   * The items of the records whose task is nearest to the one at hand, best first; those of a record in the order in
   * which they were written. With `by: 'text'` those of the records that have the items with the nearest words, the
   * nearest items first. Expired and superseded items are not among them, nor those with vectors of another model.
   *
   * @example
   * const items = await db.memory.retrieve({ query: 'Find my latest order' })
   *
   * @throws AgentDBError `INVALID_OPTION`, `CALLBACK_FAILED`
   */
  async retrieve(options: RetrieveOptions): Promise<RetrievedItem[]> {
    const call = 'retrieve'
    checkRetrieve(options)
    const { polarity, by = 'task', count = true, minScore = Number.NEGATIVE_INFINITY } = options
    const k = numberOf(call, 'k', options.k, { default: 1, min: 1, max: RECORDS_MAX, whole: true })
    const maxItems = numberOf(call, 'maxItems', options.maxItems, {
      default: 3,
      min: 1,
      max: ITEMS_MAX,
      whole: true,
    })
    const at = options.at === undefined ? undefined : timeOf(call, 'at', options.at)
    const vector = options.embedding ?? (await this.#embedQuery(options))
    const index = by === 'task' ? this.#byTask : this.#byText
    const { connection } = this.#context
    await index.catchUp()
    const model = options.model ?? this.#embedder.model
    const probe = { model, vector, polarity, by, k, maxItems, minScore, at: at ?? this.#now() }
    const items = connection.reading(() => nearestItems(connection, index, probe))
    if (count && items.length > 0) this.#countUp(['retrieved_count'], items)
    return items
  }

  /**
   * Says what became of an item that was shown: it was followed, it helped, it did harm. Counts of all agents add up.
   *
   * @throws AgentDBError `NOT_FOUND`, `INVALID_OPTION`
   */
  feedback(feedback: Feedback): void {
    const call = 'feedback'
    mustBeKnown(call, feedback, ['itemId', 'used', 'helped', 'hurt'])
    const { itemId, used, helped = false, hurt = false } = feedback
    for (const [name, value] of Object.entries({ used, helped, hurt })) {
      if (value !== undefined && typeof value !== 'boolean')
        refuse(call, `${name} must be true or false, got ${preview(value)}`)
    }
    if (helped && hurt) refuse(call, 'give helped or hurt, not both')
    if (used !== true && !helped && !hurt) refuse(call, 'give used, helped or hurt')
    if (used === false) refuse(call, 'what helped or hurt was used')
    this.#context.connection.transaction(() => {
      if (typeof itemId !== 'string' || this.items.find(itemId) === undefined)
        throw notFound('memory_items', itemId)
      const counts = [
        'used_count',
        ...(helped ? ['helped_count'] : []),
        ...(hurt ? ['hurt_count'] : []),
      ]
      this.#countUp(counts, [{ id: itemId }], this.#now())
    })
  }

  /**
   * Merges items that say the same: the newer ones are superseded by the oldest, stay readable, and come back with
   * {@link restore}. A success and a failure that are as alike are linked as contradicting and both stay.
   *
   * @throws AgentDBError `INVALID_OPTION`, `CALLBACK_FAILED`: nothing is then written
   */
  consolidate(options: ConsolidateOptions = {}): Promise<Consolidated> {
    return consolidate(this.#context.connection, this.#embedder.model, this.#now(), options)
  }

  /**
   * Takes back that an item was merged; it will not be merged with the same one again.
   *
   * @throws AgentDBError `NOT_FOUND`
   */
  restore(itemId: string): StoredMemoryItem {
    return this.#context.connection.transaction(() => {
      const item = this.items.find(itemId)
      if (item === undefined) throw notFound('memory_items', itemId)
      const by = item.superseded_by
      if (by === null) return item
      return this.items.update(itemId, {
        superseded_by: null,
        kept_apart: [...new Set([...item.kept_apart, by])],
      })
    })
  }

  /**
   * Deletes what has expired, what too many of one task are, and what nobody uses; see the options. What was used lately
   * and has not expired is never deleted. With `dryRun` it only says what would go.
   *
   * @throws AgentDBError `INVALID_OPTION`
   */
  prune(options: PruneOptions = {}): Pruned {
    return prune(this.#context.connection, this.#now(), options)
  }

  /** Items as Markdown for an agent's prompt, with the request to say which are used; empty without items. */
  render(items: readonly MemoryItemText[]): string {
    return renderItems(items)
  }

  /**
   * Where an item comes from and what became of it: its trajectories, what it superseded, and whether it still is as it
   * was distilled.
   *
   * @throws AgentDBError `NOT_FOUND`
   */
  trace(itemId: string): MemoryTrace {
    const item = this.items.find(itemId)
    if (item === undefined) throw notFound('memory_items', itemId)
    return traceItem(item, this.items, this.trajectories)
  }

  /** Reads files of the paper's reference code; nothing is written if one of their lines is no record. */
  importReference(files: ReferenceFiles, options: ImportOptions = {}): Promise<Imported> {
    return importReference(files, options, {
      trajectories: this.trajectories,
      writer: this.#writer,
      transaction: (work) => this.#context.connection.transaction(work),
    })
  }

  /** All trajectories with their items, as files of the paper's reference code. */
  exportReference(): ReferenceFiles {
    return exportReference(this.trajectories, this.items)
  }

  async #embedQuery({ query = '', instruction }: RetrieveOptions): Promise<Float32Array> {
    const text = instruction === undefined ? query : `Instruct: ${instruction}\nQuery: ${query}`
    const [vector] = await embedTexts(this.#embedder, [text])
    if (vector === undefined) throw new Error('bug in AgentDB: a query without a vector')
    return vector
  }

  #countUp(counts: readonly string[], items: readonly { id: string }[], usedAt?: string): void {
    const { connection } = this.#context
    const assignments = counts.map((count) => `${count} = ${count} + 1`)
    if (usedAt !== undefined) assignments.push('last_used_at = max(ifnull(last_used_at, ?), ?)')
    const sql = `UPDATE memory_items SET ${assignments.join(', ')} WHERE id = ?`
    const times = usedAt === undefined ? [] : [usedAt, usedAt]
    connection.transaction(() => {
      for (const { id } of items) connection.run(sql, ...times, id)
    })
  }

  #mustFind(id: string): Trajectory {
    const trajectory = typeof id === 'string' ? this.trajectories.find(id) : undefined
    if (trajectory === undefined) throw notFound('memory_trajectories', id)
    return trajectory
  }

  #now(): string {
    return timestampOfMicros(this.#context.clock())
  }
}

const trajectoryOptions = [
  'taskId',
  'query',
  'steps',
  'model',
  'templateId',
  'attemptGroup',
  'outcome',
  'expiresAt',
] as const satisfies readonly (keyof RecordTrajectory)[]

const appendOptions = [
  'query',
  'polarity',
  'items',
  'taskId',
  'templateId',
  'trajectoryIds',
  'expiresAt',
] as const satisfies readonly (keyof AppendItems)[]

const expiryOf = (call: string, { expiresAt }: DistillOptions): string | null =>
  expiresAt === undefined ? null : timeOf(call, 'expiresAt', expiresAt)

function mustBeFunction(call: string, name: string, value: unknown): void {
  if (typeof value !== 'function') refuse(call, `${name} must be a function, got ${preview(value)}`)
}

const notFound = (table: string, id: unknown): AgentDBError =>
  new AgentDBError('NOT_FOUND', `${table} has no row ${preview(id)}`, {
    table,
    column: 'id',
    value: id,
  })
