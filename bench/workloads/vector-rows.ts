import { measuredRow, type BenchRow, type Point, type Target, type Unit } from '../report/row.ts'
import { percentiles } from '../report/statistics.ts'
import { ratioOf, type Timing } from '../support/measure.ts'

export interface VectorSize {
  readonly vectors: number
  readonly dimension: number
}

/** What one contender took for something. */
export interface Side {
  readonly name: string
  readonly timing: Timing
  readonly recall?: number | undefined
  readonly ef?: number | undefined
}

export interface Comparison {
  readonly measure: string
  readonly size: VectorSize
  readonly unit: Exclude<Unit, 'bytes'>
  readonly ours: Side
  readonly theirs: Side
  readonly targets: readonly Target[]
  readonly note?: string
  /** The other side did something else: it is no point of this measure. */
  readonly isAnotherMeasure?: boolean
  /** Beside those of the two sides. */
  readonly points?: readonly Point[]
}

export const sizeText = ({ vectors, dimension }: VectorSize): string => `${vectors} x ${dimension}`

export const rowName = (
  { measure, size }: Pick<Comparison, 'measure' | 'size'>,
  ours: string,
  theirs: string,
): string => `${ours}, ${measure}, ${sizeText(size)}, against ${theirs}`

/** One thing that two contenders did in the same run, with what pictures need of both. */
export function comparedRow(comparison: Comparison): BenchRow {
  const { size, unit, ours, theirs, targets, note = '', isAnotherMeasure, points = [] } = comparison
  const samples = inUnit(ours.timing, unit, size)
  const { p50 } = percentiles(inUnit(theirs.timing, unit, size), unit === 'rows/s')
  const recall = theirs.recall === undefined ? '' : `, recall ${theirs.recall.toFixed(4)}`
  const against = `${theirs.name} (p50 ${Number(p50.toPrecision(3))} ${unit}${recall}${efText(theirs)})`
  return measuredRow({
    name: rowName(comparison, ours.name, theirs.name),
    unit,
    samples,
    ratio: ratioOf(ours.timing, theirs.timing, against),
    targets,
    note: [efText(ours).replace(', ', ''), note].filter((part) => part !== '').join('; '),
    ...(ours.recall === undefined ? {} : { recall: ours.recall }),
    points: [
      pointOf(comparison, ours),
      ...(isAnotherMeasure === true ? [] : [pointOf(comparison, theirs)]),
      ...points,
    ],
  })
}

const efText = ({ ef }: Side): string => (ef === undefined ? '' : `, ef ${ef}`)

export function pointOf(
  { measure, size, unit }: Pick<Comparison, 'measure' | 'size' | 'unit'>,
  { name, timing, recall, ef }: Side,
): Point {
  const { p50, p95 } = percentiles(inUnit(timing, unit, size), unit === 'rows/s')
  return {
    measure,
    unit,
    contender: name,
    ...size,
    p50,
    p95,
    ...(recall === undefined ? {} : { recall }),
    ...(ef === undefined ? {} : { ef }),
  }
}

/** Of bytes, which are not timed. */
export function memoryRow(
  { measure, size }: Pick<Comparison, 'measure' | 'size'>,
  ours: { readonly name: string; readonly bytes: number },
  theirs: { readonly name: string; readonly bytes: number },
  limit: number,
  note: string,
): BenchRow {
  const point = ({ name, bytes }: typeof ours): Point => ({
    measure,
    unit: 'bytes',
    contender: name,
    ...size,
    p50: bytes,
    p95: bytes,
  })
  const name = rowName({ measure, size }, ours.name, theirs.name)
  const targets: readonly Target[] = [{ metric: 'ratio', limit }]
  // What the process is given for one may have been freed by another before.
  const untold = [ours, theirs].find(({ bytes }) => bytes <= 0)
  if (untold !== undefined)
    return { kind: 'skipped', name, targets, reason: `the process did not grow for ${untold.name}` }
  return measuredRow({
    name,
    unit: 'bytes',
    samples: [ours.bytes],
    ratio: {
      value: ours.bytes / theirs.bytes,
      against: `${theirs.name} (${(theirs.bytes / 1e6).toFixed(1)} MB)`,
    },
    targets,
    note,
    points: [point(ours), point(theirs)],
  })
}

/** A build is one call that puts all vectors in. */
function inUnit({ ms }: Timing, unit: Comparison['unit'], { vectors }: VectorSize): number[] {
  if (unit === 'us') return ms.map((each) => each * 1000)
  return unit === 'ms' ? ms : ms.map((each) => vectors / (each / 1000))
}
