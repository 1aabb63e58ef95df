import { serve, type SyncServer } from '../../server/index.ts'
import { Child } from '../../test/support/child.ts'
import { createDatabase } from '../../test/support/databases.ts'
import type { AgentsOptions } from './child-agents.ts'
import type { StreamsOptions } from './child-streams.ts'

const script = (name: string): string => new URL(name, import.meta.url).href

/** In bytes. Freed pages stay resident, so that objects are the steadier of the two. */
export interface Memory {
  readonly resident: number
  readonly objects: number
}

/** A server in a process of its own. */
export class ServerProcess implements AsyncDisposable {
  readonly url: string
  readonly #child: Child
  #asked = 0

  private constructor(child: Child, url: string) {
    this.#child = child
    this.url = url
  }

  static async start(options: { databaseUrl: string } | { plain: true }): Promise<ServerProcess> {
    const child = Child.start(script('child-server.ts'), [JSON.stringify({ port: 0, ...options })])
    const line = await child.line((text) => text.startsWith('listening '))
    return new ServerProcess(child, line.slice('listening '.length))
  }

  /** What the process holds once what is garbage is gone. */
  async memory(): Promise<Memory> {
    this.#asked += 1
    const answer = `memory ${this.#asked} `
    this.#child.send(String(this.#asked))
    const line = await this.#child.line((text) => text.startsWith(answer))
    const [resident = 0, objects = 0] = line.slice(answer.length).split(' ').map(Number)
    return { resident, objects }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child[Symbol.asyncDispose]()
  }
}

/** A database, the server process that is measured, and a server of ours beside it that makes users and tokens. */
export interface MeasuredCentre extends AsyncDisposable {
  readonly databaseUrl: string
  readonly measured: ServerProcess
  readonly admin: SyncServer
}

export async function startMeasuredCentre(
  postgresUrl: string,
  prefix: string,
): Promise<MeasuredCentre> {
  const open: AsyncDisposable[] = []
  const close = async (): Promise<void> => {
    for (const resource of open.splice(0).toReversed()) await resource[Symbol.asyncDispose]()
  }
  try {
    const database = await createDatabase(postgresUrl, prefix)
    open.push(database)
    // Nobody connects to it, so it does nothing meanwhile.
    const admin = await serve({ port: 0, databaseUrl: database.url })
    open.push(admin)
    const measured = await ServerProcess.start({ databaseUrl: database.url })
    open.push(measured)
    return { databaseUrl: database.url, measured, admin, [Symbol.asyncDispose]: close }
  } catch (error) {
    await close()
    throw error
  }
}

/** Live agents in a process of their own; ready when it resolves. */
export async function startAgents(options: AgentsOptions): Promise<Child> {
  const child = Child.start(script('child-agents.ts'), [JSON.stringify(options)])
  await child.line((line) => line === 'ready')
  return child
}

/** Live streams in a process of their own; none is open yet. */
export class StreamsProcess implements AsyncDisposable {
  readonly #child: Child

  constructor(options: StreamsOptions) {
    this.#child = Child.start(script('child-streams.ts'), [JSON.stringify(options)])
  }

  /** Resolves when so many are open, those from before included. */
  async openTo(count: number): Promise<void> {
    this.#child.send(String(count))
    await this.#child.line((line) => line === `open ${count}`)
  }

  /** When the last of them had a batch with a mark. */
  async seen(mark: string): Promise<number> {
    const start = `seen ${mark} `
    return Number((await this.#child.line((line) => line.startsWith(start))).slice(start.length))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#child[Symbol.asyncDispose]()
  }
}
