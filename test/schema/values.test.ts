/* oxlint-disable unicorn/consistent-function-scoping -- a helper stands beside the tests that it helps */
import * as fc from 'fast-check'
import { Client } from 'pg'
import { describe, expect, inject, test } from 'vitest'

import { checkStored, decodeValue, encodeValue } from '../../schema/codec.ts'
import {
  integer,
  integerArray,
  json,
  text,
  textArray,
  uuidArray,
  varchar,
  vector,
  type Column,
} from '../../schema/define.ts'
import {
  canonicalizeJsonText,
  canonicalJson,
  JSON_DEPTH_MAX,
  lossyMembers,
  lossyNumber,
  ValueProblem,
} from '../../schema/values/canonical-json.ts'
import { canonicalId, isId, newId } from '../../schema/values/id.ts'
import { canonicalInet } from '../../schema/values/inet.ts'
import {
  canonicalTimestamp,
  microsOfTimestamp,
  timestampOfMicros,
} from '../../schema/values/timestamp.ts'
import {
  decodeVector,
  DIMENSION_MAX,
  encodeVector,
  vectorProblem,
} from '../../schema/values/vector.ts'

/** Well-formed text without U+0000: all that both databases can hold. */
const storableText = fc.string({ unit: 'binary' }).map((value) => value.replaceAll('\0', ''))
const anyJson = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constant(null),
    fc.boolean(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.integer(),
    storableText,
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(storableText, tie('value'), { maxKeys: 4, noNullPrototype: true }),
  ),
})).value

/** The same value with the keys of every object in another order. */
function reordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(reordered)
  if (typeof value !== 'object' || value === null) return value
  const out: Record<string, unknown> = {}
  for (const [key, member] of Object.entries(value).toReversed()) {
    Object.defineProperty(out, key, {
      value: reordered(member),
      enumerable: true,
      configurable: true,
      writable: true,
    })
  }
  return out
}

const problemOf = (run: () => unknown): string => {
  try {
    run()
  } catch (error) {
    if (error instanceof ValueProblem) return error.message
    throw error
  }
  throw new Error('nothing was refused')
}

