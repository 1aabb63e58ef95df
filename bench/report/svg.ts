import type { Point, Unit } from './row.ts'
import { formatNumber } from './table.ts'

/** A file to be written. */
export interface Picture {
  readonly file: string
  readonly svg: string
}

interface Dot {
  readonly x: number
  readonly y: number
  /** The upper end of its whisker. */
  readonly high: number
}

interface Series {
  readonly name: string
  readonly dots: readonly Dot[]
}

interface Axis {
  readonly label: string
  readonly ticks: readonly number[]
  /** From the value to 0 at the start of the axis and 1 at its end. */
  readonly at: (value: number) => number
  readonly text: (value: number) => string
}

/** A recall that counts as reached where one point of a curve stands for its contender. */
const RECALL = 0.99

const WIDTH = 860
const HEIGHT = 460
const PLOT = { left: 80, top: 56, right: 620, bottom: 396 } as const
const LEGEND = { left: 644, top: 76, line: 24 } as const

/** On white and on dark grey; colours and marks both tell contenders apart. */
const COLOURS = [
  ['#0060a8', '#6cb6ff'],
  ['#c2410c', '#ff9b50'],
  ['#00734d', '#3ddc97'],
  ['#a3286f', '#f590cf'],
  ['#6b5900', '#e3c341'],
  ['#4b3fb5', '#b3a7ff'],
  ['#44474f', '#c3c7cf'],
  ['#006d77', '#56d6e0'],
] as const
const MARKS = [
  'M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0z',
  'M-4.5 -4.5h9v9h-9z',
  'M0 -6l5.5 10h-11z',
  'M0 -6l6 6l-6 6l-6 -6z',
  'M0 6l5.5 -10h-11z',
  'M-6 -1.8h4.2v-4.2h3.6v4.2h4.2v3.6h-4.2v4.2h-3.6v-4.2h-4.2z',
  'M-6 -3h12v6h-12z',
  'M-3 -6h6v12h-6z',
] as const

const unitTexts: Readonly<Record<Unit, string>> = {
  us: 'microseconds',
  ms: 'milliseconds',
  'rows/s': 'vectors a second',
  bytes: 'bytes',
}

/** Every growth curve and every curve of recall that the points of one or several runs give. */
export function drawPictures(points: readonly Point[]): Picture[] {
  const names = [...new Set(points.map(({ contender }) => contender))]
  return [...growthPictures(points, names), ...recallPictures(points, names)]
}

/** A measure against the number of vectors, both logarithmic. A picture needs two sizes. */
function growthPictures(points: readonly Point[], names: readonly string[]): Picture[] {
  const groups = grouped(points, ({ measure, dimension }) => `${measure}-${dimension}`)
  return [...groups].flatMap(([key, group]) => {
    const [first] = group
    if (first === undefined || new Set(group.map(({ vectors }) => vectors)).size < 2) return []
    const { measure, dimension, unit } = first
    const series = seriesOf(group, names, (ofOne) =>
      [...grouped(ofOne, ({ vectors }) => vectors).values()]
        .map(chosen)
        .map(({ vectors, p50, p95 }) => ({ x: vectors, y: p50, high: p95 })),
    )
    const svg = draw({
      title: `${measure}, ${dimension} dimensions`,
      subtitle: `p50, whisker to p95; of a graph at the least ef with a recall of ${RECALL} at 10, or its best`,
      x: logarithmic(
        'vectors',
        spread(series, ({ x }) => [x]),
        count,
      ),
      y: logarithmic(
        unitTexts[unit],
        spread(series, ({ y, high }) => [y, high]),
        figure,
      ),
      series,
      names,
    })
    return [{ file: `vectors-${slug(key)}.svg`, svg }]
  })
}

/** What recall costs: points of one contender that differ in ef. */
function recallPictures(points: readonly Point[], names: readonly string[]): Picture[] {
  const curves = points.filter(({ ef, recall }) => ef !== undefined && recall !== undefined)
  const groups = grouped(curves, ({ vectors, dimension }) => `${vectors}-x-${dimension}`)
  return [...groups].flatMap(([key, group]) => {
    const [first] = group
    const series = seriesOf(group, names, (ofOne) =>
      frontier(ofOne).map(({ recall = 0, p50, p95 }) => ({ x: recall, y: p50, high: p95 })),
    ).filter(({ dots }) => dots.length > 1)
    if (first === undefined || series.length === 0) return []
    const { vectors, dimension, unit } = first
    const svg = draw({
      title: `recall against time, ${count(vectors)} vectors of ${dimension} dimensions`,
      subtitle: 'p50, whisker to p95; each mark is an ef that finds more than the one before',
      x: linear(
        'recall at 10',
        spread(series, ({ x }) => [x]),
      ),
      y: logarithmic(
        unitTexts[unit],
        spread(series, ({ y, high }) => [y, high]),
        figure,
      ),
      series,
      names,
    })
    return [{ file: `vectors-recall-${key}.svg`, svg }]
  })
}

