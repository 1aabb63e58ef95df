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
import { measuredRow, type BenchRow } from '../report/row.ts'
import { median } from '../report/statistics.ts'
import { vectorSource } from '../support/data.ts'
import { temporaryFolder } from '../support/folder.ts'
import { interleave, ratioOf, type Schedule, type Timing } from '../support/measure.ts'
import { seededRandom } from '../support/random.ts'
import { localWorkload } from './workload.ts'

interface Parameters extends Schedule {
  readonly sizes: readonly (readonly [count: number, dimension: number])[]
  /** Of the graph that is built behind a store whose event loop is watched. */
  readonly watched: readonly [count: number, dimension: number]
  /** Adds and deletes timed one by one. */
  readonly changes: number
  readonly queries: number
}

const K = 10
const PUT_ROWS = 500
const RECALL = 0.99
const EFS = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512]
const collection = 'documentation_embeddings'

/**
 * The bake-off of the engines, each behind the guards of a graph, and the exact scan of a store beside them; then a
 * store whose graph is built and saved while its event loop is watched.
 */
export const vectorGraph = localWorkload<Parameters>({
  name: 'vector-graph',
  claim:
    'a graph finds 99 % of the 10 nearest faster than the exact scan; the event loop waits 10 ms at most, at p99',
  sizes: {
    full: {
      sizes: [
        [10_000, 384],
        [10_000, 1536],
        [50_000, 384],
        [50_000, 1536],
      ],
      watched: [10_000, 1536],
      changes: 200,
      queries: 200,
      rounds: 40,
      each: 5,
      warmup: 4,
    },
    quick: {
      sizes: [[5000, 384]],
      watched: [10_000, 64],
      changes: 100,
      queries: 50,
      rounds: 20,
      each: 5,
      warmup: 2,
    },
    tiny: {
      sizes: [[60, 8]],
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
    for (const [count, dimension] of sizes) rows.push(...(await bakeOff(count, dimension, rest)))
    rows.push(...(await eventLoop(...watched)))
    return rows
  },
})

interface Contender {
  readonly name: EngineName
  readonly graph: Graph
  readonly vectors: readonly Float32Array[]
  readonly buildMs: number
  readonly buildCpuMs: number
  readonly rssBytes: number
  readonly ef: number
  readonly recall: number
}

const newGraph = (name: EngineName, dimension: number): Graph => {
  const engine = loadEngine(name)
  if (engine.kind === 'unavailable') throw new Error(engine.reason)
  return new Graph({ dimension, m: 16, efConstruct: 100 }, engine.create)
}

function build(
  name: EngineName,
  vectors: readonly Float32Array[],
  dimension: number,
): Omit<Contender, 'ef' | 'recall'> {
  const rssBefore = process.memoryUsage.rss()
  const cpuBefore = process.cpuUsage()
  const startedAt = performance.now()
  const graph = newGraph(name, dimension)
  for (const [i, vector] of vectors.entries()) graph.set(`v${i}`, 0, vector)
  const buildMs = performance.now() - startedAt
  const { user, system } = process.cpuUsage(cpuBefore)
  const rssBytes = Math.max(1, process.memoryUsage.rss() - rssBefore)
  return { name, graph, vectors, buildMs, buildCpuMs: (user + system) / 1000, rssBytes }
}

/** The least ef that reaches the recall, and the recall there. */
function calibrated(
  { graph }: Pick<Contender, 'graph'>,
  probes: readonly Float32Array[],
  truth: readonly ReadonlySet<string>[],
): { ef: number; recall: number } {
  let best = { ef: 0, recall: 0 }
  for (const ef of EFS) {
    let found = 0
    for (const [i, probe] of probes.entries())
      found += graph.search(probe, K, ef).filter(({ id }) => truth[i]?.has(id)).length
    best = { ef, recall: found / (probes.length * K) }
    if (best.recall >= RECALL) break
  }
  return best
}

async function bakeOff(
  count: number,
  dimension: number,
  { changes, queries, ...schedule }: Omit<Parameters, 'sizes' | 'watched'>,
): Promise<BenchRow[]> {
  const next = vectorSource(seededRandom(4), dimension)
  const vectors = Array.from({ length: count }, next)
  const probes = Array.from({ length: queries }, next)
  const probe = (n: number): Float32Array => probes[n % queries] ?? new Float32Array(dimension)
  const built = engineNames.map((name) => build(name, vectors, dimension))
  await using db = await AgentDB.open({ path: ':memory:', vectorIndex: 'exact' })
  for (let from = 0; from < count; from += PUT_ROWS) {
    const slice = vectors.slice(from, from + PUT_ROWS)
    await db.embeddings.putMany(
      slice.map((vector, i) => ({ collection, vector, model: 'bench', payload: { n: from + i } })),
    )
  }
  const truth: Set<string>[] = []
  for (const vector of probes) {
    const found = await db.search({ collection, vector, k: K })
    truth.push(new Set(found.map(({ payload }) => `v${(payload as { n: number }).n}`)))
  }
  const [a, b] = built.map((one) => ({ ...one, ...calibrated(one, probes, truth) }))
  if (a === undefined || b === undefined) throw new Error('two engines are compared')
  const size = `${count} x ${dimension}`
  return [
    ...(await queryRows(size, a, b, db, probe, schedule)),
    ...buildRows(size, a, b),
    ...(await changeRows(size, a, b, next, changes)),
    ...(await fileRows(size, a, b, count * dimension * 4, schedule)),
  ]
}

async function queryRows(
  size: string,
  a: Contender,
  b: Contender,
  db: AgentDB,
  probe: (n: number) => Float32Array,
  schedule: Schedule,
): Promise<BenchRow[]> {
  const [exact, ...timings] = await interleave(
    [
      { run: (n) => db.search({ collection, vector: probe(n), k: K }) },
      { run: (n) => a.graph.search(probe(n), K, a.ef) },
      { run: (n) => b.graph.search(probe(n), K, b.ef) },
    ],
    schedule,
  )
  const [first, second] = timings as unknown as readonly [Timing, Timing]
  const row = (one: Contender, timing: Timing): BenchRow =>
    measuredRow({
      name: `${one.name} query, ${size}, k=${K}`,
      unit: 'us',
      samples: timing.ms.map((ms) => ms * 1000),
      ratio: ratioOf(
        timing,
        exact,
        `the exact scan of a store (p50 ${median(exact.ms).toFixed(2)} ms)`,
      ),
      targets: [{ metric: 'ratio', limit: 1 }],
      note: `recall ${one.recall.toFixed(4)} at ef ${one.ef}; ${(median(timing.ms) / median(first.ms)).toFixed(2)}x hnswlib's p50, interleaved`,
    })
  return [row(a, first), row(b, second)]
}

const buildRows = (size: string, a: Contender, b: Contender): BenchRow[] =>
  [a, b].map((one) =>
    measuredRow({
      name: `${one.name} build, ${size}`,
      unit: 'rows/s',
      samples: [one.vectors.length / (one.buildMs / 1000)],
      ratio: {
        value: one.buildMs / a.buildMs,
        cpu: one.buildCpuMs / a.buildCpuMs,
        against: 'hnswlib, one after the other',
      },
      targets: [{ metric: 'ratio', limit: 1 }],
      note: `${(one.rssBytes / 1e6).toFixed(0)} MB of memory`,
    }),
  )

async function changeRows(
  size: string,
  a: Contender,
  b: Contender,
  next: () => Float32Array,
  changes: number,
): Promise<BenchRow[]> {
  const fresh = Array.from({ length: changes }, next)
  const add = (one: Contender) => (n: number) => one.graph.set(`new${n}`, 1, fresh[n] ?? next())
  const remove = (one: Contender) => (n: number) => one.graph.delete(`v${n}`)
  const once: Schedule = { rounds: changes, each: 1, warmup: 0 }
  const rows: BenchRow[] = []
  for (const [what, work] of [
    ['add', add],
    ['delete', remove],
  ] as const) {
    const [first, second] = await interleave([{ run: work(a) }, { run: work(b) }], once)
    for (const [one, timing] of [
      [a, first],
      [b, second],
    ] as const)
      rows.push(
        measuredRow({
          name: `${one.name} ${what}, ${size}`,
          unit: 'us',
          samples: timing.ms.map((ms) => ms * 1000),
          ratio: ratioOf(timing, first, 'hnswlib, interleaved'),
          targets: [{ metric: 'p95', limit: 10_000 }],
        }),
      )
  }
  return rows
}

async function fileRows(
  size: string,
  a: Contender,
  b: Contender,
  rawBytes: number,
  { warmup }: Schedule,
): Promise<BenchRow[]> {
  using folder = temporaryFolder()
  const schedule: Schedule = { rounds: 5, each: 1, warmup: Math.min(1, warmup) }
  const path = (one: Contender): string => folder.file(one.name)
  const save = (one: Contender) => () => one.graph.engine.save(path(one))
  const load = (one: Contender) => async () => {
    const { dimension } = one.graph.settings
    await newGraph(one.name, dimension).engine.load(path(one), [])
  }
  const saves = await interleave([{ run: save(a) }, { run: save(b) }], schedule)
  const loads = await interleave([{ run: load(a) }, { run: load(b) }], schedule)
  const row = (one: Contender, what: string, timing: Timing, against: Timing): BenchRow =>
    measuredRow({
      name: `${one.name} ${what}, ${size}`,
      unit: 'ms',
      samples: timing.ms,
      ratio: ratioOf(timing, against, 'hnswlib, interleaved; the engine alone'),
      targets: [{ metric: 'ratio', limit: 1 }],
      note: `file of ${(statSync(path(one)).size / 1e6).toFixed(1)} MB, ${(statSync(path(one)).size / rawBytes).toFixed(2)}x the raw vectors`,
    })
  return [
    row(a, 'save', saves[0], saves[0]),
    row(b, 'save', saves[1], saves[0]),
    row(a, 'load', loads[0], loads[0]),
    row(b, 'load', loads[1], loads[0]),
  ]
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
