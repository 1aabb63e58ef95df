/** Timings of one contender, in the order they were taken. */
export type Samples = readonly number[]

export interface Percentiles {
  readonly p50: number
  readonly p95: number
  readonly p99: number
}

/**
 * Nearest-rank percentiles. With `higherIsBetter` (rates) the order turns: p95 is what 95 of 100 samples reach, so the
 * tail is the bad end either way.
 */
export function percentiles(samples: Samples, higherIsBetter = false): Percentiles {
  if (samples.length === 0) throw new RangeError('a percentile of no samples')
  const sorted = samples.toSorted((a, b) => (higherIsBetter ? b - a : a - b))
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
}

export const median = (samples: Samples): number => percentiles(samples).p50
