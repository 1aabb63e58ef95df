import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import { newId } from '../../schema/values/id.ts'
import { serve } from '../../server/index.ts'
import { Child } from '../support/child.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { createDatabase } from '../support/databases.ts'
import { Checker, type AgentOptions, type Observation, type View } from './history.ts'

export const faults = ['none', 'partition', 'kill', 'pause', 'server'] as const
export type MatrixFault = (typeof faults)[number]

export interface CellOptions {
  readonly postgresUrl: string
  readonly agents: number
  /** Transactions a second, of all agents together. */
  readonly rate: number
  readonly fault: MatrixFault
  readonly seconds: number
  readonly random: () => number
}

export interface CellResult {
  readonly agents: number
  readonly rate: number
  readonly fault: MatrixFault
  readonly transactions: number
  /** Times that something was broken. */
  readonly faults: number
  /** Milliseconds from the end of the last fault until all queues were empty and all stood at the head. */
  readonly convergedMs: number
  readonly violations: readonly string[]
}

/** How long the fleet may take to converge once nothing is broken any more; only ever reached by a bug. */
const CONVERGE_MS_MAX = 120_000
const HOLD_MS = { min: 1000, max: 4000 }

interface Agent {
  readonly options: AgentOptions
  readonly proxy: FaultProxy
  child: Child
  /** Lines that the checker has had, of this life of the process. */
  read: number
}

/** One cell of the matrix: real processes, a real PostgreSQL, a proxy before the centre for every agent. */
export async function runCell(options: CellOptions): Promise<CellResult> {
  await using database = await createDatabase(options.postgresUrl, 'matrix')
  const folder = mkdtempSync(join(tmpdir(), 'agentdb-matrix-'))
  const cell = new Cell(options, database.url, folder)
  try {
    return await cell.run()
  } finally {
    await cell.end()
    rmSync(folder, { recursive: true, force: true })
  }
}

class Cell {
  readonly #options: CellOptions
  readonly #databaseUrl: string
  readonly #folder: string
  readonly #checker = new Checker()
  readonly #agents: Agent[] = []
  readonly #conversations = [newId(), newId()]
  #server: Child | undefined
  #port = 0
  #faults = 0

  constructor(options: CellOptions, databaseUrl: string, folder: string) {
    this.#options = options
    this.#databaseUrl = databaseUrl
    this.#folder = folder
  }

