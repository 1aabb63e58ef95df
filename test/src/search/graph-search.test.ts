import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { hashingEmbedder, type AgentDB, type Json } from '../../../src/index.ts'
import { CALIBRATION_QUERIES } from '../../../src/search/ef-calibration.ts'
import { COSTS, type Costs } from '../../../src/search/planner.ts'
import type { SearchOptions } from '../../../src/search/search-options.ts'
import { Search } from '../../../src/search/search.ts'
import type { GraphIndex } from '../../../src/vector/graph-index.ts'
import { LossyGraph, type LossyGraphOptions } from '../../support/lossy-graph.ts'
import { connectionOf, openStore } from '../../support/store.ts'

const collection = 'documentation_embeddings'
const DIMENSION = 8

/** A graph that costs nothing, so that it is taken wherever it may be. */
const freeGraph: Costs = {
  ...COSTS,
  scanRow: 100_000,
  pickRow: 0,
  graphCall: 0,
  graphStep: 0,
  graphByte: 0,
}

let db: AgentDB
let random: () => number
beforeEach(async () => {
  db = await openStore()
  let state = 7
  random = () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647
})
afterEach(() => {
  vi.useRealTimers()
  return db.close()
})

const someVector = (): Float32Array =>
  Float32Array.from({ length: DIMENSION }, () => random() - 0.5)

const put = (count: number, payload: (i: number) => Record<string, Json> = () => ({})) =>
  db.embeddings.putMany(
    Array.from({ length: count }, (_, i) => ({
      collection,
      vector: someVector(),
      payload: payload(i),
    })),
  )

const changes = (): number =>
  connectionOf(db).get<{ seq: number }>('SELECT max(seq) AS seq FROM embedding_changes')?.seq ?? 0

/** A graph of all rows as they are now. */
function graphNow(options: Partial<LossyGraphOptions> = {}): LossyGraph {
  const vectors = db.embeddings.list({ limit: 10_000 }).map((row) => [row.id, row.vector] as const)
  return new LossyGraph(vectors, { watermark: changes(), ...options })
}

const searchWith = (graph: GraphIndex): Search =>
  new Search(connectionOf(db), hashingEmbedder, { graphs: () => graph, costs: freeGraph })

async function explained(search: Search, options: Partial<SearchOptions> = {}) {
  const { results, plans } = await search.explain({
    collection,
    vector: someVector(),
    ...options,
  })
  const [plan] = plans
  if (plan === undefined) throw new Error('no vectors were searched')
  return { results, plan }
}

/** Asks until the graph has been measured, so that it is used. */
async function measured(search: Search, options: Partial<SearchOptions> = {}): Promise<void> {
  for (let i = 0; i < CALIBRATION_QUERIES; i++) await explained(search, options)
  await search.settled()
}

