import Database from 'better-sqlite3'
import type { Random } from './random.ts'

/** What the simulator wants of one open store. */
export interface StoreHook {
  /** Wall clock of the machine that the store is on, microseconds since 1970. */
  readonly clock: () => number
  /** Told of every change of `synchronous`. */
  readonly onSynchronous: (mode: string) => void
}

/** The process of a store ends here: nothing after this runs in it. */
export class CrashSignal extends Error {}

interface PlannedCrash {
  readonly path: string
  /** Statements until it happens. */
  left: number
  /** Whether the statement is still carried out: a COMMIT that the caller never hears of. */
  readonly isAfter: boolean
}

type Method = (this: Database.Statement, ...parameters: unknown[]) => unknown

const own = Symbol('prepared for the simulator')

/**
 * Hooks into better-sqlite3 below the product, for as long as a run lasts: SQLite's clock and randomness come from the
 * run, and a store can be made to die at any statement. Nothing of the product knows.
 */
export class SqliteHooks implements Disposable {
  readonly #random: Random
  readonly #stores = new Map<string, StoreHook>()
  readonly #undo: (() => void)[] = []
  readonly #open = new Set<Database.Database>()
  #crash: PlannedCrash | undefined
  /** Statements that ran, of all stores. */
  statements = 0

  constructor(random: Random) {
    this.#random = random
    const probe = new Database(':memory:')
    const statement: object = Object.getPrototypeOf(probe.prepare('SELECT 1')) as object
    probe.close()
    for (const name of ['run', 'get', 'all'] as const) this.#wrapStatement(statement, name)
    this.#wrapExec()
    this.#wrapPragma()
  }

  register(path: string, hook: StoreHook): void {
    this.#stores.set(path, hook)
  }

  /** Lets the store of `path` die at a statement that it comes to. */
  planCrash(path: string, statements: number, isAfter: boolean): void {
    this.#crash = { path, left: statements, isAfter }
  }

  /** Whether a planned crash has not happened. */
  cancelCrash(): boolean {
    const isPending = this.#crash !== undefined
    this.#crash = undefined
    return isPending
  }

  #guard<T>(database: Database.Database, work: () => T): T {
    this.statements += 1
    const crash = this.#crash
    if (crash === undefined || crash.path !== database.name || --crash.left > 0) return work()
    this.#crash = undefined
    if (crash.isAfter) work()
    // SQLite rolls back what was open; every later use of the connection throws.
    database.close()
    throw new CrashSignal('the process of the store has died')
  }

  #wrapStatement(prototype: object, name: 'run' | 'get' | 'all'): void {
    const original = Reflect.get(prototype, name) as Method
    const guard = this.#guard.bind(this)
    this.#replace(prototype, name, function (this: Database.Statement, ...parameters: unknown[]) {
      return guard(this.database, () => original.apply(this, parameters))
    })
  }

  #wrapExec(): void {
    const original = Reflect.get(Database.prototype, 'exec') as (sql: string) => unknown
    const guard = this.#guard.bind(this)
    this.#replace(Database.prototype, 'exec', function (this: Database.Database, sql: string) {
      return guard(this, () => original.call(this, sql))
    })
  }

  /** The first thing that a connection does is to set its pragmas: there it gets its functions. */
  #wrapPragma(): void {
    const original = Reflect.get(Database.prototype, 'pragma')
    const prepare = (database: Database.Database): void => this.#prepare(database)
    const hookOf = (path: string): StoreHook | undefined => this.#stores.get(path)
    this.#replace(
      Database.prototype,
      'pragma',
      function (this: Database.Database, text: string, options?: object) {
        prepare(this)
        const result = original.call(this, text, options)
        const mode = /^synchronous = (\w+)$/i.exec(text)?.[1]
        if (mode !== undefined) hookOf(this.name)?.onSynchronous(mode.toLowerCase())
        return result
      },
    )
  }

  /** A process ends: every connection it has to a store and to the lock beside it is gone at once. */
  endProcess(path: string): void {
    for (const database of this.#open) {
      if (database.name === path || database.name === `${path}-sync`) database.close()
      if (!database.open) this.#open.delete(database)
    }
  }

  #prepare(database: Database.Database): void {
    this.#open.add(database)
    const hook = this.#stores.get(database.name)
    if (hook === undefined || Reflect.has(database, own)) return
    Reflect.set(database, own, true)
    const nowMs = (): number => Math.floor(hook.clock() / 1000)
    database.function('randomblob', (size: unknown) => {
      const bytes = Buffer.alloc(Number(size))
      this.#random.randomize(bytes)
      return bytes
    })
    database.function('random', () => this.#random.below(2 ** 31))
    database.function('unixepoch', (modifier: unknown) => {
      if (modifier !== 'subsec') throw new Error(`not simulated: unixepoch(${String(modifier)})`)
      return nowMs() / 1000
    })
    database.function('strftime', (format: unknown, time: unknown) => {
      if (format !== '%Y-%m-%dT%H:%M:%f000Z' || time !== 'now')
        throw new Error(`not simulated: strftime(${String(format)}, ${String(time)})`)
      return new Date(nowMs()).toISOString().replace('Z', '000Z')
    })
  }

  #replace(target: object, name: string, value: unknown): void {
    const original: unknown = Reflect.get(target, name)
    Reflect.set(target, name, value)
    this.#undo.push(() => Reflect.set(target, name, original))
  }

  [Symbol.dispose](): void {
    for (const undo of this.#undo) undo()
  }
}
