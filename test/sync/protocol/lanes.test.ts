import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Stored } from '../../../schema/codec.ts'
import {
  TIMESTAMP_MAX,
  TIMESTAMP_MIN,
  timestampOfMicros,
} from '../../../schema/values/timestamp.ts'
import { Allowance } from '../../../sync/protocol/fault.ts'
import { laneKinds, packLane, REPEATED_TEXT_MAX, type Lane } from '../../../sync/protocol/lanes.ts'
import { decodeMsgpack, encodeMsgpack } from '../../../sync/protocol/msgpack.ts'
import { unpackLane } from '../../../sync/protocol/unpack-lane.ts'

const roomy = (): Allowance => new Allowance(1e9, 1e9)

/** The lane as the other side reads it. */
const sent = (lane: Lane): unknown => decodeMsgpack(encodeMsgpack(lane))

const overTheWire = (values: readonly Stored[]): readonly Stored[] =>
  unpackLane(sent(packLane(values)), values.length, 'lane', roomy())

/** Bytes come back as views; compared by what they hold. */
const comparable = (values: readonly Stored[]): unknown[] =>
  values.map((value) => (value instanceof Uint8Array ? [...value] : value))

const kindOf = (values: readonly Stored[]): string | undefined => {
  const lane = packLane(values)
  return Array.isArray(lane) ? 'array' : laneKinds.find((kind) => kind in lane)
}

const texts = fc.oneof(fc.string({ unit: 'grapheme', maxLength: 80 }), fc.constant('\uFEFFbom'))
const ids = fc.uuid()
const times = fc
  .integer({ min: -62_135_596_800, max: 253_402_300_799 })
  .chain((seconds) =>
    fc
      .integer({ min: 0, max: 999_999 })
      .map(
        (micros) =>
          `${timestampOfMicros(seconds * 1_000_000).slice(0, 20)}${String(micros).padStart(6, '0')}Z`,
      ),
  )
const numbers = fc.oneof(
  fc.maxSafeInteger().map((value) => value + 0),
  fc.integer({ min: 0, max: 3 }),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((value) => value + 0),
)
const vectors = fc
  .tuple(fc.integer({ min: 1, max: 5 }), fc.boolean())
  .map(([dimension, isHalf]) => ({ dimension, isHalf }))

const bytesOf = (floats: readonly number[]): Uint8Array => {
  const view = new DataView(new ArrayBuffer(floats.length * 4))
  for (const [i, float] of floats.entries()) view.setFloat32(i * 4, float, true)
  return new Uint8Array(view.buffer)
}

const columns: readonly (readonly [string, fc.Arbitrary<Stored>])[] = [
  ['texts', texts],
  ['few texts', fc.constantFrom('user', 'assistant', 'x'.repeat(REPEATED_TEXT_MAX), '😀')],
  ['long texts', fc.string({ minLength: 60, maxLength: 400 })],
  ['ids', ids],
  [
    'ids and what looks like some',
    fc.oneof(
      ids,
      ids.map((id) => id.toUpperCase()),
      ids.map((id) => id.replace('-', '0')),
    ),
  ],
  ['digits', fc.stringMatching(/^[0-9a-f]{32}$/)],
  ['times', times],
  [
    'times and what looks like some',
    fc.oneof(
      times,
      fc.constantFrom(
        '2026-02-30T00:00:00.000000Z',
        '0000-01-01T00:00:00.000000Z',
        '2026-01-01T24:00:00.000000Z',
        TIMESTAMP_MAX,
        TIMESTAMP_MIN,
        'x'.repeat(27),
      ),
    ),
  ],
  ['numbers', numbers],
  ['few numbers', fc.constantFrom(1, 2.5, -3)],
  ['bytes', fc.uint8Array({ maxLength: 12 })],
  ['anything', fc.oneof(texts, numbers, fc.uint8Array({ maxLength: 8 }), ids)],
]

