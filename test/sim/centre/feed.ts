import type { TableDefinition } from '../../../schema/define.ts'
import { AgentDBError } from '../../../schema/errors.ts'
import { profileKey, roleAccess, scopeKeys, userKey } from '../../../schema/role-access.ts'
import { allTables } from '../../../schema/tables.ts'
import { users } from '../../../schema/tables/users.ts'
import { newId } from '../../../schema/values/id.ts'
import { SCHEMA_VERSION } from '../../../schema/version.ts'
import {
  signCursor,
  verifyCursor,
  type Cursor,
  type PageMark,
} from '../../../server/sync/cursor.ts'
import { tablesGained } from '../../../server/sync/hydrate.ts'
import { scopeChange, type ScopeChange } from '../../../server/sync/rescope.ts'
import { PullBuilder } from '../../../server/sync/pull-response.ts'
import { isVisible, parseSnapshot } from '../../../sync/merge/snapshot.ts'
import type { ChecksumResponse, PullResponse } from '../../../sync/protocol/messages.ts'
import type { Claims, PullAt } from './centre.ts'
import { tableChecksums } from './checksum.ts'
import { DatabaseError } from './database-error.ts'
import { imageOf } from './image.ts'
import {
  rowKey,
  snapshotText,
  type BatchRow,
  type LogRow,
  type ModelDatabase,
} from './model-database.ts'
import type { Principal, Principals } from './principals.ts'

type LogEntry = Parameters<PullBuilder['add']>[0]

const entryOf = ({ tbl, id, image, keysBefore, keysAfter }: LogRow): LogEntry => ({
  tbl,
  id,
  image: image === null ? null : JSON.stringify(image),
  keysBefore,
  keysAfter,
})

/** The schema version that both sides know. */
const commonSchema = ({ schema }: PullAt): number => Math.min(schema, SCHEMA_VERSION)

type PageReason = NonNullable<NonNullable<PullResponse['page']>['reason']>

interface PageStep {
  readonly from: BatchRow
  readonly mark: PageMark
  readonly principal: Principal
  readonly first: boolean
  readonly reason: PageReason | undefined
}

const forked = (): AgentDBError =>
  new AgentDBError('FORKED', 'the history of the centre does not contain this position')

/** Writes of others at the centre are looked for this often while someone waits. */
const POLL_MS = 200

export const CURSOR_SECRET = new TextEncoder().encode('a secret of the simulated centre')

/** One sync server's feed: its own tail of the log, over the one database. */
export class ModelFeed {
  readonly #database: ModelDatabase
  readonly #principals: Principals
  readonly #pause: () => Promise<void>
  readonly #waiting = new Set<() => void>()
  readonly #pageRows: number
  #head: BatchRow | undefined
  #refreshing: Promise<void> | undefined
  #again: Promise<void> | undefined
  #isPolling = false

  constructor(
    database: ModelDatabase,
    principals: Principals,
    pause: () => Promise<void>,
    pageRows: number,
  ) {
    this.#pageRows = pageRows
    this.#database = database
    this.#principals = principals
    this.#pause = pause
  }

  async pull(claims: Claims, request: PullAt, signal: AbortSignal): Promise<PullResponse> {
    const principal = this.#principals.load(claims)
    await this.#principals.bind(request.clientId, claims)
    if (request.cursor === undefined) return this.#firstPage(claims, request, principal)
    const cursor = verifyCursor(request.cursor, CURSOR_SECRET)
    if (!this.#database.isOfThisHistory(cursor.nonce, cursor.position)) throw forked()
    if (cursor.page !== undefined && cursor.schema !== commonSchema(request))
      return this.#firstPage(claims, request, principal, 'schema_changed')
    if (cursor.page !== undefined)
      return this.#nextPage(claims, request, { cursor, mark: cursor.page, principal })
    const gained = tablesGained(cursor.schema, commonSchema(request)).map(({ number }) => number)
    if (gained.length > 0) return this.#gained(claims, request, { cursor, principal, gained })
    return this.#since(claims, request, cursor, principal, signal)
  }

  /** Both sides now know more than they did at the cursor: the tables that gained columns are read again. */
  async #gained(
    claims: Claims,
    request: PullAt,
    {
      cursor: { position, scope },
      principal,
      gained: tables,
    }: { cursor: Cursor; principal: Principal; gained: readonly number[] },
  ): Promise<PullResponse> {
    const reason = 'schema_changed'
    await this.refresh()
    const from = this.#batchAt(position)
    const history = this.#database.batches.at(-1)?.nonce
    const isTold = from !== undefined && history !== undefined && !this.#isPruned(position)
    if (principal.role !== scope || !isTold)
      return this.#firstPage(claims, request, principal, reason)
    const total = this.#scopeRows(principal, commonSchema(request), tables).length
    const mark = { table: 0, after: null, rows: 0, total, history, tables, reason } as const
    return this.#page(claims, request, { from, mark, principal, first: true, reason })
  }

