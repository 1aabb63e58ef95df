import type { Stored, StoredRow } from '../../schema/codec.ts'
import { agentColumnsAt } from '../../schema/columns-at.ts'
import { agentColumns, mustColumn, references, type TableDefinition } from '../../schema/define.ts'
import { mustTable, referencesTo, tableOfNumber } from '../../schema/tables.ts'
import { timestampOfMicros } from '../../schema/values/timestamp.ts'
import type { WireOutcome } from '../../sync/protocol/messages.ts'
import type { CommitNote } from './centre/commit-note.ts'
import { unknownAt } from './unknown-at.ts'
import { must, Violation } from './checks/violation.ts'
import { rowKey, type ModelDatabase, type Transaction } from './centre/model-database.ts'
import type { PushNote } from './centre/push.ts'
import { mayReference, mayWrite } from './oracle-access.ts'
import {
  groupsOf,
  mergeUnit,
  same,
  told,
  type Change,
  type KnownMutation,
  type Lost,
  type Merging,
} from './oracle-merge.ts'

type Note = NonNullable<CommitNote>
type Mutation = PushNote['transactions'][number]['mutations'][number]

/** Who changed a column last, and whose changes are still in its value without that writer having seen them. */
interface Stamp extends Change {
  readonly others: readonly Change[]
}

type Writer = Pick<PushNote, 'userId' | 'role'>

interface OracleRow {
  readonly table: TableDefinition
  /** Undefined once it was deleted. */
  readonly values: StoredRow | undefined
  readonly made: Change
  readonly stamps: ReadonlyMap<string, Stamp>
}

type Find = (table: string, id: unknown) => StoredRow | undefined

/**
 * A second opinion on every commit of the centre: the merge rules once more, in the plainest way, from the history alone.
 * It takes what was asked (mutations with their bases, SQL statements) in commit order and works out what the rows, the
 * outcomes and the conflict records must be. It shares no code with `sync/merge` and the server, and knows neither
 * snapshots nor transaction ids: a change was seen when its commit had a lower number than the base's batch.
 *
 * Where the outcome depends on a race that locks do not decide (a version taken meanwhile, a role changed meanwhile), it
 * accepts each end that some order explains.
 */
export class Oracle {
  readonly #model: ModelDatabase
  readonly #rows = new Map<string, OracleRow>()
  /** Unique keys that were ever in use. */
  readonly #everUsed = new Set<string>()
  readonly #rejected = new Set<string>()
  /** Commits that the one who is looked at had surely seen. */
  #startedAfter = 0
  /** Rows that someone deleted before they were back, and who. */
  readonly #buried = new Map<string, readonly Writer[]>()
  /** What the commits changed, so that it can be taken back. */
  readonly #journal: { readonly commit: number; readonly undo: () => void }[] = []
  #touched = new Set<string>()
  #lost: Lost[] = []

  constructor(model: ModelDatabase) {
    this.#model = model
  }

  /** The centre is what it was at an earlier commit: it goes on from there. */
  goBack(commit: number): void {
    for (let last = this.#journal.at(-1); last !== undefined; last = this.#journal.at(-1)) {
      if (last.commit <= commit) break
      last.undo()
      this.#journal.pop()
    }
    for (const [xid, of] of this.#commits) if (of > commit) this.#commits.delete(xid)
  }

  #put<V>(map: Map<string, V>, key: string, value: V): void {
    const before = map.get(key)
    const undo = (): void => void (before === undefined ? map.delete(key) : map.set(key, before))
    this.#journal.push({ commit: this.#model.commits, undo })
    map.set(key, value)
  }

  onCommit(transaction: Transaction, note: Note): void {
    this.#touched = new Set()
    this.#lost = []
    this.#startedAfter = transaction.startedAfterCommits
    if (note.kind === 'push') this.#replayPush(transaction, note)
    else
      for (const statement of note.statements) {
        const table = mustTable(statement.table)
        if (statement.op === 'insert')
          this.#makeRow(table, { ...defaultsOf(table, transaction.startedAt), ...statement.row })
        else if (statement.op === 'update')
          this.#updateDirectly(table, statement.id, statement.values)
        else this.#delete(table, statement.id, null)
      }
    this.#compareRows(transaction)
    this.#compareConflicts(transaction)
  }

