import { rm } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'
import { AgentDBError } from '../../../schema/errors.ts'
import type { Neighbour } from '../neighbour.ts'
import { readCache, writeCache, type CacheHeader, type CacheIdentity } from './cache-file.ts'
import { IN_PLACE, NEWER } from './change-source.ts'
import type { EngineAnswer, EngineName } from './engine.ts'
import { deadLabels, Graph } from './graph.ts'
import { loadEngine } from './load-engine.ts'
import type { AnswerTo, Counts, OpenAnswer, Request, Saved } from './messages.ts'

type Ask<T extends Request['type']> = Extract<Request, { type: T }>
type Available = Extract<EngineAnswer, { kind: 'available' }>

/** Adds are done in slices of that long, so that a search waits for one slice and not for the batch. */
const SLICE_MS = 2

/** A graph in the worker. Requests that change or save it take their turn; searches do not wait for them. */
export class HostedGraph {
  #graph: Graph | undefined
  #engine: Available | undefined
  #ask: Ask<'open'> | undefined
  #turn: Promise<unknown> = Promise.resolve()
  #generation = 0
  #watermark = 0
  #unseen = new Set<string>()

  handle<R extends Request>(request: R): Promise<AnswerTo<R>>
  handle(request: Request): Promise<unknown> {
    if (request.type === 'search') return this.#search(request)
    const done = this.#turn.then(() => this.#work(request))
    this.#turn = done.catch(() => undefined)
    return done
  }

  async #work(request: Exclude<Request, Ask<'search'>>): Promise<unknown> {
    switch (request.type) {
      case 'open':
        return this.#open(request)
      case 'verify':
        return this.#verify(request)
      case 'apply':
        return this.#apply(request)
      case 'save':
        return this.#save()
      case 'close':
        this.#graph = undefined
        return undefined
    }
  }

  async #search({ vector, k, ef }: Ask<'search'>): Promise<Neighbour[]> {
    return this.#mustBeOpen().search(vector, k, ef)
  }

  async #open(ask: Ask<'open'>): Promise<OpenAnswer> {
    const engine = firstAvailable(ask.spec.engines)
    if (engine.kind === 'unavailable') return { kind: 'unavailable', reason: engine.reason }
    this.#engine = engine
    this.#ask = ask
    const { refused, isLoaded } =
      ask.mayLoad && ask.spec.files !== undefined
        ? await this.#load(ask.spec.files[engine.name])
        : { refused: undefined, isLoaded: false }
    if (!isLoaded) {
      this.#graph = new Graph(ask.spec, engine.create)
      this.#watermark = 0
    }
    const answer = { kind: 'open', engine: engine.name, isLoaded, refused } as const
    return { ...answer, watermark: this.#watermark, counts: this.#counts() }
  }

  async #load(path: string): Promise<{ refused: string | undefined; isLoaded: boolean }> {
    const { ask, engine } = this.#opened()
    const read = await readCache(path, identityOf(ask, engine))
    if (read.kind === 'absent') return { refused: undefined, isLoaded: false }
    if (read.kind === 'refused') return { refused: read.reason, isLoaded: false }
    const { header, entries, enginePath } = read
    try {
      if (header.watermark > ask.head)
        return { refused: 'it is ahead of the rows', isLoaded: false }
      const graph = new Graph(ask.spec, engine.create)
      await graph.engine.load(enginePath, deadLabels(entries, header.nextLabel))
      if (!graph.restore(entries, header.nextLabel))
        return { refused: 'its table contradicts itself', isLoaded: false }
      this.#graph = graph
      this.#watermark = header.watermark
      this.#generation = header.generation
      this.#unseen = new Set(graph.ids())
      return { refused: undefined, isLoaded: true }
    } catch (error) {
      return { refused: `the engine refuses it: ${String(error)}`, isLoaded: false }
    } finally {
      await rm(enginePath, { force: true })
    }
  }

  /** Every row that the file was made of must still be that row: a stamp is never given twice. */
  async #verify({ ids, stamps, kinds, isLast }: Ask<'verify'>): Promise<boolean> {
    const graph = this.#mustBeOpen()
    for (const [i, id] of ids.entries()) {
      const kind = kinds[i]
      const known = graph.stampOf(id)
      if (kind === IN_PLACE ? known !== stamps[i] : kind !== NEWER && known !== undefined)
        return false
      this.#unseen.delete(id)
    }
    return !isLast || this.#unseen.size === 0
  }

  async #apply({ deletes, ids, stamps, vectors, watermark }: Ask<'apply'>): Promise<Counts> {
    const graph = this.#mustBeOpen()
    const { dimension } = graph.settings
    let sliceEnd = performance.now() + SLICE_MS
    for (const id of deletes) {
      graph.delete(id)
      if (performance.now() > sliceEnd) sliceEnd = await breathe()
    }
    for (const [i, id] of ids.entries()) {
      this.#set(id, stamps[i] ?? Number.NaN, vectors.subarray(i * dimension, (i + 1) * dimension))
      if (performance.now() > sliceEnd) sliceEnd = await breathe()
    }
    this.#watermark = watermark
    return this.#counts()
  }

  /** A row that cannot be in a graph must not stop what comes after it; what it was before is gone all the same. */
  #set(id: string, stamp: number, vector: Float32Array): void {
    const graph = this.#mustBeOpen()
    try {
      graph.set(id, stamp, vector)
    } catch (error) {
      if (!(error instanceof AgentDBError)) throw error
      graph.leaveOut(id, stamp)
    }
  }

  async #save(): Promise<Saved> {
    const { ask, engine } = this.#opened()
    const graph = this.#mustBeOpen()
    const path = ask.spec.files?.[engine.name]
    if (path === undefined) throw new TypeError('a store in memory has no file')
    const generation = this.#generation + 1
    const header: CacheHeader = {
      ...identityOf(ask, engine),
      generation,
      watermark: this.#watermark,
      count: graph.entryCount,
      nextLabel: graph.nextLabel,
    }
    const bytes = await writeCache({
      path,
      header,
      entries: graph.entries(),
      saveEngine: (to) => graph.engine.save(to),
      isWhole: (at) => graph.engine.isWhole(at),
    })
    this.#generation = generation
    return { bytes, generation }
  }

  #counts(): Counts {
    const { size, tombstones, isWorn, unsearchable } = this.#mustBeOpen()
    return { size, tombstones, isWorn, unsearchable }
  }

  #opened(): { ask: Ask<'open'>; engine: Available } {
    if (this.#ask === undefined || this.#engine === undefined)
      throw new TypeError('the graph is not open')
    return { ask: this.#ask, engine: this.#engine }
  }

  #mustBeOpen(): Graph {
    if (this.#graph === undefined) throw new TypeError('the graph is not open')
    return this.#graph
  }
}

async function breathe(): Promise<number> {
  await setImmediate()
  return performance.now() + SLICE_MS
}

function firstAvailable(engines: readonly EngineName[]): EngineAnswer {
  const answers = engines.map((name) => ({ name, load: () => loadEngine(name) }))
  const reasons: string[] = []
  for (const { load } of answers) {
    const answer = load()
    if (answer.kind === 'available') return answer
    reasons.push(answer.reason)
  }
  return { kind: 'unavailable', name: engines[0] ?? 'hnswlib', reason: reasons.join('; ') }
}

function identityOf({ spec }: Ask<'open'>, { build }: Available): CacheIdentity {
  const { collection, model, dimension, m, efConstruct, storeId } = spec
  return { collection, model, dimension, metric: 'cosine', build, m, efConstruct, storeId }
}
