/**
 * `@llm-copilot/agentdb`: the embedded store.
 *
 * @module
 */
export { AgentDBError, errorCodes } from '../schema/errors.ts'
export type { ErrorCode, ErrorDetails } from '../schema/errors.ts'
export type { Collection } from '../schema/tables/embeddings.ts'
export type { NewRow, Patch, Row } from '../schema/types.ts'
export type { Json } from '../schema/define.ts'
export type { TableName } from '../schema/tables.ts'
export { AgentDB } from './agent-db.ts'
export type { OpenOptions } from './agent-db.ts'
export type { ConflictListOptions, ConflictLog } from './conflicts/conflict-log.ts'
export type { Conflict, ConflictState, Values } from './conflicts/conflict-record.ts'
export type { LostRow, LostRows } from './lost-rows/lost-rows.ts'
export type { Polarity, TrajectoryOutcome } from '../schema/tables/memory.ts'
export type {
  ComparedItem,
  Consolidated,
  ConsolidateOptions,
  Relation,
} from './memory/consolidate.ts'
export type { Pruned, PruneOptions, PruneReason } from './memory/prune.ts'
export type { ReasoningBank } from './memory/reasoning-bank.ts'
export type { Imported, ImportOptions, ReferenceFiles } from './memory/reference-format.ts'
export type { MemoryTrace } from './memory/trace.ts'
export type {
  AppendItems,
  Distill,
  DistillContrast,
  Distilled,
  Distillers,
  DistillOptions,
  Feedback,
  Judge,
  Judgement,
  JudgeLabel,
  MemoryItemText,
  RecordTrajectory,
  RetrievedItem,
  RetrieveOptions,
  StoredMemoryItem,
  Trajectory,
} from './memory/types.ts'
export type { Placeholder, Placeholders } from './placeholders/placeholders.ts'
export type { EmbeddingRepository, PutEmbedding } from './repositories/embedding-repository.ts'
export type { ListOptions, OrderBy, Where } from './repositories/list-query.ts'
export type { Repository } from './repositories/repository.ts'
export type { PayloadFilter } from './search/payload-filter.ts'
export type { Alternative, SearchMethod } from './search/planner.ts'
export type {
  ExplainedSearch,
  ExplainOptions,
  GroupOptions,
  HighlightOptions,
  SearchMode,
  SearchOptions,
  SearchResult,
} from './search/search-options.ts'
export type { Match } from './search/text-query.ts'
export type { SearchSource } from './search/text-sources.ts'
export type { VectorPlan } from './search/vector-plan.ts'
export type { Synchronous } from './sqlite/connection.ts'
export { TransactionRejectedError } from './transactions/local-transaction.ts'
export type {
  Acceptance,
  CentrePosition,
  LocalTransaction,
  TransactionOutcome,
} from './transactions/local-transaction.ts'
export { HASHING_DIMENSION, hashingEmbedder } from './vector/embedder.ts'
export type { Embed, Embedder } from './vector/embedder.ts'
export type { GraphStatus } from './vector/graph/followed-graph.ts'
export type { VectorIndex } from './vector/graph/vector-graphs.ts'
