import { copyFileSync, existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newId } from '../../schema/values/id.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import { references } from '../../schema/define.ts'
import { mustTable, tableOfNumber } from '../../schema/tables.ts'
import { decodeImage } from '../../sync/client/image.ts'
import { encodeMessage, MSGPACK } from '../../sync/protocol/codec.ts'
import { pushRequestSchema, type PushRequest } from '../../sync/protocol/messages.ts'
import { SimAgent, type AgentWorld } from './agent.ts'
import { ownBuild, type SimBuild } from './build.ts'
import type { HealDecision, SimCentre, Statement } from './centre/centre.ts'
import { ModelCentre } from './centre/model-centre.ts'
import { rowKey, type ModelDatabase } from './centre/model-database.ts'
import { checkAgent, type Seen } from './checks/agent-check.ts'
import { CentreCheck } from './checks/centre-check.ts'
import { checkEnd } from './checks/end-check.ts'
import { must, Violation } from './checks/violation.ts'
import { decisionKinds, decisionSteps, type Decided } from './decisions.ts'
import { calm, Network, type Weather } from './network.ts'
import { Random } from './random.ts'
import { CrashSignal, SqliteHooks } from './sqlite-hooks.ts'
import { Trace } from './trace.ts'
import type { AgentDB } from '../../src/index.ts'
import {
  newerCentralKinds,
  newerCentralSteps,
  newerLocalKinds,
  newerLocalSteps,
} from './newer-steps.ts'
import { EPOCH_MS, VirtualTime } from './virtual-time.ts'
import {
  centralKinds,
  centralSteps,
  firstRows,
  givingKinds,
  givingSteps,
  localKinds,
  localSteps,
} from './workload.ts'

export interface RunOptions {
  readonly seed: number
  /** Steps before everything is healed. */
  readonly steps: number
  readonly onLine?: ((line: string) => void) | undefined
  /** The build of the version before: some agents are of it, and are upgraded in the run. */
  readonly older?: SimBuild | undefined
}

export interface RunResult {
  readonly seed: number
  readonly steps: number
  /** Whether agents were of two versions. */
  readonly isSkewed: boolean
  readonly failure:
    | { readonly invariant: string; readonly message: string; readonly step: number }
    | undefined
  /** Equal for two runs that did the same. */
  readonly digest: string
  readonly trace: readonly string[]
  readonly virtualMs: number
  readonly commits: number
  readonly statements: number
}

/** Quiet must come within this virtual time once everything is healed (I13). */
const HEAL_MS_MAX = 10 * 60_000
/** The product's own healing window, longer than any run. */
const WINDOW_MS = 7 * 86_400_000
const RESTORES_MAX = 3

/** Shared memory where there is some: stores are files, but no disk needs to turn. */
export const scratch = (): string =>
  mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'agentdb-sim-'))

const templates = new Map<SimBuild, string>()

/** A store of a build with its tables made, once a process: making them takes longer than most runs. */
function template(build: SimBuild): string {
  const known = templates.get(build)
  if (known !== undefined) return known
  const folder = scratch()
  const path = join(folder, 'template.db')
  const connection = new build.Connection({ path, synchronous: 'normal', busyTimeoutMs: 0 })
  build.migrateStore(connection)
  connection.close()
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  templates.set(build, path)
  return path
}