describe('a lane comes back as it was packed', () => {
  test.each(columns)('%s, with and without nulls', (_name, value) => {
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof({ arbitrary: value, weight: 8 }, { arbitrary: fc.constant(null), weight: 1 }),
          { maxLength: 80 },
        ),
        fc.array(value, { maxLength: 80 }),
        (some, all) => {
          for (const values of [some, all])
            expect(comparable(overTheWire(values))).toEqual(comparable(values))
        },
      ),
      { numRuns: 150 },
    )
  })

  test('vectors of 32 bits, to the last bit, and of 16 where those say the same', () => {
    fc.assert(
      fc.property(
        vectors,
        fc.array(
          fc.option(
            fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), {
              minLength: 5,
              maxLength: 5,
            }),
          ),
          { minLength: 4, maxLength: 12 },
        ),
        ({ dimension, isHalf }, rows) => {
          const values = rows.map((row) =>
            row === null
              ? null
              : bytesOf(
                  row.slice(0, dimension).map((float) => (isHalf ? roundToHalf(float) : float)),
                ),
          )
          expect(comparable(overTheWire(values))).toEqual(comparable(values))
          const mayBe =
            isHalf && values.some((value) => value !== null) ? ['f16'] : ['f16', 'f32', 'all']
          expect(mayBe).toContain(kindOf(values))
        },
      ),
    )
  })

  test('every moment that a number counts', () => {
    const ends = [2 ** 53 - 1, 1 - 2 ** 53, 0, -1]
    expect(unpackLane({ time: ends }, 4, 'lane', roomy())).toEqual([
      '2255-06-05T23:47:34.740991Z',
      '1684-07-28T00:12:25.259009Z',
      '1970-01-01T00:00:00.000000Z',
      '1969-12-31T23:59:59.999999Z',
    ])
  })

  test('more values than an index of a byte tells apart', () => {
    const values = Array.from({ length: 3000 }, (_, i) => `value ${i % 3 === 0 ? i % 2100 : 0}`)
    expect(kindOf(values)).toBe('dict')
    expect(overTheWire(values)).toEqual(values)
  })
})

/** Every 16-bit float by its bits; an independent reading of IEEE 754. */
const halves = Array.from({ length: 0x10000 }, (_, bits) => bits)
  .filter((bits) => ((bits >> 10) & 31) !== 31)
  .map((bits) => {
    const [sign, exponent, fraction] = [bits >> 15 === 1 ? -1 : 1, (bits >> 10) & 31, bits & 1023]
    return exponent === 0
      ? sign * fraction * 2 ** -24
      : sign * (1024 + fraction) * 2 ** (exponent - 25)
  })

function roundToHalf(float: number): number {
  return halves[Math.abs(Math.trunc(float * 1000)) % halves.length] ?? 0
}

test('every 16-bit float survives a lane of them; its neighbours of 32 bits make none', () => {
  const values = Array.from({ length: 31 }, (_, row) =>
    bytesOf(halves.slice(row * 2048, (row + 1) * 2048)),
  )
  expect(kindOf(values)).toBe('f16')
  expect(comparable(overTheWire(values))).toEqual(comparable(values))
  for (const half of halves.filter((value) => value !== 0)) {
    const bytes = bytesOf([half])
    bytes[0] = 1
    expect(kindOf(Array.from({ length: 4 }, () => bytes))).toBe('f32')
  }
})

test.each([
  ['all', ['user', 'user', 'user', 'user']],
  ['all', [null, null, null, null]],
  ['dict', Array.from({ length: 40 }, (_, i) => ['low', 'high', null][i % 3] ?? null)],
  ['steps', [5e9, 5e9 + 1, 5e9 + 2, 5e9 + 9]],
  ['array', [1, 900_000, 3, -500_000]],
  ['uuid', Array.from({ length: 4 }, (_, i) => `019aa3c1-7b1e-7c2a-9f53-2d1c8e0b4a7${i}`)],
  ['hex', Array.from({ length: 4 }, (_, i) => `019aa3c17b1e7c2a9f532d1c8e0b4a7${i}`)],
  ['time', Array.from({ length: 4 }, (_, i) => `2026-11-20T09:30:00.12345${i}Z`)],
  ['text', ['one', 'two', 'three', 'four']],
  ['f32', Array.from({ length: 4 }, () => bytesOf([0.1, 0.2]))],
  ['f16', Array.from({ length: 4 }, () => bytesOf([0.5, 1]))],
  ['array', [bytesOf([0.5]), bytesOf([0.5, 1]), bytesOf([0.5]), bytesOf([0.5])]],
  ['array', ['few', 'rows']],
] as const)('a column takes the lane %s', (kind, values) => {
  expect(kindOf(values as readonly Stored[])).toBe(kind)
})

const bytes = (...values: number[]): Uint8Array => Uint8Array.from(values)

