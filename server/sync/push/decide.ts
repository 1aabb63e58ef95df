import { mustColumn, type TableDefinition } from '../../../schema/define.ts'
import type { WireOutcome } from '../../../sync/protocol/messages.ts'
import { isVisibleTo } from './authorize.ts'
import { decideDelete } from './decide-delete.ts'
import { decideInsert } from './decide-insert.ts'
import { decideUpdate } from './decide-update.ts'
import type { Decision, DecisionContext, LostValue, MutationDecision, Write } from './decision.ts'
import { RefusalSignal } from './refusal.ts'
import { jsonRow } from './row-json.ts'
import type { ClientTransaction, Mutation } from './transaction.ts'

export { jsonRow }
export type { Decision, DecisionContext }

/** Decides one transaction: everything it writes, or nothing and why. */
export function decideTransaction(
  shared: DecisionContext,
  transaction: ClientTransaction,
): Decision {
  const ifMissing = shared.missing?.of(transaction) ?? 'unknown'
  const context: DecisionContext = { ...shared, ifMissing }
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
      const decided = decideMutation(context, transaction, mutation)
      writes.push(...decided.writes.map((write) => ({ ...write, n })))
      conflicts.push(...decided.conflicts)
      if (decided.tombstone !== undefined) tombstones.push(decided.tombstone)
      if (decided.outcome !== undefined)
        outcomes.push({ seq: transaction.seq, n, ...decided.outcome })
    } catch (error) {
      if (!(error instanceof RefusalSignal)) throw error
      return rejectTransaction(context, transaction, n, error)
    }
  }
  context.state.keepLayer()
  return { writes, outcomes, conflicts, rejectedRows: [], tombstones }
}

function rejectTransaction(
  context: DecisionContext,
  { seq, mutations }: ClientTransaction,
  culprit: number,
  { refusal, dependsOn }: RefusalSignal,
): Decision {
  const { state } = context
  state.dropLayer()
  if (refusal.reason === 'parked') return parkTransaction(seq, mutations, refusal.message)
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
      return decideInsert(context, transaction, mutation)
    case 'update':
      return decideUpdate(context, transaction, mutation)
    case 'delete':
      return decideDelete(context, transaction, mutation)
  }
}
