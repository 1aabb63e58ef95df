import { setImmediate } from 'node:timers/promises'
import { AgentDBError } from '../../../schema/errors.ts'
import type { Neighbour } from '../neighbour.ts'
import type { GraphIndex } from '../graph-index.ts'
import type { VectorSpace } from '../vector-space.ts'
import type { ChangeSource } from './change-source.ts'
import type { EngineName } from './engine.ts'
import { unavailable, type GraphThread } from './graph-thread.ts'
import { checkSearch, unitVector } from './guards.ts'
import type { Counts, GraphSpec, Saved } from './messages.ts'

/** Something that an operator may want to know of. Searches are right whatever it is. */
export interface GraphEvent extends VectorSpace {
  readonly kind:
    | 'ready'
    | 'rebuilt'
    | 'saved'
    | 'file-refused'
    | 'save-failed'
    | 'interrupted'
    | 'unavailable'
  readonly message: string
}

export interface GraphStatus extends VectorSpace {
  /**
   * `building`: it is loaded, checked or built, and searches scan; `ready`: it is searched; `restarting`: its thread
   * ended; `unavailable`: no engine can be loaded here.
   */
  readonly state: 'building' | 'ready' | 'restarting' | 'unavailable' | 'closed'
  readonly engine: EngineName | undefined
  /** Vectors in the graph. */
  readonly size: number
  /** Deleted vectors that are still in it; it is built anew when they are more than a fifth. */
  readonly tombstones: number
  /** Rows whose vector no graph can hold, such as one of zeros. */
  readonly unsearchable: number
  /** Changes that it has not seen yet. */
  readonly behind: number
  /** The last file that was written. */
  readonly saved: Saved | undefined
  /** What went wrong last; undefined again once it went right. */
  readonly problem: string | undefined
}

export interface FollowOptions {
  readonly spec: GraphSpec
  readonly source: ChangeSource
  readonly thread: GraphThread
  readonly nextNumber: () => number
  readonly onEvent: (event: GraphEvent) => void
  /** How long a save that failed is not tried again. */
  readonly saveRetryMs: number
}

/** A graph that the thread holds. */
interface Held {
  readonly number: number
  readonly life: number
  readonly engine: EngineName
  watermark: number
  /** Up to there nothing can have been in the graph that is not in the place any more. */
  readonly deletesAfter: number
  /** The last change that was forgotten when it was opened: nothing that is in it went before. */
  readonly forgotten: number
  counts: Counts
  /** Changes since the file. */
  unsaved: number
  hasFile: boolean
}

const SAVE_CHANGES_MIN = 1000
const SAVE_SHARE = 0.1
const SAVE_AT_CLOSE_MIN = 100
const SAVE_AT_CLOSE_SHARE = 0.01
const RETRY_MS_FIRST = 100
const RETRY_MS_MAX = 60_000

/**
 * The graph of one place. It follows the rows in the background, by itself:
 *
 *     open ──file──▶ verify ──▶ catch up ──▶ ready ◀──▶ catch up, save, rebuild
 *       ▲   └─none, refused──────▲   │
 *       └────────thread ended────────┴── any of them
 */
export class FollowedGraph implements GraphIndex {
  readonly place: VectorSpace
  readonly #options: FollowOptions
  /** The graph that is searched. */
  #held: Held | undefined
  /** The graph that is being built, or that one. */
  #newest: Held | undefined
  #state: GraphStatus['state'] = 'building'
  #saved: Saved | undefined
  #problem: string | undefined
  #mayLoad = true
  #saveNotBefore = 0
  #retryMs = RETRY_MS_FIRST
  #wake: (() => void) | undefined

  constructor(options: FollowOptions) {
    const { collection, model, dimension } = options.spec
    this.place = { collection, model, dimension }
    this.#options = options
  }

  get size(): number {
    return this.#held?.counts.size ?? 0
  }

  get watermark(): number {
    return this.#held?.watermark ?? 0
  }

  /** Whether a search would be answered: the graph has once seen all there was, and its thread runs. */
  get isReady(): boolean {
    return this.#state === 'ready' && this.#isAlive(this.#held)
  }

  get isAtFile(): boolean {
    return this.#options.thread.isAtFile
  }

