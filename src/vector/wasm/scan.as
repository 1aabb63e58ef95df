/**
 * Kernels of the exact scan, in AssemblyScript (TypeScript's syntax, WebAssembly's types). `npm run vectors:write`
 * compiles them into `scan-module.ts`. No allocation, no state: the caller lays out the memory and passes addresses.
 *
 * A vector is kept as a row of int8 codes, padded with zeros to a multiple of 16. The query is int16 of the same length: the
 * codes are widened to int16 on their way anyway, so eight more bits of the query cost nothing. The caller keeps the
 * query's levels so low that no sum leaves 32 bits.
 */

/** Four rows at once share each load of the query. */
// @ts-ignore: a decorator of AssemblyScript
@inline
function dotsOfFour(a: usize, b: usize, c: usize, d: usize, query: usize, stride: usize, out: usize): void {
  let sumA = i32x4.splat(0)
  let sumB = i32x4.splat(0)
  let sumC = i32x4.splat(0)
  let sumD = i32x4.splat(0)
  for (let i: usize = 0; i < stride; i += 16) {
    const low = v128.load(query + 2 * i)
    const high = v128.load(query + 2 * i, 16)
    sumA = i32x4.add(sumA, i32x4.dot_i16x8_s(v128.load8x8_s(a + i), low))
    sumB = i32x4.add(sumB, i32x4.dot_i16x8_s(v128.load8x8_s(b + i), low))
    sumC = i32x4.add(sumC, i32x4.dot_i16x8_s(v128.load8x8_s(c + i), low))
    sumD = i32x4.add(sumD, i32x4.dot_i16x8_s(v128.load8x8_s(d + i), low))
    sumA = i32x4.add(sumA, i32x4.dot_i16x8_s(v128.load8x8_s(a + i, 8), high))
    sumB = i32x4.add(sumB, i32x4.dot_i16x8_s(v128.load8x8_s(b + i, 8), high))
    sumC = i32x4.add(sumC, i32x4.dot_i16x8_s(v128.load8x8_s(c + i, 8), high))
    sumD = i32x4.add(sumD, i32x4.dot_i16x8_s(v128.load8x8_s(d + i, 8), high))
  }
  store<i32>(out, lanes(sumA))
  store<i32>(out, lanes(sumB), 4)
  store<i32>(out, lanes(sumC), 8)
  store<i32>(out, lanes(sumD), 12)
}

// @ts-ignore: a decorator of AssemblyScript
@inline
function lanes(sum: v128): i32 {
  return (
    i32x4.extract_lane(sum, 0) +
    i32x4.extract_lane(sum, 1) +
    i32x4.extract_lane(sum, 2) +
    i32x4.extract_lane(sum, 3)
  )
}

/** Dot products of `count` rows that lie one after another, as int32 from `out` on. */
export function scan(codes: usize, stride: usize, query: usize, count: u32, out: usize): void {
  let row = codes
  const end = out + 4 * (count & ~3)
  for (; out < end; out += 16) {
    dotsOfFour(row, row + stride, row + 2 * stride, row + 3 * stride, query, stride, out)
    row += 4 * stride
  }
  for (let left = count & 3; left > 0; left--) {
    one(row, query, stride, out)
    row += stride
    out += 4
  }
}

/** The same of rows anywhere: `rows` is the address of their numbers, uint32. */
export function gather(codes: usize, stride: usize, query: usize, rows: usize, count: u32, out: usize): void {
  const end = out + 4 * (count & ~3)
  for (; out < end; out += 16) {
    dotsOfFour(
      codes + <usize>load<u32>(rows) * stride,
      codes + <usize>load<u32>(rows, 4) * stride,
      codes + <usize>load<u32>(rows, 8) * stride,
      codes + <usize>load<u32>(rows, 12) * stride,
      query,
      stride,
      out,
    )
    rows += 16
  }
  for (let left = count & 3; left > 0; left--) {
    one(codes + <usize>load<u32>(rows) * stride, query, stride, out)
    rows += 4
    out += 4
  }
}

function one(row: usize, query: usize, stride: usize, out: usize): void {
  let sum = i32x4.splat(0)
  for (let i: usize = 0; i < stride; i += 8)
    sum = i32x4.add(sum, i32x4.dot_i16x8_s(v128.load8x8_s(row + i), v128.load(query + 2 * i)))
  store<i32>(out, lanes(sum))
}

