import { statSync } from 'node:fs'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout } from 'node:timers/promises'
import { AgentDB } from '../../src/index.ts'
import { internalsOf } from '../../src/internals.ts'
import { StoreChanges } from '../../src/search/store-changes.ts'
import { engineNames, type EngineName } from '../../src/vector/graph/engine.ts'
import { Graph } from '../../src/vector/graph/graph.ts'
import { loadEngine } from '../../src/vector/graph/load-engine.ts'
import { VectorGraphs } from '../../src/vector/graph/vector-graphs.ts'
import { ScanIndex } from '../../src/vector/scan-index.ts'
import { HnswlibProcess } from '../peers/hnswlib.ts'
import { isMissing, type Missing, type PeerPlaces } from '../peers/missing.ts'
import { graphOfUsearch } from '../peers/usearch.ts'
import { measuredRow, type BenchRow, type Point, type Target } from '../report/row.ts'
import { vectorSource } from '../support/data.ts'
import { temporaryFolder, type Folder } from '../support/folder.ts'
import {
  interleave,
  type Contender,
  type RemoteContender,
  type Schedule,
  type Timing,
} from '../support/measure.ts'
import { seededRandom } from '../support/random.ts'
import { residentBytes } from '../support/resident.ts'
import { recallOf, vectorData, type VectorData, type VectorSet } from '../support/vector-set.ts'
import {
  comparedRow,
  memoryRow,
  pointOf,
  rowName,
  type Side,
  type VectorSize,
} from './vector-rows.ts'
import { localWorkload } from './workload.ts'

export interface BakeOff extends Schedule {
  readonly engines: readonly EngineName[]
  /** Adds and deletes timed one by one. */
  readonly changes: number
  readonly queries: number
}

interface Parameters extends BakeOff {
  readonly sizes: readonly VectorSize[]
  /** Of the graph that is built behind a store whose event loop is watched. */
  readonly watched: readonly [count: number, dimension: number]
}

const K = 10
const M = 16
const EF_CONSTRUCT = 100
const PUT_ROWS = 500
const RECALL = 0.99
const EFS = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048]
/** The curve of recall against time ends where all find enough and looking wider gives none of them that much more. */
const CURVE_GAIN_MIN = 0.0005
const CPP = 'hnswlib in C++'
const SCAN = 'exact scan'
/** DESIGN, budgets: of the query. What else a graph does is held to the same. */
const TO_CPP: readonly Target[] = [{ metric: 'ratio', limit: 1.5 }]
const ENOUGH_RECALL: Target = { metric: 'recall', limit: RECALL }
const collection = 'documentation_embeddings'

/**
 * The bake-off of the engines, each behind the guards of a graph, with hnswlib in C++ and usearch alone beside them and
 * the exact scan; then a store whose graph is built and saved while its event loop is watched.
 */
export const vectorGraph = localWorkload<Parameters>({
  name: 'vector-graph',
  claim:
    'a graph finds 99 % of the 10 nearest in 1.5x the time of hnswlib in C++; the event loop waits 10 ms at most, at p99',
  sizes: {
    full: {
      sizes: [
        { vectors: 10_000, dimension: 384 },
        { vectors: 100_000, dimension: 384 },
        { vectors: 10_000, dimension: 1536 },
        { vectors: 100_000, dimension: 1536 },
      ],
      engines: engineNames,
      watched: [10_000, 1536],
      changes: 200,
      queries: 200,
      rounds: 40,
      each: 5,
      warmup: 4,
    },
    quick: {
      sizes: [{ vectors: 5000, dimension: 384 }],
      engines: engineNames,
      watched: [10_000, 64],
      changes: 100,
      queries: 50,
      rounds: 20,
      each: 5,
      warmup: 2,
    },
    tiny: {
      sizes: [{ vectors: 60, dimension: 8 }],
      engines: engineNames,
      watched: [300, 4],
      changes: 5,
      queries: 5,
      rounds: 2,
      each: 2,
      warmup: 1,
    },
  },
  run: async ({ sizes, watched, ...rest }) => {
    const rows: BenchRow[] = []
    for (const size of sizes) rows.push(...(await bakeOff(size, rest)))
    rows.push(...(await eventLoop(...watched)))
    return rows
  },
})

