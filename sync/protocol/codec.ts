import type { z } from 'zod'
import { AgentDBError } from '../../schema/errors.ts'
import { pullResponseSchema, pushRequestSchema } from './messages.ts'
import { decodeMsgpack, encodeMsgpack } from './msgpack.ts'
import { packedPullSchema, packPull, unpackPull } from './packed-pull.ts'
import { packedPushSchema, packPush, unpackPush } from './packed-push.ts'

export const MSGPACK = 'application/x-msgpack'
export const JSON_TYPE = 'application/json'

/** How a message with rows travels in msgpack. */
interface Packing<P extends z.ZodType, T> {
  readonly schema: P
  readonly pack: (message: T) => unknown
  /** `bytes`: how long the message was, which limits what may unfold from it. */
  readonly unpack: (packed: z.infer<P>, bytes: number) => T
}

/** Binds a message to its packing, whose types are forgotten from there on. */
const packing = <P extends z.ZodType, S extends z.ZodType>(
  message: S,
  { schema, pack, unpack }: Packing<P, z.infer<S>>,
): [z.ZodType, Packing<z.ZodType, unknown>] => [
  message,
  {
    schema,
    pack: (plain) => pack(plain as z.infer<S>),
    unpack: (packed, bytes) => unpack(packed as z.infer<P>, bytes),
  },
]

const packings = new Map([
  packing(pushRequestSchema, { schema: packedPushSchema, pack: packPush, unpack: unpackPush }),
  packing(pullResponseSchema, { schema: packedPullSchema, pack: packPull, unpack: unpackPull }),
])

/** Bytes of a message: msgpack, by column where it has rows, or JSON for people (bytes as `{"$bytes": base64}`). */
export function encodeMessage<S extends z.ZodType>(
  schema: S,
  message: z.infer<S>,
  type: string,
): Uint8Array {
  if (type === MSGPACK) return encodeMsgpack(packings.get(schema)?.pack(message) ?? message)
  return new TextEncoder().encode(JSON.stringify(message, bytesToJson))
}

/** Reads and checks a message; throws `PROTOCOL` with the place of the first fault. */
export function decodeMessage<S extends z.ZodType>(
  schema: S,
  bytes: Uint8Array,
  type: string,
): z.infer<S> {
  if (!type.startsWith(MSGPACK)) return check(schema, read(bytes, type, decodeJson))
  const message = read(bytes, type, decodeMsgpack)
  const packed = packings.get(schema)
  if (packed === undefined) return check(schema, message)
  return packed.unpack(check(packed.schema, message), bytes.byteLength) as z.infer<S>
}

function read(bytes: Uint8Array, type: string, decode: (bytes: Uint8Array) => unknown): unknown {
  try {
    return decode(bytes)
  } catch (error) {
    throw new AgentDBError('PROTOCOL', `the message is not ${type}`, { cause: error })
  }
}

function check<S extends z.ZodType>(schema: S, message: unknown): z.infer<S> {
  const result = schema.safeParse(message)
  if (result.success) return result.data
  const [issue] = result.error.issues
  throw new AgentDBError(
    'PROTOCOL',
    `${issue?.path.join('.') ?? 'message'}: ${issue?.message ?? 'is not understood'}`,
  )
}

const decodeJson = (bytes: Uint8Array): unknown =>
  JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes), bytesFromJson) as unknown

function bytesToJson(this: unknown, _key: string, value: unknown): unknown {
  if (!(value instanceof Uint8Array))
    return isBufferJson(value) ? { $bytes: base64(Uint8Array.from(value.data)) } : value
  return { $bytes: base64(value) }
}

/** `Buffer` has a toJSON of its own, which runs before any replacer. */
function isBufferJson(value: unknown): value is { data: number[] } {
  return (
    typeof value === 'object' && value !== null && (value as { type?: unknown }).type === 'Buffer'
  )
}

function bytesFromJson(_key: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || !('$bytes' in value)) return value
  return Uint8Array.from(atob(String(value.$bytes)), (character) => character.charCodeAt(0))
}

function base64(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += String.fromCharCode(byte)
  return btoa(text)
}
