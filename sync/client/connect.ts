import { AgentDBError, preview } from '../../schema/errors.ts'
import type { AgentDB } from '../../src/index.ts'
import { internalsOf } from '../../src/internal-for-sync.ts'
import type { ChecksumResponse } from '../protocol/messages.ts'
import { SyncEngine, type SyncEvents, type SyncStatus } from './sync-engine.ts'
import { HttpTransport } from './transport.ts'

export interface ConnectOptions {
  /** Of the sync server, such as `https://sync.example.com`. */
  readonly url: string
  /** Signed by the centre for this store's user; or a function that gets one. */
  readonly token: string | (() => string | Promise<string>)
  /** How long the centre may hold a pull open, waiting for news. Default: 25 000. */
  readonly pullWaitMs?: number | undefined
  /** Waits between attempts grow from here, with full jitter. Default: 500. */
  readonly retryMinMs?: number | undefined
  /** ... to here. Default: 30 000. */
  readonly retryMaxMs?: number | undefined
  /**
   * For how long what the centre took is kept here, so that it can be brought back should the centre lose it. Default:
   * 7 days.
   */
  readonly healingWindowMs?: number | undefined
  /** False leaves it to {@link Sync.now}. Default: true. */
  readonly start?: boolean | undefined
}

/** A running sync of one store. */
export interface Sync {
  /** Pushes and pulls until drained, or throws what stands in the way. */
  now(): Promise<void>
  status(): SyncStatus
  /** Returns a function that removes the handler. */
  on<K extends keyof SyncEvents>(name: K, handler: (event: SyncEvents[K]) => void): () => void
  /** Checksums of this store and of what the centre says it must hold. Reads the whole scope. */
  checksums(): Promise<{ local: ChecksumResponse; central: ChecksumResponse }>
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/**
 * Connects a store to the centre. It starts at once and works offline until it can reach it: local writes are queued,
 * pushed when possible, and each ends in one outcome.
 *
 * @example
 * const sync = connect(db, { url: 'http://127.0.0.1:7400', token })
 * sync.on('outcome', (outcome) => { if (outcome.kind === 'rejected') console.error(outcome.message) })
 * await sync.now()
 *
 * @throws AgentDBError `INVALID_OPTION`, `SYNC_ELSEWHERE`, `STORE_CLOSED`
 */
export function connect(db: AgentDB, options: ConnectOptions): Sync {
  validate(options)
  const { connection, clock } = internalsOf(db)
  const token = typeof options.token === 'function' ? options.token : () => options.token as string
  const engine = new SyncEngine({
    connection,
    clock,
    transport: new HttpTransport(options.url, token),
    random: Math.random,
    checkToken: async () => mustBeOfUser(await token(), db.userId),
    pullWaitMs: options.pullWaitMs ?? 25_000,
    retryMinMs: options.retryMinMs ?? 500,
    retryMaxMs: options.retryMaxMs ?? 30_000,
    healingWindowMs: options.healingWindowMs,
  })
  if (options.start ?? true) engine.start()
  return {
    now: () => engine.now(),
    status: () => engine.status(),
    on: (name, handler) => engine.on(name, handler),
    checksums: () => engine.checksums(),
    close: () => engine.close(),
    [Symbol.asyncDispose]: () => engine.close(),
  }
}

/** The centre would refuse it, too; but a queue must never reach it under another name. */
function mustBeOfUser(token: string, userId: string): void {
  const subject = subjectOf(token)
  if (subject === undefined)
    throw new AgentDBError('UNAUTHORIZED', 'the token is not a signed token of a centre')
  if (subject !== userId) {
    throw new AgentDBError(
      'TOKEN_USER_MISMATCH',
      `the store belongs to user ${userId}, the token to ${subject}`,
    )
  }
}

function subjectOf(token: string): string | undefined {
  const [, payload] = token.split('.')
  if (payload === undefined) return undefined
  try {
    const { sub } = JSON.parse(Buffer.from(payload, 'base64url').toString()) as { sub?: unknown }
    return typeof sub === 'string' ? sub : undefined
  } catch {
    return undefined
  }
}

const optionNames: ReadonlySet<string> = new Set([
  'url',
  'token',
  'pullWaitMs',
  'retryMinMs',
  'retryMaxMs',
  'healingWindowMs',
  'start',
])

function refuse(message: string): never {
  throw new AgentDBError('INVALID_OPTION', `connect: ${message}`)
}

function validate(options: ConnectOptions): void {
  for (const name of Object.keys(options)) {
    if (!optionNames.has(name))
      refuse(`there is no option ${preview(name)}; there are ${[...optionNames].join(', ')}`)
  }
  const { url, token } = options
  if (typeof url !== 'string' || !URL.canParse(url) || !/^https?:/.test(url))
    refuse(`url must be http:// or https://, got ${preview(url)}`)
  if (typeof token !== 'function' && (typeof token !== 'string' || token === ''))
    refuse('token must be a string or a function that gets one')
  for (const name of ['pullWaitMs', 'retryMinMs', 'retryMaxMs', 'healingWindowMs'] as const) {
    const value = options[name]
    if (value !== undefined && !(Number.isFinite(value) && value >= 1))
      refuse(`${name} must be at least 1, got ${preview(value)}`)
  }
}
