import { Candidates } from './candidates.ts'
import type { Neighbour } from './neighbour.ts'

/** What a search found and what it took. */
export interface Scanned {
  /** Best first; of equals the lower id. */
  readonly neighbours: Neighbour[]
  /** Vectors whose codes were compared. */
  readonly scanned: number
  /** Vectors whose original was compared, because their codes left it open. */
  readonly rescored: number
}

/** Whether an id may be found. */
export type Test = (id: string) => boolean

/** Rows by their numbers: a list, or those from one up to another. */
export type SomeRows = Uint32Array | { readonly from: number; readonly to: number }

/** What a sweep goes over, for one query. */
export interface SweptRows {
  size(): number
  /** Rows that are compared in one piece. */
  readonly inPiece: number
  idOf(row: number): string
  compare(rows: SomeRows, found: Candidates): void
  rescore(found: Candidates): Omit<Scanned, 'scanned'>
  leave(sweep: Sweep): void
}

/**
 * One query over all rows, piece by piece. A row that is set, or that another takes the place of, after it was compared is
 * compared again at the end; where it had been among the best so far, everything is.
 */
export class Sweep implements Disposable {
  readonly #rows: SweptRows
  readonly #k: number
  readonly #known: ReadonlySet<number>
  readonly #touched = new Set<number>()
  #test: Test | undefined
  #candidates: Candidates
  /** The first row that was not compared yet. */
  #at = 0

  /** `known` are some rows that pass the test. */
  constructor(rows: SweptRows, k: number, test: Test | undefined, known: Uint32Array) {
    this.#rows = rows
    this.#k = k
    this.#test = test
    this.#known = new Set(known)
    const first = new Candidates(k)
    if (known.length > 0) rows.compare(known, first)
    this.#candidates = this.#newCandidates(first.floor)
  }

  /** Compares the next piece, unless it is the last; whether there was one. */
  next(): boolean {
    const { inPiece } = this.#rows
    const isLast = this.#rows.size() - this.#at <= inPiece
    if (!isLast) this.#compareTo(this.#at + inPiece)
    return !isLast
  }

  /** Compares what is left; `test` as it is by now. */
  finish(test = this.#test): Scanned {
    this.#test = test
    this.#compareTo(this.#rows.size())
    if (this.#touched.size > 0) this.#compareTouched()
    return { ...this.#rows.rescore(this.#candidates), scanned: this.#at }
  }

  /** A row is another one now, or none. */
  touch(row: number): void {
    if (row < this.#at || this.#known.has(row)) this.#touched.add(row)
  }

  [Symbol.dispose](): void {
    this.#rows.leave(this)
  }

  #compareTo(end: number): void {
    // Rows may have gone.
    const from = Math.min(this.#at, end)
    this.#rows.compare({ from, to: end }, this.#candidates)
    this.#at = end
  }

  #compareTouched(): void {
    const touched = [...this.#touched]
    const counted = new Set([...this.#known, ...this.#candidates.rows])
    if (touched.some((row) => counted.has(row))) {
      this.#candidates = this.#newCandidates()
      this.#rows.compare({ from: 0, to: this.#at }, this.#candidates)
    } else {
      const rows = Uint32Array.from(touched.filter((row) => row < this.#at))
      this.#rows.compare(rows, this.#candidates)
    }
  }

  #newCandidates(floor?: number): Candidates {
    const accepts = (row: number): boolean => this.#test?.(this.#rows.idOf(row)) ?? true
    return new Candidates(this.#k, this.#test && accepts, floor)
  }
}
