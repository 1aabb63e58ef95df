import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import {
  chownSync,
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

import { Client } from 'pg'

import { ensurePostgresBinaries } from './postgres-binaries.ts'

const START_ATTEMPTS_MAX = 5
const READY_TIMEOUT_MS = 60_000
const STOP_TIMEOUT_MS = 20_000
const POLL_MS = 25
const LOG_TAIL_CHARS = 4_000

/**
 * Settings of every server started here; {@link StartPostgresOptions.settings} overrides them.
 * fsync stays on: what the benches measure and the crash tests rely on is a durable commit.
 */
const DEFAULT_SETTINGS: Readonly<Record<string, string>> = {
  fsync: 'on',
  max_connections: '200',
  max_prepared_transactions: '10',
}

export interface StartPostgresOptions {
  /** Server settings, as in `postgresql.conf`, e.g. `{ synchronous_commit: 'off' }`. */
  readonly settings?: Readonly<Record<string, string>>
}

/**
 * A real PostgreSQL server of our own, in a temporary folder, on a free port of 127.0.0.1.
 * The role `postgres` is its superuser and needs no password.
 */
export interface PostgresServer extends AsyncDisposable {
  /** `postgres://postgres@127.0.0.1:PORT/postgres`; stays the same across restarts. */
  readonly url: string
  readonly port: number
  readonly dataDir: string
  /** Starts the server again on the same port and data; a running one is shut down cleanly first. */
  restart(): Promise<void>
  /** Stops the server and removes its data. May be called more than once. */
  stop(): Promise<void>
  /** SIGKILL to all its processes, as a crash would. The data stay; {@link restart} recovers them. */
  kill9(): Promise<void>
}

interface OsUser {
  readonly uid: number
  readonly gid: number
}

/**
 * Starts a server that lives until {@link PostgresServer.stop}, at most as long as this process.
 *
 * @throws Error when no PostgreSQL is installed and none can be (the message says what to install),
 *   or with the end of the server's log when it does not start.
 *
 * @example
 * await using server = await startPostgres()
 * const pool = new Pool({ connectionString: server.url })
 */
export async function startPostgres(options: StartPostgresOptions = {}): Promise<PostgresServer> {
  const binDir = await ensurePostgresBinaries()
  const user = unprivilegedUser()
  const root = mkdtempSync(join(tmpdir(), 'agentdb-postgres-'))
  try {
    if (user !== undefined) chownSync(root, user.uid, user.gid)
    const dataDir = join(root, 'data')
    initCluster(binDir, dataDir, user)
    const settings = { ...DEFAULT_SETTINGS, ...options.settings }
    const server = new LocalPostgres({ binDir, root, dataDir, settings, user })
    await server.startOnFreePort()
    return server
  } catch (error) {
    rmSync(root, { recursive: true, force: true })
    throw error
  }
}

interface LocalPostgresParts {
  readonly binDir: string
  readonly root: string
  readonly dataDir: string
  readonly settings: Readonly<Record<string, string>>
  readonly user: OsUser | undefined
}

class LocalPostgres implements PostgresServer {
  readonly #parts: LocalPostgresParts
  readonly #logPath: string
  readonly #killOnExit = (): void => {
    this.#child?.kill('SIGQUIT')
  }
  #child: ChildProcess | undefined
  #port = 0

  constructor(parts: LocalPostgresParts) {
    this.#parts = parts
    this.#logPath = join(parts.root, 'server.log')
    process.once('exit', this.#killOnExit)
  }

  get url(): string {
    return `postgres://postgres@127.0.0.1:${this.#port}/postgres`
  }

  get port(): number {
    return this.#port
  }

  get dataDir(): string {
    return this.#parts.dataDir
  }

  /** Another process may take the port between our look and the server's bind: then take the next. */
  async startOnFreePort(): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      this.#port = await freePort()
      try {
        await this.#start()
        return
      } catch (error) {
        if (attempt === START_ATTEMPTS_MAX || !this.#logTail().includes('could not bind'))
          throw error
      }
    }
  }

  async restart(): Promise<void> {
    await this.#shutDown('SIGINT')
    await this.#start()
  }

  async stop(): Promise<void> {
    await this.#shutDown('SIGQUIT')
    process.off('exit', this.#killOnExit)
    rmSync(this.#parts.root, { recursive: true, force: true })
  }

  async kill9(): Promise<void> {
    const child = this.#child
    if (child?.pid === undefined || hasExited(child)) return
    // Backends are no part of the postmaster's process group, so each is killed by its id.
    const backends = childProcessIds(child.pid)
    const exited = exitOf(child)
    child.kill('SIGKILL')
    backends.forEach(killNow)
    await exited
    while (backends.some(isAlive)) await sleep(POLL_MS)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  async #start(): Promise<void> {
    const log = openSync(this.#logPath, 'w')
    try {
      this.#child = this.#spawn(log)
    } finally {
      closeSync(log)
    }
    await this.#becomesReady(this.#child)
  }

  #spawn(log: number): ChildProcess {
    const { binDir, root, dataDir, user } = this.#parts
    const settings = {
      ...this.#parts.settings,
      listen_addresses: '127.0.0.1',
      port: String(this.#port),
      unix_socket_directories: root,
    }
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
    const command = [join(binDir, 'postgres'), '-D', dataDir, ...flags]
    // Should we be killed without a chance to clean up, the kernel shuts the server down.
    if (existsSync('/usr/bin/setpriv'))
      command.unshift('/usr/bin/setpriv', '--pdeathsig', 'SIGQUIT')
    const [file = '', ...args] = command
    // Detached: Ctrl-C in the terminal goes to us alone, and we stop the server.
    const child = spawn(file, args, {
      ...user,
      cwd: root,
      detached: true,
      stdio: ['ignore', log, log],
    })
    child.once('error', () => undefined) // reported by #becomesReady, which sees no process
    child.unref()
    return child
  }

  async #becomesReady(child: ChildProcess): Promise<void> {
    const deadline = Date.now() + READY_TIMEOUT_MS
    for (;;) {
      if (child.pid === undefined || hasExited(child)) {
        throw new Error(`PostgreSQL did not start on port ${this.#port}:\n${this.#logTail()}`)
      }
      const refusal = await tryConnect(this.url)
      if (refusal === undefined) return
      if (Date.now() > deadline) {
        await this.#shutDown('SIGQUIT')
        throw new Error(
          `PostgreSQL took no connection within ${READY_TIMEOUT_MS} ms:\n${this.#logTail()}`,
          { cause: refusal },
        )
      }
      await sleep(POLL_MS)
    }
  }

  /** SIGINT is PostgreSQL's fast shutdown (rolls back and checkpoints), SIGQUIT its immediate one. */
  async #shutDown(signal: 'SIGINT' | 'SIGQUIT'): Promise<void> {
    const child = this.#child
    if (child?.pid === undefined || hasExited(child)) return
    const exited = exitOf(child)
    child.kill(signal)
    const timer = setTimeout(() => void this.kill9(), STOP_TIMEOUT_MS)
    await exited
    clearTimeout(timer)
  }

  #logTail(): string {
    return existsSync(this.#logPath)
      ? readFileSync(this.#logPath, 'utf8').slice(-LOG_TAIL_CHARS).trimEnd()
      : '(no log)'
  }
}

/** initdb and postgres refuse to run as root: then it is the user that Debian's package made. */
function unprivilegedUser(): OsUser | undefined {
  if (process.getuid?.() !== 0) return undefined
  const entry = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
    .find(([name]) => name === 'postgres')
  if (entry === undefined) {
    throw new Error(
      'PostgreSQL refuses to run as root and there is no OS user "postgres". ' +
        'Create one (useradd --system postgres), or set DATABASE_URL.',
    )
  }
  return { uid: Number(entry[2]), gid: Number(entry[3]) }
}

function initCluster(binDir: string, dataDir: string, user: OsUser | undefined): void {
  // C.UTF-8 is on every Debian, also without the locales package, and knows letters beyond ASCII.
  const flags = ['--username=postgres', '--auth=trust', '--encoding=UTF8', '--locale=C.UTF-8']
  const args = ['-D', dataDir, ...flags, '--data-checksums', '--no-sync', '--no-instructions']
  const result = spawnSync(join(binDir, 'initdb'), args, {
    ...user,
    cwd: tmpdir(),
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  if (result.error !== undefined) throw result.error
  if (result.status !== 0) throw new Error(`initdb failed:\n${result.stdout}${result.stderr}`)
}

async function tryConnect(url: string): Promise<unknown> {
  const client = new Client({ connectionString: url, connectionTimeoutMillis: 5_000 })
  client.on('error', () => undefined)
  try {
    await client.connect()
    await client.query('SELECT 1')
    return undefined
  } catch (error) {
    return error
  } finally {
    await client.end()
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', reject)
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => {
        if (address === null || typeof address === 'string') reject(new Error('no TCP port'))
        else resolve(address.port)
      })
    })
  })
}

function hasExited(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null
}

function exitOf(child: ChildProcess): Promise<void> {
  child.ref()
  return new Promise((resolve) => {
    child.once('exit', () => resolve())
  })
}

/** Direct children of a process, as Linux tells; none elsewhere, where backends notice by themselves. */
function childProcessIds(pid: number): readonly number[] {
  const path = `/proc/${pid}/task/${pid}/children`
  if (!existsSync(path)) return []
  return readFileSync(path, 'utf8').split(' ').filter(Boolean).map(Number)
}

function killNow(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has ended by itself.
  }
}

/** Whether a process still runs; a zombie that nobody has reaped yet does not. */
function isAlive(pid: number): boolean {
  const path = `/proc/${pid}/stat`
  try {
    return !/\) [ZX] /.test(readFileSync(path, 'utf8'))
  } catch {
    return false
  }
}
