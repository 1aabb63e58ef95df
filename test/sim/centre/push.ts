import { references, type TableDefinition } from '../../../schema/define.ts'
import { AgentDBError } from '../../../schema/errors.ts'
import { clientKey, scopeKeys, userKey } from '../../../schema/role-access.ts'
import { allTables, mustTable, referencesTo } from '../../../schema/tables.ts'
import { newId } from '../../../schema/values/id.ts'
import { classifyFailure, refusalOf } from '../../../server/sync/push/database-failure.ts'
import { decideTransaction } from '../../../server/sync/push/decide.ts'
import type { Decision, DecisionContext, Write } from '../../../server/sync/push/decision.ts'
import {
  isParked,
  madeBy,
  missingRows,
  type MissingRows,
  type Window,
} from '../../../server/sync/push/missing.ts'
import { jsonRow } from '../../../server/sync/push/row-json.ts'
import {
  mustBeKnown,
  readTransactions,
  type ClientTransaction,
} from '../../../server/sync/push/transaction.ts'
import { mustBeIntroduced } from '../../../server/sync/push/watermark.ts'
import { WorkingState, type WorkingRow } from '../../../server/sync/push/working-state.ts'
import { parseSnapshot, type Snapshot } from '../../../sync/merge/snapshot.ts'
import type {
  IntroduceRequest,
  IntroduceResponse,
  PushRequest,
  PushResponse,
  WireOutcome,
} from '../../../sync/protocol/messages.ts'
import { LogKind } from '../../../sync/protocol/version.ts'
import type { Claims } from './centre.ts'
import { DatabaseError } from './database-error.ts'
import {
  rowKey,
  snapshotText,
  type ClientRow,
  type ColumnStamp,
  type ModelDatabase,
  type Transaction,
} from './model-database.ts'
import type { Principal, Principals } from './principals.ts'
import { Statements } from './statements.ts'

/** What a committed push was, for those who check it. */
export interface PushNote {
  readonly kind: 'push'
  readonly clientId: string
  readonly userId: string
  readonly role: string
  /** The schema version of the agent that sent it. */
  readonly schema: number
  readonly transactions: readonly ClientTransaction[]
  /** Transactions that had been applied before, under another client's numbers. */
  readonly repeated: readonly ClientTransaction[]
  /** Clients that the store was before it forked, each with the clock up to which its changes are its own. */
  readonly ancestry: ReadonlyMap<string, number>
  readonly decisions: readonly Decision[]
  /** By transaction the batch that its base was rounded down to. */
  readonly bases: ReadonlyMap<string, number>
  readonly window: Window
  /** Transactions that the centre had taken once and lost. */
  readonly broughtBack: ReadonlySet<string>
}

/** Who pushes, the schema version of its agent, and what its store has before the transaction of a number. */
interface Sender extends Claims {
  readonly schema: number
  readonly clientId: string
  readonly idBefore: (seq: number) => string | undefined
}

type Forced = DecisionContext['forced']

interface Writer {
  readonly clientId: string
  readonly userId: string
}

const ATTEMPTS_MAX = 8

/**
 * What the centre does with a push, on the model's database: the same steps as `server/sync/push/push.ts`, with a pause
 * between any two of them in which others go on. What is decided, the product's own functions decide.
 */
export class ModelPush {
  readonly #database: ModelDatabase
  readonly #principals: Principals
  readonly #pause: () => Promise<void>

  constructor(database: ModelDatabase, principals: Principals, pause: () => Promise<void>) {
    this.#database = database
    this.#principals = principals
    this.#pause = pause
  }

