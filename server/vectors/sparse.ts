import type { SparseVector } from '../qdrant/engine.ts'

/**
 * Text as weights of its words, for the lexical half of hybrid search.
 *
 * - Normal form NFKC, lower case. A word is a run of letters, digits and `_`; an identifier counts as a whole and by its
 *   parts (`parseHttpUrl`, `parse_http_url`: `parse`, `http`, `url`).
 * - A word's number is a hash of 32 bits; words that share one count together.
 * - Of a row: how often it stands there, saturated as in BM25 (k1 1.2, b 0.75, against a length of 256 words).
 * - Of a query: 1 for each word.
 *
 * How rare a word is, Qdrant weighs in by itself (modifier `idf`); {@link inverseFrequency} is its formula.
 */
export function sparseOfRow(text: string): SparseVector | undefined {
  const counts = termCounts(text)
  let length = 0
  for (const count of counts.values()) length += count
  const norm = K1 * (1 - B + (B * length) / LENGTH_TYPICAL)
  return sparse(counts, (count) => (count * (K1 + 1)) / (count + norm))
}

/** Undefined where the text has no words. */
export const sparseOfQuery = (text: string): SparseVector | undefined =>
  sparse(termCounts(text), () => 1)

/** As Qdrant computes it: over `total` texts, of which `having` have the word. */
export const inverseFrequency = (total: number, having: number): number =>
  Math.log(1 + (total - having + 0.5) / (having + 0.5))

const K1 = 1.2
const B = 0.75
const LENGTH_TYPICAL = 256
/** Longer runs are data, not words. */
const WORD_LENGTH_MAX = 64

const word = /[\p{L}\p{N}_]+/gu
const part = /\p{Lu}+(?!\p{Ll})|\p{Lu}?[\p{Ll}\p{Lo}\p{Lm}]+|\p{N}+/gu

function termCounts(text: string): Map<number, number> {
  const counts = new Map<number, number>()
  const count = (term: string): void => {
    if (term.length > WORD_LENGTH_MAX) return
    const number = hash(term.toLowerCase())
    counts.set(number, (counts.get(number) ?? 0) + 1)
  }
  for (const [whole] of text.normalize('NFKC').matchAll(word)) {
    count(whole)
    const parts = whole.match(part) ?? []
    if (parts.length > 1) for (const piece of parts) count(piece)
  }
  return counts
}

function sparse(
  counts: ReadonlyMap<number, number>,
  weigh: (count: number) => number,
): SparseVector | undefined {
  if (counts.size === 0) return undefined
  const terms = [...counts].toSorted(([a], [b]) => a - b)
  return {
    indices: terms.map(([index]) => index),
    values: terms.map(([, count]) => weigh(count)),
  }
}

/** FNV-1a over UTF-16 units, finished as MurmurHash3 does. */
function hash(text: string): number {
  let value = 0x811c9dc5
  for (let i = 0; i < text.length; i++) {
    value ^= text.charCodeAt(i)
    value = Math.imul(value, 0x01000193)
  }
  value ^= value >>> 16
  value = Math.imul(value, 0x85ebca6b)
  value ^= value >>> 13
  return value >>> 0
}
