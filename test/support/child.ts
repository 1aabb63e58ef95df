import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

/** A child process that runs one of our scripts and speaks in lines. */
export class Child implements AsyncDisposable {
  /** Every line that it printed, also after it was killed: what was written is not lost. */
  readonly lines: string[] = []
  readonly #process: ChildProcess
  readonly #ended: Promise<void>
  readonly #waiting = new Set<() => void>()
  #errors = ''
  #hasEnded = false

  private constructor(process: ChildProcess) {
    this.#process = process
    const { stdout, stderr } = process
    if (stdout === null || stderr === null) throw new Error('a child without pipes')
    const reader = createInterface({ input: stdout })
    reader.on('line', (line) => {
      this.lines.push(line)
      this.#wake()
    })
    stderr.on('data', (data: Buffer) => (this.#errors += data.toString()))
    const closed = new Promise<void>((done) => reader.once('close', done))
    const exited = new Promise<void>((done) => process.once('exit', () => done()))
    this.#ended = this.#end(closed, exited)
  }

  /** Starts `test/support/SCRIPT` under Node with tsx. */
  static start(script: string, args: readonly string[]): Child {
    const path = fileURLToPath(new URL(script, import.meta.url))
    return new Child(
      spawn(process.execPath, ['--import', 'tsx', path, ...args], {
        // The children end when this pipe does: should we be killed, they don't write on for ever.
        stdio: ['pipe', 'pipe', 'pipe'],
      }),
    )
  }

  /** Resolves when it has printed a line that matches; rejects with its errors when it ends before. */
  async line(matches: (line: string, index: number) => boolean): Promise<string> {
    for (;;) {
      const found = this.lines.find(matches)
      if (found !== undefined) return found
      if (this.#hasEnded) throw this.#failure()
      await new Promise<void>((done) => this.#waiting.add(done))
    }
  }

  /** Rejects with what it printed last when it ends, for whatever reason. */
  async end(): Promise<never> {
    await this.#ended
    throw this.#failure()
  }

  /** Writes a line to its standard input. */
  send(line: string): void {
    this.#process.stdin?.write(`${line}\n`)
  }

  /** SIGSTOP and SIGCONT, say. */
  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal)
  }

  /** SIGKILL; resolves when it is gone and all that it printed is read. */
  async kill(): Promise<void> {
    this.#process.kill('SIGKILL')
    await this.#ended
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill()
  }

  async #end(...events: Promise<void>[]): Promise<void> {
    await Promise.all(events)
    this.#hasEnded = true
    this.#wake()
  }

  #failure(): Error {
    return new Error(`the child ended: ${this.#errors.slice(-2000)}`)
  }

  #wake(): void {
    for (const done of this.#waiting) done()
    this.#waiting.clear()
  }
}
