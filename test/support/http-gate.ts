import {
  createServer,
  request as forward,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http'
import type { AddressInfo } from 'node:net'

/** What stands between agents and the centre does to their requests. */
export type GateRule =
  | 'pass'
  /** An old server, or a proxy that knows only some paths. */
  | 'not-found'
  /** A proxy that waits for the end of an answer before it hands any of it on. */
  | 'buffer'

/** One request that waits at the gate. */
export interface Hold {
  /** Resolves once a request is held. */
  readonly reached: Promise<void>
  /** Lets it go on. */
  release(): void
}

interface OpenHold {
  readonly stage: 'request' | 'answer'
  readonly onReached: () => void
  readonly released: Promise<void>
}

/** An HTTP proxy in front of a real centre that counts requests and treats them as told. */
export class HttpGate implements AsyncDisposable {
  readonly #target: URL
  readonly #server = createServer((request, response) => this.#handle(request, response))
  /** What becomes of live streams. */
  rule: GateRule = 'pass'
  /** Paths that are answered as by a gateway whose server is away. */
  readonly away = new Set<string>()
  readonly #holds = new Map<string, OpenHold>()
  /** Paths that were asked for, in order, without their query. */
  readonly paths: string[] = []
  /** How the bodies of requests were compressed, in the same order. */
  readonly contentEncodings: (string | undefined)[] = []
  /** How they wanted their answers compressed. */
  readonly acceptEncodings: (string | undefined)[] = []
  /** Bytes that went through, either way, as they were on the wire. */
  bytes = 0

  private constructor(target: string) {
    this.#target = new URL(target)
  }

  static async start(target: string): Promise<HttpGate> {
    const gate = new HttpGate(target)
    await new Promise<void>((done) => gate.#server.listen(0, '127.0.0.1', done))
    return gate
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  count(path: string): number {
    return this.paths.filter((asked) => asked === path).length
  }

  /** The next request of a path waits: before it is handed on, or with its answer before that is. */
  hold(path: string, stage: 'request' | 'answer'): Hold {
    let release = (): void => undefined
    let onReached = (): void => undefined
    const released = new Promise<void>((done) => (release = done))
    const reached = new Promise<void>((done) => (onReached = done))
    this.#holds.set(path, { stage, onReached, released })
    return { reached, release: () => release() }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise<void>((done) => this.#server.close(() => done()))
  }

  #handle(request: IncomingMessage, response: ServerResponse): void {
    const path = new URL(request.url ?? '/', this.#target).pathname
    this.paths.push(path)
    this.contentEncodings.push(request.headers['content-encoding'])
    this.acceptEncodings.push(request.headers['accept-encoding'])
    const rule = path === '/sync/v1/live' ? this.rule : 'pass'
    if (rule === 'not-found') {
      response.writeHead(404).end('no such page')
      return
    }
    if (this.away.has(path)) {
      response.writeHead(502, { 'content-type': 'text/html' }).end('bad gateway')
      return
    }
    const held = this.#holds.get(path)
    this.#holds.delete(path)
    if (held?.stage === 'request')
      return waited(held, () => !response.destroyed && this.#forward(request, response, rule))
    this.#forward(request, response, rule, held)
  }

  #forward(
    request: IncomingMessage,
    response: ServerResponse,
    rule: GateRule,
    held?: OpenHold,
  ): void {
    const onward = forward(
      { ...this.#address(), path: request.url, method: request.method, headers: request.headers },
      (answer) => {
        const handOn = (): void => {
          response.writeHead(answer.statusCode ?? 502, answer.headers)
          answer.on('data', (piece: Buffer) => (this.bytes += piece.length))
          if (rule === 'pass') answer.pipe(response)
          else answer.resume()
        }
        if (held === undefined) handOn()
        else waited(held, () => !response.destroyed && handOn())
      },
    )
    onward.on('error', () => response.destroy())
    response.on('close', () => onward.destroy())
    request.on('data', (piece: Buffer) => (this.bytes += piece.length))
    request.pipe(onward)
  }

  #address(): { host: string; port: number } {
    return { host: this.#target.hostname, port: Number(this.#target.port) }
  }
}

function waited(held: OpenHold, goOn: () => unknown): void {
  held.onReached()
  void held.released.then(goOn)
}
