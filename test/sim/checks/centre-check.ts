import { isParked } from '../../../server/sync/push/missing.ts'
import { references, type TableDefinition } from '../../../schema/define.ts'
import { allTables, mustTable } from '../../../schema/tables.ts'
import type { ClientTransaction } from '../../../server/sync/push/transaction.ts'
import type { PushNote } from '../centre/push.ts'
import type { CommitNote } from '../centre/commit-note.ts'
import { rowKey, type ModelDatabase, type Transaction } from '../centre/model-database.ts'
import { Oracle } from '../oracle.ts'
import type { LocalCommit } from '../agent.ts'
import type { Trace } from '../trace.ts'
import { refusals, type LostPart } from './end-check.ts'
import { mustBeOfVersion } from './skew-check.ts'
import { Violation } from './violation.ts'

/** What a server of another build notes has that build's tables. */
function inOwnTables(note: CommitNote): CommitNote {
  if (note?.kind !== 'push') return note
  const own = (transaction: ClientTransaction): ClientTransaction => ({
    ...transaction,
    mutations: transaction.mutations.map((mutation) =>
      mutation.table === undefined
        ? mutation
        : { ...mutation, table: mustTable(mutation.table.name) },
    ),
  })
  const transactions = note.transactions.map(own)
  const repeated = note.repeated.map(own)
  return { ...note, transactions, repeated }
}

/** Watches the centre's commits, one by one, in commit order. */
export class CentreCheck {
  readonly #trace: Trace
  /** By transaction the client and number under which it took effect, and which commit of the centre that was. */
  readonly #effects = new Map<
    string,
    { readonly as: string; readonly commit: number; readonly isRefused: boolean }
  >()
  /** Transactions that the centre once had, and whether they were refused then. */
  readonly #lost = new Map<string, boolean>()
  readonly #seqs = new Map<string, number>()
  /** By transaction: what comes back need not be all of it, and copies of a store may differ in what they still have. */
  readonly #expected = new Map<string, readonly LocalCommit[]>()
  #model: ModelDatabase | undefined
  #oracle: Oracle | undefined
  #violation: Violation | undefined

  constructor(trace: Trace) {
    this.#trace = trace
  }

  watch(model: ModelDatabase): void {
    this.#model = model
    this.#oracle = new Oracle(model)
  }

  /** Kept until the step is over: thrown here, it would look like a failure of the centre. */
  onCommit(transaction: Transaction): void {
    try {
      this.#look(transaction)
    } catch (error) {
      this.#violation ??=
        error instanceof Violation
          ? error
          : new Violation('simulator', String((error as Error).stack))
    }
  }

  /** The centre is what it was at an earlier commit: what came after never was. */
  goBack(commit: number): void {
    for (const [id, effect] of this.#effects) {
      if (effect.commit <= commit) continue
      this.#effects.delete(id)
      this.#lost.set(id, effect.isRefused || this.#lost.get(id) === true)
    }
    this.#seqs.clear()
    for (const [client, { seq }] of this.#mustModel().clients.entries()) this.#seqs.set(client, seq)
    this.#oracle?.goBack(commit)
    this.#trace.add('centre', `goes back to commit ${commit}`)
  }

  readonly lost: LostPart = {
    had: (id) => this.#lost.has(id),
    refused: (id) => this.#lost.get(id) === true,
  }

  mustBeWell(): void {
    if (this.#violation !== undefined) throw this.#violation
  }

  #look(transaction: Transaction): void {
    const model = this.#mustModel()
    this.#mustNotRise(model, transaction)
    const note = inOwnTables(transaction.note as CommitNote)
    this.#oracle?.noteCommit(transaction.xid)
    if (note === undefined) return
    this.#tell(note)
    if (note.kind === 'push') this.#lookAtPush(note)
    this.#oracle?.onCommit(transaction, note)
  }

  /** Deleted rows never come back (I10). */
  #mustNotRise(model: ModelDatabase, transaction: Transaction): void {
    for (const [key, value] of transaction.ownWrites(model.rows) ?? []) {
      const before = model.rows.versions(key).slice(0, -1)
      if (value !== undefined && before.some((version) => version.value === undefined))
        throw new Violation('I10', `row ${key} was deleted and is back`)
    }
  }

  /** Once a commit is known of, the centre must get just that. */
  expect(commit: LocalCommit): void {
    this.#expected.set(commit.id, [...(this.#expected.get(commit.id) ?? []), commit])
  }

