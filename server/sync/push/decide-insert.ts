import { isVisibleTo, keysOfNewRow, mustSeeReferences } from './authorize.ts'
import type { DecisionContext, MutationDecision } from './decision.ts'
import { nextVersion } from './next-version.ts'
import { refuse } from './refusal.ts'
import type { ClientTransaction, Mutation } from './transaction.ts'

export function decideInsert(
  context: DecisionContext,
  { clock }: ClientTransaction,
  mutation: Mutation,
): MutationDecision {
  const { table, id } = mutation
  const { state } = context
  if (table.writeClass === 'pull' || table.owner.kind === 'self')
    refuse('forbidden', `agents do not insert into ${table.name}`)
  const existing = state.get(table, id)
  if (existing !== undefined) {
    const visible = isVisibleTo(context, existing)
    if (visible && existing.deleted) refuse('deleted', `${table.name} ${id} was deleted`)
    if (!visible) refuse('forbidden', `${table.name} ${id} is not yours`)
    refuse('unique', `${table.name} ${id} exists already`, {
      sqlstate: '23505',
      constraint: `${table.name}_pkey`,
    })
  }
  if (context.missing?.isBuried(table, id) === true)
    refuse('deleted', `${table.name} ${id} was deleted before it was back`)
  mustSeeReferences(context, mutation)
  const keys = keysOfNewRow(context, mutation)
  const { values, changed } = nextVersion(context, mutation)
  state.set({ table, id, keys, deleted: false, image: values, stamps: {}, inDatabase: false })
  return {
    writes: [{ table, op: 'insert', id, values, clock }],
    conflicts: [],
    outcome:
      changed === undefined
        ? undefined
        : { kind: 'merged', table: table.name, id, reason: 'next_version', changed },
  }
}
