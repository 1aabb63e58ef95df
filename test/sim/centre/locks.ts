import { DatabaseError } from './database-error.ts'

/** A transaction, as far as locks ask. */
export interface LockOwner {
  readonly lockKeys: Set<string>
  mustBeOpen(): void
}

/** PostgreSQL's row locks, as far as we use them. */
export type Strength = 'key share' | 'no key update' | 'update'

const rank: Record<Strength, number> = { 'key share': 0, 'no key update': 1, update: 2 }

const conflicts = (a: Strength, b: Strength): boolean =>
  a === 'update' || b === 'update' || (a !== 'key share' && b !== 'key share')

interface Waiter {
  readonly transaction: LockOwner
  readonly strength: Strength
  readonly go: () => void
  readonly fail: (error: Error) => void
}

interface Entry {
  readonly holders: Map<LockOwner, Strength>
  readonly queue: Waiter[]
}

/** Row locks with their queues. Whoever closes a circle of waits gets 40P01. */
export class Locks {
  readonly #entries = new Map<string, Entry>()

  async acquire(transaction: LockOwner, key: string, strength: Strength): Promise<void> {
    transaction.mustBeOpen()
    let entry = this.#entries.get(key)
    if (entry === undefined) this.#entries.set(key, (entry = { holders: new Map(), queue: [] }))
    const held = entry.holders.get(transaction)
    if (held !== undefined && rank[held] >= rank[strength]) return
    const waitsBehind = held === undefined && entry.queue.length > 0
    if (!waitsBehind && this.#isFree(entry, transaction, strength)) {
      this.#grant(entry, key, transaction, strength)
      return
    }
    if (this.#closesCircle(transaction, key, strength))
      throw new DatabaseError('40P01', 'deadlock detected')
    const { queue } = entry
    await new Promise<void>((go, fail) => {
      queue.push({ transaction, strength, go, fail })
    })
    transaction.mustBeOpen()
  }

  /** At the end of a transaction: all its locks go, all who waited for them go on in order. */
  release(transaction: LockOwner): void {
    for (const key of transaction.lockKeys) this.#entries.get(key)?.holders.delete(transaction)
    for (const [key, entry] of this.#entries) {
      const at = entry.queue.findIndex((waiter) => waiter.transaction === transaction)
      if (at !== -1) {
        const [waiter] = entry.queue.splice(at, 1)
        waiter?.fail(new DatabaseError('57P01', 'terminating connection'))
      }
      if (transaction.lockKeys.has(key) || at !== -1) this.#wake(key, entry)
    }
  }

  #wake(key: string, entry: Entry): void {
    for (;;) {
      const [first] = entry.queue
      if (first === undefined || !this.#isFree(entry, first.transaction, first.strength)) break
      entry.queue.shift()
      this.#grant(entry, key, first.transaction, first.strength)
      first.go()
    }
    if (entry.holders.size === 0 && entry.queue.length === 0) this.#entries.delete(key)
  }

  #grant(entry: Entry, key: string, transaction: LockOwner, strength: Strength): void {
    entry.holders.set(transaction, strength)
    transaction.lockKeys.add(key)
  }

  #isFree({ holders }: Entry, transaction: LockOwner, strength: Strength): boolean {
    for (const [holder, held] of holders)
      if (holder !== transaction && conflicts(held, strength)) return false
    return true
  }

  /** Whether someone this request would wait for waits, at however many removes, for the one who asks. */
  #closesCircle(asking: LockOwner, key: string, strength: Strength): boolean {
    const seen = new Set<LockOwner>()
    const open = [...this.#blockers(asking, key, strength)]
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      if (next === asking) return true
      if (seen.has(next)) continue
      seen.add(next)
      for (const [otherKey, entry] of this.#entries) {
        for (const waiter of entry.queue)
          if (waiter.transaction === next)
            open.push(...this.#blockers(next, otherKey, waiter.strength))
      }
    }
    return false
  }

  #blockers(waiting: LockOwner, key: string, strength: Strength): LockOwner[] {
    const entry = this.#entries.get(key)
    if (entry === undefined) return []
    const holders = [...entry.holders].filter(
      ([holder, held]) => holder !== waiting && conflicts(held, strength),
    )
    const ahead: LockOwner[] = []
    for (const waiter of entry.queue) {
      if (waiter.transaction === waiting) break
      ahead.push(waiter.transaction)
    }
    return [...holders.map(([holder]) => holder), ...ahead]
  }
}
