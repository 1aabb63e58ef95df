import { writeFileSync } from 'node:fs'
import { vectorSource } from './data.ts'
import { seededRandom } from './random.ts'

/** The vectors of a bench in one matrix, so that a million of them are one object. */
export class VectorSet {
  readonly dimension: number
  readonly matrix: Float32Array

  constructor(dimension: number, matrix: Float32Array) {
    this.dimension = dimension
    this.matrix = matrix
  }

  get count(): number {
    return this.matrix.length / this.dimension
  }

  get bytes(): number {
    return this.matrix.byteLength
  }

  /** A view of one row; beyond the last it begins anew. */
  row(n: number): Float32Array {
    const at = (n % this.count) * this.dimension
    return this.matrix.subarray(at, at + this.dimension)
  }

  /** Raw float32, row after row: what a peer in another process reads. */
  write(path: string): void {
    const { buffer, byteOffset, byteLength } = this.matrix
    writeFileSync(path, new Uint8Array(buffer, byteOffset, byteLength))
  }
}

/** Vectors to store, some to ask for, and some that are added later: all of one source. */
export interface VectorData {
  readonly stored: VectorSet
  readonly probes: VectorSet
  readonly fresh: VectorSet
}

export function vectorData(
  dimension: number,
  counts: { readonly stored: number; readonly probes: number; readonly fresh: number },
): VectorData {
  const next = vectorSource(seededRandom(4), dimension)
  const take = (count: number): VectorSet => {
    const matrix = new Float32Array(count * dimension)
    for (let row = 0; row < count; row++) matrix.set(next(), row * dimension)
    return new VectorSet(dimension, matrix)
  }
  return { stored: take(counts.stored), probes: take(counts.probes), fresh: take(counts.fresh) }
}

/** Mean share of the true nearest among what was found, probe by probe. */
export function recallOf(
  found: readonly (readonly number[])[],
  truth: readonly ReadonlySet<number>[],
): number {
  let hits = 0
  let wanted = 0
  for (const [i, nearest] of truth.entries()) {
    wanted += nearest.size
    hits += (found[i] ?? []).filter((row) => nearest.has(row)).length
  }
  return hits / wanted
}
