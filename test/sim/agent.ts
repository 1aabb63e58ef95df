import { copyFileSync, existsSync, rmSync } from 'node:fs'
import { tableOfNumber } from '../../schema/tables.ts'
import type { AgentDB } from '../../src/index.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import type { SyncEngine, SyncStatus } from '../../sync/client/sync-engine.ts'
import type { Outcome } from '../../sync/client/outcome-log.ts'
import type { SimBuild } from './build.ts'
import { Violation } from './checks/violation.ts'
import { Decisions } from './checks/decision-check.ts'
import type { Decided } from './decisions.ts'
import { SimTransport, type Network } from './network.ts'
import { CrashSignal, type SqliteHooks } from './sqlite-hooks.ts'
import type { Random } from './random.ts'
import type { Trace } from './trace.ts'
import { EPOCH_MS } from './virtual-time.ts'

/** One mutation of a local transaction, as the outbox has it. */
export interface LocalMutation {
  readonly tbl: number
  readonly id: string
  readonly op: 'insert' | 'update' | 'delete'
  readonly patch: string | null
  readonly pushed: number
}

export interface LocalCommit {
  readonly id: string
  readonly seq: number
  readonly clock: number
  /** Where the store stood when it was committed. */
  readonly base: { readonly nonce: string | null; readonly position: number }
  readonly mutations: readonly LocalMutation[]
  /** The client under which it went back into the queue, after the centre had lost it. */
  readonly requeuedAs?: string
}

/** What the world around an agent gives it. */
export interface AgentWorld {
  readonly network: Network
  readonly hooks: SqliteHooks
  readonly random: Random
  readonly trace: Trace
  readonly elapsedMs: () => number
  /** Told of every local commit once it is known of. */
  readonly onCommit: (commit: LocalCommit) => void
}

/** Error codes that the network and the centre may cause; any other is a failure of the engine. */
const expectedCodes: ReadonlySet<string> = new Set([
  'UNREACHABLE',
  'OVERLOADED',
  'DATABASE_UNREACHABLE',
  'FORBIDDEN',
  'STORE_CLOSED',
  'HEALING_PENDING',
])

/** Deadlocks and races for a version that went on for too long at the centre: sent again. */
const isRetried = (message: string): boolean =>
  /^the centre failed: (?:deadlock|duplicate key value violates uq_workflow)/.test(message)

/** What a store that became another client remembers of the one it was. */
interface StoredAncestor {
  readonly ancestor?: { readonly seq: number }
  readonly heal?: { readonly offered: number } | null
}

function refill(set: Set<string>, ids: Iterable<string>): void {
  set.clear()
  for (const id of ids) set.add(id)
}

const filesOf = (path: string): [string, string] => [path, `${path}-wal`]

function copyStore(from: string, to: string): void {
  const targets = filesOf(to)
  for (const [i, source] of filesOf(from).entries()) {
    const target = targets[i] ?? ''
    if (existsSync(source)) copyFileSync(source, target)
    else rmSync(target, { force: true })
  }
}

/** An agent on a machine of its own: real store, real engine, a clock that may be wrong, a process that may die. */
export class SimAgent {
  readonly name: string
  readonly userId: string
  readonly path: string
  /** Agents that are copies of one file. */
  readonly family: string
  /** Everything that was committed here and that the file still has to know. */
  readonly commits = new Map<string, LocalCommit>()
  /** Those that a batch has acknowledged, under whatever number they then had. */
  readonly settled = new Set<string>()
  /** Those that a batch had acknowledged and that were put back into the queue, since the centre went back. */
  readonly requeued = new Set<string>()
  /** What a power cut took back. */
  readonly lost = new Map<string, LocalCommit>()
  /** Conflicts that were retried or discarded here. */
  readonly decisions = new Decisions()
  /** Outcomes of every life, in order. */
  readonly outcomes: Outcome[] = []
  /** What the engine reported that it never should. */
  readonly failures: string[] = []
  /** Whether batches were applied whose outcomes the process did not live to hear of. */
  hasMissedOutcomes = false
  isForked = false
  /** Whether it became a client of its own, since the centre knew other work under its numbers. */
  hasForked = false
  skewMs: number
  /** What its program is; a store that a newer one has opened never goes back to an older. */
  build: SimBuild
  lives = 0
  readonly #world: AgentWorld
  #db: AgentDB | undefined
  #engine: SyncEngine | undefined
  #hasCut = false
  #clientId: string | undefined
  #isFlushing = false
  #atCut:
    | { commits: Set<string>; outcomes: Outcome[]; settled: string[]; requeued: string[] }
    | undefined

