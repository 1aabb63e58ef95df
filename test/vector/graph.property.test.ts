import { describe, expect, test } from 'vitest'
import { pick, seededRandom, wholeBelow, type Random } from '../../bench/support/random.ts'
import { AgentDBError } from '../../src/index.ts'
import { engineNames, type EngineName } from '../../src/vector/graph/engine.ts'
import { deadLabels, Graph } from '../../src/vector/graph/graph.ts'
import { loadEngine } from '../../src/vector/graph/load-engine.ts'
import { GraphRun, place, putVectors } from '../support/graphs.ts'
import { connectionOf, openStore, scratchFolder } from '../support/store.ts'
import { cosine, nearest, randomVector, recall } from '../support/random-vectors.ts'

const DIMENSION = 8
const K = 10
const EF = 100
/** Of each engine: 100 000 together. */
const OPERATIONS = 50_000
const POPULATION = 1200

const hostileIds = [
  '__proto__',
  'constructor',
  'toString',
  '\u0000',
  "'; DROP TABLE embeddings; --",
  '💾',
  '-1',
]

const newGraph = (name: EngineName): Graph => {
  const engine = loadEngine(name)
  if (engine.kind === 'unavailable') throw new Error(engine.reason)
  return new Graph({ dimension: DIMENSION, m: 16, efConstruct: 60 }, engine.create)
}

function badVector(random: Random): unknown {
  const vector = randomVector(random, DIMENSION)
  const at = wholeBelow(random, DIMENSION)
  return pick<() => unknown>(random, [
    () => vector.fill(Number.NaN, at, at + 1),
    () => vector.fill(Number.POSITIVE_INFINITY, at, at + 1),
    () => vector.fill(0),
    () => vector.subarray(0, at),
    () => new Float32Array(DIMENSION + 1 + at).fill(1),
    () => [...vector],
    () => new Float64Array(vector),
    () => null,
  ])()
}

const codeOf = (run: () => unknown): string => {
  try {
    run()
  } catch (error) {
    if (error instanceof AgentDBError) return error.code
    throw error
  }
  return 'none'
}

/** A graph beside a plain map of what must be in it. */
class Pair {
  graph: Graph
  readonly truth = new Map<string, Float32Array>()
  readonly #name: EngineName
  readonly #random: Random
  #stamp = 0
  searches = 0
  recallSum = 0

  constructor(name: EngineName, random: Random) {
    this.#name = name
    this.#random = random
    this.graph = newGraph(name)
  }

  step(): void {
    const dice = this.#random()
    const id = this.#id()
    if (dice < 0.52) this.#set(id, randomVector(this.#random, DIMENSION))
    else if (dice < 0.87) this.#delete(id)
    else if (dice < 0.93) this.#refuses(id)
    else this.#search()
  }

