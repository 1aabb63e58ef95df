import type { Clock } from '../../../schema/values/timestamp.ts'
import type { Snapshot } from '../../../sync/merge/snapshot.ts'
import type {
  IntroduceRequest,
  IntroduceResponse,
  PushRequest,
  PushResponse,
} from '../../../sync/protocol/messages.ts'
import type { Claims } from '../../auth/tokens.ts'
import type { Database, Session } from '../../postgres/database.ts'
import type { LogTail } from '../log-tail.ts'
import { baseSnapshot } from '../positions.ts'
import { keysOf, loadPrincipal, type ClientBindings, type Principal } from '../principal.ts'
import { extendCommonPart, loadAncestry, recordAncestor, type Ancestry } from './ancestry.ts'
import { classifyFailure, refusalOf, unprocessable } from './database-failure.ts'
import { decideTransaction } from './decide.ts'
import type { DecisionContext } from './decision.ts'
import { lockRows } from './lock.ts'
import { loadMissingRows, recordMissing } from './missing.ts'
import { loadVersions } from './next-version.ts'
import { recordGroup } from './record.ts'
import { findRepeated, recordRepeated, refuseForgotten } from './repeated.ts'
import { RepeatedFailures } from './repeated-failures.ts'
import {
  mustBeKnown,
  readTransactions,
  type ClientTransaction,
  type Refusal,
} from './transaction.ts'
import {
  mustBeContiguous,
  mustBeIntroduced,
  mustBeSameStore,
  readWatermark,
  type Watermark,
} from './watermark.ts'
import { loadWorkingState } from './working-state.ts'
import { writeRows } from './write.ts'

/** Rows of one server transaction; larger ones make the feed's p99 sevenfold (`research/centre.md` 3). */
const GROUP_MUTATIONS_MAX = 500
const ATTEMPTS_MAX = 8

interface Pusher {
  readonly claims: Claims
  readonly clientId: string
  /** The id of the transaction that its store has before the one of this number. */
  readonly idBefore: (seq: number) => string | undefined
}

type Forced = Map<string, { n: number; refusal: Refusal }>

/**
 * Takes the transactions of one client in its order. Several share a server transaction while all goes well; on an
 * error the group is halved until the bad one is alone, and it alone is rejected: at once where the error is its own
 * fault, after many failures while others passed where that cannot be told.
 */
export class PushService {
  readonly #database: Database
  readonly #tail: LogTail
  readonly #bindings: ClientBindings
  readonly #clock: Clock
  readonly #failures = new RepeatedFailures()

  constructor(database: Database, tail: LogTail, bindings: ClientBindings, clock: Clock) {
    this.#database = database
    this.#tail = tail
    this.#bindings = bindings
    this.#clock = clock
  }

  async push(claims: Claims, request: PushRequest): Promise<PushResponse> {
    const principal = await loadPrincipal(this.#database, claims)
    const start = await readWatermark(this.#database, request.clientId, '')
    mustBeIntroduced(request, start.isIntroduced)
    if (start.isBound) await this.#bindings.bind(this.#database, request.clientId, principal)
    const transactions = readTransactions(request, this.#clock())
    mustBeContiguous(transactions)
    const pusher: Pusher = {
      claims,
      clientId: request.clientId,
      idBefore: (seq) =>
        transactions.find((each) => each.seq === seq - 1)?.id ?? request.previous?.id,
    }
    await mustBeSameStore(
      this.#database,
      pusher.clientId,
      start,
      request.previous?.id,
      transactions,
    )
    // Only now: what is refused takes no id away from its store.
    if (!start.isBound) await this.#bindings.bindAgain(this.#database, request.clientId, principal)
    const todo = transactions.filter(({ seq }) => seq > start.seq)
    mustBeKnown(todo)
    try {
      for (const group of groups(todo, ({ id }) => this.#failures.has(failureKey(pusher, id))))
        await this.#applyGroup(pusher, group, new Map())
    } finally {
      // Waiting clients hear of it at once, also of what passed before a failure; this one learns its outcome from the
      // batch, like everyone.
      void this.#tail.refresh().catch(() => undefined)
    }
    return { nextSeq: Math.max(start.seq, transactions.at(-1)?.seq ?? 0) + 1 }
  }

  /** A store that forked, under its new client: what it was is known before anything of it is decided. */
  async introduce(claims: Claims, request: IntroduceRequest): Promise<IntroduceResponse> {
    const principal = await loadPrincipal(this.#database, claims)
    await this.#bindings.bindAgain(this.#database, request.clientId, principal)
    await this.#database.transaction((session) => recordAncestor(session, principal, request))
    const { seq } = await readWatermark(this.#database, request.clientId, '')
    return { seq }
  }

  async #applyGroup(
    pusher: Pusher,
    group: readonly ClientTransaction[],
    forced: Forced,
  ): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#applyInTransaction(pusher, group, forced)
      } catch (error) {
        const failure = classifyFailure(error)
        if (failure === 'ours') throw error
        if (failure !== 'transient' || attempt >= ATTEMPTS_MAX)
          return this.#applyApart(pusher, group, forced, error)
        await pause(attempt)
      }
    }
  }

  async #applyInTransaction(
    pusher: Pusher,
    group: readonly ClientTransaction[],
    forced: Forced,
    progress?: { n: number },
  ): Promise<void> {
    const wrote = await this.#database.transaction((session) =>
      applyOnce(session, pusher, group, forced, progress),
    )
    this.#failures.passed(
      group.map(({ id }) => failureKey(pusher, id)),
      wrote,
    )
  }

