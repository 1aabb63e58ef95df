/** Numbers in [0, 1) that are the same on every run of a seed (mulberry32). */
export type Random = () => number

export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

export const wholeBelow = (random: Random, limit: number): number => Math.floor(random() * limit)

export function pick<T>(random: Random, from: readonly T[]): T {
  const found = from[wholeBelow(random, from.length)]
  if (found === undefined) throw new RangeError('nothing to pick from')
  return found
}

/** A version 7 id: time-ordered by `n`, so that indexes grow at one end as they do in life. */
export function seededId(random: Random, n: number): string {
  const hex = (limit: number, digits: number): string =>
    wholeBelow(random, limit).toString(16).padStart(digits, '0')
  const time = (1_760_000_000_000 + n).toString(16).padStart(12, '0')
  return `${time.slice(0, 8)}-${time.slice(8)}-7${hex(0x1000, 3)}-${(0x8000 + wholeBelow(random, 0x4000)).toString(16)}-${hex(2 ** 48, 12)}`
}