describe('canonical JSON', () => {
  test('is the value, and the same text when it is made again', () => {
    fc.assert(
      fc.property(anyJson, (value) => {
        const once = canonicalJson(value)
        expect(JSON.parse(once)).toEqual(JSON.parse(JSON.stringify(value)))
        expect(canonicalJson(JSON.parse(once))).toBe(once)
        expect(canonicalizeJsonText(once)).toBe(once)
        expect(canonicalizeJsonText(JSON.stringify(value, undefined, 2))).toBe(once)
      }),
    )
  })

  test('does not depend on the order of keys', () => {
    fc.assert(
      fc.property(anyJson, (value) => {
        expect(canonicalJson(reordered(value))).toBe(canonicalJson(value))
      }),
    )
    expect(canonicalJson({ b: 1, a: [true, null], é: 0, '😀': 0, ﬀ: 0 })).toBe(
      '{"a":[true,null],"b":1,"é":0,"😀":0,"ﬀ":0}',
    )
  })

  test('writes numbers as JavaScript does, and minus zero as zero', () => {
    expect(canonicalizeJsonText('[1.50, 1e2, -0, 1E+21, 1e-7, 9007199254740991]')).toBe(
      '[1.5,100,0,1e+21,1e-7,9007199254740991]',
    )
    expect(canonicalJson(-0)).toBe('0')
  })

  test('leaves out what is undefined in an object, and keeps a key called __proto__', () => {
    expect(canonicalJson({ a: undefined, b: 1 })).toBe('{"b":1}')
    expect(canonicalizeJsonText('{"__proto__":{"x":1}}')).toBe('{"__proto__":{"x":1}}')
  })

  test.each([
    ['U+0000', { a: ['x\0'] }, /\$\.a\[0\].*U\+0000/],
    ['U+0000 in a key', { 'a\0': 1 }, /key.*U\+0000/],
    ['a lone high surrogate', ['\ud83d'], /\$\[0\].*surrogate/],
    ['a lone low surrogate', ['\ude00x'], /surrogate/],
    ['a lone surrogate in a key', { a: { '\ud83d': 1 } }, /\$\.a.*key.*surrogate/],
    ['NaN', { a: Number.NaN }, /\$\.a is NaN/],
    ['an infinity', [Number.NEGATIVE_INFINITY], /-Infinity/],
    ['bigint', { a: 1n }, /bigint/],
    ['undefined in a list', [undefined], /undefined/],
    ['a hole in a list', Array.from({ length: 1 }).concat([1]), /undefined/],
    ['undefined itself', undefined, /undefined/],
    ['a Date', { at: new Date(0) }, /\$\.at is a Date/],
    ['a Map', new Map(), /Map/],
    ['bytes', { a: new Uint8Array(1) }, /Uint8Array/],
    ['a function', { a: () => 1 }, /function/],
    ['a symbol', [Symbol('x')], /symbol/],
    ['an object of unknown make', Object.create(Object.create(null) as object), /plain objects/],
  ])('refuses %s and says where', (_, value, message) => {
    expect(problemOf(() => canonicalJson(value))).toMatch(message)
  })

  test('refuses cycles and depth beyond the limit, and takes the limit', () => {
    const cycle: Record<string, unknown> = {}
    cycle['self'] = { back: cycle }
    expect(problemOf(() => canonicalJson(cycle))).toMatch(/nested deeper/)
    const nested = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth)
    expect(canonicalizeJsonText(nested(JSON_DEPTH_MAX))).toBe(nested(JSON_DEPTH_MAX))
    expect(problemOf(() => canonicalizeJsonText(nested(JSON_DEPTH_MAX + 1)))).toMatch(
      /nested deeper/,
    )
    expect(problemOf(() => canonicalizeJsonText('{"a":'))).toMatch(/not JSON/)
  })
})

/** A decimal as a fraction of two integers: exact, slow, obvious. */
function fractionOf(token: string): [bigint, bigint] {
  const [mantissa = '', exponent = '0'] = token.toLowerCase().split('e')
  const [whole = '', decimals = ''] = mantissa.split('.')
  const shift = Number(exponent) - decimals.length
  const digits = BigInt(whole + decimals)
  return shift >= 0 ? [digits * 10n ** BigInt(shift), 1n] : [digits, 10n ** BigInt(-shift)]
}

function sameNumber(a: string, b: string): boolean {
  const [p, q] = fractionOf(a)
  const [r, s] = fractionOf(b)
  return p * s === r * q
}

describe('a number in JSON text', () => {
  const digits = (min: number, max: number): fc.Arbitrary<string> =>
    fc.string({ unit: fc.constantFrom(...'0123456789'.split('')), minLength: min, maxLength: max })
  const token = fc
    .tuple(
      fc.constantFrom('', '-'),
      digits(1, 20).map((whole) => whole.replace(/^0+(?=\d)/, '')),
      fc.option(digits(1, 20), { nil: undefined }),
      fc.option(fc.tuple(fc.constantFrom('e', 'E', 'e+', 'e-'), fc.nat(330)), { nil: undefined }),
    )
    .map(
      ([sign, whole, decimals, exponent]) =>
        sign +
        whole +
        (decimals === undefined ? '' : `.${decimals}`) +
        (exponent === undefined ? '' : exponent.join('')),
    )

  test('is lossy exactly when the double that JavaScript prints is another number', () => {
    fc.assert(
      fc.property(token, (number) => {
        const double = Number(number)
        const survives = Number.isFinite(double) && sameNumber(number, String(double))
        expect(lossyNumber(`{"a":[${number}]}`)).toBe(survives ? undefined : number)
      }),
      { numRuns: 2000 },
    )
  })

  test('of up to 15 digits is never lossy; every double as printed is not', () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (double) => {
        expect(lossyNumber(JSON.stringify([double]))).toBeUndefined()
      }),
    )
    expect(lossyNumber('[0.1, 123456789.123456, 9007199254740993]')).toBe('9007199254740993')
  })

  test('is told by the member it stands in, however deep, and by no other', () => {
    const lossy = fc.constantFrom('9007199254740993', '{"a": [1, {"b": -0.10000000000000000001}]}')
    const member = fc.oneof(
      lossy,
      fc.json(),
      anyJson.map((value) => JSON.stringify(value)),
    )
    fc.assert(
      fc.property(fc.dictionary(fc.string(), member), (members) => {
        const entries = Object.entries(members)
        const object = entries.map(([key, value]) => `${JSON.stringify(key)}: ${value}`).join(', ')
        expect([...lossyMembers(`{${object}}`)].toSorted()).toEqual(
          entries
            .filter(([, value]) => lossyNumber(value) !== undefined)
            .map(([key]) => key)
            .toSorted(),
        )
      }),
    )
  })

  test('in quotes is text', () => {
    expect(lossyNumber('{"12345678901234567890":"a\\"9007199254740993"}')).toBeUndefined()
  })
})

