import { statSync } from 'node:fs'
import { join } from 'node:path'
import { newId } from '../../schema/values/id.ts'
import type { Conflict } from '../../src/index.ts'
import type { Outcome, OutcomeKind } from '../../sync/index.ts'
import type { AgentHandlers, Committed, CommittedRow } from './agent-process.ts'
import type { Narrator } from './narrator.ts'
import { Child } from './rpc.ts'
import type { ServerHandlers, Start } from './server-process.ts'

export interface StoryOptions {
  readonly folder: string
  /** Default: PGlite in the folder. */
  readonly databaseUrl: string | undefined
  readonly narrator: Narrator
}

/** What the demo found, for machines. */
export interface Summary {
  database: string
  corpus: { documentation: number; code: number }
  serverKill: { signal: string | null; committed: number; queued: number }
  agentKill: { signal: string | null; rowsWritten: number; rowsKept: number }
  outcomes: Record<string, Partial<Record<OutcomeKind, number>>>
  conflicts: { agent: string; state: string; table: string; mine: unknown; theirs: unknown }[]
  incident: { title: unknown; severity: unknown; status: unknown; root_cause: unknown }
  workflowVersions: number[]
  checksums: { equal: boolean; tables: number; rows: number; position: number }
  search: { found: string; score: number }
  directSqlMs: number
  rows: {
    acknowledged: number
    atCentre: number
    refusedAndKept: number
    lost: number
    twice: number
  }
}

export const STEPS = 8

const DOCUMENTATION_CHUNKS = 1100
const CODE_CHUNKS = 400
/** Of A's pushes, this one is under way when the server dies: those before have been committed. */
const FATAL_PUSH = 2
const FATAL_PUSH_MS = 30
/** The agent dies inside the transaction that applies its batch, after so many of the other's embeddings. */
const FATAL_ROW = 400

const WORKFLOW = 'Roll back checkout'
const TITLE = 'Checkout answers 500'
const A_TITLE = 'Checkout answers 500: payment client times out'
const B_TITLE = 'Checkout down in eu-west since 14:02'
const CAUSE = 'The payment client lost its retry in release 412.'
const MESSAGE = 'Roll the checkout service back to release 411 before the evening peak.'
const QUESTION = 'which release do we roll the checkout back to?'
/** Said around it, so that finding it is not luck. */
const OTHER_MESSAGES = [
  'Who is on call for payments this week?',
  'The dashboard of checkout shows 12 % errors since 14:02.',
  'Release 412 went out at 13:58, with the new payment client.',
  'Customer support has forty tickets open about it.',
  'Please keep the incident channel free of chatter.',
]
const GUIDE_QUESTION = 'how do I close the server gracefully'
const NOTES = 'Rolled back to 411; written by SQL at the centre.'

/** An agent: its process, and what the demo knows of it from outside. */
class Agent {
  readonly name: string
  readonly storePath: string
  /** Rows whose local commit was acknowledged; none of them may ever be lost. */
  readonly committed: CommittedRow[] = []
  readonly outcomes = new Map<string, Outcome>()
  mutations = 0
  doubledOutcomes = 0
  process: Child<AgentHandlers>
  token = ''

  private constructor(name: string, storePath: string, process: Child<AgentHandlers>) {
    this.name = name
    this.storePath = storePath
    this.process = process
    this.#listen()
  }

  static async start(name: string, folder: string, userId: string): Promise<Agent> {
    const path = join(folder, `agent-${name}.db`)
    const agent = new Agent(name, path, await startAgent(name))
    await agent.process.call('open', path, userId, name)
    return agent
  }

  /** A new process on the same store. */
  async restart(userId: string): Promise<void> {
    this.process = await startAgent(this.name)
    this.#listen()
    await this.process.call('open', this.storePath, userId, this.name)
  }

  connect(url: string): Promise<void> {
    return this.process.call('connect', url, this.token)
  }

  counts(): Partial<Record<OutcomeKind, number>> {
    const counts: Partial<Record<OutcomeKind, number>> = {}
    for (const { kind } of this.outcomes.values()) counts[kind] = (counts[kind] ?? 0) + 1
    return counts
  }

