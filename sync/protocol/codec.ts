import { Packr } from 'msgpackr'
import type { z } from 'zod'
import { AgentDBError } from '../../schema/errors.ts'

export const MSGPACK = 'application/x-msgpack'
export const JSON_TYPE = 'application/json'

const packr = new Packr({ useRecords: false, int64AsType: 'number' })

/** Bytes of a message: msgpack, or JSON for people (bytes as `{"$bytes": base64}`). */
export function encodeMessage(message: unknown, type: string): Uint8Array {
  if (type === MSGPACK) return packr.pack(message)
  return new TextEncoder().encode(JSON.stringify(message, bytesToJson))
}

/** Reads and checks a message; throws `PROTOCOL` with the place of the first fault. */
export function decodeMessage<S extends z.ZodType>(
  schema: S,
  bytes: Uint8Array,
  type: string,
): z.infer<S> {
  let message: unknown
  try {
    message = type.startsWith(MSGPACK)
      ? packr.unpack(bytes)
      : (JSON.parse(
          new TextDecoder('utf-8', { fatal: true }).decode(bytes),
          bytesFromJson,
        ) as unknown)
  } catch (error) {
    throw new AgentDBError('PROTOCOL', `the message is not ${type}`, { cause: error })
  }
  const result = schema.safeParse(message)
  if (result.success) return result.data
  const [issue] = result.error.issues
  throw new AgentDBError(
    'PROTOCOL',
    `${issue?.path.join('.') ?? 'message'}: ${issue?.message ?? 'is not understood'}`,
  )
}

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
