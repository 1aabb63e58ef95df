import { createHash } from 'node:crypto'
import { expect, test } from 'vitest'
import { z } from 'zod'
import { canonicalJson } from '../../../schema/values/canonical-json.ts'
import { encodeMessage, MSGPACK } from '../../../sync/protocol/codec.ts'
import { encodings } from '../../../sync/protocol/encodings.ts'
import { encodeFrame, FrameKind } from '../../../sync/protocol/frames.ts'
import { laneKinds } from '../../../sync/protocol/lanes.ts'
import {
  messageSchemas,
  pullResponseSchema,
  pushRequestSchema,
} from '../../../sync/protocol/messages.ts'
import { packedPullSchema } from '../../../sync/protocol/packed-pull.ts'
import { packedPushSchema } from '../../../sync/protocol/packed-push.ts'
import { PROTOCOL_VERSION } from '../../../sync/protocol/version.ts'
import { pullOfEveryLane, pushOfEveryKind } from '../../support/wire-samples.ts'

/**
 * The shapes of all messages, and the bytes of some, hashed. When this fails you changed the wire: bump
 * PROTOCOL_VERSION, add its line of history in sync/protocol/version.ts, and only then the new hash here. (A version that
 * was never released may change without a new number.)
 */
const hashes: Readonly<Record<number, string>> = {
  1: 'dd51b1185ef65a43',
}

test('the shapes and bytes of the wire belong to its version', () => {
  const schemas = { ...messageSchemas, packedPull: packedPullSchema, packedPush: packedPushSchema }
  const shapes = Object.entries(schemas).map(([name, schema]) => [
    name,
    z.toJSONSchema(schema, { unrepresentable: 'any' }),
  ])
  const bytes = [
    encodeMessage(pullResponseSchema, pullOfEveryLane, MSGPACK),
    encodeMessage(pushRequestSchema, pushOfEveryKind, MSGPACK),
    encodeFrame(FrameKind.batch, Uint8Array.of(1, 2), true),
    encodeFrame(FrameKind.error, Uint8Array.of(3)),
    encodeFrame(FrameKind.heartbeat),
  ].map((message) => Buffer.from(message).toString('hex'))
  const wire = JSON.parse(JSON.stringify({ shapes, laneKinds, encodings, bytes })) as unknown
  expect({
    version: PROTOCOL_VERSION,
    hash: createHash('sha256').update(canonicalJson(wire)).digest('hex').slice(0, 16),
  }).toEqual({
    version: PROTOCOL_VERSION,
    hash: hashes[PROTOCOL_VERSION],
  })
})
