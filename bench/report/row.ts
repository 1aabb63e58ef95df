import { percentiles, type Percentiles, type Samples } from './statistics.ts'

export type Unit = 'us' | 'ms' | 'rows/s' | 'bytes'

/** A number that a row must reach: at most for times and ratios, at least for rates. */
export interface Target {
  readonly metric: keyof Percentiles | 'ratio'
  readonly limit: number
}

/** A ratio always names what it was measured against, in the same run. */
export interface Ratio {
  readonly value: number
  /** The same of processor time, where both ran in this process; steadier on a machine that is shared. */
  readonly cpu?: number
  readonly against: string
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
}

export function measuredRow(measurement: Measurement): MeasuredRow {
  const { name, unit, samples, ratio, targets, note = '' } = measurement
  const found = percentiles(samples, unit === 'rows/s')
  const met = targets.every((target) => isMet(target, { ...found, ratio: ratio.value }, unit))
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
  }
}

function isMet(
  { metric, limit }: Target,
  found: Percentiles & { readonly ratio: number },
  unit: Unit,
): boolean {
  return metric !== 'ratio' && unit === 'rows/s' ? found[metric] >= limit : found[metric] <= limit
}

/** `p95 <= 100 ms`, as it stands in the table. */
export function targetText({ metric, limit }: Target, unit: Unit | undefined): string {
  if (metric === 'ratio') return `ratio <= ${limit}`
  const sign = unit === 'rows/s' ? '>=' : '<='
  return `${metric} ${sign} ${limit.toLocaleString('en')}${unit === undefined ? '' : ` ${unit}`}`
}
