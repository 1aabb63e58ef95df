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
export type { Placeholder, Placeholders } from './placeholders/placeholders.ts'
export type { EmbeddingRepository, PutEmbedding } from './repositories/embedding-repository.ts'
export type { ListOptions, OrderBy, Where } from './repositories/list-query.ts'
export type { Repository } from './repositories/repository.ts'
export type { PayloadFilter } from './search/payload-filter.ts'
export type { SearchOptions, SearchResult } from './search/search-options.ts'
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