  async checksum(claims: Claims, version: number): Promise<ChecksumResponse> {
    const schema = Math.min(version, SCHEMA_VERSION)
    const principal = this.#principals.load(claims)
    await this.refresh()
    const clientId = newId()
    const keys = scopeKeys({ id: principal.userId, role: principal.role }, clientId)
    const builder = new PullBuilder({ userId: principal.userId, clientId, keys, schema })
    for (const entry of this.#scopeRows(principal, schema)) builder.add(entry)
    const from = this.#database.batches.at(-1)
    if (from === undefined) throw new Error('the model has no batch')
    const request = { clientId, ackedSeq: 0 }
    const { position } = await this.#complete(builder, principal, request, from)
    return {
      position,
      ...(version === SCHEMA_VERSION ? {} : { schema: SCHEMA_VERSION }),
      tables: tableChecksums(builder.build(), schema),
    }
  }

  async #since(
    claims: Claims,
    request: PullAt,
    cursor: Cursor,
    known: Principal,
    signal: AbortSignal,
  ): Promise<PullResponse> {
    const deadline = performance.now() + request.waitMs
    const lost = this.#database.pasts.length
    if (request.waitMs === 0) await this.refresh()
    let principal = known
    let { position } = cursor
    for (;;) {
      const head = this.#head
      // What this has looked at up to here may never have been.
      if (this.#database.pasts.length > lost)
        throw new DatabaseError('57P01', 'terminating connection')
      if (head === undefined || head.position < position || !this.#isOurs(head)) {
        await this.refresh()
        continue
      }
      const entries = await this.#entries(position, head)
      if (entries === undefined)
        return this.#firstPage(claims, request, principal, 'history_pruned')
      if (entries.some(({ tbl, id }) => tbl === users.number && id === claims.userId))
        principal = this.#principals.load(claims)
      if (principal.role !== cursor.scope) return this.#rescoped(claims, request, cursor, principal)
      const builder = this.#builder(request, principal)
      for (const entry of entries) builder.add(entryOf(entry))
      if (!builder.isEmpty || performance.now() >= deadline || signal.aborted)
        return this.#respond(request, builder, head, principal)
      position = head.position
      await this.#waitForBatch(position, deadline - performance.now(), signal)
    }
  }

  /** What lies in `(position, head]`, decided by the snapshots; undefined below the floor of the log. */
  async #entries(position: number, head: BatchRow): Promise<LogRow[] | undefined> {
    const from = this.#batchAt(position)
    if (from === undefined) return undefined
    await this.#pause()
    const entries = this.#between(from, head)
    await this.#pause()
    // Asked after reading: what was dropped meanwhile is missing from what was read.
    return this.#isPruned(position) ? undefined : entries
  }

