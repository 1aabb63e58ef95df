import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { TRANSACTION_MUTATIONS_MAX } from '../../../schema/limits.ts'
import { decodeMessage, encodeMessage, JSON_TYPE, MSGPACK } from '../../../sync/protocol/codec.ts'
import { chooseEncoding } from '../../../sync/protocol/encodings.ts'
import {
  PUSH_TRANSACTIONS_MAX,
  pullResponseSchema,
  pushRequestSchema,
  type PullResponse,
  type PushRequest,
} from '../../../sync/protocol/messages.ts'
import { decodeMsgpack, encodeMsgpack } from '../../../sync/protocol/msgpack.ts'
import { pullOfEveryLane, pushOfEveryKind, sampleId } from '../../support/wire-samples.ts'

/** Bytes come back as views of the message; compared by what they hold. */
function plain<T>(message: T): unknown {
  return JSON.parse(
    JSON.stringify(message, (_key, value: unknown) =>
      value instanceof Uint8Array
        ? { bytes: [...value] }
        : (value as { type?: unknown } | null)?.type === 'Buffer'
          ? { bytes: (value as { data: unknown }).data }
          : value,
    ),
  )
}

describe.each([MSGPACK, JSON_TYPE])('%s', (type) => {
  test('brings a pull as it was sent', () => {
    const bytes = encodeMessage(pullResponseSchema, pullOfEveryLane, type)
    const decoded = decodeMessage(pullResponseSchema, bytes, type)
    expect(plain(decoded)).toEqual(plain(pullOfEveryLane))
  })

  test('brings a push as it was sent, its order and the borders of its transactions included', () => {
    const bytes = encodeMessage(pushRequestSchema, pushOfEveryKind, type)
    expect(plain(decodeMessage(pushRequestSchema, bytes, type))).toEqual(plain(pushOfEveryKind))
  })
})

test('any push comes back the same', () => {
  const shapes: PushRequest['shapes'] = [
    { table: 1, columns: ['id', 'a', 'b'] },
    { table: 2, columns: ['a'] },
    { table: 2, columns: [] },
  ]
  const stored = fc.oneof(fc.string(), fc.constant(null), fc.integer(), fc.uuid())
  const mutation = fc
    .tuple(fc.nat(2), fc.constantFrom('insert', 'update', 'delete'), fc.uuid())
    .chain(([shape, op, id]) => {
      const { length } = shapes[shape]?.columns ?? []
      return fc
        .array(stored, { minLength: length, maxLength: length })
        .map((values): PushRequest['transactions'][number]['mutations'][number] => [
          shape,
          op,
          id,
          values,
        ])
    })
  const transaction = fc.record({
    seq: fc.integer({ min: 1 }),
    id: fc.stringMatching(/^[0-9a-f]{32}$/),
    clock: fc.nat(),
    base: fc.record({ nonce: fc.option(fc.constantFrom('n', 'm')), position: fc.nat(3) }),
    mutations: fc.array(mutation, { maxLength: 6 }),
  })
  fc.assert(
    fc.property(fc.array(transaction, { minLength: 1, maxLength: 12 }), (transactions) => {
      const push: PushRequest = { ...pushOfEveryKind, shapes, transactions }
      const bytes = encodeMessage(pushRequestSchema, push, MSGPACK)
      expect(decodeMessage(pushRequestSchema, bytes, MSGPACK)).toEqual(push)
    }),
    { numRuns: 200 },
  )
})

/** What the wire carries of a message, to be changed by a test. */
type Packed = Record<string, unknown>
const packed = (message: PullResponse | PushRequest): Packed =>
  decodeMsgpack(
    'rows' in message
      ? encodeMessage(pullResponseSchema, message, MSGPACK)
      : encodeMessage(pushRequestSchema, message, MSGPACK),
  ) as Packed

const at = (message: unknown, ...path: (string | number)[]): Packed =>
  path.reduce((inner, step) => (inner as Packed)[step], message) as Packed