/** In the order of ef, those that find more than all before: what a wider look does not improve is no choice. */
function frontier(points: readonly Point[]): Point[] {
  const kept: Point[] = []
  for (const point of points.toSorted((a, b) => (a.ef ?? 0) - (b.ef ?? 0)))
    if ((point.recall ?? 0) > (kept.at(-1)?.recall ?? -1)) kept.push(point)
  return kept
}

function seriesOf(
  points: readonly Point[],
  names: readonly string[],
  dotsOf: (ofOne: readonly Point[]) => Dot[],
): Series[] {
  return names
    .map((name) => ({
      name,
      dots: dotsOf(points.filter(({ contender }) => contender === name)).toSorted(
        (a, b) => a.x - b.x,
      ),
    }))
    .filter(({ dots }) => dots.length > 0)
}

/** Of a curve the point that reaches the recall with the least ef; else the one that finds most. */
function chosen(points: readonly Point[]): Point {
  const byEf = points.toSorted((a, b) => (a.ef ?? 0) - (b.ef ?? 0))
  const best = byEf.toSorted((a, b) => (b.recall ?? 1) - (a.recall ?? 1))[0]
  const found = byEf.find(({ recall = 1 }) => recall >= RECALL) ?? best
  if (found === undefined) throw new RangeError('no points')
  return found
}

const spread = (
  series: readonly Series[],
  values: (dot: Dot) => number[],
): readonly [number, number] => {
  const all = series.flatMap(({ dots }) => dots.flatMap(values))
  return [Math.min(...all), Math.max(...all)]
}

/** Whole decades, or steps of 1, 2 and 5 where there are few of them. */
function logarithmic(
  label: string,
  [low, high]: readonly [number, number],
  text: (value: number) => string,
): Axis {
  const [from, to] = [Math.log10(low) - 0.12, Math.log10(high) + 0.12]
  const decades = Array.from(
    { length: Math.ceil(to) - Math.floor(from) + 1 },
    (_, i) => 10 ** (Math.floor(from) + i),
  )
  const steps = to - from > 2.5 ? [1] : [1, 2, 5]
  const inside = (value: number): boolean => Math.log10(value) >= from && Math.log10(value) <= to
  const ticks = decades.flatMap((decade) => steps.map((step) => step * decade)).filter(inside)
  return { label, ticks, text, at: (value) => (Math.log10(value) - from) / (to - from) }
}

function linear(label: string, [low, high]: readonly [number, number]): Axis {
  const margin = Math.max((high - low) * 0.06, 0.001)
  const [from, to] = [low - margin, high + margin]
  const step = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2].find((one) => (to - from) / one <= 8)
  const width = step ?? 0.5
  const first = Math.ceil(from / width)
  const ticks = Array.from(
    { length: Math.floor(to / width) - first + 1 },
    (_, i) => (first + i) * width,
  )
  return {
    label,
    ticks,
    at: (value) => (value - from) / (to - from),
    text: (value) => String(Number(value.toFixed(3))),
  }
}

interface Drawing {
  readonly title: string
  readonly subtitle: string
  readonly x: Axis
  readonly y: Axis
  readonly series: readonly Series[]
  /** All contenders of all pictures: each has the same colour and mark in each. */
  readonly names: readonly string[]
}

