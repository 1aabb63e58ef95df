/** The largest number that a 16-bit float holds. */
export const HALF_MAX = 65_504

/** Keeps the 11 leading bits of a double (Veltkamp's split). */
const SPLIT = 2 ** 42 + 1
const SMALLEST_NORMAL = 2 ** -14
/** Added and taken off again, it leaves a multiple of 2^-24, the unit of the smallest halves. */
const TO_SMALLEST = 1.5 * 2 ** 28

/**
 * Each component as the nearest 16-bit float holds it. Such a vector takes half the room on the wire, and comes out of it
 * as the same numbers. Undefined where a component is beyond {@link HALF_MAX}.
 */
export function roundedToHalf(vector: Float32Array): Float32Array | undefined {
  const rounded = vector.map(half)
  return rounded.every((component) => Math.abs(component) <= HALF_MAX) ? rounded : undefined
}

function half(component: number): number {
  if (Math.abs(component) < SMALLEST_NORMAL) return component + TO_SMALLEST - TO_SMALLEST
  const scaled = component * SPLIT
  return scaled - (scaled - component)
}