  /** The database failed on something in the group: halve it, or find the mutation in the one transaction left. */
  async #applyApart(
    pusher: Pusher,
    group: readonly ClientTransaction[],
    forced: Forced,
    error: unknown,
  ): Promise<void> {
    const [only] = group
    if (group.length > 1) {
      const middle = group.length >> 1
      await this.#applyGroup(pusher, group.slice(0, middle), forced)
      return this.#applyGroup(pusher, group.slice(middle), forced)
    }
    if (only === undefined) return
    if (forced.has(only.id) || this.#refusalFor(pusher, only, error) === undefined) throw error
    const culprit = await this.#findCulprit(pusher, only)
    if (culprit === undefined) return
    return this.#applyGroup(pusher, group, new Map([[only.id, culprit]]))
  }

  /** Applies a transaction statement by statement. Some sequences only work so; else the failing one is the culprit. */
  async #findCulprit(
    pusher: Pusher,
    transaction: ClientTransaction,
  ): Promise<{ n: number; refusal: Refusal } | undefined> {
    const progress = { n: 0 }
    try {
      await this.#applyInTransaction(pusher, [transaction], new Map(), progress)
      return undefined
    } catch (error) {
      const refusal = this.#refusalFor(pusher, transaction, error)
      if (refusal === undefined) throw error
      return { n: progress.n, refusal }
    }
  }

  /** What a transaction that failed alone is refused with; undefined while its client is to send it again. */
  #refusalFor(pusher: Pusher, { id }: ClientTransaction, error: unknown): Refusal | undefined {
    const failure = classifyFailure(error)
    if (failure === 'permanent') return refusalOf(error)
    if (failure === 'ours') return undefined
    return this.#failures.failed(failureKey(pusher, id)) ? unprocessable(error) : undefined
  }
}

const failureKey = ({ clientId }: Pusher, transactionId: string): string =>
  `${clientId}:${transactionId}`

/**
 * One attempt at a group inside a server transaction; says whether it wrote any rows. With `progress`, each write is
 * carried out on its own.
 */
