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
import { isOfThisHistory, type Batch } from './positions.ts'
import { keysOf, loadPrincipal, type ClientBindings, type Principal } from './principal.ts'
import { PullBuilder } from './pull-response.ts'

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
      if (principal.role !== cursor.scope) return this.#whole(request, principal)
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

  async #whole(request: PullRequest, principal: Principal): Promise<PullResponse> {
    await this.#tail.refresh()
    const builder = this.#builder(request, principal)
    const head = await hydrate(this.#database, builder, {
      principal,
      clientId: request.clientId,
      keys: keysOf(principal, request.clientId),
      ackedSeq: request.ackedSeq,
    })
    return this.#respond(builder, head, principal, true)
  }

  #builder({ clientId }: PullRequest, principal: Principal): PullBuilder {
    return new PullBuilder({
      userId: principal.userId,
      clientId,
      keys: keysOf(principal, clientId),
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
