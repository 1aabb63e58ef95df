export interface BackoffOptions {
  readonly minMs: number
  readonly maxMs: number
  readonly random: () => number
}

/** Waits between tries that fail in a row: full jitter below a bound that doubles with each failure. */
export class Backoff {
  readonly #options: BackoffOptions
  #failures = 0

  constructor(options: BackoffOptions) {
    this.#options = options
  }

  get failures(): number {
    return this.#failures
  }

  succeeded(): void {
    this.#failures = 0
  }

  /** How long to wait before the next try, in milliseconds. */
  failed(): number {
    const { minMs, maxMs, random } = this.#options
    const bound = Math.min(maxMs, minMs * 2 ** Math.min(this.#failures, 30))
    this.#failures += 1
    return Math.max(minMs / 2, random() * bound)
  }
}
