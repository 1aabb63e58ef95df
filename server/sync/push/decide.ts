import { mustColumn, references, type TableDefinition } from '../../../schema/define.ts'
import { userKey } from '../../../schema/role-access.ts'
import type { WireOutcome } from '../../../sync/protocol/messages.ts'
import { isVisibleTo } from './authorize.ts'
import { decideDelete } from './decide-delete.ts'
import { decideInsert } from './decide-insert.ts'
import { decideUpdate } from './decide-update.ts'
import type { Decision, DecisionContext, LostValue, MutationDecision, Write } from './decision.ts'
import { RefusalSignal } from './refusal.ts'
import { jsonRow } from './row-json.ts'
import type { ClientTransaction, Mutation } from './transaction.ts'
import { referencedRows } from './working-state.ts'

export { jsonRow }
export type { Decision, DecisionContext }

/**
 * Decides one transaction: everything it writes, or nothing and why. One that the centre had taken before it went back
 * must not fail for what was deleted since: that part of it is superseded, and the rest comes back.
 */
export function decideTransaction(
  shared: DecisionContext,
  transaction: ClientTransaction,
): Decision {
  const ifMissing = shared.missing?.of(transaction) ?? 'unknown'
  const context: DecisionContext = { ...shared, ifMissing }
  const isBroughtBack = shared.missing?.isBroughtBack(transaction) === true
  const deletedSince = new Set<number>()
  for (;;) {
    const result = decideMutations(context, transaction, deletedSince)
    if (!('culprit' in result)) {
      context.state.keepLayer()
      return result
    }
    const { culprit, signal } = result
    const isRest = deletedSince.size + 1 < transaction.mutations.length
    if (!isBroughtBack || signal.refusal.reason !== 'deleted' || !isRest)
      return rejectTransaction(context, transaction, culprit, signal)
    context.state.dropLayer()
    deletedSince.add(culprit)
  }
}

/** All mutations in their order, but for those on rows that were deleted since; or the first that is refused. */
function decideMutations(
  context: DecisionContext,
  transaction: ClientTransaction,
  deletedSince: ReadonlySet<number>,
): Decision | { readonly culprit: number; readonly signal: RefusalSignal } {
  const writes: Write[] = []
  const outcomes: WireOutcome[] = []
  const conflicts: LostValue[] = []
  const tombstones: { table: TableDefinition; id: string }[] = []
  const forced = context.forced.get(transaction.id)
  for (const [n, mutation] of transaction.mutations.entries()) {
    try {
      if (forced?.n === n) throw new RefusalSignal(forced.refusal)
      if (mutation.refusal !== undefined) throw new RefusalSignal(mutation.refusal)
      if (mutation.table === undefined)
        throw new Error('bug in AgentDB: an unknown table without a refusal')
      const decided = deletedSince.has(n)
        ? passOverDeleted(context, mutation)
        : decideMutation(context, transaction, mutation)
      writes.push(...decided.writes.map((write) => ({ ...write, n })))
      conflicts.push(...decided.conflicts)
      if (decided.tombstone !== undefined) tombstones.push(decided.tombstone)
      if (decided.outcome !== undefined)
        outcomes.push({ seq: transaction.seq, n, ...decided.outcome })
    } catch (error) {
      if (!(error instanceof RefusalSignal)) throw error
      return { culprit: n, signal: error }
    }
  }
  return { writes, outcomes, conflicts, rejectedRows: [], tombstones }
}

/** A row that this would have made counts as deleted, too: what hangs on it went with it. */
function passOverDeleted(
  { state, principal }: DecisionContext,
  mutation: Mutation,
): MutationDecision {
  const { table, id, op } = mutation
  const place = { table: table.name, id, kind: 'superseded', reason: 'deleted' } as const
  const message = `${table.name} ${id} was deleted since`
  const outcome = { ...place, message }
  if (op !== 'insert' || state.get(table, id) !== undefined)
    return { writes: [], conflicts: [], outcome }
  const row = { table, id, keys: [userKey(principal.userId)], stamps: {}, inDatabase: false }
  state.set({ ...row, deleted: true, image: undefined })
  return { writes: [], conflicts: [], outcome, tombstone: { table, id } }
}