/** A graph that was built, of ours or in C++. */
interface Built {
  readonly name: string
  readonly buildTiming: Timing
  readonly bytes: number
  find(ef: number): Promise<number[][]> | number[][]
  query(ef: number): Contender | RemoteContender
  readonly add: Contender | RemoteContender
  readonly delete: Contender | RemoteContender
  save(path: string): Contender | RemoteContender
  load(path: string): Contender | RemoteContender
}

const newGraph = (name: EngineName, dimension: number): Graph => {
  const engine = loadEngine(name)
  if (engine.kind === 'unavailable') throw new Error(engine.reason)
  return new Graph({ dimension, m: M, efConstruct: EF_CONSTRUCT }, engine.create)
}

const nameOf = (engine: EngineName): string =>
  `graph of ${engine === 'hnswlib' ? 'hnswlib-node' : engine}`

function build(engine: EngineName, { stored, probes, fresh }: VectorData): Built {
  const { dimension } = stored
  const bytesBefore = residentBytes()
  const cpuBefore = process.cpuUsage()
  const startedAt = performance.now()
  const graph = newGraph(engine, dimension)
  for (let row = 0; row < stored.count; row++) graph.set(`v${row}`, 0, stored.row(row))
  const ms = [performance.now() - startedAt]
  const { user, system } = process.cpuUsage(cpuBefore)
  const search = (n: number, ef: number): number[] =>
    graph.search(probes.row(n), K, ef).map(({ id }) => Number(id.slice(1)))
  return {
    name: nameOf(engine),
    buildTiming: { ms, cpuMs: (user + system) / 1000 },
    bytes: residentBytes() - bytesBefore,
    find: (ef) => Array.from({ length: probes.count }, (_, n) => search(n, ef)),
    query: (ef) => ({ run: (n) => graph.search(probes.row(n), K, ef) }),
    add: { run: (n) => graph.set(`v${stored.count + n}`, 1, fresh.row(n)) },
    delete: { run: (n) => graph.delete(`v${n}`) },
    save: (path) => ({ run: () => graph.engine.save(path) }),
    load: (path) => ({ run: () => newGraph(engine, dimension).engine.load(path, []) }),
  }
}

async function buildInCpp(
  peer: HnswlibProcess,
  { stored, probes, fresh }: VectorData,
  folder: Folder,
): Promise<Built> {
  for (const [name, vectors] of Object.entries({ stored, probes, fresh }))
    vectors.write(folder.file(name))
  const { ms, bytes } = await peer.build(folder.file('stored'), {
    dimension: stored.dimension,
    m: M,
    efConstruct: EF_CONSTRUCT,
    room: stored.count + fresh.count,
  })
  await peer.probes(folder.file('probes'))
  await peer.fresh(folder.file('fresh'))
  return {
    name: CPP,
    buildTiming: { ms: [ms], cpuMs: Number.NaN },
    bytes,
    find: (ef) => peer.find(K, ef),
    query: (ef) => peer.query(K, ef),
    add: peer.add(),
    delete: peer.delete(),
    save: (path) => peer.save(path),
    load: (path) => peer.load(path),
  }
}