  /** As the owner of a graph does when a fifth of it is dead. */
  rebuild(): void {
    this.graph = newGraph(this.#name)
    for (const [id, vector] of this.truth) this.#set(id, vector)
  }

  async reload(path: string): Promise<void> {
    const { graph } = this
    await graph.engine.save(path)
    expect(await graph.engine.isWhole(path)).toBe(true)
    const loaded = newGraph(this.#name)
    const entries = [...graph.entries()]
    await loaded.engine.load(path, deadLabels(entries, graph.nextLabel))
    expect(loaded.restore(entries, graph.nextLabel)).toBe(true)
    this.graph = loaded
  }

  #id(): string {
    if (this.#random() < 0.01) return pick(this.#random, hostileIds)
    return `id ${wholeBelow(this.#random, POPULATION)}`
  }

  #set(id: string, vector: Float32Array): void {
    this.graph.set(id, ++this.#stamp, vector)
    this.truth.set(id, vector)
  }

  #delete(id: string): void {
    if (this.graph.delete(id) !== this.truth.delete(id))
      throw new Error(`${id} was or was not there`)
  }

  #refuses(id: string): void {
    const bad = badVector(this.#random) as Float32Array
    const { size } = this.graph
    expect(codeOf(() => this.graph.set(id, 1, bad))).toBe('INVALID_VALUE')
    expect(codeOf(() => this.graph.search(bad, K, EF))).toBe('INVALID_VALUE')
    expect(codeOf(() => this.graph.set('', 1, randomVector(this.#random, DIMENSION)))).toBe(
      'INVALID_VALUE',
    )
    expect(this.graph.size).toBe(size)
  }

  #search(): void {
    const { graph, truth } = this
    const query = randomVector(this.#random, DIMENSION)
    const k = 1 + wholeBelow(this.#random, 2 * K)
    const found = graph.search(query, k, EF)
    expect(graph.size).toBe(truth.size)
    expect(new Set(found.map(({ id }) => id)).size).toBe(found.length)
    let before = 1
    for (const { id, score } of found) {
      const vector = truth.get(id)
      if (vector === undefined) throw new Error(`${id} is gone and was found`)
      if (!(score <= before)) throw new Error(`${score} comes after ${before}`)
      if (!(Math.abs(score - cosine(query, vector)) < 0.01))
        throw new Error(`${id} scores ${score}`)
      before = score
    }
    this.searches += 1
    this.recallSum += recall(found, nearest(truth, query, k))
  }
}

describe.each(engineNames)('%s under random inserts, updates, deletes and searches', (name) => {
  test.each([1, 2])(
    'finds what an exact reference finds, and nothing that is gone (seed %i)',
    async (seed) => {
      using folder = scratchFolder()
      const pair = new Pair(name, seededRandom(seed))
      let rebuilds = 0
      for (let n = 0; n < OPERATIONS / 2; n++) {
        pair.step()
        if (n % 4000 === 3999) await pair.reload(folder.file('graph'))
        if (n % 1000 === 999 && pair.graph.isWorn) {
          pair.rebuild()
          rebuilds += 1
        }
      }
      expect(pair.searches).toBeGreaterThan(1000)
      expect(rebuilds).toBeGreaterThan(5)
      expect(pair.recallSum / pair.searches).toBeGreaterThan(0.98)
    },
  )
})

describe('a graph in its thread and an exact scan of what is newer', () => {
  test('together always have the newest rows, whatever the graph has seen by then', async () => {
    const db = await openStore()
    await using run = new GraphRun(db)
    const random = seededRandom(3)
    const truth = new Map<string, Float32Array>()
    const idOf = (n: number): string => `00000000-0000-7000-8000-${n.toString().padStart(12, '0')}`
    let recalls = 0
    let searches = 0
    for (let round = 0; round < 150; round++) {
      const batch = Array.from(
        { length: 1 + wholeBelow(random, 20) },
        () => [idOf(wholeBelow(random, 500)), randomVector(random, place.dimension)] as const,
      )
      putVectors(db, batch)
      for (const [id, vector] of batch) truth.set(id, vector)
      const gone = idOf(wholeBelow(random, 500))
      if (truth.delete(gone)) db.embeddings.delete(gone)
      const graph = run.of()
      if (graph === undefined) {
        if (round === 0) await run.event('ready')
        continue
      }
      const query = randomVector(random, place.dimension)
      const { watermark } = graph
      const hits = await graph.search(query, K, EF)
      const newer = new Set(
        connectionOf(db)
          .all<{ id: string }>('SELECT id FROM embedding_changes WHERE seq > ?', watermark)
          .map(({ id }) => id),
      )
      const among = [...hits.map(({ id }) => id).filter((id) => !newer.has(id)), ...newer]
      const merged = nearest(
        among.flatMap((id) => {
          const vector = truth.get(id)
          if (vector === undefined && !newer.has(id)) throw new Error(`${id} is gone and was found`)
          return vector === undefined ? [] : [[id, vector] as const]
        }),
        query,
        K,
      )
      const wanted = nearest(truth, query, K)
      const found = new Set(merged.map(({ id }) => id))
      expect(wanted.filter(({ id }) => newer.has(id) && !found.has(id))).toEqual([])
      recalls += recall(merged, wanted)
      searches += 1
    }
    expect(searches).toBeGreaterThan(100)
    // Neighbours that are newer push others out of the k that the graph gives.
    expect(recalls / searches).toBeGreaterThan(0.95)
    await db.close()
  })
})