/** Runs one seed from beginning to end. Never throws for a violation: it is the result. */
export async function runSeed(options: RunOptions): Promise<RunResult> {
  for (const build of [ownBuild, options.older]) if (build !== undefined) template(build)
  const folder = scratch()
  try {
    return await new Simulation(options, folder).run()
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Which faults a run knows; each run has a few, so that each is seen with and without the others. */
interface Faults {
  readonly weather: Weather
  readonly links: boolean
  readonly crashes: boolean
  readonly powerCuts: boolean
  readonly clones: boolean
  readonly centreCrashes: boolean
  readonly clocks: boolean
  readonly suspensions: boolean
  /** Whether programs decide the conflicts that they find. */
  readonly decisions: boolean
  /** Whether rows change hands at the centre. */
  readonly giving: boolean
  /** Whether the log is pruned. */
  readonly retention: boolean
  /** The centre is put back to an earlier commit, and what its operator decides then; undefined where it never is. */
  readonly restores: Restores | undefined
  /** Whether some agents are of the version before. */
  readonly skew: boolean
}

interface Restores {
  readonly decision: HealDecision
  readonly windowMs: number
}

class Simulation {
  readonly #options: RunOptions
  readonly #folder: string
  /** What happens and when. */
  readonly #random: Random
  /** Ids and jitter of the product. */
  readonly #productRandom: Random
  readonly #agents: SimAgent[] = []
  readonly #seen = new Map<SimAgent, Seen & { changes: number }>()
  readonly #users: string[] = []
  /** A source of its own: runs in which the centre never goes back are what they were. */
  readonly #restoreRandom: Random
  /** Likewise, of runs in which all are of one version. */
  readonly #skewRandom: Random
  /** Commits of the world's making, which stay. */
  #firstCommits = 0
  #step = 0
  #made = 0

  constructor(options: RunOptions, folder: string) {
    this.#options = options
    this.#folder = folder
    this.#random = new Random(options.seed, 1)
    this.#productRandom = new Random(options.seed, 2)
    this.#restoreRandom = new Random(options.seed, 56)
    this.#skewRandom = new Random(options.seed, 57)
  }

  async run(): Promise<RunResult> {
    using hooks = new SqliteHooks(this.#productRandom)
    using time = new VirtualTime(this.#productRandom)
    const elapsedMs = (): number => time.elapsedMs
    this.#options.older?.forgetIds()
    const trace = new Trace({ elapsedMs, onLine: this.#options.onLine, keep: 400 })
    const centreCheck = new CentreCheck(trace)
    const clock = (): number => Math.floor((EPOCH_MS + time.elapsedMs) * 1000)
    const centre = new ModelCentre(
      new Random(this.#options.seed, 3),
      clock,
      (transaction) => centreCheck.onCommit(transaction),
      this.#firstCentre(),
    )
    centreCheck.watch(centre.database)
    const network = new Network(centre, new Random(this.#options.seed, 4), trace)
    const world: AgentWorld = {
      network,
      hooks,
      random: this.#productRandom,
      trace,
      elapsedMs,
      onCommit: (commit) => centreCheck.expect(commit),
    }
    let failure: RunResult['failure']
    using stray = new StrayErrors()
    try {
      await this.#play({ world, time, centre, model: centre.database, centreCheck, stray })
    } catch (error) {
      const invariant = error instanceof Violation ? error.invariant : 'simulator'
      const message =
        error instanceof Violation
          ? error.message
          : error instanceof Error
            ? (error.stack ?? '')
            : String(error)
      trace.add('', `VIOLATION of ${invariant}: ${message}`)
      failure = { invariant, message, step: this.#step }
    }
    for (const agent of this.#agents) agent.die()
    await time.advance(0)
    return {
      seed: this.#options.seed,
      steps: this.#options.steps,
      isSkewed: this.#options.older !== undefined,
      failure,
      digest: trace.digest(),
      trace: trace.lines,
      virtualMs: time.elapsedMs,
      commits: centre.database.commits,
      statements: hooks.statements,
    }
  }

  async #play(stage: Stage): Promise<void> {
    const faults = this.#chooseFaults()
    await this.#setUp(stage, faults)
    const locals = this.#someOf(localKinds, 3, 12)
    // Drawn more often than others: most of the time there is nothing to decide.
    if (faults.decisions) locals.push(...decisionKinds, ...decisionKinds)
    const centrals = this.#someOf(
      centralKinds.filter((kind) => faults.suspensions || kind !== 'suspend'),
      1,
      6,
    )
    if (faults.giving) centrals.push(...givingKinds, ...givingKinds)
    if (faults.skew) centrals.push(...newerCentralKinds)
    stage.world.network.weather = faults.weather
    for (; this.#step < this.#options.steps; this.#step++) {
      await this.#takeStep(stage, faults, locals, centrals)
      this.#check(stage)
    }
    await this.#heal(stage, faults)
    await checkEnd(this.#agents, stage.model, stage.time, stage.centreCheck.lost)
    stage.centreCheck.atEnd()
  }

  #chooseFaults(): Faults {
    const random = this.#random
    const some = (max: number): number => (random.chance(0.5) ? random.float() * max : 0)
    const weather = random.chance(0.25)
      ? calm
      : {
          loseRequest: some(0.2),
          loseReply: some(0.3),
          duplicate: some(0.3),
          refuse: some(0.2),
          overload: some(0.1),
          slow: some(0.3),
        }
    return {
      weather,
      links: random.chance(0.4),
      crashes: random.chance(0.5),
      powerCuts: random.chance(0.25),
      clones: random.chance(0.12),
      centreCrashes: random.chance(0.3),
      clocks: random.chance(0.5),
      suspensions: random.chance(0.15),
      decisions: random.chance(0.5),
      giving: random.chance(0.4),
      retention: random.chance(0.4),
      restores: this.#chooseRestores(),
      skew: this.#options.older !== undefined,
    }
  }

  #chooseRestores(): Restores | undefined {
    const random = this.#restoreRandom
    if (!random.chance(0.3)) return undefined
    const decision = random.weighted<HealDecision>([
      [8, 'all'],
      [1, 'after'],
      [1, 'none'],
    ])
    const windowMs = random.chance(0.7) ? WINDOW_MS : random.between(5000, 180_000)
    return { decision, windowMs }
  }

  #someOf(kinds: readonly string[], least: number, most: number): string[] {
    const left = [...kinds]
    const count = Math.min(left.length, this.#random.between(least, most))
    return Array.from(
      { length: count },
      () => left.splice(this.#random.below(left.length), 1)[0] ?? '',
    )
  }

  async #setUp({ world, time, centre, model }: Stage, faults: Faults): Promise<void> {
    const random = this.#random
    const roles = ['developer', 'viewer', 'operator', 'admin'] as const
    const statements: Statement[] = []
    const least = faults.giving ? 2 : 1
    for (let i = 0; i < Math.max(least, random.between(1, 3)); i++) {
      const id = newId()
      this.#users.push(id)
      const role = i === 0 ? 'developer' : (random.pick(roles) ?? 'viewer')
      const row = { id, email: `u${i}@example.org`, username: `user-${i}`, role, status: 'active' }
      statements.push({ op: 'insert', table: 'users', row })
    }
    if (random.chance(0.7)) statements.push(...firstRows(this.#users, random))
    await this.#settle(time, centre.execute(statements, false))
    this.#firstCommits = model.commits
    for (let i = 0; i < random.between(2, 4); i++) {
      const userId = this.#users[i % this.#users.length] ?? ''
      const agentName = `a${++this.#made}`
      const path = join(this.#folder, `${agentName}.db`)
      const build = this.#firstBuild()
      copyFileSync(template(build), path)
      const skewMs = faults.clocks ? random.between(-3_600_000, 3_600_000) : 0
      const agent = new SimAgent(world, {
        name: agentName,
        family: agentName,
        userId,
        path,
        skewMs,
        build,
      })
      this.#agents.push(agent)
      if (faults.skew) world.trace.add(agentName, `is of version ${build.version}`)
      await agent.start()
    }
    // Some begin before they have ever met the centre.
    if (random.chance(0.7)) await time.advance(2000)
  }

  /** What the centre does takes virtual time; nothing else is meant to wait for it. */
  async #settle(time: VirtualTime, work: Promise<void>): Promise<void> {
    let isDone = false
    let failed: unknown
    work.then(
      () => (isDone = true),
      (error: unknown) => {
        isDone = true
        failed = error
      },
    )
    await time.advanceUntil(() => isDone, 60_000)
    if (failed !== undefined) throw failed as Error
  }

  async #takeStep(
    stage: Stage,
    faults: Faults,
    locals: readonly string[],
    centrals: readonly string[],
  ): Promise<void> {
    const random = this.#random
    const { time } = stage
    const when = (isOn: boolean, weight: number): number => (isOn ? weight : 0)
    const kind = random.weighted([
      [40, 'write'],
      [8, 'write several'],
      [3, 'write nested'],
      [16, 'central'],
      [22, 'wait a little'],
      [8, 'wait'],
      [2, 'wait long'],
      [when(faults.links, 5), 'link'],
      [when(faults.crashes, 3), 'die'],
      [when(faults.crashes, 5), 'die in a statement'],
      [when(faults.powerCuts, 3), 'cut power'],
      [when(faults.clones, 1), 'clone'],
      [when(faults.centreCrashes, 2), 'crash the centre'],
      [when(faults.clocks, 3), 'turn a clock'],
      [when(faults.retention, 6), 'prune'],
      [when(faults.restores !== undefined, 2), 'put the centre back'],
      [when(faults.restores !== undefined, 3), 'decide'],
      [6, 'start'],
      [3, 'sync now'],
      [1, 'impostor'],
      [when(faults.skew, 3), 'upgrade'],
      [when(faults.skew, 2), 'upgrade the centre'],
    ])
    const agent = random.pick(this.#agents)
    if (agent === undefined) return
    const ms = { 'wait a little': 60, wait: 3000, 'wait long': 90_000 }[kind]
    if (ms !== undefined) await time.advance(random.below(ms))
    else if (kind.startsWith('write')) this.#write(agent, kind, locals)
    else if (kind === 'central') await this.#central(stage, random.pick(centrals) ?? '')
    else if (kind === 'put the centre back') this.#putBack(stage)
    else if (kind === 'decide') await this.#decide(stage, faults)
    else await this.#disturb(stage, kind, agent)
    await time.advance(0)
    for (const each of this.#agents) if (each.hasDied) each.die()
    if (faults.powerCuts && agent.isAlive && random.chance(0.3)) agent.rememberForCut()
  }

  /** The centre is restored to a moment that is a little or a lot earlier. */
  #putBack({ centre, model, centreCheck }: Stage): void {
    const random = this.#restoreRandom
    const most = model.commits - this.#firstCommits
    if (most < 1 || model.pasts.length >= RESTORES_MAX) return
    const back = random.between(1, random.chance(0.5) ? Math.min(most, 12) : most)
    centre.goBack(model.commits - back)
    centreCheck.goBack(model.commits)
  }

  /** The operator of the centre looks whether a fork of its history waits for a word. */
  async #decide({ time, centre, model, world }: Stage, { restores }: Faults): Promise<void> {
    if (restores === undefined) return
    const { decision, windowMs } = restores
    const after = decision === 'after' ? model.clock() - 5_000_000 : null
    let count = 0
    const decided = centre.decide(decision, after, windowMs).then((n) => void (count = n))
    await this.#settle(time, decided)
    if (count > 0) world.trace.add('centre', `${count} forks: heal ${decision}`)
  }

  #write(agent: SimAgent, kind: string, locals: readonly string[]): void {
    if (!agent.isAlive) return
    const random = this.#random
    const isNewer = this.#options.older !== undefined && agent.build === ownBuild
    const draw = (): string => {
      const kinds = isNewer && this.#skewRandom.chance(0.4) ? newerLocalKinds : locals
      return random.pick(kinds) ?? 'audit'
    }
    const { connection } = agent
    const take = (what: string, db: AgentDB, decided: Decided[]): void => {
      const step = localSteps[what] ?? newerLocalSteps[what]
      step?.(db, random, connection)
      const decision = decisionSteps[what]?.(db, random, connection)
      if (decision !== undefined) decided.push(decision)
    }
    if (kind === 'write') {
      const what = draw()
      agent.write(what, (db, decided) => db.transaction(() => take(what, db, decided)))
    } else if (kind === 'write several') {
      const all = Array.from({ length: random.between(2, 4) }, draw)
      agent.write(all.join(' + '), (db, decided) =>
        db.transaction(() => {
          for (const what of all) take(what, db, decided)
        }),
      )
    } else {
      const [outer, inner] = [draw(), draw()]
      agent.write(`${outer} + (${inner}, undone)`, (db, decided) =>
        db.transaction(() => {
          take(outer, db, decided)
          try {
            db.transaction(() => {
              take(inner, db, [])
              throw new UndoneSignal()
            })
          } catch (error) {
            if (!(error instanceof UndoneSignal)) throw error
          }
        }),
      )
    }
  }

  /** An operator's transaction; it runs beside all others and may be refused. */
  async #central({ centre, model, world }: Stage, kind: string): Promise<void> {
    const random = this.#random
    // Not before the centre knows of it.
    if (Object.hasOwn(newerCentralSteps, kind) && model.schema < ownBuild.version) return
    const make = centralSteps[kind] ?? givingSteps[kind] ?? newerCentralSteps[kind]
    const statements = (await make?.(centre, this.#users, random)) ?? []
    if (statements.length === 0) return
    const rollBack = random.chance(0.1)
    world.trace.add('centre', `${kind}${rollBack ? ', rolled back' : ''}`)
    centre
      .execute(statements, rollBack)
      .catch((error: unknown) => world.trace.add('centre', `${kind} refused: ${String(error)}`))
  }

  async #disturb({ world, centre, time }: Stage, kind: string, agent: SimAgent): Promise<void> {
    const random = this.#random
    const { trace, network, hooks } = world
    switch (kind) {
      case 'link': {
        const state = random.pick(['up', 'up', 'refused', 'half-open'] as const) ?? 'up'
        trace.add(agent.name, `link ${state}`)
        return network.setLink(agent.name, state)
      }
      case 'die':
        return agent.die()
      case 'die in a statement':
        if (!agent.isAlive) return
        hooks.planCrash(agent.path, random.between(1, 60), random.chance(0.5))
        await time.advance(random.below(4000))
        hooks.cancelCrash()
        return
      case 'cut power':
        if (!agent.isAlive || !agent.cutPower()) return
        await time.advance(0)
        await agent.start()
        agent.forgetLost()
        this.#seen.delete(agent)
        return
      case 'clone':
        if (!agent.isAlive || this.#agents.length > 5) return
        return this.#clone(agent, trace)
      case 'crash the centre':
        trace.add('centre', 'crashes')
        return centre.crash()
      case 'prune': {
        const keptMs = random.longTailed(1000, 60_000)
        trace.add('centre', `keeps the log of ${keptMs.toFixed(0)} ms`)
        centre.prune(keptMs).catch(() => undefined)
        return
      }
      case 'turn a clock':
        agent.skewMs += random.between(-600_000, 600_000)
        trace.add(agent.name, `clock ${agent.skewMs}`)
        return
      case 'sync now':
        if (agent.isAlive) agent.syncNow()
        return
      case 'impostor':
        return this.#pose(world, centre, agent)
      case 'upgrade the centre':
        return this.#upgradeCentre(world, time, centre)
      case 'upgrade':
        return this.#upgrade(world, time, agent)
      default:
        if (!agent.isAlive) await this.#start(agent, trace)
    }
  }

  /** Another user pushes under the id of somebody's store. */
  #pose({ trace }: AgentWorld, centre: SimCentre, agent: SimAgent): void {
    const other = this.#users.find((user) => user !== agent.userId)
    const stands = agent.isAlive
      ? agent.connection.get<{ clientId: string; seq: number; id: string | null }>(
          'SELECT client_id AS clientId, acked_seq AS seq, acked_id AS id FROM sync_state',
        )
      : undefined
    // Only a store that the centre has met is bound to someone.
    if (other === undefined || stands === undefined || stands.seq === 0) return
    const { clientId, seq, id } = stands
    const [conversation, transaction] = [newId(), newId().replaceAll('-', '')]
    const request: PushRequest = {
      clientId,
      schema: SCHEMA_VERSION,
      previous:
        id === null
          ? null
          : {
              seq,
              id,
            },
      shapes: [
        {
          table: 3,
          columns: ['id', 'user_id', 'title', 'started_at', 'created_at'],
        },
      ],
      transactions: [
        {
          seq: seq + 1,
          id: transaction,
          clock: 1,
          base: { nonce: null, position: 0 },
          mutations: [[0, 'insert', conversation, [conversation, other, 'x', AT, AT]]],
        },
      ],
    }
    trace.add('', `${other.slice(-4)} poses as ${agent.name}`)
    const bytes = encodeMessage(pushRequestSchema, request, MSGPACK)
    centre
      .push({ userId: other, agentId: agent.family }, bytes, new AbortController().signal)
      .catch((error: unknown) => trace.add('', `is refused: ${String(error)}`))
  }

  /** Of the version before, mostly, where two meet. */
  #firstBuild(): SimBuild {
    const { older } = this.#options
    return older !== undefined && this.#skewRandom.chance(0.75) ? older : ownBuild
  }

  /** In half of the runs with two versions the centre begins with the older one. */
  #firstCentre(): SimBuild {
    const { older } = this.#options
    return older !== undefined && this.#skewRandom.chance(0.5) ? older : ownBuild
  }

  async #upgradeCentre({ trace }: AgentWorld, time: VirtualTime, centre: SimCentre): Promise<void> {
    if (centre.isUpgraded) return
    trace.add('centre', 'is upgraded')
    await this.#settle(time, centre.upgrade())
  }

  async #start(agent: SimAgent, trace: Trace): Promise<void> {
    if (agent.build !== ownBuild && this.#skewRandom.chance(0.3)) this.#install(agent, trace)
    trace.add(agent.name, 'starts')
    await agent.start()
  }

  /** From here on its program is of the newer version: the next start upgrades the store. */
  #install(agent: SimAgent, trace: Trace): void {
    agent.build = ownBuild
    trace.add(agent.name, `gets version ${ownBuild.version}`)
  }

  /** An agent is replaced by one of the newer version, which may die while it upgrades the store. */
  async #upgrade({ hooks, trace }: AgentWorld, time: VirtualTime, agent: SimAgent): Promise<void> {
    if (agent.build === ownBuild) return
    agent.die()
    await time.advance(0)
    this.#install(agent, trace)
    const random = this.#skewRandom
    const mayDie = random.chance(0.4)
    if (mayDie) hooks.planCrash(agent.path, random.between(1, 60), random.chance(0.5))
    try {
      await agent.start()
    } catch (error) {
      if (!mayDie || hooks.cancelCrash()) throw error
      hooks.endProcess(agent.path)
      trace.add(agent.name, 'dies while it is upgraded')
    }
    // It may die as well while it reads again what it could not get.
    await time.advance(random.below(3000))
    hooks.cancelCrash()
    if (agent.hasDied) agent.die()
  }

  async #clone(agent: SimAgent, trace: Trace): Promise<void> {
    const cloneName = `a${++this.#made}`
    trace.add(agent.name, `is copied as ${cloneName}`)
    const path = join(this.#folder, `${cloneName}.db`)
    const twin = agent.clone(cloneName, path, agent.skewMs)
    this.#agents.push(twin)
    await twin.start()
  }

  #check({ model, centreCheck, stray }: Stage): void {
    stray.mustBeNone()
    centreCheck.mustBeWell()
    for (const agent of this.#agents) {
      if (!agent.isAlive) continue
      const seen = this.#seen.get(agent) ?? { nonce: null, position: 0, changes: -1 }
      this.#seen.set(agent, seen)
      if (agent.failures.length === 0 && seen.changes === agent.changes) continue
      seen.changes = agent.changes
      this.#mayFork(agent, model)
      checkAgent(agent, model, seen)
    }
  }

  /** Only a file that was copied may be taken for another one. */
  #mayFork(agent: SimAgent, model: ModelDatabase): void {
    if (!agent.isForked && !agent.hasForked) return
    // After it went back the centre does not know all numbers any more.
    if (model.pasts.length > 0) return
    const family = this.#agents.filter((each) => each.family === agent.family)
    must(family.length > 1, 'fork', () => `${agent.name} was never copied, and is told that it was`)
  }

  async #heal(stage: Stage, faults: Faults): Promise<void> {
    const { world, time, centre } = stage
    world.trace.add('', 'all is healed')
    world.hooks.cancelCrash()
    world.network.heal()
    // What was under way at the centre ends first.
    await time.advance(5000)
    const back = this.#users.map((id): Statement => ({
      op: 'update',
      table: 'users',
      id,
      values: {
        status: 'active',
        deleted_at: null,
      },
    }))
    await this.#settle(time, centre.execute(back, false))
    while (!centre.isUpgraded) await this.#upgradeCentre(world, time, centre)
    for (const agent of this.#agents) if (!agent.isAlive) await this.#start(agent, world.trace)
    // The rest stays as it is: at the end, too, both versions are there.
    for (const agent of this.#agents)
      if (agent.build !== ownBuild && this.#skewRandom.chance(0.5))
        await this.#upgrade(world, time, agent)
    for (const agent of this.#agents) if (!agent.isAlive) await this.#start(agent, world.trace)
    await this.#rest(stage, faults)
    if (this.#agents.every((agent) => agent.isForked || agent.status?.parked === 0)) return
    // What still waits then waits for rows whose author is no agent.
    world.trace.add('centre', 'the window ends')
    await this.#settle(time, centre.endWindow())
    await this.#rest(stage, faults)
    for (const { name, status } of this.#agents)
      must(status?.parked === 0, 'I13', () => `${name} has parked transactions after the window`)
  }

  /** Until all agents are at the head, and what is left in their queues waits for what is not there. */
  async #rest(stage: Stage, faults: Faults): Promise<void> {
    const { time, model } = stage
    const isQuiet = (): boolean => this.#agents.every((agent) => this.#isDone(agent, model))
    for (let left = HEAL_MS_MAX; left > 0; left -= 5000) {
      const done = await time.advanceUntil(isQuiet, 5000)
      await this.#decide(stage, faults)
      this.#check(stage)
      if (done && isQuiet()) return
    }
    const waiting = this.#agents.filter((agent) => !this.#isDone(agent, model))
    throw new Violation(
      'I13',
      `not at rest ${HEAL_MS_MAX / 60_000} minutes after all was healed: ${waiting.map(({ name, status }) => `${name} ${JSON.stringify(status)}`).join(', ')}`,
    )
  }

  #isDone(agent: SimAgent, model: ModelDatabase): boolean {
    if (agent.isForked) return true
    const head = model.batches.at(-1)
    // Asked after every timer: what costs nothing first.
    if (head === undefined || head.snapshot.logged !== model.logged) return false
    const { status } = agent
    return (
      status !== undefined &&
      status.pending === status.parked &&
      status.position === head.position &&
      (model.pasts.length === 0 || agent.nonce === head.nonce) &&
      (status.parked === 0 || (model.window() === 'open' && waitsForNothing(agent, model)))
    )
  }
}

/** Whether what is parked needs rows that are not at the centre; what is there it would find at the next attempt. */
function waitsForNothing({ connection }: SimAgent, model: ModelDatabase): boolean {
  const needed = new Map<number, string[]>()
  for (const { seq, tbl, id, patch } of connection.all<{
    seq: number
    tbl: number
    id: string
    patch: string | null
  }>(
    'SELECT t.seq, l.tbl, l.id, l.patch FROM sync_tx t JOIN sync_log l ON l.tx = t.seq WHERE l.pushed = 1 ORDER BY l.n',
  )) {
    const table = tableOfNumber(tbl)
    if (table === undefined) continue
    const values = patch === null ? {} : decodeImage(table, patch)
    const parents = references(table).flatMap(({ column, target }) => {
      const parent = values[column]
      return typeof parent === 'string' ? [rowKey(mustTable(target).number, parent)] : []
    })
    needed.set(seq, [...(needed.get(seq) ?? []), rowKey(tbl, id), ...parents])
  }
  return [...needed.values()].every((keys) =>
    keys.some((key) => model.meta.read(key) === undefined),
  )
}

/** Rejections that nobody handles: of a process that died they mean nothing, any other is a mistake. */
class StrayErrors implements Disposable {
  readonly #found: unknown[] = []
  readonly #listener = (error: unknown): void => {
    if (!(error instanceof CrashSignal)) this.#found.push(error)
  }

  constructor() {
    process.on('unhandledRejection', this.#listener)
  }

  mustBeNone(): void {
    const [first] = this.#found
    if (first === undefined) return
    const text = first instanceof Error ? (first.stack ?? first.message) : JSON.stringify(first)
    throw new Violation('engine', `a rejection that nobody handles: ${text}`)
  }

  [Symbol.dispose](): void {
    process.off('unhandledRejection', this.#listener)
  }
}

interface Stage {
  readonly stray: StrayErrors
  readonly world: AgentWorld
  readonly time: VirtualTime
  readonly centre: SimCentre
  readonly model: ModelDatabase
  readonly centreCheck: CentreCheck
}

const AT = '2026-01-05T09:00:00.000000Z'

class UndoneSignal extends Error {}
