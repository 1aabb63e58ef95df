import type { Fused } from './fusion.ts'
import type { Condition } from './payload-filter.ts'
import type { Grouping } from './search-options.ts'
import type { SourceDefinition } from './text-sources.ts'

/** A row that was found, before it is read. */
export interface Candidate extends Fused {
  readonly source: SourceDefinition
}

/** As it stands in a payload; two that read alike are one group. */
export type GroupValue = string | number

export interface Group {
  readonly value: string
  readonly score: number
  /** Best first. */
  readonly candidates: readonly Candidate[]
}

interface Collected {
  readonly value: string
  readonly candidates: Candidate[]
  /** Best score in each source. */
  readonly best: Map<string, number>
}

/**
 * Groups of what was found, best group first, each with its best. `found` comes best first; `valueOf` tells what a row is
 * grouped by, if by anything; `sources` is the number of sources that were searched.
 */
export function grouped(
  found: readonly Candidate[],
  valueOf: (candidate: Candidate) => GroupValue | undefined,
  { size, rank }: Grouping,
  sources: number,
): Group[] {
  const groups = new Map<string, Collected>()
  for (const candidate of found) {
    const of = valueOf(candidate)
    if (of === undefined) continue
    const value = String(of)
    const group = groups.get(value) ?? { value, candidates: [], best: new Map<string, number>() }
    groups.set(value, group)
    const { name } = candidate.source
    if (!group.best.has(name)) group.best.set(name, candidate.score)
    if (group.candidates.length < size) group.candidates.push(candidate)
  }
  const scoreOf = ({ best, candidates }: Collected): number =>
    rank === 'best'
      ? (candidates[0]?.score ?? 0)
      : [...best.values()].reduce((sum, score) => sum + score, 0) / sources
  return Array.from(groups.values(), (group) => ({
    value: group.value,
    candidates: group.candidates,
    score: scoreOf(group),
  })).toSorted((a, b) => b.score - a.score || (a.value < b.value ? -1 : 1))
}

/** What a row `p` of `json_each` over a payload groups by, where it does; lists and objects group nothing. */
export const groupValue = `CASE WHEN p.type IN ('true', 'false') THEN p.type ELSE p.atom END`
export const isGroupValue = `p.type IN ('text', 'integer', 'real', 'true', 'false')`

/** Rows that fit, of other groups than these. */
export const ofOtherGroups = (
  { sql, parameters }: Condition,
  { payload }: SourceDefinition,
  field: string,
  values: readonly GroupValue[],
): Condition => ({
  sql: `${sql} AND EXISTS (SELECT 1 FROM json_each(${payload}) p
    WHERE p.key = ? AND ${isGroupValue} AND ${groupValue} NOT IN (SELECT value FROM json_each(?)))`,
  parameters: [...parameters, field, JSON.stringify([...new Set(values)])],
})