  #isPruned(position: number): boolean {
    return position < this.#database.floor
  }

  /** Not one that the tail remembers of a history which was lost. */
  #isOurs(head: BatchRow): boolean {
    return this.#database.batches.includes(head)
  }

  /** Undefined where it was thinned away. */
  #batchAt(position: number): BatchRow | undefined {
    return this.#database.batches.find((each) => each.position === position && !each.isThinned)
  }

  #between(from: BatchRow, to: BatchRow): LogRow[] {
    const [low, high] = [from, to].map(({ snapshot }) => parseSnapshot(snapshotText(snapshot)))
    if (low === undefined || high === undefined) return []
    return this.#database.log
      .filter(({ xid }) => isVisible(BigInt(xid), high) && !isVisible(BigInt(xid), low))
      .toSorted((a, b) => a.seq - b.seq)
  }

  async #firstPage(
    claims: Claims,
    request: PullAt,
    principal: Principal,
    reason?: PageReason,
  ): Promise<PullResponse> {
    await this.refresh()
    const from = this.#database.batches.at(-1)
    if (from === undefined) throw new Error('the model has no batch')
    const total = this.#scopeRows(principal, commonSchema(request)).length
    const mark = { table: 0, after: null, rows: 0, total, history: from.nonce }
    return this.#page(claims, request, { from, mark, principal, first: true, reason })
  }

  async #nextPage(
    claims: Claims,
    request: PullAt,
    { cursor, mark, principal }: { cursor: Cursor; mark: PageMark; principal: Principal },
  ): Promise<PullResponse> {
    if (principal.role !== cursor.scope)
      return this.#firstPage(claims, request, principal, 'role_changed')
    if (mark.history !== this.#database.histories.at(-1)?.nonce)
      return this.#firstPage(claims, request, principal, mark.reason)
    const from = this.#batchAt(cursor.position)
    if (from === undefined || this.#isPruned(cursor.position))
      return this.#firstPage(claims, request, principal, 'history_pruned')
    return this.#page(claims, request, { from, mark, principal, first: false, reason: mark.reason })
  }

  /** A page of rows as they now are; the last is completed with what the log has had since the first. */
  async #page(
    claims: Claims,
    request: PullAt,
    { from, mark, principal, first, reason }: PageStep,
  ): Promise<PullResponse> {
    const builder = this.#builder(request, principal)
    const left = this.#scopeRows(principal, commonSchema(request), mark.tables).filter(
      ({ tbl, id }) => tbl > mark.table || (tbl === mark.table && id > (mark.after?.[0] ?? '')),
    )
    const page = left.slice(0, this.#pageRows)
    for (const entry of page) builder.add(entry)
    const last = page.at(-1)
    const rows = mark.rows + page.length
    const told = {
      first,
      rows,
      total: Math.max(mark.total, rows),
      ...(reason && { reason }),
      ...(mark.tables && { tables: [...mark.tables] }),
    }
    if (last !== undefined && left.length > page.length) {
      const next = { ...mark, table: last.tbl, after: [last.id], rows, total: told.total }
      return this.#respond(request, builder, from, principal, { ...told, last: false }, next)
    }
    const head = await this.#complete(builder, principal, request, from)
    if (this.#isPruned(from.position))
      return this.#firstPage(claims, request, principal, 'history_pruned')
    if (head.nonce !== mark.history) return this.#firstPage(claims, request, principal, reason)
    const now = this.#principals.load(claims)
    if (now.role !== principal.role) return this.#firstPage(claims, request, now, 'role_changed')
    return this.#respond(request, builder, head, principal, { ...told, last: true })
  }

  async #complete(
    builder: PullBuilder,
    { userId }: Principal,
    { clientId, ackedSeq }: Pick<PullAt, 'clientId' | 'ackedSeq'>,
    from: BatchRow,
  ): Promise<BatchRow> {
    this.#readClient(builder, clientId, userId, ackedSeq)
    await this.#pause()
    await this.#advance()
    const to = this.#database.batches.at(-1)
    if (to === undefined) throw new Error('the model has no batch')
    for (const entry of this.#between(from, to)) builder.add(entryOf(entry))
    return to
  }

  /** Another role than at the cursor: what it lost leaves, what it gained is read, the log tells the rest. */
  async #rescoped(
    claims: Claims,
    request: PullAt,
    cursor: Cursor,
    principal: Principal,
  ): Promise<PullResponse> {
    for (let current = principal; ;) {
      const change = scopeChange(cursor.scope, current.role)
      if (change === undefined) return this.#firstPage(claims, request, current, 'role_changed')
      const builder = this.#builder(request, current, change.lost)
      this.#readChange(builder, current.userId, change)
      await this.#pause()
      await this.#advance()
      const head = this.#database.batches.at(-1)
      if (head === undefined) throw new Error('the model has no batch')
      const entries = await this.#entries(cursor.position, head)
      if (entries === undefined) return this.#firstPage(claims, request, current, 'history_pruned')
      for (const entry of entries) builder.add(entryOf(entry))
      const now = this.#principals.load(claims)
      if (now.role === current.role) return this.#respond(request, builder, head, current)
      current = now
    }
  }

  #readChange(builder: PullBuilder, userId: string, { lost, gained }: ScopeChange): void {
    for (const table of allTables) {
      const { owner } = table
      if (owner.kind !== 'shared') continue
      for (const row of this.#database.rowsOf(table.number)) {
        if (row[owner.column] === userId) continue
        const place = { tbl: table.number, id: String(row['id']) }
        const image = JSON.stringify(imageOf(table, row))
        if (gained.includes(owner.key))
          builder.add({ ...place, image, keysBefore: [], keysAfter: [owner.key] })
        if (lost.includes(owner.key))
          builder.add({ ...place, image: null, keysBefore: [owner.key], keysAfter: [] })
      }
    }
  }

  #scopeRows(principal: Principal, schema: number, only?: readonly number[]): LogEntry[] {
    return allTables
      .filter(({ since, number }) => since <= schema && (only?.includes(number) ?? true))
      .flatMap((table) => this.#readTable(table, principal))
      .toSorted((a, b) => a.tbl - b.tbl || (a.id < b.id ? -1 : 1))
  }

  #readTable(table: TableDefinition, { userId, role }: Principal): LogEntry[] {
    const { owner } = table
    if (table.writeClass === 'push-only') return []
    const isShared = owner.kind === 'shared' && roleAccess[role].read.includes(owner.key)
    return [...this.#database.rowsOf(table.number)].flatMap((row) => {
      const id = String(row['id'])
      const meta = this.#database.meta.read(rowKey(table.number, id))
      const isOwn = meta?.keys.includes(userKey(userId)) === true
      if (owner.kind !== 'self' && !isShared && !isOwn) return []
      const keysAfter = owner.kind === 'self' ? [profileKey] : [userKey(userId)]
      const image = JSON.stringify(imageOf(table, row))
      return [{ tbl: table.number, id, image, keysBefore: [], keysAfter }]
    })
  }

  #readClient(builder: PullBuilder, clientId: string, userId: string, ackedSeq: number): void {
    const { clients, outcomes, conflicts } = this.#database
    const mark = clients.read(clientId)
    if (mark?.txId != null) builder.addWatermark({ seq: mark.seq, id: mark.txId })
    for (const [, { clientId: of, outcome }] of outcomes.entries())
      if (of === clientId && outcome.seq > ackedSeq)
        builder.addOutcome(JSON.parse(JSON.stringify(outcome)) as typeof outcome)
    const isOwn = (client: string | null): boolean =>
      client !== null && clients.read(client)?.userId === userId
    for (const [, conflict] of conflicts.entries())
      if (isOwn(conflict.loser) || isOwn(conflict.winner)) builder.addConflict(conflict)
  }

  #builder(
    request: PullAt,
    { userId, role }: Principal,
    lost: readonly string[] = [],
  ): PullBuilder {
    const { clientId } = request
    const keys = scopeKeys({ id: userId, role }, clientId)
    return new PullBuilder({ userId, clientId, keys, lost, schema: commonSchema(request) })
  }

  #respond(
    request: PullAt,
    builder: PullBuilder,
    { nonce, position }: BatchRow,
    { role }: Principal,
    page: PullResponse['page'] = null,
    mark?: PageMark,
  ): PullResponse {
    const cursor = {
      nonce,
      position,
      scope: role,
      schema: commonSchema(request),
      ...(mark && { page: mark }),
    }
    return {
      nonce,
      position,
      cursor: signCursor(cursor, CURSOR_SECRET),
      clock: this.#database.clock(),
      ...(request.schema === SCHEMA_VERSION ? {} : { schema: SCHEMA_VERSION }),
      page,
      ...builder.build(),
    }
  }

  /** Whoever asks gets the pass after the one that runs: that one may be too early for what was just committed. */
  refresh(): Promise<void> {
    if (this.#refreshing === undefined) {
      this.#refreshing = this.#pass().finally(() => {
        this.#refreshing = undefined
      })
      return this.#refreshing
    }
    this.#again ??= this.#refreshing
      .catch(() => undefined)
      .then(() => {
        this.#again = undefined
        return this.refresh()
      })
    return this.#again
  }

  async #pass(): Promise<void> {
    await this.#advance()
    await this.#pause()
    const head = this.#database.batches.at(-1)
    if (head === undefined || head === this.#head) return
    this.#head = head
    for (const wake of this.#waiting) wake()
  }

  /** Makes a batch when something is new: the lock first, the snapshot after it, then the commit. */
  async #advance(): Promise<BatchRow | undefined> {
    return this.#database.transaction(async (transaction) => {
      await transaction.lock('batches', 'update')
      await this.#pause()
      transaction.mustBeOpen()
      const { batches, histories, started } = this.#database
      const last = batches.at(-1)
      let history = histories.at(-1)
      const isNew = history?.started !== started
      if (history === undefined || isNew) {
        history = { nonce: newId(), firstPosition: (last?.position ?? 0) + 1, started }
        histories.push(history)
      }
      const snapshot = this.#database.snapshot()
      const hasNews = last === undefined || snapshot.logged > last.snapshot.logged
      if (!isNew && !hasNews) return last
      const batch = {
        position: (last?.position ?? 0) + 1,
        nonce: history.nonce,
        snapshot,
        at: this.#database.clock(),
        isThinned: false,
      }
      batches.push(batch)
      return batch
    })
  }

  async #waitForBatch(position: number, ms: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted || (this.#head?.position ?? 0) !== position) return
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

  #poll(): void {
    if (this.#isPolling) return
    this.#isPolling = true
    setTimeout(() => {
      this.#isPolling = false
      if (this.#waiting.size === 0) return
      void this.refresh()
        .catch(() => undefined)
        .finally(() => this.#poll())
    }, POLL_MS)
  }
}
