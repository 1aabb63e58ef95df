import type { Random } from '../../bench/support/random.ts'
import type { Neighbour } from '../../src/vector/neighbour.ts'

export const randomVector = (random: Random, dimension: number): Float32Array =>
  Float32Array.from({ length: dimension }, () => random() * 2 - 1)

export function cosine(a: Float32Array, b: Float32Array): number {
  let dot = 0
  let aa = 0
  let bb = 0
  for (let i = 0; i < a.length; i++) {
    const x = a[i] as number
    const y = b[i] as number
    dot += x * y
    aa += x * x
    bb += y * y
  }
  return dot / Math.sqrt(aa * bb)
}

/** The `k` nearest by comparing every one: what every index is held against. */
export function nearest(
  vectors: Iterable<readonly [string, Float32Array]>,
  query: Float32Array,
  k: number,
): Neighbour[] {
  const best: Neighbour[] = []
  for (const [id, vector] of vectors) {
    const score = cosine(query, vector)
    const last = best.at(-1)
    if (best.length === k && last !== undefined && score < last.score) continue
    const at = best.findIndex((one) => score > one.score || (score === one.score && id < one.id))
    best.splice(at === -1 ? best.length : at, 0, { id, score })
    if (best.length > k) best.pop()
  }
  return best
}

/** Share of `wanted` that is in `found`. */
export function recall(found: readonly Neighbour[], wanted: readonly Neighbour[]): number {
  if (wanted.length === 0) return 1
  const ids = new Set(found.map(({ id }) => id))
  return wanted.filter(({ id }) => ids.has(id)).length / wanted.length
}
