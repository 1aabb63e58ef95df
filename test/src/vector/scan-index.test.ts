import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AgentDBError } from '../../../schema/errors.ts'
import { LEVELS, measure, quantize, stepsOf } from '../../../src/vector/codes.ts'
import { JavaScriptKernels, newKernels, type Kernels } from '../../../src/vector/kernels.ts'
import type { Neighbour } from '../../../src/vector/neighbour.ts'
import { ScanIndex, type ScanIndexOptions } from '../../../src/vector/scan-index.ts'

/** The slow and obvious way, in double precision. */
function exactly(
  vectors: ReadonlyMap<string, Float32Array>,
  query: Float32Array,
  among: readonly string[] = [...vectors.keys()],
): Neighbour[] {
  const dot = (a: Float32Array, b: Float32Array): number =>
    a.reduce((sum, component, i) => sum + component * (b[i] ?? 0), 0)
  const cosine = (vector: Float32Array): number => {
    const length = Math.sqrt(dot(vector, vector)) * Math.sqrt(dot(query, query))
    return length === 0 ? 0 : dot(vector, query) / length
  }
  return [...new Set(among)]
    .flatMap((id) => {
      const vector = vectors.get(id)
      return vector === undefined ? [] : [{ id, score: cosine(vector) }]
    })
    .toSorted((a, b) => b.score - a.score)
}

/**
 * What keeps `found` from being the `k` best of all; undefined where nothing does. Scores closer than rounding in double
 * precision may change places.
 */
function fault(
  found: readonly Neighbour[],
  vectors: ReadonlyMap<string, Float32Array>,
  query: Float32Array,
  k: number,
  among?: readonly string[],
): string | undefined {
  const all = exactly(vectors, query, among)
  const scores = new Map(all.map(({ id, score }) => [id, score]))
  const isNear = (a: number, b: number | undefined): boolean =>
    Math.abs(a - (b ?? Number.NaN)) < 1e-10
  if (found.length !== Math.min(k, all.length)) return `${found.length} found`
  if (new Set(found.map(({ id }) => id)).size < found.length) return 'one is found twice'
  for (const [i, { id, score }] of found.entries()) {
    if (!isNear(score, scores.get(id))) return `${id} has score ${score}, not ${scores.get(id)}`
    if (!isNear(score, all[i]?.score)) return `${id} (${score}) is at ${i}, not ${all[i]?.id}`
  }
  return undefined
}

const javaScript = (): Kernels => new JavaScriptKernels()

const engines: [string, () => Kernels][] = [
  ['WebAssembly', newKernels],
  ['JavaScript', javaScript],
]

test('this machine has WebAssembly with SIMD, so that both engines are tested', () => {
  expect(newKernels().kind).toBe('wasm-simd')
})

interface Model {
  readonly index: ScanIndex
  readonly vectors: Map<string, Float32Array>
}

function modelOf(dimension: number, options: ScanIndexOptions): Model {
  const vectors = new Map<string, Float32Array>()
  const fetch = (id: string): Float32Array | undefined => vectors.get(id)
  return { vectors, index: new ScanIndex(dimension, { ...options, fetch }) }
}

const name = fc.integer({ min: 0, max: 40 }).map((n) => `id-${n}`)

/** Few levels, so that equal scores come up; lengths from the smallest float to the largest. */
const someVector = (dimension: number): fc.Arbitrary<Float32Array> =>
  fc
    .record({
      components: fc.array(fc.integer({ min: -3, max: 3 }), {
        minLength: dimension,
        maxLength: dimension,
      }),
      length: fc.constantFrom(1, 1e-44, 1e30, 0.1),
      noise: fc.constantFrom(0, 1e-7, 1e-4),
    })
    .map(({ components, length, noise }) =>
      Float32Array.from(components, (component, i) => (component + noise * (i % 3)) * length),
    )

type Step =
  | { readonly set: string; readonly vector: Float32Array }
  | { readonly delete: string }
  | { readonly query: Float32Array; readonly k: number; readonly among?: readonly string[] }

const someStep = (dimension: number): fc.Arbitrary<Step> => {
  const vector = someVector(dimension)
  const k = fc.integer({ min: 1, max: 50 })
  return fc.oneof(
    { weight: 5, arbitrary: fc.record({ set: name, vector }) },
    { weight: 2, arbitrary: fc.record({ delete: name }) },
    { weight: 1, arbitrary: fc.record({ query: vector, k }) },
    { weight: 1, arbitrary: fc.record({ query: vector, k, among: fc.array(name) }) },
  )
}

