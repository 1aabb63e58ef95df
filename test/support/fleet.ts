import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'kysely'
import { AgentDBError } from '../../schema/errors.ts'
import { newId } from '../../schema/values/id.ts'
import type { UserRole } from '../../schema/enums.ts'
import { serve, type ServeOptions, type SyncServer } from '../../server/index.ts'
import { AgentDB } from '../../src/index.ts'
import { internalsOf, type Connection } from '../../src/internal-for-sync.ts'
import type { Outcome } from '../../sync/index.ts'
import { SyncEngine } from '../../sync/client/sync-engine.ts'
import { HttpTransport, type PullParameters, type Transport } from '../../sync/client/transport.ts'
import type {
  ChecksumResponse,
  HealRequest,
  HealResponse,
  IntroduceRequest,
  IntroduceResponse,
  PullResponse,
  PushRequest,
  PushResponse,
} from '../../sync/protocol/messages.ts'

/**
 * What happens to one call of the wire:
 *
 * - `refuse`: it never arrives
 * - `lose`: it arrives, its answer does not
 * - `twice`: it arrives twice, the second answer comes back
 * - `die-before`, `die-after`: the agent's process ends before it is sent, or before its answer comes
 */
export type Fault = 'none' | 'refuse' | 'lose' | 'twice' | 'die-before' | 'die-after'

/** The real wire, with faults by plan. Without a plan every call goes through. */
export class FaultyTransport implements Transport {
  readonly #wire: Transport
  readonly #die: () => Promise<void>
  /** Faults of the next calls, in order. */
  plan: Fault[] = []
  /** Every push that was sent, to be repeated by a network that does so. */
  readonly pushes: PushRequest[] = []

  constructor(wire: Transport, die: () => Promise<void>) {
    this.#wire = wire
    this.#die = die
  }

  push(request: PushRequest, signal: AbortSignal): Promise<PushResponse> {
    this.pushes.push(request)
    return this.#call(() => this.#wire.push(request, signal))
  }

  pull(parameters: PullParameters, signal: AbortSignal): Promise<PullResponse> {
    return this.#call(() => this.#wire.pull(parameters, signal))
  }

  checksum(signal: AbortSignal): Promise<ChecksumResponse> {
    return this.#wire.checksum(signal)
  }

  introduce(request: IntroduceRequest, signal: AbortSignal): Promise<IntroduceResponse> {
    return this.#call(() => this.#wire.introduce(request, signal))
  }

  heal(request: HealRequest, signal: AbortSignal): Promise<HealResponse> {
    return this.#call(() => this.#wire.heal(request, signal))
  }

  async #call<T>(send: () => Promise<T>): Promise<T> {
    const fault = this.plan.shift() ?? 'none'
    if (fault === 'refuse') throw injected(fault)
    if (fault === 'die-before') {
      await this.#die()
      throw injected(fault)
    }
    const first = await send()
    if (fault === 'twice') return send()
    if (fault === 'lose') throw injected(fault)
    if (fault === 'die-after') {
      await this.#die()
      throw injected(fault)
    }
    return first
  }
}

const INJECTED = 'injected fault'
const injected = (fault: Fault): AgentDBError =>
  new AgentDBError('UNREACHABLE', `${INJECTED}: ${fault}`)

const isInjected = (error: unknown): boolean =>
  error instanceof AgentDBError &&
  (error.message.startsWith(INJECTED) || error.code === 'STORE_CLOSED')

/** A local transaction as it was committed: its id and how many mutations it sends. */
export interface Commit {
  readonly id: string
  readonly seq: number
  readonly mutations: number
}

/** An agent whose process can die: store, engine and what was observed of both over all its lives. */
export class TestAgent {
  readonly name: string
  readonly userId: string
  readonly path: string
  readonly outcomes: Outcome[] = []
  readonly commits = new Map<string, Commit>()
  readonly #url: string
  readonly #token: string
  #db: AgentDB
  #engine: SyncEngine
  #transport: FaultyTransport
  #position: { nonce: string | null; position: number } = { nonce: null, position: 0 }

  private constructor(
    options: { name: string; userId: string; path: string; url: string; token: string },
    db: AgentDB,
  ) {
    this.name = options.name
    this.userId = options.userId
    this.path = options.path
    this.#url = options.url
    this.#token = options.token
    this.#db = db
    this.#transport = this.#newTransport([])
    this.#engine = this.#newEngine()
  }

  static async start(options: {
    name: string
    userId: string
    path: string
    url: string
    token: string
  }): Promise<TestAgent> {
    const { path, userId, name } = options
    return new TestAgent(options, await AgentDB.open({ path, userId, agentId: name }))
  }

  get db(): AgentDB {
    return this.#db
  }

  get engine(): SyncEngine {
    return this.#engine
  }

