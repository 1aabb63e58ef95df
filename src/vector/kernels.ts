import { AgentDBError } from '../../schema/errors.ts'
import { measure, quantize, type Measure, type Steps } from './codes.ts'
import { scanModule } from './wasm/scan-module.ts'

/**
 * Memory with the arithmetic that runs on it: WebAssembly with SIMD, or the same in plain JavaScript. Addresses are
 * bytes; what lies where is the caller's.
 *
 * - a row of codes: int8, `stride` bytes, a multiple of 16, zeros at the end
 * - a query of codes: int16, `stride` of them
 */
export interface Kernels {
  readonly kind: 'wasm-simd' | 'javascript'
  /** Changes whenever the memory grows: views are made anew. */
  readonly buffer: ArrayBuffer
  /** @throws AgentDBError `INDEX_FULL` */
  ensure(bytes: number): void
  /** Dot products of `count` adjoining rows with the query, as int32 to `out`. */
  scan(codes: number, stride: number, query: number, count: number, out: number): void
  /** The same of the rows whose numbers, uint32, are at `rows`. */
  gather(
    codes: number,
    stride: number,
    query: number,
    rows: number,
    count: number,
    out: number,
  ): void
  /** Dot product of float32 with float64, summed in float64; `length` is a multiple of 4. */
  dot(vector: number, query: number, length: number): number
  /** Of float32 components; `length` is a multiple of 4, `scratch` has 16 bytes. */
  measure(vector: number, length: number, scratch: number): Measure
  /** Writes the int8 codes of float32 components; gives the sum of the squares of what they leave. `length` is a multiple of 8. */
  encode(vector: number, length: number, codes: number, steps: Steps): number
}

const PAGE = 65_536
/** What 32-bit addresses reach. */
const BYTES_MAX = 65_536 * PAGE

/** WebAssembly where it runs with SIMD, else JavaScript: slower, the same answers. */
export function newKernels(): Kernels {
  const found = compiled()
  return found === null ? new JavaScriptKernels() : new WasmKernels(found)
}

/** What is used of it; the types of Node leave it to those of browsers. */
interface WebAssemblyApi {
  validate(bytes: Uint8Array): boolean
  readonly Module: new (bytes: Uint8Array) => object
  readonly Instance: new (module: object, imports: object) => { readonly exports: unknown }
  readonly Memory: new (descriptor: { readonly initial: number }) => WasmMemory
}

interface WasmMemory {
  readonly buffer: ArrayBuffer
  grow(pages: number): number
}

interface Compiled {
  readonly api: WebAssemblyApi
  readonly module: object
}

/** Once a process; null where the machine or the program's flags (`--jitless`) do not allow it. */
let shared: Compiled | null | undefined

function compiled(): Compiled | null {
  if (shared !== undefined) return shared
  const { WebAssembly: api } = globalThis as { readonly WebAssembly?: WebAssemblyApi }
  const bytes = Buffer.from(scanModule, 'base64')
  shared = api?.validate(bytes) === true ? { api, module: new api.Module(bytes) } : null
  return shared
}

interface Exports extends Pick<Kernels, 'scan' | 'gather' | 'dot'> {
  measure(vector: number, length: number, out: number): void
  encode(
    vector: number,
    length: number,
    codes: number,
    toUnit: number,
    toCode: number,
    scale: number,
  ): number
}

class WasmKernels implements Kernels {
  readonly kind = 'wasm-simd'
  readonly scan: Kernels['scan']
  readonly gather: Kernels['gather']
  readonly dot: Kernels['dot']
  readonly #memory: WasmMemory
  readonly #exports: Exports

  constructor({ api, module }: Compiled) {
    this.#memory = new api.Memory({ initial: 1 })
    const instance = new api.Instance(module, { env: { memory: this.#memory } })
    this.#exports = instance.exports as Exports
    const { scan, gather, dot } = this.#exports
    this.scan = scan
    this.gather = gather
    this.dot = dot
  }

  get buffer(): ArrayBuffer {
    return this.#memory.buffer
  }

  measure(vector: number, length: number, scratch: number): Measure {
    this.#exports.measure(vector, length, scratch)
    const [squares = 0, largest = 0] = new Float64Array(this.buffer, scratch, 2)
    return { squares, largest }
  }

  encode(vector: number, length: number, codes: number, steps: Steps): number {
    const { toUnit, toCode, scale } = steps
    return this.#exports.encode(vector, length, codes, toUnit, toCode, scale)
  }

  /** Growing moves nothing and untouched pages cost nothing: an eighth more each time. */
  ensure(bytes: number): void {
    const has = this.#memory.buffer.byteLength
    if (bytes <= has) return
    const pages = Math.ceil((roomFor(bytes, has) - has) / PAGE)
    try {
      this.#memory.grow(pages)
    } catch (error) {
      throw indexFull(bytes, error)
    }
  }
}

/** The same arithmetic without WebAssembly. */
export class JavaScriptKernels implements Kernels {
  readonly kind = 'javascript'
  #bytes = new Int8Array(PAGE)

  get buffer(): ArrayBuffer {
    return this.#bytes.buffer
  }

  ensure(bytes: number): void {
    if (bytes <= this.#bytes.length) return
    try {
      const grown = new Int8Array(roomFor(bytes, this.#bytes.length))
      grown.set(this.#bytes)
      this.#bytes = grown
    } catch (error) {
      throw indexFull(bytes, error)
    }
  }

  scan(codes: number, stride: number, query: number, count: number, out: number): void {
    const results = new Int32Array(this.buffer, out, count)
    for (let i = 0; i < count; i++) results[i] = this.#codeDot(codes + i * stride, stride, query)
  }

  gather(
    codes: number,
    stride: number,
    query: number,
    rows: number,
    count: number,
    out: number,
  ): void {
    const results = new Int32Array(this.buffer, out, count)
    const numbers = new Uint32Array(this.buffer, rows, count)
    for (let i = 0; i < count; i++)
      results[i] = this.#codeDot(codes + (numbers[i] as number) * stride, stride, query)
  }

  dot(vector: number, query: number, length: number): number {
    const components = new Float32Array(this.buffer, vector, length)
    const probe = new Float64Array(this.buffer, query, length)
    let sum = 0
    for (let i = 0; i < length; i++) sum += (components[i] as number) * (probe[i] as number)
    return sum
  }

  measure(vector: number, length: number): Measure {
    return measure(new Float32Array(this.buffer, vector, length))
  }

  encode(vector: number, length: number, codes: number, steps: Steps): number {
    const components = new Float32Array(this.buffer, vector, length)
    return quantize(components, new Int8Array(this.buffer, codes, length), steps)
  }

  #codeDot(row: number, stride: number, query: number): number {
    const codes = this.#bytes
    const probe = new Int16Array(this.buffer, query, stride)
    let sum = 0
    for (let i = 0; i < stride; i++) sum += (codes[row + i] as number) * (probe[i] as number)
    return sum
  }
}

function roomFor(bytes: number, has: number): number {
  if (bytes > BYTES_MAX) throw indexFull(bytes)
  return Math.min(BYTES_MAX, Math.max(bytes, has + has / 8, has + 16 * PAGE))
}

function indexFull(bytes: number, cause?: unknown): AgentDBError {
  const message = `a vector index cannot grow to ${Math.ceil(bytes / 1024 / 1024)} MiB: one has at most ${BYTES_MAX / 1024 ** 3} GiB, and the machine must have them`
  return new AgentDBError('INDEX_FULL', message, { cause })
}