/** What is wrong after a step; undefined where nothing is. */
function faultOf({ index, vectors }: Model, step: Step): string | undefined {
  if ('set' in step) {
    vectors.set(step.set, step.vector)
    index.set(step.set, step.vector)
  } else if ('delete' in step) {
    const was = vectors.delete(step.delete)
    if (index.delete(step.delete) !== was) return `delete of ${step.delete}: it was there: ${was}`
  } else {
    const { query, k, among } = step
    const isAmong = (id: string): boolean => among?.includes(id) !== false
    const tested = index.search(query, k, isAmong)
    const { neighbours: forewarned } = index.scan(query, k, isAmong, among)
    return (
      fault(index.search(query, k, among), vectors, query, k, among) ??
      fault(tested, vectors, query, k, among) ??
      fault(forewarned, vectors, query, k, among)
    )
  }
  return index.size === vectors.size ? undefined : `size is ${index.size}, not ${vectors.size}`
}

describe.each(engines)('a scan in %s', (_, kernels) => {
  test.each([
    ['all originals kept', Number.POSITIVE_INFINITY],
    ['originals fetched from the start', 0],
    ['originals fetched once there are many', 200],
  ])('agrees with a scan in double precision after any operations, %s', (__, bytes) => {
    fc.assert(
      fc.property(
        fc.constantFrom(1, 3, 16, 19).chain((dimension) =>
          fc.record({
            dimension: fc.constant(dimension),
            steps: fc.array(someStep(dimension), { maxLength: 120 }),
          }),
        ),
        ({ dimension, steps }) => {
          const model = modelOf(dimension, { kernels, originalBytesMax: bytes })
          for (const step of steps) expect(faultOf(model, step)).toBeUndefined()
        },
      ),
      { numRuns: 60 },
    )
  })

  test('in pieces finds what is there at its end, whatever came, went and changed between two of them', () => {
    const query = someVector(3)
    const change = fc.oneof(
      { weight: 3, arbitrary: fc.record({ set: name, vector: query }) },
      { weight: 2, arbitrary: fc.record({ delete: name }) },
    )
    fc.assert(
      fc.property(
        fc.record({
          first: fc.array(fc.record({ set: name, vector: query }), {
            minLength: 10,
            maxLength: 60,
          }),
          pieces: fc.array(fc.array(change, { maxLength: 6 }), { maxLength: 8 }),
          query,
          k: fc.integer({ min: 1, max: 8 }),
          among: fc.option(fc.array(name)),
        }),
        ({ first, pieces, query: asked, k, among }) => {
          const model = modelOf(3, { kernels, pieceBytes: 5 * 16 })
          for (const step of first) faultOf(model, step)
          const { index, vectors } = model
          const isAmong = (id: string): boolean => among?.includes(id) !== false
          using sweep = index.sweep(asked, k, isAmong, among ?? [])
          for (const steps of pieces) {
            sweep.next()
            for (const step of steps) faultOf(model, step)
          }
          const { neighbours } = sweep.finish()
          expect(fault(neighbours, vectors, asked, k, among ?? undefined)).toBeUndefined()
        },
      ),
      { numRuns: 300 },
    )
  })

  test('tells vectors apart that have the same codes', () => {
    const { index, vectors } = modelOf(64, { kernels })
    for (let i = 0; i < 500; i++) {
      const vector = new Float32Array(64).fill(1)
      // Far below a 127th of the largest component.
      vector[i % 64] = 1 + (i + 1) * 1e-5
      vectors.set(`${i}`, vector)
      index.set(`${i}`, vector)
    }
    const query = new Float32Array(64).fill(1)
    query[5] = 1.5
    expect(fault(index.search(query, 7), vectors, query, 7)).toBeUndefined()
  })

  test('is right beyond one block and one page of memory, also after half of it is deleted', () => {
    const { index, vectors } = modelOf(20, { kernels })
    let state = 1
    const component = (): number => {
      state = (state * 48_271) % 2_147_483_647
      return state / 2_147_483_647 - 0.5
    }
    const next = (): Float32Array => Float32Array.from({ length: 20 }, component)
    for (let i = 0; i < 9001; i++) {
      const vector = next()
      vectors.set(`${i}`, vector)
      index.set(`${i}`, vector)
    }
    for (let i = 0; i < 9001; i += 2) {
      vectors.delete(`${i}`)
      index.delete(`${i}`)
    }
    const picked = [...vectors.keys()].filter((id) => Number(id) % 3 === 0)
    for (let i = 0; i < 5; i++) {
      const query = next()
      expect(fault(index.search(query, 30), vectors, query, 30)).toBeUndefined()
      expect(fault(index.search(query, 30, picked), vectors, query, 30, picked)).toBeUndefined()
      const third = (id: string): boolean => Number(id) % 3 === 0
      expect(fault(index.search(query, 30, third), vectors, query, 30, picked)).toBeUndefined()
    }
  })

  test.each([600, 65_535])('keeps its sums within 32 bits at %d dimensions', (dimension) => {
    const index = new ScanIndex(dimension, { kernels })
    index.set('up', new Float32Array(dimension).fill(3e38))
    index.set('down', new Float32Array(dimension).fill(-3e38))
    for (const [sign, id] of [
      [1, 'up'],
      [-1, 'down'],
    ] as const) {
      const query = new Float32Array(dimension).fill(sign * 1e-38)
      expect(index.search(query, 1)).toEqual([{ id, score: expect.closeTo(1, 9) }])
    }
  })

  test('knows the error of a vector that took the place of a deleted one', () => {
    const dimension = 8
    const query = new Float32Array(dimension).fill(1)
    let seed = 1
    const next = (): Float32Array =>
      Float32Array.from({ length: dimension }, () => {
        seed = (seed * 48_271) % 2_147_483_647
        return 1 + 0.01 * (seed / 2_147_483_647)
      })
    const cosines = (vector: Float32Array): { byCodes: number; exact: number } => {
      const codes = new Int8Array(dimension)
      const measured = measure(vector)
      const steps = stepsOf(measured, LEVELS)
      quantize(vector, codes, steps)
      const sum = (numbers: Iterable<number>): number => [...numbers].reduce((a, b) => a + b, 0)
      const length = Math.sqrt(dimension)
      return {
        byCodes: (steps.scale * sum(codes)) / length,
        exact: sum(vector) / (Math.sqrt(measured.squares) * length),
      }
    }
    for (let found = 0; found < 20;) {
      const [second, best] = [next(), next()]
      // Without its error the best would be given up once the second is compared.
      if (cosines(best).byCodes >= cosines(second).exact) continue
      if (cosines(second).exact >= cosines(best).exact - 1e-9) continue
      found += 1
      const index = new ScanIndex(dimension, { kernels })
      index.set('without error', new Float32Array(dimension).fill(-1))
      index.set('second', second)
      index.set('best', best)
      index.delete('without error')
      expect(index.search(query, 1).map(({ id }) => id)).toEqual(['best'])
    }
  })

  test('asks its test of few, wherever those lie that pass it', () => {
    const { index } = modelOf(48, { kernels })
    for (let i = 0; i < 3000; i++)
      index.set(
        `${i}`,
        Float32Array.from({ length: 48 }, (_unused, j) => Math.sin(i * 7 + j * j)),
      )
    const last = Array.from({ length: 300 }, (_unused, i) => `${2700 + i}`)
    const passes = new Set(last)
    let asked = 0
    const isLast = (id: string): boolean => {
      asked += 1
      return passes.has(id)
    }
    const query = Float32Array.from({ length: 48 }, (_unused, j) => Math.cos(j))
    const { neighbours } = index.scan(query, 10, isLast, last)
    expect(neighbours).toEqual(index.search(query, 10, last))
    expect(asked).toBeLessThan(1000)
  })

  test('compares few originals of many vectors', () => {
    const { index } = modelOf(48, { kernels })
    for (let i = 0; i < 3000; i++)
      index.set(
        `${i}`,
        Float32Array.from({ length: 48 }, (_unused, j) => Math.sin(i * 7 + j * j)),
      )
    const query = Float32Array.from({ length: 48 }, (_unused, j) => Math.cos(j))
    const { scanned, rescored } = index.scan(query, 10)
    expect(scanned).toBe(3000)
    expect(rescored).toBeGreaterThanOrEqual(10)
    expect(rescored).toBeLessThan(300)
  })
})

