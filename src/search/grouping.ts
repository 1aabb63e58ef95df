import type { Fused } from './fusion.ts'
import type { Grouping, SearchResult } from './search-options.ts'
import type { SourceDefinition } from './text-sources.ts'

/** A row that was found, before it is read. */
export interface Candidate extends Fused {
  readonly source: SourceDefinition
}

interface Group {
  readonly value: string
  /** Best first. */
  readonly results: SearchResult[]
  /** Best score in each source. */
  readonly best: Map<string, number>
}

/**
 * The best results of each group, best group first. `found` comes best first; `sources` is the number of sources that
 * were searched.
 */
export function grouped(
  found: readonly Candidate[],
  read: (candidate: Candidate) => SearchResult[],
  { field, size, rank }: Grouping,
  sources: number,
  k: number,
  offset: number,
): SearchResult[] {
  const groups = new Map<string, Group>()
  for (const candidate of found) {
    for (const result of read(candidate)) {
      const value = fieldOf(result, field)
      if (value === undefined) continue
      const group = groups.get(value) ?? { value, results: [], best: new Map<string, number>() }
      groups.set(value, group)
      if (!group.best.has(result.collection)) group.best.set(result.collection, result.score)
      if (group.results.length < size) group.results.push(result)
    }
  }
  const scoreOf = ({ best, results }: Group): number =>
    rank === 'best'
      ? (results[0]?.score ?? 0)
      : [...best.values()].reduce((sum, score) => sum + score, 0) / sources
  return Array.from(groups.values(), (group) => ({ ...group, score: scoreOf(group) }))
    .toSorted((a, b) => b.score - a.score || (a.value < b.value ? -1 : 1))
    .slice(offset, offset + k)
    .flatMap(({ value, score, results }) =>
      results.map((result) => ({ ...result, group: { value, score } })),
    )
}

/** A value of the field as text; lists and objects group nothing. */
function fieldOf({ payload }: SearchResult, field: string): string | undefined {
  if (typeof payload !== 'object' || payload === null || !Object.hasOwn(payload, field))
    return undefined
  const value: unknown = Reflect.get(payload, field)
  return ['string', 'number', 'boolean'].includes(typeof value) ? String(value) : undefined
}
