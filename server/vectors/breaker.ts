import { Backoff, type BackoffOptions } from './backoff.ts'

/** Failures in a row after which calls are no longer tried. */
const FAILURES_MAX = 3

export interface BreakerOptions extends BackoffOptions {
  readonly now: () => number
}

/**
 * Circuit breaker of what one server asks Qdrant for searches. What it writes there waits by a {@link Backoff} of its own:
 * a full disk refuses writes and answers searches.
 *
 *     closed ── 3 failures ──▶ open ── its time is over ──▶ half open: one call may try
 *        ▲                      ▲                               │
 *        └────── success ───────┼────────────── success ────────┤
 *                               └────────────── failure ────────┘
 */
export class Breaker {
  readonly #backoff: Backoff
  readonly #now: () => number
  #openUntil = 0
  #isTrying = false

  constructor({ now, ...backoff }: BreakerOptions) {
    this.#backoff = new Backoff(backoff)
    this.#now = now
  }

  get state(): 'closed' | 'open' | 'half-open' {
    if (this.failures < FAILURES_MAX) return 'closed'
    return this.#now() < this.#openUntil ? 'open' : 'half-open'
  }

  get failures(): number {
    return this.#backoff.failures
  }

  /** Whether a call may be made now; half open, one may. Whoever may tells how it ended. */
  allows(): boolean {
    const { state } = this
    if (state === 'closed') return true
    if (state === 'open' || this.#isTrying) return false
    this.#isTrying = true
    return true
  }

  succeeded(): void {
    this.#backoff.succeeded()
    this.#isTrying = false
  }

  failed(): void {
    this.#openUntil = this.#now() + this.#backoff.failed()
    this.#isTrying = false
  }
}
