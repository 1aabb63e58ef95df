import { AgentDBError } from '../../schema/errors.ts'
import type { TableDefinition } from '../../schema/define.ts'
import { users } from '../../schema/tables/users.ts'
import type { Clock } from '../../schema/values/timestamp.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type { PullResponse } from '../../sync/protocol/messages.ts'
import type { Database } from '../postgres/database.ts'
import { AcknowledgedSeqs } from './acknowledged.ts'
import { signCursor, verifyCursor, type Cursor, type PageMark, type PageReason } from './cursor.ts'
import {
  beginHydration,
  finishHydration,
  firstMark,
  readPage,
  tablesGained,
  type Scope,
} from './hydrate.ts'
import { readLog, type LogEntry } from './log-entry.ts'
import type { LogTail } from './log-tail.ts'
import { advance, batchAt, isOfThisHistory, type Batch } from './positions.ts'
import { keysOf, loadPrincipal, type ClientBindings, type Principal } from './principal.ts'
import { PullBuilder } from './pull-response.ts'
import {
  movesMany,
  readScopeChange,
  scopeChange,
  tablesMoved,
  type ScopeChange,
} from './rescope.ts'
import { floorOf } from './retention.ts'

export interface PullRequest {
  readonly claims: { readonly userId: string; readonly agentId: string }
  readonly clientId: string
  readonly cursor: string | undefined
  /** The client's schema version: it gets no table and no column that came after it. */
  readonly schema: number
  /** Up to which of its transactions the client has its acknowledgement. */
  readonly ackedSeq: number
  /** How long to wait for news; 0 answers at once. */
  readonly waitMs: number
  readonly signal: AbortSignal
}

/** One page of a hydration that began at `from`. */
interface PageStep {
  readonly from: Batch
  readonly mark: PageMark
  readonly principal: Principal
  readonly first: boolean
  readonly reason: PageReason | undefined
}

/** What was read is of no use any more: the whole scope is read from the beginning. */
interface Restart {
  readonly restart: PageReason | undefined
  readonly principal: Principal
}

/** Lets work in when its turn comes; whole scopes and pages of them keep their rows in memory until they are sent. */
export type Admit = <T>(work: () => Promise<T>) => Promise<T>

/** Longest that a pull is held open. */
export const PULL_WAIT_MS_MAX = 55_000

/** What the centre tells its clients: from where a client stands to the head, as one batch. */
export class Feed {
  /** What its clients say they have. */
  readonly acknowledged = new AcknowledgedSeqs()
  readonly #database: Database
  readonly #tail: LogTail
  readonly #bindings: ClientBindings
  readonly #secret: Uint8Array
  readonly #clock: Clock
  readonly #admit: Admit

  constructor(
    database: Database,
    tail: LogTail,
    bindings: ClientBindings,
    secret: Uint8Array,
    clock: Clock,
    admit: Admit = (work) => work(),
  ) {
    this.#database = database
    this.#tail = tail
    this.#bindings = bindings
    this.#secret = secret
    this.#clock = clock
    this.#admit = admit
  }

