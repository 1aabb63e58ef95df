import type { Embed } from '../../src/index.ts'
import { seededRandom } from './random.ts'

/**
 * Latent semantic analysis: words of a corpus projected on its strongest directions. Deterministic, offline, and the
 * nearest to a model that needs no download. Deerwester et al., 1990; subspace iteration after Halko et al., 2011.
 */
export function lsaEmbedder(corpus: readonly string[], dimension: number): Embed {
  const vocabulary = new Vocabulary(corpus)
  const rows = corpus.map((text) => vocabulary.weights(text))
  const basis = strongestDirections(rows, vocabulary.size, dimension)
  return (texts) =>
    texts.map((text) => {
      const vector = Float32Array.from(project(vocabulary.weights(text), basis, dimension))
      const length = Math.hypot(...vector)
      // A text without known words has no direction; any fixed one will do.
      if (length === 0) vector[0] = 1
      return length === 0 ? vector : vector.map((component) => component / length)
    })
}

interface Weight {
  readonly term: number
  readonly value: number
}

const ITERATIONS = 5

class Vocabulary {
  readonly #terms = new Map<string, number>()
  readonly #rarity: number[] = []

  constructor(corpus: readonly string[]) {
    const counts = new Map<string, number>()
    for (const text of corpus)
      for (const word of new Set(wordsOf(text))) counts.set(word, (counts.get(word) ?? 0) + 1)
    for (const [word, count] of counts) {
      if (count < 2) continue
      this.#terms.set(word, this.#rarity.length)
      this.#rarity.push(Math.log(corpus.length / count))
    }
  }

  get size(): number {
    return this.#rarity.length
  }

  /** Logarithm of the count times rarity, as a unit vector. */
  weights(text: string): Weight[] {
    const counts = new Map<number, number>()
    for (const word of wordsOf(text)) {
      const term = this.#terms.get(word)
      if (term !== undefined) counts.set(term, (counts.get(term) ?? 0) + 1)
    }
    const found = Array.from(counts, ([term, count]) => ({
      term,
      value: (1 + Math.log(count)) * (this.#rarity[term] ?? 0),
    }))
    const length = Math.hypot(...found.map(({ value }) => value)) || 1
    return found.map(({ term, value }) => ({ term, value: value / length }))
  }
}

const wordsOf = (text: string): string[] =>
  Array.from(text.toLowerCase().matchAll(/[\p{L}\p{N}]+/gu), ([word]) => word)

/** `basis` has `size` rows of `k` columns. */
function project(row: readonly Weight[], basis: Float64Array, k: number): Float64Array {
  const out = new Float64Array(k)
  for (const { term, value } of row)
    for (let i = 0; i < k; i++) out[i] = (out[i] ?? 0) + value * (basis[term * k + i] ?? 0)
  return out
}

function strongestDirections(
  rows: readonly (readonly Weight[])[],
  size: number,
  k: number,
): Float64Array {
  const random = seededRandom(11)
  let basis: Float64Array = Float64Array.from({ length: size * k }, () => random() - 0.5)
  orthonormalize(basis, size, k)
  for (let n = 0; n < ITERATIONS; n++) {
    const next = new Float64Array(size * k)
    for (const row of rows) {
      const projected = project(row, basis, k)
      for (const { term, value } of row)
        for (let i = 0; i < k; i++)
          next[term * k + i] = (next[term * k + i] ?? 0) + value * (projected[i] ?? 0)
    }
    basis = next
    orthonormalize(basis, size, k)
  }
  return basis
}

/** By the Cholesky factor of the Gram matrix, twice: once loses digits where directions are near each other. */
function orthonormalize(basis: Float64Array, size: number, k: number): void {
  for (let pass = 0; pass < 2; pass++) {
    const factor = cholesky(gram(basis, size, k), k)
    for (let row = 0; row < size; row++) {
      const at = row * k
      for (let i = 0; i < k; i++) {
        let sum = basis[at + i] ?? 0
        for (let j = 0; j < i; j++) sum -= (basis[at + j] ?? 0) * (factor[j * k + i] ?? 0)
        basis[at + i] = sum / (factor[i * k + i] ?? 1)
      }
    }
  }
}

function gram(basis: Float64Array, size: number, k: number): Float64Array {
  const out = new Float64Array(k * k)
  for (let row = 0; row < size; row++) {
    const at = row * k
    for (let i = 0; i < k; i++) {
      const left = basis[at + i] ?? 0
      for (let j = i; j < k; j++)
        out[i * k + j] = (out[i * k + j] ?? 0) + left * (basis[at + j] ?? 0)
    }
  }
  return out
}

/** Upper factor, in place. */
function cholesky(matrix: Float64Array, k: number): Float64Array {
  for (let i = 0; i < k; i++) {
    for (let j = i; j < k; j++) {
      let sum = matrix[i * k + j] ?? 0
      for (let n = 0; n < i; n++) sum -= (matrix[n * k + i] ?? 0) * (matrix[n * k + j] ?? 0)
      matrix[i * k + j] = i === j ? Math.sqrt(Math.max(sum, 1e-12)) : sum / (matrix[i * k + i] ?? 1)
    }
  }
  return matrix
}
