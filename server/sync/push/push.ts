import { AgentDBError } from '../../../schema/errors.ts'
import type { Clock } from '../../../schema/values/timestamp.ts'
import type { Snapshot } from '../../../sync/merge/snapshot.ts'
import type { PushRequest, PushResponse } from '../../../sync/protocol/messages.ts'
import type { Claims } from '../../auth/tokens.ts'
import type { Database, Session } from '../../postgres/database.ts'
import type { LogTail } from '../log-tail.ts'
import { baseSnapshot } from '../positions.ts'
import { keysOf, loadPrincipal, type ClientBindings } from '../principal.ts'
import { classifyFailure, refusalOf } from './database-failure.ts'
import { decideTransaction, nextVersionRule, versionKey, type DecisionContext } from './decide.ts'
import { lockRows } from './lock.ts'
import { recordGroup } from './record.ts'
import { readTransactions, type ClientTransaction, type Refusal } from './transaction.ts'
import { loadWorkingState } from './working-state.ts'
import { writeRows } from './write.ts'

/** Rows of one server transaction; larger ones make the feed's p99 sevenfold (`research/centre.md` 3). */
const GROUP_MUTATIONS_MAX = 500
const ATTEMPTS_MAX = 8

interface Pusher {
  readonly claims: Claims
  readonly clientId: string
}

type Forced = Map<string, { n: number; refusal: Refusal }>

/** Where a client's watermark stands. */
interface Watermark {
  readonly seq: number
  readonly id: string | null
}

/**
 * Takes the transactions of one client in its order. Several share a server transaction while all goes well; on an
 * error the group is halved until the bad one is alone, and it alone is rejected.
 */
export class PushService {
  readonly #database: Database
  readonly #tail: LogTail
  readonly #bindings: ClientBindings
  readonly #clock: Clock

  constructor(database: Database, tail: LogTail, bindings: ClientBindings, clock: Clock) {
    this.#database = database
    this.#tail = tail
    this.#bindings = bindings
    this.#clock = clock
  }

  async push(claims: Claims, request: PushRequest): Promise<PushResponse> {
    const principal = await loadPrincipal(this.#database, claims)
    await this.#bindings.bind(this.#database, request.clientId, principal)
    const pusher: Pusher = { claims, clientId: request.clientId }
    const transactions = readTransactions(request, this.#clock())
    mustBeContiguous(transactions)
    const start = await readWatermark(this.#database, pusher.clientId, '')
    await mustBeSameStore(this.#database, start, request.previous, transactions)
    for (const group of groups(transactions.filter(({ seq }) => seq > start.seq))) {
      await this.#applyGroup(pusher, group, new Map())
    }
    // Waiting clients hear of it at once; this one learns its outcome from the batch, like everyone.
    void this.#tail.refresh().catch(() => undefined)
    return { nextSeq: Math.max(start.seq, transactions.at(-1)?.seq ?? 0) + 1 }
  }

  async #applyGroup(
    pusher: Pusher,
    group: readonly ClientTransaction[],
    forced: Forced,
  ): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#database.transaction((session) => applyOnce(session, pusher, group, forced))
        return
      } catch (error) {
        const failure = classifyFailure(error)
        if (failure === 'ours') throw error
        if (failure === 'transient') {
          if (attempt >= ATTEMPTS_MAX) throw error
          await pause(attempt)
          continue
        }
        return this.#applyApart(pusher, group, forced, error)
      }
    }
  }

  /** The database refused something in the group: halve it, or find the mutation in the one transaction left. */
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
    if (forced.has(only.id)) throw error
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
      await this.#database.transaction((session) =>
        applyOnce(session, pusher, [transaction], new Map(), progress),
      )
      return undefined
    } catch (error) {
      if (classifyFailure(error) !== 'permanent') throw error
      return { n: progress.n, refusal: refusalOf(error) }
    }
  }
}

/** One attempt at a group inside a server transaction. With `progress`, each write is carried out on its own. */
async function applyOnce(
  session: Session,
  { claims, clientId }: Pusher,
  group: readonly ClientTransaction[],
  forced: Forced,
  progress?: { n: number },
): Promise<void> {
  const mark = await readWatermark(session, clientId, 'FOR UPDATE')
  // A twin connection may have pushed the same transactions meanwhile.
  const todo = group.filter(({ seq }) => seq > mark.seq)
  if (todo.length === 0) return
  if (todo[0]?.seq !== mark.seq + 1)
    throw new AgentDBError(
      'PROTOCOL',
      `transaction ${mark.seq + 1} comes next, not ${todo[0]?.seq}`,
    )
  // Role and status as they are now, not as they were when the request came.
  const principal = await loadPrincipal(session, claims)
  await lockRows(session, todo)
  const snapshots = await baseSnapshots(session, todo)
  const state = await loadWorkingState(session, clientId, todo)
  const context: DecisionContext = {
    principal,
    clientId,
    keys: new Set(keysOf(principal, clientId)),
    state,
    versions: await versionsInUse(session, todo),
    snapshotOf: ({ base }) => snapshots.get(`${base.nonce}:${base.position}`),
    forced,
  }
  const decisions = todo.map((transaction) => decideTransaction(context, transaction))
  if (progress === undefined) {
    await writeRows(
      session,
      { principal, clientId },
      decisions.flatMap(({ writes }) => writes),
    )
  } else {
    for (const [n, write] of decisions.flatMap(({ writes }) => writes).entries()) {
      progress.n = mutationIndex(todo[0], write, n)
      await writeRows(session, { principal, clientId }, [write])
    }
  }
  await recordGroup(session, clientId, todo, decisions)
}

