import { Kysely } from 'kysely'
import { AgentDBError, preview } from '../schema/errors.ts'
import { collections, type Collection } from '../schema/tables/embeddings.ts'
import type { AgentDatabase } from '../schema/types.ts'
import { isId, newId } from '../schema/values/id.ts'
import { systemClock, type Clock } from '../schema/values/timestamp.ts'
import { ConflictLog } from './conflicts/conflict-log.ts'
import { registerInternals } from './internals.ts'
import { LostRows } from './lost-rows/lost-rows.ts'
import { ReasoningBank } from './memory/reasoning-bank.ts'
import { Placeholders } from './placeholders/placeholders.ts'
import { EmbeddingRepository } from './repositories/embedding-repository.ts'
import { Repository, type RepositoryContext } from './repositories/repository.ts'
import type {
  ExplainedSearch,
  ExplainOptions,
  SearchOptions,
  SearchResult,
} from './search/search-options.ts'
import { Search } from './search/search.ts'
import { StoreChanges } from './search/store-changes.ts'
import { Connection, type Synchronous } from './sqlite/connection.ts'
import { fromSqlite } from './sqlite/errors.ts'
import { StoreDialect } from './sqlite/kysely-dialect.ts'
import { migrateStore } from './sqlite/migrator.ts'
import { initializeState, readIdentity } from './sqlite/store-state.ts'
import type { LocalTransaction } from './transactions/local-transaction.ts'
import { Transactions } from './transactions/transactions.ts'
import { hashingEmbedder, type Embed } from './vector/embedder.ts'
import type { GraphStatus } from './vector/graph/followed-graph.ts'
import { isInstalled, packageOf } from './vector/graph/load-engine.ts'
import { VectorGraphs, vectorIndexes, type VectorIndex } from './vector/graph/vector-graphs.ts'

export interface OpenOptions {
  /** File of the store, made when absent; `':memory:'` for one that is gone on close. */
  readonly path: string
  /** The user whose co-pilot this is. Required to match when the file exists. Default: a new id, kept in the file. */
  readonly userId?: string | undefined
  /** Name of the agent. Default: a new id. Kept in the file; a file that has one keeps it. */
  readonly agentId?: string | undefined
  /**
   * What a commit survives. `'normal'` (default): the death of the process, at once; a power cut may undo the last
   * commits, never damage the file. `'full'`: a power cut, too, for an fsync a commit. Writes are flushed before they
   * are sent to the centre either way.
   */
  readonly synchronous?: Synchronous | undefined
  /** Your model. Default: the built-in hashing embedder, which knows words, not meaning. */
  readonly embed?: Embed | undefined
  /** Name of the model behind `embed`, stored with every vector. Default: `custom`. */
  readonly embedModel?: string | undefined
  /**
   * Collections whose vectors are put as 16-bit floats hold them: half the bytes on the wire, three digits of each number.
   * Default: none.
   */
  readonly halfPrecision?: readonly Collection[] | undefined
  /**
   * How vectors are searched where there are many of them. `'auto'` (default): through an HNSW graph, if `hnswlib-node` or
   * `usearch` is installed, exactly otherwise; `'hnswlib'` or `'usearch'`: with that one; `'exact'`: never through a graph.
   */
  readonly vectorIndex?: VectorIndex | undefined
  /** How long a write waits for another process that is writing. Default: 5000. */
  readonly busyTimeoutMs?: number | undefined
  /** Microseconds since 1970; for tests. */
  readonly clock?: Clock | undefined
}

/**
 * The embedded store of one agent: a SQLite file with the domain of an LLM co-pilot. Relational calls are synchronous,
 * vectors and sync asynchronous.
 *
 * @example
 * import { AgentDB } from '@llm-copilot/agentdb'
 * const db = await AgentDB.open({ path: 'agent.db' })
 * const c = db.conversations.create({ title: 'Deploy help' })
 * db.messages.create({ conversation_id: c.id, role: 'user', content: 'roll it back' })
 * console.log(db.messages.list({ where: { conversation_id: c.id } }))
 * await db.close()
 */
