/**
 * Fusion of words and vectors. Each side's scores are divided by its best, so that both are shares of the best, and added
 * with a weight:
 *
 *     score = (1 - w) · bm25 / best bm25 + w · cosine / best cosine
 *
 * Scores say how much better one row is than the next; ranks, as reciprocal rank fusion takes them, do not, and a weak
 * model's ranking then costs what the words had found (`docs/decisions/0011-fusion-of-words-and-vectors.md`).
 */
export interface Fused {
  readonly id: string
  /** 0 to 1. */
  readonly score: number
  readonly textScore: number | null
  readonly vectorScore: number | null
}

interface Scored {
  readonly id: string
  readonly score: number
}

/** Best first; of equals the lower id. `weight`: that of the vectors, 0 to 1. */
export function fuse(
  words: readonly Scored[],
  vectors: readonly Scored[],
  weight: number,
): Fused[] {
  const bestWords = best(words)
  const bestVectors = best(vectors)
  const found = new Map<string, { text: number | null; vector: number | null }>()
  for (const { id, score } of words) found.set(id, { text: score, vector: null })
  for (const { id, score } of vectors) {
    const known = found.get(id)
    if (known === undefined) found.set(id, { text: null, vector: score })
    else known.vector = score
  }
  return Array.from(found, ([id, { text, vector }]) => ({
    id,
    score: (1 - weight) * share(text, bestWords) + weight * share(vector, bestVectors),
    textScore: text,
    vectorScore: vector,
  })).toSorted(better)
}

export const better = (a: Scored, b: Scored): number =>
  b.score - a.score || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)

/** The highest score, at least 0. */
export const best = (scored: readonly Scored[]): number =>
  scored.reduce((most, { score }) => Math.max(most, score), 0)

/** What points away from the query counts as nothing. */
const share = (score: number | null, most: number): number =>
  score === null || most === 0 ? 0 : Math.max(0, score) / most