describe('a moment', () => {
  const micros = fc.bigInt({
    min: BigInt(Date.parse('0001-01-01T00:00:00Z')) * 1000n,
    max: BigInt(Date.parse('9999-12-31T23:59:59.999Z')) * 1000n + 999n,
  })
  /** Canonical text by integer arithmetic alone. */
  const textOf = (moment: bigint): string => {
    const fraction = ((moment % 1_000_000n) + 1_000_000n) % 1_000_000n
    const seconds = (moment - fraction) / 1_000_000n
    const whole = new Date(Number(seconds) * 1000).toISOString().slice(0, 19)
    return `${whole}.${String(fraction).padStart(6, '0')}Z`
  }

  test('keeps its microseconds, whatever offset it is given in', () => {
    fc.assert(
      fc.property(micros, fc.integer({ min: -15 * 60, max: 15 * 60 }), (moment, offset) => {
        const canonical = textOf(moment)
        expect(canonicalTimestamp(canonical)).toBe(canonical)
        const local = moment + BigInt(offset) * 60_000_000n
        fc.pre(!/^[-+]|^0000/.test(new Date(Number(local / 1000n)).toISOString()))
        const sign = offset < 0 ? '-' : '+'
        const hours = String(Math.trunc(Math.abs(offset) / 60)).padStart(2, '0')
        const minutes = String(Math.abs(offset) % 60).padStart(2, '0')
        const given = textOf(local).slice(0, -1)
        expect(canonicalTimestamp(`${given}${sign}${hours}:${minutes}`)).toBe(canonical)
        expect(canonicalTimestamp(`${given.replace('T', ' ')}${sign}${hours}${minutes}`)).toBe(
          canonical,
        )
      }),
    )
  })

  test('goes to microseconds and back, and sorts as text as it does in time', () => {
    const safe = fc.integer({ min: -(2 ** 53) + 1, max: 2 ** 53 - 1 })
    fc.assert(
      fc.property(safe, safe, (a, b) => {
        const [first, second] = [timestampOfMicros(a), timestampOfMicros(b)]
        expect(first).toBe(textOf(BigInt(a)))
        expect(microsOfTimestamp(first)).toBe(a)
        expect(first < second).toBe(a < b)
      }),
    )
  })

  test.each([
    ['2024-02-29', '2024-02-29T00:00:00.000000Z'],
    ['2000-02-29T12:00Z', '2000-02-29T12:00:00.000000Z'],
    ['2026-11-20T09:30:00.1Z', '2026-11-20T09:30:00.100000Z'],
    ['2026-11-20 09:30:00.123456+00', '2026-11-20T09:30:00.123456Z'],
    ['2024-03-01T00:30:00+01:00', '2024-02-29T23:30:00.000000Z'],
    ['2026-12-31T23:59:59.999999-00:01', '2027-01-01T00:00:59.999999Z'],
  ])('%s is %s', (given, canonical) => {
    expect(canonicalTimestamp(given)).toBe(canonical)
  })

  test('may be a Date', () => {
    expect(canonicalTimestamp(new Date(1))).toBe('1970-01-01T00:00:00.001000Z')
    expect(problemOf(() => canonicalTimestamp(new Date(Number.NaN)))).toMatch(/invalid/)
  })

  test.each([
    '2023-02-29T00:00:00.000000Z',
    '1900-02-29T00:00:00Z',
    '2026-04-31',
    '2026-13-01',
    '2026-01-01T24:00:00Z',
    '2026-01-01T23:59:60Z',
    '2026-01-01T00:00:00.1234567Z',
    '0000-01-01T00:00:00.000000Z',
    '0000-12-31',
    '0001-01-01T00:00:00+00:01',
    '9999-12-31T23:59:59-00:01',
    '+010000-01-01T00:00:00Z',
    '-000001-01-01T00:00:00Z',
    '2026-01-01T00:00:00+16:00',
    '2026-01-01T00:00:00+01:60',
    'infinity',
    'now',
    '',
    ' 2026-01-01',
    '2026-01-01\n',
    1_700_000_000,
    null,
    {},
  ])('refuses %j', (value) => {
    expect(problemOf(() => canonicalTimestamp(value))).toMatch(/time|years|offset/)
  })
})