test('both engines make the same codes of a vector, and agree on what they leave', () => {
  const length = 24
  fc.assert(
    fc.property(
      fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), {
        minLength: length,
        maxLength: length,
      }),
      (components) => {
        const [ours, theirs] = engines.map(([, kernels]) => {
          const memory = kernels()
          new Float32Array(memory.buffer, 0, length).set(components)
          const measured = memory.measure(0, length, 256)
          if (measured.squares === 0) return { measured }
          const steps = stepsOf(measure(Float32Array.from(components)), LEVELS)
          const rests = memory.encode(0, length, 512, steps)
          return { measured, rests, codes: [...new Int8Array(memory.buffer, 512, length)] }
        })
        expect(ours?.measured.largest).toBe(theirs?.measured.largest)
        const near = (a = 0, b = 0): boolean => Math.abs(a - b) <= 1e-12 * Math.abs(b)
        expect(near(ours?.measured.squares, theirs?.measured.squares)).toBe(true)
        expect(near(ours?.rests, theirs?.rests)).toBe(true)
        expect(ours?.codes).toEqual(theirs?.codes)
      },
    ),
    { numRuns: 500 },
  )
})

test.each([Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])(
  'both engines measure a vector with %d as one that is not finite, wherever it is',
  (bad) => {
    for (const [, kernels] of engines)
      for (let at = 0; at < 8; at++) {
        const memory = kernels()
        new Float32Array(memory.buffer, 0, 8).fill(1)[at] = bad
        expect(Number.isFinite(memory.measure(0, 8, 256).squares)).toBe(false)
      }
  },
)

