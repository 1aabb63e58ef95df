import { AgentDBError } from '../../schema/errors.ts'

/** Work of one kind that a server takes on. */
export interface Limits {
  /** Done at the same time. */
  readonly running: number
  /** Waiting for their turn; whoever comes after is asked to come back later. */
  readonly waiting: number
}

/**
 * Admission control: a server that takes everything on at once finishes nothing in time, and its clients, timing out,
 * ask again. Beyond the limits it says so at once, with `Retry-After`.
 */
export class Admission {
  readonly #what: string
  readonly #limits: Limits
  readonly #queue: (() => void)[] = []
  #running = 0

  constructor(what: string, limits: Limits) {
    this.#what = what
    this.#limits = limits
  }

  get running(): number {
    return this.#running
  }

  /** Runs `work` when its turn comes; throws `OVERLOADED` when too many wait already. */
  async run<T>(work: () => Promise<T>): Promise<T> {
    const leave = await this.enter()
    try {
      return await work()
    } finally {
      leave()
    }
  }

  /** Takes a place; the function that is returned gives it back, once. */
  async enter(): Promise<() => void> {
    if (this.#running < this.#limits.running) this.#running += 1
    else {
      if (this.#queue.length >= this.#limits.waiting)
        throw new AgentDBError('OVERLOADED', `too many ${this.#what} at once; try again soon`)
      // Whoever leaves hands its place over.
      await new Promise<void>((turn) => this.#queue.push(turn))
    }
    let isHeld = true
    return () => {
      if (!isHeld) return
      isHeld = false
      const next = this.#queue.shift()
      if (next === undefined) this.#running -= 1
      else next()
    }
  }
}
