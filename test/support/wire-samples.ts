import type { Stored } from '../../schema/codec.ts'
import { timestampOfMicros } from '../../schema/values/timestamp.ts'
import type { PullResponse, PushRequest } from '../../sync/protocol/messages.ts'

/** The same ids on every run. */
export const sampleId = (n: number): string =>
  `0190a3c1-7b1e-7c2a-9f53-${n.toString(16).padStart(12, '0')}`

const sampleTransactionId = (n: number): string => n.toString(16).padStart(32, '0')

const floats = (...values: readonly number[]): Uint8Array => {
  const view = new DataView(new ArrayBuffer(values.length * 4))
  for (const [i, value] of values.entries()) view.setFloat32(i * 4, value, true)
  return new Uint8Array(view.buffer)
}

const time = (n: number): string => timestampOfMicros(1_795_262_430_932_000 + n * 1_000_003)

/** One row with a value for each lane, and nulls in some of the rows. */
const row = (n: number): Stored[] => [
  sampleId(n),
  n % 3 === 0 ? null : sampleId(1000 + n),
  ['low', 'high'][n % 2] ?? null,
  'the same',
  null,
  `text ${n} with "quotes" \\ and 😀${'.'.repeat(n)}`,
  n % 4 === 0 ? null : `note ${'x'.repeat(n * 30)}`,
  n * n * 7919,
  5_000_000_000 + n,
  n / 3,
  time(n),
  n % 5 === 0 ? null : time(-n),
  n.toString(16).padStart(32, 'a'),
  floats(n + 0.1, -n),
  floats(n / 2, 1),
  n % 2 === 0 ? Uint8Array.of(0, 255, n) : null,
]

const columns = row(0).map((_, i) => (i === 0 ? 'id' : `column_${i}`))

/** A pull in which every kind of lane occurs. */
export const pullOfEveryLane: PullResponse = {
  nonce: 'n',
  position: 2 ** 53 - 1,
  cursor: 'c',
  clock: 1_795_262_430_932_000,
  page: { first: true, last: false, rows: 14, total: 100 },
  shapes: [
    { table: 4, columns },
    { table: 12, columns: ['id', 'vector'] },
    { table: 9, columns: ['id'] },
  ],
  rows: [
    ...Array.from({ length: 13 }, (_, n): PullResponse['rows'][number] =>
      n === 5 ? [0, row(n), [5, 14]] : [0, row(n)],
    ),
    [1, [sampleId(99), floats(0.5, 0.25)]],
  ],
  gone: [
    [4, sampleId(200)],
    [7, sampleId(201)],
  ],
  watermark: { seq: 7, id: sampleTransactionId(7) },
  outcomes: [
    { seq: 1, n: 0, kind: 'rejected', reason: 'forbidden', server_row: null },
    { seq: 2, n: 1, kind: 'merged', changed: { title: 'x', labels: ['a', { b: 1.5 }] } },
  ],
  conflicts: [
    {
      id: sampleId(300),
      at: time(0),
      table: 'incidents',
      rowId: sampleId(301),
      loser: null,
      winner: 'someone',
      lost: { title: 'a' },
      kept: { title: 'b' },
    },
  ],
}

/** A push of inserts, updates and deletes of several shapes, in one another. */
export const pushOfEveryKind: PushRequest = {
  clientId: sampleId(400),
  schema: 1,
  previous: { seq: 4, id: sampleTransactionId(4) },
  shapes: [
    { table: 3, columns: ['id', 'title'] },
    { table: 3, columns: ['title'] },
    { table: 3, columns: [] },
    { table: 12, columns },
  ],
  transactions: Array.from({ length: 6 }, (_, n) => ({
    seq: 5 + n,
    id: sampleTransactionId(5 + n),
    clock: 1_795_262_430_932_000 + n,
    base: n < 3 ? { nonce: null, position: 0 } : { nonce: 'history', position: 12 },
    mutations: [
      [0, 'insert', sampleId(500 + n), [sampleId(500 + n), `title ${n}`]],
      [3, 'insert', sampleId(n), row(n)],
      ...(n % 2 === 0 ? [] : ([[1, 'update', sampleId(500 + n), ['another']]] as const)),
      [2, 'delete', sampleId(500 + n), []],
    ].map(([shape, op, id, values]) => [
      shape,
      op,
      id,
      values,
    ]) as PushRequest['transactions'][number]['mutations'],
  })),
}
