import type { Database } from '../postgres/database.ts'
import { readLog, type LogEntry } from './log-entry.ts'
import { advance, latestBatch, type Batch } from './positions.ts'

interface TailedBatch {
  readonly batch: Batch
  readonly entries: readonly LogEntry[]
  /** Indexes of the entries that concern a scope key, ascending. */
  readonly byKey: ReadonlyMap<string, readonly number[]>
  readonly bytes: number
}

/** Memory the tail keeps of recent batches; whoever is further behind reads the log itself. */
const TAIL_BYTES_MAX = 64 * 1024 * 1024
const TAIL_BATCHES_MAX = 4096

/**
 * A server's one reader of the log. Every waiting client is served from its memory, so that the database does the work
 * of a batch once, not once a client.
 */
export class LogTail {
  readonly #database: Database
  readonly #pollMs: number
  readonly #waiting = new Set<() => void>()
  #recent: TailedBatch[] = []
  #bytes = 0
  #head: Batch | undefined
  /** Latest batch that this server made. */
  #made = 0
  #running: Promise<void> | undefined
  #next: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(database: Database, pollMs: number) {
    this.#database = database
    this.#pollMs = pollMs
  }

  /** Newest batch that was read; undefined before the first {@link refresh}. */
  get head(): Batch | undefined {
    return this.#head
  }

  /**
   * Makes a batch of what is committed, if anything is, and reads up to it. A pass that already runs may be too early
   * for what the caller has just committed, so the caller gets the one after it; all who wait share that one.
   */
  refresh(): Promise<void> {
    if (this.#running === undefined) {
      this.#running = this.#pass().finally(() => {
        this.#running = undefined
      })
      return this.#running
    }
    this.#next ??= this.#running
      .catch(() => undefined)
      .then(() => {
        this.#next = undefined
        return this.refresh()
      })
    return this.#next
  }

  /** Another server made a batch. Notices of our own come back, too. */
  noticed(position: number): void {
    const known = Math.max(this.#made, this.#head?.position ?? 0)
    if (this.#closed || this.#waiting.size === 0 || position <= known) return
    void this.refresh().catch(() => undefined)
  }

  /** Batches after a position that memory still has, oldest first; undefined where it does not reach back that far. */
  since(position: number): readonly TailedBatch[] | undefined {
    if (this.#head?.position === position) return []
    const first = this.#recent.findIndex(({ batch }) => batch.position === position + 1)
    return first === -1 ? undefined : this.#recent.slice(first)
  }

  /**
   * Entries of `(position, to]` that concern some scope keys, in order; undefined like {@link since}. What others write
   * costs nothing here: of a thousand clients that wait, each would look at all of it.
   */
  entriesSince(
    position: number,
    to: number,
    keys: readonly string[],
  ): readonly LogEntry[] | undefined {
    return this.since(position)?.flatMap((tailed) =>
      tailed.batch.position <= to ? concerning(tailed, keys) : [],
    )
  }

  /** Nothing comes any more: whoever would wait must answer. */
  get isClosed(): boolean {
    return this.#closed
  }

  /** Resolves once there is a batch after `position`, or after `ms`, or when the signal aborts. */
  async waitForBatch(position: number, ms: number, signal: AbortSignal): Promise<void> {
    // It may have come while the caller was still reading up to `position`.
    if (signal.aborted || this.#closed || (this.#head?.position ?? 0) > position) return
    this.#poll()
    await new Promise<void>((done) => {
      const finish = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', finish)
        this.#waiting.delete(finish)
        done()
      }
      const timer = setTimeout(finish, ms)
      signal.addEventListener('abort', finish)
      this.#waiting.add(finish)
    })
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    for (const wake of this.#waiting) wake()
    await this.#running?.catch(() => undefined)
  }

  /** While someone waits, writes of others at the centre are looked for; without anyone waiting, nothing runs. */
  #poll(): void {
    if (this.#timer !== undefined || this.#closed) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      if (this.#waiting.size === 0) return
      // A database that is away shows at the next request; polling goes on.
      void this.refresh()
        .catch(() => undefined)
        .finally(() => this.#poll())
    }, this.#pollMs)
  }

  async #pass(): Promise<void> {
    // In turn: another server's batch may be of a moment before what the caller has committed.
    const made = await advance(this.#database, true)
    this.#made = made?.position ?? this.#made
    const before = this.#head
    if (before === undefined) {
      this.#head = (await latestBatch(this.#database)) ?? (await advance(this.#database, true))
      return
    }
    if (made?.position === before.position + 1 && made.nonce === before.nonce) {
      await this.#read(made)
    } else {
      const [stands, ...later] = await this.#batchesFrom(before.position)
      const isPast = stands?.position === before.position && stands.nonce === before.nonce
      if (!isPast) await this.#beginAnew()
      else for (const batch of later) await this.#read(batch)
    }
    if (this.#head !== before) for (const wake of this.#waiting) wake()
  }

  /** The database went back under this server, to before what it has read: none of that is its past any more. */
  async #beginAnew(): Promise<void> {
    this.#recent = []
    this.#bytes = 0
    this.#head = await latestBatch(this.#database)
    this.#made = this.#head?.position ?? 0
  }

  async #batchesFrom(position: number): Promise<Batch[]> {
    const { rows } = await this.#database.query<Batch>(
      'SELECT position, nonce, snapshot::text AS snapshot FROM sync.batch WHERE position >= $1 ORDER BY position',
      [position],
    )
    return rows
  }

  async #read(batch: Batch): Promise<void> {
    const from = this.#head
    if (from === undefined) return
    const entries = await readLog(this.#database, { from: from.snapshot, to: batch.snapshot })
    const bytes = entries.reduce((sum, { image }) => sum + 200 + (image?.length ?? 0), 0)
    this.#recent.push({ batch, entries, byKey: indexByKey(entries), bytes })
    this.#bytes += bytes
    this.#head = batch
    while (
      this.#recent.length > TAIL_BATCHES_MAX ||
      (this.#bytes > TAIL_BYTES_MAX && this.#recent.length > 1)
    ) {
      this.#bytes -= this.#recent.shift()?.bytes ?? 0
    }
  }
}

function indexByKey(entries: readonly LogEntry[]): Map<string, number[]> {
  const byKey = new Map<string, number[]>()
  for (const [i, { keysBefore, keysAfter }] of entries.entries())
    for (const key of new Set([...keysBefore, ...keysAfter])) {
      const known = byKey.get(key)
      if (known === undefined) byKey.set(key, [i])
      else known.push(i)
    }
  return byKey
}

function concerning({ entries, byKey }: TailedBatch, keys: readonly string[]): LogEntry[] {
  const found = new Set(keys.flatMap((key) => byKey.get(key) ?? []))
  return [...found].toSorted((a, b) => a - b).flatMap((i) => entries[i] ?? [])
}