  #lookAtPush({
    clientId,
    userId,
    schema,
    transactions,
    repeated,
    decisions,
    broughtBack,
  }: PushNote): void {
    const waiting = transactions.filter((_, i) => isParked(decisions[i] ?? { outcomes: [] }))
    const inOrder = [...transactions, ...repeated].toSorted((a, b) => a.seq - b.seq)
    for (const transaction of inOrder) {
      const { id, seq } = transaction
      this.#mustBeAsCommitted(transaction)
      for (const mutation of transaction.mutations)
        if (mutation.table !== undefined && mutation.refusal === undefined)
          mustBeOfVersion(schema, this.#mustModel().schema, mutation)
      this.#mustFollow(clientId, seq)
      if (repeated.includes(transaction)) continue
      // By another copy of the store, which never heard that it was taken, it comes as new.
      const isRequeued = this.#expected.get(id)?.some(({ requeuedAs }) => requeuedAs === clientId)
      if (isRequeued === true && !broughtBack.has(id))
        throw new Violation('I16', `transaction ${id} comes back, and the centre takes it for new`)
      const before = this.#effects.get(id)
      if (before !== undefined)
        throw new Violation('I7', `transaction ${id} took effect twice, as ${before.as} and ${seq}`)
      if (waiting.includes(transaction)) continue
      const isRefused =
        decisions[transactions.indexOf(transaction)]?.outcomes.some(({ kind }) =>
          refusals.has(kind),
        ) === true
      const { commits: commit } = this.#mustModel()
      this.#effects.set(id, { as: `${clientId} ${seq}`, commit, isRefused })
    }
    const owner = this.#mustModel().clients.read(clientId)?.userId
    if (owner !== userId) throw new Violation('I11', `${userId} writes as a client of ${owner}`)
  }

  #mustFollow(clientId: string, seq: number): void {
    const last = this.#seqs.get(clientId) ?? 0
    if (seq !== last + 1)
      throw new Violation('I5', `transaction ${seq} of ${clientId} commits after ${last}`)
    this.#seqs.set(clientId, seq)
  }

  /** What arrives is what was committed, based on what its writer had then seen (I6), under a clock that is not ahead. */
  #mustBeAsCommitted({ id, seq, clock, base, mutations }: PushNote['transactions'][number]): void {
    const model = this.#mustModel()
    if (clock > model.clock())
      throw new Violation('clock', `transaction ${seq} has a clock ahead of the centre's`)
    const versions = this.#expected.get(id) ?? []
    const [commit] = versions
    if (commit === undefined) return
    if (base.nonce !== commit.base.nonce || base.position !== commit.base.position)
      throw new Violation(
        'I6',
        `transaction ${seq} was based on ${commit.base.position} and comes as based on ${base.position}`,
      )
    const text = (of: readonly { readonly op: string; readonly id: string }[]): string =>
      of.map((each) => `${each.op} ${each.id}`).join(', ')
    const sent = versions.map((each) => text(each.mutations.filter(({ pushed }) => pushed === 1)))
    if (!sent.includes(text(mutations)))
      throw new Violation('I3', `transaction ${seq} was ${sent[0]} and comes as ${text(mutations)}`)
    for (const mutation of mutations) this.#mustBeOfProgram(mutation)
  }

  /** Agents push what a program wrote: nothing that they may not write, and nothing that a foreign key did. */
  #mustBeOfProgram(mutation: PushNote['transactions'][number]['mutations'][number]): void {
    const { table, refusal, op, id } = mutation
    if (table === undefined || refusal !== undefined)
      throw new Violation(
        'engine',
        `${op} of ${table?.name} ${id} should not have been pushed: ${refusal?.message}`,
      )
    const cleared = references(table).find(
      // No program of the workload clears any other reference.
      ({ column, target }) =>
        target !== 'users' && column !== 'superseded_by' && mutation.patch[column] === null,
    )
    if (op === 'update' && cleared !== undefined)
      throw new Violation(
        'engine',
        `${table.name}.${cleared.column} of ${id} was cleared by a foreign key, and is pushed`,
      )
  }

  #tell(note: NonNullable<CommitNote>): void {
    if (note.kind === 'direct') return this.#trace.add('centre', 'commits SQL')
    const outcomes = note.decisions.flatMap((decision) => decision.outcomes)
    const told = outcomes.map(({ seq, n, kind, reason }) => `${seq}.${n} ${kind} ${reason ?? ''}`)
    const seqs = note.transactions.map(({ seq }) => seq)
    this.#trace.add(
      'centre',
      `commits ${seqs.join(', ')} of ${note.clientId.slice(-4)} ${told.join('; ')}`,
    )
  }

  /** Constraints of the centre (I12), and what its triggers count. */
  atEnd(): void {
    this.mustBeWell()
    this.#oracle?.compareAll()
    const model = this.#mustModel()
    const messages = [...model.rowsOf(mustTable('messages').number)]
    for (const { id, message_count: count, total_tokens: tokens } of model.rowsOf(
      mustTable('conversations').number,
    )) {
      const own = messages.filter((message) => message['conversation_id'] === id)
      const sum = own.reduce((total, message) => total + Number(message['tokens_used'] ?? 0), 0)
      if (count !== own.length || tokens !== sum)
        throw new Violation(
          'derived',
          `conversation ${String(id)} counts ${String(count)} messages`,
        )
    }
    for (const table of allTables) this.#mustHoldConstraints(model, table)
  }

  #mustHoldConstraints(model: ModelDatabase, table: TableDefinition): void {
    const keys = new Set<string>()
    for (const row of model.rowsOf(table.number)) {
      for (const { column, target } of references(table)) {
        const parent = row[column]
        if (
          typeof parent === 'string' &&
          model.rows.read(rowKey(mustTable(target).number, parent)) === undefined
        )
          throw new Violation('I12', `${table.name} ${String(row['id'])}: ${column} points nowhere`)
      }
      for (const { name, columns } of table.uniques) {
        if (columns.some((column) => (row[column] ?? null) === null)) continue
        const key = JSON.stringify([name, ...columns.map((column) => row[column])])
        if (keys.has(key)) throw new Violation('I12', `${key} is there twice`)
        keys.add(key)
      }
    }
  }

  #mustModel(): ModelDatabase {
    if (this.#model === undefined) throw new Error('watch comes first')
    return this.#model
  }
}
