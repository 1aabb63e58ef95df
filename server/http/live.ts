import type { ServerResponse } from 'node:http'
import type { z } from 'zod'
import { encodeMessage, JSON_TYPE, MSGPACK } from '../../sync/protocol/codec.ts'
import type { Encoding } from '../../sync/protocol/encodings.ts'
import { encodeFrame, FrameKind, HEARTBEAT_MS, STREAM } from '../../sync/protocol/frames.ts'
import {
  errorResponseSchema,
  pullResponseSchema,
  type PullResponse,
} from '../../sync/protocol/messages.ts'
import { compress } from './compression.ts'

/** A client that takes nothing for this long is gone, whatever its socket says. */
const STALLED_MS_MAX = 60_000

type ErrorResponse = z.infer<typeof errorResponseSchema>

/** What a live stream is made of. */
export interface LiveForm {
  readonly contentType: string
  readonly heartbeat: Uint8Array
  batch(batch: PullResponse): Promise<Uint8Array>
  error(error: ErrorResponse): Uint8Array
}

/** Frames of msgpack, for agents. A batch that is long is compressed by itself, so that whoever comes late reads it too. */
export const framesForm = (encoding: Encoding | undefined): LiveForm => ({
  contentType: STREAM,
  heartbeat: encodeFrame(FrameKind.heartbeat),
  async batch(batch) {
    const packed = await compress(encodeMessage(pullResponseSchema, batch, MSGPACK), encoding)
    return encodeFrame(FrameKind.batch, packed.bytes, packed.encoding !== undefined)
  },
  error: (error) =>
    encodeFrame(FrameKind.error, encodeMessage(errorResponseSchema, error, MSGPACK)),
})

/** Lines of JSON, for people: `{"heartbeat":true}`, `{"batch":{...}}`, `{"error":{...}}`. */
export const linesForm: LiveForm = {
  contentType: 'application/x-ndjson',
  heartbeat: line('heartbeat', 'true'),
  batch: async (batch) => line('batch', jsonOf(pullResponseSchema, batch)),
  error: (error) => line('error', jsonOf(errorResponseSchema, error)),
}

function line(kind: string, json: string): Uint8Array {
  return Buffer.from(`{"${kind}":${json}}\n`)
}

const jsonOf = <S extends z.ZodType>(schema: S, message: z.infer<S>): string =>
  Buffer.from(encodeMessage(schema, message, JSON_TYPE)).toString()

/**
 * Writes batches to one client for as long as it takes them. At most one frame waits in memory: the next batch is asked
 * for when the socket has taken the last.
 */
export async function writeLive(
  response: ServerResponse,
  form: LiveForm,
  first: PullResponse,
  batches: AsyncGenerator<PullResponse, void>,
  failureOf: (error: unknown) => ErrorResponse,
): Promise<void> {
  response.writeHead(200, {
    'content-type': form.contentType,
    'cache-control': 'no-store, no-transform',
    'x-accel-buffering': 'no',
  })
  const heartbeat = setInterval(() => {
    if (response.writableLength === 0) response.write(form.heartbeat)
  }, HEARTBEAT_MS)
  const send = async (batch: PullResponse): Promise<boolean> =>
    write(response, await form.batch(batch))
  try {
    if (!(await send(first))) return
    for await (const batch of batches) if (!(await send(batch))) return
  } catch (error) {
    if (!response.destroyed) response.write(form.error(failureOf(error)))
  } finally {
    clearInterval(heartbeat)
    response.end()
  }
}

/** False when the client is gone or has taken nothing for too long. */
async function write(response: ServerResponse, frame: Uint8Array): Promise<boolean> {
  if (response.destroyed) return false
  if (response.write(frame)) return true
  return new Promise((done) => {
    const finish = (isTaken: boolean): void => {
      clearTimeout(timer)
      response.off('drain', onDrain)
      response.off('close', onClose)
      if (!isTaken) response.destroy()
      done(isTaken)
    }
    const onDrain = (): void => finish(true)
    const onClose = (): void => finish(false)
    const timer = setTimeout(onClose, STALLED_MS_MAX)
    response.on('drain', onDrain)
    response.on('close', onClose)
  })
}
