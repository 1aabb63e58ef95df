import { KthLargest } from './best-k.ts'

/** Rows that may be among the k best. */
export class Candidates {
  readonly #lowest: KthLargest
  readonly #accepts: ((row: number) => boolean) | undefined
  /** What the k-th best score is known to be at least. */
  readonly #least: number
  readonly #rows: number[] = []
  readonly #uppers: number[] = []

  constructor(k: number, accepts?: (row: number) => boolean, least = Number.NEGATIVE_INFINITY) {
    this.#lowest = new KthLargest(k)
    this.#accepts = accepts
    this.#least = least
  }

  /** What the k-th best score is at least. */
  get floor(): number {
    return Math.max(this.#lowest.floor, this.#least)
  }

  offer(row: number, near: number, error: number): void {
    const { floor } = this
    const upper = near + error
    if (upper < floor) return
    // Asked last: few rows come near enough, and it looks up an id.
    if (this.#accepts?.(row) === false) return
    this.#rows.push(row)
    this.#uppers.push(upper)
    if (near - error > floor) this.#lowest.offer(near - error)
  }

  /** All that were near enough when they were offered. */
  get rows(): readonly number[] {
    return this.#rows
  }

  bestFirst(): { row: number; upper: number }[] {
    const { floor } = this
    const uppers = this.#uppers
    return this.#rows
      .map((row, i) => ({ row, upper: uppers[i] as number }))
      .filter(({ upper }) => upper >= floor)
      .toSorted((a, b) => b.upper - a.upper)
  }
}