test.each<[place: string, lane: unknown]>([
  ['lane: has 3 values for 4 rows', [1, 2, 3]],
  ['lane.2: is no text', [1, 2, true, 4]],
  ['lane.1: is no text', [1, Number.NaN, 3, 4]],
  ['lane.1: is no text', [1, [], 3, 4]],
  ['lane: is no lane', null],
  ['lane: is no lane', 7],
  ['lane: is no lane', bytes(1)],
  ['lane: is no lane we know', { zip: 1 }],
  ['lane.all: is no text', { all: {} }],
  ['lane.all: has 65 characters', { all: 'x'.repeat(65) }],
  ['lane.size: must be', { dict: ['a'], size: 0, index: bytes(0, 0, 0, 0) }],
  ['lane.size: must be', { dict: ['a'], size: 4e9, index: bytes(0, 0, 0, 0) }],
  ['lane.dict: has 1 values for 2 rows', { dict: ['a'], size: 2, index: bytes(0, 0, 0, 0) }],
  ['lane.dict: repeats itself', { dict: { all: 'a' }, size: 1, index: bytes(0, 0, 0, 0) }],
  ['lane.dict.0: has 65 characters', { dict: ['x'.repeat(65)], size: 1, index: bytes(0, 0, 0, 0) }],
  ['lane.index: has 3 bytes, not 4', { dict: ['a'], size: 1, index: bytes(0, 0, 0) }],
  ['lane.index.3: is beyond the 1 entries', { dict: ['a'], size: 1, index: bytes(0, 0, 0, 1) }],
  ['lane.steps: has 3 values', { from: 1, steps: [0, 1, 1] }],
  ['lane.from: is no integer', { from: 0.5, steps: [0, 1, 1, 1] }],
  ['lane.steps.1: is no integer', { from: 1, steps: [0, 'x', 1, 1] }],
  ['lane.steps.2: leads too far', { from: 1, steps: [0, 0, 2 ** 53 - 1, 1] }],
  ['lane.uuid: has 16 bytes, not 64', { uuid: new Uint8Array(16) }],
  ['lane.nulls: has 2 bytes, not 1', { uuid: new Uint8Array(64), nulls: bytes(0, 0) }],
  ['lane.nulls: has bits beyond 4 rows', { uuid: new Uint8Array(64), nulls: bytes(16) }],
  ['lane.hex: is not bytes', { hex: 'abc' }],
  ['lane.time: has 1 values', { time: [1] }],
  ['lane.time: is neither', { time: { all: 1 } }],
  ['lane.time.1: is no integer', { time: [1, 'x', 1, 1] }],
  ['lane.text: is not bytes', { text: 'abcd', lengths: bytes(1, 1, 1, 1) }],
  ['lane.text: is not UTF-8', { text: bytes(255, 0, 0, 0), lengths: bytes(1, 1, 1, 1) }],
  ['lane.lengths: has 3 bytes', { text: bytes(65), lengths: bytes(1, 0, 0) }],
  ['lane.lengths.1: leads beyond', { text: bytes(65), lengths: bytes(1, 1, 0, 0) }],
  ['lane.text: has 2 characters, of 1', { text: bytes(65, 66), lengths: bytes(1, 0, 0, 0) }],
  [
    'lane.lengths.0: is a length of a null',
    { text: bytes(65), lengths: bytes(1, 0, 0, 0), nulls: bytes(1) },
  ],
  ['lane.dimensions: must be', { f32: new Uint8Array(16), dimensions: 0 }],
  ['lane.dimensions: must be', { f32: new Uint8Array(16), dimensions: 1e9 }],
  ['lane.f32: has 16 bytes, not 32', { f32: new Uint8Array(16), dimensions: 2 }],
  ['lane.f16: has 16 bytes, not 8', { f16: new Uint8Array(16), dimensions: 1 }],
])('a lane that does not hold its rows names its fault: %s', (place, lane) => {
  expect(() => unpackLane(lane, 4, 'lane', roomy())).toThrow(
    expect.objectContaining({
      code: 'PROTOCOL',
      message: expect.stringContaining(place) as string,
    }),
  )
})

test('a few bytes do not unfold to more than is allowed', () => {
  const tooLarge = expect.objectContaining({ code: 'TOO_LARGE' }) as Error
  expect(() => unpackLane({ all: 1 }, 2 ** 40, 'lane', new Allowance(1e6, 1e6))).toThrow(tooLarge)
  const text = { all: 'x'.repeat(64) }
  expect(() => unpackLane(text, 20_000, 'lane', new Allowance(1e6, 1e6))).toThrow(tooLarge)
  const dict = { dict: ['x'.repeat(64)], size: 1, index: new Uint8Array(20_000) }
  expect(() => unpackLane(dict, 20_000, 'lane', new Allowance(1e6, 1e6))).toThrow(tooLarge)
})
