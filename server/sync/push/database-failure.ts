import { AgentDBError } from '../../../schema/errors.ts'
import type { Refusal } from './transaction.ts'

interface PostgresError {
  readonly code: string
  readonly constraint?: string
  readonly message: string
}

/**
 * What to do about an error: a permanent one is its mutation's fault and becomes an outcome; a transient one passes if
 * tried again; an unexplained one of the database may be either's fault, which only time tells; anything else (no
 * connection, a refused request, a bug) is ours, and the client keeps its queue.
 */
export type Failure = 'permanent' | 'transient' | 'unexplained' | 'ours'

export function classifyFailure(error: unknown): Failure {
  if (error instanceof AgentDBError || !isPostgresError(error)) return 'ours'
  const { code, constraint } = error
  if (code === '40001' || code === '40P01') return 'transient'
  // Two agents took the same version at once; the next look sees the other's.
  if (code === '23505' && constraint === 'uq_workflow_name_version') return 'transient'
  // Another client of a store that forked brought the same transaction at once; the next look sees it.
  if (code === '23505' && constraint === 'applied_pkey') return 'transient'
  // The connection is gone, or none was to be had.
  if (['08', '57P0', '53300'].some((prefix) => code.startsWith(prefix))) return 'ours'
  // Data, integrity, privilege, program limit (an index row too large), what a trigger raised.
  return ['22', '23', '42501', '54000', '0A', 'P0001'].some((prefix) => code.startsWith(prefix))
    ? 'permanent'
    : 'unexplained'
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

/** The refusal of what the database failed on time and again while it took others. */
export const unprocessable = (error: unknown): Refusal => ({
  // Not the error's own message, which is about the inside of the centre.
  reason: 'unprocessable',
  message: 'the centre failed on it time and again, while it took what others sent',
  ...(isPostgresError(error) ? { sqlstate: error.code } : {}),
})

/** By SQLSTATE: classes begin with a digit, or are F0, HV, P0 and XX. A socket's EPIPE is none. */
const isPostgresError = (error: unknown): error is PostgresError =>
  error instanceof Error &&
  'code' in error &&
  typeof error.code === 'string' &&
  /^(?:\d[\dA-Z]|F0|HV|P0|XX)[\dA-Z]{3}$/.test(error.code)
