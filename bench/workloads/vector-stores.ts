import { HnswlibProcess } from '../peers/hnswlib.ts'
import { openLanceDB } from '../peers/lancedb.ts'
import { isMissing, type Missing, type PeerPlaces } from '../peers/missing.ts'
import { openSqliteVec } from '../peers/sqlite-vec.ts'
import { ONE_IN, type OneIn, type StorePeer } from '../peers/store-peer.ts'
import type { BenchRow, Target } from '../report/row.ts'
import { ScanIndex } from '../../src/vector/scan-index.ts'
import { AgentDBStore } from '../support/agentdb-store.ts'
import { temporaryFolder, type Folder } from '../support/folder.ts'
import {
  interleave,
  type Contender,
  type RemoteContender,
  type Schedule,
  type Timing,
} from '../support/measure.ts'
import { residentBytes } from '../support/resident.ts'
import { recallOf, vectorData, type VectorData } from '../support/vector-set.ts'
import { comparedRow, memoryRow, rowName, type Side, type VectorSize } from './vector-rows.ts'
import { localWorkload } from './workload.ts'

export interface StoresBench extends Schedule {
  readonly changes: number
  readonly queries: number
  /** How often the files are opened anew. */
  readonly openings: number
}

interface Parameters extends StoresBench {
  readonly sizes: readonly VectorSize[]
}

const K = 10
const RECALL = 0.99
const OURS = 'AgentDB'
const CPP = 'hnswlib in C++'
const CPP_EFS = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048]
const PEERS = ['sqlite-vec', 'LanceDB'] as const
const FILTERS = [undefined, ...ONE_IN] as const

/** DESIGN, budgets. */
const TO_CPP: readonly Target[] = [
  { metric: 'ratio', limit: 1.5 },
  { metric: 'recall', limit: RECALL },
]
const TO_UNFILTERED: readonly Target[] = [
  { metric: 'ratio', limit: 2 },
  { metric: 'recall', limit: RECALL },
]
const TO_PEERS: readonly Target[] = [{ metric: 'ratio', limit: 1 }]
const CHANGES: readonly Target[] = [{ metric: 'p95', limit: 10 }]

/** Whole stores in files: what an application sees, rows and payloads and the plan of the query included. */
export const vectorStores = localWorkload<Parameters>({
  name: 'vector-stores',
  claim:
    'db.search beats sqlite-vec and LanceDB, filtered or not, at 1.5x the time of hnswlib in C++; a filter costs 2x at most',
  sizes: {
    full: {
      sizes: [
        { vectors: 10_000, dimension: 384 },
        { vectors: 100_000, dimension: 384 },
        { vectors: 10_000, dimension: 1536 },
        { vectors: 100_000, dimension: 1536 },
      ],
      changes: 100,
      queries: 100,
      openings: 5,
      rounds: 50,
      each: 2,
      warmup: 5,
    },
    quick: {
      sizes: [{ vectors: 10_000, dimension: 384 }],
      changes: 20,
      queries: 40,
      openings: 3,
      rounds: 20,
      each: 2,
      warmup: 2,
    },
    tiny: {
      sizes: [{ vectors: 200, dimension: 8 }],
      changes: 3,
      queries: 5,
      openings: 1,
      rounds: 2,
      each: 2,
      warmup: 1,
    },
  },
  run: async ({ sizes, ...rest }) => {
    const rows: BenchRow[] = []
    for (const size of sizes) rows.push(...(await compareStores(size, rest)))
    return rows
  },
})

interface Filled {
  readonly store: StorePeer
  readonly fillTiming: Timing
  readonly bytes: number
}

/** All stores of one size, in one run. */
export async function compareStores(
  size: VectorSize,
  { changes, queries, openings, ...schedule }: StoresBench,
  places?: PeerPlaces,
): Promise<BenchRow[]> {
  using folder = temporaryFolder()
  const { vectors, dimension } = size
  const data = vectorData(dimension, { stored: vectors, probes: queries, fresh: changes + 100 })
  const truths = truthsOf(data)

  await using ours = await AgentDBStore.open(folder.file('agent.db'))
  const opened = [
    openSqliteVec(folder.file('vec.db'), places),
    await openLanceDB(folder.file('lance'), places),
  ]
  await using peers = disposing(opened.filter((one): one is StorePeer => !isMissing(one)))
  const filled: Filled[] = []
  for (const store of [ours, ...peers.all]) filled.push(await fill(store, data))
  for (const peer of peers.all)
    await peer.tune?.(() => recallOfStore(peer, data, truths, undefined), RECALL)
  const started = HnswlibProcess.start(places)
  await using inCpp = isMissing(started) ? undefined : started
  const cpp = inCpp && (await cppSide(inCpp, data, folder, truthOf(truths, undefined)))

  const scene: Scene = {
    size,
    data,
    truths,
    stores: filled,
    cpp,
    started,
    missing: missingOf(opened),
  }
  return [
    ...(await queryRows(scene, schedule)),
    ...buildRows(scene),
    ...(await openRows(scene, openings)),
    ...(await changeRows(scene, changes)),
  ]
}

