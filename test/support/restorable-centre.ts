import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { serve, type ServeOptions, type SyncServer } from '../../server/index.ts'
import type { Centre } from './centre.ts'
import { startPostgres, type PostgresServer } from './postgres-server.ts'

/** Agents' cursors and tokens stay valid, as with a secret that is no part of the backup. */
const SECRET = 'a secret of thirty-two characters'

/** A centre on a PostgreSQL of its own, whose disk can be copied and put back. Its URL stays the same throughout. */
export class RestorableCentre implements Centre {
  readonly #postgres: PostgresServer
  readonly #options: ServeOptions
  #server: SyncServer

  private constructor(postgres: PostgresServer, server: SyncServer, options: ServeOptions) {
    this.#postgres = postgres
    this.#server = server
    this.#options = options
  }

  static async start(options: ServeOptions = {}): Promise<RestorableCentre> {
    const postgres = await startPostgres()
    const server = await serve({
      port: 0,
      databaseUrl: postgres.url,
      secret: SECRET,
      ...options,
    })
    return new RestorableCentre(postgres, server, options)
  }

  get server(): SyncServer {
    return this.#server
  }

  get url(): string {
    return this.#server.url
  }

  get db(): SyncServer['db'] {
    return this.#server.db
  }

  get databaseUrl(): string {
    return this.#postgres.url
  }

  /** Kills the database, and starts it and a new server process again: a failover that loses nothing. */
  crash(): Promise<void> {
    return this.#withoutServer(() => undefined)
  }

  /** Closes the server process; another takes its place. */
  async restartServer(): Promise<void> {
    const port = Number(new URL(this.#server.url).port)
    await this.#server.close()
    await this.#listen(port)
  }

  /** Copies the disk of the database as it is. */
  backup(): Promise<void> {
    return this.#withoutServer(() => this.#copy(this.#postgres.dataDir, this.#backupDir))
  }

  /** Puts the copy back: everything since then is lost. */
  restore(): Promise<void> {
    return this.#withoutServer(() => {
      this.#copy(this.#backupDir, this.#postgres.dataDir)
    })
  }

  /** The same under a server process that lives on, as in a failover that loses the last commits. */
  async restoreUnderServer(): Promise<void> {
    await this.#postgres.kill9()
    this.#copy(this.#backupDir, this.#postgres.dataDir)
    await this.#postgres.restart()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.close()
    await this.#postgres.stop()
  }

  get #backupDir(): string {
    return join(dirname(this.#postgres.dataDir), 'backup')
  }

  #copy(from: string, to: string): void {
    for (const [command, ...args] of [
      ['rm', '-rf', to],
      ['cp', '-a', from, to],
    ] as const) {
      const { status, stderr } = spawnSync(command, args, { encoding: 'utf8' })
      if (status !== 0) throw new Error(`${command} failed: ${stderr}`)
    }
  }

  async #withoutServer(work: () => void): Promise<void> {
    const port = Number(new URL(this.#server.url).port)
    await this.#server.close()
    await this.#postgres.kill9()
    work()
    await this.#postgres.restart()
    await this.#listen(port)
  }

  async #listen(port: number): Promise<void> {
    const databaseUrl = this.#postgres.url
    this.#server = await serve({ port, databaseUrl, secret: SECRET, ...this.#options })
  }
}