const smallPush: PushRequest = {
  ...pushOfEveryKind,
  shapes: [{ table: 3, columns: ['id', 'title'] }],
  transactions: [1, 2].map((seq) => ({
    seq,
    id: seq.toString(16).padStart(32, '0'),
    clock: 1,
    base: { nonce: null, position: 0 },
    mutations: [[0, 'insert', sampleId(seq), [sampleId(seq), 'x']]],
  })),
}

test.each<[place: string, change: (push: Packed) => unknown]>([
  ['clientId: ', (push) => (push['clientId'] = 'me')],
  [
    'transactions: has none',
    (push) => (push['transactions'] = { rows: 0, data: [[], [], [], [], [], []] }),
  ],
  [
    `transactions: has ${PUSH_TRANSACTIONS_MAX + 1}`,
    (push) => (at(push, 'transactions')['rows'] = PUSH_TRANSACTIONS_MAX + 1),
  ],
  ['transactions.rows: ', (push) => (at(push, 'transactions')['rows'] = -1)],
  ['transactions.rows: ', (push) => (at(push, 'transactions')['rows'] = 1.5)],
  [
    'transactions.data: has 5 lanes, not 6',
    (push) => (at(push, 'transactions', 'data') as unknown as unknown[]).pop(),
  ],
  ['transactions.data.0.0: is no number', (push) => (at(push, 'transactions', 'data', 0)[0] = 0)],
  [
    'transactions.data.0.0: is no whole',
    (push) => (at(push, 'transactions', 'data', 0)[0] = 'one'),
  ],
  ['transactions.data.1.1: is no id', (push) => (at(push, 'transactions', 'data', 1)[1] = 'short')],
  ['transactions.data.2.1: is no whole', (push) => (at(push, 'transactions', 'data', 2)[1] = -1)],
  [
    'transactions.data.3.0: is no nonce',
    (push) => (at(push, 'transactions', 'data', 3)[0] = 'x'.repeat(65)),
  ],
  ['transactions.data.4.0: is no whole', (push) => (at(push, 'transactions', 'data', 4)[0] = 0.5)],
  ['transactions.data.5.1: counts more', (push) => (at(push, 'transactions', 'data', 5)[1] = 2)],
  ['mutations: has 2, of 1', (push) => (at(push, 'transactions', 'data', 5)[1] = 0)],
  [
    `mutations: has ${TRANSACTION_MUTATIONS_MAX + 1}`,
    (push) => (at(push, 'mutations')['rows'] = TRANSACTION_MUTATIONS_MAX + 1),
  ],
  ['mutations.data.0.1: there is no shape 7', (push) => (at(push, 'mutations', 'data', 0)[1] = 7)],
  [
    'mutations.data.1.0: is no operation',
    (push) => (at(push, 'mutations', 'data', 1)[0] = 'truncate'),
  ],
  [
    'mutations.data.2.0: is no UUID',
    (push) => (at(push, 'mutations', 'data', 2)[0] = sampleId(1).toUpperCase()),
  ],
  ['mutations.data.2: has 1 values', (push) => (at(push, 'mutations', 'data')[2] = ['x'])],
  ['values: has 0 blocks for 1', (push) => (push['values'] = [])],
  ['values.0.data: has 1 lanes', (push) => (at(push, 'values', 0)['data'] = [[1, 2]])],
  [
    'values.0.data.1: has 2 values for 1',
    (push) => {
      at(push, 'values', 0)['rows'] = 1
      at(push, 'values', 0, 'data')[0] = ['x']
    },
  ],
  ['values.0: has too few', (push) => (push['values'] = [{ rows: 1, data: [['x'], ['y']] }])],
  [
    'values.0: has 3 rows, of 2',
    (push) => (push['values'] = [{ rows: 3, data: [['x', 'y', 'z'], { all: 1 }] }]),
  ],
  ['values.0.data.1.1: is no text', (push) => (at(push, 'values', 0, 'data', 1)[1] = { $gt: '' })],
])('a push that does not fit together names the place: %s', (place, change) => {
  const push = packed(smallPush)
  change(push)
  expect(() => decodeMessage(pushRequestSchema, encodeMsgpack(push), MSGPACK)).toThrow(
    expect.objectContaining({
      code: 'PROTOCOL',
      message: expect.stringMatching(`^${place}`) as string,
    }),
  )
})