  #listen(): void {
    this.process.on<Committed>('committed', ({ rows, mutations }) => {
      this.committed.push(...rows)
      this.mutations += mutations
    })
    this.process.on<Outcome>('outcome', (outcome) => {
      const key = `${outcome.transactionId}.${outcome.n}`
      if (this.outcomes.has(key)) this.doubledOutcomes += 1
      this.outcomes.set(key, outcome)
    })
  }
}

const startAgent = (name: string): Promise<Child<AgentHandlers>> =>
  Child.start<AgentHandlers>(`agent ${name}`, './agent-process.ts')

const startServer = (): Promise<Child<ServerHandlers>> =>
  Child.start<ServerHandlers>('the server', './server-process.ts')

type Centre = Awaited<ReturnType<ServerHandlers['start']>>

async function startCentre(
  { databaseUrl, folder }: StoryOptions,
  port: number,
): Promise<{ server: Child<ServerHandlers>; centre: Centre }> {
  const server = await startServer()
  const place: Start =
    databaseUrl === undefined ? { port, dataFolder: join(folder, 'centre') } : { port, databaseUrl }
  return { server, centre: await server.call('start', place) }
}

async function startAgents(
  narrator: Narrator,
  folder: string,
  userId: string,
): Promise<{ a: Agent; b: Agent; work: FirstWork }> {
  const [a, b] = await Promise.all([
    Agent.start('A', folder, userId),
    Agent.start('B', folder, userId),
  ])
  for (const agent of [a, b])
    narrator.figure(`agent ${agent.name}`, `process ${agent.process.pid}, ${agent.storePath}`)
  const work = {
    incidentId: await a.process.call('openIncident', TITLE, 'high'),
    noiseId: await a.process.call('openIncident', 'Duplicate alert', 'low'),
    conversationId: await a.process.call('startConversation', 'Checkout outage'),
  }
  narrator.say('A opens two incidents and a conversation; it has never met a centre')
  return { a, b, work }
}

/** The main job, from the first offline write to equal checksums. Each step tells, then checks. */
export async function tellStory(options: StoryOptions): Promise<Summary> {
  const story = await Story.begin(options)
  await story.workOffline()
  const serverKill = await story.killServerInPush()
  const agentKill = await story.killAgentInPull()
  await story.reconcile()
  const conflicts = await story.showConflicts()
  const live = await story.shareLive()
  const proof = await story.prove()
  await story.end()
  return { ...story.about(), serverKill, agentKill, ...conflicts, ...live, ...proof }
}

/** What A writes before it has ever met a centre. */
interface FirstWork {
  readonly incidentId: string
  readonly noiseId: string
  readonly conversationId: string
}

interface Cast {
  readonly userId: string
  readonly server: Child<ServerHandlers>
  readonly a: Agent
  readonly b: Agent
  readonly work: FirstWork
}

class Story {
  readonly #options: StoryOptions
  readonly #narrator: Narrator
  readonly #userId: string
  readonly #a: Agent
  readonly #b: Agent
  readonly #work: FirstWork
  #server: Child<ServerHandlers>
  #url = ''
  #database = ''
  #corpus = { documentation: 0, code: 0 }

  private constructor(options: StoryOptions, { userId, server, a, b, work }: Cast) {
    this.#options = options
    this.#narrator = options.narrator
    this.#userId = userId
    this.#server = server
    this.#a = a
    this.#b = b
    this.#work = work
  }

  /** Two stores that work before they have met any centre; then first contact. */
  static async begin(options: StoryOptions): Promise<Story> {
    const { narrator, folder } = options
    narrator.step('Two agents of one user, and a centre')
    const userId = newId()
    const [{ server, centre }, { a, b, work }] = await Promise.all([
      startCentre(options, 0),
      startAgents(narrator, folder, userId),
    ])
    const story = new Story(options, { userId, server, a, b, work })
    story.#present(centre)
    await story.#meet()
    return story
  }

