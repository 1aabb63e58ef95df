import { createHash, type Hash } from 'node:crypto'

/** What happened in a run, in order. Its hash is equal when two runs were. */
export class Trace {
  readonly lines: string[] = []
  readonly #hash: Hash = createHash('sha256')
  readonly #elapsedMs: () => number
  readonly #onLine: ((line: string) => void) | undefined
  readonly #keep: number

  constructor(options: {
    elapsedMs: () => number
    onLine?: ((line: string) => void) | undefined
    /** Lines kept; older ones are only in the hash. */
    keep: number
  }) {
    this.#elapsedMs = options.elapsedMs
    this.#onLine = options.onLine
    this.#keep = options.keep
  }

  add(who: string, what: string): void {
    const line = `${(this.#elapsedMs() / 1000).toFixed(3).padStart(9)}  ${who.padEnd(7)} ${what}`
    this.#hash.update(`${line}\n`)
    this.#onLine?.(line)
    this.lines.push(line)
    if (this.lines.length > 2 * this.#keep) this.lines.splice(0, this.lines.length - this.#keep)
  }

  last(count: number): string[] {
    return this.lines.slice(-count)
  }

  digest(): string {
    return this.#hash.copy().digest('hex')
  }
}
