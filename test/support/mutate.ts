import type { Random } from '../sim/random.ts'
import { decodeMsgpack, encodeMsgpack } from '../../sync/protocol/msgpack.ts'

/** Bytes that begin something in msgpack that is large, rare or refused. */
const telling = [
  0x00, 0x7f, 0x80, 0x8f, 0x90, 0x91, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc4, 0xc6, 0xc7, 0xc9, 0xca,
  0xcb, 0xcf, 0xd3, 0xd4, 0xd6, 0xd8, 0xd9, 0xdb, 0xdc, 0xdd, 0xde, 0xdf, 0xff,
]

const oddNumbers = [-1, 0.5, 255, 65_536, 2 ** 31, 2 ** 32, 2 ** 53, 1e308, Number.NaN, Infinity]
const oddTexts = ['', 'x', '__proto__', 'constructor', '\u0000', '😀'.repeat(300), '0'.repeat(36)]
const oddParts = [
  {},
  [],
  [[]],
  [null],
  { all: null },
  { all: {} },
  { dict: [], size: 1, index: null },
  { rows: 1e9, data: [] },
  { $bytes: 'AA==' },
  new Uint8Array(),
  Uint8Array.of(255, 255, 255, 255, 255, 255, 255),
]
const odd: readonly unknown[] = [null, true, false, ...oddNumbers, ...oddTexts, ...oddParts]

/** A frame that is broken in one of the ways in which networks, disks and attackers break them. */
export function mutate(
  random: Random,
  frame: Uint8Array,
  corpus: readonly Uint8Array[],
): Uint8Array {
  const bytes = Uint8Array.from(frame)
  const at = random.below(Math.max(1, bytes.length))
  switch (random.below(9)) {
    case 0: {
      for (let flips = random.between(1, 8); flips > 0; flips--) {
        const i = random.below(bytes.length)
        bytes[i] = (bytes[i] ?? 0) ^ (1 << random.below(8))
      }
      return bytes
    }
    case 1:
      bytes[at] = random.pick(telling) ?? 0
      return bytes
    case 2:
      return bytes.subarray(0, at)
    case 3:
      return Buffer.concat([bytes, noise(random)])
    case 4:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(random.below(bytes.length))])
    case 5: {
      const other = random.pick(corpus) ?? bytes
      return Buffer.concat([bytes.subarray(0, at), other.subarray(random.below(other.length))])
    }
    case 6: {
      for (let i = at; i < at + 4 && i < bytes.length; i++) bytes[i] = 255
      return bytes
    }
    case 7:
      return Buffer.concat([bytes.subarray(0, at), noise(random), bytes.subarray(at)])
    default:
      return mutateFields(random, frame)
  }
}

function noise(random: Random): Uint8Array {
  return Uint8Array.from({ length: random.between(1, 12) }, () => random.below(256))
}

/** Stays msgpack: a field is something else, is gone, stands twice, or has changed places with another. */
function mutateFields(random: Random, frame: Uint8Array): Uint8Array {
  let message: unknown
  try {
    message = decodeMsgpack(frame)
  } catch {
    return frame.subarray(1)
  }
  const places: { holder: Record<string, unknown>; key: string }[] = []
  collect(message, places)
  for (let changes = random.between(1, 3); changes > 0; changes--) {
    const place = random.pick(places)
    if (place === undefined) return encodeMsgpack(random.pick(odd))
    const { holder, key } = place
    const other = random.pick(places) ?? place
    const kind = random.below(4)
    if (kind === 0) holder[key] = structuredClone(random.pick(odd))
    else if (kind === 1) {
      if (Array.isArray(holder)) holder.splice(Number(key), 1)
      else delete holder[key]
    } else if (kind === 2 && Array.isArray(holder))
      holder.push(structuredClone(holder[Number(key)]))
    else {
      const value = holder[key]
      // Copies: a part that holds itself could not be packed.
      holder[key] = structuredClone(other.holder[other.key])
      other.holder[other.key] = structuredClone(value)
    }
  }
  return encodeMsgpack(message)
}

function collect(value: unknown, places: { holder: Record<string, unknown>; key: string }[]): void {
  if (typeof value !== 'object' || value === null || value instanceof Uint8Array) return
  for (const [key, member] of Object.entries(value)) {
    places.push({ holder: value as Record<string, unknown>, key })
    collect(member, places)
  }
}
