import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, inject, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import { serve, type ServeOptions, type SyncServer } from '../../server/index.ts'
import { AgentDB } from '../../src/index.ts'
import { connect, type Sync } from '../../sync/index.ts'
import { Child } from '../support/child.ts'
import { createDatabase } from '../support/databases.ts'

/** Longest wait between the event that starts a round and the kill. */
const KILL_AFTER_MS_MAX = 150

interface Agent {
  readonly path: string
  readonly token: string
  /** Ids that a process printed after its transaction had returned. */
  readonly acknowledged: Set<string>
  child: Child
}

/** One user's two agents and a server, each a process of its own. */
class Fleet {
  readonly userId: string
  readonly agents: Agent[] = []
  readonly #folder: string
  readonly #options: ServeOptions
  #server: Child
  #url = ''

  private constructor(userId: string, folder: string, options: ServeOptions) {
    this.userId = userId
    this.#folder = folder
    this.#options = options
    this.#server = Child.start('child-server.ts', [JSON.stringify(options)])
  }

  static async start(folder: string, options: ServeOptions): Promise<Fleet> {
    const userId = newId()
    const tokens: string[] = []
    {
      await using server = await serve({ port: 0, ...options })
      await server.db
        .insertInto('users')
        .values({
          id: userId,
          email: 'a@b.co',
          username: 'ada',
          password_hash: 'x',
          status: 'active',
        })
        .execute()
      for (const agentId of ['one', 'two'])
        tokens.push(await server.issueToken({ userId, agentId }))
    }
    const fleet = new Fleet(userId, folder, { port: 0, ...options })
    await fleet.#becomesReady()
    for (const [i, token] of tokens.entries()) {
      const path = join(folder, `agent-${i}.db`)
      const child = fleet.#startAgent(path, token)
      fleet.agents.push({
        path,
        token,
        child,
        acknowledged: new Set(),
      })
    }
    return fleet
  }

