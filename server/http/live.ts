import type { ServerResponse } from 'node:http'
import { encodeMessage, MSGPACK } from '../../sync/protocol/codec.ts'
import { encodeFrame, FrameKind, HEARTBEAT_MS, STREAM } from '../../sync/protocol/frames.ts'
import type { PullResponse } from '../../sync/protocol/messages.ts'

/** A client that takes nothing for this long is gone, whatever its socket says. */
const STALLED_MS_MAX = 60_000

/**
 * Writes batches to one client for as long as it takes them. At most one frame waits in memory: the next batch is asked
 * for when the socket has taken the last.
 */
export async function writeLive(
  response: ServerResponse,
  first: PullResponse,
  batches: AsyncGenerator<PullResponse, void>,
  failureOf: (error: unknown) => Uint8Array,
): Promise<void> {
  response.writeHead(200, {
    'content-type': STREAM,
    'cache-control': 'no-store, no-transform',
    'x-accel-buffering': 'no',
  })
  const heartbeat = setInterval(() => {
    if (response.writableLength === 0) response.write(encodeFrame(FrameKind.heartbeat))
  }, HEARTBEAT_MS)
  const send = (batch: PullResponse): Promise<boolean> =>
    write(response, encodeFrame(FrameKind.batch, encodeMessage(batch, MSGPACK)))
  try {
    if (!(await send(first))) return
    for await (const batch of batches) if (!(await send(batch))) return
  } catch (error) {
    if (!response.destroyed) response.write(encodeFrame(FrameKind.error, failureOf(error)))
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
