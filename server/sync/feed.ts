import { AgentDBError } from '../../schema/errors.ts'
import { users } from '../../schema/tables/users.ts'
import type { Clock } from '../../schema/values/timestamp.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type { PullResponse } from '../../sync/protocol/messages.ts'
import type { Database } from '../postgres/database.ts'
import { signCursor, verifyCursor, type Cursor } from './cursor.ts'
import { hydrate } from './hydrate.ts'
import { readLog } from './log-entry.ts'
import type { LogTail } from './log-tail.ts'
import { advance, isOfThisHistory, type Batch } from './positions.ts'
import { keysOf, loadPrincipal, type ClientBindings, type Principal } from './principal.ts'
import { PullBuilder } from './pull-response.ts'
import { readScopeChange, scopeChange } from './rescope.ts'

export interface PullRequest {
  readonly claims: { readonly userId: string; readonly agentId: string }
  readonly clientId: string
  readonly cursor: string | undefined
  /** Up to which of its transactions the client has its acknowledgement. */
  readonly ackedSeq: number
  /** How long to wait for news; 0 answers at once. */
  readonly waitMs: number
  readonly signal: AbortSignal
}

/** Longest that a pull is held open. */
export const PULL_WAIT_MS_MAX = 55_000

/** What the centre tells its clients: from where a client stands to the head, as one batch. */
export class Feed {
  readonly #database: Database
  readonly #tail: LogTail
  readonly #bindings: ClientBindings
  readonly #secret: Uint8Array
  readonly #clock: Clock

  constructor(
    database: Database,
    tail: LogTail,
    bindings: ClientBindings,
    secret: Uint8Array,
    clock: Clock,
  ) {
    this.#database = database
    this.#tail = tail
    this.#bindings = bindings
    this.#secret = secret
    this.#clock = clock
  }

  async pull(request: PullRequest): Promise<PullResponse> {
    const principal = await loadPrincipal(this.#database, request.claims)
    await this.#bindings.bind(this.#database, request.clientId, principal)
    if (request.cursor === undefined) return this.#whole(request, principal)
    const cursor = verifyCursor(request.cursor, this.#secret)
    await this.#mustBeOurs(cursor)
    if (cursor.schema !== SCHEMA_VERSION) return this.#whole(request, principal)
    return this.#since(request, cursor, principal)
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
      // The role is that of the cursor: where the log brings another, it is read again.
      const principal = { ...request.claims, role: cursor.scope }
      response = await this.#since(request, cursor, principal)
    }
  }

  async #mustBeOurs(cursor: Cursor): Promise<void> {
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
    let { position } = cursor
    for (;;) {
      const head = this.#mustHead()
      const entries = await this.#entries(
        position,
        head,
        cursor,
        keysOf(principal, request.clientId),
      )
      // Where the span changed the user, role and status are read again: at least as new as what it holds.
      if (entries.some(({ tbl, id }) => tbl === users.number && id === principal.userId)) {
        principal = await loadPrincipal(this.#database, request.claims)
      }
      if (principal.role !== cursor.scope) return this.#rescoped(request, cursor, principal)
      const builder = this.#builder(request, principal)
      for (const entry of entries) builder.add(entry)
      const left = deadline - performance.now()
      const isOver = left <= 0 || request.signal.aborted || this.#tail.isClosed
      if (!builder.isEmpty || isOver) return this.#respond(builder, head, principal, false)
      position = head.position
      await this.#tail.waitForBatch(position, left, request.signal)
    }
  }

  /** Entries of `(position, head]`: from memory, or from the log for whoever is far behind. */
  async #entries(
    position: number,
    head: Batch,
    cursor: Cursor,
    keys: readonly string[],
  ): ReturnType<typeof readLog> {
    const recent = this.#tail.since(position)
    if (recent !== undefined) {
      return recent
        .filter(({ batch }) => batch.position <= head.position)
        .flatMap(({ entries }) => entries)
    }
    const { rows } = await this.#database.query<{ snapshot: string }>(
      'SELECT snapshot::text AS snapshot FROM sync.batch WHERE position = $1',
      [position],
    )
    const [from] = rows
    if (from === undefined) {
      throw new AgentDBError('FORKED', `the centre no longer has position ${cursor.position}`)
    }
    return readLog(this.#database, { from: from.snapshot, to: head.snapshot }, keys)
  }

  #whole(request: PullRequest, principal: Principal): Promise<PullResponse> {
    return this.#settled(request, principal, async (current) => {
      await this.#tail.refresh()
      const builder = this.#builder(request, current)
      const head = await hydrate(this.#database, builder, {
        principal: current,
        clientId: request.clientId,
        keys: keysOf(current, request.clientId),
        ackedSeq: request.ackedSeq,
      })
      return this.#respond(builder, head, current, true)
    })
  }

  /** Another role than at the cursor: what it lost leaves, what it gained is read, and the log tells the rest. */
  #rescoped(request: PullRequest, cursor: Cursor, principal: Principal): Promise<PullResponse> {
    return this.#settled(request, principal, async (current) => {
      const change = scopeChange(cursor.scope, current.role)
      if (change === undefined) return this.#whole(request, current)
      const builder = this.#builder(request, current, change.lost)
      await readScopeChange(this.#database, builder, current, change)
      // The log from the cursor on, up to a batch whose snapshot is later than what was read.
      await advance(this.#database, true)
      await this.#tail.refresh()
      const head = this.#mustHead()
      const keys = [...keysOf(current, request.clientId), ...change.lost]
      for (const entry of await this.#entries(cursor.position, head, cursor, keys))
        builder.add(entry)
      return this.#respond(builder, head, current, false)
    })
  }

  /**
   * Reads under a role, and again where the role is another by the time all is read: the log up to there is not looked
   * at for it any more.
   */
  async #settled(
    request: PullRequest,
    principal: Principal,
    read: (current: Principal) => Promise<PullResponse>,
  ): Promise<PullResponse> {
    for (let current = principal; ;) {
      const response = await read(current)
      const now = await loadPrincipal(this.#database, request.claims)
      if (now.role === current.role) return response
      current = now
    }
  }

  #builder(
    { clientId }: PullRequest,
    principal: Principal,
    lost: readonly string[] = [],
  ): PullBuilder {
    return new PullBuilder({
      userId: principal.userId,
      clientId,
      keys: keysOf(principal, clientId),
      lost,
    })
  }

  #respond(builder: PullBuilder, head: Batch, principal: Principal, whole: boolean): PullResponse {
    const { nonce, position } = head
    const cursor: Cursor = { nonce, position, scope: principal.role, schema: SCHEMA_VERSION }
    return {
      nonce,
      position,
      cursor: signCursor(cursor, this.#secret),
      clock: this.#clock(),
      whole,
      ...builder.build(),
    }
  }

  #mustHead(): Batch {
    const { head } = this.#tail
    if (head === undefined) throw new Error('bug in AgentDB: the tail has no head after a refresh')
    return head
  }
}