describe('a search with a graph', () => {
  test('finds what a search without one finds, whatever has changed since it was built', async () => {
    const rows = await put(300, (i) => ({ language: i % 2 === 0 ? 'go' : 'rust' }))
    const search = searchWith(graphNow())
    for (const k of [5, 10, 17, 40]) await measured(search, { k })
    await measured(search, { filter: { language: 'go' } })

    let throughGraph = 0
    for (let round = 0; round < 40; round++) {
      const row = rows[Math.floor(random() * rows.length)]
      const kind = round % 4
      if (kind === 0) await put(1, () => ({ language: 'go' }))
      else if (row !== undefined && kind === 1) db.embeddings.delete(row.id)
      else if (row !== undefined && kind === 2 && db.embeddings.find(row.id) !== undefined)
        await db.embeddings.put({ id: row.id, collection, vector: someVector() })
      const vector = someVector()
      const k = 5 + Math.floor(random() * 5)
      for (const filter of [undefined, { language: 'go' }]) {
        const { results, plan } = await explained(search, { vector, k, filter })
        expect(results).toEqual(await db.search({ collection, vector, k, filter }))
        if (plan.method === 'hnsw') throughGraph += 1
      }
    }
    expect(throughGraph).toBeGreaterThan(40)
  })

  test('sees what came and went while the graph was asked', async () => {
    const rows = await put(200)
    let interfere = async (): Promise<unknown> => undefined
    const search = searchWith(graphNow({ before: () => interfere() }))
    await measured(search)
    const vector = someVector()
    const [first] = (await explained(search, { vector })).results
    let added = ''
    interfere = async () => {
      db.embeddings.delete(first?.id ?? '')
      added = (await db.embeddings.put({ collection, vector })).id
    }
    const { results } = await explained(search, { vector })
    expect(rows.map(({ id }) => id)).toContain(first?.id)
    expect(results[0]).toMatchObject({ id: added })
    expect(results.map(({ id }) => id)).not.toContain(first?.id)
    expect(results).toEqual(await db.search({ collection, vector }))
  })

  test('is exact until the graph is measured; then takes the least ef that reaches the recall', async () => {
    await put(400)
    // Finds 60 % with ef = 16, 1 more with every 2.
    const graph = graphNow({ seen: (ef) => 0.6 + (ef - 16) / 200 })
    const search = searchWith(graph)
    const first = await explained(search)
    expect(first.plan).toMatchObject({ method: 'exact', ef: null, graph: { size: 400, behind: 0 } })
    expect(first.plan.reason).toMatch(/on 32 queries, of which 1 were asked/)
    const vector = someVector()
    for (let i = 0; i < 40; i++) await explained(search, { vector })
    // One query, however often it is asked, tells no more.
    expect((await explained(search, { vector })).plan.reason).toMatch(/of which 2 were asked/)
    for (let i = 3; i < CALIBRATION_QUERIES; i++) await explained(search)
    const last = await explained(search)
    expect(last.plan.reason).toMatch(/being measured/)
    await search.settled()

    const efOf = async (recall?: number): Promise<number | null> =>
      (await explained(search, { recall })).plan.ef
    expect(await efOf()).toBe(96)
    expect(await efOf(0.5)).toBe(16)
    expect(await efOf(0.8)).toBe(64)
    expect(await efOf(1)).toBe(null)
    expect(graph.asked.at(-1)).toEqual({ k: 10, ef: 64 })
  })

  test('reaches the recall that was wanted, on queries it was not measured with', async () => {
    await put(400)
    // 87 % with ef = 96, 97 % with 128.
    const search = searchWith(graphNow({ seen: (ef) => 0.6 + (ef - 16) / 300 }))
    await measured(search)
    let found = 0
    for (let i = 0; i < 50; i++) {
      const vector = someVector()
      const wanted = new Set((await db.search({ collection, vector })).map(({ id }) => id))
      const { results, plan } = await explained(search, { vector, recall: 0.9 })
      expect(plan.method).toBe('hnsw')
      found += results.filter(({ id }) => wanted.has(id)).length
    }
    expect(found / 500).toBeGreaterThan(0.9)
    // With all found, nothing was tested.
    expect(found).toBeLessThan(500)
  })

  test('is exact where no ef reaches the recall', async () => {
    await put(300)
    const search = searchWith(graphNow({ seen: () => 0.9 }))
    await measured(search)
    expect((await explained(search)).plan).toMatchObject({
      method: 'exact',
      reason: expect.stringMatching(/did not reach a recall of 0.99/),
    })
    expect((await explained(search, { recall: 0.5 })).plan.method).toBe('hnsw')
  })

  test('does not hold against a graph what is newer than it', async () => {
    await put(200)
    const graph = graphNow()
    const search = searchWith(graph)
    await put(40)
    await measured(search)
    await measured(search, { k: 20 })
    const { plan } = await explained(search)
    expect(plan).toMatchObject({ method: 'hnsw', graph: { behind: 40 } })
    expect(plan.scanned).toBeGreaterThanOrEqual(60)
  })

  test('measures a graph anew once it has grown by a fifth', async () => {
    await put(200)
    const graph = graphNow()
    let size = 200
    Object.defineProperty(graph, 'size', { get: () => size })
    const search = searchWith(graph)
    await measured(search)
    const calls = async (): Promise<number> => {
      const before = graph.asked.length
      await explained(search)
      await search.settled()
      return graph.asked.length - before
    }
    expect(await calls()).toBe(1)
    size = 239
    expect(await calls()).toBe(1)
    size = 241
    expect(await calls()).toBeGreaterThan(1)
    expect(await calls()).toBe(1)
  })

  test('is exact where the graph fails, before and after it was measured', async () => {
    await put(100)
    let isBroken = true
    const before = (): void => {
      if (isBroken) throw new Error('worker died')
    }
    const broken = searchWith(graphNow({ before }))
    await measured(broken)
    const vector = someVector()
    const wanted = await db.search({ collection, vector })
    const never = await explained(broken, { vector })
    expect(never.plan.reason).toMatch(/could not be measured: worker died/)
    expect(never.results).toEqual(wanted)

    isBroken = false
    const later = searchWith(graphNow({ before }))
    await measured(later)
    isBroken = true
    const failed = await explained(later, { vector })
    expect(failed.plan).toMatchObject({ method: 'exact', scanned: 100 })
    expect(failed.plan.reason).toMatch(/graph failed \(worker died\)/)
    expect(failed.results).toEqual(wanted)
  })

  test('measures again what could not be measured, some seconds later', async () => {
    vi.useFakeTimers({ toFake: ['performance'] })
    await put(100)
    let isBroken = true
    const before = (): void => {
      if (isBroken) throw new Error('worker died')
    }
    const search = searchWith(graphNow({ before }))
    await measured(search)
    isBroken = false
    expect((await explained(search)).plan.reason).toMatch(/could not be measured/)
    await search.settled()
    vi.advanceTimersByTime(5000)
    await explained(search)
    await search.settled()
    expect((await explained(search)).plan.method).toBe('hnsw')
  })

  test("is exact while the graph's file is read or written", async () => {
    await put(100)
    const graph = graphNow()
    const search = searchWith(graph)
    await measured(search)
    const vector = someVector()
    expect((await explained(search, { vector })).plan.method).toBe('hnsw')
    graph.isAtFile = true
    const { plan, results } = await explained(search, { vector })
    expect(plan.method).toBe('exact')
    expect(plan.reason).toMatch(/file is being read or written/)
    expect(results).toEqual(await db.search({ collection, vector }))
  })

  test('is exact where too little of what the graph gave is left', async () => {
    const rows = await put(200)
    const search = searchWith(graphNow())
    await measured(search)
    await measured(search, { k: 15 })
    const vector = someVector()
    const near = await db.search({ collection, vector, k: 30 })
    for (const [i, { id }] of near.entries()) {
      if (i % 2 === 0) db.embeddings.delete(id)
      else await db.embeddings.put({ id, collection, vector: vector.map((x) => -x) })
    }
    const { results, plan } = await explained(search, { vector })
    expect(rows).toHaveLength(200)
    expect(plan).toMatchObject({ method: 'exact', graph: { behind: 30 } })
    expect(plan.reason).toMatch(/of 20 neighbours from the graph 0 are still there/)
    expect(results).toEqual(await db.search({ collection, vector }))
  })

  test('stops measuring when the store is closed', async () => {
    await put(100)
    const graph = graphNow()
    const search = searchWith(graph)
    for (let i = 0; i < CALIBRATION_QUERIES; i++) await explained(search)
    await db.close()
    await search.settled()
    expect(graph.asked).toEqual([])
  })
})

