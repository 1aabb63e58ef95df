/** Full jitter: each wait is anywhere between nothing and a bound that doubles, so that a fleet does not return as one. */
export class Backoff {
  readonly #minMs: number
  readonly #maxMs: number
  readonly #random: () => number
  #failures = 0

  constructor(options: { minMs: number; maxMs: number; random: () => number }) {
    this.#minMs = options.minMs
    this.#maxMs = options.maxMs
    this.#random = options.random
  }

  /** Next wait in milliseconds; `atLeastMs` is what the centre asked for. */
  next(atLeastMs = 0): number {
    const bound = Math.min(this.#maxMs, this.#minMs * 2 ** Math.min(this.#failures, 30))
    this.#failures += 1
    return atLeastMs + Math.max(this.#minMs / 2, this.#random() * bound)
  }

  reset(): void {
    this.#failures = 0
  }
}
