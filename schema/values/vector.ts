import { ValueProblem } from './canonical-json.ts'

/**
 * A vector is stored and sent as little-endian 32-bit floats, 4 bytes a dimension.
 * NaN and infinities are refused: one of them poisons an index.
 */
export const DIMENSION_MAX = 65_535

/** Bytes of a vector; copies. */
export function encodeVector(value: unknown): Uint8Array {
  if (!(value instanceof Float32Array)) throw new ValueProblem('is not a Float32Array')
  if (value.length === 0) throw new ValueProblem('has no dimensions')
  if (value.length > DIMENSION_MAX)
    throw new ValueProblem(`has more than ${DIMENSION_MAX} dimensions`)
  const bytes = new Uint8Array(value.length * 4)
  const view = new DataView(bytes.buffer)
  for (let i = 0; i < value.length; i++) {
    const component = value[i] ?? 0
    if (!Number.isFinite(component)) throw new ValueProblem(`has ${component} at ${i}`)
    view.setFloat32(i * 4, component, true)
  }
  return bytes
}

/** The vector of stored bytes; copies, so that it is aligned and stays valid. */
export function decodeVector(bytes: Uint8Array): Float32Array {
  const vector = new Float32Array(bytes.byteLength >> 2)
  if (IS_LITTLE_ENDIAN) {
    new Uint8Array(vector.buffer).set(bytes.subarray(0, vector.byteLength))
    return vector
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let i = 0; i < vector.length; i++) vector[i] = view.getFloat32(i * 4, true)
  return vector
}

/** The vector of stored bytes, to be read at once: it shares their memory where that can be. */
export function viewVector(bytes: Uint8Array): Float32Array {
  const isAligned = bytes.byteOffset % 4 === 0 && bytes.byteLength % 4 === 0
  if (!IS_LITTLE_ENDIAN || !isAligned) return decodeVector(bytes)
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4)
}

const IS_LITTLE_ENDIAN = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1

/** The exponent of a float as it lies in memory: only NaN and the infinities have all of it set. */
const EXPONENT = new Int32Array(Uint8Array.of(0, 0, 128, 127).buffer)[0] ?? 0

/** Why stored bytes are no vector, or undefined. */
export function vectorProblem(bytes: Uint8Array): string | undefined {
  if (bytes.byteLength === 0 || bytes.byteLength % 4 !== 0) return 'is not a whole number of floats'
  if (bytes.byteLength / 4 > DIMENSION_MAX) return `has more than ${DIMENSION_MAX} dimensions`
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : new Uint8Array(bytes)
  const words = new Int32Array(aligned.buffer, aligned.byteOffset, bytes.byteLength / 4)
  for (let i = 0; i < words.length; i++) {
    if (((words[i] ?? 0) & EXPONENT) === EXPONENT) return `has ${decodeVector(bytes)[i]} at ${i}`
  }
  return undefined
}