test.each<[place: string, change: (pull: Packed) => unknown]>([
  ['tables.0.data.0.0: is no UUID', (pull) => (at(pull, 'tables', 1, 'data', 0)[0] = 'x')],
  ['tables.0.columns.0: is not id', (pull) => (at(pull, 'tables', 1, 'columns')[0] = 'name')],
  ['tables.0.columns: names one twice', (pull) => (at(pull, 'tables', 1, 'columns')[1] = 'id')],
  [
    'tables.0.data.1: has 1 values for 2',
    (pull) => {
      at(pull, 'tables', 1)['rows'] = 2
      at(pull, 'tables', 1, 'data')[0] = [sampleId(1), sampleId(2)]
    },
  ],
  [
    'tables.0.placeholders.0.0: is no row',
    (pull) => (at(pull, 'tables', 1)['placeholders'] = [[1, [0]]]),
  ],
  [
    'tables.0.placeholders.1.0: is no row',
    (pull) =>
      (at(pull, 'tables', 1)['placeholders'] = [
        [0, [0]],
        [0, [1]],
      ]),
  ],
  [
    'tables.0.placeholders.0.1.1: is no column',
    (pull) => (at(pull, 'tables', 1)['placeholders'] = [[0, [0, 2]]]),
  ],
  ['gone.data.0.1: is no number', (pull) => (at(pull, 'gone', 'data', 0)[1] = 'messages')],
  ['gone.data.1.0: is no UUID', (pull) => (at(pull, 'gone', 'data', 1)[0] = null)],
])('a pull that does not fit together names the place: %s', (place, change) => {
  const pull = packed(pullOfEveryLane)
  change(pull)
  pull['tables'] = [at(pull, 'tables', 1)]
  expect(() => decodeMessage(pullResponseSchema, encodeMsgpack(pull), MSGPACK)).toThrow(
    expect.objectContaining({
      code: 'PROTOCOL',
      message: expect.stringMatching(`^${place}`) as string,
    }),
  )
})

test('a few bytes that claim a thousand million rows are too large, not read', () => {
  const pull = packed(pullOfEveryLane)
  pull['tables'] = [
    { table: 4, columns: ['id', 'title'], rows: 1e9, data: [{ all: sampleId(1) }, { all: null }] },
  ]
  expect(() => decodeMessage(pullResponseSchema, encodeMsgpack(pull), MSGPACK)).toThrow(
    expect.objectContaining({ code: 'TOO_LARGE' }),
  )
  const push = packed(smallPush)
  push['shapes'] = [{ table: 3, columns: Array.from({ length: 100 }, (_, i) => `c${i}`) }]
  push['values'] = [{ rows: 100_000, data: Array.from({ length: 100 }, () => ({ all: 1 })) }]
  expect(() => decodeMessage(pushRequestSchema, encodeMsgpack(push), MSGPACK)).toThrow(
    expect.objectContaining({ code: 'TOO_LARGE' }),
  )
})

test.each([
  ['gzip, deflate, br', 'br'],
  ['gzip', 'gzip'],
  ['GZIP;q=0.5', 'gzip'],
  ['br;q=0, gzip', 'gzip'],
  ['identity', undefined],
  ['zstd', undefined],
  ['', undefined],
  [undefined, undefined],
])('of %s we use %s', (accepted, encoding) => {
  expect(chooseEncoding(accepted)).toBe(encoding)
})
