import type { StoredRow } from '../../schema/codec.ts'
import { agentColumns, mustColumn, references, type TableDefinition } from '../../schema/define.ts'
import { loggedMutations } from '../../schema/sqlite/logged-images.ts'
import { mustTable, referencesTo, tableOfNumber } from '../../schema/tables.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import { ROWS_AT_ONCE, type Connection, type Identity } from '../../src/internal-for-sync.ts'
import { sameStored } from '../merge/merge-update.ts'
import type { PullResponse } from '../protocol/messages.ts'
import { acknowledge, mustBeOurWatermark } from './acknowledge.ts'
import { completed, decodeBase, encodeImage, stubImage } from './image.ts'
import { cameOf, expectRows, isAwaited } from './hydration.ts'
import { LostRows } from './lost-rows.ts'
import { OutcomeLog, type Outcome } from './outcome-log.ts'
import { pendingOf, visibleRow, type PendingMutation } from './pending.ts'
import { hasPendingStatistics, pendingStatistics, withStatistics } from './pending-statistics.ts'
import { namesAt, PlaceholderMarks } from './placeholder-marks.ts'
import { rowReader } from './received-row.ts'
import { keyOf, type RowRef } from './row-ref.ts'
import { RowWriter } from './row-writer.ts'
import { isHealing, savePosition } from './store-position.ts'
import { sweepStubs } from './stubs.ts'

/** A row that a batch changed for the program. */
export interface Change {
  readonly table: string
  readonly id: string
  readonly op: 'insert' | 'update' | 'delete'
}

export interface AppliedBatch {
  readonly changes: readonly Change[]
  readonly outcomes: readonly Outcome[]
}

/** The local rows cannot be brought in line with a batch; only reading the whole scope helps. */
export class NeedsWholeScopeSignal extends Error {}

/**
 * Applies a batch of the centre in one SQLite transaction: rows, acknowledgements and cursor together (I2, I4).
 *
 *   authoritative image   what the centre has; the row itself, or `sync_base` while mutations are pending
 *   visible row           that image with the pending mutations on top
 *
 * A pending mutation that no longer fits is displaced, visible in `sync_conflicts`; it never stops a pull.
 */
export function applyBatch(
  connection: Connection,
  identity: Identity,
  batch: PullResponse,
  at: string,
): AppliedBatch {
  return connection.applying(() => new BatchApplication(connection, identity, batch, at).run())
}

class BatchApplication {
  readonly #connection: Connection
  readonly #identity: Identity
  readonly #batch: PullResponse
  readonly #at: string
  readonly #writer: RowWriter
  readonly #outcomes: OutcomeLog
  readonly #marks: PlaceholderMarks
  readonly #lost: LostRows
  /** The centre's schema version. */
  readonly #version: number
  /** Authoritative images that came; null is gone. */
  readonly #incoming = new Map<string, StoredRow | null>()
  /** Rows whose mutations were acknowledged in this batch. */
  readonly #acknowledged = new Set<string>()
  readonly #queue = new Map<string, RowRef>()
  /** Rows that were brought to what they should be; as they then are, where they were written. */
  readonly #touched = new Map<string, { readonly ref: RowRef; readonly row?: StoredRow }>()
  /** Rows that are being written: one makes room for another, which may need the place of the first. */
  readonly #writing = new Set<string>()
  readonly #changes = new Map<string, Change>()
  #referencesChanged = false
  /** Whether anything is pending, and whether any base is kept: a first sync has neither, and asks for no row. */
  #hasPending = true
  #hasBases = true

  constructor(connection: Connection, identity: Identity, batch: PullResponse, at: string) {
    this.#connection = connection
    this.#identity = identity
    this.#batch = batch
    this.#version = batch.schema ?? SCHEMA_VERSION
    this.#at = at
    this.#writer = new RowWriter(connection)
    this.#outcomes = new OutcomeLog(connection, identity.clientId)
    this.#marks = new PlaceholderMarks(connection)
    this.#lost = new LostRows(connection, isHealing(connection))
  }

