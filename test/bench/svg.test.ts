import { describe, expect, test } from 'vitest'
import type { Point } from '../../bench/report/row.ts'
import { drawPictures } from '../../bench/report/svg.ts'

const point = (contender: string, vectors: number, more: Partial<Point> = {}): Point => ({
  measure: 'query',
  unit: 'us',
  contender,
  vectors,
  dimension: 384,
  p50: vectors / 100,
  p95: vectors / 50,
  ...more,
})

const sizes = [10_000, 100_000, 1_000_000]
const points: Point[] = [
  ...sizes.map((vectors) => point('a <scan> & "more"', vectors)),
  ...sizes.flatMap((vectors) => [
    point('graph', vectors, { ef: 64, recall: 0.995, p50: 200 }),
    point('graph', vectors, { ef: 16, recall: 0.9, p50: 100 }),
    point('graph', vectors, { ef: 128, recall: 0.995, p50: 400 }),
    point('graph', vectors, { ef: 256, recall: 1, p50: 800 }),
  ]),
  point('memory alone', 10_000, { measure: 'memory', unit: 'bytes' }),
]

/** Every tag that is opened is closed, in order, and no text holds what would be a tag. */
function isWellFormed(svg: string): boolean {
  const open: string[] = []
  const withoutTags = svg.replaceAll(
    /<(\/?)([a-zA-Z]+)((?:\s+[\w:-]+="[^"<>]*")*)\s*(\/?)>/g,
    (_tag, slash: string, name: string, _attributes, empty: string) => {
      if (slash === '' && empty === '') open.push(name)
      else if (slash !== '' && open.pop() !== name) open.push('not closed in order')
      return ''
    },
  )
  const entities = withoutTags.replaceAll(/&(?:amp|lt|gt|quot);/g, '')
  return open.length === 0 && !/[<>&]/.test(entities)
}

const marks = (svg: string): number => svg.match(/class="mark"/g)?.length ?? 0

describe('pictures of the vector benches', () => {
  const pictures = drawPictures(points)

  test('one for each measure with several sizes, and one of recall for each size', () => {
    expect(pictures.map(({ file }) => file)).toEqual([
      'vectors-query-384.svg',
      ...sizes.map((size) => `vectors-recall-${size}-x-384.svg`),
    ])
  })

  test.each(pictures)('$file is well-formed and says what it shows', ({ svg }) => {
    expect(isWellFormed(svg)).toBe(true)
    expect(svg).not.toMatch(/NaN|undefined|Infinity/)
    expect(svg).toContain('prefers-color-scheme:dark')
    expect(svg).toContain('>microseconds</text>')
    expect(svg).toMatch(/>(vectors|recall at 10)<\/text>/)
    expect(svg).toContain('graph</text>')
  })

  test('a growth curve has every contender, at the ef that reaches the recall', () => {
    const [growth] = pictures
    expect(growth?.svg).toContain('a &lt;scan&gt; &amp; &quot;more&quot;</text>')
    // Three sizes of two contenders, and the legend.
    expect(marks(growth?.svg ?? '')).toBe(3 * 2 + 2)
    const flat = /<path class="line" d="M[\d.]+ ([\d.]+)L[\d.]+ \1L[\d.]+ \1"\/>/
    expect(growth?.svg).toMatch(flat)
  })

  test('a curve of recall leaves out what looks wider and finds no more', () => {
    expect(marks(pictures[1]?.svg ?? '')).toBe(3 + 1)
  })

  test('without points there is nothing to draw', () => {
    expect(drawPictures([])).toEqual([])
    expect(drawPictures([point('alone', 10_000)])).toEqual([])
  })
})