  async run(): Promise<CellResult> {
    const { agents, rate, fault, seconds } = this.#options
    await this.#start()
    const endAt = performance.now() + seconds * 1000
    while (performance.now() < endAt) {
      await sleep(500 + this.#options.random() * 1000)
      if (fault !== 'none') await this.#break()
      this.#read()
    }
    for (const { child } of this.#agents) child.send('stop')
    const healedAt = performance.now()
    await this.#converge()
    const convergedMs = performance.now() - healedAt
    await this.#finish()
    const { transactions, violations } = this.#checker
    return { agents, rate, fault, transactions, faults: this.#faults, convergedMs, violations }
  }

  async end(): Promise<void> {
    for (const { child, proxy } of this.#agents) {
      child.signal('SIGCONT')
      await child.kill()
      await proxy[Symbol.asyncDispose]()
    }
    await this.#server?.kill()
  }

  async #start(): Promise<void> {
    const { agents, rate } = this.#options
    const userId = newId()
    const tokens = await this.#prepare(userId)
    await this.#startServer()
    for (const [i, token] of tokens.entries()) {
      const proxy = await FaultProxy.start(`http://127.0.0.1:${this.#port}`)
      const name = `a${i + 1}`
      const options: AgentOptions = {
        name,
        userId,
        token,
        path: join(this.#folder, `${name}.db`),
        url: proxy.url,
        conversations: this.#conversations,
        meanMs: (1000 * agents) / rate,
      }
      this.#agents.push({ options, proxy, child: startAgent(options), read: 0 })
    }
    await Promise.all(this.#agents.map(({ child }) => child.line((line) => line.includes('wrote'))))
  }

  /** The user, the two conversations and a token for each agent. */
  async #prepare(userId: string): Promise<string[]> {
    await using server = await serve({ port: 0, databaseUrl: this.#databaseUrl })
    await server.db
      .insertInto('users')
      .values({
        id: userId,
        email: 'm@b.co',
        username: 'matrix',
        password_hash: 'x',
        status: 'active',
      })
      .execute()
    for (const id of this.#conversations)
      await server.db.insertInto('conversations').values({ id, user_id: userId }).execute()
    const names = Array.from({ length: this.#options.agents }, (_, i) => `a${i + 1}`)
    return Promise.all(names.map((agentId) => server.issueToken({ userId, agentId })))
  }

  async #startServer(): Promise<void> {
    const options = { port: this.#port, databaseUrl: this.#databaseUrl }
    this.#server = Child.start('child-server.ts', [JSON.stringify(options)])
    const line = await this.#server.line((text) => text.startsWith('listening '))
    this.#port = Number(new URL(line.slice('listening '.length)).port)
  }

  /** Breaks something for a while. Who is hit, and how a link breaks, is drawn. */
  async #break(): Promise<void> {
    const { fault, random } = this.#options
    this.#faults += 1
    const hit = this.#agents.filter(() => random() < 0.5)
    const holdMs = HOLD_MS.min + random() * (HOLD_MS.max - HOLD_MS.min)
    switch (fault) {
      case 'partition':
        for (const { proxy } of hit) proxy.set(random() < 0.5 ? 'hang' : 'reset')
        await sleep(holdMs)
        for (const { proxy } of hit) proxy.set('pass')
        return
      case 'pause':
        for (const { child } of hit) child.signal('SIGSTOP')
        await sleep(holdMs)
        for (const { child } of hit) child.signal('SIGCONT')
        return
      case 'kill':
        for (const agent of hit) await agent.child.kill()
        this.#read()
        await sleep(holdMs / 2)
        for (const agent of hit) {
          agent.child = startAgent(agent.options)
          agent.read = 0
        }
        return
      case 'server':
        await this.#server?.kill()
        await sleep(holdMs / 2)
        return this.#startServer()
      default:
    }
  }

  /** Hands the checker what the agents printed since. */
  #read(): void {
    for (const agent of this.#agents) {
      const { lines } = agent.child
      for (; agent.read < lines.length; agent.read++)
        this.#checker.add(JSON.parse(lines[agent.read] ?? '') as Observation)
    }
  }

  /** Waits until every queue is empty and all stand at one position. */
  async #converge(): Promise<void> {
    const startedAt = performance.now()
    for (;;) {
      const statuses = await Promise.all(this.#agents.map((agent) => this.#report(agent)))
      const positions = new Set(statuses.map(({ status }) => status.position))
      if (statuses.every(({ status }) => status.pending === 0) && positions.size === 1) return
      if (performance.now() - startedAt > CONVERGE_MS_MAX) {
        const stuck = statuses.map(({ status }) => JSON.stringify(status)).join('; ')
        this.#checker.violations.push(`no convergence within ${CONVERGE_MS_MAX} ms: ${stuck}`)
        return
      }
      await sleep(100)
    }
  }

  async #report({ child }: Agent): Promise<{ status: Status; views: readonly View[] }> {
    const from = child.lines.length
    child.send('report')
    const line = await child.line((text, i) => i >= from && text.includes('"kind":"saw"'))
    const at = child.lines.indexOf(line, from)
    const status = child.lines
      .slice(0, at)
      .toReversed()
      .find((text) => text.includes('"kind":"status"'))
    const { views } = JSON.parse(line) as { views: View[] }
    return { status: JSON.parse(status ?? '{}') as Status, views }
  }

  /** The end: every agent's view, and what the centre itself holds. */
  async #finish(): Promise<void> {
    const views = new Map<string, readonly View[]>()
    for (const agent of this.#agents)
      views.set(agent.options.name, (await this.#report(agent)).views)
    this.#read()
    await using server = await serve({ port: 0, databaseUrl: this.#databaseUrl })
    const centre: View[] = []
    for (const conversation of this.#conversations) {
      const { rows } = await sql<{ agent: string; last: number; count: number }>`
        SELECT content::jsonb ->> 'agent' AS agent, max((content::jsonb ->> 'n')::integer) AS last, count(*)::integer AS count
        FROM messages WHERE conversation_id = ${conversation}::uuid GROUP BY 1`.execute(server.db)
      centre.push(
        Object.fromEntries(rows.map(({ agent, last, count }) => [agent, { last, count }])),
      )
    }
    views.set('the centre', centre)
    this.#checker.finish(views)
  }
}

interface Status {
  readonly pending: number
  readonly position: number
}

const startAgent = (options: AgentOptions): Child =>
  Child.start('../matrix/agent.ts', [JSON.stringify(options)])