  async #meet(): Promise<void> {
    const user = { email: 'ada@example.com', username: 'ada', id: this.#userId }
    await this.#server.call('addUser', user)
    for (const agent of [this.#a, this.#b]) {
      const claims = { userId: this.#userId, agentId: agent.name }
      agent.token = await this.#server.call('token', claims)
      await agent.connect(this.#url)
    }
    await this.#a.process.call('now')
    await this.#b.process.call('seen', this.#work.incidentId, { title: TITLE })
    const [onA, onB] = await this.#incidents()
    this.#narrator.check(
      'what A wrote before it ever met the centre is on B',
      onA?.['title'] === TITLE && onB?.['title'] === TITLE && onA['id'] === onB['id'],
      { onA, onB },
    )
  }

  #present({ url, database, version }: Centre): void {
    this.#url = url
    this.#database = `${database === 'pglite' ? 'PGlite' : 'PostgreSQL'} ${version}`
    this.#narrator.figure('centre', `process ${this.#server.pid}, ${this.#database}, ${url}`)
  }

  /** The incident on A, on B and at the centre. */
  async #incidents(): Promise<(Readonly<Record<string, unknown>> | undefined)[]> {
    const id = this.#work.incidentId
    return [
      await this.#a.process.call('incident', id),
      await this.#b.process.call('incident', id),
      await this.#server.call('incident', id),
    ]
  }

  /** Both index real texts, and get in each other's way. */
  async workOffline(): Promise<void> {
    const narrator = this.#narrator
    narrator.step('The network goes; both work on')
    const { process: a } = this.#a
    const { process: b } = this.#b
    await Promise.all([a.call('disconnect'), b.call('disconnect')])
    await this.#index()
    // Who writes a column last wins it: B's severity is the earlier one, B's title the later one.
    await b.call('editIncident', this.#work.incidentId, { severity: 'medium' })
    await a.call('editIncident', this.#work.incidentId, { severity: 'critical', root_cause: CAUSE })
    await a.call('editIncident', this.#work.incidentId, { title: A_TITLE })
    await b.call('editIncident', this.#work.incidentId, { title: B_TITLE, status: 'acknowledged' })
    narrator.say('A edits the incident: severity, root cause, title')
    narrator.say('B edits the same incident: severity, title, status')
    await a.call('saveWorkflow', WORKFLOW, ['drain', 'roll back'])
    await b.call('saveWorkflow', WORKFLOW, ['freeze deploys', 'roll back', 'verify'])
    narrator.say(`each saves a workflow named "${WORKFLOW}"`)
    await b.call('closeAsNoise', this.#work.noiseId, this.#work.conversationId)
    narrator.say('B, in one transaction, deletes an incident (which it may not) and says so')
  }

  async #index(): Promise<void> {
    const total = DOCUMENTATION_CHUNKS + CODE_CHUNKS
    const done = { a: 0, b: 0 }
    const show = (): void => this.#narrator.progress('indexing', done.a + done.b, total)
    const stop = [
      this.#a.process.on<{ done: number }>('progress', (event) => {
        done.a = event.done
        show()
      }),
      this.#b.process.on<{ done: number }>('progress', (event) => {
        done.b = event.done
        show()
      }),
    ]
    const [documentation, code] = await Promise.all([
      this.#a.process.call('index', 'documentation', DOCUMENTATION_CHUNKS),
      this.#b.process.call('index', 'code', CODE_CHUNKS),
    ])
    for (const each of stop) each()
    this.#corpus = { documentation: documentation.chunks, code: code.chunks }
    this.#narrator.figure('A indexes guides', indexed(documentation))
    this.#narrator.figure('B indexes sources', indexed(code))
  }

