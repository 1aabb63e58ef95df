import { AgentDBError, preview } from '../../schema/errors.ts'
import { DIMENSION_MAX } from '../../schema/values/vector.ts'
import { KthLargest } from './best-k.ts'
import { Candidates } from './candidates.ts'
import { encodeQuery, errorOf, LEVELS, SLACK, stepsOf } from './codes.ts'
import { newKernels, type Kernels } from './kernels.ts'
import type { Neighbour } from './neighbour.ts'
import { OriginalVectors } from './original-vectors.ts'
import { Sweep, type Scanned, type SomeRows, type SweptRows, type Test } from './sweep.ts'

export interface ScanIndexOptions {
  /** Bytes of original vectors that are kept beside the codes; beyond, `fetch` is asked. Default: 256 MiB. */
  readonly originalBytesMax?: number | undefined
  /** The vector of an id as it was last set. Without it all originals are kept, whatever they take. */
  readonly fetch?: FetchVector | undefined
  /** Bytes of codes that a {@link ScanIndex.sweep} compares in one piece. Default: 16 MiB, 1 to 3 ms. */
  readonly pieceBytes?: number | undefined
  /** Where codes are kept and multiplied. Default: WebAssembly where it runs. */
  readonly kernels?: (() => Kernels) | undefined
}

/** Undefined where there is no such vector any more: it is left out of the results. */
export type FetchVector = (id: string) => Float32Array | undefined

/** Some of the vectors: a list of their ids, or a test of an id. */
export type Among = Iterable<string> | Test

export const ORIGINAL_BYTES_MAX = 256 * 1024 * 1024
const PIECE_BYTES = 16 * 1024 * 1024

/** Of what is known to pass a test, so many are compared first. */
const PASSING_MAX = 128

/** Rows whose dot products are computed in one call: 16 KB of results stay in the nearest cache. */
const BLOCK = 4096

/**
 * Exact nearest neighbours by cosine: a scan of int8 codes, then the originals of those that may be among the best.
 *
 *     query ──▶ codes of every row ──▶ cosine ± error ──▶ rows whose upper bound reaches ──▶ exact cosine ──▶ k best
 *               1 byte a dimension     (kept per row)     the k-th best lower bound          of originals
 *
 * No recall is lost: the error of each row's codes is known, not guessed. Memory per vector: its dimension rounded up to
 * 16 bytes of codes, 16 bytes of numbers, about 100 of id, and 4 bytes a dimension while originals are kept.
 *
 * @example
 * const index = new ScanIndex(384)
 * index.set('a', vector)
 * index.search(query, 10)
 */
export class ScanIndex {
  readonly dimension: number
  readonly #rows = new Map<string, number>()
  readonly #ids: string[] = []
  readonly #kernels: Kernels
  readonly #originals: OriginalVectors
  /** Bytes of a row of codes. */
  readonly #stride: number
  readonly #pieceRows: number
  readonly #at: Layout
  /** Those that are under way. */
  readonly #sweeps = new Set<Sweep>()
  #scales = new Float32Array(64)
  #errors = new Float32Array(64)
  #norms = new Float64Array(64)

