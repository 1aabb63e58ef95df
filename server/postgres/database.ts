import { Kysely, PostgresDialect } from 'kysely'
import { Pool, type PoolClient, type PoolConfig, type QueryResult, type QueryResultRow } from 'pg'
import { AgentDBError, preview } from '../../schema/errors.ts'
import type { CentralDatabase } from '../../schema/types.ts'
import type { EmbeddedPostgres } from './embedded.ts'
import { Listener } from './listener.ts'
import { centralTypes } from './types.ts'

/** A statement's rows and how many it touched. */
export interface Result<R> {
  readonly rows: R[]
  readonly rowCount: number
}

/** Something that runs SQL: a transaction, or the database with a transaction a statement. */
export interface Session {
  query<R = Record<string, unknown>>(
    sql: string,
    parameters?: readonly unknown[],
  ): Promise<Result<R>>
}

export interface DatabaseOptions {
  /** `postgres://...`; undefined is PGlite. */
  readonly url: string | undefined
  /** Folder of PGlite; undefined is memory. */
  readonly folder: string | undefined
  /** Most connections (DA-001). */
  readonly connectionsMax: number
}

const POSTGRES_VERSION_MIN = 140_000

/** PGlite is loaded by whoever needs it: a server on PostgreSQL and `agentdb status` do without. */
async function embeddedIn(folder: string | undefined): Promise<EmbeddedPostgres> {
  const { openEmbedded } = await import('./embedded.ts')
  return openEmbedded(folder)
}

/** The centre's database: real PostgreSQL or PGlite, with the same SQL and the same values. */
export class Database implements Session {
  readonly kind: 'postgres' | 'pglite'
  readonly kysely: Kysely<CentralDatabase>
  readonly #pool: Pool
  readonly #embedded: EmbeddedPostgres | undefined

  readonly #url: string | undefined
  readonly #listeners: Listener[] = []
  #isClosing = false

  private constructor(pool: Pool, embedded: EmbeddedPostgres | undefined, url: string | undefined) {
    this.#url = url
    this.kind = embedded === undefined ? 'postgres' : 'pglite'
    this.#pool = pool
    this.#embedded = embedded
    // A connection that breaks while idle is replaced by the pool, one that breaks in use also fails its statement;
    // unheard, either event would end the process.
    pool.on('error', () => undefined)
    pool.on('connect', (client) => client.on('error', () => undefined))
    this.kysely = new Kysely<CentralDatabase>({ dialect: new PostgresDialect({ pool }) })
  }

  static async open(options: DatabaseOptions): Promise<Database> {
    const embedded = options.url === undefined ? await embeddedIn(options.folder) : undefined
    const pool = new Pool({
      ...(embedded === undefined ? connectionConfig(options) : embedded.poolConfig),
      types: centralTypes,
    })
    const database = new Database(pool, embedded, options.url)
    try {
      await database.#mustBeRecent()
      return database
    } catch (error) {
      await database.close()
      throw error instanceof AgentDBError ? error : unreachableDatabase(error, options.url)
    }
  }

  async query<R>(sql: string, parameters: readonly unknown[] = []): Promise<Result<R>> {
    // Not `pool.query`: it ends the connection after any failed statement, and PGlite's one session then mixes up answers.
    const client = await this.#connect()
    try {
      return result(await client.query<QueryResultRow>(sql, [...parameters]))
    } finally {
      client.release()
    }
  }

  /**
   * Runs `work` in a transaction under READ COMMITTED, unless told otherwise. COMMIT after a swallowed failure would
   * succeed as a ROLLBACK; that throws, too.
   */
  async transaction<T>(
    work: (session: Session) => Promise<T>,
    mode = 'READ COMMITTED',
  ): Promise<T> {
    const client = await this.#connect()
    const session: Session = {
      query: async <R>(sql: string, parameters: readonly unknown[] = []) =>
        result<R>(await client.query<QueryResultRow>(sql, [...parameters])),
    }
    let broken = false
    try {
      await client.query(`BEGIN ISOLATION LEVEL ${mode}`)
      const value = await work(session)
      const { command } = await client.query('COMMIT')
      if (command !== 'COMMIT') throw new Error(`the transaction ended with ${command}`)
      return value
    } catch (error) {
      await client.query('ROLLBACK').catch(() => {
        broken = true
      })
      throw error
    } finally {
      // PGlite's one session lives on whatever happens; only a real connection can be thrown away.
      client.release(broken && this.kind === 'postgres')
    }
  }

  /**
   * Calls `onNotice` for every NOTIFY of a channel, over a connection of its own that is made again when it breaks.
   * PGlite has one process, which needs no telling.
   */
  listen(channel: string, onNotice: (payload: string) => void): void {
    if (this.#url === undefined) return
    this.#listeners.push(new Listener(this.#url, channel, onNotice))
  }

  #connect(): Promise<PoolClient> {
    if (this.#isClosing)
      throw new AgentDBError('DATABASE_UNREACHABLE', 'this server is closing; try again soon')
    return this.#pool.connect()
  }

  async close(): Promise<void> {
    this.#isClosing = true
    await Promise.all(this.#listeners.map((listener) => listener.close()))
    await this.#pool.end()
    await this.#embedded?.close()
  }

  async #mustBeRecent(): Promise<void> {
    const { rows } = await this.query<{ version: string }>(
      `SELECT current_setting('server_version_num') AS version`,
    )
    const version = Number(rows[0]?.version)
    if (version < POSTGRES_VERSION_MIN) {
      throw new AgentDBError(
        'DATABASE_TOO_OLD',
        `PostgreSQL 14 or later is needed, this is ${version}`,
      )
    }
  }
}

function result<R>({ rows, rowCount }: QueryResult): Result<R> {
  return { rows: rows as R[], rowCount: rowCount ?? 0 }
}

function connectionConfig({ url, connectionsMax }: DatabaseOptions): PoolConfig {
  return {
    connectionString: url,
    application_name: 'llm_copilot_agent',
    max: connectionsMax,
    connectionTimeoutMillis: 30_000,
    idleTimeoutMillis: 600_000,
    maxLifetimeSeconds: 1800,
  }
}

function unreachableDatabase(error: unknown, url: string | undefined): AgentDBError {
  const place = url === undefined ? 'PGlite' : preview(withoutPassword(url))
  const why =
    error instanceof Error && error.message !== ''
      ? error.message
      : String((error as { code?: unknown }).code)
  return new AgentDBError('DATABASE_UNREACHABLE', `cannot open the database ${place}: ${why}`, {
    cause: error,
  })
}

/** A connection string fit to be shown. */
function withoutPassword(url: string): string {
  try {
    const parsed = new URL(url)
    if (parsed.password !== '') parsed.password = '***'
    return parsed.href
  } catch {
    return 'of DATABASE_URL'
  }
}