/** Everything of one size, in one run. */
export async function bakeOff(
  size: VectorSize,
  { engines, changes, queries, ...schedule }: BakeOff,
  places?: PeerPlaces,
): Promise<BenchRow[]> {
  using folder = temporaryFolder()
  const { vectors, dimension } = size
  const data = vectorData(dimension, { stored: vectors, probes: queries, fresh: changes })
  const ours = engines.map((engine) => build(engine, data))
  const started = HnswlibProcess.start(places)
  await using peer = isMissing(started) ? undefined : started
  const inCpp = peer && (await buildInCpp(peer, data, folder))
  const reference = inCpp ?? ours[0]
  if (reference === undefined) throw new Error('no engine is compared')
  const scan = scanOf(data.stored)
  const all = [...ours, ...(inCpp === undefined ? [] : [inCpp])]
  const truth = truthOf(scan, data.probes)
  const curves = await recallCurves(size, all, truth, schedule)
  const alone = await usearchAlone(ours, curves, data, folder)
  const rows = [
    ...(await queryRows(
      { size, ours, inCpp, missing: started, curves, alone, scan, data },
      schedule,
    )),
    ...ours.map((one) => buildRow(size, one, reference)),
    ...ours.map((one) =>
      memoryRow(
        { measure: 'memory', size },
        one,
        reference,
        1.5,
        'resident memory, after the build',
      ),
    ),
    ...(await fileRows(size, ours, reference, folder, data.stored.bytes, schedule)),
    ...(await changeRows(size, ours, reference, changes)),
  ]
  return rows
}

function scanOf(stored: VectorSet): ScanIndex {
  const scan = new ScanIndex(stored.dimension)
  for (let row = 0; row < stored.count; row++) scan.set(`v${row}`, stored.row(row))
  return scan
}

const truthOf = (scan: ScanIndex, probes: VectorSet): Set<number>[] =>
  Array.from(
    { length: probes.count },
    (_, n) => new Set(scan.search(probes.row(n), K).map(({ id }) => Number(id.slice(1)))),
  )

interface Curve {
  readonly points: readonly Point[]
  /** The least ef that reaches the recall, or the best there is, and the recall there. */
  readonly ef: number
  readonly recall: number
}

/** Recall against time, ef by ef, the contenders interleaved at each. */
async function recallCurves(
  size: VectorSize,
  all: readonly Built[],
  truth: readonly ReadonlySet<number>[],
  { each }: Schedule,
): Promise<Curve[]> {
  const rounds: Schedule = { rounds: Math.ceil(truth.length / each), each, warmup: 1 }
  const points: Point[][] = all.map(() => [])
  let before = all.map(() => 0)
  for (const ef of EFS) {
    const timings = await interleave(
      all.map((one) => one.query(ef)),
      rounds,
    )
    const recalls: number[] = []
    for (const [i, one] of all.entries()) {
      const recall = recallOf(await one.find(ef), truth)
      recalls.push(recall)
      const timing = timings[i] as Timing
      const side: Side = { name: one.name, timing, recall, ef }
      points[i]?.push(pointOf({ measure: 'query', size, unit: 'us' }, side))
    }
    const gain = Math.max(...recalls.map((recall, i) => recall - (before[i] ?? 0)))
    if (Math.min(...recalls) >= RECALL && gain < CURVE_GAIN_MIN) break
    before = recalls
  }
  return points.map((curve) => {
    const chosen = curve.find(({ recall = 0 }) => recall >= RECALL) ?? curve.at(-1)
    return { points: curve, ef: chosen?.ef ?? K, recall: chosen?.recall ?? 0 }
  })
}

interface Alone {
  readonly contender: Contender
  readonly side: Omit<Side, 'timing'>
}

/** usearch without a graph of ours around it, at the same ef. */
async function usearchAlone(
  ours: readonly Built[],
  curves: readonly Curve[],
  { probes }: VectorData,
  folder: Folder,
): Promise<Alone | undefined> {
  const at = ours.findIndex(({ name }) => name === nameOf('usearch'))
  const [one, curve] = [ours[at], curves[at]]
  if (one === undefined || curve === undefined) return undefined
  const file = folder.file('usearch alone')
  const { ef } = curve
  await interleave([one.save(file)], { rounds: 1, each: 1, warmup: 0 })
  const search = await graphOfUsearch(file, { dimension: probes.dimension, m: M, ef })
  return {
    contender: { run: (n) => search(probes.row(n), K) },
    side: { name: 'usearch alone', ef },
  }
}

