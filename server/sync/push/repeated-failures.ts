/**
 * Failures that make a transaction hopeless. Its client waits longer before each push, so what only met somebody's locks
 * has passed by the fifth, and the queue behind it does not wait for hours.
 */
const FAILURES_MAX = 5
/** Transactions remembered; beyond, the one that has not failed for the longest is forgotten and starts anew. */
const REMEMBERED_MAX = 10_000

interface Entry {
  readonly failures: number
  /** The count of commits when it last failed. */
  readonly commits: number
}

/**
 * Tells a transaction that the database will never take from a database that takes nothing. In memory: a restart only
 * makes it count anew.
 *
 * A failure counts if rows of others were committed since the one before, so that none counts during an outage,
 * however long it takes and however often it is tried.
 */
export class RepeatedFailures {
  readonly #entries = new Map<string, Entry>()
  #commits = 0

  /** Whether it has failed before, and not passed since. */
  has(key: string): boolean {
    return this.#entries.has(key)
  }

  /** Notes a failure; true once there were too many. */
  failed(key: string): boolean {
    const before = this.#entries.get(key)
    const counts = before === undefined || before.commits < this.#commits
    const failures = (before?.failures ?? 0) + (counts ? 1 : 0)
    this.#entries.delete(key)
    this.#entries.set(key, { failures, commits: this.#commits })
    const [oldest] = this.#entries.keys()
    if (this.#entries.size > REMEMBERED_MAX && oldest !== undefined) this.#entries.delete(oldest)
    return failures >= FAILURES_MAX
  }

  /** Notes a commit. One that wrote no rows says nothing about the database. */
  passed(keys: readonly string[], wrote: boolean): void {
    for (const key of keys) this.#entries.delete(key)
    if (wrote) this.#commits += 1
  }
}