function draw({ title, subtitle, x, y, series, names }: Drawing): string {
  const { left, top, right, bottom } = PLOT
  const px = (value: number): string => round(left + x.at(value) * (right - left))
  const py = (value: number): string => round(bottom - y.at(value) * (bottom - top))
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img" aria-label="${escape(title)}">`,
    style(),
    `<rect class="paper" width="${WIDTH}" height="${HEIGHT}"/>`,
    `<text class="title" x="${left}" y="26">${escape(title)}</text>`,
    `<text class="small" x="${left}" y="44">${escape(subtitle)}</text>`,
    ...x.ticks.flatMap((tick) => [
      `<path class="grid" d="M${px(tick)} ${top}V${bottom}"/>`,
      `<text class="tick" text-anchor="middle" x="${px(tick)}" y="${bottom + 18}">${x.text(tick)}</text>`,
    ]),
    ...y.ticks.flatMap((tick) => [
      `<path class="grid" d="M${left} ${py(tick)}H${right}"/>`,
      `<text class="tick" text-anchor="end" x="${left - 8}" y="${py(tick)}" dy="4">${y.text(tick)}</text>`,
    ]),
    `<path class="axis" d="M${left} ${top}V${bottom}H${right}"/>`,
    `<text class="label" text-anchor="middle" x="${(left + right) / 2}" y="${bottom + 42}">${escape(x.label)}</text>`,
    `<text class="label" text-anchor="middle" transform="translate(20 ${(top + bottom) / 2}) rotate(-90)">${escape(y.label)}</text>`,
    ...series.map(({ name, dots }) => {
      const at = names.indexOf(name) % COLOURS.length
      const line = dots.map((dot, i) => `${i === 0 ? 'M' : 'L'}${px(dot.x)} ${py(dot.y)}`)
      const whiskers = dots.map((dot) => `M${px(dot.x)} ${py(dot.y)}V${py(dot.high)}m-3 0h6`)
      return [
        `<g class="c${at}"><title>${escape(name)}</title>`,
        `<path class="whisker" d="${whiskers.join('')}"/>`,
        `<path class="line" d="${line.join('')}"/>`,
        ...dots.map(
          (dot) =>
            `<path class="mark" transform="translate(${px(dot.x)} ${py(dot.y)})" d="${MARKS[at]}"/>`,
        ),
        '</g>',
      ].join('\n')
    }),
    ...series.map(({ name }, i) => {
      const at = names.indexOf(name) % COLOURS.length
      const height = LEGEND.top + i * LEGEND.line
      return [
        `<g class="c${at}"><path class="line" d="M${LEGEND.left} ${height}h28"/>`,
        `<path class="mark" transform="translate(${LEGEND.left + 14} ${height})" d="${MARKS[at]}"/></g>`,
        `<text class="legend" x="${LEGEND.left + 38}" y="${height}" dy="4">${escape(name)}</text>`,
      ].join('')
    }),
    '</svg>',
    '',
  ].join('\n')
}

/**
 * Readable on white and on dark pages: the picture brings its own paper and follows the reader's scheme. Without custom
 * properties, which not every program that shows an SVG knows.
 */
function style(): string {
  const scheme = (which: 0 | 1, paper: string, ink: string, faint: string): string =>
    [
      `.paper{fill:${paper}}.mark{stroke:${paper}}text{fill:${ink}}.axis{stroke:${ink}}.grid{stroke:${faint}}`,
      ...COLOURS.map((pair, i) => `.c${i}{color:${pair[which]}}`),
    ].join('')
  return `<style>
text{font:13px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
.title{font-size:16px;font-weight:600}.small{font-size:11.5px}.tick{font-size:12px}
.grid,.axis{fill:none}.line{stroke:currentColor;stroke-width:2;fill:none}
.whisker{stroke:currentColor;opacity:.55;fill:none}.mark{fill:currentColor}
${scheme(0, '#ffffff', '#1f2328', '#d5d9de')}
@media (prefers-color-scheme:dark){${scheme(1, '#15181d', '#e6e8eb', '#363c44')}}
</style>`
}

function grouped<T, K>(all: readonly T[], keyOf: (one: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>()
  for (const one of all) {
    const key = keyOf(one)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [one])
    else group.push(one)
  }
  return groups
}

const count = (value: number): string => value.toLocaleString('en')

/** 12,000,000 as 12M. */
const figure = (value: number): string => {
  for (const [limit, letter] of [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const)
    if (value >= limit) return `${formatNumber(value / limit)}${letter}`
  return formatNumber(value)
}

const round = (value: number): string => String(Math.round(value * 10) / 10)

const slug = (text: string): string =>
  text
    .toLowerCase()
    .replaceAll(/[^a-z0-9.]+/g, '-')
    .replaceAll(/^-|-$/g, '')

const escape = (text: string): string =>
  text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
