/** Cosine of the angle between two vectors of one dimension, -1 to 1; 0 where one of them has no direction. */
export function cosine(a: Float32Array, b: Float32Array): number {
  let dot = 0
  let squaresOfA = 0
  let squaresOfB = 0
  for (let i = 0; i < a.length; i++) {
    const x = a[i] ?? 0
    const y = b[i] ?? 0
    dot += x * y
    squaresOfA += x * x
    squaresOfB += y * y
  }
  const length = Math.sqrt(squaresOfA * squaresOfB)
  return length === 0 ? 0 : dot / length
}
