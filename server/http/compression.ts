import { promisify } from 'node:util'
import { brotliCompress, brotliDecompress, constants, gunzip, gzip } from 'node:zlib'
import { AgentDBError } from '../../schema/errors.ts'
import { MESSAGE_BYTES_MAX } from '../../schema/limits.ts'
import { COMPRESSED_BYTES_MIN, type Encoding } from '../../sync/protocol/encodings.ts'

/** Of both the level from which on more time saves little. */
const BROTLI_QUALITY = 3
const GZIP_LEVEL = 3

const compressors: Readonly<Record<Encoding, (bytes: Uint8Array) => Promise<Buffer>>> = {
  br: (bytes) =>
    promisify(brotliCompress)(bytes, {
      params: {
        [constants.BROTLI_PARAM_QUALITY]: BROTLI_QUALITY,
        [constants.BROTLI_PARAM_SIZE_HINT]: bytes.byteLength,
      },
    }),
  gzip: (bytes) => promisify(gzip)(bytes, { level: GZIP_LEVEL }),
}

/** Compresses off the event loop what is worth it; says whether it did. */
export async function compress(
  bytes: Uint8Array,
  encoding: Encoding | undefined,
): Promise<{ bytes: Uint8Array; encoding: Encoding | undefined }> {
  if (encoding === undefined || bytes.byteLength < COMPRESSED_BYTES_MIN)
    return { bytes, encoding: undefined }
  return { bytes: await compressors[encoding](bytes), encoding }
}

const decompressors: Readonly<Record<Encoding, (bytes: Uint8Array) => Promise<Buffer>>> = {
  br: (bytes) => promisify(brotliDecompress)(bytes, { maxOutputLength: MESSAGE_BYTES_MAX }),
  gzip: (bytes) => promisify(gunzip)(bytes, { maxOutputLength: MESSAGE_BYTES_MAX }),
}

/** The body of a request as it was before it was compressed; never more than a message may have. */
export async function decompress(bytes: Buffer, encoding: string | undefined): Promise<Buffer> {
  const name = (encoding ?? 'identity').trim().toLowerCase()
  if (name === 'identity') return bytes
  if (!Object.hasOwn(decompressors, name))
    throw new AgentDBError('PROTOCOL', `content-encoding: ${name.slice(0, 40)} is not read here`)
  try {
    return await decompressors[name as Encoding](bytes)
  } catch (error) {
    if ((error as { code?: unknown }).code === 'ERR_BUFFER_TOO_LARGE')
      throw new AgentDBError(
        'TOO_LARGE',
        `a message has at most ${MESSAGE_BYTES_MAX} bytes, also after it was decompressed`,
      )
    throw new AgentDBError('PROTOCOL', `the body is not ${name}`, { cause: error })
  }
}
