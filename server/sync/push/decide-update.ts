import { checkStored, type StoredRow } from '../../../schema/codec.ts'
import { mustColumn, type TableDefinition } from '../../../schema/define.ts'
import { mergeUnit } from '../../../schema/merge-policy.ts'
import { ValueProblem } from '../../../schema/values/canonical-json.ts'
import {
  mergeUpdate,
  sameStored,
  type Loss,
  type MergeDecision,
} from '../../../sync/merge/merge-update.ts'
import { keysAfter, mustMayWrite, mustSeeReferences, mustSeeRow } from './authorize.ts'
import { Concurrency } from './concurrency.ts'
import type { DecisionContext, LostValue, MutationDecision, Write } from './decision.ts'
import { nextVersion } from './next-version.ts'
import { refuse } from './refusal.ts'
import { jsonRow } from './row-json.ts'
import type { ClientTransaction, Mutation } from './transaction.ts'
import type { WorkingRow } from './working-state.ts'

const none: ReadonlySet<string> = new Set()

export function decideUpdate(
  context: DecisionContext,
  transaction: ClientTransaction,
  mutation: Mutation,
): MutationDecision {
  const { table, id, patch, before } = mutation
  const { clock } = transaction
  const row = mustSeeRow(context, mutation)
  mustMayWrite(context, row, 'write')
  mustSeeReferences(context, mutation)
  const { image: current, placeholders = none } = row
  if (current === undefined) return refuse('forbidden', `${table.name} ${id} is not yours`)
  const concurrency = new Concurrency(context, transaction)
  const merged = mergeUpdate({
    table,
    current,
    patch,
    before,
    stamps: concurrency.stamps(row),
    placeholders,
    clock,
    writer: context.clientId,
  })
  mustBeMerged(table, merged)
  const { values, changed } = nextVersion(context, { ...mutation, patch: merged.write }, current)
  const unseen = unseenIn(table, values, (column) => concurrency.unseen(row, column))
  context.state.set(changedRow(context, row, { values, clock, unseen }))
  return {
    writes:
      Object.keys(values).length === 0 ? [] : [{ table, op: 'update', id, values, clock, unseen }],
    conflicts: conflictsOf(context, row, merged),
    outcome: outcomeOf(mutation, { ...current, ...values }, merged, {
      changed,
      placeholders: without(placeholders, values),
    }),
  }
}

/** Refuses what cannot be merged, or what merging made of it. */
function mustBeMerged(table: TableDefinition, { rejected, write }: MergeDecision): void {
  if (rejected.length > 0)
    refuse(
      'conflict',
      `${table.name}: ${rejected.join(', ')} changed meanwhile, and two such changes are never merged`,
    )
  for (const [column, value] of Object.entries(write)) {
    try {
      checkStored(mustColumn(table, column), value)
    } catch (error) {
      if (!(error instanceof ValueProblem)) throw error
      refuse('out_of_range', `${table.name}.${column}, once merged, ${error.message}`, {
        sqlstate: '22003',
      })
    }
  }
}

/**
 * What others wrote into a JSON value stays in it key by key: it is still unseen by its last writer, whose next change
 * must meet it. Where a value is only taken or left, or only added to, nothing of the kind is needed.
 */
function unseenIn(
  table: TableDefinition,
  values: StoredRow,
  unseenOf: (column: string) => NonNullable<Write['unseen']>[string],
): Write['unseen'] {
  const entries = Object.keys(values)
    .filter((column) => mergeUnit(table, column).policy === 'merge')
    .map((column) => [column, unseenOf(column)] as const)
    .filter(([, changes]) => changes.length > 0)
  return entries.length === 0 ? undefined : Object.fromEntries(entries)
}

function changedRow(
  { clientId }: DecisionContext,
  row: WorkingRow,
  { values, clock, unseen }: Pick<Write, 'values' | 'clock' | 'unseen'>,
): WorkingRow {
  const image = { ...row.image, ...values }
  const stamps = Object.keys(values).map(
    (column) => [column, ['0', clock, clientId, unseen?.[column] ?? []]] as const,
  )
  return {
    ...row,
    image,
    keys: keysAfter(row.table, image, row.keys),
    placeholders: without(row.placeholders ?? none, values),
    stamps: { ...row.stamps, ...Object.fromEntries(stamps) },
  }
}

const without = (names: ReadonlySet<string>, values: StoredRow): ReadonlySet<string> =>
  new Set([...names].filter((name) => !Object.hasOwn(values, name)))

function conflictsOf(
  { clientId }: DecisionContext,
  { table, id, placeholders = none }: WorkingRow,
  { overwritten, lost }: MergeDecision,
): LostValue[] {
  const record = ({ writer, lost: values, kept }: Loss, isMine: boolean): LostValue => ({
    table,
    id,
    loser: isMine ? clientId : writer,
    winner: isMine ? writer : clientId,
    lost: values,
    kept,
    placeholders: isMine ? { lost: none, kept: placeholders } : { lost: placeholders, kept: none },
  })
  return [
    ...overwritten.map((loss) => record(loss, false)),
    ...lost.map((loss) => record(loss, true)),
  ]
}

function outcomeOf(
  { table, id, patch }: Mutation,
  image: StoredRow,
  merged: MergeDecision,
  {
    changed,
    placeholders,
  }: {
    changed: Record<string, unknown> | undefined
    placeholders: ReadonlySet<string>
  },
): MutationDecision['outcome'] {
  const kind = changed === undefined ? merged.outcome : 'merged'
  if (kind === 'applied') return undefined
  // A version that was counted up need not be in the patch.
  const differing = Object.keys({ ...patch, ...changed }).filter(
    (column) => !sameStored(image[column], patch[column]),
  )
  const values = Object.fromEntries(differing.map((column) => [column, image[column] ?? null]))
  return {
    kind,
    table: table.name,
    id,
    ...explanation(table, merged, changed !== undefined),
    ...(differing.length === 0 ? {} : { changed: jsonRow(table, values, placeholders) }),
  }
}

function explanation(
  table: TableDefinition,
  { illegal, lost, overwritten }: MergeDecision,
  isCounted: boolean,
): { reason?: string; message?: string } {
  if (illegal !== undefined)
    return {
      reason: 'illegal_transition',
      message: `${table.name}.${illegal.column} cannot go from ${illegal.from} to ${illegal.to}`,
    }
  if (isCounted) return { reason: 'next_version' }
  return lost.length + overwritten.length > 0 ? {} : { reason: 'combined' }
}
