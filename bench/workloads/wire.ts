import { brotliCompressSync, constants } from 'node:zlib'
import { Packr } from 'msgpackr'
import type { z } from 'zod'
import type { Stored } from '../../schema/codec.ts'
import { agentColumns, columnWrite, tables } from '../../schema/index.ts'
import { timestampOfMicros } from '../../schema/values/timestamp.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import { decodeMessage, encodeMessage, MSGPACK } from '../../sync/protocol/codec.ts'
import {
  pullResponseSchema,
  pushRequestSchema,
  type PullResponse,
  type PushRequest,
} from '../../sync/protocol/messages.ts'
import { measuredRow, type BenchRow, type Target } from '../report/row.ts'
import { median } from '../report/statistics.ts'
import { newMessage } from '../support/data.ts'
import { interleave, ratioOf, type Schedule, type Timing } from '../support/measure.ts'
import { pick, seededId, seededRandom, wholeBelow, type Random } from '../support/random.ts'
import { localWorkload } from './workload.ts'

interface Parameters extends Schedule {
  /** Rows of a batch. */
  readonly batch: number
  readonly batches: number
}

const bytesTargets: readonly Target[] = [{ metric: 'p50', limit: 90 }]
/** A first sync has 20 us a row for both ends; the codec may take a fifth of them at each. */
const rateTargets: readonly Target[] = [{ metric: 'p50', limit: 250_000 }]

/** What a change costs on the wire, in bytes and in time, beside the same rows as tuples of msgpackr, checked by zod. */
export const wire = localWorkload<Parameters>({
  name: 'wire',
  claim: 'a batched, compressed change of a 285-byte message costs at most 90 bytes',
  sizes: {
    full: { batch: 500, batches: 40, rounds: 40, each: 5, warmup: 10 },
    quick: { batch: 500, batches: 10, rounds: 10, each: 5, warmup: 5 },
    tiny: { batch: 20, batches: 2, rounds: 2, each: 1, warmup: 0 },
  },
  run: async (parameters) => {
    const random = seededRandom(1)
    const messages = Array.from({ length: parameters.batches }, (_, n) =>
      rowsOf(random, parameters.batch, n * parameters.batch),
    )
    const pulls = messages.map(pullOf)
    const pushes = messages.map((rows) => pushOf(random, rows))
    return [
      bytesRow('wire bytes, pull', pulls, parameters, (pull) =>
        encodeMessage(pullResponseSchema, pull, MSGPACK),
      ),
      bytesRow('wire bytes, push', pushes, parameters, (push) =>
        encodeMessage(pushRequestSchema, push, MSGPACK),
      ),
      ...(await rates('pull', pullResponseSchema, pulls, parameters)),
      ...(await rates('push', pushRequestSchema, pushes, parameters)),
    ]
  },
})

const columns = agentColumns(tables.messages)
const inserted = columns.filter((name) => columnWrite(tables.messages, name) !== 'never')

/** Messages of twenty conversations that go on at the same time, some seconds apart. */
function rowsOf(random: Random, count: number, from: number): Record<string, Stored>[] {
  const conversations = Array.from({ length: 20 }, (_, n) => seededId(random, from + n))
  let micros = 1_790_000_000_000_000
  return Array.from({ length: count }, (_, n) => {
    micros += Math.floor(random() * 3_000_000)
    return {
      ...(newMessage(random, pick(random, conversations)) as Record<string, Stored>),
      id: seededId(random, from + n),
      content_type: 'text',
      tool_calls: '[]',
      sequence_number: n % 100,
      created_at: timestampOfMicros(micros),
    }
  })
}

function pullOf(rows: readonly Record<string, Stored>[]): PullResponse {
  return {
    nonce: '0190a3c1-7b1e-7c2a-9f53-2d1c8e0b4a77',
    position: 5000,
    cursor: 'x'.repeat(160),
    clock: 1_790_000_000_000_000,
    page: null,
    shapes: [{ table: tables.messages.number, columns }],
    rows: rows.map((row) => [0, columns.map((name) => row[name] ?? null)]),
    gone: [],
    watermark: null,
    outcomes: [],
    conflicts: [],
  }
}

