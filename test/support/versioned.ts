import { Client } from 'pg'
import { newId } from '../../schema/values/id.ts'
import { Child } from './child.ts'
import { createDatabase } from './databases.ts'
import type { Build } from './next-build.ts'

/** A program of one build, in a process of its own, that does what it is asked. */
class Remote implements AsyncDisposable {
  readonly child: Child
  #asked = 0

  protected constructor(child: Child) {
    this.child = child
  }

  /** Resolves with what it prints first: that it is open, or why not. */
  protected async opened(): Promise<{ opened?: unknown; failed?: string }> {
    const line = await this.child.line((text) => /^\{"(?:opened|failed)"/.test(text))
    return JSON.parse(line) as { opened?: unknown; failed?: string }
  }

  async ask<T>(ask: string, ...of: unknown[]): Promise<T> {
    const n = ++this.#asked
    this.child.send(JSON.stringify({ n, ask, of }))
    const line = await this.child.line((text) => text.startsWith(`{"n":${n},`))
    const { answer, failed } = JSON.parse(line) as { answer: T; failed?: string }
    if (failed !== undefined) throw new Error(failed)
    return answer
  }

  async close(): Promise<void> {
    await this.ask('close')
    await this.child.end().catch(() => undefined)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.child.kill()
  }
}

type Row = Readonly<Record<string, string | number | null>>

export interface PulledTable {
  readonly table: number
  readonly columns: readonly string[]
  readonly rows: number
}

/** What a single pull brought. */
export interface Pulled {
  readonly page: { first: boolean; last: boolean; reason?: string; tables?: number[] } | null
  readonly tables: readonly PulledTable[]
}

interface Checksums {
  readonly tables: Readonly<Record<string, { rows: number; sha256: string }>>
}

/** An agent of one build. */
export class VersionedAgent extends Remote {
  /** Its own user, who need not know how the store is opened. */
  static async open(
    build: Build,
    options: {
      readonly path: string
      readonly user: VersionedUser
      readonly url: string
      readonly start?: boolean
    },
  ): Promise<VersionedAgent> {
    const agent = VersionedAgent.begin(build, options)
    const { failed } = await agent.opened()
    if (failed !== undefined) throw new Error(failed)
    return agent
  }

  /** Starts it without waiting for it to open. */
  static begin(
    build: Build,
    {
      path,
      user,
      url,
      start = false,
    }: { path: string; user: VersionedUser; url: string; start?: boolean },
  ): VersionedAgent {
    const { id: userId, agentId, token } = user
    const options = { path, userId, agentId, url, token, start }
    return new VersionedAgent(
      Child.start(build.script('child-versioned-agent.ts'), [JSON.stringify(options)]),
    )
  }

  /** The code of the error with which a store does not open. */
  static async refusal(build: Build, path: string, user: VersionedUser): Promise<unknown> {
    await using agent = VersionedAgent.begin(build, { path, user, url: 'http://127.0.0.1:1' })
    return (await agent.opened()).failed
  }

  /** Statements of one local transaction. */
  async write(...statements: (readonly [sql: string, ...of: unknown[]])[]): Promise<void> {
    await this.ask('write', ...statements)
  }

  all(sql: string, ...parameters: unknown[]): Promise<Row[]> {
    return this.ask('all', sql, ...parameters)
  }

  now(): Promise<void> {
    return this.ask('now')
  }

  status(): Promise<{ pending: number; parked: number; state: string; hydrating: boolean }> {
    return this.ask('status')
  }

  /** Outcomes since it was asked last. */
  outcomes(): Promise<{ kind: string; table: string; reason?: string; message?: string }[]> {
    return this.ask('outcomes')
  }

  /** Pulls since it was asked last, streams not included. */
  pulls(): Promise<Pulled[]> {
    return this.ask('pulls')
  }

  /** Both sides' checksums of each table. */
  checksums(): Promise<{ local: Checksums; central: Checksums }> {
    return this.ask('checksums')
  }
}

export interface VersionedUser {
  readonly id: string
  readonly agentId: string
  readonly token: string
}

/** A sync server of one build. */
export class VersionedServer extends Remote {
  url = ''

  static async open(build: Build, databaseUrl: string, port = 0): Promise<VersionedServer> {
    const options = { databaseUrl, port, connectionsMax: 4 }
    const server = new VersionedServer(
      Child.start(build.script('child-versioned-centre.ts'), [JSON.stringify(options)]),
    )
    const { opened, failed } = await server.opened()
    if (failed !== undefined) {
      await server.child.kill()
      throw new Error(failed)
    }
    server.url = String(opened)
    return server
  }

  get port(): number {
    return Number(new URL(this.url).port)
  }

  async user(database: CentreDatabase, role = 'operator'): Promise<VersionedUser> {
    const id = newId()
    const agentId = `agent-${id}`
    await database.query(
      `INSERT INTO users (id, email, username, password_hash, role, status) VALUES ($1, $2, $3, 'x', $4, 'active')`,
      [id, `${id}@example.org`, `user_${id}`, role],
    )
    return { id, agentId, token: await this.ask('token', { userId: id, agentId }) }
  }

  /** Another agent of the same user. */
  async twin(user: VersionedUser): Promise<VersionedUser> {
    const agentId = `agent-${newId()}`
    return { ...user, agentId, token: await this.ask('token', { userId: user.id, agentId }) }
  }
}

/** A centre's database, which outlives its servers. */
export interface CentreDatabase extends AsyncDisposable {
  readonly url: string
  query(sql: string, parameters?: readonly unknown[]): Promise<Row[]>
}

export async function centreDatabase(adminUrl: string): Promise<CentreDatabase> {
  const database = await createDatabase(adminUrl, 'skew')
  const client = new Client({ connectionString: database.url })
  await client.connect()
  client.on('error', () => undefined)
  return {
    url: database.url,
    query: async (sql, parameters = []) =>
      (await client.query<Record<string, string>>(sql, [...parameters])).rows,
    async [Symbol.asyncDispose]() {
      await client.end()
      await database.drop()
    },
  }
}