  /** A's queue needs several requests; the server dies while the second one is in its hands. */
  async killServerInPush(): Promise<Summary['serverKill']> {
    const narrator = this.#narrator
    narrator.step('A is back; the server is killed with -9 in the middle of its push')
    const { process: a } = this.#a
    const { clientId, transactions: queued } = await a.call('identity')
    const before = await this.#server.call('watermark', clientId)
    await this.#server.call('announcePushes')
    const server = this.#server
    server.on<number>('push', (n) => {
      narrator.say(`push request ${n} arrives${n === FATAL_PUSH ? ': kill -9' : ''}`)
      if (n === FATAL_PUSH) setTimeout(() => server.kill('SIGKILL'), FATAL_PUSH_MS)
    })
    await this.#a.connect(this.#url)
    const { signal } = await server.exited
    narrator.check('the server died of SIGKILL', signal === 'SIGKILL', signal)
    const port = Number(new URL(this.#url).port)
    const again = await startCentre(this.#options, port)
    this.#server = again.server
    this.#present(again.centre)
    const { seq } = await this.#server.call('watermark', clientId)
    narrator.figure('committed by then', `${seq} of ${queued} transactions of A`)
    narrator.check(
      'it died in the middle: some of the queue was committed, some was not',
      seq > before.seq && seq < queued,
      { before: before.seq, seq, queued },
    )
    await a.call('drained')
    const after = await this.#server.call('watermark', clientId)
    narrator.check(
      'A went on by itself, and each of its transactions took effect exactly once',
      after.seq === queued && after.applied === queued && after.distinct === queued,
      after,
    )
    return { signal, committed: seq, queued }
  }

  /** B gets A's work in one batch, and dies inside the transaction that writes it. */
  async killAgentInPull(): Promise<Summary['agentKill']> {
    const narrator = this.#narrator
    narrator.step('B is back; it is killed with -9 in the middle of its pull')
    const own = this.#b.committed.map(({ id }) => id)
    const before = await this.#b.process.call('identity')
    await this.#b.process.call('dieWhileApplying', FATAL_ROW)
    await this.#b.connect(this.#url)
    const { signal } = await this.#b.process.exited
    narrator.check('B died of SIGKILL', signal === 'SIGKILL', signal)
    narrator.figure('written by then', `${FATAL_ROW} rows of the batch, in an open transaction`)
    narrator.figure('left on disk', `${megabytes(this.#b.storePath)} MB of store`)
    await this.#b.restart(this.#userId)
    const after = await this.#b.process.call('identity')
    const here = await this.#b.process.call('idsOf', 'embeddings')
    const ofA = new Set(this.#a.committed.map(({ id }) => id))
    const kept = here.filter((id) => ofA.has(id)).length
    narrator.check(
      'nothing of the half-written batch is left, and B stands where it stood',
      kept === 0 && after.position === before.position,
      { kept, before: before.position, after: after.position },
    )
    const whole = new Set(await this.#idsOnB())
    narrator.check(
      `all ${own.length} rows that B had written itself are still there; the file is sound`,
      own.every((id) => whole.has(id)) && (await this.#b.process.call('integrity')) === 'ok',
    )
    return { signal, rowsWritten: FATAL_ROW, rowsKept: kept }
  }

  async #idsOnB(): Promise<string[]> {
    const ids: string[] = []
    for (const table of new Set(this.#b.committed.map((row) => row.table)))
      ids.push(...(await this.#b.process.call('idsOf', table)))
    return ids
  }

  async reconcile(): Promise<void> {
    const narrator = this.#narrator
    narrator.step('They reconcile')
    await this.#b.connect(this.#url)
    await this.#b.process.call('now')
    await this.#a.process.call('now')
    await this.#b.process.call('now')
    for (const agent of [this.#a, this.#b]) {
      const { clientId, transactions } = await agent.process.call('identity')
      const { applied, distinct } = await this.#server.call('watermark', clientId)
      const { pending } = await agent.process.call('status')
      const counts = Object.entries(agent.counts()).map(([kind, count]) => `${count} ${kind}`)
      narrator.figure(`outcomes of ${agent.name}`, counts.join(', '))
      narrator.check(
        `${agent.name}: all ${transactions} transactions acknowledged, exactly once`,
        pending === 0 && applied === transactions && distinct === transactions,
        { pending, applied, distinct, transactions },
      )
      narrator.check(
        `${agent.name}: each of its ${agent.mutations} writes has exactly one outcome`,
        agent.outcomes.size === agent.mutations && agent.doubledOutcomes === 0,
        { outcomes: agent.outcomes.size, doubled: agent.doubledOutcomes },
      )
    }
  }

  /** Every outcome that was not simply `applied`, and both sides of what was overwritten. */
  async showConflicts(): Promise<
    Pick<Summary, 'outcomes' | 'conflicts' | 'incident' | 'workflowVersions'>
  > {
    const narrator = this.#narrator
    narrator.step('What became of the edits that met')
    const conflicts: Summary['conflicts'] = []
    for (const agent of [this.#a, this.#b]) {
      const records = await agent.process.call('conflicts')
      for (const record of records.toReversed()) {
        conflicts.push({
          agent: agent.name,
          state: record.state,
          table: record.table,
          mine: record.mine,
          theirs: record.theirs,
        })
        const [what, sides] = describe(record)
        narrator.figure(`${agent.name} ${record.state}`, what)
        if (sides !== '') narrator.figure('', sides)
      }
    }
    this.#checkConflicts(conflicts)
    const incident = await this.#checkIncident()
    const workflowVersions = await this.#checkWorkflows()
    const outcomes = { A: this.#a.counts(), B: this.#b.counts() }
    return { outcomes, conflicts, incident, workflowVersions }
  }

  #checkConflicts(conflicts: Summary['conflicts']): void {
    const has = (agent: string, state: string, mine: string, theirs: string): boolean =>
      conflicts.some(
        (each) =>
          each.agent === agent &&
          each.state === state &&
          JSON.stringify(each.mine ?? null).includes(mine) &&
          JSON.stringify(each.theirs ?? null).includes(theirs),
      )
    const narrator = this.#narrator
    narrator.check(
      'the title of A that B overwrote is on record at A, with both sides',
      has('A', 'overwritten', A_TITLE, B_TITLE),
      conflicts,
    )
    narrator.check(
      'the severity of B that came too late is on record at B, with both sides',
      has('B', 'superseded', 'medium', 'critical'),
      conflicts,
    )
    narrator.check(
      'the transaction that B was not allowed is on record at B, whole, with its reason',
      has('B', 'rejected', '', '') && has('B', 'dependency_failed', 'duplicate alert', ''),
      conflicts,
    )
  }

  async #checkIncident(): Promise<Summary['incident']> {
    const expected = {
      title: B_TITLE,
      severity: 'critical',
      status: 'acknowledged',
      root_cause: CAUSE,
    }
    const rows = await this.#incidents()
    this.#narrator.check(
      'the incident has root cause and severity of A, title and status of B, on all three',
      rows.every((row) => Object.entries(expected).every(([name, value]) => row?.[name] === value)),
      rows,
    )
    return expected
  }

  async #checkWorkflows(): Promise<number[]> {
    const versions = async (agent: Agent): Promise<number[]> =>
      (await agent.process.call('workflows', WORKFLOW)).map(({ version }) => version)
    const [onA, onB] = [await versions(this.#a), await versions(this.#b)]
    this.#narrator.check(
      `both workflows named "${WORKFLOW}" live on, as versions 1 and 2`,
      onA.join() === '1,2' && onB.join() === '1,2',
      { onA, onB },
    )
    return onA
  }

  async shareLive(): Promise<Pick<Summary, 'search' | 'directSqlMs'>> {
    const narrator = this.#narrator
    narrator.step('Live: a message, and SQL at the centre')
    const { conversationId } = this.#work
    for (const each of OTHER_MESSAGES) await this.#a.process.call('say', conversationId, each)
    const messageId = await this.#a.process.call('say', conversationId, MESSAGE)
    await this.#a.process.call('now')
    await this.#b.process.call('now')
    const found = await this.#b.process.call('recall', QUESTION)
    narrator.figure('B asks', `"${QUESTION}"`)
    narrator.figure('B finds', `"${found?.content}" (${found?.score.toFixed(2)})`)
    narrator.check(
      'a message written on A is found by search on B',
      found?.messageId === messageId && found.content === MESSAGE,
      found,
    )
    const guide = await this.#b.process.call('consult', GUIDE_QUESTION)
    narrator.figure('B asks', `"${GUIDE_QUESTION}"`)
    narrator.figure('B finds, indexed by A', `"${guide?.title}" in ${guide?.url}`)
    const startedAt = performance.now()
    await this.#server.call('resolveBySql', this.#work.incidentId, NOTES)
    const expected = { resolution_notes: NOTES }
    await Promise.all(
      [this.#a, this.#b].map(({ process }) =>
        process.call('seen', this.#work.incidentId, expected),
      ),
    )
    const directSqlMs = Math.round(performance.now() - startedAt)
    narrator.figure(
      'direct SQL',
      `UPDATE incidents ... at the centre, on both in ${directSqlMs} ms`,
    )
    const incidents = await this.#incidents()
    narrator.check(
      'a direct SQL update at the centre reached both',
      incidents.every((row) => row?.['resolution_notes'] === NOTES),
      incidents,
    )
    return { search: { found: MESSAGE, score: found?.score ?? 0 }, directSqlMs }
  }

  async prove(): Promise<Pick<Summary, 'checksums' | 'rows'>> {
    this.#narrator.step('The proof')
    const checksums = await this.#compareChecksums()
    const rows = await this.#countRows()
    return { checksums, rows }
  }

  async #compareChecksums(): Promise<Summary['checksums']> {
    const a = await this.#a.process.call('checksums')
    const b = await this.#b.process.call('checksums')
    const names = Object.keys(a.central.tables)
    const differing = names.filter((name) => {
      const sums = [a.central, a.local, b.central, b.local].map((side) => side.tables[name]?.sha256)
      return new Set(sums).size !== 1
    })
    for (const name of names) {
      const { rows = 0, sha256 = '' } = a.central.tables[name] ?? {}
      if (rows > 0)
        this.#narrator.figure(name, `${String(rows).padStart(5)}  ${sha256.slice(0, 32)}`)
    }
    const rows = names.reduce((sum, name) => sum + (a.central.tables[name]?.rows ?? 0), 0)
    const { position } = a.central
    this.#narrator.check(
      `equal checksums on A, on B and at the centre: ${names.length} tables, ${rows} rows, position ${position}`,
      differing.length === 0,
      differing,
    )
    return { equal: true, tables: names.length, rows, position }
  }

  /** Every row that a local commit acknowledged is at the centre, or in the store's conflicts with the reason why not. */
  async #countRows(): Promise<Summary['rows']> {
    const narrator = this.#narrator
    const all = [this.#a, this.#b].flatMap(({ committed }) => committed)
    const atCentre = new Set<string>()
    for (const table of new Set(all.map((row) => row.table)))
      for (const id of await this.#server.call('idsOf', table)) atCentre.add(id)
    const refused = new Set(
      (await this.#b.process.call('conflicts'))
        .filter(({ state, op }) => op === 'insert' && state === 'dependency_failed')
        .map(({ rowId }) => rowId),
    )
    const found = all.filter(({ id }) => atCentre.has(id)).length
    const kept = all.filter(({ id }) => !atCentre.has(id) && refused.has(id)).length
    const lost = all.filter(({ id }) => !atCentre.has(id) && !refused.has(id))
    const pieces = await this.#server.call('pieces')
    const indexed = this.#corpus.documentation + this.#corpus.code
    const twice = pieces.rows - pieces.distinct
    narrator.figure('acknowledged locally', `${all.length} rows by A and B`)
    narrator.figure('at the centre', `${found}, and ${kept} refused and kept with its reason`)
    narrator.check('none is lost', lost.length === 0, lost.slice(0, 5))
    narrator.check(
      'none is there twice',
      twice === 0 &&
        pieces.rows === indexed &&
        new Set(all.map(({ id }) => id)).size === all.length,
      pieces,
    )
    return { acknowledged: all.length, atCentre: found, refusedAndKept: kept, lost: 0, twice }
  }

  about(): Pick<Summary, 'database' | 'corpus'> {
    return { database: this.#database, corpus: this.#corpus }
  }

  async end(): Promise<void> {
    await Promise.all([this.#a, this.#b].map(({ process }) => process.call('close')))
    await this.#server.call('close')
  }
}

const indexed = (part: { chunks: number; files: number; packages: number }): string =>
  `${part.chunks} pieces of ${part.files} files of ${part.packages} packages in node_modules`

function megabytes(path: string): string {
  const bytes = ['', '-wal'].reduce((sum, suffix) => sum + sizeOf(`${path}${suffix}`), 0)
  return (bytes / 1024 / 1024).toFixed(1)
}

const sizeOf = (path: string): number => statSync(path, { throwIfNoEntry: false })?.size ?? 0

/** What it was about, and both sides where there are two. */
function describe({ table, op, mine, theirs, reason, rowId }: Conflict): [string, string] {
  // Of a delete there is only the other side: the row as it stands.
  const names = mine === null ? [] : Object.keys(theirs ?? {})
  const about = names.length === 0 ? `${op} ${rowId.slice(0, 8)}...` : names.join(', ')
  const side = (values: Conflict['mine']): string =>
    names.map((name) => JSON.stringify(values?.[name] ?? null)).join(', ')
  const sides = names.length === 0 ? '' : `mine ${side(mine)}, theirs ${side(theirs)}`
  return [`${table}: ${about} (${reason ?? 'concurrent'})`, sides]
}
