/** How many rows the next slice takes, so that the event loop waits for none much longer than another. */
export class Pace {
  #rows = SLICE_ROWS_MIN

  /** Does one slice, of at most so many rows, and learns from how long it took. */
  slice<T>(work: (rowsMax: number) => T): T {
    const startedAt = performance.now()
    const done = work(this.#rows)
    const ms = performance.now() - startedAt
    const wanted = Math.round((this.#rows * SLICE_MS) / Math.max(ms, 0.1))
    this.#rows = Math.min(
      SLICE_ROWS_MAX,
      Math.max(SLICE_ROWS_MIN, Math.min(wanted, this.#rows * 2)),
    )
    return done
  }
}

/** What a slice may take, milliseconds: the event loop waits no longer. */
const SLICE_MS = 4
const SLICE_ROWS_MIN = 16
const SLICE_ROWS_MAX = 4096
