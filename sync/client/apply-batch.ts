import type { StoredRow } from '../../schema/codec.ts'
import { agentColumns, mustColumn, references, type TableDefinition } from '../../schema/define.ts'
import { AgentDBError } from '../../schema/errors.ts'
import { mustTable, referencesTo, tableOfNumber } from '../../schema/tables.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type { Connection, Identity } from '../../src/internal-for-sync.ts'
import { sameStored } from '../merge/merge-update.ts'
import type { PullResponse } from '../protocol/messages.ts'
import { completed, decodeBase, encodeImage, stubImage } from './image.ts'
import { cameOf, expectRows, isAwaited } from './hydration.ts'
import { keepAcknowledged, noteHistory } from './kept.ts'
import { LostRows } from './lost-rows.ts'
import { OutcomeLog, type Outcome } from './outcome-log.ts'
import { holdsAny, park, unpark } from './parked.ts'
import { pendingOf, statisticsDelta, visibleRow, withStatistics } from './pending.ts'
import { namesAt, PlaceholderMarks } from './placeholder-marks.ts'
import { rowReader } from './received-row.ts'
import { RowWriter } from './row-writer.ts'

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

interface RowRef {
  readonly table: TableDefinition
  readonly id: string
}

const keyOf = ({ table, id }: RowRef): string => `${table.number}:${id}`

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
  readonly #touched = new Map<string, RowRef>()
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
    this.#lost = new LostRows(connection, this.#state().healing === 1)
  }

  run(): AppliedBatch {
    this.#mustBeOurWatermark()
    this.#takeRows()
    const outcomes = this.#acknowledge()
    for (const conflict of this.#batch.conflicts) this.#outcomes.keepConflict(conflict, outcomes)
    this.#hasPending = this.#writer.holdsAny('sync_log')
    this.#hasBases = this.#writer.holdsAny('sync_base')
    if (this.#hasBases) this.#enqueueUncaused()
    this.#settleAll()
    this.#settleReferences()
    if (this.#referencesChanged) this.#sweepStubs()
    this.#saveState()
    return { changes: [...this.#changes.values()], outcomes }
  }

  /** A number whose transaction is not this store's own: the file was restored, copied, or cut by a power loss. */
  #mustBeOurWatermark(): void {
    const { watermark } = this.#batch
    if (watermark === null) return
    const state = this.#state()
    const own =
      watermark.seq === state.acked_seq
        ? state.acked_id
        : this.#connection.get<{ id: string }>(
            'SELECT id FROM sync_tx WHERE seq = ?',
            watermark.seq,
          )?.id
    if (own === watermark.id || watermark.seq < state.acked_seq) return
    throw new AgentDBError(
      'STORE_FORKED',
      `the centre has another transaction ${watermark.seq} of this store: the file was restored, copied or cut by a power loss`,
    )
  }

  #state(): { acked_seq: number; acked_id: string | null; healing: number } {
    const state = this.#connection.get<{
      acked_seq: number
      acked_id: string | null
      healing: number
    }>('SELECT acked_seq, acked_id, healing FROM sync_state')
    if (state === undefined)
      throw new AgentDBError(
        'STORE_CORRUPT',
        'the store has lost its identity (sync_state is empty)',
      )
    return state
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

  /** Acknowledged mutations leave the outbox here, in the transaction that brings their rows: sooner, a row would vanish; later, a counter would count twice. */
  #acknowledge(): Outcome[] {
    const { watermark, outcomes } = this.#batch
    if (watermark === null || watermark.seq <= this.#state().acked_seq) return []
    const parked = outcomes.filter(({ kind }) => kind === 'parked').map(({ seq }) => seq)
    park(this.#connection, new Set(parked))
    const settled = this.#outcomes.settle(watermark.seq, outcomes, this.#at, this.#batch)
    for (const { kind, table, id } of settled) {
      // No image ever comes of audit rows; one that was refused is not there.
      const definition = mustTable(table)
      if (isRefusal(kind) && definition.writeClass === 'push-only')
        this.#take({ table: definition, id }, null)
    }
    const refused = settled.filter(({ kind }) => isRefusal(kind)).map((one) => one.transaction)
    keepAcknowledged(this.#connection, watermark.seq, new Set(refused), this.#batch)
    const rows = this.#connection.all<{ tbl: number; id: string; ref: string | null }>(
      'SELECT DISTINCT tbl, id, ref FROM sync_log WHERE tx <= ?',
      watermark.seq,
    )
    for (const { tbl, id, ref } of rows) {
      const table = tableOfNumber(tbl)
      if (table === undefined) continue
      this.#acknowledged.add(keyOf({ table, id }))
      this.#enqueue({ table, id })
      if (ref !== null) this.#enqueue({ table: mustTable('conversations'), id: ref })
    }
    this.#connection.run('DELETE FROM sync_log WHERE tx <= ?', watermark.seq)
    this.#connection.run('DELETE FROM sync_tx WHERE seq <= ?', watermark.seq)
    this.#connection.run(
      'UPDATE sync_state SET acked_seq = ?, acked_id = ?',
      watermark.seq,
      watermark.id,
    )
    return settled
  }

  /** Rows whose derived columns alone were changed here, without a mutation that explains it, go back to what they were. */
  #enqueueUncaused(): void {
    const rows = this.#connection.all<{ tbl: number; id: string }>(
      `SELECT b.tbl, b.id FROM sync_base b WHERE NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = b.id AND l.tbl = b.tbl)
        AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.ref = b.id)`,
    )
    for (const { tbl, id } of rows) {
      const table = tableOfNumber(tbl)
      if (table !== undefined) this.#enqueue({ table, id })
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
    this.#touched.set(keyOf(ref), ref)
    const current = this.#writer.read(table, id)
    const pending = this.#hasPending ? pendingOf(this.#connection, table, id) : []
    const delta =
      this.#hasPending && table.name === 'conversations'
        ? statisticsDelta(this.#connection, id)
        : undefined
    const base = this.#baseOf(ref, current, pending.length > 0)
    if (base === undefined) return
    // The store forgets the base of what is not pending any more; settled again, the row must not count as made here.
    if (this.#acknowledged.delete(keyOf(ref))) this.#incoming.set(keyOf(ref), base)
    this.#keepBase(ref, base, pending.length > 0 || delta !== undefined)
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
      } else if (this.#batch.page !== null && isAwaited(this.#connection, other)) {
        // Of before this reading of the scope: a later page brings it as it is now, or it is not there any more.
        this.#take(other, null)
        this.#settleNow(other)
        made = true
      }
    }
    return made
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
      'SELECT n, tx, op, patch, ref FROM sync_log WHERE id = ? AND tbl = ? AND blocked = 0',
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
      const round = [...this.#touched.values()]
      this.#touched.clear()
      for (const ref of round) {
        const row = this.#writer.readReferences(ref.table, ref.id)
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

  /** A stub goes with its last reference. */
  #sweepStubs(): void {
    for (let swept = -1; swept !== 0;) {
      swept = 0
      for (const { id, tbl } of this.#connection.all<{ id: string; tbl: number }>(
        'SELECT id, tbl FROM sync_stub',
      )) {
        const table = tableOfNumber(tbl)
        if (table === undefined || this.#isReferenced({ table, id })) continue
        this.#writer.remove(table, id)
        swept += 1
      }
    }
  }

  #isReferenced({ table, id }: RowRef): boolean {
    return (referencesTo.get(table.name) ?? []).some(
      (reference) =>
        this.#connection.get(
          `SELECT 1 FROM ${reference.table.name} WHERE ${reference.column} = ? LIMIT 1`,
          id,
        ) !== undefined,
    )
  }

  #note(ref: RowRef, op: Change['op']): void {
    this.#changes.set(keyOf(ref), { table: ref.table.name, id: ref.id, op })
  }

  #saveState(): void {
    const { nonce, position, cursor, clock, page } = this.#batch
    const { healing } = this.#state()
    if (page?.last === false) {
      this.#connection.run(
        'UPDATE sync_state SET page_cursor = ?, centre_schema = ?',
        cursor,
        this.#version,
      )
      return
    }
    noteHistory(this.#connection, nonce)
    this.#connection.run(
      'UPDATE sync_state SET nonce = ?, position = ?, cursor = ?, page_cursor = NULL, clock = max(clock, ?), provisional = 0, healing = ?, centre_schema = ?',
      nonce,
      position,
      cursor,
      clock,
      page === null ? healing : 0,
      this.#version,
    )
    // What waited for the centre's upgrade goes on.
    if (this.#version >= SCHEMA_VERSION && holdsAny(this.#connection)) unpark(this.#connection)
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

const isRefusal = (kind: Outcome['kind']): boolean =>
  kind === 'rejected' || kind === 'dependency_failed'

/** Whether the row has a value of an enum that came after our schema: the local check refuses it, the centre has it. */
const holdsLaterValue = (table: TableDefinition, row: StoredRow): boolean =>
  agentColumns(table).some((name) => {
    const { values } = mustColumn(table, name)
    const value = row[name]
    return values !== undefined && typeof value === 'string' && !values.includes(value)
  })

const sameRow = (table: TableDefinition, a: StoredRow, b: StoredRow): boolean =>
  agentColumns(table).every((name) => sameStored(a[name], b[name]))