interface Scene {
  readonly size: VectorSize
  readonly data: VectorData
  readonly truths: Truths
  /** Ours is the first. */
  readonly stores: readonly Filled[]
  readonly cpp:
    | { readonly query: RemoteContender; readonly ef: number; readonly recall: number }
    | undefined
  readonly started: unknown
  readonly missing: ReadonlyMap<string, string>
}

type Truths = ReadonlyMap<OneIn | undefined, readonly ReadonlySet<number>[]>

const truthOf = (truths: Truths, oneIn: OneIn | undefined): readonly ReadonlySet<number>[] =>
  truths.get(oneIn) ?? []

/** The true nearest of each probe, among all and among what each filter leaves. */
function truthsOf({ stored, probes }: VectorData): Truths {
  const scan = new ScanIndex(stored.dimension)
  for (let row = 0; row < stored.count; row++) scan.set(String(row), stored.row(row))
  return new Map(
    FILTERS.map((oneIn) => {
      const step = oneIn ?? 1
      const among = Array.from({ length: Math.ceil(stored.count / step) }, (_, i) =>
        String(i * step),
      )
      const nearest = (n: number): Set<number> =>
        new Set(
          scan
            .search(probes.row(n), K, oneIn === undefined ? undefined : among)
            .map(({ id }) => Number(id)),
        )
      return [oneIn, Array.from({ length: probes.count }, (_, n) => nearest(n))]
    }),
  )
}

function disposing(
  all: readonly StorePeer[],
): AsyncDisposable & { readonly all: readonly StorePeer[] } {
  return {
    all,
    [Symbol.asyncDispose]: async () => {
      for (const one of all) await one[Symbol.asyncDispose]()
    },
  }
}

const missingOf = (opened: readonly (StorePeer | Missing)[]): Map<string, string> =>
  new Map(
    PEERS.flatMap((name, i) => {
      const one = opened[i]
      return isMissing(one) ? [[name, one.missing] as const] : []
    }),
  )

/** Puts everything in and waits for what indexes it makes, in the background as well. */
async function fill(store: StorePeer, { stored, fresh }: VectorData): Promise<Filled> {
  const bytesBefore = residentBytes()
  const cpuBefore = process.cpuUsage()
  const startedAt = performance.now()
  await store.fill(stored)
  if (store instanceof AgentDBStore) await store.settle(fresh, K)
  else await store.search(fresh.row(0), K)
  const ms = performance.now() - startedAt
  const { user, system } = process.cpuUsage(cpuBefore)
  const bytes = residentBytes() - bytesBefore
  return { store, fillTiming: { ms: [ms], cpuMs: (user + system) / 1000 }, bytes }
}

async function recallOfStore(
  store: StorePeer,
  { probes }: VectorData,
  truths: Truths,
  oneIn: OneIn | undefined,
): Promise<number> {
  const found: number[][] = []
  for (let n = 0; n < probes.count; n++) found.push(await store.search(probes.row(n), K, oneIn))
  return recallOf(found, truthOf(truths, oneIn))
}

async function cppSide(
  peer: HnswlibProcess,
  { stored, probes }: VectorData,
  folder: Folder,
  truth: readonly ReadonlySet<number>[],
): Promise<NonNullable<Scene['cpp']>> {
  stored.write(folder.file('stored'))
  probes.write(folder.file('probes'))
  const { dimension, count } = stored
  await peer.build(folder.file('stored'), { dimension, m: 16, efConstruct: 100, room: count })
  await peer.probes(folder.file('probes'))
  let best = { ef: K, recall: 0 }
  for (const ef of CPP_EFS) {
    best = { ef, recall: recallOf(await peer.find(K, ef), truth) }
    if (best.recall >= RECALL) break
  }
  return { query: peer.query(K, best.ef), ...best }
}

const measureOf = (oneIn: OneIn | undefined): string =>
  oneIn === undefined ? 'query' : `query of ${100 / oneIn} %`

