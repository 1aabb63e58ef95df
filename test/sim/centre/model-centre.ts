import type { StoredRow } from '../../../schema/codec.ts'
import type { TableDefinition } from '../../../schema/define.ts'
import { AgentDBError, errorCodes } from '../../../schema/errors.ts'
import { mustTable, type TableName } from '../../../schema/tables.ts'
import { decodeMessage, encodeMessage, MSGPACK } from '../../../sync/protocol/codec.ts'
import {
  checksumResponseSchema,
  healRequestSchema,
  healResponseSchema,
  introduceRequestSchema,
  introduceResponseSchema,
  pullResponseSchema,
  pushRequestSchema,
  pushResponseSchema,
} from '../../../sync/protocol/messages.ts'
import { HEARTBEAT_MS } from '../../../sync/protocol/frames.ts'
import type { Random } from '../random.ts'
import { ownBuild, type SimBuild } from '../build.ts'
import type { Claims, HealDecision, PullAt, SimCentre, Statement } from './centre.ts'
import { DatabaseError } from './database-error.ts'
import type { ModelFeed } from './feed.ts'
import { ModelHeal } from './heal.ts'
import { ModelDatabase, type CommitObserver } from './model-database.ts'
import { Principals } from './principals.ts'
import type { ModelPush } from './push.ts'
import { pruneLog } from './retention.ts'

/** What a committed transaction of an operator was, for those who check it. */
export interface DirectNote {
  readonly kind: 'direct'
  readonly statements: readonly Statement[]
}

/** How often a migration looks whether the tables are free. */
const MIGRATION_TRIES = 500

class RollBackSignal extends Error {}

/** Sync servers over one database that is modelled in memory; everything between two steps takes virtual time. */
export class ModelCentre implements SimCentre {
  readonly database: ModelDatabase
  readonly #random: Random
  readonly #principals: Principals
  readonly #pageRows: number
  /** Of its pushes and its SQL; a feed of the build before may serve on beside it for a while. */
  #build: SimBuild
  #push: ModelPush
  readonly #heal: ModelHeal
  #feeds: ModelFeed[]
  #isUpgrading = false