interface Scene {
  readonly size: VectorSize
  readonly ours: readonly Built[]
  readonly inCpp: Built | undefined
  readonly missing: unknown
  readonly curves: readonly Curve[]
  readonly alone: Alone | undefined
  readonly scan: ScanIndex
  readonly data: VectorData
}

async function queryRows(scene: Scene, schedule: Schedule): Promise<BenchRow[]> {
  const { size, ours, inCpp, missing, curves, alone, scan, data } = scene
  const all = [...ours, ...(inCpp === undefined ? [] : [inCpp])]
  const [scanTiming, ...timings] = await interleave(
    [
      { run: (n: number) => scan.search(data.probes.row(n), K) },
      ...all.map((one, i) => one.query(curves[i]?.ef ?? K)),
      ...(alone === undefined ? [] : [alone.contender]),
    ],
    schedule,
  )
  const sides = all.map((one, i): Side => {
    const { ef, recall } = curves[i] as Curve
    return { name: one.name, timing: timings[i] as Timing, ef, recall }
  })
  const exact: Side = { name: SCAN, timing: scanTiming, recall: 1 }
  const theirs = inCpp && sides[ours.length]
  const common = { measure: 'query', size, unit: 'us' } as const
  const rows: BenchRow[] = []
  for (const [i, one] of ours.entries()) {
    const side = sides[i] as Side
    const targets: Target[] = [{ metric: 'ratio', limit: 1 }, ENOUGH_RECALL]
    const { points } = curves[i] as Curve
    rows.push(comparedRow({ ...common, ours: side, theirs: exact, targets, points }))
    if (theirs !== undefined) {
      const { points: curve } = curves[ours.length] as Curve
      const limits = [...TO_CPP, ENOUGH_RECALL]
      rows.push(comparedRow({ ...common, ours: side, theirs, targets: limits, points: curve }))
    } else {
      const reason = (missing as Missing).missing
      const name = rowName(common, one.name, CPP)
      rows.push({ kind: 'skipped', name, targets: TO_CPP, reason })
    }
  }
  const usearch = sides.find(({ name }) => name === nameOf('usearch'))
  if (alone === undefined || usearch === undefined) return rows
  const bare: Side = { ...alone.side, timing: timings[all.length] as Timing }
  const note = 'the same graph, read from its file'
  return [...rows, comparedRow({ ...common, ours: usearch, theirs: bare, targets: TO_CPP, note })]
}

const buildRow = (size: VectorSize, ours: Built, theirs: Built): BenchRow =>
  comparedRow({
    measure: 'build',
    size,
    unit: 'rows/s',
    ours: { name: ours.name, timing: ours.buildTiming },
    theirs: { name: theirs.name, timing: theirs.buildTiming },
    targets: TO_CPP,
    note: 'one after the other',
  })

async function changeRows(
  size: VectorSize,
  ours: readonly Built[],
  reference: Built,
  changes: number,
): Promise<BenchRow[]> {
  const once: Schedule = { rounds: changes, each: 1, warmup: 0 }
  const rows: BenchRow[] = []
  for (const measure of ['add', 'delete'] as const)
    rows.push(
      ...(await rowsOf(ours, reference, (one) => one[measure], once, {
        measure,
        size,
        unit: 'us',
        targets: [{ metric: 'p95', limit: 10_000 }],
      })),
    )
  return rows
}

