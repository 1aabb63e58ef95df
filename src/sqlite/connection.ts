import Database from 'better-sqlite3'
import { AgentDBError, assert } from '../../schema/errors.ts'
import { TRANSACTION_BYTES_MAX, TRANSACTION_MUTATIONS_MAX } from '../../schema/limits.ts'
import { fromSqlite } from './errors.ts'

/** A prepared statement of the store. */
export type Statement<P extends unknown[] = unknown[], R = unknown> = Database.Statement<P, R>

export type Synchronous = 'normal' | 'full'

export interface ConnectionOptions {
  readonly path: string
  readonly synchronous: Synchronous
  readonly busyTimeoutMs: number
}

type Parameter = string | number | bigint | Uint8Array | null
export type Parameters = readonly Parameter[]

/**
 * The store's one connection: pragmas, statement cache, local transactions.
 *
 * A **local transaction** is the unit of sync: it reaches the centre whole or not at all. {@link transaction} begins
 * IMMEDIATE (a transaction that upgrades from reading to writing fails as soon as another process has committed), nests
 * by savepoint, and at its end closes the number under which the triggers filed its mutations. A write from outside is
 * a transaction of its own.
 */
export class Connection {
  readonly path: string
  readonly #database: Database.Database
  readonly #statements = new Map<string, Database.Statement>()
  readonly #onCommit = new Set<() => void>()
  readonly #onApplied = new Set<() => void>()
  readonly #onClose = new Set<() => void>()
  #depth = 0
  #isLoading = false
  #savepoint = 0
  #begin: Database.Statement | undefined
  #commit: Database.Statement | undefined
  #rollback: Database.Statement | undefined
  #closeTransaction: Database.Statement | undefined

  constructor(options: ConnectionOptions) {
    this.path = options.path
    let database: Database.Database | undefined
    try {
      database = new Database(options.path, { timeout: options.busyTimeoutMs })
      database.pragma('journal_mode = WAL')
      database.pragma(`synchronous = ${options.synchronous}`)
      database.pragma('foreign_keys = ON')
      database.pragma('recursive_triggers = ON')
      database.pragma('cache_size = -32000')
      database.pragma('temp_store = MEMORY')
      this.#database = database
    } catch (error) {
      database?.close()
      throw cannotOpen(error, options.path)
    }
  }

  get isOpen(): boolean {
    return this.#database.open
  }

  get inTransaction(): boolean {
    return this.#depth > 0
  }

