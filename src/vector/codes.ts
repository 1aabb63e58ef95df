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

/** What the steps of a vector's codes are made of. */
export interface Measure {
  /** Sum of the squares of its components; not finite where one of them is not. */
  readonly squares: number
  /** The largest magnitude of its components. */
  readonly largest: number
}

/** How a vector becomes codes: a component times `toUnit`, then `toCode`, rounded, is its code. */
export interface Steps {
  readonly toUnit: number
  readonly toCode: number
  /** As it is kept, in single precision: the error is that of the number used later. */
  readonly scale: number
}

/** Levels of a vector's codes on either side of 0. */
export const LEVELS = 127
/** Added and taken away again it leaves a whole number, several times faster than `Math.round`. */
const ROUNDER = 1.5 * 2 ** 52
/** What rounding in double precision may add to a bound, and more. */
export const SLACK = 1e-9

export function measure(vector: Float32Array): Measure {
  let squares = 0
  let largest = 0
  for (let i = 0; i < vector.length; i++) {
    const component = vector[i] as number
    squares += component * component
    const size = component < 0 ? -component : component
    if (size > largest) largest = size
  }
  return { squares, largest }
}

/** The steps of a vector that has a direction. */
export function stepsOf({ squares, largest }: Measure, levels: number): Steps {
  const toUnit = 1 / Math.sqrt(squares)
  const scale = Math.fround((largest * toUnit) / levels)
  return { toUnit, toCode: 1 / scale, scale }
}

/** Writes the codes; gives the sum of the squares of what they leave. */
export function quantize(
  vector: Float32Array,
  codes: Int8Array | Int16Array,
  { toUnit, toCode, scale }: Steps,
): number {
  let rests = 0
  for (let i = 0; i < vector.length; i++) {
    const component = (vector[i] as number) * toUnit
    // Never beyond the levels: single precision moves the scale by far less than half a level.
    const code = component * toCode + ROUNDER - ROUNDER
    codes[i] = code
    const rest = component - code * scale
    rests += rest * rest
  }
  return rests
}

/** Length of what the codes leave, of the sum of its squares. */
export const errorOf = (rests: number): number => Math.fround(Math.sqrt(rests) * (1 + 1e-6))

/**
 * Writes the codes of a query of finite components. Their number of levels is the largest with which the sum of
 * `dimension` products of a level and a code stays within 32 bits.
 */
export function encodeQuery(vector: Float32Array, codes: Int16Array): Encoded {
  const measured = measure(vector)
  if (measured.squares === 0) {
    codes.fill(0)
    return { norm: 0, scale: 0, error: 0 }
  }
  const levels = Math.floor((2 ** 31 - 1) / (LEVELS * vector.length))
  const steps = stepsOf(measured, Math.min(32_767, levels))
  const error = errorOf(quantize(vector, codes, steps))
  return { norm: Math.sqrt(measured.squares), scale: steps.scale, error }
}