export class AgentDB {
  readonly users: Repository<'users'>
  readonly sessions: Repository<'sessions'>
  readonly conversations: Repository<'conversations'>
  readonly messages: Repository<'messages'>
  readonly workflows: Repository<'workflows'>
  readonly workflowExecutions: Repository<'workflow_executions'>
  readonly stepExecutions: Repository<'step_executions'>
  readonly incidents: Repository<'incidents'>
  readonly runbooks: Repository<'runbooks'>
  readonly runbookExecutions: Repository<'runbook_executions'>
  readonly auditLogs: Repository<'audit_logs'>
  readonly embeddings: EmbeddingRepository
  /** What agents did and what was learned from it: trajectories, memory items, and the loop between them. */
  readonly memory: ReasoningBank
  /** What sync could not simply apply, with both sides. */
  readonly syncConflicts: ConflictLog
  /** Values that the centre has and no agent can hold: which columns of which rows only stand for them. */
  readonly placeholders: Placeholders
  /** Rows that the centre lost when it was restored to an earlier point, until they come back. */
  readonly lostRows: LostRows
  /**
   * Typed escape hatch. Writes through it are captured and synced like any other. What only `create` fills in, a message's
   * `sequence_number` and the acting user, an insert gives itself.
   */
  readonly kysely: Kysely<AgentDatabase>
  readonly path: string
  readonly userId: string
  readonly agentId: string
  readonly #connection: Connection
  readonly #transactions: Transactions
  readonly #search: Search
  readonly #graphs: VectorGraphs

