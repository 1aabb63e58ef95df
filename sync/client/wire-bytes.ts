import { promisify } from 'node:util'
import { brotliCompress, brotliDecompress, constants, gunzip, gzip } from 'node:zlib'
import { AgentDBError } from '../../schema/errors.ts'
import { MESSAGE_BYTES_MAX } from '../../schema/limits.ts'
import { COMPRESSED_BYTES_MIN, type Encoding } from '../protocol/encodings.ts'

/** Most bytes of an answer, after decompression: rows of a whole scope may be more than any push. */
const ANSWER_BYTES_MAX = MESSAGE_BYTES_MAX * 8

/** From one level to the next more time saves little. */
const BROTLI_QUALITY = 3
const GZIP_LEVEL = 3

const compressors: Readonly<Record<Encoding, (bytes: Uint8Array) => Promise<Buffer>>> = {
  br: (bytes) =>
    promisify(brotliCompress)(bytes, {
      params: { [constants.BROTLI_PARAM_QUALITY]: BROTLI_QUALITY },
    }),
  gzip: (bytes) => promisify(gzip)(bytes, { level: GZIP_LEVEL }),
}

/** A request's body and its headers; compressed where it is worth it and the centre reads it. */
export async function compressBody(
  bytes: Uint8Array,
  encoding: Encoding | undefined,
): Promise<{ bytes: Uint8Array; headers: Readonly<Record<string, string>> }> {
  if (encoding === undefined || bytes.byteLength < COMPRESSED_BYTES_MIN)
    return { bytes, headers: {} }
  return { bytes: await compressors[encoding](bytes), headers: { 'content-encoding': encoding } }
}

/** What a compressed frame holds; throws `PROTOCOL` for what no centre compressed, `TOO_LARGE` beyond the limit. */
export async function inflate(
  bytes: Uint8Array,
  encoding: Encoding,
  maxOutputLength: number = ANSWER_BYTES_MAX,
): Promise<Uint8Array> {
  const decompress = encoding === 'br' ? promisify(brotliDecompress) : promisify(gunzip)
  try {
    return await decompress(bytes, { maxOutputLength })
  } catch (error) {
    if ((error as { code?: unknown }).code === 'ERR_BUFFER_TOO_LARGE')
      throw tooLarge(`a frame of the centre has more than ${maxOutputLength} bytes`)
    throw new AgentDBError('PROTOCOL', `frame: is not ${encoding}`, { cause: error })
  }
}

/** The body of an answer, decompressed on its way; cut off at the limit, whatever its length was said to be. */
export async function readBody(
  response: Response,
  bytesMax: number = ANSWER_BYTES_MAX,
): Promise<Uint8Array> {
  const pieces: Uint8Array[] = []
  let bytes = 0
  try {
    for await (const piece of (response.body ?? []) as unknown as AsyncIterable<Uint8Array>) {
      bytes += piece.byteLength
      if (bytes > bytesMax) throw tooLarge(`the centre's answer has more than ${bytesMax} bytes`)
      pieces.push(piece)
    }
  } catch (error) {
    if (error instanceof AgentDBError) throw error
    throw new AgentDBError(
      'UNREACHABLE',
      'the connection to the centre broke in the middle of an answer',
      { cause: error },
    )
  }
  return Buffer.concat(pieces)
}

const tooLarge = (message: string): AgentDBError => new AgentDBError('TOO_LARGE', message)

/** Nothing is saved on a link that never leaves the machine. */
export function isLoopback({ hostname }: URL): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(?:\.\d+){3}$/.test(hostname)
}
