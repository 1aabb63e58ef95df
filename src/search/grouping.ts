import type { Fused } from './fusion.ts'
import type { Grouping } from './search-options.ts'
import type { SourceDefinition } from './text-sources.ts'

/** A row that was found, before it is read. */
export interface Candidate extends Fused {
  readonly source: SourceDefinition
}

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
  valueOf: (candidate: Candidate) => string | undefined,
  { size, rank }: Grouping,
  sources: number,
): Group[] {
  const groups = new Map<string, Collected>()
  for (const candidate of found) {
    const value = valueOf(candidate)
    if (value === undefined) continue
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
