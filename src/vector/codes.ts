/**
 * Vectors as small integers. A vector's direction `u` is kept as `scale * code + rest`, `code` int8; a query's as
 * `scale * code + rest`, `code` int16. The dot product of the codes tells the cosine up to what the two rests can add,
 * and by Cauchy-Schwarz that is bounded by their lengths, which are kept beside the codes.
 */
export interface Encoded {
  /** Length of the vector as it was given; 0 has no direction, and its codes are 0. */
  readonly norm: number
  readonly scale: number
  /** Length of what the codes leave of the direction, rounded up. */
  readonly error: number
}

const NOTHING: Encoded = { norm: 0, scale: 0, error: 0 }
const CODE_MAX = 127
/** Added and taken away again it leaves a whole number, several times faster than `Math.round`. */
const ROUNDER = 1.5 * 2 ** 52
/** What rounding in double precision may add to a bound, and more. */
export const SLACK = 1e-9

/** Writes the codes of a vector of finite components. */
export function encode(vector: Float32Array, codes: Int8Array): Encoded {
  return quantize(vector, codes, CODE_MAX)
}

/**
 * Writes the codes of a query. Their number of levels is the largest with which the sum of `dimension` products of a
 * level and a code stays within 32 bits.
 */
export function encodeQuery(vector: Float32Array, codes: Int16Array): Encoded {
  const levels = Math.floor((2 ** 31 - 1) / (CODE_MAX * vector.length))
  return quantize(vector, codes, Math.min(32_767, levels))
}

function quantize(vector: Float32Array, codes: Int8Array | Int16Array, levels: number): Encoded {
  const { length } = vector
  let squares = 0
  let largest = 0
  for (let i = 0; i < length; i++) {
    const component = vector[i] as number
    squares += component * component
    const size = component < 0 ? -component : component
    if (size > largest) largest = size
  }
  if (squares === 0) {
    codes.fill(0)
    return NOTHING
  }
  const norm = Math.sqrt(squares)
  // As it is kept, in single precision: the error is that of the number used later.
  const scale = Math.fround(largest / norm / levels)
  const toUnit = 1 / norm
  const toCode = 1 / scale
  let errors = 0
  for (let i = 0; i < length; i++) {
    const component = (vector[i] as number) * toUnit
    // Never beyond the levels: single precision moves the scale by far less than half a level.
    const code = component * toCode + ROUNDER - ROUNDER
    codes[i] = code
    const rest = component - code * scale
    errors += rest * rest
  }
  return { norm, scale, error: Math.fround(Math.sqrt(errors) * (1 + 1e-6)) }
}
