import type { Stored, StoredRow } from '../../schema/codec.ts'
import type { StateMachine, TableDefinition } from '../../schema/define.ts'
import { mergeUnit, type MergeUnit } from '../../schema/merge-policy.ts'
import { mergeJson } from '../../schema/three-way/json.ts'
import { threeWayOf, type ThreeWay } from '../../schema/three-way/three-way.ts'
import { isLegal } from '../../schema/transitions.ts'
import { compareWritten, isLater, type Written } from './clock.ts'

/**
 * Merging an update into a row that others may have changed meanwhile. Pure: no I/O, no clock.
 *
 * A column's change is concurrent when the writer of the patch had not seen it. Columns of a group merge as one, each unit
 * as the schema says (`schema/define.ts`). `counter`, `set` and `max` lose nothing; the others choose, and what loses is
 * returned, so that it can be kept.
 */
export interface Stamp extends Written {
  readonly concurrent: boolean
}

export interface MergeInput extends Written {
  readonly table: TableDefinition
  readonly current: StoredRow
  /** Whole groups, stored form; without what its writer could not hold. */
  readonly patch: StoredRow
  /** What the columns of the patch were before it, where their policy asks. A column that is missing merges as `lww`. */
  readonly before: StoredRow
  /** Last change of each column since the row was made, where there was one; of several concurrent ones the latest. */
  readonly stamps: ReadonlyMap<string, Stamp>
  /** Columns of `current` that only stand for a value which no agent can hold. */
  readonly placeholders: ReadonlySet<string>
}

/** A concurrent value of one side, and what stands instead. */
export interface Loss {
  /** Who wrote the other side. */
  readonly writer: string | null
  readonly lost: StoredRow
  readonly kept: StoredRow
}

export interface MergeDecision {
  readonly outcome: 'applied' | 'merged' | 'superseded' | 'rejected'
  /** Columns to write. */
  readonly write: StoredRow
  /** Concurrent values of others that are overwritten, by writer. */
  readonly overwritten: readonly Loss[]
  /** Values of the patch that lost, and who won. */
  readonly lost: readonly Loss[]
  /** Columns that merge as `reject` and were changed concurrently: the patch is refused as a whole. */
  readonly rejected: readonly string[]
  /** A transition that is not legal: its group was superseded. */
  readonly illegal:
    | { readonly column: string; readonly from: string; readonly to: string }
    | undefined
}

type UnitDecision = Partial<
  Pick<MergeDecision, 'write' | 'rejected' | 'illegal'> & { overwritten: Loss; lost: Loss }
>

export function mergeUpdate(input: MergeInput): MergeDecision {
  const units = unitsOf(input).map((unit) => decideUnit(input, unit))
  const write: StoredRow = Object.assign({}, ...units.map((unit) => unit.write ?? {}))
  const lost = units.flatMap((unit) => unit.lost ?? [])
  const rejected = units.flatMap((unit) => unit.rejected ?? [])
  return {
    outcome: rejected.length > 0 ? 'rejected' : outcomeOf(input, write, lost.length > 0),
    write,
    overwritten: units.flatMap((unit) => unit.overwritten ?? []),
    lost,
    rejected,
    illegal: units.find((unit) => unit.illegal !== undefined)?.illegal,
  }
}

function outcomeOf(
  { stamps, patch, current }: MergeInput,
  write: StoredRow,
  lost: boolean,
): MergeDecision['outcome'] {
  if (lost) return Object.keys(write).length > 0 ? 'merged' : 'superseded'
  if ([...stamps.values()].some(({ concurrent }) => concurrent)) return 'merged'
  const after = { ...current, ...write }
  const differs = Object.keys(patch).some((name) => !sameStored(after[name], patch[name]))
  return differs ? 'merged' : 'applied'
}

/** A merge unit with those of its columns that the patch has. */
interface PatchedUnit extends MergeUnit {
  readonly patched: readonly string[]
}

function unitsOf({ table, patch }: MergeInput): PatchedUnit[] {
  const units = new Map<MergeUnit, string[]>()
  for (const column of Object.keys(patch)) {
    const unit = mergeUnit(table, column)
    const patched = units.get(unit)
    if (patched === undefined) units.set(unit, [column])
    else patched.push(column)
  }
  return [...units].map(([unit, patched]) => ({ ...unit, patched }))
}

function decideUnit(input: MergeInput, unit: PatchedUnit): UnitDecision {
  const { policy, patched } = unit
  const [column = ''] = patched
  if (policy === 'reject') return rejectIfConcurrent(input, unit)
  if (typeof policy === 'object') return moveState(input, unit, policy)
  const threeWay = threeWayOf(policy)
  const isKnown = Object.hasOwn(input.before, column) && !input.placeholders.has(column)
  if (threeWay === undefined || !isKnown) return laterWins(input, unit, differing(input, patched))
  return policy === 'merge' ? mergeKeys(input, column) : carryOver(input, column, threeWay)
}