describe('a scan', () => {
  test('of nothing, of ids that are not there and with k beyond all gives what there is', () => {
    const index = new ScanIndex(2)
    const query = Float32Array.of(1, 0)
    expect(index.search(query, 3)).toEqual([])
    index.set('a', query)
    expect(index.search(query, 1000)).toEqual([{ id: 'a', score: 1 }])
    expect(index.search(query, 3, ['b', 'a', 'a'])).toEqual([{ id: 'a', score: 1 }])
    expect(index.search(query, 3, [])).toEqual([])
  })

  test('of copies gives those with the lowest ids', () => {
    const index = new ScanIndex(3)
    const names = ['d', 'b', 'e', 'a', 'c']
    for (const id of names) index.set(id, Float32Array.of(0.3, -0.7, 0.1))
    const query = Float32Array.of(0.1, 0.2, 0.9)
    expect(index.search(query, 3).map(({ id }) => id)).toEqual(['a', 'b', 'c'])
    index.delete('b')
    expect(index.search(query, 2, names).map(({ id }) => id)).toEqual(['a', 'c'])
  })

  test('scores a vector without direction 0, and everything for a query without one', () => {
    const index = new ScanIndex(2)
    index.set('none', Float32Array.of(0, -0))
    index.set('near', Float32Array.of(1, 1))
    index.set('far', Float32Array.of(-1, 0))
    expect(index.search(Float32Array.of(2, 0), 3).map(({ id }) => id)).toEqual([
      'near',
      'none',
      'far',
    ])
    expect(index.search(new Float32Array(2), 2)).toEqual([
      { id: 'far', score: 0 },
      { id: 'near', score: 0 },
    ])
  })

  test.each([
    ['NaN', Float32Array.of(1, Number.NaN)],
    ['an infinity', Float32Array.of(Number.NEGATIVE_INFINITY, 1)],
    ['another dimension', Float32Array.of(1, 2, 3)],
    ['nothing', new Float32Array(0)],
  ])('refuses %s and is as before', (_, bad) => {
    const index = new ScanIndex(2)
    const good = Float32Array.of(1, 0)
    index.set('a', good)
    for (const attempt of [
      () => index.set('a', bad),
      () => index.set('b', bad),
      () => index.search(bad, 1),
    ]) {
      expect(attempt).toThrow(
        expect.objectContaining({ code: 'INVALID_VALUE', constructor: AgentDBError }),
      )
    }
    expect(index.search(good, 5)).toEqual([{ id: 'a', score: 1 }])
  })

  test.each([0, -1, 1.5, Number.NaN])('refuses k = %d', (k) => {
    const index = new ScanIndex(1)
    expect(() => index.search(Float32Array.of(1), k)).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION' }),
    )
  })

  test.each([0, 1.5, 65_536, -3])('refuses %d dimensions', (dimension) => {
    expect(() => new ScanIndex(dimension)).toThrow(
      expect.objectContaining({ code: 'INVALID_OPTION' }),
    )
  })

  test('beyond its limit keeps no originals, asks for those in question only, and leaves out what is gone', () => {
    const asked: string[] = []
    const originals = new Map([
      ['a', Float32Array.of(1, 0)],
      ['b', Float32Array.of(0, 1)],
      ['c', Float32Array.of(-1, 0)],
    ])
    const index = new ScanIndex(2, {
      originalBytesMax: 40,
      fetch: (id) => {
        asked.push(id)
        return originals.get(id)
      },
    })
    for (const [id, vector] of originals) index.set(id, vector)
    expect(index.keepsOriginals).toBe(false)
    const query = Float32Array.of(1, 0)
    expect(index.search(query, 1)).toEqual([{ id: 'a', score: 1 }])
    expect(asked).toEqual(['a'])
    originals.delete('a')
    expect(index.search(query, 3).map(({ id }) => id)).toEqual(['b', 'c'])
  })

  test('that memory has no room for is refused with a code', () => {
    expect(() => newKernels().ensure(5 * 1024 ** 3)).toThrow(
      expect.objectContaining({ code: 'INDEX_FULL' }),
    )
  })
})
