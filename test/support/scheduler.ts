import { Client } from 'pg'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Database, Result, Session } from '../../server/postgres/database.ts'
import { centralTypes } from '../../server/postgres/types.ts'

/** Runs one statement when the scheduler says so. */
export type Query = <R = Record<string, unknown>>(
  sql: string,
  parameters?: readonly unknown[],
) => Promise<Result<R>>

interface Actor {
  readonly name: string
  readonly client: Client
  readonly pid: number
  /** Set while it waits to be let on. */
  grant: (() => void) | undefined
  isDone: boolean
  failure: unknown
  /** Resolves when it asks for its next statement, or is done. */
  arrived: Promise<void>
  arrive: () => void
}

/**
 * Steps several connections to a real PostgreSQL statement by statement: who goes next is drawn from a seed, so that an
 * interleaving can be run again. One statement runs at a time, but for those that PostgreSQL makes wait: who is blocked
 * shows in `pg_blocking_pids`, and the others go on.
 */
export class Scheduler implements AsyncDisposable {
  readonly #url: string
  readonly #random: () => number
  readonly #observer: Client
  readonly #actors: Actor[] = []
  /** What was run, in order: for whoever reads a failing seed. */
  readonly trace: string[] = []

  private constructor(url: string, random: () => number, observer: Client) {
    this.#url = url
    this.#random = random
    this.#observer = observer
  }

  static async open(url: string, random: () => number): Promise<Scheduler> {
    const observer = new Client({ connectionString: url })
    await observer.connect()
    return new Scheduler(url, random, observer)
  }

  /** Adds an actor; it runs up to its first statement and waits there. */
  async add(name: string, work: (query: Query) => Promise<void>): Promise<void> {
    const client = new Client({ connectionString: this.#url, types: centralTypes })
    await client.connect()
    // Of two that wait for each other the one that came first gives in: the same one on every run.
    const patience = 40 + 200 * this.#actors.length
    const { rows } = await client.query<{ pid: number }>(
      `SELECT pg_backend_pid() AS pid, set_config('deadlock_timeout', '${patience}ms', false)`,
    )
    const actor: Actor = {
      name,
      client,
      pid: rows[0]?.pid ?? 0,
      grant: undefined,
      isDone: false,
      failure: undefined,
      arrived: Promise.resolve(),
      arrive: () => undefined,
    }
    this.#actors.push(actor)
    expectArrival(actor)
    const query: Query = async (sql, parameters = []) => {
      const granted = new Promise<void>((grant) => (actor.grant = grant))
      actor.arrive()
      await granted
      const result = await client.query(sql, [...parameters])
      return { rows: result.rows as never[], rowCount: result.rowCount ?? 0 }
    }
    void work(query)
      .catch((error: unknown) => (actor.failure = error))
      .finally(() => {
        actor.isDone = true
        actor.arrive()
      })
    await actor.arrived
  }

  /** Lets all run to their end; returns what each failed with. */
  async run(): Promise<ReadonlyMap<string, unknown>> {
    for (;;) {
      const ready = this.#actors.filter(({ grant }) => grant !== undefined)
      const next = ready[Math.floor(this.#random() * ready.length)]
      if (next === undefined) {
        const waiting = this.#actors.filter(({ isDone }) => !isDone)
        if (waiting.length === 0) break
        // All that are left wait for each other; PostgreSQL ends it.
        await Promise.race(waiting.map(({ arrived }) => arrived))
        continue
      }
      this.trace.push(next.name)
      const { grant } = next
      next.grant = undefined
      expectArrival(next)
      grant?.()
      await this.#settle()
    }
    return new Map(this.#actors.map(({ name, failure }) => [name, failure]))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { client } of this.#actors) await client.end()
    await this.#observer.end()
  }

  /** Waits until everyone has arrived at a statement or at the end, or is blocked by another. */
  async #settle(): Promise<void> {
    for (;;) {
      const busy = this.#actors.filter(({ grant, isDone }) => grant === undefined && !isDone)
      if (busy.length === 0) return
      await Promise.race([...busy.map(({ arrived }) => arrived), sleep(2)])
      const still = busy.filter(({ grant, isDone }) => grant === undefined && !isDone)
      if (still.length === 0) continue
      const { rows } = await this.#observer.query<{ all: boolean }>(
        'SELECT bool_and(cardinality(pg_blocking_pids(pid)) > 0) AS all FROM unnest($1::integer[]) pid',
        [still.map(({ pid }) => pid)],
      )
      if (
        rows[0]?.all === true &&
        still.every(({ grant, isDone }) => grant === undefined && !isDone)
      )
        return
    }
  }
}

function expectArrival(actor: Actor): void {
  actor.arrived = new Promise((arrive) => (actor.arrive = arrive))
}

/**
 * A centre's database whose every statement waits for the scheduler, for one actor: what runs on it is the product's own
 * code. `rewrite` plants a mistake.
 */
export function steppedDatabase(
  query: Query,
  rewrite: (sql: string) => string = (sql) => sql,
): Database {
  const run: Session['query'] = (sql, parameters) => query(rewrite(sql), parameters)
  const session: Session = { query: run }
  const transaction = async <T>(
    work: (inner: Session) => Promise<T>,
    mode = 'READ COMMITTED',
  ): Promise<T> => {
    await query(`BEGIN ISOLATION LEVEL ${mode}`)
    try {
      const value = await work(session)
      await query('COMMIT')
      return value
    } catch (error) {
      await query('ROLLBACK')
      throw error
    }
  }
  return { kind: 'postgres', query: run, transaction } as unknown as Database
}
