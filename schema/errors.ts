/**
 * Every error of AgentDB has a stable `code`. What each means and what to do about it stands in `docs/errors.md`,
 * which a test holds against this list.
 */
export const errorCodes = [
  // input
  'INVALID_VALUE',
  'INVALID_OPTION',
  'UNKNOWN_COLUMN',
  'READ_ONLY_COLUMN',
  'READ_ONLY_TABLE',
  'CONSTRAINT',
  'ILLEGAL_TRANSITION',
  'NOT_FOUND',
  'CALLBACK_FAILED',
  // the store
  'STORE_CLOSED',
  'STORE_NEWER',
  'STORE_CORRUPT',
  'STORE_BUSY',
  'STORE_FULL',
  'INDEX_FULL',
  'WRONG_USER',
  'TRANSACTION_MISUSE',
  'TRANSACTION_ROLLED_BACK',
  'VECTOR_INDEX_UNAVAILABLE',
  // sync, client side
  'TRANSACTION_REJECTED',
  'CONFLICT_PENDING',
  'UNREACHABLE',
  'UNAUTHORIZED',
  'FORBIDDEN',
  'TOKEN_USER_MISMATCH',
  'PROTOCOL',
  'SCHEMA_UNKNOWN',
  'SCHEMA_BEHIND',
  'FORKED',
  'STORE_FORKED',
  'NOT_INTRODUCED',
  'HEALING_PENDING',
  'TOO_LARGE',
  'SERVER_ERROR',
  'SYNC_STOPPED',
  'SYNC_ELSEWHERE',
  // the centre
  'DATABASE_UNREACHABLE',
  'DATABASE_TOO_OLD',
  'DATABASE_IN_USE',
  'MIGRATION_FAILED',
  'MIGRATION_CHANGED',
  'OVERLOADED',
  'LISTEN_FAILED',
  'QDRANT_UNREACHABLE',
  'QDRANT_MISMATCH',
] as const

export type ErrorCode = (typeof errorCodes)[number]

export interface ErrorDetails {
  readonly cause?: unknown
  /** Table, column and value that caused it, where there are any. The value is cut short and never a secret. */
  readonly table?: string | undefined
  readonly column?: string | undefined
  readonly value?: unknown
  readonly constraint?: string | undefined
}

/**
 * The one error class. Branch on `code`, show `message`.
 *
 * @example
 * try { db.messages.create(input) } catch (error) {
 *   if (error instanceof AgentDBError && error.code === 'INVALID_VALUE') console.error(error.table, error.column)
 * }
 */
export class AgentDBError extends Error {
  readonly code: ErrorCode
  readonly table: string | undefined
  readonly column: string | undefined
  readonly value: unknown
  readonly constraint: string | undefined

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.name = 'AgentDBError'
    this.code = code
    this.table = details.table
    this.column = details.column
    this.value = details.value
    this.constraint = details.constraint
  }
}

/** A value for messages: short, quoted, one line. */
export function preview(value: unknown): string {
  if (typeof value === 'string') {
    const cut = value.length > 60 ? `${value.slice(0, 57)}...` : value
    return JSON.stringify(cut)
  }
  if (value === undefined) return 'undefined'
  if (typeof value === 'bigint') return `${value}n`
  if (value instanceof Float32Array) return `Float32Array(${value.length})`
  try {
    const text = JSON.stringify(value) ?? typeof value
    return text.length > 60 ? `${text.slice(0, 57)}...` : text
  } catch {
    return typeof value
  }
}

/** For states that cannot be reached unless we erred. */
export function assert(condition: unknown, message: string): asserts condition {
  if (condition !== true && !condition) throw new Error(`bug in AgentDB: ${message}`)
}

/** Ends a switch over a union. */
export function unreachable(value: never): never {
  throw new Error(`bug in AgentDB: unexpected ${preview(value)}`)
}
