import type { Neighbour } from '../neighbour.ts'
import type { EngineSettings, VectorEngine } from './engine.ts'
import { checkId, checkSearch, checkSettings, checkStamp, unitVector } from './guards.ts'

/** Share of tombstones from which a graph is built anew: half dead, a search takes about twice as long. */
export const REBUILD_SHARE = 0.2
/** Below that many a rebuild gains nothing. */
export const REBUILD_TOMBSTONES_MIN = 64
const LABEL_MAX = 0xffff_fffe

/** In place of a label, for a row whose vector no graph can hold: it has no direction, or is damaged. */
export const NO_LABEL = 0xffff_ffff

/** One row of the graph, beside what the engine keeps of it. */
export interface Entry {
  readonly id: string
  readonly label: number
  /** The stamp of the change that brought it: equal stamps mean the same version of the same row. */
  readonly stamp: number
  /** Of the vector, so that a change of the payload alone does not move it in the graph. */
  readonly hash: number
}

/**
 * A graph under ids: guards everything that goes to the native engine, and maps ids to labels that are never used
 * twice. An update is a delete and an add; a deleted vector stays in the graph as a tombstone until it is rebuilt.
 */
export class Graph {
  readonly settings: EngineSettings
  readonly engine: VectorEngine
  readonly #byId = new Map<string, Entry>()
  readonly #ids = new Map<number, string>()
  #nextLabel = 0
  #unsearchable = 0

  constructor(settings: EngineSettings, create: (settings: EngineSettings) => VectorEngine) {
    const { dimension, m, efConstruct } = settings
    checkSettings(dimension, m, efConstruct)
    this.settings = settings
    this.engine = create(settings)
  }

  /** Vectors that a search can find. */
  get size(): number {
    return this.#byId.size - this.#unsearchable
  }

  /** Rows whose vector cannot be in a graph. */
  get unsearchable(): number {
    return this.#unsearchable
  }

  get entryCount(): number {
    return this.#byId.size
  }

  get tombstones(): number {
    return this.engine.tombstones
  }

  get nextLabel(): number {
    return this.#nextLabel
  }

  get isWorn(): boolean {
    const { tombstones } = this
    if (this.#nextLabel > LABEL_MAX / 2) return true
    return (
      tombstones >= REBUILD_TOMBSTONES_MIN && tombstones > REBUILD_SHARE * (this.size + tombstones)
    )
  }

  stampOf(id: string): number | undefined {
    return this.#byId.get(id)?.stamp
  }

  ids(): IterableIterator<string> {
    return this.#byId.keys()
  }

  entries(): IterableIterator<Entry> {
    return this.#byId.values()
  }

  /**
   * Adds a vector, or moves it; the same vector under a new stamp costs nothing.
   *
   * @throws AgentDBError `INVALID_VALUE`; nothing changed then
   */
  set(id: string, stamp: number, vector: Float32Array): void {
    checkId(id)
    checkStamp(stamp)
    const unit = unitVector(this.settings.dimension, vector)
    const hash = hashOf(vector)
    const known = this.#byId.get(id)
    if (known?.hash === hash && known.label !== NO_LABEL) {
      this.#byId.set(id, { ...known, stamp })
      return
    }
    if (this.#nextLabel > LABEL_MAX) throw new RangeError('the labels of the graph are used up')
    const label = this.#nextLabel
    this.engine.add(label, unit)
    this.#nextLabel += 1
    if (known !== undefined) this.#remove(known)
    this.#byId.set(id, { id, label, stamp, hash })
    this.#ids.set(label, id)
  }

  /** Notes a row that {@link set} refused: what it was before is gone, and it is known that it is not searched here. */
  leaveOut(id: string, stamp: number): void {
    this.delete(id)
    this.#byId.set(id, { id, label: NO_LABEL, stamp, hash: 0 })
    this.#unsearchable += 1
  }

  /** Whether it was there. */
  delete(id: string): boolean {
    const known = this.#byId.get(id)
    if (known === undefined) return false
    this.#remove(known)
    this.#byId.delete(id)
    return true
  }

  /** About the `k` nearest, best first; of equals the lower id. @throws AgentDBError `INVALID_VALUE` */
  search(vector: Float32Array, k: number, ef: number): Neighbour[] {
    checkSearch(k, ef)
    const unit = unitVector(this.settings.dimension, vector)
    if (this.size === 0) return []
    const { labels, scores } = this.engine.search(unit, Math.min(k, this.size), Math.max(k, ef))
    const found: Neighbour[] = []
    for (const [i, label] of labels.entries()) {
      const id = this.#ids.get(label)
      const score = scores[i] ?? Number.NaN
      if (id !== undefined && !Number.isNaN(score))
        found.push({ id, score: Math.max(-1, Math.min(1, score)) })
    }
    return found.toSorted((a, b) => b.score - a.score || (a.id < b.id ? -1 : 1))
  }

  /** Takes over what a file says; the engine has loaded its part. False when it contradicts itself. */
  restore(entries: readonly Entry[], nextLabel: number): boolean {
    for (const entry of entries) {
      if (this.#byId.has(entry.id)) return false
      this.#byId.set(entry.id, entry)
      if (entry.label === NO_LABEL) {
        this.#unsearchable += 1
        continue
      }
      if (entry.label >= nextLabel || this.#ids.has(entry.label)) return false
      this.#ids.set(entry.label, entry.id)
    }
    this.#nextLabel = nextLabel
    return true
  }

  #remove({ label }: Entry): void {
    if (label === NO_LABEL) {
      this.#unsearchable -= 1
      return
    }
    this.engine.remove(label)
    this.#ids.delete(label)
  }
}

/** Labels that the engine has and no row: each label below the next one was given once. */
export function deadLabels(entries: readonly Entry[], nextLabel: number): number[] {
  const isAlive = new Uint8Array(nextLabel)
  for (const { label } of entries) if (label < nextLabel) isAlive[label] = 1
  const dead: number[] = []
  for (let label = 0; label < nextLabel; label++) if (isAlive[label] === 0) dead.push(label)
  return dead
}

/** 53 bits of a vector's bits. */
export function hashOf(vector: Float32Array): number {
  const words = new Uint32Array(vector.buffer, vector.byteOffset, vector.length)
  let a = 0x9e3779b9
  let b = 0x85ebca6b
  for (let i = 0; i < words.length; i++) {
    const word = words[i] as number
    a = Math.imul(a ^ word, 0x01000193)
    a ^= a >>> 15
    b = Math.imul(b ^ word, 0x5bd1e995)
    b ^= b >>> 13
  }
  return (a >>> 0) * 0x20_0000 + ((b >>> 0) & 0x1f_ffff)
}
