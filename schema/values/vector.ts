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
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let i = 0; i < vector.length; i++) vector[i] = view.getFloat32(i * 4, true)
  return vector
}

/** Why stored bytes are no vector, or undefined. */
export function vectorProblem(bytes: Uint8Array): string | undefined {
  if (bytes.byteLength === 0 || bytes.byteLength % 4 !== 0) return 'is not a whole number of floats'
  if (bytes.byteLength / 4 > DIMENSION_MAX) return `has more than ${DIMENSION_MAX} dimensions`
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let i = 0; i < bytes.byteLength; i += 4) {
    if (!Number.isFinite(view.getFloat32(i, true)))
      return `has ${view.getFloat32(i, true)} at ${i / 4}`
  }
  return undefined
}