describe('an IP address', () => {
  /** What PostgreSQL makes of each text; undefined where it refuses. */
  async function asPostgres(texts: readonly string[]): Promise<(string | undefined)[]> {
    const client = new Client({ connectionString: inject('postgresUrl') })
    await client.connect()
    try {
      const out: (string | undefined)[] = []
      for (const address of texts) {
        const found = await client
          .query<{ value: string }>('SELECT $1::inet AS value', [address])
          .catch(() => undefined)
        out.push(found?.rows[0]?.value)
      }
      return out
    } finally {
      await client.end()
    }
  }

  const taken = [
    '0.0.0.0',
    '10.1.2.3',
    '255.255.255.255/32',
    '10.1.2.3/24',
    '10.0.0.0/0',
    '::',
    '::1',
    '::5',
    '::1:0',
    '1::',
    '::/0',
    '::1/128',
    'fe80::1/64',
    'FE80::ABCD',
    '2001:0db8:0000:0000:0000:ff00:0042:8329',
    '2001:db8:0:1:1:1:1:1',
    '2001:db8:0:0:1:0:0:1',
    '1:0:0:2:0:0:0:3',
    '::ffff:1.2.3.4',
    '::ffff:102:304',
    '::ffff:0:1',
    '::ffff:1.2.3.4/120',
    '::1.2.3.4',
    '::102:304/127',
    '64:ff9b::1.2.3.4',
    '0:0:0:0:0:ffff:0:0',
    '::fffe:1.2.3.4',
  ]

  test('is written as PostgreSQL writes it', async () => {
    expect(taken.map((address) => canonicalInet(address))).toEqual(await asPostgres(taken))
  })

  test('of any six words and mask is written as PostgreSQL writes it', async () => {
    const word = fc.constantFrom('0', '0', '0', '1', 'ffff', 'ab', '1234')
    const address = fc
      .tuple(fc.array(word, { minLength: 8, maxLength: 8 }), fc.option(fc.nat(128)))
      .map(([words, mask]) => words.join(':') + (mask === null ? '' : `/${mask}`))
    const samples = fc.sample(address, 300)
    expect(samples.map((sample) => canonicalInet(sample))).toEqual(await asPostgres(samples))
  })

  test('that PostgreSQL refuses is refused', async () => {
    const refused = [
      '256.1.1.1',
      '1.2.3.4/33',
      '::/129',
      '1.2.3.4/',
      '1.2.3.4/24/24',
      '1::2::3',
      '1:2:3:4:5:6:7',
      '1:2:3:4:5:6:7:8:9',
      'g::',
      '::12345',
      '1.2.3.4.5',
      'localhost',
      '',
      '::1%lo',
      '[::1]',
      '1.2.3.4:80',
    ]
    expect(await asPostgres(refused)).toEqual(refused.map(() => undefined))
    for (const address of refused)
      expect(problemOf(() => canonicalInet(address))).toMatch(/IP|mask/)
    for (const value of [1, null, undefined, {}])
      expect(problemOf(() => canonicalInet(value))).toMatch(/IP/)
  })
})