  /** @throws AgentDBError `INVALID_OPTION` */
  constructor(dimension: number, options: ScanIndexOptions = {}) {
    if (!(Number.isInteger(dimension) && dimension >= 1 && dimension <= DIMENSION_MAX)) {
      const range = `a whole number from 1 to ${DIMENSION_MAX}`
      throw new AgentDBError('INVALID_OPTION', `dimension must be ${range}, got ${dimension}`)
    }
    this.dimension = dimension
    this.#stride = Math.ceil(dimension / 16) * 16
    this.#at = layout(this.#stride)
    const { kernels = newKernels, fetch, originalBytesMax = ORIGINAL_BYTES_MAX } = options
    this.#pieceRows = Math.ceil((options.pieceBytes ?? PIECE_BYTES) / this.#stride)
    this.#kernels = kernels()
    this.#originals = new OriginalVectors(dimension, kernels, {
      fetch,
      bytesMax: fetch === undefined ? Number.POSITIVE_INFINITY : originalBytesMax,
    })
  }

  get size(): number {
    return this.#ids.length
  }

  /** Whether a scan of all is more than one piece of a {@link sweep}. */
  get isLong(): boolean {
    return this.size > this.#pieceRows
  }

  /** Bytes of codes and originals, room to grow included, ids not. */
  get memoryBytes(): number {
    const numbers = this.#scales.byteLength + this.#errors.byteLength + this.#norms.byteLength
    return this.#kernels.buffer.byteLength + this.#originals.memoryBytes + numbers
  }

  get keepsOriginals(): boolean {
    return this.#originals.areKept
  }

  /** All ids, as long as nothing is set or deleted. */
  ids(): IterableIterator<string> {
    return this.#rows.keys()
  }

  has(id: string): boolean {
    return this.#rows.has(id)
  }

  /**
   * Adds a vector, or replaces it. A vector of zeros has no direction: it is found with score 0.
   *
   * @throws AgentDBError `INVALID_VALUE` for NaN, infinities and other dimensions, `INDEX_FULL`; nothing has changed then
   */
  set(id: string, vector: Float32Array): void {
    if (!this.trySet(id, vector)) this.#mustFit(vector)
  }

  /** As {@link set}; false, and nothing has changed, where the vector has NaN, an infinity or another dimension. */
  trySet(id: string, vector: Float32Array): boolean {
    const { dimension } = this
    if (vector.length !== dimension) return false
    const row = this.#rows.get(id) ?? this.#ids.length
    const kernels = this.#kernels
    const { codes, vector: at, numbers } = this.#at
    const stride = this.#stride
    kernels.ensure(codes + (row + 1) * stride)
    new Float32Array(kernels.buffer, at, dimension).set(vector)
    const measured = kernels.measure(at, stride, numbers)
    const { squares } = measured
    if (!Number.isFinite(squares)) return false
    this.#originals.set(row, vector)
    this.#growNumbers(row + 1)
    const address = this.#addressOf(row)
    const hasDirection = squares > 0
    if (hasDirection) {
      const steps = stepsOf(measured, LEVELS)
      this.#errors[row] = errorOf(kernels.encode(at, stride, address, steps))
      this.#scales[row] = steps.scale
    } else {
      new Int8Array(kernels.buffer, address, stride).fill(0)
      this.#errors[row] = 0
      this.#scales[row] = 0
    }
    this.#norms[row] = Math.sqrt(squares)
    this.#touch(row)
    if (row === this.#ids.length) {
      this.#ids.push(id)
      this.#rows.set(id, row)
    }
    return true
  }

  /** The last row takes the place of the one that goes. */
  delete(id: string): boolean {
    const row = this.#rows.get(id)
    if (row === undefined) return false
    const last = this.#ids.length - 1
    const moved = this.#ids[last]
    if (moved !== undefined && last !== row) {
      const from = this.#addressOf(last)
      new Int8Array(this.#kernels.buffer).copyWithin(
        this.#addressOf(row),
        from,
        from + this.#stride,
      )
      this.#originals.move(last, row)
      for (const numbers of [this.#norms, this.#scales, this.#errors])
        numbers[row] = numbers[last] as number
      this.#ids[row] = moved
      this.#rows.set(moved, row)
    }
    this.#ids.pop()
    this.#rows.delete(id)
    this.#touch(row)
    this.#touch(last)
    return true
  }

  /** The `k` nearest, best first; of equals the lower id. `among` limits it to some ids; see {@link scan}. */
  search(query: Float32Array, k: number, among?: Among): Neighbour[] {
    return this.scan(query, k, among).neighbours
  }

  /**
   * As {@link search}, telling what it took. With a list of ids only they are compared, unknown ones ignored: for a small
   * part of the vectors. With a test all are, and it is asked of those that come near enough: for a larger part. `passing`
   * are some that pass it: they tell from the start what is near enough, wherever the others lie.
   *
   * @throws AgentDBError `INVALID_VALUE` for NaN, infinities and other dimensions, `INVALID_OPTION` for k
   */
  scan(query: Float32Array, k: number, among?: Among, passing: Iterable<string> = []): Scanned {
    if (among === undefined || typeof among === 'function') {
      using sweep = this.sweep(query, k, among, passing)
      return sweep.finish()
    }
    this.#mustBeAsked(query, k)
    const rows = this.#rowsOf(among)
    const candidates = new Candidates(k)
    // Codes leave nothing out of what is wanted whole.
    if (rows.length <= k) for (const row of rows) candidates.offer(row, 0, Infinity)
    else this.#compareCodes(query, rows, candidates)
    return { ...this.#rescore(query, k, candidates), scanned: rows.length }
  }

  /**
   * As {@link scan} of all or with a test, in pieces between which others get their turn. What is set and deleted
   * meanwhile counts.
   *
   * @throws AgentDBError as {@link scan}
   */
  sweep(query: Float32Array, k: number, test?: Test, passing: Iterable<string> = []): Sweep {
    this.#mustBeAsked(query, k)
    const rows: SweptRows = {
      size: () => this.size,
      inPiece: this.#pieceRows,
      idOf: (row) => this.#ids[row] as string,
      compare: (some, found) => this.#compareCodes(query, some, found),
      rescore: (found) => this.#rescore(query, k, found),
      leave: (left) => this.#sweeps.delete(left),
    }
    const sweep = new Sweep(rows, k, test, this.#rowsOf(firstOf(passing, PASSING_MAX)))
    this.#sweeps.add(sweep)
    return sweep
  }

  #compareCodes(query: Float32Array, rows: SomeRows, found: Candidates): void {
    const { codes, query: at, out, rows: list } = this.#at
    const kernels = this.#kernels
    kernels.ensure(codes)
    const { buffer } = kernels
    const probe = encodeQuery(query, new Int16Array(buffer, at, this.dimension))
    const dots = new Int32Array(buffer, out, BLOCK)
    const picked = new Uint32Array(buffer, list, BLOCK)
    const isList = rows instanceof Uint32Array
    const [first, end] = isList ? [0, rows.length] : [rows.from, rows.to]
    for (let from = first; from < end; from += BLOCK) {
      const count = Math.min(BLOCK, end - from)
      if (isList) {
        picked.set(rows.subarray(from, from + count))
        kernels.gather(codes, this.#stride, at, list, count, out)
      } else {
        kernels.scan(this.#addressOf(from), this.#stride, at, count, out)
      }
      for (let i = 0; i < count; i++) {
        const row = isList ? (picked[i] as number) : from + i
        const near = (dots[i] as number) * (this.#scales[row] as number) * probe.scale
        const error = this.#errors[row] as number
        found.offer(row, near, error + (1 + error) * probe.error + SLACK)
      }
    }
  }

  /** Best upper bound first, until none left can reach the k-th best exact score. */
  #rescore(
    query: Float32Array,
    k: number,
    candidates: Candidates,
  ): { neighbours: Neighbour[]; rescored: number } {
    const best = new KthLargest(k)
    const neighbours: Neighbour[] = []
    let rescored = 0
    this.#originals.ask(query)
    for (const { row, upper } of candidates.bestFirst()) {
      if (upper < best.floor) break
      const id = this.#ids[row] as string
      const score = this.#originals.cosine(row, id, this.#norms[row] as number)
      rescored += 1
      if (score === undefined) continue
      best.offer(score)
      if (score >= best.floor) neighbours.push({ id, score })
    }
    return { neighbours: neighbours.toSorted(byScore).slice(0, k), rescored }
  }

  /** Each once, in the order of memory, which is read faster than at random. */
  #rowsOf(ids: Iterable<string>): Uint32Array {
    const found: number[] = []
    for (const id of ids) {
      const row = this.#rows.get(id)
      if (row !== undefined) found.push(row)
    }
    const rows = Uint32Array.from(found).toSorted()
    let count = 0
    for (let i = 0; i < rows.length; i++)
      if (i === 0 || rows[i] !== rows[i - 1]) rows[count++] = rows[i] as number
    return rows.subarray(0, count)
  }

  #mustBeAsked(query: Float32Array, k: number): void {
    this.#mustFit(query)
    if (!(Number.isInteger(k) && k >= 1))
      throw new AgentDBError('INVALID_OPTION', `k must be a whole number from 1, got ${preview(k)}`)
  }

  #mustFit(vector: Float32Array): void {
    const { dimension } = this
    if (vector.length !== dimension)
      refuse(`a vector of ${dimension} dimensions is wanted, got ${vector.length}`)
    for (let i = 0; i < dimension; i++) {
      const component = vector[i] as number
      if (component - component !== 0) refuse(`a vector has ${component} at ${i}`)
    }
  }

  #touch(row: number): void {
    for (const sweep of this.#sweeps) sweep.touch(row)
  }

  #addressOf(row: number): number {
    return this.#at.codes + row * this.#stride
  }

  #growNumbers(rows: number): void {
    const has = this.#scales.length
    if (rows <= has) return
    const scales = new Float32Array(has * 2)
    const errors = new Float32Array(has * 2)
    const norms = new Float64Array(has * 2)
    scales.set(this.#scales)
    errors.set(this.#errors)
    norms.set(this.#norms)
    this.#scales = scales
    this.#errors = errors
    this.#norms = norms
  }
}

/** Addresses in the memory of the codes: scratch first, then the rows. */
interface Layout {
  readonly query: number
  readonly out: number
  readonly rows: number
  /** A vector as it was given, zeros at the end. */
  readonly vector: number
  readonly numbers: number
  readonly codes: number
}

function layout(stride: number): Layout {
  const out = 2 * stride
  const rows = out + 4 * BLOCK
  const vector = rows + 4 * BLOCK
  const numbers = vector + 4 * stride
  return { query: 0, out, rows, vector, numbers, codes: numbers + 16 }
}

/** Each once. */
function firstOf(ids: Iterable<string>, count: number): Set<string> {
  const first = new Set<string>()
  for (const id of ids) {
    if (first.size >= count) break
    first.add(id)
  }
  return first
}

const byScore = (a: Neighbour, b: Neighbour): number => b.score - a.score || (a.id < b.id ? -1 : 1)

function refuse(message: string): never {
  throw new AgentDBError('INVALID_VALUE', `vector index: ${message}`)
}
