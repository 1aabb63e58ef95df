import type { Stored, StoredRow } from '../../../schema/codec.ts'
import { agentColumns, mustColumn, type TableDefinition } from '../../../schema/define.ts'
import { profileKey, roleAccess, userKey } from '../../../schema/role-access.ts'
import { mergeUpdate, sameStored, type Stamp } from '../../../sync/merge/merge-update.ts'
import { isVisible, type Snapshot } from '../../../sync/merge/snapshot.ts'
import type { WireOutcome } from '../../../sync/protocol/messages.ts'
import type { Principal } from '../principal.ts'
import { nextVersion, type Versions } from './next-version.ts'
import type { ClientTransaction, Mutation, Refusal } from './transaction.ts'
import { referencedRows, type WorkingRow, type WorkingState } from './working-state.ts'

/** What a mutation does to the database, once it passed. */
export interface Write {
  readonly table: TableDefinition
  readonly op: 'insert' | 'update' | 'delete'
  readonly id: string
  readonly values: StoredRow
  readonly clock: number
  /** The mutation that wants it, by its place in its transaction. */
  readonly n: number
}

/** A value that lost, to be kept for those who wrote and read it. */
export interface LostValue {
  readonly table: TableDefinition
  readonly id: string
  readonly loser: string | null
  readonly winner: string | null
  readonly lost: StoredRow
  readonly kept: StoredRow
}

export interface Decision {
  readonly writes: readonly Write[]
  /** Outcomes other than `applied`, which the watermark implies. */
  readonly outcomes: readonly WireOutcome[]
  readonly conflicts: readonly LostValue[]
  /** Rows whose insert did not happen. */
  readonly rejectedRows: readonly {
    readonly table: TableDefinition
    readonly id: string
    readonly n: number
  }[]
}

export interface DecisionContext {
  readonly principal: Principal
  readonly clientId: string
  readonly keys: ReadonlySet<string>
  readonly state: WorkingState
  readonly versions: Versions
  readonly snapshotOf: (transaction: ClientTransaction) => Snapshot | undefined
  /** A refusal that only the database could find: transaction id to mutation. */
  readonly forced: ReadonlyMap<string, { readonly n: number; readonly refusal: Refusal }>
}

class RefusalSignal extends Error {
  readonly refusal: Refusal
  readonly dependsOn: string | undefined

  constructor(refusal: Refusal, dependsOn?: string) {
    super(refusal.message)
    this.refusal = refusal
    this.dependsOn = dependsOn
  }
}

const refuse = (reason: string, message: string, more: Partial<Refusal> = {}): never => {
  throw new RefusalSignal({ reason, message, ...more })
}

/** Decides one transaction: everything it writes, or nothing and why. */
export function decideTransaction(
  context: DecisionContext,
  transaction: ClientTransaction,
): Decision {
  const writes: Write[] = []
  const outcomes: WireOutcome[] = []
  const conflicts: LostValue[] = []
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
      if (decided.outcome !== undefined)
        outcomes.push({ seq: transaction.seq, n, ...decided.outcome })
    } catch (error) {
      if (!(error instanceof RefusalSignal)) throw error
      return rejectTransaction(context, transaction, n, error)
    }
  }
  context.state.keepLayer()
  return { writes, outcomes, conflicts, rejectedRows: [] }
}

