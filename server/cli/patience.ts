import { setTimeout as sleep } from 'node:timers/promises'
import { AgentDBError } from '../../schema/errors.ts'
import type { Database } from '../postgres/database.ts'
import { followerError } from '../vectors/report.ts'
import { printError } from './output.ts'

/** How often it is looked at what the server that follows the log fails at. */
const LOOK_EVERY_MS = 1000

/**
 * Waiting for Qdrant to follow. A server that holds the lease and cannot do the work is the only one that knows why: what
 * it notes is said here, so that nobody waits before a silent screen, and when the time is over the command ends with it.
 */
export class Patience implements AsyncDisposable {
  readonly #database: Database
  readonly #over = new AbortController()
  readonly #ended = new AbortController()
  readonly #timer: NodeJS.Timeout | undefined
  #watching: Promise<void> | undefined
  #failure: string | undefined

  /** Without `seconds` there is no end to it. */
  constructor(database: Database, seconds: number | undefined) {
    this.#database = database
    if (seconds !== undefined)
      this.#timer = setTimeout(() => this.#over.abort(this.#lost(seconds)), seconds * 1000)
  }

  /** Its reason is the error that the command ends with. */
  get signal(): AbortSignal {
    return this.#over.signal
  }

  /** Looks at what others fail at, from now until the end. */
  watch(): void {
    this.#watching ??= this.#watch()
  }

  /** Says what went wrong, unless it was just said. */
  tell(failure: string): void {
    if (failure === this.#failure) return
    this.#failure = failure
    printError(`agentdb: ${failure}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#timer)
    this.#ended.abort()
    await this.#watching
  }

  async #watch(): Promise<void> {
    const { signal } = this.#ended
    try {
      while (!signal.aborted) {
        const failure = await followerError(this.#database)
        if (failure === null) this.#failure = undefined
        else this.tell(failure)
        await sleep(LOOK_EVERY_MS, undefined, { signal })
      }
    } catch {
      // The end, or the database is away: then the command fails by itself.
    }
  }

  #lost(seconds: number): AgentDBError {
    const why = this.#failure ?? 'run it again, with a longer --timeout, and it goes on'
    return new AgentDBError('QDRANT_UNREACHABLE', `not done within ${seconds} s: ${why}`)
  }
}
