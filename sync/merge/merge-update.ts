import type { Stored, StoredRow } from '../../schema/codec.ts'
import type { TableDefinition } from '../../schema/define.ts'

/**
 * Merging an update into a row that others may have changed meanwhile. Pure: no I/O, no clock.
 *
 * A column's change is concurrent when the writer of the patch had not seen it. Columns of a group merge as one.
 * `lww`: the later hybrid logical clock wins, of equals the greater client id, so that every order of arrival ends the
 * same. What loses is returned, so that it can be kept.
 */
export interface Stamp {
  readonly concurrent: boolean
  readonly clock: number
  readonly writer: string | null
}

export interface MergeInput {
  readonly table: TableDefinition
  readonly current: StoredRow
  /** Whole groups, stored form. */
  readonly patch: StoredRow
  /** Last change of each column since the row was made, where there was one. */
  readonly stamps: ReadonlyMap<string, Stamp>
  readonly clock: number
  readonly writer: string
}

export interface MergeDecision {
  readonly outcome: 'applied' | 'merged' | 'superseded'
  /** Columns to write. */
  readonly write: StoredRow
  /** Concurrent values of others that are overwritten, by writer. */
  readonly overwritten: readonly { readonly writer: string | null; readonly values: StoredRow }[]
  /** Values of the patch that lost, and who won. */
  readonly lost: readonly { readonly winner: string | null; readonly values: StoredRow }[]
}

export function mergeUpdate(input: MergeInput): MergeDecision {
  const write: Record<string, Stored> = {}
  const overwritten: { writer: string | null; values: StoredRow }[] = []
  const lost: { winner: string | null; values: StoredRow }[] = []
  for (const unit of units(input.table, Object.keys(input.patch))) {
    const differing = unit.filter(
      (column) => !sameStored(input.patch[column], input.current[column]),
    )
    if (differing.length === 0) continue
    const rival = latestConcurrent(input, unit)
    if (rival !== undefined && !isLater(input, rival)) {
      lost.push({ winner: rival.writer, values: pick(input.patch, differing) })
      continue
    }
    Object.assign(write, pick(input.patch, differing))
    const theirs = differing.filter((column) => input.stamps.get(column)?.concurrent === true)
    if (rival !== undefined && theirs.length > 0) {
      overwritten.push({ writer: rival.writer, values: pick(input.current, theirs) })
    }
  }
  return { outcome: outcomeOf(input, write, lost.length > 0), write, overwritten, lost }
}

function outcomeOf(input: MergeInput, write: StoredRow, lost: boolean): MergeDecision['outcome'] {
  if (lost) return Object.keys(write).length > 0 ? 'merged' : 'superseded'
  return [...input.stamps.values()].some(({ concurrent }) => concurrent) ? 'merged' : 'applied'
}

/** The columns of a patch, grouped as they merge. */
export function units(table: TableDefinition, columns: readonly string[]): string[][] {
  const seen = new Set<string>()
  return columns.flatMap((column) => {
    if (seen.has(column)) return []
    const group = table.groups.find((candidate) => candidate.columns.includes(column))
    const unit =
      group === undefined ? [column] : columns.filter((name) => group.columns.includes(name))
    for (const name of unit) seen.add(name)
    return [unit]
  })
}

function latestConcurrent(input: MergeInput, unit: readonly string[]): Stamp | undefined {
  let latest: Stamp | undefined
  for (const column of unit) {
    const stamp = input.stamps.get(column)
    if (stamp?.concurrent === true && (latest === undefined || compare(stamp, latest) > 0))
      latest = stamp
  }
  return latest
}

const isLater = (mine: { clock: number; writer: string }, rival: Stamp): boolean =>
  compare(mine, rival) > 0

/** A write at the centre itself has no client; of equal clocks it wins. */
function compare(
  a: { clock: number; writer: string | null },
  b: { clock: number; writer: string | null },
): number {
  if (a.clock !== b.clock) return a.clock - b.clock
  if (a.writer === b.writer) return 0
  if (a.writer === null) return 1
  if (b.writer === null) return -1
  return a.writer < b.writer ? -1 : 1
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