const differing = ({ patch, current }: MergeInput, columns: readonly string[]): string[] =>
  columns.filter((column) => !sameStored(patch[column], current[column]))

/**
 * `lww` of some columns of a unit. The whole unit decides: a patch lacks the columns whose value its writer could not
 * hold, and the group is still one.
 */
function laterWins(
  input: MergeInput,
  { columns }: MergeUnit,
  wanted: readonly string[],
): UnitDecision {
  if (wanted.length === 0) return {}
  const rival = latestConcurrent(input, columns)
  if (rival === undefined || isLater(input, rival)) return overwrite(input, rival, wanted)
  return { lost: lose(input, rival.writer, wanted) }
}

/** Writes columns and keeps those of their values that are concurrent. */
function overwrite(
  { patch, current, stamps }: MergeInput,
  rival: Stamp | undefined,
  wanted: readonly string[],
): UnitDecision {
  const write = pick(patch, wanted)
  const theirs = wanted.filter((column) => stamps.get(column)?.concurrent === true)
  if (rival === undefined || theirs.length === 0) return { write }
  const overwritten = {
    writer: rival.writer,
    lost: pick(current, theirs),
    kept: pick(patch, theirs),
  }
  return { write, overwritten }
}

const lose = (
  { patch, current }: MergeInput,
  writer: string | null,
  columns: readonly string[],
): Loss => ({ writer, lost: pick(patch, columns), kept: pick(current, columns) })

function rejectIfConcurrent(input: MergeInput, { columns, patched }: PatchedUnit): UnitDecision {
  const wanted = differing(input, patched)
  if (wanted.length === 0) return {}
  return latestConcurrent(input, columns) === undefined
    ? { write: pick(input.patch, wanted) }
    : { rejected: wanted }
}

/**
 * A legal transition writes what its writer changed, whatever the clocks say: others' times of the group stay. Where the
 * state is the same, the later of two concurrent changes wins.
 */
function moveState(
  input: MergeInput,
  { columns, patched }: PatchedUnit,
  machine: StateMachine,
): UnitDecision {
  const { patch, before, current } = input
  const { column } = machine
  const wanted = differing(input, changedColumns(patch, before, patched))
  if (!wanted.includes(column)) return laterWins(input, { columns, policy: machine }, wanted)
  const rival = latestConcurrent(input, columns)
  const [from, to] = [String(current[column]), String(patch[column])]
  if (isLegal(machine, from, to)) return overwrite(input, rival, wanted)
  return {
    lost: lose(input, rival?.writer ?? null, differing(input, patched)),
    illegal: { column, from, to },
  }
}

/** Columns of a patch that its writer changed: a group goes along whole. */
export const changedColumns = (
  patch: StoredRow,
  before: StoredRow,
  columns: readonly string[],
): string[] =>
  columns.filter(
    (column) => !Object.hasOwn(before, column) || !sameStored(patch[column], before[column]),
  )

function carryOver(
  { patch, before, current }: MergeInput,
  column: string,
  threeWay: ThreeWay,
): UnitDecision {
  const theirs = current[column] ?? null
  const merged = threeWay(before[column] ?? null, patch[column] ?? null, theirs)
  return sameStored(merged, theirs) ? {} : { write: { [column]: merged } }
}

function mergeKeys(input: MergeInput, column: string): UnitDecision {
  const { patch, before, current } = input
  const rival = latestConcurrent(input, [column])
  const hasWon = rival === undefined || isLater(input, rival)
  const theirs = current[column] ?? null
  const { merged, contested } = mergeJson(
    before[column] ?? null,
    patch[column] ?? null,
    theirs,
    hasWon ? 'mine' : 'theirs',
  )
  const write = sameStored(merged, theirs) ? {} : { [column]: merged }
  // Nothing is concurrent, and still not as before: an earlier change of the same writer came out otherwise.
  if (contested === undefined || rival === undefined) return { write }
  const [mine, other] = [{ [column]: contested.mine }, { [column]: contested.theirs }]
  return hasWon
    ? { write, overwritten: { writer: rival.writer, lost: other, kept: mine } }
    : { write, lost: { writer: rival.writer, lost: mine, kept: other } }
}

function latestConcurrent({ stamps }: MergeInput, columns: readonly string[]): Stamp | undefined {
  let latest: Stamp | undefined
  for (const column of columns) {
    const stamp = stamps.get(column)
    if (stamp?.concurrent === true && (latest === undefined || compareWritten(stamp, latest) > 0))
      latest = stamp
  }
  return latest
}

const pick = (row: StoredRow, columns: readonly string[]): StoredRow =>
  Object.fromEntries(columns.map((column) => [column, row[column] ?? null]))

/** Equality of stored forms. */
export function sameStored(a: Stored | undefined, b: Stored | undefined): boolean {
  if (a instanceof Uint8Array && b instanceof Uint8Array) {
    return a.byteLength === b.byteLength && a.every((byte, i) => byte === b[i])
  }
  return (a ?? null) === (b ?? null)
}
