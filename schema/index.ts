/**
 * `@llm-copilot/agentdb/schema`: every table, column and rule of the domain as data, and the types that follow.
 *
 * @module
 */
export type {
  ColumnGroup,
  ColumnKind,
  ColumnShape,
  ColumnWrite,
  IndexDefinition,
  Json,
  Ownership,
  TableDefinition,
  WriteClass,
} from './define.ts'
export { agentColumns, columnWrite, references, wholeGroups } from './define.ts'
export type { UserRole, UserStatus } from './enums.ts'
export { enums } from './enums.ts'
export { AgentDBError, errorCodes } from './errors.ts'
export type { ErrorCode, ErrorDetails } from './errors.ts'
export { roleAccess } from './role-access.ts'
export type { Collection } from './tables/embeddings.ts'
export { collections } from './tables/embeddings.ts'
export type { Polarity, TrajectoryOutcome } from './tables/memory.ts'
export type { TableName, Tables } from './tables.ts'
export { tableNames, tables } from './tables.ts'
export type { AgentDatabase, CentralDatabase, NewRow, Patch, Row } from './types.ts'
export { SCHEMA_VERSION } from './version.ts'
