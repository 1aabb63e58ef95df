/** Between 32-bit and 16-bit floats, as they lie in memory (IEEE 754), little-endian. */

/** 16-bit floats of 32-bit ones, or undefined where one of them is none: nothing is rounded. */
export function halvesOf(floats: Uint8Array): Uint8Array | undefined {
  const from = new DataView(floats.buffer, floats.byteOffset, floats.byteLength)
  const halves = new Uint8Array(floats.byteLength / 2)
  const to = new DataView(halves.buffer)
  for (let i = 0; i < floats.byteLength; i += 4) {
    const half = halfOf(from.getUint32(i, true))
    if (half === undefined) return undefined
    to.setUint16(i / 2, half, true)
  }
  return halves
}

export function floatsOf(halves: Uint8Array): Uint8Array {
  const from = new DataView(halves.buffer, halves.byteOffset, halves.byteLength)
  const floats = new Uint8Array(halves.byteLength * 2)
  const to = new DataView(floats.buffer)
  for (let i = 0; i < halves.byteLength; i += 2)
    to.setFloat32(i * 2, valueOfHalf(from.getUint16(i, true)), true)
  return floats
}

const FRACTION = 0x7f_ffff

function halfOf(bits: number): number | undefined {
  const sign = (bits >>> 16) & 0x8000
  const fraction = bits & FRACTION
  const biased = (bits >>> 23) & 0xff
  if (biased === 0) return fraction === 0 ? sign : undefined
  const exponent = biased - 127
  // NaN and the infinities are no components of a vector.
  if (exponent > 15 || exponent < -24) return undefined
  if (exponent >= -14)
    return (fraction & 0x1fff) === 0
      ? sign | ((exponent + 15) << 10) | (fraction >>> 13)
      : undefined
  const whole = fraction | 0x80_0000
  const shift = -(exponent + 1)
  const units = whole >>> shift
  return units << shift === whole ? sign | units : undefined
}

function valueOfHalf(half: number): number {
  const sign = (half & 0x8000) === 0 ? 1 : -1
  const exponent = (half >>> 10) & 0x1f
  const fraction = half & 0x3ff
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN
  return exponent === 0
    ? sign * fraction * 2 ** -24
    : sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}
