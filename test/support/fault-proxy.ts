import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net'

/**
 * - `pass`: bytes go through both ways
 * - `hang`: connections are taken, and nothing ever comes back (a half-open link)
 * - `reset`: connections are taken and reset
 * - `{ cutAfter }`: a connection is reset after that many bytes of answer
 */
export type ProxyMode = 'pass' | 'hang' | 'reset' | { readonly cutAfter: number }

/** A TCP proxy in front of a real server that breaks the link as told. */
export class FaultProxy implements AsyncDisposable {
  readonly #server: Server
  readonly #target: URL
  readonly #sockets = new Set<Socket>()
  #mode: ProxyMode = 'pass'
  /** Connections that were cut in the middle of an answer. */
  cuts = 0

  private constructor(target: string) {
    this.#target = new URL(target)
    this.#server = createServer((socket) => this.#accept(socket))
  }

  static async start(target: string): Promise<FaultProxy> {
    const proxy = new FaultProxy(target)
    await new Promise<void>((done) => proxy.#server.listen(0, '127.0.0.1', done))
    return proxy
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** Changes the mode of new connections, and ends those that are open unless they are to hang on. */
  set(mode: ProxyMode): void {
    this.#mode = mode
    if (mode !== 'hang') this.#resetAll()
    else for (const socket of this.#sockets) socket.unpipe()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#resetAll()
    await new Promise<void>((done) => this.#server.close(() => done()))
  }

  #resetAll(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy()
  }

  #track(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('error', () => undefined)
    socket.on('close', () => this.#sockets.delete(socket))
  }

  #accept(client: Socket): void {
    this.#track(client)
    const mode = this.#mode
    if (mode === 'reset') return void client.resetAndDestroy()
    if (mode === 'hang') return void client.resume()
    const server = connect(Number(this.#target.port), this.#target.hostname)
    this.#track(server)
    client.on('close', () => server.destroy())
    server.on('close', () => client.destroy())
    client.pipe(server)
    if (mode === 'pass') return void server.pipe(client)
    let left = mode.cutAfter
    server.on('data', (data: Buffer) => {
      client.write(data.subarray(0, left))
      left -= data.length
      if (left > 0) return
      this.cuts += 1
      client.resetAndDestroy()
    })
  }
}