  run(): AppliedBatch {
    mustBeOurWatermark(this.#connection, this.#batch.watermark)
    this.#takeRows()
    const {
      settled: outcomes,
      mutated,
      around,
      refused,
    } = acknowledge(this.#connection, this.#outcomes, this.#batch, this.#at)
    for (const ref of refused) this.#take(ref, null)
    for (const ref of mutated) {
      this.#acknowledged.add(keyOf(ref))
      this.#enqueue(ref)
    }
    for (const ref of around) this.#enqueue(ref)
    for (const conflict of this.#batch.conflicts) this.#outcomes.keepConflict(conflict, outcomes)
    this.#hasPending = this.#writer.holdsAny('sync_log')
    this.#hasBases = this.#writer.holdsAny('sync_base')
    if (this.#hasBases) this.#enqueueUncaused()
    this.#insertRuns()
    this.#settleAll()
    this.#settleReferences()
    if (this.#referencesChanged) sweepStubs(this.#connection, this.#writer)
    savePosition(this.#connection, this.#batch)
    return { changes: [...this.#changes.values()], outcomes }
  }

  #takeRows(): void {
    const { shapes, rows, gone, page } = this.#batch
    const readers = shapes.map(({ table, columns }) => rowReader(table, columns, this.#version))
    if (page?.first === true) expectRows(this.#connection, this.#version, page.tables)
    for (const [shape, values, placeholders] of rows) {
      const taken = readers[shape]?.(values)
      if (taken === undefined) continue
      const ref = { table: taken.table, id: String(taken.row['id']) }
      this.#take(ref, taken.row)
      if (placeholders !== undefined)
        this.#marks.add(ref, namesAt(ref.table, shapes[shape]?.columns ?? [], placeholders))
    }
    for (const [number, id] of gone) {
      const table = tableOfNumber(number)
      if (table !== undefined) this.#take({ table, id }, null)
    }
    if (page !== null) this.#takeMissing(page.last)
    this.#marks.save(this.#queue.values())
  }

  /** Of a whole scope: what has not come by the last page is not there. */
  #takeMissing(isLast: boolean): void {
    for (const ref of cameOf(this.#connection, this.#queue.values(), isLast)) this.#take(ref, null)
  }

  #take(ref: RowRef, row: StoredRow | null): void {
    this.#incoming.set(keyOf(ref), row)
    if (row !== null) this.#lost.cameBack(ref.table, ref.id)
    this.#enqueue(ref)
  }

  #enqueue(ref: RowRef): void {
    this.#queue.set(keyOf(ref), ref)
  }

  /** Rows whose derived columns alone were changed here, without a mutation that explains it, go back to what they were. */
  #enqueueUncaused(): void {
    const rows = this.#connection.all<{ tbl: number; id: string }>(
      'SELECT b.tbl, b.id FROM sync_base b WHERE NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = b.id AND l.tbl = b.tbl)',
    )
    for (const { tbl, id } of rows) {
      const table = tableOfNumber(tbl)
      if (table !== undefined && !hasPendingStatistics(this.#connection, id))
        this.#enqueue({ table, id })
    }
  }

  /** Removals first, then parents before children; rows that are displaced meanwhile come back into the queue. */
  #settleAll(): void {
    let rounds = 0
    while (this.#queue.size > 0) {
      if (++rounds > ROUNDS_MAX) throw new NeedsWholeScopeSignal('the batch does not come to rest')
      const round = [...this.#queue.values()].map((ref) => ({ ref, rank: this.#rank(ref) }))
      this.#queue.clear()
      round.sort((a, b) => a.rank - b.rank)
      for (const { ref } of round) this.#settle(ref)
    }
  }

  #rank(ref: RowRef): number {
    return this.#incoming.get(keyOf(ref)) === null ? ref.table.number - 1000 : ref.table.number
  }

  /** Brings one row to what it should be: its authoritative image with what is pending on top. */
  #settle(ref: RowRef): void {
    const { table, id } = ref
    if (this.#insertNew(ref)) return
    this.#touched.set(keyOf(ref), { ref })
    const current = this.#writer.read(table, id)
    const pending = this.#hasPending ? pendingOf(this.#connection, table, id) : []
    const delta =
      this.#hasPending && table.name === 'conversations'
        ? pendingStatistics(this.#connection, id)
        : undefined
    const base = this.#baseOf(ref, current, pending.length > 0)
    if (base === undefined) return
    // The store forgets the base of what is not pending any more; settled again, the row must not count as made here.
    if (this.#acknowledged.delete(keyOf(ref))) this.#incoming.set(keyOf(ref), base)
    this.#keepBase(ref, base, pending.length > 0 || delta !== undefined)
    this.#countOnce(ref, pending)
    const patched = visibleRow(table, base, pending, current)
    // A pending change of a row that is gone has nowhere to show; it must not just vanish (I3).
    if (patched === null && pending.findLast(({ blocked }) => !blocked)?.op === 'update')
      return this.#displace(ref, `${table.name}: the row is gone at the centre, or out of scope`)
    const visible = patched === null ? null : withStatistics(patched, delta)
    if (visible === null) this.#remove(ref, current)
    else
      this.#write(
        ref,
        visible,
        current,
        pending.some(({ blocked }) => !blocked),
      )
  }

  /**
   * A pending insert counts a message while the centre does not, and a pending delete takes it off while the centre counts
   * it. When the message comes or goes, its conversation may have been settled before it, also in an earlier page: it is
   * settled again.
   */
  #countOnce({ table, id }: RowRef, pending: readonly PendingMutation[]): void {
    if (table.name !== 'messages' || !this.#incoming.has(keyOf({ table, id }))) return
    if (!pending.some(({ op }) => op !== 'update')) return
    const row = this.#connection.get<{ ref: string }>(
      'SELECT ref FROM sync_log WHERE id = ? AND tbl = ? AND ref IS NOT NULL',
      id,
      table.number,
    )
    if (row !== undefined) this.#enqueue({ table: mustTable('conversations'), id: row.ref })
  }

  /** Of a scope that is read where nothing is pending, rows may go in without being looked for. */
  get #takesNewRows(): boolean {
    if (this.#batch.page === null || this.#hasPending || this.#hasBases) return false
    return this.#acknowledged.size === 0 && this.#version >= SCHEMA_VERSION
  }

  /** The most of a first sync, many rows a statement; those that it does not take stay in the queue. */
  #insertRuns(): void {
    const runs = new Map<TableDefinition, RowRef[]>()
    for (const ref of this.#takesNewRows ? this.#queue.values() : []) {
      const run = runs.get(ref.table) ?? []
      runs.set(ref.table, run)
      if (run.push(ref) < ROWS_AT_ONCE) continue
      this.#insertRun(ref.table, run)
      runs.delete(ref.table)
    }
  }

  #insertRun(table: TableDefinition, refs: readonly RowRef[]): void {
    const rows: StoredRow[] = []
    for (const ref of refs) {
      const row = this.#incoming.get(keyOf(ref))
      if (row == null) return
      rows.push(row)
    }
    if (!this.#writer.insertAllNew(table, rows)) return
    for (const [i, ref] of refs.entries()) {
      this.#queue.delete(keyOf(ref))
      this.#noteNew(ref, rows[i])
    }
  }

  /** A row that is not here, and nothing is pending. */
  #insertNew(ref: RowRef): boolean {
    if (!this.#takesNewRows) return false
    const row = this.#incoming.get(keyOf(ref))
    if (row == null || !this.#writer.insertNew(ref.table, row)) return false
    this.#noteNew(ref, row)
    return true
  }

  #noteNew(ref: RowRef, row: StoredRow | undefined): void {
    this.#note(ref, 'insert')
    this.#touched.set(keyOf(ref), { ref, ...(row && { row }) })
  }

  /** The authoritative image; undefined where the row is not the centre's to tell (audit rows of our own). */
  #baseOf(
    ref: RowRef,
    current: StoredRow | undefined,
    hasPending: boolean,
  ): StoredRow | null | undefined {
    const { table, id } = ref
    const came = this.#incoming.get(keyOf(ref))
    if (came === null || (came !== undefined && this.#version >= SCHEMA_VERSION)) return came
    const kept = this.#hasBases
      ? this.#connection.get<{ image: string | null }>(
          'SELECT image FROM sync_base WHERE id = ? AND tbl = ?',
          id,
          table.number,
        )
      : undefined
    const base = kept?.image == null ? undefined : decodeBase(table, kept.image)
    // What an older centre does not know stays as it is here.
    if (came !== undefined) return completed(table, came, base ?? current)
    if (kept !== undefined) return base ?? null
    if (table.writeClass === 'push-only') return undefined
    // Without a base it was made here: not yet acknowledged, or refused.
    const isOwn =
      this.#acknowledged.has(keyOf(ref)) || (hasPending && madeHere(this.#connection, table, id))
    return isOwn ? null : (current ?? null)
  }

  #keepBase({ table, id }: RowRef, base: StoredRow | null, hasPending: boolean): void {
    if (!hasPending && !this.#hasBases) return
    if (!hasPending) {
      this.#connection.run('DELETE FROM sync_base WHERE id = ? AND tbl = ?', id, table.number)
    } else {
      this.#hasBases = true
      this.#connection.run(
        'INSERT INTO sync_base (id, tbl, image) VALUES (?, ?, ?) ON CONFLICT (id, tbl) DO UPDATE SET image = excluded.image',
        id,
        table.number,
        base === null ? null : encodeImage(base),
      )
    }
  }

  #remove({ table, id }: RowRef, current: StoredRow | undefined): void {
    if (current === undefined) return
    const wasHidden = this.#writer.isStub(table, id)
    if (!wasHidden) this.#lost.goes(table, current, this.#at)
    this.#writer.remove(table, id)
    this.#referencesChanged = true
    if (!wasHidden) this.#note({ table, id }, 'delete')
  }

  #write(ref: RowRef, row: StoredRow, current: StoredRow | undefined, isPatched: boolean): void {
    const { table } = ref
    if (current !== undefined && sameRow(table, row, current)) {
      this.#writer.unmarkStub(table, ref.id)
      return
    }
    const op = current === undefined || this.#writer.isStub(table, ref.id) ? 'insert' : 'update'
    const misfit = this.#writer.upsert(table, row)
    if (misfit === undefined) {
      this.#writing.delete(keyOf(ref))
      this.#note(ref, op)
      this.#touched.set(keyOf(ref), { ref, row })
      if (
        current !== undefined &&
        references(table).some(({ column }) => !sameStored(row[column], current[column]))
      )
        this.#referencesChanged = true
      return
    }
    this.#writing.add(keyOf(ref))
    if (misfit.kind === 'unique' && this.#makeRoom(ref, misfit.others, isPatched))
      return this.#write(ref, row, current, isPatched)
    this.#writing.delete(keyOf(ref))
    if (isPatched && !holdsLaterValue(table, row))
      return this.#displace(
        ref,
        `${table.name}: the row no longer satisfies its ${misfit.kind === 'unique' ? 'unique keys' : 'checks'}`,
      )
    if (misfit.kind === 'unique' && this.#isLeftFromBefore(ref)) {
      // What its pending change had hidden is taken by now: it makes room itself, until a later page brings it.
      this.#take(ref, null)
      return this.#settleNow(ref)
    }
    if (misfit.kind === 'unique')
      throw new NeedsWholeScopeSignal(
        `${table.name} ${ref.id} collides with ${misfit.others.join(', ')}`,
      )
    this.#writer.upsertUnchecked(table, row)
    this.#note(ref, op)
  }

  /**
   * Another row holds the key. One that this batch changes, too, steps aside and is settled after; a pending one is
   * displaced, if what comes is authoritative.
   */
  #makeRoom(ref: RowRef, others: readonly string[], isPatched: boolean): boolean {
    const { table } = ref
    let made = false
    for (const id of others) {
      const other = { table, id }
      if (this.#incoming.has(keyOf(other)) && !this.#touched.has(keyOf(other))) {
        this.#writer.remove(table, id)
        this.#enqueue(other)
        made = true
      } else if (this.#writing.has(keyOf(other))) {
        // Two that change places: it is written again as soon as this one has gone in.
        this.#writer.remove(table, id)
        made = true
      } else if (
        this.#queue.has(keyOf(other)) ||
        (this.#acknowledged.has(keyOf(other)) && !this.#touched.has(keyOf(other)))
      ) {
        // A pending row that was refused for the key, or displaced a moment ago, and is about to go.
        this.#settleNow(other)
        made = true
      } else if (
        !isPatched &&
        pendingOf(this.#connection, table, id).some(({ blocked }) => !blocked)
      ) {
        this.#displace(other, `${table.name}: its unique key was taken at the centre`)
        this.#settleNow(other)
        made = true
      } else if (this.#isLeftFromBefore(other)) {
        // Of before this reading of the scope: a later page brings it as it is now, or it is not there any more.
        this.#take(other, null)
        this.#settleNow(other)
        made = true
      }
    }
    return made
  }

  /** Whether the row was here before the scope was read, and no page has brought it yet. */
  #isLeftFromBefore(ref: RowRef): boolean {
    return (
      this.#batch.page !== null &&
      !this.#incoming.has(keyOf(ref)) &&
      isAwaited(this.#connection, ref)
    )
  }

  #settleNow(ref: RowRef): void {
    this.#queue.delete(keyOf(ref))
    this.#settle(ref)
  }

  /** Hides the pending mutations of a row that no longer fit. They are still pushed; the centre decides. */
  #displace(ref: RowRef, why: string): void {
    const { table, id } = ref
    const rows = this.#connection.all<{
      n: number
      tx: number
      op: string
      patch: string | null
      ref: string | null
    }>(
      `SELECT n, tx, op, patch, ref FROM ${loggedMutations} WHERE id = ? AND tbl = ? AND blocked = 0`,
      id,
      table.number,
    )
    for (const row of rows) {
      this.#outcomes.block(table, { ...row, id }, why, this.#at)
      if (row.ref !== null) this.#enqueue({ table: mustTable('conversations'), id: row.ref })
    }
    this.#connection.run(
      'UPDATE sync_log SET blocked = 1 WHERE id = ? AND tbl = ?',
      id,
      table.number,
    )
    this.#enqueue(ref)
  }

  /** Every reference of a touched row, and every row that referred to one that went, must hold again. */
  #settleReferences(): void {
    for (let rounds = 0; this.#touched.size > 0; rounds++) {
      if (rounds > ROUNDS_MAX) throw new NeedsWholeScopeSignal('the references do not come to rest')
      const round = [...this.#touched]
      this.#touched.clear()
      for (const [key, { ref, row: written }] of round) {
        // Settled again meanwhile, it may not be what was written then.
        const known = this.#touched.has(key) ? undefined : written
        const row = known ?? this.#writer.readReferences(ref.table, ref.id)
        if (row === undefined) this.#settleOrphans(ref)
        else this.#settleParents(ref, row)
      }
      this.#settleAll()
    }
  }

  #settleParents(ref: RowRef, row: StoredRow): void {
    for (const { column, target } of references(ref.table)) {
      const parent = row[column]
      if (typeof parent === 'string' && !this.#writer.exists(mustTable(target), parent))
        this.#missingParent(ref, column, { table: mustTable(target), id: parent })
    }
  }

  #settleOrphans(gone: RowRef): void {
    for (const { table, column } of referencesTo.get(gone.table.name) ?? []) {
      const children = this.#connection.all<{ id: string }>(
        `SELECT id FROM ${table.name} WHERE ${column} = ?`,
        gone.id,
      )
      for (const { id } of children) {
        if (!this.#writer.exists(gone.table, gone.id))
          this.#missingParent({ table, id }, column, gone)
        else break
      }
      // Children of ours that are displaced one by one free the parent only at the last; check again.
    }
  }

