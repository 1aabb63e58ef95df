import type { StoredRow } from '../../../schema/codec.ts'
import type { UserRole } from '../../../schema/enums.ts'
import type { Window } from '../../../server/sync/push/missing.ts'
import type { WireConflict, WireOutcome } from '../../../sync/protocol/messages.ts'
import { tableOfNumber } from '../../../schema/tables.ts'
import { unknownAt } from '../unknown-at.ts'
import { DatabaseError } from './database-error.ts'
import { Locks, type Strength } from './locks.ts'
import { VersionedMap } from './versioned.ts'

/** A change: transaction, hybrid clock, client. */
export type Change = readonly [xid: string, clock: number, writer: string | null]
/** Last change of a column, and those of others that are still in its value. */
export type ColumnStamp = readonly [...change: Change, unseen?: readonly Change[]]

/** `sync.row_meta` */
export interface RowMeta {
  readonly keys: readonly string[]
  readonly keysBefore: readonly string[]
  readonly deleted: boolean
  readonly made: Change
  readonly cols: Readonly<Record<string, ColumnStamp>>
}

/** `sync.log` */
export interface LogRow {
  readonly seq: number
  readonly xid: number
  readonly tbl: number
  readonly id: string
  /** The row, or what travels beside rows (a watermark, an outcome, a conflict); null is gone. */
  readonly image: Readonly<Record<string, unknown>> | null
  readonly isRow: boolean
  readonly keysBefore: readonly string[]
  readonly keysAfter: readonly string[]
}

export interface ClientRow {
  readonly userId: string
  readonly agentId: string
  readonly seq: number
  readonly txId: string | null
  readonly isIntroduced: boolean
  /** What the store was before it forked, and the clock up to which its mutations are this store's own. */
  readonly ancestor: string | null
  readonly commonClock: number | null
}

/** `pg_snapshot`: what was committed when it was taken. */
export interface SnapshotData {
  readonly xmax: number
  readonly running: ReadonlySet<number>
  /** How many transactions had committed; the model's own measure, which no product code sees. */
  readonly commits: number
  /** Entries of the log that were committed, those that were dropped since included. */
  readonly logged: number
}

/** `sync.fork` */
export interface ForkRow {
  readonly commonNonce: string | null
  readonly commonPosition: number
  readonly decision: 'all' | 'after' | 'none' | null
  readonly afterClock: number | null
  /** Microseconds since 1970. */
  readonly openUntil: number | null
}

/** `sync.tombstone` */
export interface TombstoneRow {
  readonly tbl: number
  readonly id: string
  readonly userId: string
  readonly role: UserRole
}

/** What the database was, up to where a history of it reached: checks ask of it, no product code. */
export interface Past {
  readonly rows: VersionedMap<StoredRow>
  readonly clients: VersionedMap<ClientRow>
  readonly batches: readonly BatchRow[]
}

export interface BatchRow {
  readonly position: number
  readonly nonce: string
  readonly snapshot: SnapshotData
  /** When it was made, microseconds since 1970. */
  readonly at: number
  /** Whether the centre has it no longer; those who check still need it. */
  isThinned: boolean
}

export const isVisibleIn =
  ({ xmax, running }: SnapshotData) =>
  (xid: number): boolean =>
    xid < xmax && !running.has(xid)

/** As `pg_snapshot` prints it. */
export function snapshotText({ xmax, running }: SnapshotData): string {
  const list = [...running].toSorted((a, b) => a - b)
  return `${list[0] ?? xmax}:${xmax}:${list.join(',')}`
}

export const rowKey = (tbl: number, id: string): string => `${tbl}:${id}`

/** One transaction of the model. What it writes is its own until it commits. */
export class Transaction {
  readonly xid: number
  /** `now()`, microseconds since 1970. */
  readonly startedAt: number
  readonly startedAfterCommits: number
  readonly lockKeys = new Set<string>()
  readonly log: LogRow[] = []
  readonly #writes = new Map<VersionedMap<unknown>, Map<string, unknown>>()
  readonly #database: ModelDatabase
  isOpen = true
  /** Told to the observer at commit. */
  note: unknown

  constructor(database: ModelDatabase, xid: number) {
    this.#database = database
    this.xid = xid
    this.startedAt = database.clock()
    this.startedAfterCommits = database.commits
  }

  mustBeOpen(): void {
    if (!this.isOpen) throw new DatabaseError('57P01', 'terminating connection')
  }

  lock(key: string, strength: Strength): Promise<void> {
    return this.#database.locks.acquire(this, key, strength)
  }

