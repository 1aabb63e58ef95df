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

/** An HTTP proxy in front of a real centre that counts requests and treats live streams as told. */
export class HttpGate implements AsyncDisposable {
  readonly #target: URL
  readonly #server = createServer((request, response) => this.#handle(request, response))
  rule: GateRule = 'pass'
  /** Paths that were asked for, in order, without their query. */
  readonly paths: string[] = []
  /** How the bodies of requests were compressed, in the same order. */
  readonly contentEncodings: (string | undefined)[] = []
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

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise<void>((done) => this.#server.close(() => done()))
  }

  #handle(request: IncomingMessage, response: ServerResponse): void {
    const path = new URL(request.url ?? '/', this.#target).pathname
    this.paths.push(path)
    this.contentEncodings.push(request.headers['content-encoding'])
    const rule = path === '/sync/v1/live' ? this.rule : 'pass'
    if (rule === 'not-found') {
      response.writeHead(404).end('no such page')
      return
    }
    const onward = forward(
      { ...this.#address(), path: request.url, method: request.method, headers: request.headers },
      (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers)
        answer.on('data', (piece: Buffer) => (this.bytes += piece.length))
        if (rule === 'pass') answer.pipe(response)
        else answer.resume()
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