  /** SQL at the centre. A conversation that changes hands takes its owner's embeddings of it along. */
  #updateDirectly(table: TableDefinition, id: string, values: StoredRow): void {
    const by = { clock: undefined, writer: null }
    const before = this.#rows.get(rowKey(table.number, id))?.values
    const [from, to] = [before?.['user_id'], values['user_id']]
    this.#setValues(table, id, values, by)
    if (table.name !== 'conversations' || typeof from !== 'string' || typeof to !== 'string') return
    for (const { table: of, values: row } of Array.from(this.#rows.values())) {
      if (of.name !== 'embeddings' || row?.['collection'] !== 'conversation_embeddings') continue
      const payload = String(row['payload'])
      const named = JSON.parse(payload) as Record<string, unknown> | null
      if (row['user_id'] !== from || named?.['conversation_id'] !== id || from === to) continue
      // One that became the owner's while the conversation was given away is taken along or stays: that one had the text.
      const key = rowKey(of.number, String(row['id']))
      const isMeanwhile = this.#atBegin(key)?.['user_id'] !== from
      if (isMeanwhile && this.#model.rows.read(key)?.['user_id'] === from) continue
      const moved = named['user_id'] === from ? { payload: payload.replace(from, to) } : {}
      this.#setValues(of, String(row['id']), { user_id: to, ...moved }, by)
    }
  }

  /** A row as it was when the transaction began that is looked at. */
  #atBegin(key: string): StoredRow | undefined {
    return this.#model.rows
      .versions(key)
      .findLast(({ xid }) => this.#commitOf(xid) <= this.#startedAfter)?.value
  }

  /** All rows of the centre once more, at the end. */
  compareAll(): void {
    for (const [key, { values }] of this.#rows)
      must(
        (this.#model.rows.read(key) === undefined) === (values === undefined),
        'oracle',
        () => `${key} is ${values === undefined ? 'there, and was deleted' : 'not there'}`,
      )
  }

  #replayPush(transaction: Transaction, note: PushNote): void {
    this.#mustHaveHadRole(transaction, note)
    for (const [i, pushed] of note.transactions.entries()) {
      const outcomes = new Map(note.decisions[i]?.outcomes.map((outcome) => [outcome.n, outcome]))
      if (note.decisions[i]?.outcomes.some(({ kind }) => kind === 'parked')) {
        this.#checkParked(note, pushed, outcomes)
        continue
      }
      const isRefused = [...outcomes.values()].some(
        ({ kind }) => kind === 'rejected' || kind === 'dependency_failed',
      )
      if (isRefused) this.#checkRefusal(note, pushed, outcomes)
      else
        for (const [n, mutation] of pushed.mutations.entries())
          this.#replayMutation(note, pushed, mutation, outcomes.get(n))
    }
  }

  /** The role that decided is one that the user had between the transaction's begin and its commit (I11). */
  #mustHaveHadRole(transaction: Transaction, { userId, role }: PushNote): void {
    const versions = this.#model.rows.versions(rowKey(1, userId))
    const before = versions.findLast(
      ({ xid }) => this.#commitOf(xid) <= transaction.startedAfterCommits,
    )
    const roles = versions
      .filter(
        (version) =>
          version === before || this.#commitOf(version.xid) > transaction.startedAfterCommits,
      )
      .map(({ value }) => value?.['role'])
    must(
      roles.includes(role),
      'I11',
      () => `a push was decided for a ${role}; ${userId} was ${roles.join(', ')}`,
    )
  }

  readonly #commits = new Map<number, number>()

  /** Called for every commit, also of those that have no note. */
  noteCommit(xid: number): void {
    this.#commits.set(xid, this.#model.commits)
  }

  #commitOf(xid: number): number {
    return this.#commits.get(xid) ?? Number.POSITIVE_INFINITY
  }