/** A transaction whose mutations all passed has a write each, but for deletes of what is deleted and empty patches. */
function mutationIndex(
  transaction: ClientTransaction | undefined,
  write: { id: string; op: string },
  fallback: number,
): number {
  const found =
    transaction?.mutations.findIndex(({ id, op }) => id === write.id && op === write.op) ?? -1
  return found === -1 ? fallback : found
}

async function readWatermark(
  session: Session,
  clientId: string,
  lock: '' | 'FOR UPDATE',
): Promise<Watermark> {
  const { rows } = await session.query<{ seq: number; tx_id: string | null }>(
    `SELECT seq, tx_id FROM sync.client WHERE client_id = $1 ${lock}`,
    [clientId],
  )
  return { seq: rows[0]?.seq ?? 0, id: rows[0]?.tx_id ?? null }
}

function mustBeContiguous(transactions: readonly ClientTransaction[]): void {
  for (const [i, { seq }] of transactions.entries()) {
    if (seq !== (transactions[0]?.seq ?? 0) + i)
      throw new AgentDBError(
        'PROTOCOL',
        `transactions.${i}.seq: ${seq} does not follow the one before`,
      )
  }
}

/** A sequence number is no identity: a file that was restored, copied or cut by a power loss uses it again. */
async function mustBeSameStore(
  session: Session,
  mark: Watermark,
  previous: PushRequest['previous'],
  transactions: readonly ClientTransaction[],
): Promise<void> {
  const first = transactions[0]?.seq ?? 0
  if (first > mark.seq + 1) {
    throw new AgentDBError(
      'FORKED',
      `the centre has this store's transactions up to ${mark.seq}, and ${first} comes: the centre went back`,
    )
  }
  const known = transactions.filter(({ seq }) => seq <= mark.seq)
  const own =
    known.length === 0 ? previous?.id : transactions.find(({ seq }) => seq === mark.seq)?.id
  const same = own === undefined ? await wereApplied(session, known) : own === mark.id
  if (mark.seq > 0 && !same) {
    throw new AgentDBError(
      'FORKED',
      `transaction ${mark.seq} of this store is another one at the centre: the file was restored or copied`,
    )
  }
}

/** Whether transactions that a client sends again are the ones that the centre has under their numbers. */
async function wereApplied(
  session: Session,
  transactions: readonly ClientTransaction[],
): Promise<boolean> {
  const { rows } = await session.query<{ tx_id: string; seq: number }>(
    'SELECT tx_id, seq FROM sync.applied WHERE tx_id = ANY($1::text[])',
    [transactions.map(({ id }) => id)],
  )
  const seqs = new Map(rows.map(({ tx_id: id, seq }) => [id, seq]))
  return transactions.length > 0 && transactions.every(({ id, seq }) => seqs.get(id) === seq)
}

/** Slices of at most {@link GROUP_MUTATIONS_MAX} mutations; a larger transaction is a slice of its own. */
function groups(transactions: readonly ClientTransaction[]): ClientTransaction[][] {
  const out: ClientTransaction[][] = []
  let size = 0
  for (const transaction of transactions) {
    const more = transaction.mutations.length
    const current = out.at(-1)
    if (current === undefined || size + more > GROUP_MUTATIONS_MAX) {
      out.push([transaction])
      size = more
    } else {
      current.push(transaction)
      size += more
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
    // Only merging an update asks what its writer had seen.
    if (snapshots.has(key) || !mutations.some(({ op }) => op === 'update')) continue
    snapshots.set(key, await baseSnapshot(session, base))
  }
  return snapshots
}

/** Versions already in use of every unique key that counts up and that the group touches. */
async function versionsInUse(
  session: Session,
  transactions: readonly ClientTransaction[],
): Promise<Map<string, number>> {
  const versions = new Map<string, number>()
  for (const mutation of transactions.flatMap(({ mutations }) => mutations)) {
    if (mutation.table === undefined || mutation.refusal !== undefined || mutation.op === 'delete')
      continue
    const rule = nextVersionRule(mutation.table)
    if (rule === undefined || !rule.columns.some((column) => Object.hasOwn(mutation.patch, column)))
      continue
    await readVersions(session, mutation, rule, versions)
  }
  return versions
}

async function readVersions(
  session: Session,
  { table, id, patch }: Extract<ClientTransaction['mutations'][number], { patch: unknown }>,
  rule: NonNullable<ReturnType<typeof nextVersionRule>>,
  versions: Map<string, number>,
): Promise<void> {
  const columns = rule.columns.filter((column) => column !== rule.onClash.column)
  const same = columns
    .map(
      (column, i) =>
        `t.${column} = coalesce($${i + 2}, (SELECT own.${column}::text FROM ${table.name} own WHERE own.id = $1))${column.endsWith('_id') ? '::uuid' : ''}`,
    )
    .join(' AND ')
  const { rows } = await session.query<Record<string, string | number>>(
    `SELECT t.${rule.columns.join(', t.')} FROM ${table.name} t WHERE t.id <> $1 AND ${same}`,
    [id, ...columns.map((column) => patch[column] ?? null)],
  )
  for (const row of rows) {
    const key = versionKey(table, rule, row)
    const version = Number(row[rule.onClash.column])
    versions.set(key, Math.max(versions.get(key) ?? 0, version))
    versions.set(`${key}=${version}`, version)
  }
}

const pause = (attempt: number): Promise<void> =>
  new Promise((done) => setTimeout(done, Math.random() * 10 * 2 ** attempt))
