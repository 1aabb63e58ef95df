import { AgentDBError, type ErrorCode } from '../../schema/errors.ts'
import { printError, printJson } from './output.ts'

export const ExitCode = { ok: 0, failed: 1, usage: 2 } as const

/** What to do next, for each error that a command can end with. */
const advice: Partial<Record<ErrorCode, string>> = {
  CONSTRAINT: 'choose another value, or go on with the row that exists',
  CONFLICT_PENDING: 'bring its outcome first: agentdb sync <store>',
  STORE_NEWER: 'a later version made this store: upgrade @llm-copilot/agentdb',
  STORE_CORRUPT: 'keep a copy of the file; agents can start a new store and read everything again',
  STORE_BUSY: 'another process writes for long: try again, or stop it',
  STORE_FULL: 'free some space on the disk; nothing was lost',
  UNREACHABLE: 'start the centre (agentdb serve) or correct --url; the queue is kept',
  UNAUTHORIZED: 'get a new token: agentdb token --user <email> --agent <name>',
  FORBIDDEN: 'use a token of the user and agent that this store has synced as before',
  TOKEN_USER_MISMATCH: 'get a token of the user that the store belongs to: agentdb status <store>',
  PROTOCOL: 'check --url; if it is right, bring agent and centre to versions that fit',
  SCHEMA_UNKNOWN: 'upgrade the side that the message names; the queue is kept',
  SCHEMA_BEHIND:
    'nothing of the queue is lost: sync tries again; upgrade every server of the centre',
  FORKED: 'run it again: the store asks the centre what to do',
  HEALING_PENDING:
    'at the centre: agentdb heal, then --all, --after TIME or --none; the queue is kept',
  STORE_FORKED: 'run agentdb sync <store> again: it goes on as a client of its own',
  TOO_LARGE: 'split the transaction into smaller ones; it stays in the queue',
  SERVER_ERROR: 'look at the output of the centre, then try again; the queue is kept',
  SYNC_ELSEWHERE: 'an agent with this store open syncs it already: use its sync, or stop it first',
  DATABASE_UNREACHABLE: 'check --database-url or DATABASE_URL, and that PostgreSQL runs',
  DATABASE_TOO_OLD: 'use PostgreSQL 14 or later',
  DATABASE_IN_USE:
    'stop the server that has the folder open and try again, or use PostgreSQL: --database-url',
  MIGRATION_FAILED: 'nothing of the migration was kept; the cause is in the message',
  MIGRATION_CHANGED: 'install the version that made this database again',
  LISTEN_FAILED: 'choose another --port (0 takes a free one) or --host',
  OVERLOADED: 'try again in a moment',
  QDRANT_UNREACHABLE:
    'check --qdrant-url or QDRANT_URL, QDRANT_API_KEY, and that Qdrant runs; the rows are safe',
  QDRANT_MISMATCH: 'choose another --qdrant-prefix, or remove what the message names from Qdrant',
}

/** Codes that say that the command line itself was wrong. */
const usage: ReadonlySet<ErrorCode> = new Set<ErrorCode>(['INVALID_OPTION', 'INVALID_VALUE'])

interface Failure {
  readonly code: string
  readonly message: string
  readonly next: string | undefined
}

/** Says what went wrong and what to do about it; returns the exit code. */
export function reportFailure(error: unknown, json: boolean): number {
  const known = error instanceof AgentDBError
  const message = error instanceof Error ? error.message : String(error)
  tell(
    known
      ? { code: error.code, message, next: advice[error.code] }
      : { code: 'INTERNAL', message, next: 'run it again with DEBUG=1 and report the stack' },
    json,
  )
  if (isDebug() && error instanceof Error) printError(stackOf(error))
  return known && usage.has(error.code) ? ExitCode.usage : ExitCode.failed
}

/** The same for a command line that could not be understood. */
export function reportUsage(message: string, json: boolean): number {
  tell(
    { code: 'USAGE', message: message.replace(/^error: /, ''), next: 'see agentdb --help' },
    json,
  )
  return ExitCode.usage
}

function tell({ code, message, next }: Failure, json: boolean): void {
  if (json) printJson({ error: { code, message, ...(next === undefined ? {} : { next }) } })
  printError(`agentdb: ${code}: ${message}`)
  if (next !== undefined) printError(`  ${next}`)
}

const isDebug = (): boolean => !['', '0', undefined].includes(process.env['DEBUG'])

function stackOf(error: Error): string {
  const cause = error.cause instanceof Error ? `\ncaused by ${stackOf(error.cause)}` : ''
  return `${error.stack ?? error.message}${cause}`
}