  /** Refused whole, for a reason that holds. */
  #checkRefusal(
    note: PushNote,
    { seq, id, mutations }: PushNote['transactions'][number],
    outcomes: ReadonlyMap<number, WireOutcome>,
  ): void {
    const isBroughtBack = note.broughtBack.has(id)
    const isAllGone = this.#isAllGone(mutations)
    for (const [n, mutation] of mutations.entries()) {
      const outcome = outcomes.get(n)
      must(
        !isBroughtBack || outcome?.reason !== 'deleted' || isAllGone,
        'I16',
        () => `${seq} comes back, and is refused whole for ${mutation.id}, which was deleted since`,
      )
      must(
        outcome?.kind === 'rejected' || outcome?.kind === 'dependency_failed',
        'atomic',
        () => `mutation ${seq}.${n} is ${outcome?.kind ?? 'applied'}; its siblings are refused`,
      )
      if (mutation.table !== undefined && mutation.op === 'insert')
        this.#rejected.add(`${note.userId}:${rowKey(mutation.table.number, mutation.id)}`)
      this.#mustMayTell(note, mutation, outcome)
      if (outcome === undefined || outcome.reason === 'sibling') continue
      if (mutation.table === undefined || mutation.refusal !== undefined) continue
      if (isBroughtBack && isAllGone) continue
      must(
        this.#isExplained(note, mutation, outcome),
        'oracle',
        () =>
          `${seq}.${n}, ${mutation.op} of ${mutation.table?.name} ${mutation.id}, is refused without need: ${JSON.stringify(outcome)}`,
      )
    }
  }

  /** The row that comes with a refusal is one that its writer may see (I11). */
  #mustMayTell(note: PushNote, { table, id }: Mutation, outcome: WireOutcome | undefined): void {
    if (table === undefined || outcome?.server_row == null) return
    must(
      this.#sinceStart(table, id).some((row) =>
        this.#everMay(table, row, (find) => mayReference(note, table.name, row, find)),
      ),
      'I11',
      () => `${note.userId} is told of ${table.name} ${id}, which is not in its scope`,
    )
  }

  /** Waits, whole, for a row that was never here, while such may come back. */
  #checkParked(
    note: PushNote,
    { seq, mutations }: PushNote['transactions'][number],
    outcomes: ReadonlyMap<number, WireOutcome>,
  ): void {
    must(note.window === 'open', 'I16', () => `${seq} is parked, and nothing can come back`)
    must(
      outcomes.size === mutations.length &&
        [...outcomes.values()].every(({ kind }) => kind === 'parked'),
      'atomic',
      () => `${seq} is parked in part: ${JSON.stringify([...outcomes.values()])}`,
    )
    must(
      mutations.some((mutation) => keysOf(mutation).some(this.#wasMissing)),
      'I16',
      () => `${seq} is parked, and all that it needs is here`,
    )
  }

  /** Whether nothing would be left of a transaction: each row was deleted, or hangs on one that was or would have been. */
  #isAllGone(mutations: readonly Mutation[]): boolean {
    const gone = new Set<string>()
    return mutations.every((mutation) => {
      const [own = '', ...parents] = keysOf(mutation)
      const isGone = [own, ...parents].some((key) => this.#isGone(key) || gone.has(key))
      if (isGone) gone.add(own)
      return isGone
    })
  }

  /** Of a row that was deleted, or hangs on one. */
  readonly #concernsDeleted = (mutation: Mutation): boolean => keysOf(mutation).some(this.#isGone)

  readonly #isGone = (key: string): boolean => {
    const row = this.#rows.get(key)
    return row === undefined ? this.#buried.has(key) : row.values === undefined
  }

  #isExplained(note: PushNote, mutation: KnownMutation, { reason }: WireOutcome): boolean {
    const { table, id, op, patch } = mutation
    const row = this.#rows.get(rowKey(table.number, id))
    const parents = Object.entries(table.columns).flatMap(([column, { shape }]) => {
      const parent = patch[column]
      return shape.references === undefined || typeof parent !== 'string'
        ? []
        : [rowKey(mustTable(shape.references.table).number, parent)]
    })
    const values = row?.values ?? (op === 'insert' ? patch : undefined)
    switch (reason) {
      case 'forbidden':
        return (
          values === undefined ||
          (op === 'insert' && row !== undefined) ||
          this.#everMay(table, values, (find) => !mayWrite(note, table.name, op, values, find)) ||
          parents.some((parent) => !this.#isSafeReference(note, parent))
        )
      case 'deleted':
      case 'foreign_key':
        return [rowKey(table.number, id), ...parents].some(this.#isGone)
      case 'parent_missing':
        return (
          note.window === 'over' &&
          [rowKey(table.number, id), ...parents].some((key) => !this.#rows.has(key))
        )
      case 'unique':
        return (
          row !== undefined ||
          uniqueTexts(table, { ...values, ...patch }).some((text) => this.#everUsed.has(text))
        )
      case 'parent_rejected':
        return [rowKey(table.number, id), ...parents].some((key) =>
          this.#rejected.has(`${note.userId}:${key}`),
        )
      case 'conflict':
        return table.groups.some(({ policy }) => policy === 'reject') && row !== undefined
      case 'newer_children':
        return table.staleDelete === 'reject' && this.#rowsBelow(table, id).length > 0
      default:
        return false
    }
  }

  /** Whether nothing could make this reference invisible to the writer. */
  #isSafeReference(note: PushNote, key: string): boolean {
    const row = this.#rows.get(key)
    const { table, values } = row ?? {}
    if (table === undefined || values === undefined) return false
    const versions = this.#sinceStart(table, String(values['id']))
    return !versions.some((each) =>
      this.#everMay(table, each, (find) => !mayReference(note, table.name, each, find)),
    )
  }

  /** Whether a row was never here, at some moment since the transaction began: no lock holds a row that is not there. */
  readonly #wasMissing = (key: string): boolean =>
    !this.#rows.has(key) ||
    this.#model.rows.versions(key).every(({ xid }) => this.#commitOf(xid) > this.#startedAfter)

  /** A row as it was at any moment since the transaction began: it may have changed hands before its lock was taken. */
  #sinceStart(table: TableDefinition, id: string): StoredRow[] {
    const versions = this.#model.rows.versions(rowKey(table.number, id))
    const first = versions.findLastIndex(({ xid }) => this.#commitOf(xid) <= this.#startedAfter)
    // The same push may have made it, and deleted it again further on.
    const now = this.#rows.get(rowKey(table.number, id))?.values
    return [...versions.slice(Math.max(first, 0)).map(({ value }) => value), now].filter(
      (values) => values !== undefined,
    )
  }

  /**
   * Whether something holds with the row above as it was at any moment since the transaction began: whom that belongs to
   * no lock of a push holds fast.
   */
  #everMay(table: TableDefinition, values: StoredRow, holds: (find: Find) => boolean): boolean {
    const { owner } = table
    if (owner.kind !== 'parent') return holds(this.#find)
    const parent = mustTable(owner.table)
    return this.#sinceStart(parent, String(values[owner.column])).some((version) =>
      holds((name, id) =>
        name === parent.name && id === version['id'] ? version : this.#find(name, id),
      ),
    )
  }

  readonly #find = (table: string, id: unknown): StoredRow | undefined =>
    this.#rows.get(rowKey(mustTable(table).number, String(id)))?.values

  #replayMutation(
    note: PushNote,
    pushed: PushNote['transactions'][number],
    mutation: Mutation,
    outcome: WireOutcome | undefined,
  ): void {
    if (mutation.table === undefined)
      throw new Violation('oracle', 'a mutation of an unknown table was accepted')
    const { table, id, op } = mutation
    const patch = note.broughtBack.has(pushed.id) ? this.#withoutGone(mutation) : mutation.patch
    const row = this.#rows.get(rowKey(table.number, id))
    const what = (): string => `${op} of ${table.name} ${id} by ${note.clientId} (${pushed.seq})`
    if (op === 'delete' && row !== undefined && row.values === undefined) return
    if (outcome?.reason === 'deleted') return this.#passOver(note, pushed, mutation)
    if (op === 'delete' && row === undefined && note.window === 'open')
      return this.#bury(note, mutation)
    const values = op === 'insert' ? patch : row?.values
    if (op === 'insert') {
      must(row === undefined, 'I10', () => `${what()}: accepted over a row that was`)
      const buriers = this.#buried.get(rowKey(table.number, id)) ?? []
      must(
        !buriers.some(({ userId }) => userId === note.userId),
        'I10',
        () => `${what()}: accepted, and was deleted before it was back`,
      )
    }
    if (values === undefined) throw new Violation('oracle', `${what()}: accepted without a row`)
    must(
      this.#everMay(table, values, (find) => mayWrite(note, table.name, op, values, find)),
      'I11',
      () => `${what()}: accepted of a ${note.role}`,
    )
    this.#mustSeeParents(note, { ...mutation, patch }, what)
    if (op === 'delete') {
      this.#loseDeleted(note, pushed, mutation)
      this.#delete(table, id, note.clientId)
    }
    if (op === 'insert')
      this.#makeRow(table, {
        // What its writer or the centre does not know yet.
        ...unknownAt(table, 1),
        ...patch,
        ...this.#nextVersion(outcome),
      })
    if (op === 'update') this.#merge(note, pushed, { ...mutation, patch }, outcome)
  }

  /** What a transaction that comes back had written of a row that was deleted since; the rest of it stands. */
  #passOver(
    note: PushNote,
    { id: transaction, seq }: PushNote['transactions'][number],
    mutation: KnownMutation,
  ): void {
    must(
      note.broughtBack.has(transaction) && this.#concernsDeleted(mutation),
      'oracle',
      () => `${seq}: ${mutation.op} of ${mutation.id} is passed over without need`,
    )
    const key = rowKey(mutation.table.number, mutation.id)
    if (mutation.op === 'insert' && !this.#rows.has(key)) this.#bury(note, mutation)
  }

  #bury({ userId, role }: PushNote, { table, id }: KnownMutation): void {
    const key = rowKey(table.number, id)
    this.#put(this.#buried, key, [...(this.#buried.get(key) ?? []), { userId, role }])
  }

  /** A deletion since has set optional references to null, as it did those that were here. */
  #withoutGone({ table, patch }: KnownMutation): StoredRow {
    const gone = references(table).filter(({ column, target, onDelete }) => {
      const parent = patch[column]
      return (
        onDelete === 'set null' &&
        typeof parent === 'string' &&
        this.#isGone(rowKey(mustTable(target).number, parent))
      )
    })
    return { ...patch, ...Object.fromEntries(gone.map(({ column }) => [column, null])) }
  }

  /** Each reference that a write sets points at a row that its writer saw at some moment of the transaction (I11). */
  #mustSeeParents(note: PushNote, { table, patch }: KnownMutation, what: () => string): void {
    for (const [column, { shape }] of Object.entries(table.columns)) {
      const id = patch[column]
      if (shape.references === undefined || typeof id !== 'string') continue
      const target = mustTable(shape.references.table)
      must(
        this.#sinceStart(target, id).some((row) =>
          this.#everMay(target, row, (find) => mayReference(note, target.name, row, find)),
        ),
        'I11',
        () => `${what()}: accepted with ${column} ${id}, which its writer cannot see`,
      )
    }
  }

  #nextVersion(outcome: WireOutcome | undefined): StoredRow {
    const version = outcome?.reason === 'next_version' ? outcome.changed?.['version'] : undefined
    return typeof version === 'number' ? { version } : {}
  }

  /** What the writer of a transaction had not seen, and had not made. */
  #isConcurrentFor(
    { clientId, ancestry, bases }: PushNote,
    { id, base }: PushNote['transactions'][number],
  ): (change: Change) => boolean {
    const seen = this.#commitsSeenAt(base, bases.get(id))
    return ({ commit, clock, writer }) =>
      commit > seen &&
      writer !== clientId &&
      !(writer !== null && clock <= (ancestry.get(writer) ?? -1))
  }

  /** Merges unit by unit: a group, or a column alone, each as the schema says. */
  #merge(
    note: PushNote,
    pushed: PushNote['transactions'][number],
    mutation: KnownMutation,
    outcome: WireOutcome | undefined,
  ): void {
    const { clientId } = note
    const { clock, seq } = pushed
    const { table, id, patch } = mutation
    const row = this.#rows.get(rowKey(table.number, id))
    const isConcurrent = this.#isConcurrentFor(note, pushed)
    const unseen = (column: string): Change[] => {
      const stamp = row?.stamps.get(column)
      return stamp === undefined ? [] : [stamp, ...stamp.others].filter(isConcurrent)
    }
    const merging: Merging = {
      id,
      clientId,
      clock,
      mutation,
      unseen,
      current: row?.values ?? {},
      written: {},
      losses: this.#lost,
      hasLost: false,
    }
    for (const columns of groupsOf(table, Object.keys(patch))) {
      const whole = table.groups.find((group) =>
        columns.some((each) => group.columns.includes(each)),
      )
      must(
        whole === undefined || whole.columns.length === columns.length,
        'group',
        () =>
          `${seq}: the patch of ${table.name} ${id} has ${columns.join()} of the group ${whole?.name}`,
      )
      const policy =
        whole?.policy ?? (whole === undefined ? mustColumn(table, columns[0] ?? '').policy : 'lww')
      mergeUnit(merging, columns, policy)
    }
    const { written, hasLost } = merging
    const version = this.#nextVersion(outcome)
    const kind = outcome?.kind ?? 'applied'
    const isAllLost = hasLost && Object.keys(written).length === 0
    must(
      Object.keys(version).length > 0 || (kind === 'superseded') === isAllLost,
      'oracle',
      () =>
        `${seq}: the update of ${table.name} ${id} is ${kind}; lost is ${hasLost}, written ${Object.keys(written).join()}`,
    )
    must(!hasLost || kind !== 'applied', 'I9', () => `${seq}: what lost is told to be applied`)
    const stays = (column: string): readonly Change[] =>
      mustColumn(table, column).policy === 'merge' ? unseen(column) : []
    this.#setValues(table, id, { ...written, ...version }, { clock, writer: clientId, stays })
  }

  /** What a delete takes away of others' unseen work; of rows below it only where the table says that it may. */
  #loseDeleted(
    note: PushNote,
    pushed: PushNote['transactions'][number],
    { table, id }: KnownMutation,
  ): void {
    const isConcurrent = this.#isConcurrentFor(note, pushed)
    const below = this.#rowsBelow(table, id)
    const newer = below.filter((row) => this.#lossOf(row, isConcurrent, true) !== undefined)
    must(
      newer.length === 0 || table.staleDelete !== 'reject',
      'oracle',
      () => `${table.name} ${id} was deleted with rows below it that its writer had not seen`,
    )
    const own = this.#rows.get(rowKey(table.number, id))
    const losses = [
      ...(own === undefined ? [] : [this.#lossOf(own, isConcurrent, false)]),
      ...newer.map((row) => this.#lossOf(row, isConcurrent, true)),
    ]
    for (const loss of losses)
      if (loss !== undefined) this.#lost.push({ ...loss, winner: note.clientId })
  }

  #lossOf(
    { values = {}, made, stamps, table }: OracleRow,
    isConcurrent: (change: Change) => boolean,
    isBelow: boolean,
  ): Lost | undefined {
    const isNew = isBelow && isConcurrent(made)
    const changes = [...stamps].flatMap(([column, stamp]) =>
      [stamp, ...stamp.others].filter(isConcurrent).map((change) => ({ column, change })),
    )
    if (!isNew && changes.length === 0) return undefined
    const latest = [...(isNew ? [made] : []), ...changes.map(({ change }) => change)]
      .toSorted((a, b) => a.clock - b.clock)
      .at(-1)
    const key = String(values['id'])
    const columns = isNew ? undefined : changes.map(({ column }) => column)
    const row = isNew
      ? (this.#model.rows
          .versions(rowKey(table.number, key))
          .findLast(({ value }) => value !== undefined)?.value ?? {})
      : values
    const lost = Object.fromEntries(
      Object.entries(row)
        .filter(([column]) => columns === undefined || columns.includes(column))
        .map(([column, value]) => [column, told(value)]),
    )
    return { id: key, loser: latest?.writer ?? null, winner: null, lost, kept: {} }
  }

  #rowsBelow(table: TableDefinition, id: string): OracleRow[] {
    return (referencesTo.get(table.name) ?? []).flatMap(({ table: child, column, onDelete }) => {
      if (onDelete !== 'cascade') return []
      const rows = [...this.#rows.values()].filter(
        (row) => row.table === child && row.values?.[column] === id,
      )
      return rows.flatMap((row) => [row, ...this.#rowsBelow(child, String(row.values?.['id']))])
    })
  }

  /**
   * How many commits the writer of a base had seen; none of another history. A base is rounded down to a batch that is
   * kept; `used` is the one that the centre found while batches may have been thinned.
   */
  #commitsSeenAt(
    { nonce, position }: { nonce: string | null; position: number },
    used: number | undefined,
  ): number {
    if (nonce === null || !this.#model.isOfThisHistory(nonce, position)) return -1
    const kept = this.#model.batches.findLast(
      (each) => each.position <= position && (each.position === used || !each.isThinned),
    )
    return kept?.snapshot.commits ?? -1
  }

  #makeRow(table: TableDefinition, values: StoredRow): void {
    if (table.writeClass === 'push-only') return
    const key = rowKey(table.number, String(values['id']))
    const [, clock = 0, writer = null] = this.#model.meta.versions(key)[0]?.value?.made ?? []
    const made = { commit: this.#model.commits, clock, writer }
    this.#put(this.#rows, key, { table, values, made, stamps: new Map() })
    for (const text of uniqueTexts(table, values)) this.#everUsed.add(text)
    this.#touched.add(key)
  }

  #setValues(
    table: TableDefinition,
    id: string,
    values: StoredRow,
    by: {
      clock: number | undefined
      writer: string | null
      stays?: (column: string) => readonly Change[]
    },
  ): void {
    const key = rowKey(table.number, id)
    const row = this.#rows.get(key)
    if (row?.values === undefined) return
    const changed = Object.keys(values).filter(
      (column) => !same(row.values?.[column], values[column]),
    )
    const stamps = new Map(row.stamps)
    for (const column of changed) {
      // When SQL at the centre ran is not in its text: that much is taken from the centre's own stamp.
      const clock = by.clock ?? this.#model.meta.read(key)?.cols[column]?.[1] ?? 0
      const others = by.stays?.(column) ?? []
      stamps.set(column, { commit: this.#model.commits, clock, writer: by.writer, others })
    }
    const after = { ...row.values, ...values }
    this.#put(this.#rows, key, { ...row, values: after, stamps })
    for (const text of uniqueTexts(table, after)) this.#everUsed.add(text)
    this.#touched.add(key)
  }

  #delete(table: TableDefinition, id: string, writer: string | null): void {
    const key = rowKey(table.number, id)
    const row = this.#rows.get(key)
    if (row?.values === undefined) return
    this.#put(this.#rows, key, { ...row, values: undefined, stamps: new Map() })
    this.#touched.add(key)
    for (const { table: child, column, onDelete } of referencesTo.get(table.name) ?? []) {
      for (const { table: of, values } of Array.from(this.#rows.values())) {
        if (of !== child || values?.[column] !== id) continue
        if (onDelete === 'cascade') this.#delete(child, String(values['id']), writer)
        else
          this.#setValues(
            child,
            String(values['id']),
            { [column]: null },
            { clock: undefined, writer },
          )
      }
    }
  }

  /** What the commit made of the rows is what it must be; and it touched no other. */
  #compareRows(transaction: Transaction): void {
    const actual = new Map(transaction.ownWrites(this.#model.rows))
    for (const key of new Set([...actual.keys(), ...this.#touched])) {
      const table = tableOfNumber(Number(key.split(':')[0]))
      if (table === undefined || table.writeClass === 'push-only') continue
      const expected = this.#rows.get(key)?.values
      const row = this.#model.rows.read(key)
      must(
        (row === undefined) === (expected === undefined),
        'oracle',
        () => `${table.name} ${key} must ${expected === undefined ? 'not ' : ''}be there`,
      )
      if (row === undefined || expected === undefined) continue
      for (const column of agentColumnsAt(table, this.#model.schema)) {
        if (mustColumn(table, column).derived || !Object.hasOwn(expected, column)) continue
        must(
          same(row[column], expected[column]),
          'oracle',
          () =>
            `${table.name} ${key} ${column} is ${String(told(row[column]))}; by the rules it is ${String(told(expected[column]))}`,
        )
      }
    }
  }

  /** Every value that lost has its record, and nothing else has (I8). */
  #compareConflicts(transaction: Transaction): void {
    const line = ({ id, loser, winner, lost, kept }: Lost): string =>
      JSON.stringify([id, loser, winner, sorted(lost), sorted(kept)])
    const expected = this.#lost.map(line).toSorted()
    const actual = [...(transaction.ownWrites(this.#model.conflicts)?.values() ?? [])]
      .map((value) => {
        const { rowId, loser, winner, lost, kept } = value as {
          rowId: string
          loser: string | null
          winner: string | null
          lost: Record<string, unknown>
          kept: Record<string, unknown>
        }
        return line({ id: rowId, loser, winner, lost, kept })
      })
      .toSorted()
    must(
      JSON.stringify(expected) === JSON.stringify(actual),
      'I8',
      () => `conflict records are ${actual.join(' ')}; by the rules ${expected.join(' ')}`,
    )
  }
}

/** The row that a mutation is about, and those that it points at. */
const keysOf = (mutation: Mutation): string[] =>
  mutation.table === undefined
    ? []
    : [
        rowKey(mutation.table.number, mutation.id),
        ...references(mutation.table).flatMap(({ column, target }) => {
          const parent = mutation.patch?.[column]
          return typeof parent === 'string' ? [rowKey(mustTable(target).number, parent)] : []
        }),
      ]

/** What SQL at the centre leaves to the table. */
function defaultsOf(table: TableDefinition, nowMicros: number): StoredRow {
  return Object.fromEntries(
    agentColumns(table).map((name): [string, Stored] => {
      const fallback = mustColumn(table, name).default
      if (fallback?.kind === 'now') return [name, timestampOfMicros(nowMicros)]
      if (fallback?.kind !== 'literal') return [name, null]
      return [name, typeof fallback.value === 'boolean' ? Number(fallback.value) : fallback.value]
    }),
  )
}

const sorted = (values: Readonly<Record<string, unknown>>): [string, unknown][] =>
  Object.entries(values).toSorted(([a], [b]) => (a < b ? -1 : 1))

const uniqueTexts = (table: TableDefinition, values: StoredRow): string[] =>
  table.uniques.map(({ name, columns }) =>
    JSON.stringify([name, ...columns.map((column) => values[column])]),
  )
