/** The k-th largest number of a stream: a heap of the k largest, the least on top. */
export class KthLargest {
  readonly #k: number
  readonly #heap: number[] = []

  constructor(k: number) {
    this.#k = k
  }

  /** What a number must reach to be among the k largest; -Infinity until there are k. */
  get floor(): number {
    return this.#heap.length < this.#k ? Number.NEGATIVE_INFINITY : (this.#heap[0] as number)
  }

  offer(value: number): void {
    const heap = this.#heap
    if (heap.length < this.#k) {
      heap.push(value)
      this.#rise(heap.length - 1)
    } else if (value > (heap[0] as number)) {
      heap[0] = value
      this.#sink()
    }
  }

  #rise(from: number): void {
    const heap = this.#heap
    const value = heap[from] as number
    let at = from
    while (at > 0) {
      const parent = (at - 1) >> 1
      if ((heap[parent] as number) <= value) break
      heap[at] = heap[parent] as number
      at = parent
    }
    heap[at] = value
  }

  #sink(): void {
    const heap = this.#heap
    const value = heap[0] as number
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && (heap[child + 1] as number) < (heap[child] as number))
        child += 1
      if ((heap[child] as number) >= value) break
      heap[at] = heap[child] as number
      at = child
    }
    heap[at] = value
  }
}