  ownWrites(map: object): Map<string, unknown> | undefined {
    return this.#writes.get(map as VersionedMap<unknown>)
  }

  write<V>(map: VersionedMap<V>, key: string, value: V | undefined): void {
    this.mustBeOpen()
    const erased = map as VersionedMap<unknown>
    let own = this.#writes.get(erased)
    if (own === undefined) this.#writes.set(erased, (own = new Map()))
    own.set(key, value)
  }

  get writes(): ReadonlyMap<VersionedMap<unknown>, ReadonlyMap<string, unknown>> {
    return this.#writes
  }
}

/** Sees each commit as it happens, in commit order. */
export type CommitObserver = (transaction: Transaction) => void

/**
 * PostgreSQL as far as sync needs it: row versions, row locks, snapshots, transactions that commit in another order than
 * they began, and the side tables of `sync`.
 */
export class ModelDatabase {
  readonly rows = new VersionedMap<StoredRow>()
  readonly meta = new VersionedMap<RowMeta>()
  readonly clients = new VersionedMap<ClientRow>()
  readonly applied = new VersionedMap<{ clientId: string; seq: number; clock: number }>()
  /** Transactions that came again under another client's number. */
  readonly repeated = new VersionedMap<string>()
  readonly outcomes = new VersionedMap<{ clientId: string; outcome: WireOutcome }>()
  readonly rejected = new VersionedMap<{ seq: number; n: number }>()
  readonly conflicts = new VersionedMap<WireConflict>()
  readonly forks = new VersionedMap<ForkRow>()
  /** By client how many transactions its store brought when it healed. */
  readonly healed = new VersionedMap<number>()
  /** By transaction the client that it waits for. */
  /** Whose transactions wait, and which rows they make. */
  readonly parked = new VersionedMap<{ clientId: string; makes: readonly string[] }>()
  readonly tombstones = new VersionedMap<TombstoneRow>()
  /** Histories that were lost, the oldest first. */
  readonly pasts: Past[] = []
  readonly log: LogRow[] = []
  readonly batches: BatchRow[] = []
  readonly histories: { nonce: string; firstPosition: number; started: number }[] = []
  readonly locks = new Locks()
  readonly clock: () => number
  readonly #running = new Set<Transaction>()
  readonly #onCommit: CommitObserver
  /** Of each commit its transaction, and how many entries the log had had by then. */
  readonly #commitRows: { readonly xid: number; readonly logged: number }[] = []
  /** What retention dropped, and after which commit: going back brings it back. */
  readonly #pruned: { readonly commit: number; readonly undo: () => void }[] = []
  #nextXid = 700
  #nextSeq = 1
  commits = 0
  /** Entries that the log ever had. */
  logged = 0
  /** Below this position the log is gone. */
  floor = 0
  /** `pg_postmaster_start_time()` */
  started = 1

  /** The version of the schema that it was migrated to. */
  schema: number

  constructor(clock: () => number, onCommit: CommitObserver, schema: number) {
    this.clock = clock
    this.#onCommit = onCommit
    this.schema = schema
  }

  get isBusy(): boolean {
    return this.#running.size > 0
  }

  /**
   * Adds the columns that came since, each with what its table says of rows that were there before. No trigger sees
   * that, and the log stays as it is. A database that goes back further is migrated again by whoever starts it.
   */
  migrate(version: number): void {
    for (const rows of [this.rows, ...this.pasts.map((past) => past.rows)])
      rows.rewrite((key, row) => {
        const table = tableOfNumber(Number(key.split(':')[0]))
        return table === undefined ? row : { ...unknownAt(table, this.schema), ...row }
      })
    this.schema = version
  }