/** Every store with every filter, all interleaved. */
async function queryRows(scene: Scene, schedule: Schedule): Promise<BenchRow[]> {
  const { size, data, truths, stores, cpp, started, missing } = scene
  const asked = FILTERS.flatMap((oneIn) => stores.map(({ store }) => ({ store, oneIn })))
  const timings = await interleave(
    [
      ...asked.map(({ store, oneIn }): Contender => ({
        run: (n) => store.search(data.probes.row(n), K, oneIn),
      })),
      ...(cpp === undefined ? [] : [cpp.query]),
    ],
    schedule,
  )
  const rows: BenchRow[] = []
  let unfiltered: Side | undefined
  for (const [f, oneIn] of FILTERS.entries()) {
    const sides: Side[] = []
    for (const [s, { store }] of stores.entries())
      sides.push({
        name: store.name,
        timing: timings[f * stores.length + s] as Timing,
        recall: await recallOfStore(store, data, truths, oneIn),
      })
    const [ours, ...theirs] = sides as [Side, ...Side[]]
    const common = { measure: measureOf(oneIn), size, unit: 'us', ours } as const
    const how = (name: string): string =>
      stores.find(({ store }) => store.name === name)?.store.how ?? ''
    unfiltered ??= ours
    if (oneIn === undefined && cpp !== undefined) {
      const side: Side = {
        name: CPP,
        timing: timings.at(-1) as Timing,
        ef: cpp.ef,
        recall: cpp.recall,
      }
      rows.push(comparedRow({ ...common, theirs: side, targets: TO_CPP, note: how(OURS) }))
    } else if (oneIn === undefined) {
      const name = rowName(common, OURS, CPP)
      rows.push({ kind: 'skipped', name, targets: TO_CPP, reason: (started as Missing).missing })
    } else {
      const whole: Side = { ...unfiltered, name: 'the same without a filter' }
      rows.push(
        comparedRow({ ...common, theirs: whole, targets: TO_UNFILTERED, isAnotherMeasure: true }),
      )
    }
    for (const side of theirs) {
      const note = `${OURS}: ${oneIn === undefined ? how(OURS) : 'filtered'}; ${side.name}: ${how(side.name)}`
      rows.push(comparedRow({ ...common, theirs: side, targets: TO_PEERS, note }))
    }
    rows.push(...skipped(missing, common))
  }
  return rows
}

function buildRows({ size, stores, missing }: Scene): BenchRow[] {
  const [ours, ...theirs] = stores as [Filled, ...Filled[]]
  const side = ({ store, fillTiming }: Filled): Side => ({ name: store.name, timing: fillTiming })
  const memory = ({ store, bytes }: Filled): { name: string; bytes: number } => ({
    name: store.name,
    bytes,
  })
  const common = { measure: 'store and index', size, unit: 'rows/s', ours: side(ours) } as const
  return [
    ...theirs.map((one) =>
      comparedRow({
        ...common,
        theirs: side(one),
        targets: TO_PEERS,
        note: `one after the other, until all is indexed; ${OURS}: ${ours.store.how}; ${one.store.name}: ${one.store.how}`,
      }),
    ),
    ...skipped(missing, common),
    ...theirs.map((one) =>
      memoryRow(
        { measure: 'memory of the store', size },
        memory(ours),
        memory(one),
        1,
        'what this process grew by while it was filled',
      ),
    ),
    ...skipped(missing, { measure: 'memory of the store', size }),
  ]
}

/** Opens what is there once more, as the next start of an agent does, and asks for one vector. */
async function openRows(scene: Scene, openings: number): Promise<BenchRow[]> {
  const { data } = scene
  const contender = ({ store }: Filled): RemoteContender => ({
    round: async (from, count) => {
      const ms: number[] = []
      for (let n = from; n < from + count; n++) ms.push(await store.reopen(data.probes.row(n), K))
      return ms
    },
  })
  return rowsOf(
    scene,
    contender,
    { rounds: openings, each: 1, warmup: 0 },
    {
      measure: 'open and first query',
      unit: 'ms',
      targets: TO_PEERS,
      note: 'files are in the cache of the system',
    },
  )
}

async function changeRows(scene: Scene, changes: number): Promise<BenchRow[]> {
  const { stored, fresh } = scene.data
  const once: Schedule = { rounds: changes, each: 1, warmup: 0 }
  const about = { unit: 'ms', targets: CHANGES } as const
  const added = await rowsOf(
    scene,
    ({ store }) => ({ run: (n) => store.put(stored.count + n, fresh.row(n)) }),
    once,
    { ...about, measure: 'add to the store' },
  )
  const deleted = await rowsOf(scene, ({ store }) => ({ run: (n) => store.delete(n) }), once, {
    ...about,
    measure: 'delete from the store',
  })
  return [...added, ...deleted]
}

/** All stores do the same, interleaved; a row for each peer. */
async function rowsOf(
  { size, stores, missing }: Scene,
  work: (one: Filled) => Contender | RemoteContender,
  schedule: Schedule,
  about: {
    readonly measure: string
    readonly unit: 'ms'
    readonly targets: readonly Target[]
    readonly note?: string
  },
): Promise<BenchRow[]> {
  const timings = await interleave(stores.map(work), schedule)
  const [ours, ...theirs] = stores.map(({ store }, i): Side => ({
    name: store.name,
    timing: timings[i] as Timing,
  })) as [Side, ...Side[]]
  return [
    ...theirs.map((side) => comparedRow({ ...about, size, ours, theirs: side })),
    ...skipped(missing, { ...about, size }),
  ]
}

const skipped = (
  missing: ReadonlyMap<string, string>,
  about: { readonly measure: string; readonly size: VectorSize },
): BenchRow[] =>
  [...missing].map(([name, reason]) => ({
    kind: 'skipped',
    name: rowName(about, OURS, name),
    targets: TO_PEERS,
    reason,
  }))