  async pull(request: PullRequest): Promise<PullResponse> {
    const principal = await loadPrincipal(this.#database, request.claims)
    await this.#bindings.bind(this.#database, request.clientId, principal)
    this.acknowledged.note(request.clientId, request.ackedSeq)
    if (request.cursor === undefined) return this.#firstPage(request, principal)
    const cursor = verifyCursor(request.cursor, this.#secret)
    await this.#mustBeOurs(cursor)
    if (cursor.page !== undefined && cursor.schema !== commonSchema(request))
      return this.#firstPage(request, principal, 'schema_changed')
    if (cursor.page !== undefined) return this.#nextPage(request, cursor, cursor.page, principal)
    return (
      (await this.#gained(request, cursor, principal)) ?? this.#since(request, cursor, principal)
    )
  }

  /**
   * Batches one after another for as long as someone takes them: the next is made only when the one before was taken,
   * so that a slow client costs no memory and catches up in one step. An empty batch says that it has been quiet for
   * `waitMs`; it still moves the client's position.
   */
  async *live(request: PullRequest): AsyncGenerator<PullResponse, void> {
    let response = await this.pull({ ...request, waitMs: 0 })
    for (;;) {
      yield response
      if (request.signal.aborted || this.#tail.isClosed) return
      const cursor = verifyCursor(response.cursor, this.#secret)
      // Both schema versions are those of the response: neither side changes its own while it runs.
      // The role is that of the cursor: where the log brings another, it is read again.
      const principal = { ...request.claims, role: cursor.scope }
      response =
        cursor.page === undefined
          ? await this.#since(request, cursor, principal)
          : await this.#nextPage(request, cursor, cursor.page, principal)
    }
  }

  /**
   * The client knows more than it did when it read its scope, or the centre does: the tables that gained columns are read
   * again, page by page, and no other. What changed meanwhile the log from the cursor on tells, of these and all others.
   */
  async #gained(
    request: PullRequest,
    cursor: Cursor,
    principal: Principal,
  ): Promise<PullResponse | undefined> {
    const gained = tablesGained(cursor.schema, commonSchema(request))
    if (gained.length === 0) return undefined
    await this.#tail.refresh()
    if (principal.role !== cursor.scope)
      return this.#firstPage(request, principal, 'schema_changed')
    return this.#someTables(request, cursor, {
      principal,
      tables: gained,
      reason: 'schema_changed',
    })
  }

  /** Begins to read some tables again; of all others the log from the cursor on tells, if it reaches back that far. */
  #someTables(
    request: PullRequest,
    { position }: Cursor,
    {
      principal,
      tables,
      reason,
    }: { principal: Principal; tables: readonly TableDefinition[]; reason: PageReason },
  ): Promise<PullResponse> {
    const numbers = tables.map(({ number }) => number)
    return this.#admitted(request, async () => {
      const from = await batchAt(this.#database, position)
      if (from === undefined || position < (await floorOf(this.#database)))
        return { restart: reason, principal }
      const { nonce } = this.#mustHead()
      const mark = await firstMark(this.#database, this.#scope(request, principal), nonce, numbers)
      return this.#page(request, { from, mark, principal, first: true, reason })
    })
  }

  async #mustBeOurs(cursor: Pick<Cursor, 'nonce' | 'position'>): Promise<void> {
    const { head } = this.#tail
    if (head?.nonce === cursor.nonce && cursor.position <= head.position) return
    if (await isOfThisHistory(this.#database, cursor.nonce, cursor.position)) return
    throw new AgentDBError(
      'FORKED',
      `the centre's history does not contain position ${cursor.position} of ${cursor.nonce}: it was restored to an earlier point`,
    )
  }

  async #since(request: PullRequest, cursor: Cursor, known: Principal): Promise<PullResponse> {
    const deadline = performance.now() + Math.min(request.waitMs, PULL_WAIT_MS_MAX)
    // Whoever waits is woken; whoever does not wants all that is committed by now.
    if (request.waitMs === 0) await this.#tail.refresh()
    let principal = known
    let { position, nonce } = cursor
    for (;;) {
      const head = this.#mustHead()
      // Another life of the database has begun, perhaps of one that went back to before where the client stands.
      if (head.nonce !== nonce) await this.#mustBeOurs({ nonce, position })
      nonce = head.nonce
      const entries = await this.#entries(position, head, keysOf(principal, request.clientId))
      if (entries === undefined) return this.#firstPage(request, principal, 'history_pruned')
      // Where the span changed the user, role and status are read again: at least as new as what it holds.
      if (entries.some(({ tbl, id }) => tbl === users.number && id === principal.userId)) {
        principal = await loadPrincipal(this.#database, request.claims)
      }
      if (principal.role !== cursor.scope) return this.#rescoped(request, cursor, principal)
      const builder = this.#builder(request, principal)
      for (const entry of entries) builder.add(entry)
      const left = deadline - performance.now()
      const isOver = left <= 0 || request.signal.aborted || this.#tail.isClosed
      if (!builder.isEmpty || isOver) return this.#respond(request, builder, head, principal)
      position = head.position
      await this.#tail.waitForBatch(position, left, request.signal)
    }
  }

  /** Entries of `(position, head]`: from memory, or from the log for whoever is far behind; undefined below its floor. */
  async #entries(
    position: number,
    head: Batch,
    keys: readonly string[],
  ): Promise<readonly LogEntry[] | undefined> {
    const recent = this.#tail.entriesSince(position, head.position, keys)
    if (recent !== undefined) return recent
    const from = await batchAt(this.#database, position)
    if (from === undefined) return undefined
    const entries = await readLog(this.#database, { from: from.snapshot, to: head.snapshot }, keys)
    if (!(await isOfThisHistory(this.#database, head.nonce, head.position)))
      throw new AgentDBError('DATABASE_UNREACHABLE', 'the database of the centre went back')
    // Asked after reading: what was dropped meanwhile is missing from what was read.
    return position < (await floorOf(this.#database)) ? undefined : entries
  }

  /** Begins to read the whole scope. A small one fits into this page. */
  async #firstPage(
    request: PullRequest,
    principal: Principal,
    reason?: PageReason,
  ): Promise<PullResponse> {
    await this.#tail.refresh()
    return this.#admitted(request, async () => {
      const scope = this.#scope(request, principal)
      const { from, mark } = await beginHydration(this.#database, scope)
      return this.#page(request, { from, mark, principal, first: true, reason })
    })
  }

  /** Reads when its turn comes. What begins anew waits for another turn, and holds none meanwhile. */
  async #admitted(
    request: PullRequest,
    read: () => Promise<PullResponse | Restart>,
  ): Promise<PullResponse> {
    const result = await this.#admit(read)
    return 'restart' in result ? this.#firstPage(request, result.principal, result.restart) : result
  }

  async #nextPage(
    request: PullRequest,
    cursor: Cursor,
    mark: PageMark,
    principal: Principal,
  ): Promise<PullResponse> {
    // Another role means other rows, also on the pages that were read.
    if (principal.role !== cursor.scope) return this.#firstPage(request, principal, 'role_changed')
    // Another life of the database: what the pages have from the one before may have gone with it.
    if (mark.history !== this.#mustHead().nonce)
      return this.#firstPage(request, principal, mark.reason)
    const from = await batchAt(this.#database, cursor.position)
    if (from === undefined || cursor.position < (await floorOf(this.#database)))
      return this.#firstPage(request, principal, 'history_pruned')
    return this.#admitted(request, () =>
      this.#page(request, { from, mark, principal, first: false, reason: mark.reason }),
    )
  }

  async #page(
    request: PullRequest,
    { from, mark, principal, first, reason }: PageStep,
  ): Promise<PullResponse | Restart> {
    const scope = this.#scope(request, principal)
    const builder = this.#builder(request, principal)
    const next = await readPage(this.#database, builder, scope, mark)
    const told = {
      first,
      ...(reason === undefined ? {} : { reason }),
      ...(mark.tables === undefined ? {} : { tables: [...mark.tables] }),
    }
    if (next !== undefined) {
      const page = { ...told, last: false, rows: next.rows, total: next.total }
      return this.#respond(request, builder, from, principal, page, { ...next, reason })
    }
    const rows = mark.rows + builder.rows
    const head = await finishHydration(this.#database, builder, scope, from)
    if (from.position < (await floorOf(this.#database)))
      return { restart: 'history_pruned', principal }
    if (head.nonce !== mark.history) return { restart: reason, principal }
    // The log up to the head is not looked at for the role any more.
    const now = await loadPrincipal(this.#database, request.claims)
    if (now.role !== principal.role) return { restart: 'role_changed', principal: now }
    const page = { ...told, last: true, rows, total: Math.max(mark.total, rows) }
    return this.#respond(request, builder, head, principal, page)
  }

  #scope(request: PullRequest, principal: Principal): Scope {
    const { clientId, ackedSeq } = request
    const schema = commonSchema(request)
    return { principal, clientId, keys: keysOf(principal, clientId), ackedSeq, schema }
  }

  /**
   * Another role than at the cursor: what it lost leaves, what it gained is read, and the log tells the rest. In one
   * batch, unless that is too much for one: then the tables that are concerned are read page by page.
   */
  async #rescoped(
    request: PullRequest,
    cursor: Cursor,
    principal: Principal,
  ): Promise<PullResponse> {
    const change = scopeChange(cursor.scope, principal.role)
    if (change === undefined) return this.#firstPage(request, principal, 'role_changed')
    if (await movesMany(this.#database, principal, change)) {
      const tables = tablesMoved(change)
      return this.#someTables(request, cursor, { principal, tables, reason: 'role_changed' })
    }
    const response = await this.#admitted(request, () =>
      this.#moved(request, cursor, principal, change),
    )
    // The log up to there is not looked at for the role any more.
    const now = await loadPrincipal(this.#database, request.claims)
    return now.role === principal.role ? response : this.#rescoped(request, cursor, now)
  }

  async #moved(
    request: PullRequest,
    cursor: Cursor,
    principal: Principal,
    change: ScopeChange,
  ): Promise<PullResponse | Restart> {
    const builder = this.#builder(request, principal, change.lost)
    const { nonce } = this.#mustHead()
    await readScopeChange(this.#database, builder, principal, change)
    // The log from the cursor on, up to a batch whose snapshot is later than what was read.
    await advance(this.#database, true)
    await this.#tail.refresh()
    const head = this.#mustHead()
    if (head.nonce !== nonce) return { restart: 'role_changed', principal }
    const keys = [...keysOf(principal, request.clientId), ...change.lost]
    const entries = await this.#entries(cursor.position, head, keys)
    if (entries === undefined) return { restart: 'history_pruned', principal }
    for (const entry of entries) builder.add(entry)
    return this.#respond(request, builder, head, principal)
  }

  #builder(request: PullRequest, principal: Principal, lost: readonly string[] = []): PullBuilder {
    const { clientId } = request
    return new PullBuilder({
      userId: principal.userId,
      clientId,
      keys: keysOf(principal, clientId),
      lost,
      schema: commonSchema(request),
    })
  }

  #respond(
    request: PullRequest,
    builder: PullBuilder,
    { nonce, position }: Batch,
    principal: Principal,
    page: PullResponse['page'] = null,
    mark?: PageMark,
  ): PullResponse {
    const cursor: Cursor = {
      nonce,
      position,
      scope: principal.role,
      schema: commonSchema(request),
      ...(mark === undefined ? {} : { page: mark }),
    }
    return {
      nonce,
      position,
      cursor: signCursor(cursor, this.#secret),
      clock: this.#clock(),
      ...(request.schema === SCHEMA_VERSION ? {} : { schema: SCHEMA_VERSION }),
      page,
      ...builder.build(),
    }
  }

  #mustHead(): Batch {
    const { head } = this.#tail
    if (head === undefined) throw new Error('bug in AgentDB: the tail has no head after a refresh')
    return head
  }
}

/** The schema version that both sides know. */
const commonSchema = ({ schema }: PullRequest): number => Math.min(schema, SCHEMA_VERSION)