function rejectTransaction(
  context: DecisionContext,
  { seq, mutations }: ClientTransaction,
  culprit: number,
  { refusal, dependsOn }: RefusalSignal,
): Decision {
  const { state } = context
  state.dropLayer()
  if (refusal.reason === 'parked') {
    context.missing?.park(mutations)
    return parkTransaction(seq, mutations, refusal.message)
  }
  const by = `${seq}.${culprit}`
  const rejectedRows: { table: TableDefinition; id: string; n: number }[] = []
  const outcomes = mutations.map((mutation, n): WireOutcome => {
    if (mutation.table !== undefined && mutation.op === 'insert') {
      state.reject(mutation.table, mutation.id, by)
      rejectedRows.push({ table: mutation.table, id: mutation.id, n })
    }
    const place = { seq, n, table: mutation.table?.name, id: mutation.id }
    if (n !== culprit)
      return defined({
        ...place,
        kind: 'dependency_failed',
        on: by,
        reason: 'sibling',
        message: `mutation ${culprit} of the same transaction was rejected: ${refusal.message}`,
      })
    if (dependsOn !== undefined)
      return defined({ ...place, ...refusal, kind: 'dependency_failed', on: dependsOn })
    return defined({
      ...place,
      ...refusal,
      kind: 'rejected',
      server_row: serverRow(context, mutation),
    })
  })
  return { writes: [], outcomes, conflicts: [], rejectedRows }
}

/** Not decided: it comes again, under another number. What needs it finds its rows missing, and waits like it. */
function parkTransaction(
  seq: number,
  mutations: ClientTransaction['mutations'],
  message: string,
): Decision {
  const outcomes = mutations.map(({ table, id }, n): WireOutcome =>
    defined({ seq, n, table: table?.name, id, kind: 'parked', message }),
  )
  return { writes: [], outcomes, conflicts: [], rejectedRows: [] }
}

/** The row as it stands, where its writer may see it: what was wanted can then be compared with what is. */
function serverRow(
  context: DecisionContext,
  mutation: ClientTransaction['mutations'][number],
): Record<string, unknown> | undefined {
  if (mutation.table === undefined) return undefined
  const row = context.state.get(mutation.table, mutation.id)
  if (row?.image === undefined || row.deleted || !isVisibleTo(context, row)) return undefined
  const { table, image, placeholders } = row
  if (table.owner.kind !== 'self' || row.id === context.principal.userId)
    return jsonRow(table, image, placeholders)
  // Everyone sees every user, but only the profile.
  const profile = Object.entries(image).filter(([name]) => mustColumn(table, name).profile)
  return jsonRow(table, Object.fromEntries(profile), placeholders)
}

/** Drops members that are undefined: JSON and msgpack would disagree on them. */
function defined(outcome: { [K in keyof WireOutcome]: WireOutcome[K] | undefined }): WireOutcome {
  return Object.fromEntries(
    Object.entries(outcome).filter(([, value]) => value !== undefined),
  ) as WireOutcome
}

function decideMutation(
  context: DecisionContext,
  transaction: ClientTransaction,
  mutation: Mutation,
): MutationDecision {
  switch (mutation.op) {
    case 'insert':
      return decideInsert(
        context,
        transaction,
        clearDeletedReferences(context, transaction, mutation),
      )
    case 'update':
      return decideUpdate(
        context,
        transaction,
        clearDeletedReferences(context, transaction, mutation),
      )
    case 'delete':
      return decideDelete(context, transaction, mutation)
  }
}

/** Of a transaction that is brought back: a deletion since has set its optional references to null, as it does here. */
function clearDeletedReferences(
  { state, missing }: DecisionContext,
  transaction: ClientTransaction,
  mutation: Mutation,
): Mutation {
  if (missing?.isBroughtBack(transaction) !== true) return mutation
  const optional = new Set(
    references(mutation.table)
      .filter(({ onDelete }) => onDelete === 'set null')
      .map(({ column }) => column),
  )
  const gone = referencedRows(mutation).filter(
    ({ column, target, id }) =>
      optional.has(column) &&
      (state.get(target, id)?.deleted === true || missing.isBuried(target, id)),
  )
  if (gone.length === 0) return mutation
  const cleared = Object.fromEntries(gone.map(({ column }) => [column, null]))
  return { ...mutation, patch: { ...mutation.patch, ...cleared } }
}
