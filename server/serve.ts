import type { AddressInfo } from 'node:net'
import type { Kysely } from 'kysely'
import { AgentDBError, preview } from '../schema/errors.ts'
import type { CentralDatabase } from '../schema/types.ts'
import { systemClock } from '../schema/values/timestamp.ts'
import { loadSecret } from './auth/secret.ts'
import { signToken, type TokenOptions } from './auth/tokens.ts'
import { Admission, type Limits } from './http/admission.ts'
import { createApp } from './http/app.ts'
import { Database } from './postgres/database.ts'
import { makePartitions, prepareCentre } from './postgres/prepare.ts'
import { Feed, type Admit } from './sync/feed.ts'
import { forgetConflicts, forgetDecided } from './sync/forget.ts'
import { HEALING_DAYS } from './sync/heal.ts'
import { HealService } from './sync/heal-service.ts'
import { LogTail } from './sync/log-tail.ts'
import { BATCH_CHANNEL } from './sync/positions.ts'
import { ClientBindings } from './sync/principal.ts'
import { pruneLog } from './sync/retention.ts'
import { PushService } from './sync/push/push.ts'
import { SearchService } from './vectors/search.ts'
import { VectorService } from './vectors/service.ts'
import { qdrantUrlProblem, vectorSettings, type VectorOptions } from './vectors/settings.ts'

export interface ServeOptions {
  /** Default: 7400. 0 takes a free one; see `server.url`. */
  readonly port?: number | undefined
  /** Default: `127.0.0.1`. Beyond this machine, put TLS in front. */
  readonly host?: string | undefined
  /** `postgres://...`. Default: PGlite, PostgreSQL in this process. */
  readonly databaseUrl?: string | undefined
  /** Folder of PGlite. Default: memory, gone on close. */
  readonly dataFolder?: string | undefined
  /** Signs tokens and cursors; at least 32 characters. Default: one made once and kept in the database. */
  readonly secret?: string | undefined
  /** Most database connections. Default: 10. */
  readonly connectionsMax?: number | undefined
  /** How often to look for writes that came past this server while someone waits. Default: 50 ms, PGlite 100 ms. */
  readonly pollMs?: number | undefined
  /** How long the log keeps what happened; an agent that was away for longer reads its scope again. Default: 14. */
  readonly logRetentionDays?: number | undefined
  /**
   * After the centre went back by less than a minute, as a failover with loss leaves it, agents bring back what it lost
   * without `agentdb heal`. Default: false, since a restore may be meant to undo something.
   */
  readonly healAutomatically?: boolean | undefined
  /** `http://host:6333` of Qdrant 1.16 or later. Default: none; searches then read the rows themselves, exactly. */
  readonly qdrantUrl?: string | undefined
  /** Never logged. */
  readonly qdrantApiKey?: string | undefined
  /** How vectors are kept in Qdrant. */
  readonly vectors?: VectorOptions | undefined
  /** Told of every failure that agents see as `SERVER_ERROR`. Default: a line and its stack on standard error. */
  readonly onError?: ((error: unknown) => void) | undefined
}