  constructor(
    world: AgentWorld,
    options: {
      name: string
      userId: string
      path: string
      family: string
      skewMs: number
      build: SimBuild
    },
  ) {
    this.#world = world
    this.name = options.name
    this.userId = options.userId
    this.path = options.path
    this.family = options.family
    this.skewMs = options.skewMs
    this.build = options.build
    world.hooks.register(this.path, {
      clock: () => this.clock(),
      onSynchronous: (mode) => {
        // A flush has ended: what was committed before it cannot be cut off any more.
        if (this.#isFlushing && mode !== 'full') this.#hasCut = false
        this.#isFlushing = mode === 'full'
      },
    })
  }

  readonly clock = (): number =>
    Math.floor((EPOCH_MS + this.#world.elapsedMs() + this.skewMs) * 1000)

  /** Differs when anything in the store does: checks look again. */
  get changes(): number {
    const row = this.connection.get<{ n: number }>('SELECT total_changes() AS n')
    return this.lives * 1e9 + (row?.n ?? 0)
  }

  /** The history of the centre that it stands in. */
  get nonce(): string | null {
    const row = this.connection.get<{ nonce: string | null }>('SELECT nonce FROM sync_state')
    return row?.nonce ?? null
  }

  get isAlive(): boolean {
    return this.#db !== undefined
  }

  get db(): AgentDB {
    if (this.#db === undefined) throw new Error(`${this.name} is dead`)
    return this.#db
  }

  get connection(): Connection {
    return this.build.internalsOf(this.db).connection
  }

  get engine(): SyncEngine {
    if (this.#engine === undefined) throw new Error(`${this.name} is dead`)
    return this.#engine
  }

  get status(): SyncStatus | undefined {
    return this.#engine?.status()
  }

  async start(): Promise<void> {
    const { random, network, trace } = this.#world
    this.lives += 1
    const { path, userId, clock, build } = this
    this.#db = await build.AgentDB.open({ path, userId, agentId: this.family, clock })
    this.decisions.onStart(this.connection, this.observe(), this.name)
    const claims = { userId, agentId: this.family }
    const engine = new build.SyncEngine({
      connection: this.connection,
      clock,
      transport: new SimTransport(network, this.name, claims, {
        build,
        hasLive: random.chance(0.5),
      }),
      random: random.float,
      checkToken: async () => undefined,
      pullWaitMs: 25_000,
      retryMinMs: 100,
      retryMaxMs: 10_000,
    })
    this.#engine = engine
    engine.on('outcome', (outcome) => {
      this.outcomes.push(outcome)
      this.settled.add(outcome.transactionId)
      this.#world.trace.add(
        this.name,
        `outcome ${outcome.transaction}.${outcome.n} ${outcome.kind} ${outcome.reason ?? ''}`,
      )
    })
    engine.on('fork', ({ pending, reason }) => {
      trace.add(this.name, `becomes another client, with ${pending} pending: ${reason}`)
      this.hasForked = true
      this.#observeUntilDeath()
    })
    engine.on('heal', ({ decision, offered, withheld }) =>
      trace.add(this.name, `heals: ${decision}, ${offered} go back, ${withheld} do not`),
    )
    engine.on('status', (status) => this.#onStatus(engine, status))
    engine.start()
  }

  #onStatus(engine: SyncEngine, { state, lastError }: SyncStatus): void {
    if (engine !== this.#engine || !this.connection.isOpen) return
    if (lastError === undefined || (state !== 'waiting' && state !== 'stopped')) return
    if (lastError.code === 'FORKED') {
      this.isForked = true
      this.#world.trace.add(this.name, `stopped: ${lastError.message}`)
    } else if (!expectedCodes.has(lastError.code) && !isRetried(lastError.message)) {
      this.failures.push(`${lastError.code}: ${lastError.message}`)
    }
  }

  /** Runs a program's write. What the store refuses does not happen; returns whether the process survived. */
  write(what: string, work: (db: AgentDB, decided: Decided[]) => void): boolean {
    const decided: Decided[] = []
    let refused = ''
    try {
      work(this.db, decided)
    } catch (error) {
      if (error instanceof Violation) throw error
      refused = ` refused: ${error instanceof Error ? error.message : String(error)}`
    }
    if (!this.connection.isOpen) {
      this.decisions.inDoubt(decided)
      return false
    }
    this.#world.trace.add(this.name, `${what}${refused}`)
    const made = this.observe()
    if (refused === '') this.decisions.made(decided, made[0])
    return true
  }

  /** The program asks to be drained now; beside the loops, which go on. */
  syncNow(): void {
    this.#world.trace.add(this.name, 'sync now')
    this.#engine?.now().catch(() => undefined)
  }

  /** In a handler nobody would catch that the process dies here; the engine meets it with its next statement. */
  #observeUntilDeath(): void {
    try {
      this.observe()
    } catch (error) {
      if (!(error instanceof CrashSignal)) throw error
    }
  }

  /** Notes what was committed since; returns the ids of these transactions. */
  observe(): string[] {
    const added: string[] = []
    const newest = this.connection.all<Omit<LocalCommit, 'mutations' | 'base'>>(
      'SELECT id, seq, clock FROM sync_tx ORDER BY seq',
    )
    const state = this.connection.get<{
      client: string
      ancestor: string | null
      nonce: string | null
      position: number
    }>('SELECT client_id AS client, ancestor, nonce, position FROM sync_state')
    if (state === undefined) return added
    if (this.#clientId !== undefined && this.#clientId !== state.client)
      this.#noteRequeued(state.client, state.ancestor, newest)
    this.#clientId = state.client
    const base = { nonce: state.nonce, position: state.position }
    for (const commit of newest) {
      const { id, seq } = commit
      const known = this.commits.get(id)
      if (known !== undefined) {
        if (known.seq !== seq) this.commits.set(id, { ...known, seq })
        continue
      }
      const mutations = this.#mutationsOf(seq)
      const made = { ...commit, base: mutations.length === 0 ? this.#baseOf(seq) : base, mutations }
      this.commits.set(id, made)
      added.push(id)
      this.#world.onCommit(made)
    }
    return added
  }

  /** The centre went back: what it lost is pending again, and what became of it then counts no longer. */
  #noteRequeued(
    requeuedAs: string,
    ancestor: string | null,
    queue: readonly { readonly id: string; readonly seq: number }[],
  ): void {
    const { heal } = JSON.parse(ancestor ?? '{}') as StoredAncestor
    if (heal == null) return
    for (const { id, seq } of queue) {
      const commit = this.commits.get(id)
      if (seq > heal.offered || commit === undefined) continue
      this.settled.delete(id)
      this.requeued.add(id)
      const mutations = this.#mutationsOf(seq)
      this.#mustBeGone(commit, mutations)
      this.commits.set(id, { ...commit, seq, mutations })
      this.#world.onCommit({ ...commit, seq, mutations, requeuedAs })
    }
    const isPending = new Set(queue.map(({ id }) => id))
    const kept = this.outcomes.filter(({ transactionId }) => !isPending.has(transactionId))
    this.outcomes.splice(0, this.outcomes.length, ...kept)
  }

  /** What takes the number of one that is held, since the centre does not know all of it yet, has the base of that one. */
  #baseOf(seq: number): LocalCommit['base'] {
    const row = this.connection.get<LocalCommit['base']>(
      'SELECT nonce, position FROM sync_tx WHERE seq = ?',
      seq,
    )
    return row ?? { nonce: null, position: 0 }
  }

  #mutationsOf(seq: number): LocalMutation[] {
    return this.connection.all<LocalMutation>(
      `SELECT tbl, id, op, patch, pushed FROM ${this.build.loggedMutations} WHERE tx = ? ORDER BY n`,
      seq,
    )
  }

  /** Only an insert whose row is the payload, and is gone by now, has nothing to bring back. */
  #mustBeGone({ id: transaction, mutations }: LocalCommit, left: readonly LocalMutation[]): void {
    const rest = [...left]
    for (const { tbl, op, id } of mutations) {
      const [next] = rest
      if (next?.tbl === tbl && next.op === op && next.id === id) rest.shift()
      else if (op !== 'insert' || tableOfNumber(tbl)?.writeClass !== 'append')
        this.failures.push(`the ${op} of ${id} in ${transaction} does not go back into the queue`)
    }
  }

  /** Transactions that a batch has acknowledged: what was taken is kept for healing, what was not is told. */
  acknowledged(): ReadonlySet<string> {
    const rows = this.connection.all<{ id: string }>(
      `SELECT id FROM sync_kept_tx UNION SELECT tx_id FROM sync_conflicts WHERE tx_id IS NOT NULL AND state <> 'blocked'`,
    )
    return new Set(rows.map(({ id }) => id))
  }

  /** Whether the process of the store died at a planned statement. */
  get hasDied(): boolean {
    return this.#db !== undefined && !this.connection.isOpen
  }

  /** The process ends: nothing of its memory is left, nothing of it runs on. */
  die(): void {
    const { trace } = this.#world
    if (this.#db === undefined) return
    // Its death may lie between the commit of a batch and the telling of its outcomes.
    if (this.hasDied) this.hasMissedOutcomes = true
    this.#world.hooks.endProcess(this.path)
    // Nothing is left that it could do; this only ends its loops.
    this.#engine?.close().catch(() => undefined)
    this.#db = undefined
    this.#engine = undefined
    trace.add(this.name, 'dies')
  }

  /** Keeps what a power cut from here on would leave, unless an older state is kept. */
  rememberForCut(): void {
    if (this.#hasCut) return
    copyStore(this.path, `${this.path}.cut`)
    this.#hasCut = true
    const { commits, outcomes, settled, requeued } = this
    this.#atCut = {
      commits: new Set(commits.keys()),
      outcomes: [...outcomes],
      settled: [...settled],
      requeued: [...requeued],
    }
  }

  /** The machine loses power: the file goes back to a commit that was not flushed. Says whether there is one. */
  cutPower(): boolean {
    if (!this.#hasCut) return false
    this.die()
    copyStore(`${this.path}.cut`, this.path)
    this.#hasCut = false
    // The batches that brought these come again.
    const { outcomes = [], settled = [], requeued = [] } = this.#atCut ?? {}
    this.outcomes.splice(0, this.outcomes.length, ...outcomes)
    refill(this.settled, settled)
    refill(this.requeued, requeued)
    this.#clientId = undefined
    this.#world.trace.add(this.name, 'loses power')
    return true
  }

  /** After a power cut: what is not in the file any more never was. */
  forgetLost(): void {
    const kept = new Set(
      this.connection.all<{ id: string }>('SELECT id FROM sync_tx').map(({ id }) => id),
    )
    for (const id of this.acknowledged()) this.settled.add(id)
    // What was acknowledged after the copy is in the queue again.
    for (const id of kept) this.settled.delete(id)
    for (const commit of this.commits.values()) {
      if (kept.has(commit.id) || this.settled.has(commit.id)) continue
      if (this.#atCut?.commits.has(commit.id) === true) continue
      this.commits.delete(commit.id)
      this.lost.set(commit.id, commit)
    }
    this.decisions.forgetLost(this.connection, this.lost, this.name)
  }

  /** A copy of the file on another machine. */
  clone(name: string, path: string, skewMs: number): SimAgent {
    copyStore(this.path, path)
    const { userId, family, build } = this
    const twin = new SimAgent(this.#world, { name, userId, path, family, skewMs, build })
    for (const [id, commit] of this.commits) twin.commits.set(id, commit)
    refill(twin.settled, this.settled)
    refill(twin.requeued, this.requeued)
    twin.decisions.copyFrom(this.decisions)
    twin.#clientId = this.#clientId
    twin.outcomes.push(...this.outcomes)
    twin.hasMissedOutcomes = this.hasMissedOutcomes
    return twin
  }
}