  begin(): Transaction {
    const transaction = new Transaction(this, this.#nextXid++)
    this.#running.add(transaction)
    return transaction
  }

  snapshot(): SnapshotData {
    return {
      xmax: this.#nextXid,
      running: new Set([...this.#running].map(({ xid }) => xid)),
      commits: this.commits,
      logged: this.logged,
    }
  }

  drawSeq(): number {
    return this.#nextSeq++
  }

  commit(transaction: Transaction): void {
    transaction.mustBeOpen()
    const { xid } = transaction
    const commit = this.commits + 1
    for (const [map, writes] of transaction.writes)
      for (const [key, value] of writes) map.install(key, value, { xid, commit })
    this.log.push(...transaction.log)
    this.logged += transaction.log.length
    this.commits = commit
    this.#commitRows.push({ xid, logged: this.logged })
    this.#onCommit(transaction)
    this.#end(transaction)
  }

  /** Drops something for good, as far as nothing goes back to before. */
  drop(work: () => void, undo: () => void): void {
    work()
    this.#pruned.push({ commit: this.commits, undo })
  }

  rollBack(transaction: Transaction): void {
    if (transaction.isOpen) this.#end(transaction)
  }

  #end(transaction: Transaction): void {
    transaction.isOpen = false
    this.#running.delete(transaction)
    this.locks.release(transaction)
  }

  /** The server dies and comes back: what was not committed never was. */
  restart(): void {
    this.started += 1
    for (const transaction of Array.from(this.#running)) this.rollBack(transaction)
  }

  /**
   * The server dies, and comes back with what it was at an earlier commit: what was committed since never was. Numbers
   * of transactions, of the sequence and of positions are given out anew.
   */
  goBack(commit: number): void {
    this.restart()
    const { rows, meta, clients, applied, repeated, outcomes, rejected, conflicts } = this
    const past = { rows: rows.goBack(commit), clients: clients.goBack(commit) }
    this.pasts.push({ ...past, batches: [...this.batches] })
    for (const table of [meta, applied, repeated, outcomes, rejected, conflicts])
      table.goBack(commit)
    for (const table of [this.forks, this.healed, this.parked, this.tombstones])
      table.goBack(commit)
    this.commits = commit
    this.#commitRows.length = commit
    while ((this.#pruned.at(-1)?.commit ?? -1) >= commit) this.#pruned.pop()?.undo()
    const left = new Set(this.#commitRows.map(({ xid }) => xid))
    keepFirst(this.log, ({ xid }) => left.has(xid))
    this.logged = this.#commitRows.at(-1)?.logged ?? 0
    keepFirst(this.batches, ({ snapshot }) => snapshot.commits < commit)
    const head = this.batches.at(-1)?.position ?? 0
    keepFirst(this.histories, ({ firstPosition }) => firstPosition <= head)
    this.#nextXid = Math.max(
      ...this.#commitRows.map(({ xid }) => xid + 1),
      ...this.batches.map(({ snapshot }) => snapshot.xmax),
    )
    this.#nextSeq = Math.max(0, ...this.log.map(({ seq }) => seq)) + 1
  }

  /** The database that had a position of a history, also one that it lost; undefined where none ever had. */
  pastOf(nonce: string | null, position: number): (Past & { batch: BatchRow }) | undefined {
    for (const past of [this, ...this.pasts.toReversed()]) {
      const batch = past.batches.find((each) => each.position === position && each.nonce === nonce)
      if (batch !== undefined) return { ...pick(past), batch }
    }
    return undefined
  }

  /** Runs `work` in a transaction; a failure of the COMMIT itself cannot happen here. */
  async transaction<T>(work: (transaction: Transaction) => Promise<T>): Promise<T> {
    const transaction = this.begin()
    try {
      const result = await work(transaction)
      this.commit(transaction)
      return result
    } catch (error) {
      this.rollBack(transaction)
      throw error
    }
  }

  /** Whether rows that are not there may come back, because the centre had them and lost them. */
  window(): Window {
    const forks = [...this.forks.entries()].map(([, fork]) => fork)
    if (forks.length === 0) return 'none'
    const isOpen = forks.some(
      ({ decision, openUntil }) => decision !== 'none' && (openUntil ?? 0) > this.clock(),
    )
    return isOpen ? 'open' : 'over'
  }

  /** Whether a position is one of this centre's past, under a nonce. */
  isOfThisHistory(nonce: string, position: number): boolean {
    const at = this.histories.findIndex((history) => history.nonce === nonce)
    const next = this.histories[at + 1]
    const head = this.batches.at(-1)?.position ?? 0
    return at !== -1 && position <= head && (next === undefined || position < next.firstPosition)
  }

  /** Rows of a table that a statement sees. */
  *rowsOf(tbl: number, reader?: Transaction): Iterable<StoredRow> {
    for (const [key, row] of this.rows.entries(reader)) if (key.startsWith(`${tbl}:`)) yield row
  }
}

const pick = ({ rows, clients, batches }: Past): Past => ({ rows, clients, batches })

/** Cuts off the rest of a list, from the first on that is not to be kept. */
function keepFirst<T>(list: T[], isKept: (one: T) => boolean): void {
  const end = list.findIndex((one) => !isKept(one))
  if (end !== -1) list.length = end
}