  /** A cached prepared statement; throws when the store is closed. */
  prepare(sql: string): Database.Statement {
    const cached = this.#statements.get(sql)
    if (cached !== undefined) return cached
    this.#mustBeOpen()
    const statement = this.#database.prepare(sql)
    if (this.#statements.size >= STATEMENTS_MAX) this.#statements.clear()
    this.#statements.set(sql, statement)
    return statement
  }

  /** A statement outside the cache, for callers that keep it and switch its mode. */
  prepareOwn(sql: string): Database.Statement {
    this.#mustBeOpen()
    return this.#database.prepare(sql)
  }

  get<T>(sql: string, ...parameters: Parameters): T | undefined {
    return this.prepare(sql).get(...parameters) as T | undefined
  }

  all<T>(sql: string, ...parameters: Parameters): T[] {
    return this.prepare(sql).all(...parameters) as T[]
  }

  run(sql: string, ...parameters: Parameters): number {
    return this.prepare(sql).run(...parameters).changes
  }

  exec(sql: string): void {
    this.#mustBeOpen()
    this.#database.exec(sql)
  }

  pragma(text: string): unknown {
    return this.#database.pragma(text, { simple: true })
  }

  /** Runs `work` in a local transaction, or in a savepoint of the one that is open. */
  transaction<T>(work: () => T): T {
    this.#mustBeOpen()
    refuseAsyncFunction(work)
    if (this.#depth > 0) return this.#nested(work)
    this.#begin ??= this.#database.prepare('BEGIN IMMEDIATE')
    this.#commit ??= this.#database.prepare('COMMIT')
    this.#closeTransaction ??= this.#database.prepare(
      'UPDATE sync_state SET tx = tx + 1, clock = (SELECT clock FROM sync_tx WHERE seq = sync_state.tx) WHERE EXISTS (SELECT 1 FROM sync_tx WHERE seq = sync_state.tx)',
    )
    let captured: boolean
    let result: T
    try {
      this.#begin.run()
    } catch (error) {
      throw fromSqlite(error)
    }
    this.#depth = 1
    try {
      result = refuseAsync(work())
      captured = this.#closeTransaction.run().changes > 0
      if (captured) this.#mustFitTheWire()
      this.#commit.run()
    } catch (error) {
      this.#rollBack()
      throw fromSqlite(error)
    } finally {
      this.#depth = 0
    }
    if (captured) for (const listener of this.#onCommit) listener()
    return result
  }

  /** Runs `work`, which reads only, on one state of the file, whatever other processes commit meanwhile. */
  reading<T>(work: () => T): T {
    this.#mustBeOpen()
    if (this.#database.inTransaction) return work()
    this.run('BEGIN')
    try {
      return work()
    } finally {
      this.run('COMMIT')
    }
  }

  /**
   * Runs `work` with foreign keys off, in one transaction that no trigger captures: a batch of the centre is applied.
   * Nothing else can run meanwhile, since all of it is synchronous.
   */
  applying<T>(work: () => T): T {
    this.#mustBeOpen()
    assert(this.#depth === 0, 'a batch is applied inside a transaction')
    this.#database.pragma('foreign_keys = OFF')
    let result: T
    try {
      this.#database.exec('BEGIN IMMEDIATE')
      this.#depth = 1
      this.run('UPDATE sync_state SET applying = 1')
      result = refuseAsync(work())
      this.run('UPDATE sync_state SET applying = 0')
      this.#database.exec('COMMIT')
    } catch (error) {
      this.#rollBack()
      throw fromSqlite(error)
    } finally {
      this.#depth = 0
      this.#database.pragma('foreign_keys = ON')
    }
    for (const listener of this.#onApplied) listener()
    return result
  }

  /**
   * While much is written at once, checkpoints come less often: pages that one slice after another touches are then
   * copied into the file once. The write-ahead log grows to 16 MB instead of 4.
   */
  setLoading(isLoading: boolean): void {
    if (isLoading === this.#isLoading) return
    this.#isLoading = isLoading
    this.#database.pragma(`wal_autocheckpoint = ${isLoading ? 4000 : 1000}`)
  }

  /** Makes everything committed so far survive a power cut, whatever `synchronous` says. */
  flush(): void {
    if (this.path === ':memory:') return
    this.#mustBeOpen()
    const before = this.pragma('synchronous')
    this.#database.pragma('synchronous = FULL')
    try {
      this.transaction(() => this.run('UPDATE sync_state SET durable_seq = tx - 1'))
    } finally {
      this.#database.pragma(`synchronous = ${String(before)}`)
    }
  }

  /** Calls `listener` after each commit that made mutations to push. */
  onCommit(listener: () => void): () => void {
    this.#onCommit.add(listener)
    return () => this.#onCommit.delete(listener)
  }

  /** Calls `listener` after each batch of the centre that this process applied. */
  onApplied(listener: () => void): () => void {
    this.#onApplied.add(listener)
    return () => this.#onApplied.delete(listener)
  }

  /** Calls `listener` once the store is closed. */
  onClose(listener: () => void): () => void {
    this.#onClose.add(listener)
    return () => this.#onClose.delete(listener)
  }

  close(): void {
    if (!this.#database.open) return
    this.#statements.clear()
    this.#database.close()
    for (const listener of this.#onClose) listener()
  }

  /** The centre takes a local transaction whole; one that no message can carry must not get into the queue. */
  #mustFitTheWire(): void {
    const size = this.get<{ mutations: number; bytes: number | null }>(
      `SELECT count(*) AS mutations, sum(ifnull(octet_length(patch), size)) AS bytes FROM sync_log
      WHERE n >= (SELECT first_n FROM sync_tx WHERE seq = (SELECT tx - 1 FROM sync_state)) AND pushed = 1`,
    )
    const { mutations = 0, bytes } = size ?? {}
    if (mutations <= TRANSACTION_MUTATIONS_MAX && (bytes ?? 0) <= TRANSACTION_BYTES_MAX) return
    throw new AgentDBError(
      'TOO_LARGE',
      `a local transaction has at most ${TRANSACTION_MUTATIONS_MAX} mutations and ${TRANSACTION_BYTES_MAX / 1024 / 1024} MB; this one has ${mutations} and ${Math.ceil((bytes ?? 0) / 1024 / 1024)} MB: split it`,
    )
  }

  #nested<T>(work: () => T): T {
    const name = `s${++this.#savepoint}`
    this.#database.exec(`SAVEPOINT ${name}`)
    this.#depth += 1
    try {
      const result = refuseAsync(work())
      this.#database.exec(`RELEASE ${name}`)
      return result
    } catch (error) {
      // A full disk may have rolled everything back already.
      if (this.#database.inTransaction) this.#database.exec(`ROLLBACK TO ${name}; RELEASE ${name}`)
      throw fromSqlite(error)
    } finally {
      this.#depth -= 1
    }
  }

  #rollBack(): void {
    this.#rollback ??= this.#database.prepare('ROLLBACK')
    if (this.#database.inTransaction) this.#rollback.run()
  }

  #mustBeOpen(): void {
    if (!this.#database.open)
      throw new AgentDBError('STORE_CLOSED', 'the store is closed; open it again')
  }
}

/** Statements kept prepared; beyond, the cache starts anew. */
const STATEMENTS_MAX = 500

/** Refused before it starts: rolled back, it would go on after its first await, outside any transaction. */
export function refuseAsyncFunction(work: unknown): void {
  if (Object.prototype.toString.call(work) === '[object AsyncFunction]') throw asyncMisuse()
}

/** An awaited transaction on the shared connection would swallow other callers' writes when it rolls back. */
function refuseAsync<T>(result: T): T {
  if (result instanceof Promise) {
    result.catch(() => undefined)
    throw asyncMisuse()
  }
  return result
}

const asyncMisuse = (): AgentDBError =>
  new AgentDBError(
    'TRANSACTION_MISUSE',
    'db.transaction takes a synchronous function: await what you need before it, then write inside it',
  )

function cannotOpen(error: unknown, path: string): unknown {
  const { code } = error as { code?: unknown }
  const isNoFile = error instanceof TypeError || String(code).startsWith('SQLITE_CANTOPEN')
  if (!isNoFile) return fromSqlite(error)
  const message = `AgentDB.open: path ${path} cannot be opened: ${String(error)}`
  return new AgentDBError('INVALID_OPTION', message, { cause: error })
}
