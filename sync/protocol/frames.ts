import { AgentDBError } from '../../schema/errors.ts'
import { MESSAGE_BYTES_MAX } from '../../schema/limits.ts'

/**
 * Frames of a live stream:
 *
 *   length of the payload (u32, big-endian) · kind (u8) · payload
 *
 * The highest bit of the kind says that the payload is compressed, as the client asked for. A heartbeat has no payload; a batch holds a pull response, an error the answer that a request would have got, and ends
 * the stream.
 */
export const FrameKind = { heartbeat: 0, batch: 1, error: 2 } as const
export type FrameKind = (typeof FrameKind)[keyof typeof FrameKind]

/** Media type of a live stream. */
export const STREAM = 'application/x-agentdb-stream'

/** The centre sends something at least this often; whoever hears nothing for three times as long is cut off. */
export const HEARTBEAT_MS = 10_000

const HEADER_BYTES = 5
const COMPRESSED = 0x80
/** A batch may be the whole scope, which no request could carry. */
const FRAME_BYTES_MAX = MESSAGE_BYTES_MAX * 8

export interface Frame {
  readonly kind: FrameKind
  readonly isCompressed: boolean
  readonly payload: Uint8Array
}

export function encodeFrame(
  kind: FrameKind,
  payload: Uint8Array = new Uint8Array(),
  isCompressed = false,
): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES + payload.byteLength)
  const header = new DataView(bytes.buffer)
  header.setUint32(0, payload.byteLength)
  header.setUint8(4, isCompressed ? kind | COMPRESSED : kind)
  bytes.set(payload, HEADER_BYTES)
  return bytes
}

/** Puts frames together from whatever pieces the network made of them. */
export class FrameReader {
  #pieces: Uint8Array[] = []
  #bytes = 0

  #join(): Uint8Array {
    const [first] = this.#pieces
    if (first !== undefined && this.#pieces.length === 1) return first
    const joined = new Uint8Array(this.#bytes)
    let offset = 0
    for (const piece of this.#pieces) {
      joined.set(piece, offset)
      offset += piece.byteLength
    }
    this.#pieces = [joined]
    return joined
  }

  /** Frames that a piece completes. Throws `PROTOCOL` for what no centre sends. */
  *read(piece: Uint8Array): Generator<Frame> {
    this.#pieces.push(piece)
    this.#bytes += piece.byteLength
    for (;;) {
      if (this.#bytes < HEADER_BYTES) return
      const header = this.#peekHeader()
      if (this.#bytes < HEADER_BYTES + header.length) return
      const joined = this.#join()
      const end = HEADER_BYTES + header.length
      this.#pieces = end === joined.byteLength ? [] : [joined.subarray(end)]
      this.#bytes = joined.byteLength - end
      const { kind, isCompressed } = header
      yield { kind, isCompressed, payload: joined.subarray(HEADER_BYTES, end) }
    }
  }

  #peekHeader(): { length: number; kind: FrameKind; isCompressed: boolean } {
    if ((this.#pieces[0]?.byteLength ?? 0) < HEADER_BYTES) this.#join()
    const [first = new Uint8Array()] = this.#pieces
    const view = new DataView(first.buffer, first.byteOffset, first.byteLength)
    const length = view.getUint32(0)
    const isCompressed = view.getUint8(4) >= COMPRESSED
    const kind = view.getUint8(4) & ~COMPRESSED
    if (
      !isFrameKind(kind) ||
      length > FRAME_BYTES_MAX ||
      (kind === FrameKind.heartbeat && (length > 0 || isCompressed))
    )
      throw new AgentDBError('PROTOCOL', `frame: kind ${kind} of ${length} bytes is not understood`)
    return { length, kind, isCompressed }
  }
}

const isFrameKind = (kind: number): kind is FrameKind =>
  (Object.values(FrameKind) as number[]).includes(kind)