  get connection(): Connection {
    return internalsOf(this.#db).connection
  }

  get clientId(): string {
    return this.connection.get<{ id: string }>('SELECT client_id AS id FROM sync_state')?.id ?? ''
  }

  get sentPushes(): readonly PushRequest[] {
    return this.#transport.pushes
  }

  /** Notes what was committed since; to be called after each local write. */
  observeCommits(): void {
    const rows = this.connection.all<Commit>(
      `SELECT t.id, t.seq, (SELECT count(*) FROM sync_log l WHERE l.tx = t.seq AND l.pushed = 1) AS mutations FROM sync_tx t`,
    )
    for (const row of rows) this.commits.set(row.id, row)
  }

  /** Pushes and pulls under a plan of faults. Only injected faults may stop it. */
  async sync(plan: readonly Fault[] = []): Promise<boolean> {
    this.#transport.plan = [...plan]
    try {
      await this.#engine.now()
      return true
    } catch (error) {
      if (!isInjected(error)) throw error
      return false
    } finally {
      this.#transport.plan = []
      if (!this.#db.isOpen) await this.restart()
      this.#mustNotGoBack()
    }
  }

  /** Pulls, pushes nothing, and compares what the store then holds with what the centre says it must hold (I1). */
  async pull(): Promise<{ local: ChecksumResponse; central: ChecksumResponse }> {
    const sums = await this.#engine.checksums()
    this.#mustNotGoBack()
    return sums
  }

  /** Sends an earlier push once more, as a network may. */
  async repeatPush(index: number): Promise<void> {
    const request = this.#transport.pushes.at(index)
    if (request === undefined) return
    await new HttpTransport(this.#url, this.#token).push(request, AbortSignal.timeout(30_000))
  }

  /** The process ends: no goodbye to the sync, nothing of its memory is left. */
  async die(): Promise<void> {
    await this.#db.close()
    await this.#engine.close()
  }

  async restart(): Promise<void> {
    await this.die()
    this.#db = await AgentDB.open({ path: this.path, userId: this.userId })
    this.#transport = this.#newTransport(this.#transport.pushes)
    this.#engine = this.#newEngine()
  }

  /** What every table shows, audit rows apart: an agent only sends those. */
  visibleRows(): Record<string, unknown[]> {
    const { db } = this
    return {
      users: db.users.list({ includeDeleted: true }),
      sessions: db.sessions.list(),
      conversations: db.conversations.list(),
      messages: db.messages.list(),
      workflows: db.workflows.list({ includeDeleted: true }),
      workflow_executions: db.workflowExecutions.list(),
      step_executions: db.stepExecutions.list(),
      incidents: db.incidents.list(),
      runbooks: db.runbooks.list(),
      runbook_executions: db.runbookExecutions.list(),
      embeddings: db.embeddings.list(),
      memory_trajectories: db.memory.trajectories.list(),
      memory_items: db.memory.items.list(),
    }
  }

  #newTransport(pushes: readonly PushRequest[]): FaultyTransport {
    const transport = new FaultyTransport(new HttpTransport(this.#url, this.#token), () =>
      this.#db.close(),
    )
    transport.pushes.push(...pushes)
    return transport
  }

  #newEngine(): SyncEngine {
    const { connection, clock } = internalsOf(this.#db)
    const engine = new SyncEngine({
      connection,
      clock,
      transport: this.#transport,
      random: () => 0,
      checkToken: async () => undefined,
      pullWaitMs: 25_000,
      retryMinMs: 10,
      retryMaxMs: 100,
    })
    engine.on('outcome', (outcome) => this.outcomes.push(outcome))
    return engine
  }

  #mustNotGoBack(): void {
    const now = this.connection.get<{ nonce: string | null; position: number }>(
      'SELECT nonce, position FROM sync_state',
    )
    if (now === undefined) throw new Error(`${this.name}: sync_state is empty`)
    const before = this.#position
    if (now.nonce === before.nonce && now.position < before.position) {
      throw new Error(`${this.name} went back from ${before.position} to ${now.position}`)
    }
    this.#position = now
  }
}

/** A centre with users and agents for one test file; stores lie in a folder of its own. */
export class Fleet implements AsyncDisposable {
  readonly server: SyncServer
  readonly folder: string
  #agents: TestAgent[] = []
  #count = 0

  private constructor(server: SyncServer, folder: string) {
    this.server = server
    this.folder = folder
  }

  static async start(options: ServeOptions = {}): Promise<Fleet> {
    const server = await serve({ port: 0, ...options })
    return new Fleet(server, mkdtempSync(join(tmpdir(), 'agentdb-fleet-')))
  }

  async addUser(role: UserRole = 'developer'): Promise<string> {
    const id = newId()
    await this.server.db
      .insertInto('users')
      .values({
        id,
        email: `u${id}@example.org`,
        username: `u-${id}`,
        password_hash: 'x',
        role,
        status: 'active',
      })
      .execute()
    return id
  }

  async addAgent(userId: string, label = 'agent'): Promise<TestAgent> {
    const name = `${label}-${++this.#count}`
    const token = await this.server.issueToken({ userId, agentId: name })
    const path = join(this.folder, `${name}.db`)
    const agent = await TestAgent.start({ name, userId, path, url: this.server.url, token })
    this.#agents.push(agent)
    return agent
  }

  /** Runs SQL at the centre, past every agent. */
  async sql(text: string, ...values: readonly unknown[]): Promise<Record<string, unknown>[]> {
    const parts = text.split('?')
    const query = sql<Record<string, unknown>>(parts as unknown as TemplateStringsArray, ...values)
    return (await query.execute(this.server.db)).rows
  }

  /** Ends all agents and empties the centre's domain, for the next program. */
  async clear(): Promise<void> {
    for (const agent of this.#agents) await agent.die()
    this.#agents = []
    for (const table of ['runbook_executions', 'incidents', 'runbooks', 'users', 'audit_logs'])
      await this.sql(`DELETE FROM ${table}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const agent of this.#agents) await agent.die()
    await this.server.close()
    rmSync(this.folder, { recursive: true, force: true })
  }
}