  /** Waits for what needs the server, unless that ends by itself. */
  during<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.#server.end()])
  }

  async killServer(): Promise<void> {
    await this.#server.kill()
  }

  /** On the same port; the agents find it by themselves. */
  restartServer(): void {
    const port = Number(new URL(this.#url).port)
    this.#server = Child.start('child-server.ts', [JSON.stringify({ ...this.#options, port })])
  }

  async #becomesReady(): Promise<void> {
    const line = await this.#server.line((text) => text.startsWith('listening '))
    this.#url = line.slice('listening '.length)
  }

  /** Kills an agent, notes what it had acknowledged, and looks whether the store has all of it (I14). */
  async killAgent(agent: Agent): Promise<void> {
    await agent.child.kill()
    for (const line of agent.child.lines)
      for (const id of line.split(' ').slice(1)) agent.acknowledged.add(id)
    await using db = await AgentDB.open({ path: agent.path, userId: this.userId })
    const rows = [...db.messages.list(), ...db.conversations.list(), ...db.workflows.list()]
    const held = new Set([
      ...rows.map(({ id }) => id),
      ...db.syncConflicts.list().map(({ rowId }) => rowId),
    ])
    const lost = [...agent.acknowledged].filter((id) => !held.has(id))
    expect(lost, 'what is acknowledged is there, or told to be hidden').toEqual([])
  }

  restartAgent(agent: Agent): void {
    agent.child = this.#startAgent(agent.path, agent.token)
  }

  #startAgent(path: string, token: string): Child {
    return Child.start('child-agent.ts', [path, this.userId, this.#url, token])
  }

  async stop(): Promise<void> {
    await Promise.all([this.#server.kill(), ...this.agents.map(({ child }) => child.kill())])
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

async function rounds(fleet: Fleet, count: number): Promise<void> {
  for (let round = 0; round < count; round++) {
    const agent = fleet.agents[round % 2]
    if (agent === undefined) throw new Error('no agent')
    // Writing, pushing and pulling are under way again; then the kill falls anywhere.
    const from = agent.child.lines.length
    await fleet.during(agent.child.line((line, i) => i >= from && line === 'pulled'))
    await sleep(Math.random() * KILL_AFTER_MS_MAX)
    await Promise.all([
      ...(round % 3 === 1 ? [] : [fleet.killAgent(agent)]),
      ...(round % 3 === 0 ? [] : [fleet.killServer()]),
    ])
    if (round % 3 !== 0) fleet.restartServer()
    if (round % 3 !== 1) fleet.restartAgent(agent)
  }
  for (const agent of fleet.agents) await fleet.killAgent(agent)
  await fleet.killServer()
}

/** Everyone drains; then each acknowledged row is there once, on all sides. */
async function mustConverge(fleet: Fleet, server: SyncServer): Promise<void> {
  const stores: { db: AgentDB; sync: Sync }[] = []
  for (const { path, token } of fleet.agents) {
    const db = await AgentDB.open({ path, userId: fleet.userId })
    stores.push({ db, sync: connect(db, { url: server.url, token, start: false }) })
  }
  try {
    for (const { sync } of [...stores, ...stores]) await sync.now()
    const rows = await server.db.selectFrom('messages').select('id').execute()
    const others = [
      ...(await server.db.selectFrom('conversations').select('id').execute()),
      ...(await server.db.selectFrom('workflows').select('id').execute()),
    ]
    const there = new Set([...rows, ...others].map(({ id }) => id))
    const acknowledged = fleet.agents.flatMap((agent) => [...agent.acknowledged])
    expect(
      acknowledged.filter((id) => !there.has(id)),
      'every acknowledged commit reached the centre',
    ).toEqual([])
    expect(rows.length % 2, 'transactions of two messages are whole').toBe(0)
    for (const { id, message_count, total_tokens } of await server.db
      .selectFrom('conversations')
      .select(['id', 'message_count', 'total_tokens'])
      .execute()) {
      const { count } = await server.db
        .selectFrom('messages')
        .select((e) => e.fn.countAll().as('count'))
        .where('conversation_id', '=', id)
        .executeTakeFirstOrThrow()
      expect([message_count, total_tokens], 'nothing was counted twice').toEqual([
        Number(count),
        Number(count),
      ])
    }
    for (const { db, sync } of stores) {
      expect(sync.status().pending).toBe(0)
      const unexpected = db.syncConflicts.list().filter(({ reason }) => reason !== 'next_version')
      expect(unexpected, 'nothing clashed but the names of workflows').toEqual([])
      const { local, central } = await sync.checksums()
      expect(local).toEqual(central)
    }
  } finally {
    for (const { db, sync } of stores) {
      await sync.close()
      await db.close()
    }
  }
}

/** Gives how many rows were acknowledged meanwhile. */
async function survive(options: ServeOptions, folder: string, count: number): Promise<number> {
  const fleet = await Fleet.start(folder, options)
  try {
    await rounds(fleet, count)
    await using server = await serve({ port: 0, ...options })
    await mustConverge(fleet, server)
    return fleet.agents.reduce((sum, { acknowledged }) => sum + acknowledged.size, 0)
  } finally {
    await fleet.stop()
  }
}

describe('agents and server that are killed with -9 again and again lose nothing, double nothing, converge', () => {
  test('on PostgreSQL', async () => {
    await using database = await createDatabase(inject('postgresUrl'), 'kill9')
    const folder = mkdtempSync(join(tmpdir(), 'agentdb-kill9-'))
    expect(await survive({ databaseUrl: database.url }, folder, 14)).toBeGreaterThan(100)
  }, 300_000)

  test('on PGlite in a folder', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'agentdb-kill9-'))
    expect(await survive({ dataFolder: join(folder, 'centre') }, folder, 7)).toBeGreaterThan(50)
  }, 300_000)
})