async function fileRows(
  size: VectorSize,
  ours: readonly Built[],
  reference: Built,
  folder: Folder,
  rawBytes: number,
  { warmup }: Schedule,
): Promise<BenchRow[]> {
  const schedule: Schedule = { rounds: 5, each: 1, warmup: Math.min(1, warmup) }
  const path = ({ name }: Pick<Built, 'name'>): string => folder.file(`saved, ${name}`)
  const rows: BenchRow[] = []
  for (const measure of ['save', 'load'] as const)
    rows.push(
      ...(await rowsOf(ours, reference, (one) => one[measure](path(one)), schedule, {
        measure,
        size,
        unit: 'ms',
        targets: TO_CPP,
        note: (one) => {
          const { size: bytes } = statSync(path(one))
          return `the engine alone; file of ${(bytes / 1e6).toFixed(1)} MB, ${(bytes / rawBytes).toFixed(2)}x the raw vectors`
        },
      })),
    )
  return rows
}

/** Ours and the reference do the same, interleaved; a row for each of ours. */
async function rowsOf(
  ours: readonly Built[],
  reference: Built,
  work: (one: Built) => Contender | RemoteContender,
  schedule: Schedule,
  about: {
    readonly measure: string
    readonly size: VectorSize
    readonly unit: 'us' | 'ms'
    readonly targets: readonly Target[]
    readonly note?: (one: Built) => string
  },
): Promise<BenchRow[]> {
  const all = ours.includes(reference) ? ours : [...ours, reference]
  const timings = await interleave(all.map(work), schedule)
  const side = (one: Built): Side => ({
    name: one.name,
    timing: timings[all.indexOf(one)] as Timing,
  })
  return ours.map((one) =>
    comparedRow({
      ...about,
      ours: side(one),
      theirs: side(reference),
      note: about.note?.(one) ?? '',
    }),
  )
}

/** Delay of the event loop, in milliseconds, until `done`. */
async function delays(done: () => boolean): Promise<{ p50: number; p99: number; max: number }> {
  const histogram = monitorEventLoopDelay({ resolution: 1 })
  histogram.enable()
  while (!done()) await setTimeout(5)
  histogram.disable()
  const ms = (ns: number): number => Math.max(ns / 1e6, 0.001)
  return {
    p50: ms(histogram.percentile(50)),
    p99: ms(histogram.percentile(99)),
    max: ms(histogram.max),
  }
}

async function eventLoop(count: number, dimension: number): Promise<BenchRow[]> {
  const rows: BenchRow[] = []
  for (const vectorIndex of engineNames) {
    using folder = temporaryFolder()
    await using db = await AgentDB.open({ path: folder.file('watched.db'), vectorIndex: 'exact' })
    const graphs = new VectorGraphs({
      index: vectorIndex,
      threshold: 1,
      storePath: db.path,
      storeId: 'bench',
      source: new StoreChanges(internalsOf(db).connection),
    })
    const next = vectorSource(seededRandom(4), dimension)
    for (let from = 0; from < count; from += PUT_ROWS) {
      const batch = Array.from(
        { length: Math.min(PUT_ROWS, count - from) },
        () => ({ collection, vector: next(), model: 'bench' }) as const,
      )
      await db.embeddings.putMany(batch)
    }
    graphs.of(collection, 'bench', dimension)
    const startedAt = performance.now()
    const busy = await delays(() => graphs.status()[0]?.saved !== undefined)
    const tookMs = performance.now() - startedAt
    const idleUntil = performance.now() + Math.min(tookMs, 2000)
    const idle = await delays(() => performance.now() > idleUntil)
    await graphs.close()
    rows.push(
      measuredRow({
        name: `event loop delay while ${vectorIndex} builds and saves, ${count} x ${dimension}`,
        unit: 'ms',
        samples: [busy.p99],
        ratio: {
          value: busy.p99 / idle.p99,
          against: `p99 of the idle loop right after (${idle.p99.toFixed(2)} ms)`,
        },
        targets: [{ metric: 'p99', limit: 10 }],
        note: `p99 of the delays; p50 ${busy.p50.toFixed(2)}, longest ${busy.max.toFixed(1)} ms; all took ${(tookMs / 1000).toFixed(1)} s`,
      }),
    )
  }
  return rows
}
