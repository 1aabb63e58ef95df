import { Packr } from 'msgpackr'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { decodeMsgpack, encodeMsgpack } from '../../../sync/protocol/msgpack.ts'

test('what is packed is read again, whatever is in it', () => {
  const value = fc.letrec((tie) => ({
    any: fc.oneof(
      { maxDepth: 4 },
      fc.string({ unit: 'grapheme' }),
      fc.maxSafeInteger().map((number) => number + 0),
      fc.double({ noNaN: true }).map((number) => number + 0),
      fc.boolean(),
      fc.constant(null),
      fc.uint8Array({ maxLength: 300 }),
      fc.array(tie('any'), { maxLength: 20 }),
      fc.dictionary(fc.string(), tie('any')),
    ),
  })).any
  fc.assert(
    fc.property(value, (message) => {
      expect(plain(decodeMsgpack(encodeMsgpack(message)))).toEqual(plain(message))
    }),
    { numRuns: 500 },
  )
})

/** Bytes come back as views of the message, of whatever class its bytes have. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return { bytes: [...value] }
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null) return value
  return Object.entries(value).map(([key, member]) => [key, plain(member)])
}

test('texts of every length come back, also where they begin with a byte order mark', () => {
  for (const length of [0, 1, 31, 32, 33, 255, 256, 65_535, 65_536, 200_000])
    for (const text of ['x'.repeat(length), `\uFEFF${'é'.repeat(length)}`])
      expect(decodeMsgpack(encodeMsgpack(text))).toBe(text)
})

test('integers of 64 bits are read as far as a number counts', () => {
  expect(decodeMsgpack(Uint8Array.of(0xcf, 0, 0x1f, 255, 255, 255, 255, 255, 255))).toBe(
    2 ** 53 - 1,
  )
  expect(decodeMsgpack(Uint8Array.of(0xd3, 255, 255, 255, 255, 255, 255, 255, 254))).toBe(-2)
  expect(() => decodeMsgpack(Uint8Array.of(0xcf, 0, 0x20, 0, 0, 0, 0, 0, 0))).toThrow(/2\^53/)
})

const all = new Packr({ moreTypes: true, structuredClone: true })
const cycle: unknown[] = []
cycle.push(cycle)

test.each([
  ['a date', all.pack(new Date(0))],
  ['a set', all.pack(new Set([1]))],
  ['a map of other keys', all.pack(new Map([[1, 2]]))],
  ['a big integer', all.pack(2n ** 70n)],
  ['a regular expression', all.pack(/x/)],
  ['an error', all.pack(new Error('x'))],
  ['typed numbers', all.pack(new Float64Array(2))],
  ['a reference', all.pack(cycle)],
  ['a record', new Packr().pack([{ a: 1 }, { a: 2 }])],
  ['undefined', all.pack(undefined)],
  ['a byte that msgpack never uses', Uint8Array.of(0xc1)],
  ['nothing', new Uint8Array()],
  ['something behind the message', Uint8Array.of(1, 2)],
  ['a text that is no UTF-8', Uint8Array.of(0xa2, 0xff, 0xfe)],
  ['a long text that is no UTF-8', Uint8Array.of(0xd9, 40, ...new Uint8Array(40).fill(0x80))],
  ['a key that is a number', Uint8Array.of(0x81, 1, 1)],
  ['an array that is cut short', Uint8Array.of(0x93, 1, 2)],
  ['nested arrays without end', new Uint8Array(1_000_000).fill(0x91)],
  ['nested maps without end', new Uint8Array(1_000_000).fill(0x81)],
])('%s is refused', (_name, bytes) => {
  expect(() => decodeMsgpack(bytes)).toThrow(
    /cut short|is in no message|behind|valid|key|nested|2\^53/,
  )
})

test('a header that claims thousands of millions of members allocates none of them', () => {
  const claims = [0xdd, 0xdf, 0xdb, 0xc6].flatMap((type) => [
    Uint8Array.of(type, 255, 255, 255, 255),
    // One in another, each of thirty million: msgpackr would make an array of that length at each level.
    Uint8Array.from({ length: 2000 }, (_, i) => [type, 1, 0xc9, 0xc3, 0x80][i % 5] ?? 0),
  ])
  const before = process.memoryUsage().rss
  for (const bytes of claims) expect(() => decodeMsgpack(bytes)).toThrow(/cut short/)
  expect(process.memoryUsage().rss - before).toBeLessThan(64 * 1024 * 1024)
})

test('a key that names the prototype is a key like any other', () => {
  const decoded = decodeMsgpack(encodeMsgpack(JSON.parse('{"__proto__":{"admin":true}}')))
  expect((decoded as { admin?: boolean }).admin).toBeUndefined()
  expect(JSON.stringify(decoded)).toBe('{"__proto__":{"admin":true}}')
})
