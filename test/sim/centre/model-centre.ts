import type { StoredRow } from '../../../schema/codec.ts'
import { AgentDBError } from '../../../schema/errors.ts'
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
import type { Claims, HealDecision, PullAt, SimCentre, Statement } from './centre.ts'
import { DatabaseError } from './database-error.ts'
import { ModelFeed } from './feed.ts'
import { ModelHeal } from './heal.ts'
import { ModelDatabase, type CommitObserver } from './model-database.ts'
import { Principals } from './principals.ts'
import { ModelPush } from './push.ts'
import { pruneLog } from './retention.ts'
import { Statements } from './statements.ts'

/** What a committed transaction of an operator was, for those who check it. */
export interface DirectNote {
  readonly kind: 'direct'
  readonly statements: readonly Statement[]
}

class RollBackSignal extends Error {}

/** Sync servers over one database that is modelled in memory; everything between two steps takes virtual time. */
export class ModelCentre implements SimCentre {
  readonly database: ModelDatabase
  readonly #random: Random
  readonly #push: ModelPush
  readonly #heal: ModelHeal
  #feeds: ModelFeed[]
  readonly #newFeed: () => ModelFeed

  constructor(random: Random, clock: () => number, onCommit: CommitObserver) {
    this.#random = random
    this.database = new ModelDatabase(clock, onCommit)
    const principals = new Principals(this.database)
    const pause = (): Promise<void> => this.#pause()
    this.#push = new ModelPush(this.database, principals, pause)
    this.#heal = new ModelHeal(this.database, principals)
    // Pages of a few rows: that a scope is read in several must not need thousands.
    const pageRows = random.weighted([
      [2, 5000],
      [1, random.between(2, 12)],
    ])
    this.#newFeed = () => new ModelFeed(this.database, principals, pause, pageRows)
    this.#feeds = [this.#newFeed(), this.#newFeed()]
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
    try {
      await this.database.transaction(async (transaction) => {
        const sql = new Statements(this.database, transaction, null)
        for (const statement of statements) {
          await run(sql, statement)
          await this.#pause()
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

async function run(sql: Statements, statement: Statement): Promise<void> {
  const table = mustTable(statement.table)
  if (statement.op === 'insert') await sql.insert(table, [statement.row])
  else if (statement.op === 'update') await sql.update(table, statement.id, statement.values)
  else await sql.remove(table, [statement.id])
}

/** What HTTP makes of an error of the database. */
async function onTheWire<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof DatabaseError && error.code === '57P01')
      throw new AgentDBError('DATABASE_UNREACHABLE', 'the database of the centre is away')
    if (error instanceof DatabaseError)
      throw new AgentDBError('SERVER_ERROR', `the centre failed: ${error.message}`)
    throw error
  }
}