describe('a vector', () => {
  const finite = fc.float32Array({
    minLength: 1,
    maxLength: 40,
    noNaN: true,
    noDefaultInfinity: true,
  })

  test('comes back bit for bit, also from bytes at an odd address', () => {
    fc.assert(
      fc.property(finite, (given) => {
        const bytes = encodeVector(given)
        expect(bytes.byteLength).toBe(given.length * 4)
        expect(vectorProblem(bytes)).toBeUndefined()
        const back = decodeVector(bytes)
        expect(Buffer.from(back.buffer).equals(Buffer.from(given.slice().buffer))).toBe(true)
        const shifted = new Uint8Array(bytes.byteLength + 1)
        shifted.set(bytes, 1)
        expect(decodeVector(shifted.subarray(1))).toEqual(back)
      }),
    )
  })

  test('is little-endian and does not share memory with what it was made of', () => {
    const given = Float32Array.of(1)
    const bytes = encodeVector(given)
    expect([...bytes]).toEqual([0, 0, 0x80, 0x3f])
    given[0] = 2
    expect([...bytes]).toEqual([0, 0, 0x80, 0x3f])
  })

  test('as bytes, wherever they lie, is refused exactly where a component is NaN or an infinity', () => {
    const word = fc.oneof(
      fc.uint8Array({ minLength: 4, maxLength: 4 }),
      fc.tuple(fc.nat(255), fc.nat(255), fc.nat(255), fc.constantFrom(127, 255)),
    )
    fc.assert(
      fc.property(fc.array(word, { minLength: 1, maxLength: 4 }), fc.nat(3), (words, offset) => {
        const bytes = Uint8Array.from([
          ...Array<number>(offset).fill(0),
          ...words.flatMap((w) => [...w]),
        ])
        const components = decodeVector(bytes.subarray(offset))
        const bad = components.findIndex((component) => !Number.isFinite(component))
        expect(vectorProblem(bytes.subarray(offset))).toBe(
          bad === -1 ? undefined : `has ${components[bad]} at ${bad}`,
        )
      }),
    )
  })

  test('with NaN, an infinity, no or too many dimensions, or of another type is refused', () => {
    for (const bad of [
      Float32Array.of(1, Number.NaN),
      Float32Array.of(Number.POSITIVE_INFINITY),
      new Float32Array(0),
      new Float32Array(DIMENSION_MAX + 1),
      [1, 2],
      new Float64Array(1),
      'abc',
    ]) {
      expect(problemOf(() => encodeVector(bad))).toMatch(/NaN|Infinity|dimensions|Float32Array/)
    }
    expect(encodeVector(new Float32Array(DIMENSION_MAX)).byteLength).toBe(DIMENSION_MAX * 4)
    for (const bytes of [
      new Uint8Array(0),
      new Uint8Array(5),
      Uint8Array.of(0, 0, 0xc0, 0x7f),
      new Uint8Array((DIMENSION_MAX + 1) * 4),
    ]) {
      expect(vectorProblem(bytes)).toMatch(/./)
    }
  })
})