/** Each row is a transaction of its own, as agents write them. */
function pushOf(random: Random, rows: readonly Record<string, Stored>[]): PushRequest {
  return {
    clientId: seededId(random, 1),
    schema: SCHEMA_VERSION,
    previous: null,
    shapes: [{ table: tables.messages.number, columns: inserted }],
    transactions: rows.map((row, n) => ({
      seq: n + 1,
      id: Array.from({ length: 32 }, () => wholeBelow(random, 16).toString(16)).join(''),
      clock: 1_790_000_000_000_000 + Math.floor(random() * 1000) + n * 1_500_000,
      base: { nonce: '0190a3c1-7b1e-7c2a-9f53-2d1c8e0b4a77', position: 5000 },
      mutations: [
        [0, 'insert', String(row['id']), inserted.map((name): Stored => row[name] ?? null)],
      ],
    })),
  }
}

/** As the centre compresses. */
const compressed = (bytes: Uint8Array): number =>
  brotliCompressSync(bytes, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: 3,
      [constants.BROTLI_PARAM_SIZE_HINT]: bytes.byteLength,
    },
  }).byteLength

const packr = new Packr({ useRecords: false, int64AsType: 'number' })

function bytesRow<T>(
  name: string,
  messages: readonly T[],
  { batch }: Parameters,
  encode: (message: T) => Uint8Array,
): BenchRow {
  const raw = messages.map((message) => encode(message).byteLength / batch)
  const ours = messages.map((message) => compressed(encode(message)) / batch)
  const tuples = messages.map((message) => compressed(packr.pack(message)) / batch)
  const bare = messages.map((message) => packr.pack(message).byteLength / batch)
  return measuredRow({
    name,
    unit: 'bytes',
    samples: ours,
    ratio: {
      value: median(ours) / median(tuples),
      against: `the same rows as tuples, compressed alike (p50 ${median(tuples).toFixed(1)} bytes)`,
    },
    targets: bytesTargets,
    note: `a change, in batches of ${batch} messages; uncompressed ${median(raw).toFixed(1)}, tuples ${median(bare).toFixed(1)}`,
  })
}

async function rates<S extends z.ZodType>(
  name: string,
  schema: S,
  messages: readonly z.infer<S>[],
  { batch, ...schedule }: Parameters,
): Promise<BenchRow[]> {
  const packed = messages.map((message) => encodeMessage(schema, message, MSGPACK))
  const tuples = messages.map((message) => packr.pack(message))
  const at = <T>(list: readonly T[], n: number): T => list[n % list.length] as T
  const [encode, pack] = await interleave(
    [
      { run: (n) => encodeMessage(schema, at(messages, n), MSGPACK) },
      { run: (n) => packr.pack(at(messages, n)) },
    ],
    schedule,
  )
  const [decode, unpack] = await interleave(
    [
      { run: (n) => decodeMessage(schema, at(packed, n), MSGPACK) },
      { run: (n) => schema.parse(packr.unpack(at(tuples, n))) },
    ],
    schedule,
  )
  return [
    rateRow(
      `wire encode, ${name}`,
      batch,
      encode,
      pack,
      'msgpackr packing the same rows as tuples',
    ),
    rateRow(
      `wire decode, ${name}`,
      batch,
      decode,
      unpack,
      'msgpackr and zod reading them as tuples',
    ),
  ]
}

function rateRow(
  name: string,
  batch: number,
  ours: Timing,
  theirs: Timing,
  against: string,
): BenchRow {
  return measuredRow({
    name,
    unit: 'rows/s',
    samples: ours.ms.map((ms) => (batch / ms) * 1000),
    ratio: ratioOf(ours, theirs, against),
    targets: rateTargets,
  })
}