  async push(claims: Claims, request: PushRequest): Promise<PushResponse> {
    const { clientId } = request
    this.#principals.load(claims)
    mustBeIntroduced(request, this.#mark(clientId).isIntroduced)
    const isBound = this.#database.clients.read(clientId) !== undefined
    if (isBound) await this.#principals.bind(clientId, claims)
    const transactions = readTransactions(request, this.#database.clock())
    const mark = this.#mark(clientId)
    mustBeContiguous(transactions)
    this.#mustBeSameStore(clientId, mark, request.previous?.id, transactions)
    if (!isBound) await this.#principals.bind(clientId, claims)
    const todo = transactions.filter(({ seq }) => seq > mark.seq)
    mustBeKnown(todo)
    const sender: Sender = {
      ...claims,
      schema: request.schema,
      clientId,
      idBefore: (seq) =>
        transactions.find((each) => each.seq === seq - 1)?.id ?? request.previous?.id,
    }
    await this.#applyGroup(sender, todo, new Map())
    return { nextSeq: Math.max(mark.seq, transactions.at(-1)?.seq ?? 0) + 1 }
  }

  #mark(clientId: string, transaction?: Transaction): ClientRow {
    const row = this.#database.clients.read(clientId, transaction)
    return (
      row ?? {
        userId: '',
        agentId: '',
        seq: 0,
        txId: null,
        isIntroduced: false,
        ancestor: null,
        commonClock: null,
      }
    )
  }

  /** What a new client was before its store forked. */
  async introduce(claims: Claims, request: IntroduceRequest): Promise<IntroduceResponse> {
    const { clientId, ancestor, heal } = request
    this.#principals.load(claims)
    await this.#principals.bind(clientId, claims)
    await this.#database.transaction(async (transaction) => {
      await transaction.lock(`client:${clientId}`, 'update')
      const mark = { ...this.#mark(clientId, transaction), isIntroduced: true }
      transaction.write(this.#database.clients, clientId, mark)
      if (mark.ancestor !== null || mark.seq > 0) return
      const common = ancestor.id === null ? undefined : this.#database.applied.read(ancestor.id)
      const isOfAncestor = common?.clientId === ancestor.clientId
      transaction.write(this.#database.clients, clientId, {
        ...mark,
        ancestor: ancestor.clientId,
        commonClock: isOfAncestor ? common.clock : null,
      })
      if (heal !== null) transaction.write(this.#database.healed, clientId, heal.offered)
      const isCommon = (seq: number): boolean => seq <= ancestor.seq
      this.#inheritRejected(transaction, ancestor.clientId, clientId, isCommon)
    })
    return { seq: this.#mark(clientId).seq }
  }

  /** What depends on an insert that was rejected before the fork is still named after it. */
  #inheritRejected(
    transaction: Transaction,
    from: string,
    to: string,
    isCommon: (seq: number) => boolean,
  ): void {
    for (const [key, by] of Array.from(this.#database.rejected.entries(transaction)))
      if (key.startsWith(`${from}:`) && isCommon(by.seq))
        transaction.write(this.#database.rejected, `${to}${key.slice(from.length)}`, by)
  }

  #mustBeSameStore(
    clientId: string,
    mark: ClientRow,
    previous: string | undefined,
    transactions: readonly ClientTransaction[],
  ): void {
    const first = transactions[0]?.seq ?? 0
    if (first > mark.seq + 1)
      throw new AgentDBError(
        'FORKED',
        `the centre has ${mark.seq} of this store, and ${first} comes`,
      )
    const known = transactions.filter(({ seq }) => seq <= mark.seq)
    const own = known.length === 0 ? previous : transactions.find(({ seq }) => seq === mark.seq)?.id
    const isSame =
      own === undefined
        ? known.length > 0 && known.every(({ id, seq }) => this.#isKnownAs(clientId, id, seq))
        : own === mark.txId
    if (mark.seq > 0 && !isSame)
      throw new AgentDBError(
        'STORE_FORKED',
        `transaction ${mark.seq} of this store is another one here`,
      )
  }

  #isKnownAs(clientId: string, id: string, seq: number): boolean {
    const { applied, repeated } = this.#database
    const first = applied.read(id)
    const isFirst = first?.clientId === clientId && first.seq === seq
    return isFirst || repeated.read(`${clientId}:${seq}`) === id
  }

  async #applyGroup(
    sender: Sender,
    group: readonly ClientTransaction[],
    forced: Forced,
  ): Promise<void> {
    if (group.length === 0) return
    for (let attempt = 1; ; attempt++) {
      const progress = { n: 0 }
      try {
        await this.#database.transaction((transaction) =>
          this.#applyOnce(transaction, sender, group, forced, progress),
        )
        return
      } catch (error) {
        if (isLost(error)) throw error
        const failure = classifyFailure(error)
        if (failure === 'ours') throw error
        if (failure === 'permanent')
          return this.#applyApart(sender, group, forced, { n: progress.n, error })
        if (attempt >= ATTEMPTS_MAX) throw error
        await this.#pause()
      }
    }
  }

  /** The database refused something in the group: halve it, until the transaction at fault is alone. */
  async #applyApart(
    sender: Sender,
    group: readonly ClientTransaction[],
    forced: Forced,
    { n, error }: { n: number; error: unknown },
  ): Promise<void> {
    const [only] = group
    if (group.length > 1) {
      const middle = group.length >> 1
      await this.#applyGroup(sender, group.slice(0, middle), forced)
      return this.#applyGroup(sender, group.slice(middle), forced)
    }
    if (only === undefined || forced.has(only.id)) throw error
    const culprit = { n, refusal: refusalOf(error) }
    return this.#applyGroup(sender, group, new Map([[only.id, culprit]]))
  }

