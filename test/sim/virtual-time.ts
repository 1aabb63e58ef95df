import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'
import { install, type Clock } from '@sinonjs/fake-timers'
import { v7 } from 'uuid'
import { forgetIds } from '../../schema/values/id.ts'
import type { Random } from './random.ts'

/** Where every run begins, milliseconds since 1970. */
export const EPOCH_MS = Date.UTC(2026, 0, 5, 9)

const realSetImmediate = setImmediate

/** All promise jobs that can run, have run: an immediate comes after the whole queue of them. */
const settled = (): Promise<void> => new Promise((done) => realSetImmediate(done))

/**
 * Replaces clocks, timers and randomness of the process while a seed runs, so that it is the same each time. Real I/O
 * would not be: nothing in a run waits for any, SQLite's is synchronous.
 */
export class VirtualTime implements Disposable {
  readonly #clock: Clock
  readonly #restore: () => void

  constructor(random: Random) {
    this.#restore = replaceRandomness(random)
    this.#clock = install({
      now: EPOCH_MS,
      toFake: ['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'Date', 'performance'],
      // A run that never comes to rest is a failure of ours, not an endless loop.
      loopLimit: 1_000_000,
    })
    forgetIds()
  }

  /** Milliseconds since the run began. */
  get elapsedMs(): number {
    return this.#clock.now - EPOCH_MS
  }

  /** Lets all that is due within `ms` happen, one timer after another, each with all that follows from it. */
  async advance(ms: number): Promise<void> {
    const until = this.#clock.now + ms
    await settled()
    for (;;) {
      const next = this.#nextTimer()
      if (next === undefined || next > until) break
      this.#clock.next()
      await settled()
    }
    this.#clock.tick(until - this.#clock.now)
    await settled()
  }

  /** Runs timers until `isDone`, at most `ms` long; says whether it was. */
  async advanceUntil(isDone: () => boolean, ms: number): Promise<boolean> {
    const until = this.#clock.now + ms
    await settled()
    while (!isDone()) {
      const next = this.#nextTimer()
      if (next === undefined || next > until) {
        this.#clock.tick(until - this.#clock.now)
        return false
      }
      this.#clock.next()
      await settled()
    }
    return true
  }

  #nextTimer(): number | undefined {
    return this.#clock.timerHeap?.peek()?.callAt
  }

  [Symbol.dispose](): void {
    this.#clock.uninstall()
    this.#restore()
  }
}

function replaceRandomness(random: Random): () => void {
  const { randomFillSync, randomBytes, randomUUID } = crypto
  const mathRandom = Math.random
  const fill = <T extends NodeJS.ArrayBufferView>(view: T): T => {
    random.randomize(new Uint8Array(view.buffer, view.byteOffset, view.byteLength))
    return view
  }
  const bytes = (size: number): Buffer => fill(Buffer.alloc(size))
  Math.random = random.float
  Object.assign(crypto, {
    randomFillSync: fill,
    randomBytes: bytes,
    randomUUID: () => v7({ random: bytes(16), msecs: 0, seq: 0 }),
  })
  Object.defineProperty(globalThis.crypto, 'getRandomValues', { value: fill, configurable: true })
  syncBuiltinESMExports()
  return () => {
    Math.random = mathRandom
    Object.assign(crypto, { randomFillSync, randomBytes, randomUUID })
    Reflect.deleteProperty(globalThis.crypto, 'getRandomValues')
    syncBuiltinESMExports()
  }
}
