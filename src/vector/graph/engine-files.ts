import { open, type FileHandle } from 'node:fs/promises'

/**
 * Neither library tells that a disk was full: what it wrote is then cut short, and reading that may end the process.
 * So the length that a file must have is reckoned from what stands in it.
 */

const WINDOW_BYTES = 1 << 20

/** Reads small pieces of a file in ascending order, through a window. */
class Window {
  readonly #file: FileHandle
  readonly size: number
  #buffer = Buffer.alloc(0)
  #at = 0

  private constructor(file: FileHandle, size: number) {
    this.#file = file
    this.size = size
  }

  static async over<T>(path: string, look: (window: Window) => Promise<T>): Promise<T> {
    const file = await open(path, 'r')
    try {
      return await look(new Window(file, (await file.stat()).size))
    } finally {
      await file.close()
    }
  }

  /** `length` bytes at `position`, or undefined where the file is shorter. */
  async piece(position: number, length: number): Promise<Buffer | undefined> {
    if (position + length > this.size) return undefined
    if (this.held(position, length) === undefined) {
      const wanted = Math.min(Math.max(length, WINDOW_BYTES), this.size - position)
      const buffer = Buffer.alloc(wanted)
      const { bytesRead } = await this.#file.read(buffer, 0, wanted, position)
      if (bytesRead < length) return undefined
      this.#buffer = buffer.subarray(0, bytesRead)
      this.#at = position
    }
    return this.held(position, length)
  }

  /** The same without waiting, where the window holds it: a promise for each of a million nodes would cost a second. */
  held(position: number, length: number): Buffer | undefined {
    const from = position - this.#at
    if (from < 0 || from + length > this.#buffer.length) return undefined
    return this.#buffer.subarray(from, from + length)
  }
}

const HNSWLIB_HEAD_BYTES = 96

/** Head, nodes with their links on the ground layer, then for each node the length of its links above and the links. */
export function isWholeHnswlibFile(path: string): Promise<boolean> {
  return Window.over(path, async (window) => {
    const head = await window.piece(0, HNSWLIB_HEAD_BYTES)
    if (head === undefined) return false
    const count = Number(head.readBigUInt64LE(16))
    const nodeBytes = Number(head.readBigUInt64LE(24))
    let position = HNSWLIB_HEAD_BYTES + count * nodeBytes
    for (let node = 0; node < count; node++) {
      const length = window.held(position, 4) ?? (await window.piece(position, 4))
      if (length === undefined) return false
      position += 4 + length.readUInt32LE()
    }
    return position === window.size
  })
}

export function hnswlibNodeCount(path: string): Promise<number> {
  return Window.over(path, async (window) =>
    Number((await window.piece(16, 8))?.readBigUInt64LE() ?? 0),
  )
}

const USEARCH_HEAD_BYTES = 64
const USEARCH_GRAPH_HEAD_BYTES = 40
/** A node's key and level. */
const USEARCH_NODE_BYTES = 10
const LEVELS_AT_ONCE = 1 << 16

/** Matrix of vectors, head, head of the graph, level of each node, then the nodes: longer the higher their level. */
export function isWholeUsearchFile(path: string): Promise<boolean> {
  return Window.over(path, async (window) => {
    const shape = await window.piece(0, 8)
    if (shape === undefined) return false
    const headAt = 8 + shape.readUInt32LE(0) * shape.readUInt32LE(4)
    const head = await window.piece(headAt, USEARCH_HEAD_BYTES + USEARCH_GRAPH_HEAD_BYTES)
    if (head === undefined || head.toString('latin1', 0, 7) !== 'usearch') return false
    const count = Number(head.readBigUInt64LE(USEARCH_HEAD_BYTES))
    const linksBytes = 4 + 4 * Number(head.readBigUInt64LE(USEARCH_HEAD_BYTES + 8))
    const groundBytes = 4 + 4 * Number(head.readBigUInt64LE(USEARCH_HEAD_BYTES + 16))
    const levelsAt = headAt + head.length
    let expected = levelsAt + count * (2 + USEARCH_NODE_BYTES + groundBytes)
    for (let from = 0; from < count; from += LEVELS_AT_ONCE) {
      const some = Math.min(LEVELS_AT_ONCE, count - from)
      const levels = await window.piece(levelsAt + from * 2, some * 2)
      if (levels === undefined) return false
      for (let i = 0; i < some; i++) expected += levels.readInt16LE(i * 2) * linksBytes
    }
    return expected === window.size
  })
}
