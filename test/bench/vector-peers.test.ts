import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { HnswlibProcess } from '../../bench/peers/hnswlib.ts'
import { openLanceDB } from '../../bench/peers/lancedb.ts'
import { HOW_TO_INSTALL, isMissing, requirePeer, type Missing } from '../../bench/peers/missing.ts'
import { openSqliteVec } from '../../bench/peers/sqlite-vec.ts'
import { ONE_IN, type OneIn, type StorePeer } from '../../bench/peers/store-peer.ts'
import type { BenchRow } from '../../bench/report/row.ts'
import { AgentDBStore } from '../../bench/support/agentdb-store.ts'
import { interleave } from '../../bench/support/measure.ts'
import { recallOf, vectorData } from '../../bench/support/vector-set.ts'
import { bakeOff } from '../../bench/workloads/vector-graph.ts'
import { compareStores } from '../../bench/workloads/vector-stores.ts'

const folder = mkdtempSync(join(tmpdir(), 'agentdb-peers-'))
const file = (name: string): string => join(folder, name)
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const K = 10
const dimension = 16
const { stored, probes, fresh } = vectorData(dimension, { stored: 2000, probes: 20, fresh: 3 })

/** Compared one by one in double precision. */
function nearest(probe: Float32Array, oneIn = 1): Set<number> {
  const scores: { row: number; score: number }[] = []
  for (let row = 0; row < stored.count; row += oneIn) {
    const vector = stored.row(row)
    scores.push({ row, score: vector.reduce((sum, x, i) => sum + x * (probe[i] ?? 0), 0) })
  }
  return new Set(
    scores
      .toSorted((a, b) => b.score - a.score)
      .slice(0, K)
      .map(({ row }) => row),
  )
}

const truth = (oneIn?: OneIn): Set<number>[] =>
  Array.from({ length: probes.count }, (_, n) => nearest(probes.row(n), oneIn))

/** Where a peer is missing, that is what the bench shows in place of figures. */
const sayHowToInstall = ({ missing }: Missing): void =>
  expect(missing).toMatch(/apt-get install g\+\+|npm install|npm ci --prefix bench\/peers/)

describe('hnswlib in C++', () => {
  const started = HnswlibProcess.start()

  test('agrees with the exact neighbours, or says what it lacks', async () => {
    if (isMissing(started)) return sayHowToInstall(started)
    await using peer = started
    // A path with a space, as temporary folders have them.
    for (const [name, vectors] of Object.entries({ 'st ored': stored, probes, fresh }))
      vectors.write(file(name))
    const settings = { dimension, m: 16, efConstruct: 100, room: stored.count + fresh.count }
    const built = await peer.build(file('st ored'), settings)
    await peer.probes(file('probes'))
    await peer.fresh(file('fresh'))

    expect(built.ms).toBeGreaterThan(0)
    expect(recallOf(await peer.find(K, 500), truth())).toBeGreaterThan(0.995)
    expect(recallOf(await peer.find(K, K), truth())).toBeGreaterThan(0.5)

    const [first] = await peer.find(1, 500)
    const timings = await interleave(
      [peer.query(K, 50), peer.add(), { run: () => undefined }, peer.save(file('saved'))],
      { rounds: fresh.count, each: 1, warmup: 0 },
    )
    expect(timings.map(({ ms }) => ms.length)).toEqual([3, 3, 3, 3])
    expect(timings.every(({ ms }) => ms.every((each) => each >= 0))).toBe(true)
    expect(timings.map(({ cpuMs }) => Number.isNaN(cpuMs))).toEqual([true, true, false, true])
    expect(await peer.load(file('saved')).round(0, 1)).toHaveLength(1)

    // What is deleted is not found any more; rows are deleted from the first on.
    const nearestRow = first?.[0] ?? 0
    await peer.delete().round(0, nearestRow + 1)
    expect((await peer.find(K, 500)).flat()).not.toContain(nearestRow)
  })

  test('what goes wrong is told', async () => {
    const other = HnswlibProcess.start()
    if (isMissing(other)) return sayHowToInstall(other)
    await using peer = other
    const settings = { dimension, m: 16, efConstruct: 100, room: 10 }
    await expect(peer.build(file('none'), settings)).rejects.toThrow(/cannot read .*none/)
    await expect(peer.probes(file('none'))).rejects.toThrow('ended')
  })

  test('without a compiler it says which to install', () => {
    expect(HnswlibProcess.start({ compiler: 'no-such-compiler' })).toEqual({
      missing:
        'no-such-compiler cannot be run: install a C++ compiler (apt-get install g++), or name one in CXX',
    })
  })
})

const stores: [string, () => Promise<StorePeer | Missing>][] = [
  ['AgentDB', () => AgentDBStore.open(file('agent.db'))],
  ['sqlite-vec', async () => openSqliteVec(file('vec.db'))],
  ['LanceDB', () => openLanceDB(file('lance'))],
]

describe.each(stores)('%s', (_name, open) => {
  test('finds what is nearest, filtered or not, or says how to install it', async () => {
    const opened = await open()
    if (isMissing(opened)) return sayHowToInstall(opened)
    await using store = opened
    await store.fill(stored)
    const recall = async (oneIn?: OneIn): Promise<number> => {
      const found: number[][] = []
      for (let n = 0; n < probes.count; n++) found.push(await store.search(probes.row(n), K, oneIn))
      return recallOf(found, truth(oneIn))
    }
    await store.tune?.(recall, 1)
    for (const oneIn of [undefined, ...ONE_IN]) expect(await recall(oneIn)).toBeGreaterThan(0.99)

    await store.put(stored.count, fresh.row(0))
    expect(await store.search(fresh.row(0), 1)).toEqual([stored.count])
    expect(await store.reopen(fresh.row(0), 1)).toBeGreaterThan(0)
    await store.delete(stored.count)
    expect(await store.search(fresh.row(0), 1)).not.toEqual([stored.count])
  })
})

describe('where peers are not installed', () => {
  const places = { packages: join(folder, 'package.json'), compiler: 'no-such-compiler' }
  const size = { vectors: 60, dimension: 8 }
  const bench = { changes: 2, queries: 2, rounds: 1, each: 1, warmup: 0 }
  const compiler = expect.stringMatching(/apt-get install g\+\+/) as string

  const names = (rows: readonly BenchRow[]): string[] => rows.map(({ name }) => name).toSorted()
  const reasons = (rows: readonly BenchRow[]): string[] => [
    ...new Set(rows.flatMap((row) => (row.kind === 'skipped' ? [row.reason] : []))),
  ]

  test('they are not found', () => {
    expect(requirePeer('sqlite-vec', places)).toEqual({ missing: HOW_TO_INSTALL })
  })

  test('the rows of the stores are there and say so', async () => {
    const without = await compareStores(size, { ...bench, openings: 1 }, places)
    const here = await compareStores(size, { ...bench, openings: 1 })

    expect(names(without)).toEqual(names(here))
    expect(reasons(without).toSorted()).toEqual([compiler, HOW_TO_INSTALL])
    expect(without.filter(({ kind }) => kind === 'measured').map(({ name }) => name)).toEqual(
      ONE_IN.map(
        (each) => `AgentDB, query of ${100 / each} %, 60 x 8, against the same without a filter`,
      ),
    )
  })

  test('graphs are measured against each other, and the row of C++ says why', async () => {
    const rows = await bakeOff(size, { ...bench, engines: ['hnswlib', 'usearch'] }, places)
    expect(reasons(rows)).toEqual([compiler])
    expect(names(rows)).toContain('graph of usearch, build, 60 x 8, against graph of hnswlib-node')
  })
})