  private constructor(connection: Connection, options: OpenOptions) {
    const clock = options.clock ?? systemClock
    const identity = readIdentity(connection)
    this.path = options.path
    this.userId = identity.userId
    this.agentId = identity.agentId
    this.#connection = connection
    this.#transactions = new Transactions(connection)
    const context: RepositoryContext = { connection, clock, userId: identity.userId }
    const embedder =
      options.embed === undefined
        ? hashingEmbedder
        : { model: options.embedModel ?? 'custom', embed: options.embed }
    this.users = new Repository(context, 'users')
    this.sessions = new Repository(context, 'sessions')
    this.conversations = new Repository(context, 'conversations')
    this.messages = new Repository(context, 'messages')
    this.workflows = new Repository(context, 'workflows')
    this.workflowExecutions = new Repository(context, 'workflow_executions')
    this.stepExecutions = new Repository(context, 'step_executions')
    this.incidents = new Repository(context, 'incidents')
    this.runbooks = new Repository(context, 'runbooks')
    this.runbookExecutions = new Repository(context, 'runbook_executions')
    this.auditLogs = new Repository(context, 'audit_logs')
    this.embeddings = new EmbeddingRepository(context, embedder, options.halfPrecision)
    this.memory = new ReasoningBank(context, embedder)
    this.syncConflicts = new ConflictLog(connection, {
      users: this.users,
      sessions: this.sessions,
      conversations: this.conversations,
      messages: this.messages,
      workflows: this.workflows,
      workflow_executions: this.workflowExecutions,
      step_executions: this.stepExecutions,
      incidents: this.incidents,
      runbooks: this.runbooks,
      runbook_executions: this.runbookExecutions,
      audit_logs: this.auditLogs,
      embeddings: this.embeddings,
      memory_trajectories: this.memory.trajectories,
      memory_items: this.memory.items,
    })
    this.placeholders = new Placeholders(connection)
    this.lostRows = new LostRows(connection)
    this.kysely = new Kysely<AgentDatabase>({ dialect: new StoreDialect(connection) })
    const graphs = new VectorGraphs({
      index: options.vectorIndex ?? 'auto',
      storePath: options.path,
      storeId: identity.clientId,
      source: new StoreChanges(connection),
    })
    this.#graphs = graphs
    this.#search = new Search(connection, embedder, {
      graphs: ({ collection, model, dimension }) => graphs.of(collection, model, dimension),
    })
    registerInternals(this, { connection, clock })
  }

  /**
   * Opens a store, making it when there is none.
   *
   * @throws AgentDBError `WRONG_USER`, `STORE_NEWER`, `STORE_CORRUPT`, `STORE_FULL`, `INVALID_OPTION`
   */
  static async open(options: OpenOptions): Promise<AgentDB> {
    validateOptions(options)
    const connection = new Connection({
      path: options.path,
      synchronous: options.synchronous ?? 'normal',
      busyTimeoutMs: options.busyTimeoutMs ?? 5000,
    })
    try {
      migrateStore(connection)
      initializeState(connection, {
        userId: options.userId,
        newUserId: options.userId ?? newId(),
        agentId: options.agentId ?? newId(),
        clientId: newId(),
      })
      return new AgentDB(connection, options)
    } catch (error) {
      connection.close()
      throw fromSqlite(error)
    }
  }

  /**
   * Runs `work` atomically; on a throw nothing of it happened. Nests by savepoint. The whole is one unit of sync: it
   * reaches the centre whole or not at all. `work` is synchronous; `tx` tells later what became of it.
   *
   * @example
   * const sent = db.transaction((tx) => {
   *   const { id } = db.conversations.create({ title: 'Deploy help' })
   *   db.messages.create({ conversation_id: id, role: 'user', content: 'roll it back' })
   *   return tx
   * })
   * await sent.accepted
   */
  transaction<T>(work: (tx: LocalTransaction) => T): T {
    return this.#transactions.run(work)
  }

  /**
   * Searches in words, in vectors, or in both (the default for a text): over collections of embeddings, messages,
   * conversations, incidents and runbooks. With `explain: true` it tells how the vectors were searched, and why so. See
   * `docs/search.md`.
   *
   * @example
   * const [best] = await db.search({ in: ['messages', 'incidents'], text: 'checkout is slow', highlight: true })
   * const shown = `${best?.collection}: ${best?.highlight}`
   * const { plans } = await db.search({ collection: 'code_embeddings', text: 'retry', explain: true })
   * const why = plans.map(({ method, reason }) => `${method}: ${reason}`)
   * @throws AgentDBError `INVALID_OPTION`, `INVALID_VALUE`, `INDEX_FULL`, `STORE_CLOSED`
   */
  search(options: ExplainOptions): Promise<ExplainedSearch>
  search(options: SearchOptions): Promise<SearchResult[]>
  search(options: SearchOptions | ExplainOptions): Promise<SearchResult[] | ExplainedSearch> {
    return options?.explain === true ? this.#search.explain(options) : this.#search.search(options)
  }

  get isOpen(): boolean {
    return this.#connection.isOpen
  }

  /**
   * The graphs that vectors are searched through: one for each collection, model and dimension with many vectors, from
   * the first search on. Whatever becomes of a graph, `search` answers: without one it compares exactly.
   *
   * @example
   * const troubled = db.vectorGraphs().filter(({ state, problem }) => state !== 'ready' || problem !== undefined)
   */
  vectorGraphs(): GraphStatus[] {
    return this.#graphs.status()
  }

  /** Closes the file; resolves once what its graphs learned is saved, too. Stop a running sync first. Closing twice is harmless. */
  async close(): Promise<void> {
    const saved = this.#graphs.close()
    this.#connection.close()
    await saved
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

const optionNames: ReadonlySet<string> = new Set([
  'path',
  'userId',
  'agentId',
  'synchronous',
  'embed',
  'embedModel',
  'halfPrecision',
  'vectorIndex',
  'busyTimeoutMs',
  'clock',
])

function refuse(message: string): never {
  throw new AgentDBError('INVALID_OPTION', `AgentDB.open: ${message}`)
}

function validateOptions(options: OpenOptions): void {
  if (typeof options !== 'object' || options === null) refuse('give { path }')
  for (const name of Object.keys(options)) {
    if (!optionNames.has(name))
      refuse(`there is no option ${preview(name)}; there are ${[...optionNames].join(', ')}`)
  }
  const { path, userId, agentId, synchronous, embed, vectorIndex, busyTimeoutMs } = options
  const { halfPrecision = [] } = options
  if (typeof path !== 'string' || path === '')
    refuse(`path must be a file name, got ${preview(path)}`)
  if (userId !== undefined && !isId(userId))
    refuse(`userId must be a lower-case UUID, got ${preview(userId)}`)
  if (agentId !== undefined && !/^[\w.:@-]{1,100}$/.test(agentId))
    refuse(`agentId must be 1 to 100 letters, digits or _.:@-, got ${preview(agentId)}`)
  if (synchronous !== undefined && !['normal', 'full'].includes(synchronous))
    refuse(`synchronous must be normal or full, got ${preview(synchronous)}`)
  if (embed !== undefined && typeof embed !== 'function') refuse('embed must be a function')
  const none = [halfPrecision].flat().find((name) => !collections.includes(name))
  if (none !== undefined || !Array.isArray(halfPrecision))
    refuse(
      `halfPrecision must be a list of collections (${collections.join(', ')}), got ${preview(none ?? halfPrecision)}`,
    )
  if (vectorIndex !== undefined) validateVectorIndex(vectorIndex)
  if (busyTimeoutMs !== undefined && !(Number.isInteger(busyTimeoutMs) && busyTimeoutMs >= 0))
    refuse(`busyTimeoutMs must be a whole number, got ${preview(busyTimeoutMs)}`)
}

function validateVectorIndex(vectorIndex: VectorIndex): void {
  if (!vectorIndexes.includes(vectorIndex))
    refuse(`vectorIndex must be ${vectorIndexes.join(', ')}, got ${preview(vectorIndex)}`)
  if (vectorIndex === 'auto' || vectorIndex === 'exact' || isInstalled(vectorIndex)) return
  const name = packageOf(vectorIndex)
  refuse(`vectorIndex ${vectorIndex} needs the package ${name}: npm install ${name}`)
}