  /** A reference to nothing: of our own making it is displaced, of the centre's it points outside the scope. */
  #missingParent(child: RowRef, column: string, parent: RowRef): void {
    const own = pendingOf(this.#connection, child.table, child.id).some(
      ({ blocked, op, patch }) => !blocked && op !== 'delete' && patch[column] === parent.id,
    )
    if (own) {
      this.#displace(
        child,
        `${child.table.name}.${column}: ${parent.table.name} ${parent.id} is gone`,
      )
      this.#settleNow(child)
    } else {
      this.#makeStub(parent)
    }
  }

  #makeStub({ table, id }: RowRef): void {
    const image = stubImage(table, id, this.#identity.userId)
    const misfit = this.#writer.upsert(table, image)
    if (misfit !== undefined) this.#writer.upsertUnchecked(table, image)
    this.#writer.markStub(table, id)
    this.#settleParents({ table, id }, image)
  }

  #note(ref: RowRef, op: Change['op']): void {
    this.#changes.set(keyOf(ref), { table: ref.table.name, id: ref.id, op })
  }
}

/** Passes over the queue before we give up on a batch; two or three are usual. */
const ROUNDS_MAX = 1000

const madeHere = (connection: Connection, table: TableDefinition, id: string): boolean =>
  connection.get(
    `SELECT 1 FROM sync_log WHERE id = ? AND tbl = ? AND op = 'insert'`,
    id,
    table.number,
  ) !== undefined

/** Whether the row has a value of an enum that came after our schema: the local check refuses it, the centre has it. */
const holdsLaterValue = (table: TableDefinition, row: StoredRow): boolean =>
  agentColumns(table).some((name) => {
    const { values } = mustColumn(table, name)
    const value = row[name]
    return values !== undefined && typeof value === 'string' && !values.includes(value)
  })

const sameRow = (table: TableDefinition, a: StoredRow, b: StoredRow): boolean =>
  agentColumns(table).every((name) => sameStored(a[name], b[name]))