  constructor(
    random: Random,
    clock: () => number,
    onCommit: CommitObserver,
    build: SimBuild = ownBuild,
  ) {
    this.#random = random
    this.#build = build
    this.database = new ModelDatabase(clock, onCommit, build.version)
    this.#principals = new Principals(this.database)
    this.#push = this.#newPush()
    this.#heal = new ModelHeal(this.database, this.#principals)
    // Pages of a few rows: that a scope is read in several must not need thousands.
    this.#pageRows = random.weighted([
      [2, 5000],
      [1, random.between(2, 12)],
    ])
    this.#feeds = [this.#newFeed(), this.#newFeed()]
  }

  #newFeed(): ModelFeed {
    const build = this.#build
    const pause = this.#pauseOf(build, () => build === this.#build || this.#isUpgrading)
    return new build.ModelFeed(this.database, this.#principals, pause, this.#pageRows)
  }

  #newPush(): ModelPush {
    const build = this.#build
    const pause = this.#pauseOf(build, () => build === this.#build)
    return new build.ModelPush(this.database, this.#principals, pause)
  }

  /** A server that is replaced gets no further: what it had not committed never was. The newest never is. */
  #pauseOf(build: SimBuild, serves: () => boolean): () => Promise<void> {
    if (build === ownBuild) return () => this.#pause()
    return async () => {
      await this.#pause()
      if (!serves()) throw new DatabaseError('57P01', 'the server is replaced')
    }
  }

  get isUpgraded(): boolean {
    return this.#build === ownBuild && !this.#isUpgrading
  }

  /**
   * The database is migrated, once no transaction holds its tables, and one server replaced; at the second call the
   * other, which meanwhile reads a database that knows more than it does.
   */
  async upgrade(): Promise<void> {
    if (this.#isUpgrading) {
      this.#feeds = [this.#newFeed(), this.#newFeed()]
      this.#isUpgrading = false
    }
    if (this.#build === ownBuild) return
    for (let tries = 0; this.database.isBusy && tries < MIGRATION_TRIES; tries++)
      await new Promise((done) => setTimeout(done, 7))
    // Somebody lost patience with those that would not end.
    if (this.database.isBusy) this.database.restart()
    this.database.migrate(ownBuild.version)
    this.#build = ownBuild
    this.#push = this.#newPush()
    this.#feeds = [this.#newFeed(), ...this.#feeds.slice(1)]
    this.#isUpgrading = true
  }

  async push(claims: Claims, bytes: Uint8Array): Promise<Uint8Array> {
    const request = decodeMessage(pushRequestSchema, bytes, MSGPACK)
    const response = await onTheWire(() => this.#push.push(claims, request))
    for (const feed of this.#feeds) void feed.refresh().catch(() => undefined)
    return encodeMessage(pushResponseSchema, response, MSGPACK)
  }

  async pull(claims: Claims, parameters: PullAt, signal: AbortSignal): Promise<Uint8Array> {
    const feed = this.#random.pick(this.#feeds) ?? this.#newFeed()
    const batch = await onTheWire(() => feed.pull(claims, parameters, signal))
    return encodeMessage(pullResponseSchema, batch, MSGPACK)
  }

  async introduce(claims: Claims, bytes: Uint8Array): Promise<Uint8Array> {
    const request = decodeMessage(introduceRequestSchema, bytes, MSGPACK)
    const response = await onTheWire(() => this.#push.introduce(claims, request))
    return encodeMessage(introduceResponseSchema, response, MSGPACK)
  }

  async *live(claims: Claims, parameters: PullAt, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const feed = this.#random.pick(this.#feeds) ?? this.#newFeed()
    let request = { ...parameters, waitMs: 0 }
    while (!signal.aborted) {
      const from = request
      const batch = await onTheWire(() => feed.pull(claims, from, signal))
      yield encodeMessage(pullResponseSchema, batch, MSGPACK)
      request = { ...parameters, cursor: batch.cursor, waitMs: HEARTBEAT_MS }
    }
  }

  async heal(claims: Claims, bytes: Uint8Array): Promise<Uint8Array> {
    const request = decodeMessage(healRequestSchema, bytes, MSGPACK)
    const feed = this.#random.pick(this.#feeds) ?? this.#newFeed()
    const response = await onTheWire(() => this.#heal.heal(claims, request, () => feed.refresh()))
    return encodeMessage(healResponseSchema, response, MSGPACK)
  }

  decide(decision: HealDecision, after: number | null, windowMs: number): Promise<number> {
    return this.#heal.decide(decision, after, windowMs)
  }

  endWindow(): Promise<void> {
    return this.#heal.endWindow()
  }

  async checksum(claims: Claims, schema: number): Promise<Uint8Array> {
    const feed = this.#random.pick(this.#feeds) ?? this.#newFeed()
    const sums = await onTheWire(() => feed.checksum(claims, schema))
    return encodeMessage(checksumResponseSchema, sums, MSGPACK)
  }

  async execute(statements: readonly Statement[], rollBack: boolean): Promise<void> {
    const build = this.#build
    try {
      await this.database.transaction(async (transaction) => {
        const sql = new build.Statements(this.database, transaction, null)
        for (const statement of statements) {
          await run(sql, statement, build.mustTable(statement.table))
          await this.#pause()
          if (build !== this.#build) throw new DatabaseError('57P01', 'the database is migrated')
        }
        if (rollBack) throw new RollBackSignal()
        const note: DirectNote = { kind: 'direct', statements }
        transaction.note = note
      })
    } catch (error) {
      if (!(error instanceof RollBackSignal)) throw error
    }
  }

  async rows(table: TableName): Promise<readonly StoredRow[]> {
    return [...this.database.rowsOf(mustTable(table).number)].toSorted((a, b) =>
      String(a['id']) < String(b['id']) ? -1 : 1,
    )
  }

  async prune(keptMs: number): Promise<void> {
    await pruneLog(this.database, this.database.clock() - 1000 * keptMs, () => this.#pause())
  }

  async crash(): Promise<void> {
    this.database.restart()
    // Sometimes the servers die with it, and their memory of the log.
    if (this.#random.chance(0.5)) this.#feeds = [this.#newFeed(), this.#newFeed()]
  }

  goBack(commit: number): void {
    this.database.goBack(commit)
    if (this.#random.chance(0.5)) this.#feeds = [this.#newFeed(), this.#newFeed()]
  }

  /** Most steps follow at once; some wait for a disk or for the processor. */
  async #pause(): Promise<void> {
    if (this.#random.chance(0.6)) return
    const ms = this.#random.longTailed(5, 400)
    const lost = this.database.pasts.length
    await new Promise((done) => setTimeout(done, ms))
    // Every connection was broken while the database was put back.
    if (this.database.pasts.length > lost)
      throw new DatabaseError('57P01', 'terminating connection')
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

type Sql = InstanceType<SimBuild['Statements']>

async function run(sql: Sql, statement: Statement, table: TableDefinition): Promise<void> {
  if (statement.op === 'insert') await sql.insert(table, [statement.row])
  else if (statement.op === 'update') await sql.update(table, statement.id, statement.values)
  else await sql.remove(table, [statement.id])
}

/** What HTTP makes of an error of the database. */
async function onTheWire<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    // A server of another build has classes of its own.
    if (!(error instanceof Error) || !('code' in error)) throw error
    const { code: sqlstate, message } = error
    if (sqlstate === '57P01')
      throw new AgentDBError('DATABASE_UNREACHABLE', 'the database of the centre is away')
    if (/^[0-9A-Z]{5}$/.test(String(sqlstate)))
      throw new AgentDBError('SERVER_ERROR', `the centre failed: ${message}`)
    const code = errorCodes.find((each) => each === sqlstate)
    throw error instanceof AgentDBError || code === undefined
      ? error
      : new AgentDBError(code, message)
  }
}