  async #applyOnce(
    transaction: Transaction,
    sender: Sender,
    group: readonly ClientTransaction[],
    forced: Forced,
    progress: { n: number },
  ): Promise<void> {
    const { clientId } = sender
    await transaction.lock(`client:${clientId}`, 'update')
    await this.#pause()
    const mark = this.#mark(clientId, transaction)
    this.#mustBeSameStore(clientId, mark, sender.idBefore(group[0]?.seq ?? 0), group)
    const todo = group.filter(({ seq }) => seq > mark.seq)
    if (todo.length === 0) return
    const principal = this.#principals.load(sender)
    const statements = new Statements(this.#database, transaction, clientId)
    const ancestry = this.#ancestry(transaction, clientId, todo)
    const window = this.#database.window()
    const fresh = this.#passOver(transaction, { clientId, userId: principal.userId }, todo)
    const missing = this.#missing(
      transaction,
      { clientId, userId: principal.userId },
      window,
      fresh,
    )
    await lockRows(this.#database, transaction, statements, fresh)
    await this.#pause()
    const bases = new Map<string, number>()
    const context: DecisionContext = {
      principal,
      clientId,
      ancestry,
      ...(missing && { missing }),
      keys: new Set(scopeKeys({ id: principal.userId, role: principal.role }, clientId)),
      state: workingState(this.#database, transaction, clientId, fresh),
      versions: versionsInUse(this.#database, transaction),
      snapshotOf: (each) => this.#baseSnapshot(each, bases),
      forced,
    }
    await this.#pause()
    const decisions = fresh.map((each) => decideTransaction(context, each))
    const writes = decisions.flatMap((decision) => decision.writes)
    for (const write of writes) {
      progress.n = write.n
      await carryOut(statements, write)
    }
    await this.#pause()
    const broughtBack = fresh.filter((each) => missing?.isBroughtBack(each) === true)
    if (missing !== undefined)
      recordMissing(this.#database, transaction, { clientId, ...principal, fresh }, decisions)
    await lockIds(this.#database, transaction, fresh)
    record(this.#database, transaction, { clientId, fresh, last: todo.at(-1) }, decisions)
    const note: PushNote = {
      kind: 'push',
      clientId,
      userId: principal.userId,
      role: principal.role,
      schema: sender.schema,
      transactions: fresh,
      repeated: todo.filter((each) => !fresh.includes(each)),
      ancestry,
      decisions,
      bases,
      window,
      broughtBack: new Set(broughtBack.map(({ id }) => id)),
    }
    transaction.note = note
    await this.#pause()
  }

  /** What came before under another client's number is not applied again, only its outcome is told. */
  #passOver(
    transaction: Transaction,
    { clientId, userId }: Writer,
    todo: readonly ClientTransaction[],
  ): readonly ClientTransaction[] {
    return todo.filter(({ id, seq }) => {
      const first = this.#database.applied.read(id, transaction)
      if (first === undefined || this.#mark(first.clientId, transaction).userId !== userId)
        return true
      transaction.write(this.#database.repeated, `${clientId}:${seq}`, id)
      for (const [key, { outcome }] of Array.from(this.#database.outcomes.entries(transaction))) {
        if (!key.startsWith(`${first.clientId}:${first.seq}.`)) continue
        const on = outcome.on?.replace(new RegExp(`^${first.seq}\\.`), `${seq}.`)
        const told = { ...outcome, seq, ...(on === undefined ? {} : { on }) }
        tellOutcome(this.#database, transaction, clientId, told)
      }
      this.#inheritRejected(transaction, first.clientId, clientId, (of) => of === first.seq)
      return false
    })
  }

  #missing(
    transaction: Transaction,
    { clientId, userId }: Writer,
    window: Window,
    fresh: readonly ClientTransaction[],
  ): MissingRows | undefined {
    const { parked, healed, tombstones } = this.#database
    const ids = new Set(fresh.map(({ id }) => id))
    const offered = healed.read(clientId, transaction)
    if (window === 'none' && offered === undefined) return undefined
    return missingRows(window, {
      waited: new Set([...parked.entries(transaction)].map(([id]) => id)),
      offered: offered ?? 0,
      buried: [...tombstones.entries(transaction)].map(([, { userId: user_id, ...row }]) => ({
        ...row,
        user_id,
      })),
      awaited: [...parked.entries(transaction)].flatMap(([id, each]) =>
        each.clientId === clientId && !ids.has(id) ? each.makes : [],
      ),
      userId,
    })
  }

  #ancestry(
    transaction: Transaction,
    clientId: string,
    todo: readonly ClientTransaction[],
  ): ReadonlyMap<string, number> {
    const line = new Map<string, number>()
    let upTo = Number.POSITIVE_INFINITY
    for (let at = this.#mark(clientId, transaction); at.ancestor !== null;) {
      if (at.commonClock === null) break
      upTo = Math.min(upTo, at.commonClock)
      line.set(at.ancestor, upTo)
      at = this.#mark(at.ancestor, transaction)
    }
    for (const { id } of todo) {
      const first = this.#database.applied.read(id, transaction)
      if (first === undefined || first.clientId === clientId) continue
      line.set(first.clientId, Math.max(first.clock, line.get(first.clientId) ?? -1))
      const mark = this.#mark(clientId, transaction)
      if (mark.ancestor === first.clientId)
        transaction.write(this.#database.clients, clientId, {
          ...mark,
          commonClock: Math.max(first.clock, mark.commonClock ?? -1),
        })
    }
    return line
  }

  #baseSnapshot(
    { id, base: { nonce, position } }: ClientTransaction,
    bases: Map<string, number>,
  ): Snapshot | undefined {
    if (nonce === null || !this.#database.isOfThisHistory(nonce, position)) return undefined
    const batch = this.#database.batches.findLast(
      (each) => each.position <= position && !each.isThinned,
    )
    if (batch !== undefined) bases.set(id, batch.position)
    return batch === undefined ? undefined : parseSnapshot(snapshotText(batch.snapshot))
  }
}

/** The database went away under the transaction. */
const isLost = (error: unknown): boolean =>
  typeof error === 'object' && error !== null && Reflect.get(error, 'code') === '57P01'

function mustBeContiguous(transactions: readonly ClientTransaction[]): void {
  for (const [i, { seq }] of transactions.entries())
    if (seq !== (transactions[0]?.seq ?? 0) + i)
      throw new AgentDBError('PROTOCOL', `transactions.${i}.seq does not follow the one before`)
}

type Strength = 'key share' | 'no key update' | 'update'

/** One sorted pass over all that the group will touch, before anything is read. */
async function lockRows(
  database: ModelDatabase,
  transaction: Transaction,
  statements: Statements,
  todo: readonly ClientTransaction[],
): Promise<void> {
  const wanted = new Map<string, Set<string>>()
  const want = (table: string, strength: Strength, id: string): void => {
    const key = `${table} ${strength}`
    wanted.set(key, (wanted.get(key) ?? new Set()).add(id))
  }
  const ofMessage = (id: string): void => {
    const message = statements.read(mustTable('messages'), id)
    if (message !== undefined)
      want('conversations', 'no key update', String(message['conversation_id']))
  }
  for (const mutation of todo.flatMap(({ mutations }) => mutations)) {
    if (mutation.table === undefined || mutation.refusal !== undefined) continue
    const { table, op, id, patch } = mutation
    if (op === 'delete') want(table.name, 'update', id)
    if (op === 'delete' && table.name === 'messages') ofMessage(id)
    if (op === 'update') want(table.name, 'no key update', id)
    for (const { column, target } of references(table)) {
      const parent = patch[column]
      if (typeof parent === 'string') want(target, 'key share', parent)
    }
    const conversation = patch['conversation_id']
    if (table.name === 'messages' && typeof conversation === 'string')
      want('conversations', 'no key update', conversation)
  }
  for (const table of allTables) {
    for (const strength of ['update', 'no key update', 'key share'] as const) {
      const ids = [...(wanted.get(`${table.name} ${strength}`) ?? [])].toSorted()
      for (const id of ids) await statements.lock(table, id, strength)
      if (strength !== 'update' || ids.length === 0) continue
      for (const { table: child, column, onDelete } of referencesTo.get(table.name) ?? []) {
        for (const row of database.rowsOf(child.number, transaction))
          if (ids.includes(String(row[column])))
            want(child.name, onDelete === 'cascade' ? 'update' : 'no key update', String(row['id']))
      }
    }
  }
}

/** What the group decides on, as it is once the rows are locked. */
function workingState(
  database: ModelDatabase,
  transaction: Transaction,
  clientId: string,
  todo: readonly ClientTransaction[],
): WorkingState {
  const rows = new Map<string, WorkingRow>()
  const rejected = new Map<string, string>()
  const add = (table: TableDefinition, id: string): void => {
    const key = rowKey(table.number, id)
    const by = database.rejected.read(`${clientId}:${key}`, transaction)
    if (by !== undefined) rejected.set(key, `${by.seq}.${by.n}`)
    const meta = database.meta.read(key, transaction)
    if (meta === undefined) return
    const { keys, deleted, cols, made } = meta
    const image = database.rows.read(key, transaction)
    rows.set(key, { table, id, keys, deleted, made, image, stamps: cols, inDatabase: true })
  }
  const descendants = new Map<string, WorkingRow[]>()
  for (const mutation of todo.flatMap(({ mutations }) => mutations)) {
    if (mutation.table === undefined || mutation.refusal !== undefined) continue
    add(mutation.table, mutation.id)
    for (const { column, target } of references(mutation.table)) {
      const parent = mutation.patch[column]
      if (typeof parent === 'string') add(mustTable(target), parent)
    }
    if (mutation.op !== 'delete') continue
    const below = rowsBelow(database, transaction, mutation.table, mutation.id)
    for (const ref of below) add(ref.table, ref.id)
    descendants.set(
      rowKey(mutation.table.number, mutation.id),
      below.flatMap(({ table, id }) => rows.get(rowKey(table.number, id)) ?? []),
    )
  }
  return new WorkingState(rows, rejected, descendants)
}

/** Rows that go with a row when it is deleted. */
function rowsBelow(
  database: ModelDatabase,
  transaction: Transaction,
  table: TableDefinition,
  id: string,
): { table: TableDefinition; id: string }[] {
  return (referencesTo.get(table.name) ?? []).flatMap(({ table: child, column, onDelete }) => {
    if (onDelete !== 'cascade') return []
    const ids = [...database.rowsOf(child.number, transaction)].flatMap((row) =>
      row[column] === id ? [String(row['id'])] : [],
    )
    return ids.flatMap((own) => [
      { table: child, id: own },
      ...rowsBelow(database, transaction, child, own),
    ])
  })
}

function versionsInUse(
  database: ModelDatabase,
  transaction: Transaction,
): DecisionContext['versions'] {
  const versions = { largest: new Map<string, number>(), holders: new Map<string, string>() }
  const { number } = mustTable('workflows')
  for (const row of database.rowsOf(number, transaction)) {
    const key = JSON.stringify([number, row['user_id'], row['name']])
    const version = Number(row['version'])
    versions.largest.set(key, Math.max(versions.largest.get(key) ?? 0, version))
    versions.holders.set(`${key}=${version}`, String(row['id']))
  }
  return versions
}

/** One write after the other, as they were made: what set-based statements must come to, too. */
async function carryOut(statements: Statements, { table, op, id, values }: Write): Promise<void> {
  if (op === 'insert') await statements.insert(table, [values])
  else if (op === 'update') await statements.update(table, id, values)
  else await statements.remove(table, [id])
}

/** A line of the log about something that is no row. */
function tell(
  database: ModelDatabase,
  transaction: Transaction,
  { tbl, id, image, keys }: { tbl: number; id: string; image: object; keys: readonly string[] },
): void {
  const copy = JSON.parse(JSON.stringify(image)) as Record<string, unknown>
  transaction.log.push({
    seq: database.drawSeq(),
    xid: transaction.xid,
    tbl,
    id,
    image: copy,
    isRow: false,
    keysBefore: [],
    keysAfter: keys,
  })
}

function tellOutcome(
  database: ModelDatabase,
  transaction: Transaction,
  clientId: string,
  outcome: WireOutcome,
): void {
  const key = `${clientId}:${outcome.seq}.${outcome.n}`
  transaction.write(database.outcomes, key, { clientId, outcome })
  const keys = [clientKey(clientId)]
  tell(database, transaction, { tbl: LogKind.outcome, id: clientId, image: outcome, keys })
}

/** Which transactions wait, which wait no longer, and which rows were deleted before they were back. */
function recordMissing(
  database: ModelDatabase,
  transaction: Transaction,
  { clientId, userId, role, fresh }: Writer & Pick<Principal, 'role'> & Pick<Recorded, 'fresh'>,
  decisions: readonly Decision[],
): void {
  for (const [i, { id, seq, mutations }] of fresh.entries()) {
    const decision = decisions[i]
    const waits = decision !== undefined && isParked(decision)
    const before = database.parked.read(id, transaction)
    const now = before ?? { clientId, makes: madeBy(mutations) }
    if (waits || before !== undefined)
      transaction.write(database.parked, id, waits ? now : undefined)
    // Sent again, its number is known to be this store's.
    if (waits) transaction.write(database.repeated, `${clientId}:${seq}`, id)
    for (const { table, id: row } of decision?.tombstones ?? [])
      transaction.write(database.tombstones, `${rowKey(table.number, row)}:${userId}`, {
        tbl: table.number,
        id: row,
        userId,
        role,
      })
  }
}

interface Recorded {
  readonly clientId: string
  readonly fresh: readonly ClientTransaction[]
  readonly last: ClientTransaction | undefined
}

/** The key of `sync.applied`: what a copied store sends at the same moment waits here, and then finds it taken. */
async function lockIds(
  database: ModelDatabase,
  transaction: Transaction,
  fresh: readonly ClientTransaction[],
): Promise<void> {
  for (const { id } of fresh) {
    await transaction.lock(`applied:${id}`, 'update')
    if (database.applied.read(id) !== undefined)
      throw new DatabaseError('23505', `transaction ${id} was applied`, 'applied_pkey')
  }
}

/** Clocks, outcomes, conflicts and watermark, in the transaction of the rows and through the log. */
function record(
  database: ModelDatabase,
  transaction: Transaction,
  { clientId, fresh, last }: Recorded,
  decisions: readonly Decision[],
): void {
  if (last === undefined) return
  stampClocks(database, transaction, clientId, decisions)
  for (const decision of decisions) {
    for (const outcome of decision.outcomes) tellOutcome(database, transaction, clientId, outcome)
    const seq = decision.outcomes[0]?.seq ?? 0
    for (const { table, id, n } of decision.rejectedRows)
      transaction.write(database.rejected, `${clientId}:${rowKey(table.number, id)}`, { seq, n })
    for (const { table, id, loser, winner, lost, kept } of decision.conflicts) {
      const image = {
        id: newId(),
        at: new Date().toISOString(),
        table: table.name,
        rowId: id,
        loser,
        winner,
        lost: jsonRow(table, lost),
        kept: jsonRow(table, kept),
      }
      transaction.write(database.conflicts, image.id, image)
      const users = [loser, winner].flatMap((client) => {
        const user = client === null ? undefined : database.clients.read(client, transaction)
        return user === undefined ? [] : [userKey(user.userId)]
      })
      const keys = [...new Set(users)]
      tell(database, transaction, { tbl: LogKind.conflict, id: image.id, image, keys })
    }
  }
  for (const [i, { id, seq, clock }] of fresh.entries()) {
    const decision = decisions[i]
    if (decision !== undefined && !isParked(decision))
      transaction.write(database.applied, id, { clientId, seq, clock })
  }
  const client = database.clients.read(clientId, transaction)
  if (client !== undefined)
    transaction.write(database.clients, clientId, { ...client, seq: last.seq, txId: last.id })
  const image = { seq: last.seq, id: last.id }
  const keys = [clientKey(clientId)]
  tell(database, transaction, { tbl: LogKind.watermark, id: clientId, image, keys })
}

/** The triggers stamped the time of the statement; what counts is the clock of the mutation. */
function stampClocks(
  database: ModelDatabase,
  transaction: Transaction,
  clientId: string,
  decisions: readonly Decision[],
): void {
  for (const write of decisions.flatMap(({ writes }) => writes)) {
    const { table, op, id, values, clock, unseen = {} } = write
    const key = rowKey(table.number, id)
    const meta = database.meta.read(key, transaction)
    if (op !== 'update' || meta === undefined || meta.deleted) continue
    const stamps = Object.keys(values).map((column): [string, ColumnStamp] => {
      const stamp = [String(transaction.xid), clock, clientId] as const
      const others = unseen[column]
      return [column, others === undefined ? stamp : [...stamp, others]]
    })
    transaction.write(database.meta, key, {
      ...meta,
      cols: { ...meta.cols, ...Object.fromEntries(stamps) },
    })
  }
}