/** A running sync server. */
export interface SyncServer {
  /** Where agents connect, such as `http://127.0.0.1:7400`. */
  readonly url: string
  /** The centre's database. Writes through it reach every agent that may see them. */
  readonly db: Kysely<CentralDatabase>
  readonly database: 'postgres' | 'pglite'
  /** Resolves once all that was committed before is in Qdrant; at once where there is none. */
  vectorsCaughtUp(signal?: AbortSignal): Promise<void>
  /** A signed token for an agent of a user. */
  issueToken(options: TokenOptions): Promise<string>
  close(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/**
 * Starts a sync server: migrates the database and listens.
 *
 * @example
 * const server = await serve({ port: 0 })
 * const token = await server.issueToken({ userId, agentId: 'laptop' })
 * await server.close()
 *
 * @throws AgentDBError `DATABASE_UNREACHABLE`, `DATABASE_TOO_OLD`, `DATABASE_IN_USE`, `LISTEN_FAILED`, `INVALID_OPTION`
 */
export async function serve(options: ServeOptions = {}): Promise<SyncServer> {
  validate(options)
  const database = await Database.open({
    url: options.databaseUrl,
    folder: options.dataFolder,
    connectionsMax: options.connectionsMax ?? 10,
  })
  try {
    return await start(database, options)
  } catch (error) {
    await database.close()
    throw error
  }
}

/** Pages of whole scopes read at the same time; each keeps its rows in memory until they are sent. */
const HYDRATIONS: Limits = { running: 4, waiting: 100 }

/** Message and stack only: other fields of a database error may hold values of rows. */
function logFailure(error: unknown): void {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
  process.stderr.write(`agentdb: ${new Date().toISOString()} SERVER_ERROR: ${text}\n`)
}

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
/** Ids outlive what agents keep to bring back, and the window in which they may. */
const IDS_DAYS_MIN = 2 * HEALING_DAYS

/** Once an hour. Left undone, the default partitions take every row and the log grows: more disk, nothing wrong. */
async function housekeep(database: Database, feed: Feed, retentionDays: number): Promise<void> {
  await makePartitions(database)
  const retained = new Date(Date.now() - retentionDays * DAY_MS)
  await pruneLog(database, retained)
  await forgetConflicts(database, retained)
  await feed.acknowledged.write(database)
  const idsDays = Math.max(retentionDays, IDS_DAYS_MIN)
  await forgetDecided(database, new Date(Date.now() - idsDays * DAY_MS))
}

async function start(database: Database, options: ServeOptions): Promise<SyncServer> {
  await prepareCentre(database)
  const secret = await loadSecret(database, options.secret)
  const tail = new LogTail(database, options.pollMs ?? (database.kind === 'pglite' ? 100 : 50))
  await tail.refresh()
  database.listen(BATCH_CHANNEL, (position) => tail.noticed(Number(position)))
  const bindings = new ClientBindings()
  const onError = options.onError ?? logFailure
  const hydrations = new Admission('first syncs', HYDRATIONS)
  const admit: Admit = (work) => hydrations.run(work)
  const feed = new Feed(database, tail, bindings, secret, systemClock, admit)
  const vectors = vectorService(database, options, onError)
  const app = createApp({
    database,
    secret,
    onError,
    feed,
    push: new PushService(database, tail, bindings, systemClock),
    heal: new HealService(database, tail, bindings, options.healAutomatically ?? false),
    search: new SearchService(database, vectors, vectorSettings(options.vectors), onError),
  })
  const { host = '127.0.0.1', port = 7400 } = options
  try {
    await app.listen({ host, port })
  } catch (error) {
    throw new AgentDBError(
      'LISTEN_FAILED',
      `cannot listen on ${host}:${port}: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    )
  }
  const address = app.server.address() as AddressInfo
  const housekeeping = setInterval(
    () => void housekeep(database, feed, options.logRetentionDays ?? 14).catch(onError),
    HOUR_MS,
  )
  housekeeping.unref()
  vectors?.start()
  let closing: Promise<void> | undefined
  const close = (): Promise<void> =>
    (closing ??= (async () => {
      clearInterval(housekeeping)
      await vectors?.close()
      await tail.close()
      await app.close()
      await feed.acknowledged.write(database).catch(onError)
      await database.close()
    })())
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${address.port}`,
    db: database.kysely,
    database: database.kind,
    vectorsCaughtUp: async (signal) => await vectors?.caughtUp(signal),
    issueToken: (token) => signToken(token, secret),
    close,
    [Symbol.asyncDispose]: close,
  }
}

/** None without a URL: then there is nothing to keep equal to the rows. */
function vectorService(
  database: Database,
  { qdrantUrl, qdrantApiKey, vectors }: ServeOptions,
  onError: (error: unknown) => void,
): VectorService | undefined {
  const settings = vectorSettings(vectors)
  if (qdrantUrl === undefined) return undefined
  const address = { url: qdrantUrl, apiKey: qdrantApiKey }
  return new VectorService(database, address, settings, onError)
}

const optionNames: ReadonlySet<string> = new Set([
  'port',
  'host',
  'databaseUrl',
  'dataFolder',
  'secret',
  'connectionsMax',
  'pollMs',
  'logRetentionDays',
  'onError',
  'healAutomatically',
  'qdrantUrl',
  'qdrantApiKey',
  'vectors',
])

function refuse(message: string): never {
  throw new AgentDBError('INVALID_OPTION', `serve: ${message}`)
}

function validate(options: ServeOptions): void {
  for (const name of Object.keys(options)) {
    if (!optionNames.has(name))
      refuse(`there is no option ${preview(name)}; there are ${[...optionNames].join(', ')}`)
  }
  const { port, databaseUrl, connectionsMax, pollMs, logRetentionDays, onError } = options
  if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port <= 65_535))
    refuse(`port must be 0 to 65535, got ${preview(port)}`)
  if (databaseUrl !== undefined && !/^postgres(?:ql)?:\/\//.test(databaseUrl))
    refuse('databaseUrl must start with postgres://')
  if (databaseUrl !== undefined && options.dataFolder !== undefined)
    refuse('give databaseUrl or dataFolder, not both')
  if (connectionsMax !== undefined && !(Number.isInteger(connectionsMax) && connectionsMax >= 2))
    refuse(`connectionsMax must be at least 2, got ${preview(connectionsMax)}`)
  if (onError !== undefined && typeof onError !== 'function') refuse('onError must be a function')
  if (
    logRetentionDays !== undefined &&
    !(Number.isFinite(logRetentionDays) && logRetentionDays >= 1)
  )
    refuse(`logRetentionDays must be at least 1, got ${preview(logRetentionDays)}`)
  const { healAutomatically, qdrantUrl, qdrantApiKey } = options
  const problem = qdrantUrl === undefined ? undefined : qdrantUrlProblem(qdrantUrl)
  if (problem !== undefined) refuse(`qdrantUrl ${problem}`)
  if (qdrantApiKey !== undefined && typeof qdrantApiKey !== 'string')
    refuse('qdrantApiKey must be a string')
  vectorSettings(options.vectors)
  if (healAutomatically !== undefined && typeof healAutomatically !== 'boolean')
    refuse('healAutomatically must be true or false')
  if (pollMs !== undefined && !(Number.isFinite(pollMs) && pollMs >= 1))
    refuse(`pollMs must be at least 1, got ${preview(pollMs)}`)
}
