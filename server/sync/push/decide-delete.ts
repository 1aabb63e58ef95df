import type { StoredRow } from '../../../schema/codec.ts'
import { isVisibleTo, mustMayWrite, mustSeeRow } from './authorize.ts'
import { Concurrency } from './concurrency.ts'
import type { DecisionContext, LostValue, MutationDecision } from './decision.ts'
import { refuse } from './refusal.ts'
import type { ClientTransaction, Mutation } from './transaction.ts'
import type { ColumnChange, WorkingRow } from './working-state.ts'

export function decideDelete(
  context: DecisionContext,
  transaction: ClientTransaction,
  mutation: Mutation,
): MutationDecision {
  const { table, id } = mutation
  const { state } = context
  const known = state.get(table, id)
  // Deleted is deleted, whoever did it.
  if (known?.deleted === true && isVisibleTo(context, known))
    return { writes: [], conflicts: [], outcome: undefined }
  const isDeletable =
    table.owner.kind !== 'self' && table.writeClass !== 'pull' && table.writeClass !== 'push-only'
  if (known === undefined && context.ifMissing === 'wait' && isDeletable) {
    // What its own store made, and sends again later, is deleted after that.
    if (context.missing?.isAwaited(id) === true)
      refuse('parked', `${table.name} ${id} is not back yet`)
    return { writes: [], conflicts: [], outcome: undefined, tombstone: { table, id } }
  }
  const row = mustSeeRow(context, mutation)
  if (!isDeletable) refuse('forbidden', `agents do not delete ${table.name}`)
  mustMayWrite(context, row, 'delete')
  const concurrency = new Concurrency(context, transaction)
  const newer = state
    .descendantsOf(row)
    .map((child) => ({ child, loss: lossOf(context, concurrency, child, true) }))
    .filter(({ loss }) => loss !== undefined)
  const [first] = newer
  if (first !== undefined && table.staleDelete === 'reject')
    refuse(
      'newer_children',
      `${table.name} ${id}: ${newer.length} ${newer.length === 1 ? 'row' : 'rows'} below it changed meanwhile, such as ${first.child.table.name} ${first.child.id}`,
    )
  const own = lossOf(context, concurrency, row, false)
  state.set({ ...row, deleted: true, image: undefined })
  return {
    writes: [{ table, op: 'delete', id, values: {}, clock: transaction.clock }],
    conflicts: [own, ...newer.map(({ loss }) => loss)].filter((loss) => loss !== undefined),
    outcome: undefined,
  }
}

/** What a delete takes away of a row that someone else has changed: those columns, or the row where that is new. */
function lossOf(
  { clientId }: DecisionContext,
  concurrency: Concurrency,
  row: WorkingRow,
  isBelow: boolean,
): LostValue | undefined {
  const { table, id, image, made, placeholders = new Set() } = row
  const isNew = isBelow && made !== undefined && concurrency.isConcurrent(made)
  const changes = Object.keys(row.stamps).flatMap((column) =>
    concurrency.unseen(row, column).map((change) => ({ column, change })),
  )
  if (!isNew && changes.length === 0) return undefined
  const latest = [...(isNew ? [made] : []), ...changes.map(({ change }) => change)]
    .toSorted(byClock)
    .at(-1)
  const columns = changes.map(({ column }) => column)
  const lost: StoredRow = isNew
    ? (image ?? {})
    : Object.fromEntries(columns.map((column) => [column, image?.[column] ?? null]))
  return {
    table,
    id,
    loser: latest?.[2] ?? null,
    winner: clientId,
    lost,
    kept: {},
    placeholders: { lost: placeholders, kept: new Set() },
  }
}

const byClock = (a: ColumnChange, b: ColumnChange): number => a[1] - b[1]
