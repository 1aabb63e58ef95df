/** Failures in a row after which calls are no longer tried. */
const FAILURES_MAX = 3

export interface BreakerOptions {
  /** Bounds of the wait: full jitter below a bound that doubles with each failure. */
  readonly minMs: number
  readonly maxMs: number
  readonly now: () => number
  readonly random: () => number
}

/**
 * Circuit breaker of the calls of one server to Qdrant.
 *
 *     closed ── 3 failures ──▶ open ── its time is over ──▶ half open: one call may try
 *        ▲                      ▲                               │
 *        └────── success ───────┼────────────── success ────────┤
 *                               └────────────── failure ────────┘
 */
export class Breaker {
  readonly #options: BreakerOptions
  #failures = 0
  #openUntil = 0
  #isTrying = false

  constructor(options: BreakerOptions) {
    this.#options = options
  }

  get state(): 'closed' | 'open' | 'half-open' {
    if (this.#failures < FAILURES_MAX) return 'closed'
    return this.#options.now() < this.#openUntil ? 'open' : 'half-open'
  }

  get failures(): number {
    return this.#failures
  }

  /** Whether a call may be made now; half open, one may. */
  allows(): boolean {
    const { state } = this
    if (state === 'closed') return true
    if (state === 'open' || this.#isTrying) return false
    this.#isTrying = true
    return true
  }

  succeeded(): void {
    this.#failures = 0
    this.#isTrying = false
  }

  /** How long to wait before the next try, in milliseconds. */
  failed(): number {
    const { minMs, maxMs, now, random } = this.#options
    const bound = Math.min(maxMs, minMs * 2 ** Math.min(this.#failures, 30))
    this.#failures += 1
    this.#isTrying = false
    const waitMs = Math.max(minMs / 2, random() * bound)
    this.#openUntil = now() + waitMs
    return waitMs
  }
}