  async search(vector: Float32Array, k: number, ef: number): Promise<Neighbour[]> {
    checkSearch(k, ef)
    const unit = unitVector(this.place.dimension, vector)
    const held = this.#held
    if (held === undefined || !this.isReady) throw unavailable('it is not there yet')
    const transfer = [unit.buffer as ArrayBuffer]
    const request = { type: 'search', graph: held.number, vector: unit, k, ef } as const
    return this.#options.thread.call(request, transfer, true)
  }

  status(): GraphStatus {
    const { source } = this.#options
    const shown = this.#held ?? this.#newest
    const { size = 0, tombstones = 0, unsearchable = 0 } = shown?.counts ?? {}
    return {
      ...this.place,
      state: this.#state === 'ready' && !this.isReady ? 'restarting' : this.#state,
      engine: shown?.engine,
      size,
      tombstones,
      unsearchable,
      behind: source.isOpen ? Math.max(0, source.head() - (shown?.watermark ?? 0)) : 0,
      saved: this.#saved,
      problem: this.#problem,
    }
  }

  /** Never throws and never ends before {@link close}: what goes wrong is told and tried again. */
  async follow(): Promise<void> {
    while (this.#state !== 'closed') {
      try {
        const held = await this.#open()
        if (held === undefined) return
        await this.#keepUp(held)
      } catch (error) {
        if (!this.#goesOn()) return
        await this.#interrupted(error)
        const pauseMs = Math.max(this.#options.thread.pauseMs(), this.#retryMs)
        this.#retryMs = Math.min(this.#retryMs * 2, RETRY_MS_MAX)
        await this.#sleep(pauseMs)
      }
    }
  }

  /** Looks for changes now, instead of at the next turn of the clock. */
  poke(): void {
    const { source, thread } = this.#options
    if (this.#state !== 'ready' || !source.isOpen) return
    const isBehind = source.head() > this.watermark
    if (isBehind || !this.#isAlive(this.#held) || thread.pauseMs() > 0 || this.#mustSave())
      this.#wake?.()
  }

  /** Saves what is worth it. The thread is its owner's to end. */
  async close(): Promise<void> {
    const held = this.#held
    const isWorthIt =
      held !== undefined &&
      this.isReady &&
      held.unsaved >= Math.max(SAVE_AT_CLOSE_MIN, SAVE_AT_CLOSE_SHARE * held.counts.size)
    this.#state = 'closed'
    this.#wake?.()
    if (isWorthIt) await this.#save(held, true)
  }

  async #open(): Promise<Held | undefined> {
    const held = await this.#openOne(this.#mayLoad)
    if (held === undefined) return undefined
    if (held.hasFile && !(await this.#verify(held))) {
      this.#refused('rows are not what they were when it was written')
      this.#mayLoad = false
      await this.#release(held)
      return this.#openOne(false)
    }
    return held
  }

  async #openOne(mayLoad: boolean): Promise<Held | undefined> {
    const { spec, thread, source, nextNumber } = this.#options
    const number = nextNumber()
    const head = source.head()
    const forgotten = source.forgotten()
    const answer = await thread.call({ type: 'open', graph: number, spec, head, mayLoad })
    if (answer.kind === 'unavailable') {
      this.#problem = answer.reason
      this.#state = 'unavailable'
      this.#tell('unavailable', answer.reason)
      return undefined
    }
    const { engine, isLoaded, refused, watermark, counts } = answer
    if (refused !== undefined) this.#refused(refused)
    const deletesAfter = isLoaded ? 0 : head
    const { life } = thread
    const fresh = { number, life, engine, watermark, deletesAfter, forgotten, counts }
    this.#newest = { ...fresh, unsaved: 0, hasFile: isLoaded }
    return this.#newest
  }

  async #verify({ number, watermark }: Held): Promise<boolean> {
    const { source, thread } = this.#options
    for (let after = 0; ;) {
      const { ids, stamps, kinds, last } = source.stamps(this.place, after, watermark)
      const isLast = last === after
      const request = { type: 'verify', graph: number, ids, stamps, kinds, isLast } as const
      if (!(await thread.call(request, [stamps.buffer, kinds.buffer]))) return false
      if (isLast) return true
      after = last
    }
  }

  async #keepUp(first: Held): Promise<void> {
    let held = first
    while (this.#goesOn()) {
      await this.#catchUp(held)
      if (!this.#goesOn()) return
      if (this.#held !== held) this.#serve(held)
      if (held.counts.isWorn) held = await this.#rebuilt()
      else if (this.#mustSave()) await this.#save(held, false)
      else if (this.#options.source.head() === held.watermark) await this.#change()
      if (!this.#isAlive(held)) throw unavailable('its thread has ended')
    }
  }

  #serve(held: Held): void {
    this.#held = held
    this.#state = 'ready'
    this.#retryMs = RETRY_MS_FIRST
    this.#mayLoad = true
    this.#problem = undefined
    this.#tell('ready', `${held.counts.size} vectors`)
  }

  async #catchUp(held: Held): Promise<void> {
    const { source, thread } = this.#options
    while (this.#goesOn()) {
      const slice = source.changes(this.place, held.watermark, held.deletesAfter)
      if (source.forgotten() > Math.max(held.watermark, held.forgotten)) this.#giveUp()
      const { ids, stamps, vectors, deletes, last } = slice
      if (last === held.watermark) return
      if (ids.length + deletes.length > 0) {
        held.counts = await thread.call(
          {
            type: 'apply',
            graph: held.number,
            deletes,
            ids,
            stamps,
            vectors,
            watermark: last,
          },
          [stamps.buffer, vectors.buffer],
        )
      } else await setImmediate()
      held.unsaved += ids.length
      held.watermark = last
    }
  }

  /** Rows may be gone from under it without a word; opened again, it is made of those that are there. */
  #giveUp(): never {
    throw new Error('it was too far behind: rows that went meanwhile are forgotten')
  }

  /** Beside the old one, which is searched until the new one knows as much. */
  async #rebuilt(): Promise<Held> {
    const old = this.#held
    const held = await this.#openOne(false)
    if (held === undefined) throw unavailable('its engine is not there any more')
    await this.#catchUp(held)
    if (!this.#goesOn()) return held
    this.#held = held
    if (old !== undefined) await this.#release(old)
    this.#tell('rebuilt', `${held.counts.size} vectors`)
    return held
  }

  #mustSave(): boolean {
    const held = this.#held
    if (held === undefined || this.#options.spec.files === undefined) return false
    if (performance.now() < this.#saveNotBefore) return false
    if (!held.hasFile) return true
    return held.unsaved >= Math.max(SAVE_CHANGES_MIN, SAVE_SHARE * held.counts.size)
  }

  async #save(held: Held, isForeground: boolean): Promise<void> {
    if (this.#options.spec.files === undefined) return
    const { unsaved } = held
    try {
      const request = { type: 'save', graph: held.number } as const
      this.#saved = await this.#options.thread.call(request, [], isForeground)
      held.hasFile = true
      held.unsaved -= unsaved
      this.#problem = undefined
      this.#tell('saved', `${this.#saved.bytes} bytes`)
    } catch (error) {
      if (error instanceof AgentDBError && error.code === 'VECTOR_INDEX_UNAVAILABLE') throw error
      this.#saveNotBefore = performance.now() + this.#options.saveRetryMs
      this.#problem = `its file cannot be written: ${text(error)}`
      this.#tell('save-failed', this.#problem)
    }
  }

  #refused(reason: string): void {
    this.#tell('file-refused', `its file is not used: ${reason}`)
  }

  async #interrupted(error: unknown): Promise<void> {
    const left = new Set([this.#held, this.#newest])
    if (this.#state === 'ready') this.#state = 'restarting'
    this.#held = undefined
    this.#newest = undefined
    this.#problem = text(error)
    this.#tell('interrupted', this.#problem)
    for (const held of left) if (held !== undefined) await this.#release(held)
  }

  /** The thread need not keep it any longer. Where the thread ended, it does not. */
  async #release(held: Held): Promise<void> {
    const request = { type: 'close', graph: held.number } as const
    if (this.#isAlive(held)) await this.#options.thread.call(request).catch(() => undefined)
  }

  #goesOn(): boolean {
    return this.#state !== 'closed' && this.#options.source.isOpen
  }

  #isAlive(held: Held | undefined): boolean {
    const { thread } = this.#options
    return held !== undefined && thread.isRunning && thread.life === held.life
  }

  #change(): Promise<void> {
    return new Promise((done) => {
      this.#wake = done
    })
  }

  #sleep(ms: number): Promise<void> {
    return new Promise((done) => {
      this.#wake = done
      setTimeout(done, ms).unref()
    })
  }

  #tell(kind: GraphEvent['kind'], message: string): void {
    this.#options.onEvent({ ...this.place, kind, message })
  }
}

const text = (error: unknown): string => (error instanceof Error ? error.message : String(error))