describe('an id', () => {
  test('is a UUID of version 7, newer ids above older ones', () => {
    const ids = Array.from({ length: 1000 }, () => newId())
    expect(ids.every((id) => isId(id) && id[14] === '7')).toBe(true)
    expect(ids.toSorted()).toEqual(ids)
    expect(new Set(ids).size).toBe(1000)
  })

  test('is lower case whatever case it is given in', () => {
    fc.assert(
      fc.property(fc.uuid(), (id) => {
        expect(canonicalId(id.toUpperCase())).toBe(id)
        expect(isId(id.toUpperCase())).toBe(id.toUpperCase() === id)
      }),
    )
  })

  test.each([
    '',
    'not-an-id',
    '019aa3c17b1e7c2a9f532d1c8e0b4a77',
    '{019aa3c1-7b1e-7c2a-9f53-2d1c8e0b4a77}',
    '019aa3c1-7b1e-7c2a-9f53-2d1c8e0b4a7g',
    '019aa3c1-7b1e-7c2a-9f53-2d1c8e0b4a77\n',
    7,
    null,
  ])('%j is none', (value) => {
    expect(problemOf(() => canonicalId(value))).toMatch(/UUID/)
  })
})

describe('a column', () => {
  const encode = (column: Column, value: unknown): unknown => encodeValue(column.shape, value)

  test('of text counts characters, not code units', () => {
    expect(encode(varchar(3), '😀😀😀')).toBe('😀😀😀')
    expect(encode(varchar(3), 'e\u0301é')).toBe('e\u0301é')
    for (const long of ['abcd', '😀😀😀😀', '😀😀😀a'])
      expect(problemOf(() => encode(varchar(3), long))).toMatch(/longer than 3/)
    fc.assert(
      fc.property(storableText, fc.nat(20), (value, max) => {
        const fits = Array.from(value).length <= max
        const run = (): unknown => encode(varchar(max), value)
        expect(fits ? run() : problemOf(run)).toBe(
          fits ? value : `is longer than ${max} characters`,
        )
      }),
    )
  })

  test('of text takes a megabyte and refuses U+0000 and lone surrogates', () => {
    const long = 'ü'.repeat(1024 * 1024)
    expect(encode(text(), long)).toBe(long)
    for (const bad of ['a\0', '\ud800', 'x\udfff'])
      expect(problemOf(() => encode(text(), bad))).toMatch(/U\+0000|surrogate/)
  })

  test('of integers takes 32 bits and nothing else', () => {
    for (const good of [0, -1, 2 ** 31 - 1, -(2 ** 31)]) expect(encode(integer(), good)).toBe(good)
    expect(Object.is(encode(integer(), -0), 0)).toBe(true)
    for (const bad of [2 ** 31, -(2 ** 31) - 1, 1.5, Number.NaN, '1', 1n, true])
      expect(problemOf(() => encode(integer(), bad))).toMatch(/integer|outside/)
  })

  test('that is required refuses null; any other keeps it', () => {
    expect(encode(text(), null)).toBeNull()
    expect(problemOf(() => encode(text().notNull(), null))).toMatch(/required/)
    expect(problemOf(() => encode(json().notNull(), undefined))).toMatch(/required/)
  })

  test('of any kind reads what it wrote, and its stored form is its own canonical form', () => {
    const cases: [Column, fc.Arbitrary<unknown>][] = [
      [text(), storableText],
      [integer(), fc.integer()],
      [json(), anyJson.filter((value) => value !== null)],
      [textArray(), fc.array(fc.option(storableText))],
      [integerArray(), fc.array(fc.option(fc.integer()))],
      [uuidArray(), fc.array(fc.option(fc.uuid()))],
      [
        vector(),
        fc.float32Array({ minLength: 1, maxLength: 8, noNaN: true, noDefaultInfinity: true }),
      ],
    ]
    for (const [{ shape }, values] of cases) {
      fc.assert(
        fc.property(values, (value) => {
          const stored = encodeValue(shape, value)
          expect(checkStored(shape, stored)).toEqual(stored)
          expect(encodeValue(shape, decodeValue(shape, stored))).toEqual(stored)
        }),
        { numRuns: 50 },
      )
    }
  })

  test('of a list names the element that does not fit', () => {
    expect(problemOf(() => encode(integerArray(), [1, 'x']))).toMatch(/\[1\].*integer/)
    expect(problemOf(() => encode(textArray(), 'x'))).toMatch(/array/)
    expect(problemOf(() => encode(textArray(), ['a', undefined]))).toMatch(/\[1\]/)
  })
})
