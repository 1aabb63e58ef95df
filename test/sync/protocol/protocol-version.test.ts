import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { canonicalJson } from '../../../schema/values/canonical-json.ts'
import { decodeMessage, encodeMessage, JSON_TYPE, MSGPACK } from '../../../sync/protocol/codec.ts'
import {
  messageSchemas,
  pullResponseSchema,
  type PullResponse,
} from '../../../sync/protocol/messages.ts'
import { PROTOCOL_VERSION } from '../../../sync/protocol/version.ts'

/**
 * The shapes of all messages, hashed. When this fails you changed the wire: bump PROTOCOL_VERSION, add its line of
 * history in sync/protocol/version.ts, and only then the new hash here.
 */
const shapes: Readonly<Record<number, string>> = {
  1: 'a3749d2a9c469c3c',
}

test('the shapes of the wire belong to its version', () => {
  const schemas = Object.entries(messageSchemas).map(([name, schema]) => [
    name,
    z.toJSONSchema(schema, { unrepresentable: 'any' }),
  ])
  const text = canonicalJson(JSON.parse(JSON.stringify(schemas)))
  expect({
    version: PROTOCOL_VERSION,
    hash: createHash('sha256').update(text).digest('hex').slice(0, 16),
  }).toEqual({
    version: PROTOCOL_VERSION,
    hash: shapes[PROTOCOL_VERSION],
  })
})

const message: PullResponse = {
  nonce: 'n',
  position: 2 ** 53 - 1,
  cursor: 'c',
  clock: 1_795_262_430_932_000,
  whole: false,
  shapes: [{ table: 4, columns: ['id', 'vector'] }],
  rows: [
    [
      0,
      [
        '0190a3c1-7b1e-7c2a-9f53-2d1c8e0b4a77',
        new Uint8Array([0, 255, 128]),
        null,
        '😀 "quoted" \\',
        -1,
        0.5,
      ],
    ],
  ],
  gone: [[4, '0190a3c1-7b1e-7c2a-9f53-2d1c8e0b4a78']],
  watermark: null,
  outcomes: [{ seq: 1, n: 0, kind: 'rejected', reason: 'forbidden' }],
  conflicts: [],
}

test.each([MSGPACK, JSON_TYPE])(
  'a message survives %s, bytes and large numbers included',
  (type) => {
    const decoded = decodeMessage(pullResponseSchema, encodeMessage(message, type), type)
    const [, values = []] = decoded.rows[0] ?? []
    expect(new Uint8Array(values[1] as Uint8Array)).toEqual(new Uint8Array([0, 255, 128]))
    expect({ ...decoded, rows: [] }).toEqual({ ...message, rows: [] })
    expect(values.with(1, null)).toEqual(message.rows[0]?.[1].with(1, null))
  },
)

test('a malformed message names its first fault', () => {
  const bytes = encodeMessage({ ...message, gone: [['x', 'y']] }, MSGPACK)
  expect(() => decodeMessage(pullResponseSchema, bytes, MSGPACK)).toThrow(/gone\.0\.0/)
})