function rejectTransaction(
  context: DecisionContext,
  { seq, mutations }: ClientTransaction,
  culprit: number,
  { refusal, dependsOn }: RefusalSignal,
): Decision {
  const { state } = context
  state.dropLayer()
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

/** The row as it stands, where its writer may see it: what was wanted can then be compared with what is. */
function serverRow(
  context: DecisionContext,
  mutation: ClientTransaction['mutations'][number],
): Record<string, unknown> | undefined {
  if (mutation.table === undefined) return undefined
  const row = context.state.get(mutation.table, mutation.id)
  if (row?.image === undefined || row.deleted || !isVisibleTo(context, row)) return undefined
  const { table, image } = row
  if (table.owner.kind !== 'self' || row.id === context.principal.userId)
    return jsonRow(table, image)
  // Everyone sees every user, but only the profile.
  const profile = Object.entries(image).filter(([name]) => mustColumn(table, name).profile)
  return jsonRow(table, Object.fromEntries(profile))
}

/** Drops members that are undefined: JSON and msgpack would disagree on them. */
function defined(outcome: { [K in keyof WireOutcome]: WireOutcome[K] | undefined }): WireOutcome {
  return Object.fromEntries(
    Object.entries(outcome).filter(([, value]) => value !== undefined),
  ) as WireOutcome
}

interface MutationDecision {
  readonly writes: readonly Omit<Write, 'n'>[]
  readonly conflicts: readonly LostValue[]
  readonly outcome: Omit<WireOutcome, 'seq' | 'n'> | undefined
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

function decideInsert(
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

function decideUpdate(
  context: DecisionContext,
  transaction: ClientTransaction,
  mutation: Mutation,
): MutationDecision {
  const { table, id } = mutation
  const { state, clientId } = context
  const row = mustSeeRow(context, mutation)
  mustMayWrite(context, row, 'write')
  mustSeeReferences(context, mutation)
  const current = row.image
  if (current === undefined) return refuse('forbidden', `${table.name} ${id} is not yours`)
  const stamps = stampsFor(context, transaction, row)
  const merged = mergeUpdate({
    table,
    current,
    patch: mutation.patch,
    stamps,
    clock: transaction.clock,
    writer: clientId,
  })
  const { values: write, changed } = nextVersion(
    context,
    { ...mutation, patch: merged.write },
    current,
  )
  const image = { ...current, ...write }
  const stamp = ['0', transaction.clock, clientId] as const
  state.set({
    ...row,
    image,
    keys: keysAfter(table, image, row.keys),
    stamps: {
      ...row.stamps,
      ...Object.fromEntries(Object.keys(write).map((column) => [column, stamp])),
    },
  })
  const conflicts = [
    ...merged.overwritten.map(({ writer, values }) => ({
      table,
      id,
      loser: writer,
      winner: clientId,
      lost: values,
      kept: pick(write, values),
    })),
    ...merged.lost.map(({ winner, values }) => ({
      table,
      id,
      loser: clientId,
      winner,
      lost: values,
      kept: pick(current, values),
    })),
  ]
  // A version that was counted up need not be in the patch.
  const differs = Object.keys({ ...mutation.patch, ...changed }).filter(
    (column) => !sameStored(image[column], mutation.patch[column]),
  )
  const kind = changed === undefined ? merged.outcome : 'merged'
  return {
    writes:
      Object.keys(write).length === 0
        ? []
        : [{ table, op: 'update', id, values: write, clock: transaction.clock }],
    conflicts,
    outcome:
      kind === 'applied'
        ? undefined
        : {
            kind,
            table: table.name,
            id,
            ...(changed === undefined ? {} : { reason: 'next_version' }),
            ...(differs.length === 0 ? {} : { changed: jsonValues(image, differs) }),
          },
  }
}

function decideDelete(
  context: DecisionContext,
  { clock }: ClientTransaction,
  mutation: Mutation,
): MutationDecision {
  const { table, id } = mutation
  const known = context.state.get(table, id)
  // Deleted is deleted, whoever did it.
  if (known?.deleted === true && isVisibleTo(context, known))
    return { writes: [], conflicts: [], outcome: undefined }
  const row = mustSeeRow(context, mutation)
  if (
    table.owner.kind === 'self' ||
    table.writeClass === 'pull' ||
    table.writeClass === 'push-only'
  ) {
    refuse('forbidden', `agents do not delete ${table.name}`)
  }
  mustMayWrite(context, row, 'delete')
  context.state.set({ ...row, deleted: true, image: undefined })
  return {
    writes: [{ table, op: 'delete', id, values: {}, clock }],
    conflicts: [],
    outcome: undefined,
  }
}

const isVisibleTo = ({ keys }: DecisionContext, row: WorkingRow): boolean =>
  row.keys.some((key) => keys.has(key))

/** The row a mutation is about. What the writer cannot see is told as if it did not exist. */
function mustSeeRow(context: DecisionContext, { table, id }: Mutation): WorkingRow {
  const row = context.state.get(table, id)
  if (row === undefined) {
    const by = context.state.rejectedBy(table, id)
    if (by !== undefined)
      throw new RefusalSignal(
        { reason: 'parent_rejected', message: `the insert of ${table.name} ${id} was rejected` },
        by,
      )
  }
  if (row === undefined || !isVisibleTo(context, row))
    return refuse('forbidden', `${table.name} ${id} is not yours`)
  if (row.deleted) return refuse('deleted', `${table.name} ${id} was deleted`)
  return row
}

/** Every reference that a patch sets must be visible to the writer: foreign keys alone would accept any row. */
function mustSeeReferences(context: DecisionContext, mutation: Mutation): void {
  for (const { column, target, id } of referencedRows(mutation)) {
    const place = `${mutation.table.name}.${column}`
    const row = context.state.get(target, id)
    if (row === undefined) {
      const by = context.state.rejectedBy(target, id)
      if (by !== undefined)
        throw new RefusalSignal(
          {
            reason: 'parent_rejected',
            message: `${place}: the insert of ${target.name} ${id} was rejected`,
          },
          by,
        )
    }
    if (row === undefined || !isVisibleTo(context, row))
      return refuse('forbidden', `${place}: ${target.name} ${id} is not yours`)
    if (row.deleted)
      refuse('deleted', `${place}: ${target.name} ${id} was deleted`, {
        sqlstate: '23503',
        constraint: `${mutation.table.name}_${column}_fkey`,
      })
  }
}

/** Scope keys of a row that an agent makes; refuses where it may not make it. */
function keysOfNewRow(context: DecisionContext, { table, patch }: Mutation): string[] {
  const { owner } = table
  const { principal } = context
  switch (owner.kind) {
    case 'column':
      if (patch[owner.column] !== principal.userId)
        refuse('forbidden', `${table.name}.${owner.column} is not you`)
      return [userKey(principal.userId)]
    case 'parent': {
      const parent = parentOf(context, table, patch)
      if (parent === undefined)
        return refuse('forbidden', `${table.name}.${owner.column} is not yours`)
      mustMayWrite(context, parent, 'write')
      return [...parent.keys]
    }
    case 'shared':
      if (!roleAccess[principal.role].write.includes(owner.key))
        refuse('forbidden', `a ${principal.role} does not write ${table.name}`)
      if (owner.ownWritesOnly && patch[owner.column] !== principal.userId)
        refuse('forbidden', `${table.name}.${owner.column} is not you`)
      return keysAfter(table, patch, [])
    default:
      return refuse('forbidden', `agents do not insert into ${table.name}`)
  }
}

function parentOf(
  { state }: DecisionContext,
  table: TableDefinition,
  patch: StoredRow,
): WorkingRow | undefined {
  if (table.owner.kind !== 'parent') return undefined
  const { table: name, column } = table.owner
  const reference = referencedRows({ table, patch } as Mutation).find(
    (candidate) => candidate.column === column,
  )
  return reference === undefined || reference.target.name !== name
    ? undefined
    : state.get(reference.target, reference.id)
}

/** Whether the writer may change or delete a row that it sees. */
function mustMayWrite(
  { principal }: DecisionContext,
  row: WorkingRow,
  action: 'write' | 'delete',
): void {
  const { table, id } = row
  const { owner } = table
  const own = row.keys.includes(userKey(principal.userId))
  if (owner.kind !== 'shared') {
    if (!own || (owner.kind === 'self' && id !== principal.userId))
      refuse('forbidden', `${table.name} ${id} is not yours`)
    return
  }
  if (!roleAccess[principal.role][action].includes(owner.key))
    refuse('forbidden', `a ${principal.role} does not ${action} ${table.name}`)
  if (owner.ownWritesOnly && !own) refuse('forbidden', `${table.name} ${id} is not yours`)
}

function keysAfter(table: TableDefinition, image: StoredRow, before: readonly string[]): string[] {
  const { owner } = table
  if (owner.kind !== 'shared') return before.length > 0 ? [...before] : [profileKey]
  const user = image[owner.column]
  return typeof user === 'string' ? [owner.key, userKey(user)] : [owner.key]
}

/** A change is concurrent unless the writer had seen it, or made it. */
function stampsFor(
  { clientId, snapshotOf }: DecisionContext,
  transaction: ClientTransaction,
  row: WorkingRow,
): Map<string, Stamp> {
  const snapshot = snapshotOf(transaction)
  return new Map(
    Object.entries(row.stamps).map(([column, [xid, clock, writer]]) => {
      const seen =
        writer === clientId || (snapshot !== undefined && isVisible(BigInt(xid), snapshot))
      return [column, { concurrent: !seen, clock, writer }]
    }),
  )
}

const pick = (from: StoredRow, like: StoredRow): StoredRow =>
  Object.fromEntries(
    Object.keys(like).map((column): [string, Stored] => [column, from[column] ?? null]),
  )

function jsonValues(image: StoredRow, columns: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(columns.map((column) => [column, jsonStored(image[column] ?? null)]))
}

/** Stored form as it stands in outcomes and conflicts: bytes as hex. */
export const jsonStored = (value: Stored): string | number | null =>
  value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value

/** A row for an outcome or a conflict, as its columns stand. */
export const jsonRow = (table: TableDefinition, row: StoredRow): Record<string, unknown> =>
  Object.fromEntries(
    agentColumns(table)
      .filter((name) => Object.hasOwn(row, name) && !mustColumn(table, name).serverOnly)
      .map((name) => [name, jsonStored(row[name] ?? null)]),
  )
