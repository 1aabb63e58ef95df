import type { IdSet } from './matching.ts'

/** A moment of each row, in microseconds; rows between two moments are found without looking at the others. */
export class TimeIndex {
  readonly #timeOf = new Map<string, number>()
  /** In order of time, as they were when they were last sorted. */
  #ids: string[] = []
  #times = new Float64Array(0)
  /** Rows that were set since. */
  readonly #newer = new Set<string>()

  /** A moment that is none (NaN) is in no range. */
  set(id: string, time: number): void {
    if (this.#timeOf.get(id) === time) return
    if (Number.isNaN(time)) return this.delete(id)
    this.#timeOf.set(id, time)
    this.#newer.add(id)
  }

  delete(id: string): void {
    this.#timeOf.delete(id)
    this.#newer.delete(id)
  }

  /** Rows from a moment on and before another one, as long as nothing is set or deleted. */
  between(from: number, to: number): IdSet {
    if (this.#newer.size > Math.max(NEWER_MIN, this.#ids.length / 10)) this.#sort()
    const [first, last] = [this.#firstFrom(from), this.#firstFrom(to)]
    const has = (id: string): boolean => {
      const time = this.#timeOf.get(id)
      return time !== undefined && time >= from && time < to
    }
    const [ids, times, timeOf, newer] = [this.#ids, this.#times, this.#timeOf, this.#newer]
    return {
      size: Math.max(0, last - first) + newer.size,
      has,
      *[Symbol.iterator]() {
        for (let i = first; i < last; i++) {
          const id = ids[i] as string
          if (timeOf.get(id) === times[i]) yield id
        }
        for (const id of newer) if (has(id)) yield id
      },
    }
  }

  /** Rows come in order of time mostly, which costs little to sort. */
  #sort(): void {
    const sorted = [...this.#timeOf].toSorted(([, one], [, other]) => one - other)
    this.#ids = sorted.map(([id]) => id)
    this.#times = Float64Array.from(sorted, ([, time]) => time)
    this.#newer.clear()
  }

  #firstFrom(time: number): number {
    let [low, high] = [0, this.#times.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#times[middle] as number) < time) low = middle + 1
      else high = middle
    }
    return low
  }
}

/** So many may be looked at one by one; beyond, all are sorted once a tenth of them is newer. */
const NEWER_MIN = 500
