import { percentiles, type Percentiles, type Samples } from './statistics.ts'

export type Unit = 'us' | 'ms' | 'rows/s' | 'bytes'

/** A number that a row must reach: at most for times and ratios, at least for rates and recall. */
export interface Target {
  readonly metric: keyof Percentiles | 'ratio' | 'recall'
  readonly limit: number
}

/** A ratio always names what it was measured against, in the same run. */
export interface Ratio {
  readonly value: number
  /** The same of processor time, where both ran in this process; steadier on a machine that is shared. */
  readonly cpu?: number
  readonly against: string
}

/**
 * One dot of a picture: what one contender needed with so many vectors. A row has its own and, where the picture would
 * lack it, that of what it was measured against.
 */
export interface Point {
  readonly measure: string
  readonly unit: Unit
  readonly contender: string
  readonly vectors: number
  readonly dimension: number
  readonly p50: number
  readonly p95: number
  /** Share of the true nearest that were found. */
  readonly recall?: number
  /** Of a graph: how widely it looked. Points of one contender that differ in it are a curve of recall against time. */
  readonly ef?: number
}

export interface MeasuredRow extends Percentiles {
  readonly kind: 'measured'
  readonly name: string
  readonly unit: Unit
  readonly samples: number
  readonly ratio: Ratio
  readonly targets: readonly Target[]
  readonly met: boolean
  readonly note: string
  /** Share of the true nearest that were found. */
  readonly recall?: number
  readonly points?: readonly Point[]
}

/** What could not be measured here, and why: never left out in silence. */
export interface SkippedRow {
  readonly kind: 'skipped'
  readonly name: string
  readonly targets: readonly Target[]
  readonly reason: string
}

export type BenchRow = MeasuredRow | SkippedRow

export interface Measurement {
  readonly name: string
  readonly unit: Unit
  readonly samples: Samples
  readonly ratio: Ratio
  readonly targets: readonly Target[]
  readonly note?: string
  readonly recall?: number
  readonly points?: readonly Point[]
}

export function measuredRow(measurement: Measurement): MeasuredRow {
  const { name, unit, samples, ratio, targets, note = '', recall, points } = measurement
  const found = percentiles(samples, unit === 'rows/s')
  const reached = { ...found, ratio: ratio.value, recall: recall ?? 0 }
  const met = targets.every((target) => isMet(target, reached, unit))
  return {
    kind: 'measured',
    name,
    unit,
    samples: samples.length,
    ...found,
    ratio,
    targets,
    met,
    note,
    ...(recall === undefined ? {} : { recall }),
    ...(points === undefined ? {} : { points }),
  }
}

function isMet(
  { metric, limit }: Target,
  found: Percentiles & { readonly ratio: number; readonly recall: number },
  unit: Unit,
): boolean {
  if (metric === 'recall') return found.recall >= limit
  return metric !== 'ratio' && unit === 'rows/s' ? found[metric] >= limit : found[metric] <= limit
}

/** `p95 <= 100 ms`, as it stands in the table. */
export function targetText({ metric, limit }: Target, unit: Unit | undefined): string {
  if (metric === 'ratio') return `ratio <= ${limit}`
  if (metric === 'recall') return `recall >= ${limit}`
  const sign = unit === 'rows/s' ? '>=' : '<='
  return `${metric} ${sign} ${limit.toLocaleString('en')}${unit === undefined ? '' : ` ${unit}`}`
}
