import { readFileSync, writeFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { seededRandom } from '../../bench/support/random.ts'
import {
  engineNames,
  type EngineSettings,
  type VectorEngine,
} from '../../src/vector/graph/engine.ts'
import { deadLabels, Graph, REBUILD_SHARE } from '../../src/vector/graph/graph.ts'
import { GRAPH_EF_MAX, GRAPH_K_MAX } from '../../src/vector/graph/guards.ts'
import { loadEngine } from '../../src/vector/graph/load-engine.ts'
import { errorOf, scratchFolder } from '../support/store.ts'
import { nearest, randomVector, recall } from '../support/random-vectors.ts'

const DIMENSION = 16

/** What every engine must do behind the guards of a graph. Those that are not installed here fail, loudly. */
describe.each(engineNames)('a graph of %s', (name) => {
  const create = (settings: EngineSettings): VectorEngine => {
    const engine = loadEngine(name)
    if (engine.kind === 'unavailable') throw new Error(engine.reason)
    return engine.create(settings)
  }
  const newGraph = (dimension = DIMENSION): Graph =>
    new Graph({ dimension, m: 16, efConstruct: 100 }, create)

  function filled(
    count: number,
    dimension = DIMENSION,
    seed = 1,
  ): [Graph, Map<string, Float32Array>] {
    const random = seededRandom(seed)
    const graph = newGraph(dimension)
    const vectors = new Map<string, Float32Array>()
    for (let i = 0; i < count; i++) {
      const vector = randomVector(random, dimension)
      vectors.set(`v${i}`, vector)
      graph.set(`v${i}`, i, vector)
    }
    return [graph, vectors]
  }

  function meanRecall(graph: Graph, vectors: Map<string, Float32Array>, ef: number): number {
    const random = seededRandom(99)
    let sum = 0
    for (let n = 0; n < 40; n++) {
      const query = randomVector(random, graph.settings.dimension)
      sum += recall(graph.search(query, 10, ef), nearest(vectors, query, 10))
    }
    return sum / 40
  }

  test('finds what an exact scan finds, in its order and with its scores', () => {
    const [graph, vectors] = filled(2000)
    const query = randomVector(seededRandom(7), DIMENSION)
    const found = graph.search(query, 10, 500)
    const wanted = nearest(vectors, query, 10)
    expect(found.map(({ id }) => id)).toEqual(wanted.map(({ id }) => id))
    for (const [i, { score }] of found.entries())
      expect(score).toBeCloseTo(wanted[i]?.score ?? Number.NaN, 2)
    expect(meanRecall(graph, vectors, 200)).toBeGreaterThan(0.98)
  })

  test('finds more with a larger ef, from search to search', () => {
    const [graph, vectors] = filled(2500, 32)
    const [low, high, again] = [10, 400, 10].map((ef) => meanRecall(graph, vectors, ef))
    expect(high).toBeGreaterThan((low ?? 1) + 0.02)
    expect(again).toBe(low)
  })

  test('grows past its first capacity', () => {
    const [graph, vectors] = filled(4000, 4)
    expect(graph.size).toBe(4000)
    expect(meanRecall(graph, vectors, 100)).toBeGreaterThan(0.98)
  })

  test('is empty at first, and gives what it has when more is asked for', () => {
    const graph = newGraph()
    const query = randomVector(seededRandom(3), DIMENSION)
    expect(graph.search(query, 10, 50)).toEqual([])
    graph.set('only', 1, query)
    expect(graph.search(query, GRAPH_K_MAX, GRAPH_EF_MAX).map(({ id }) => id)).toEqual(['only'])
  })

  test('a deleted vector is not found; its id may come back with another', () => {
    const [graph, vectors] = filled(500)
    const query = vectors.get('v7') ?? new Float32Array()
    expect(graph.search(query, 1, 50)).toMatchObject([{ id: 'v7' }])
    expect(graph.delete('v7')).toBe(true)
    expect(graph.delete('v7')).toBe(false)
    expect(graph.search(query, 500, 500).map(({ id }) => id)).not.toContain('v7')
    graph.set(
      'v7',
      1000,
      query.map((component) => -component),
    )
    expect(graph.search(query, 1, 50)[0]?.id).not.toBe('v7')
    expect(
      graph.search(
        query.map((component) => -component),
        1,
        50,
      ),
    ).toMatchObject([{ id: 'v7' }])
    expect(graph.size).toBe(500)
  })

  test('an updated vector is found where it is now, once', () => {
    const [graph, vectors] = filled(500)
    const there = vectors.get('v2') ?? new Float32Array()
    for (let stamp = 1000; stamp < 1010; stamp++)
      graph.set('v1', stamp, randomVector(seededRandom(stamp), DIMENSION))
    graph.set('v1', 2000, there)
    const found = graph.search(there, 500, 500).map(({ id }) => id)
    expect(found.slice(0, 2).toSorted()).toEqual(['v1', 'v2'])
    expect(found.filter((id) => id === 'v1')).toHaveLength(1)
    expect(graph.size).toBe(500)
  })

  test('all may be deleted, and others come', () => {
    const [graph, vectors] = filled(300)
    for (const id of vectors.keys()) graph.delete(id)
    const vector = randomVector(seededRandom(5), DIMENSION)
    expect(graph.search(vector, 10, 100)).toEqual([])
    graph.set('new', 1, vector)
    expect(graph.search(vector, 10, 100)).toMatchObject([{ id: 'new' }])
  })

  test('the same vector under a new stamp does not move, and leaves no tombstone', () => {
    const [graph, vectors] = filled(100)
    for (const [id, vector] of vectors) graph.set(id, 5000, vector)
    expect(graph.tombstones).toBe(0)
    expect(graph.stampOf('v1')).toBe(5000)
    expect(graph.nextLabel).toBe(100)
  })

  test('goes on through thousands of deletes and adds', () => {
    const [graph, vectors] = filled(200)
    const random = seededRandom(6)
    for (let n = 0; n < 6000; n++) {
      const id = `v${n % 200}`
      const vector = randomVector(random, DIMENSION)
      graph.delete(id)
      graph.set(id, n, vector)
      vectors.set(id, vector)
    }
    expect([graph.size, graph.isWorn]).toEqual([200, true])
    const query = randomVector(random, DIMENSION)
    expect(graph.search(query, 10, 400)).toHaveLength(10)
    expect(meanRecall(graph, vectors, 400)).toBeGreaterThan(0.95)
  })

  test('is worn once tombstones are more than a fifth', () => {
    const [graph] = filled(1000)
    const most = 1000 * REBUILD_SHARE
    for (let i = 0; i < most; i++) graph.delete(`v${i}`)
    expect([graph.tombstones, graph.isWorn]).toEqual([most, false])
    graph.delete(`v${most}`)
    expect(graph.isWorn).toBe(true)
  })

  test.each([
    ['an array', [1, 2]],
    ['64-bit floats', new Float64Array(DIMENSION)],
    ['nothing', undefined],
    ['too few dimensions', new Float32Array(DIMENSION - 1).fill(1)],
    ['too many dimensions', new Float32Array(DIMENSION + 1).fill(1)],
    ['NaN', new Float32Array(DIMENSION).fill(1).fill(Number.NaN, 3, 4)],
    ['infinity', new Float32Array(DIMENSION).fill(1).fill(Number.NEGATIVE_INFINITY, 3, 4)],
    ['zeros', new Float32Array(DIMENSION)],
  ])('refuses %s, to store and to search, and is what it was', (_what, bad) => {
    const [graph, vectors] = filled(300)
    const vector = bad as Float32Array
    expect(errorOf(() => graph.set('bad', 1, vector)).code).toBe('INVALID_VALUE')
    expect(errorOf(() => graph.set('v1', 1, vector)).code).toBe('INVALID_VALUE')
    expect(errorOf(() => graph.search(vector, 10, 50)).code).toBe('INVALID_VALUE')
    expect([graph.size, graph.tombstones, graph.stampOf('v1')]).toEqual([300, 0, 1])
    expect(meanRecall(graph, vectors, 300)).toBeGreaterThan(0.99)
  })

  test.each([0, -1, 1.5, Number.NaN, GRAPH_K_MAX + 1, '10', undefined])(
    'refuses %s as k or ef',
    (bad) => {
      const [graph, vectors] = filled(10)
      const query = vectors.get('v1') ?? new Float32Array()
      expect(errorOf(() => graph.search(query, bad as number, 10)).code).toBe('INVALID_VALUE')
      expect(errorOf(() => graph.search(query, 10, bad as number)).code).toBe('INVALID_VALUE')
    },
  )

  test.each([0, -1, 1.5, 65_536, Number.NaN])('refuses %s dimensions', (dimension) => {
    expect(errorOf(() => newGraph(dimension)).code).toBe('INVALID_VALUE')
  })

  test('takes ids that are names of things in JavaScript, or long, or not ASCII; refuses others', () => {
    const graph = newGraph()
    const random = seededRandom(8)
    const ids = [
      '__proto__',
      'constructor',
      'ключ',
      '\u0000',
      ' ',
      '💾'.repeat(100),
      '-1',
      '4294967296',
    ]
    const vectors = new Map(ids.map((id) => [id, randomVector(random, DIMENSION)]))
    for (const [id, vector] of vectors) graph.set(id, 1, vector)
    for (const [id, vector] of vectors) expect(graph.search(vector, 1, 50)).toMatchObject([{ id }])
    const [vector = new Float32Array()] = vectors.values()
    for (const id of ['', 'x'.repeat(201), 7, null, undefined])
      expect(errorOf(() => graph.set(id as string, 1, vector)).code).toBe('INVALID_VALUE')
    expect(errorOf(() => graph.set('x', -1, vector)).code).toBe('INVALID_VALUE')
  })

  test('compares directions, however long the vectors are, and wherever in a buffer they lie', () => {
    const [graph, vectors] = filled(200)
    const direction = vectors.get('v9') ?? new Float32Array()
    for (const scale of [1e-38, 1e-20, 1e20, 1e38]) {
      const query = direction.map((component) => component * scale)
      expect(graph.search(query, 1, 200)).toMatchObject([{ id: 'v9' }])
      graph.set(
        `at ${scale}`,
        1,
        randomVector(seededRandom(scale), DIMENSION).map((x) => x * scale),
      )
    }
    const shifted = new Float32Array(DIMENSION * 3).fill(9)
    shifted.set(direction, DIMENSION)
    const view = shifted.subarray(DIMENSION, 2 * DIMENSION)
    expect(graph.search(view, 1, 200)).toMatchObject([{ id: 'v9' }])
    graph.set('view', 1, view)
    expect(graph.search(direction, 2, 200).map(({ id }) => id)).toContain('view')
    expect(direction).toEqual(view)
  })

  test('what it saved it loads: the same answers, what was deleted stays deleted', async () => {
    using folder = scratchFolder()
    const [graph, vectors] = filled(2000)
    for (let i = 0; i < 300; i++) {
      graph.delete(`v${i}`)
      vectors.delete(`v${i}`)
    }
    const path = folder.file('graph')
    await graph.engine.save(path)
    expect(await graph.engine.isWhole(path)).toBe(true)
    const loaded = newGraph()
    const entries = [...graph.entries()]
    await loaded.engine.load(path, deadLabels(entries, graph.nextLabel))
    expect(loaded.restore(entries, graph.nextLabel)).toBe(true)
    const query = randomVector(seededRandom(4), DIMENSION)
    expect(loaded.search(query, 50, 100)).toEqual(graph.search(query, 50, 100))
    expect([loaded.size, loaded.tombstones]).toEqual([1700, 300])
    for (let i = 0; i < 3000; i++) {
      const vector = randomVector(seededRandom(10_000 + i), DIMENSION)
      loaded.set(`n${i}`, 1, vector)
      vectors.set(`n${i}`, vector)
    }
    expect(meanRecall(loaded, vectors, 300)).toBeGreaterThan(0.98)
  })

  test('an empty one is saved and loaded', async () => {
    using folder = scratchFolder()
    const graph = newGraph()
    await graph.engine.save(folder.file('graph'))
    expect(await graph.engine.isWhole(folder.file('graph'))).toBe(true)
    const loaded = newGraph()
    await loaded.engine.load(folder.file('graph'), [])
    const vector = randomVector(seededRandom(4), DIMENSION)
    loaded.set('x', 1, vector)
    expect(loaded.search(vector, 1, 10)).toMatchObject([{ id: 'x' }])
  })

  test('sees that a file is cut short or has too much, wherever', async () => {
    using folder = scratchFolder()
    const [graph] = filled(700)
    const path = folder.file('graph')
    await graph.engine.save(path)
    const bytes = readFileSync(path)
    const cuts = [0, 1, 7, 50, 95, 96, 100, 1000, bytes.length >> 1, bytes.length - 1000]
    for (const length of [...cuts, ...[100, 50, 10, 4, 3, 2, 1].map((n) => bytes.length - n)]) {
      writeFileSync(path, bytes.subarray(0, length))
      expect(await graph.engine.isWhole(path), `${length} of ${bytes.length} bytes`).toBe(false)
    }
    writeFileSync(path, Buffer.concat([bytes, Buffer.alloc(1)]))
    expect(await graph.engine.isWhole(path)).toBe(false)
  })

  test('a save on a full disk is not whole', async () => {
    const [graph] = filled(700)
    await graph.engine.save('/dev/full').catch(() => undefined)
    expect(await graph.engine.isWhole('/dev/full')).toBe(false)
  })

  test('is searched while it is saved', async () => {
    using folder = scratchFolder()
    const [graph, vectors] = filled(2000)
    const saved = graph.engine.save(folder.file('graph'))
    expect(meanRecall(graph, vectors, 200)).toBeGreaterThan(0.98)
    await saved
    expect(await graph.engine.isWhole(folder.file('graph'))).toBe(true)
  })
})
