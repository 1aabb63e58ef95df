import type { SparseVector } from '../qdrant/engine.ts'
import { inverseFrequency } from './sparse.ts'

/** One result of a ranking: a row and its score, higher is better. */
export interface Ranked {
  readonly id: string
  readonly score: number
}

/** Constant of reciprocal rank fusion, here and in Qdrant: ranks count from 0, each gives 1 / (k + rank). */
export const RRF_K = 60

/** Best first; of equals the lower id, so that an order is the same twice. */
export const byScore = (a: Ranked, b: Ranked): number => b.score - a.score || (a.id < b.id ? -1 : 1)

/** Reciprocal rank fusion of several rankings. */
export function fuse(rankings: readonly (readonly Ranked[])[]): Ranked[] {
  const scores = new Map<string, number>()
  for (const ranking of rankings)
    for (const [rank, { id }] of ranking.entries())
      scores.set(id, (scores.get(id) ?? 0) + 1 / (RRF_K + rank))
  return [...scores].map(([id, score]) => ({ id, score })).toSorted(byScore)
}

/** A text's words; undefined where it has none. */
export interface LexicalRow {
  readonly id: string
  readonly terms: SparseVector | undefined
}

/** Texts by the words that they share with a query, as Qdrant ranks sparse vectors with the modifier `idf`. */
export function rankLexically(query: SparseVector, rows: readonly LexicalRow[]): Ranked[] {
  const having = new Map<number, number>(query.indices.map((term) => [term, 0]))
  let total = 0
  for (const { terms } of rows) {
    if (terms === undefined) continue
    total += 1
    for (const term of terms.indices) {
      const count = having.get(term)
      if (count !== undefined) having.set(term, count + 1)
    }
  }
  const weights = new Map(
    [...having].map(([term, count]) => [term, inverseFrequency(total, count)]),
  )
  return rows
    .map(({ id, terms }) => ({
      id,
      score: (terms?.indices ?? []).reduce(
        (sum, term, i) => sum + (weights.get(term) ?? 0) * (terms?.values[i] ?? 0),
        0,
      ),
    }))
    .filter(({ score }) => score > 0)
    .toSorted(byScore)
}
