import { Packr } from 'msgpackr'

const packr = new Packr({ useRecords: false, int64AsType: 'number' })

export const encodeMsgpack = (message: unknown): Uint8Array => packr.pack(message)

/** Arrays and maps in one another; JSON values of rows may go far down. */
const DEPTH_MAX = 512

/**
 * Reads what {@link encodeMsgpack} writes, from anyone: one value and nothing behind it; no extension types (dates,
 * sets, records, references), of which no message has any; keys that are texts; texts that are UTF-8; no array or map
 * that says it has more members than there are bytes left. Bytes are views of the message.
 *
 * msgpackr would read them too, and much that we never send: it makes arrays of the length that their header claims.
 */
export function decodeMsgpack(bytes: Uint8Array): unknown {
  const reader = new Reader(bytes)
  const value = reader.read(0)
  if (!reader.isAtEnd) throw new Error('there is something behind the message')
  return value
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

class Reader {
  readonly #bytes: Uint8Array
  readonly #view: DataView
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.byteLength
  }

  read(depth: number): unknown {
    const type = this.#unsigned(1)
    if (type < 0x80) return type
    if (type >= 0xe0) return type - 0x100
    if (type < 0x90) return this.#map(type & 0x0f, depth)
    if (type < 0xa0) return this.#array(type & 0x0f, depth)
    if (type < 0xc0) return this.#text(type & 0x1f)
    switch (type) {
      case 0xc0:
        return null
      case 0xc2:
        return false
      case 0xc3:
        return true
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#take(this.#unsigned(1 << (type - 0xc4)))
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#text(this.#unsigned(1 << (type - 0xd9)))
      case 0xdc:
      case 0xdd:
        return this.#array(this.#unsigned(2 << (type - 0xdc)), depth)
      case 0xde:
      case 0xdf:
        return this.#map(this.#unsigned(2 << (type - 0xde)), depth)
      default:
        return this.#number(type)
    }
  }

  #number(type: number): number {
    switch (type) {
      case 0xca:
        return this.#view.getFloat32(this.#skip(4))
      case 0xcb:
        return this.#view.getFloat64(this.#skip(8))
      case 0xcc:
      case 0xcd:
      case 0xce:
        return this.#unsigned(1 << (type - 0xcc))
      case 0xcf:
        return safe(this.#view.getBigUint64(this.#skip(8)))
      case 0xd0:
        return this.#view.getInt8(this.#skip(1))
      case 0xd1:
        return this.#view.getInt16(this.#skip(2))
      case 0xd2:
        return this.#view.getInt32(this.#skip(4))
      case 0xd3:
        return safe(this.#view.getBigInt64(this.#skip(8)))
      default:
        throw new Error(`type 0x${type.toString(16)} is in no message`)
    }
  }

  /** Goes on by so many bytes; returns where they begin. */
  #skip(count: number): number {
    const from = this.#at
    if (count > this.#bytes.byteLength - from) throw new Error('the message is cut short')
    this.#at = from + count
    return from
  }

  #unsigned(width: number): number {
    const from = this.#skip(width)
    if (width === 1) return this.#bytes[from] ?? 0
    return width === 2 ? this.#view.getUint16(from) : this.#view.getUint32(from)
  }

  #take(length: number): Uint8Array {
    const from = this.#skip(length)
    return this.#bytes.subarray(from, from + length)
  }

  #text(length: number): string {
    const from = this.#skip(length)
    if (length > 32) return utf8.decode(this.#bytes.subarray(from, from + length))
    let text = ''
    for (let i = from; i < from + length; i++) {
      const byte = this.#bytes[i] ?? 0
      if (byte >= 0x80) return utf8.decode(this.#bytes.subarray(from, from + length))
      text += String.fromCharCode(byte)
    }
    return text
  }

  /** Every member has a byte at least: what claims more allocates nothing. */
  #mustFit(members: number, depth: number): void {
    if (members > this.#bytes.byteLength - this.#at) throw new Error('the message is cut short')
    if (depth >= DEPTH_MAX) throw new Error(`it is nested deeper than ${DEPTH_MAX}`)
  }

  #array(length: number, depth: number): unknown[] {
    this.#mustFit(length, depth)
    const members: unknown[] = []
    for (let i = 0; i < length; i++) members.push(this.read(depth + 1))
    return members
  }

  #map(length: number, depth: number): Record<string, unknown> {
    this.#mustFit(2 * length, depth)
    const members: Record<string, unknown> = {}
    for (let i = 0; i < length; i++) {
      const key = this.read(depth + 1)
      if (typeof key !== 'string') throw new Error('a key is no text')
      const value = this.read(depth + 1)
      // JSON of rows may have such a key; assigned, it would be the object's prototype.
      if (key === '__proto__')
        Object.defineProperty(members, key, { value, enumerable: true, configurable: true })
      else members[key] = value
    }
    return members
  }
}

function safe(value: bigint): number {
  const number = Number(value)
  if (!Number.isSafeInteger(number)) throw new Error('an integer is beyond 2^53')
  return number
}