describe('explain', () => {
  test('tells method, reason, counts and what was compared', async () => {
    await put(50, (i) => ({ language: i < 5 ? 'go' : 'rust' }))
    const vector = someVector()
    const whole = await db.search({ collection, vector, k: 3, explain: true })
    expect(whole).toEqual({
      results: await db.search({ collection, vector, k: 3 }),
      plans: [
        {
          collection,
          method: 'exact',
          reason: '50 vectors; there is no graph',
          count: 50,
          matching: null,
          recall: 0.99,
          ef: null,
          alternatives: [{ method: 'exact', estimatedUs: expect.any(Number) }],
          scanned: 50,
          rescored: expect.any(Number),
          graph: null,
        },
      ],
    })
    expect(whole.plans[0]?.rescored).toBeGreaterThanOrEqual(3)
    const filter = { language: 'go' }
    expect((await db.search({ collection, vector, filter, explain: true })).plans[0]).toMatchObject(
      {
        method: 'filtered exact',
        reason: '5 of 50 vectors (10 %) pass the filter; there is no graph',
        matching: 5,
        scanned: 50,
      },
    )
  })

  test('of a collection without vectors says so', async () => {
    const { results, plans } = await db.search({ collection, text: 'x', explain: true })
    expect(results).toEqual([])
    expect(plans).toMatchObject([{ method: 'exact', count: 0, scanned: 0 }])
    expect(plans[0]?.reason).toMatch(/no vectors/)
  })
})