/** Dot product of float32 components with a query of float64, summed in float64; `length` is a multiple of 4. */
export function dot(vector: usize, query: usize, length: usize): f64 {
  let even = f64x2.splat(0)
  let odd = f64x2.splat(0)
  for (let i: usize = 0; i < length; i += 4) {
    const low = f64x2.promote_low_f32x4(v128.load64_zero(vector + 4 * i))
    const high = f64x2.promote_low_f32x4(v128.load64_zero(vector + 4 * i, 8))
    even = f64x2.add(even, f64x2.mul(low, v128.load(query + 8 * i)))
    odd = f64x2.add(odd, f64x2.mul(high, v128.load(query + 8 * i, 16)))
  }
  const sum = f64x2.add(even, odd)
  return f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1)
}

/**
 * Sum of the squares of float32 components, and the largest of their magnitudes, both as float64 to `out`. One that is
 * not finite makes the sum so. `length` is a multiple of 4.
 */
export function measure(vector: usize, length: usize, out: usize): void {
  let even = f64x2.splat(0)
  let odd = f64x2.splat(0)
  let largest = f32x4.splat(0)
  for (let i: usize = 0; i < length; i += 4) {
    const four = v128.load(vector + 4 * i)
    const low = f64x2.promote_low_f32x4(four)
    const high = f64x2.promote_low_f32x4(v128.load64_zero(vector + 4 * i, 8))
    even = f64x2.add(even, f64x2.mul(low, low))
    odd = f64x2.add(odd, f64x2.mul(high, high))
    largest = f32x4.pmax(largest, f32x4.abs(four))
  }
  const sum = f64x2.add(even, odd)
  store<f64>(out, f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1))
  const low = max(f32x4.extract_lane(largest, 0), f32x4.extract_lane(largest, 1))
  const high = max(f32x4.extract_lane(largest, 2), f32x4.extract_lane(largest, 3))
  store<f64>(out, max(low, high), 8)
}

/**
 * Codes of float32 components: each times `toUnit`, then `toCode`, rounded. Gives the sum of the squares of what the codes,
 * times `scale`, leave of them. `length` is a multiple of 8.
 */
export function encode(vector: usize, length: usize, codes: usize, toUnit: f64, toCode: f64, scale: f64): f64 {
  const unit = f64x2.splat(toUnit)
  const code = f64x2.splat(toCode)
  const back = f64x2.splat(scale)
  let rests = f64x2.splat(0)
  for (let i: usize = 0; i < length; i += 8) {
    const at = vector + 4 * i
    const a = f64x2.mul(f64x2.promote_low_f32x4(v128.load64_zero(at)), unit)
    const b = f64x2.mul(f64x2.promote_low_f32x4(v128.load64_zero(at, 8)), unit)
    const c = f64x2.mul(f64x2.promote_low_f32x4(v128.load64_zero(at, 16)), unit)
    const d = f64x2.mul(f64x2.promote_low_f32x4(v128.load64_zero(at, 24)), unit)
    const codeA = f64x2.nearest(f64x2.mul(a, code))
    const codeB = f64x2.nearest(f64x2.mul(b, code))
    const codeC = f64x2.nearest(f64x2.mul(c, code))
    const codeD = f64x2.nearest(f64x2.mul(d, code))
    rests = f64x2.add(rests, squared(f64x2.sub(a, f64x2.mul(codeA, back))))
    rests = f64x2.add(rests, squared(f64x2.sub(b, f64x2.mul(codeB, back))))
    rests = f64x2.add(rests, squared(f64x2.sub(c, f64x2.mul(codeC, back))))
    rests = f64x2.add(rests, squared(f64x2.sub(d, f64x2.mul(codeD, back))))
    const words = i16x8.narrow_i32x4_s(integers(codeA, codeB), integers(codeC, codeD))
    v128.store64_lane(codes + i, i8x16.narrow_i16x8_s(words, words), 0)
  }
  return f64x2.extract_lane(rests, 0) + f64x2.extract_lane(rests, 1)
}

// @ts-ignore: a decorator of AssemblyScript
@inline
function squared(numbers: v128): v128 {
  return f64x2.mul(numbers, numbers)
}

/** Four whole numbers as int32. */
// @ts-ignore: a decorator of AssemblyScript
@inline
function integers(low: v128, high: v128): v128 {
  return v128.shuffle<i64>(i32x4.trunc_sat_f64x2_s_zero(low), i32x4.trunc_sat_f64x2_s_zero(high), 0, 2)
}
