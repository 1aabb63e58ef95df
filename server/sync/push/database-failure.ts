import { AgentDBError } from '../../../schema/errors.ts'
import type { Refusal } from './transaction.ts'

interface PostgresError {
  readonly code: string
  readonly constraint?: string
  readonly message: string
}

/**
 * What to do about an error of the database: a permanent one is its mutation's fault and becomes an outcome; a
 * transient one passes if tried again; anything else is ours, and the client keeps its queue.
 */
export type Failure = 'permanent' | 'transient' | 'ours'

export function classifyFailure(error: unknown): Failure {
  if (error instanceof AgentDBError || !isPostgresError(error)) return 'ours'
  const { code, constraint } = error
  if (code === '40001' || code === '40P01') return 'transient'
  // Two agents took the same version at once; the next look sees the other's.
  if (code === '23505' && constraint === 'uq_workflow_name_version') return 'transient'
  // Data, integrity, privilege, program limit (an index row too large), what a trigger raised.
  return ['22', '23', '42501', '54000', '0A', 'P0001'].some((prefix) => code.startsWith(prefix))
    ? 'permanent'
    : 'ours'
}

const reasons: readonly (readonly [prefix: string, reason: string])[] = [
  ['23505', 'unique'],
  ['23503', 'foreign_key'],
  ['23514', 'check'],
  ['23502', 'not_null'],
  ['42501', 'forbidden'],
  ['22', 'invalid_value'],
]

export function refusalOf(error: unknown): Refusal {
  if (!isPostgresError(error)) return { reason: 'unprocessable', message: String(error) }
  const { code, constraint, message } = error
  const reason = reasons.find(([prefix]) => code.startsWith(prefix))?.[1] ?? 'unprocessable'
  return { reason, message, sqlstate: code, ...(constraint === undefined ? {} : { constraint }) }
}

const isPostgresError = (error: unknown): error is PostgresError =>
  error instanceof Error &&
  'code' in error &&
  typeof error.code === 'string' &&
  /^[0-9A-Z]{5}$/.test(error.code)