async function applyOnce(
  session: Session,
  { claims, clientId, idBefore }: Pusher,
  group: readonly ClientTransaction[],
  found: Forced,
  progress?: { n: number },
): Promise<boolean> {
  const mark = await readWatermark(session, clientId, 'FOR UPDATE')
  // Since it was looked at a twin connection may have pushed the same transactions, or a copy of the store its own.
  await mustBeSameStore(session, clientId, mark, idBefore(group[0]?.seq ?? 0), group)
  const todo = group.filter(({ seq }) => seq > mark.seq)
  if (todo.length === 0) return false
  // Role and status as they are now, not as they were when the request came.
  const principal = await loadPrincipal(session, claims)
  const { fresh, ancestry } = await passOverRepeated(session, principal, { clientId, mark }, todo)
  const hasTwin = mark.ancestor !== null || mark.isAncestor
  const forced =
    hasTwin && !mark.isHealing
      ? new Map([...(await refuseForgotten(session, fresh)), ...found])
      : found
  // What is refused whatever it finds writes nothing, and must not fail again on the way there.
  await lockRows(
    session,
    fresh.filter(({ id }) => !forced.has(id)),
  )
  const snapshots = await baseSnapshots(session, fresh)
  const state = await loadWorkingState(session, clientId, fresh, seenBelow(snapshots))
  const context: DecisionContext = {
    principal,
    clientId,
    ancestry,
    missing: await loadMissingRows(session, mark, { clientId, principal }, fresh),
    keys: new Set(keysOf(principal, clientId)),
    state,
    versions: await loadVersions(session, fresh),
    snapshotOf: ({ base }) => snapshots.get(`${base.nonce}:${base.position}`),
    forced,
  }
  const decisions = fresh.map((transaction) => decideTransaction(context, transaction))
  const writes = decisions.flatMap((decision) => decision.writes)
  if (progress === undefined) {
    await writeRows(session, { principal, clientId }, writes)
  } else {
    for (const write of writes) {
      progress.n = write.n
      await writeRows(session, { principal, clientId }, [write])
    }
  }
  if (mark.window !== 'none' || mark.isHealing)
    await recordMissing(session, { clientId, principal }, fresh, decisions)
  await recordGroup(session, clientId, { fresh, decisions, last: todo.at(-1) })
  return writes.length > 0
}

const noAncestry: Ancestry = new Map()

/**
 * What was sent before under another client's number is not applied again; only its outcome is told. It comes of a store
 * that forked, or of its twin that goes on under the old name, or after the centre went back: nobody can tell which.
 */
async function passOverRepeated(
  session: Session,
  { userId }: Principal,
  { clientId, mark }: { readonly clientId: string; readonly mark: Watermark },
  transactions: readonly ClientTransaction[],
): Promise<{ fresh: readonly ClientTransaction[]; ancestry: Ancestry }> {
  const repeated = await findRepeated(session, userId, transactions)
  const known = mark.ancestor === null ? noAncestry : await loadAncestry(session, clientId)
  const ancestry = await extendCommonPart(session, clientId, known, repeated)
  await recordRepeated(session, clientId, repeated)
  const ids = new Set(repeated.map(({ id }) => id))
  return { fresh: transactions.filter(({ id }) => !ids.has(id)), ancestry }
}

/**
 * Slices of at most {@link GROUP_MUTATIONS_MAX} mutations. A larger transaction is a slice of its own, and so is one that
 * has failed before: what comes with it need not be tried in halves each time.
 */
function groups(
  transactions: readonly ClientTransaction[],
  isAlone: (transaction: ClientTransaction) => boolean,
): ClientTransaction[][] {
  const out: ClientTransaction[][] = []
  let room = 0
  for (const transaction of transactions) {
    const size = transaction.mutations.length
    const alone = isAlone(transaction)
    const current = out.at(-1)
    if (current === undefined || alone || size > room) {
      out.push([transaction])
      room = alone ? -1 : GROUP_MUTATIONS_MAX - size
    } else {
      current.push(transaction)
      room -= size
    }
  }
  return out
}

async function baseSnapshots(
  session: Session,
  transactions: readonly ClientTransaction[],
): Promise<Map<string, Snapshot | undefined>> {
  const snapshots = new Map<string, Snapshot | undefined>()
  for (const { base, mutations } of transactions) {
    const key = `${base.nonce}:${base.position}`
    // Only what touches rows that are there asks what its writer had seen.
    if (snapshots.has(key) || !mutations.some(({ op }) => op !== 'insert')) continue
    snapshots.set(key, await baseSnapshot(session, base))
  }
  return snapshots
}

/** Transactions below this one were seen by everyone; where a writer has seen nothing of this history, none is. */
function seenBelow(snapshots: ReadonlyMap<string, Snapshot | undefined>): string {
  const lowest = [...snapshots.values()].map((snapshot) => snapshot?.xmin ?? 0n)
  return String(lowest.reduce((low, xmin) => (xmin < low ? xmin : low), lowest[0] ?? 0n))
}

const pause = (attempt: number): Promise<void> =>
  new Promise((done) => setTimeout(done, Math.random() * 10 * 2 ** attempt))
