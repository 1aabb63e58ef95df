import { AgentDB } from '../../src/index.ts'
import { ScanIndex } from '../../src/vector/scan-index.ts'
import type { Scanned } from '../../src/vector/sweep.ts'
import { measuredRow, type BenchRow } from '../report/row.ts'
import { median } from '../report/statistics.ts'
import { vectorSource } from '../support/data.ts'
import { interleave, ratioOf, type Contender, type Schedule } from '../support/measure.ts'
import { seededId, seededRandom } from '../support/random.ts'
import { exactSearchOfUsearch } from '../peers/usearch.ts'
import { localWorkload } from './workload.ts'

interface Parameters extends Schedule {
  /** Vectors and dimensions of the index alone. */
  readonly sizes: readonly (readonly [number, number])[]
  /** The same through a store, with payloads. */
  readonly stored: readonly [number, number]
}

const K = 10
const PUT_ROWS = 500
const SHARES = [0.001, 0.01, 0.1] as const
const STORED_SHARES = [...SHARES, 0.5] as const

/** DESIGN, budgets: a filtered query takes at most twice the unfiltered one, whatever the filter leaves. */
export const vectorScan = localWorkload<Parameters>({
  name: 'vector-scan',
  claim:
    'the exact scan loses no neighbour and beats a loop in JavaScript and usearch; filtered it costs less',
  sizes: {
    full: {
      sizes: [
        [10_000, 384],
        [100_000, 384],
        [10_000, 1536],
        [100_000, 1536],
      ],
      stored: [100_000, 384],
      rounds: 40,
      each: 1,
      warmup: 5,
    },
    quick: { sizes: [[10_000, 384]], stored: [10_000, 384], rounds: 20, each: 1, warmup: 5 },
    tiny: { sizes: [[200, 8]], stored: [200, 8], rounds: 2, each: 2, warmup: 1 },
  },
  run: async ({ sizes, stored, ...schedule }) => {
    const rows: BenchRow[] = []
    for (const [count, dimension] of sizes) rows.push(...(await scans(count, dimension, schedule)))
    return [...rows, ...(await filters(...stored, schedule))]
  },
})

async function scans(count: number, dimension: number, schedule: Schedule): Promise<BenchRow[]> {
  const random = seededRandom(4)
  const next = vectorSource(random, dimension)
  const matrix = new Float32Array(count * dimension)
  const index = new ScanIndex(dimension)
  const ids: string[] = []
  for (let row = 0; row < count; row++) {
    const vector = next()
    matrix.set(vector, row * dimension)
    ids.push(seededId(random, row))
    index.set(ids[row] ?? '', vector)
  }
  const probes = Array.from({ length: 50 }, next)
  const probe = (n: number): Float32Array =>
    probes[n % probes.length] ?? new Float32Array(dimension)
  const rescored = mustFindAll(index, matrix, probes.slice(0, 20))

  const usearch = await exactSearchOfUsearch()
  const contenders: Contender[] = [
    { run: (n) => index.search(probe(n), K) },
    { run: (n) => plainScan(matrix, probe(n), K) },
    ...SHARES.map((share) => {
      const some = ids.filter((_, row) => row % Math.round(1 / share) === 0)
      return { run: (n: number) => index.search(probe(n), K, some) }
    }),
    ...(usearch === undefined ? [] : [{ run: (n: number) => usearch(matrix, probe(n), K) }]),
  ]
  const [ours, plain, ...others] = await interleave(contenders, schedule)
  if (ours === undefined || plain === undefined) throw new Error('nothing was measured')
  const what = `${count} x ${dimension}, k=${K}`
  const note = `recall 1; ${rescored} originals compared on average; ${Math.round(index.memoryBytes / 1e6)} MB`
  const rows = [
    measuredRow({
      name: `scan, ${what}`,
      unit: 'ms',
      samples: ours.ms,
      ratio: ratioOf(
        ours,
        plain,
        `the same in JavaScript, float32, four sums (p50 ${median(plain.ms).toFixed(2)} ms)`,
      ),
      targets: [{ metric: 'ratio', limit: 0.25 }],
      note: usearch === undefined ? `${note}; usearch is not installed` : note,
    }),
    ...SHARES.map((share, i) => {
      const filtered = others[i] ?? ours
      return measuredRow({
        name: `scan of ${100 * share} %, ${what}`,
        unit: 'ms',
        samples: filtered.ms,
        ratio: ratioOf(filtered, ours, 'the scan of all'),
        targets: [{ metric: 'ratio', limit: 2 }],
        note: 'ids given as a list',
      })
    }),
  ]
  const theirs = others[SHARES.length]
  if (theirs === undefined) return rows
  return [
    ...rows,
    measuredRow({
      name: `scan against usearch, ${what}`,
      unit: 'ms',
      samples: ours.ms,
      ratio: ratioOf(
        ours,
        theirs,
        `usearch exactSearch, float32, one thread (p50 ${median(theirs.ms).toFixed(2)} ms)`,
      ),
      targets: [{ metric: 'ratio', limit: 1 }],
    }),
  ]
}

/** Rows are a second apart. */
const timeOf = (row: number): string => new Date(Date.UTC(2026, 0, 1) + row * 1000).toISOString()

/** A search of a store with a filter on its payload or in a range of time, against one without. */
async function filters(count: number, dimension: number, schedule: Schedule): Promise<BenchRow[]> {
  await using db = await AgentDB.open({ path: ':memory:' })
  const next = vectorSource(seededRandom(4), dimension)
  const collection = 'documentation_embeddings'
  for (let from = 0; from < count; from += PUT_ROWS) {
    await db.embeddings.putMany(
      Array.from({ length: Math.min(PUT_ROWS, count - from) }, (_, i) => ({
        collection,
        vector: next(),
        model: 'bench',
        payload: {
          timestamp: timeOf(from + i),
          ...Object.fromEntries(
            STORED_SHARES.map((share) => [
              `one_in_${Math.round(1 / share)}`,
              (from + i) % Math.round(1 / share),
            ]),
          ),
        },
      })),
    )
  }
  const probes = Array.from({ length: 50 }, next)
  const probe = (n: number): Float32Array =>
    probes[n % probes.length] ?? new Float32Array(dimension)
  const limits = STORED_SHARES.flatMap((share) => [
    {
      share,
      what: 'with a filter',
      option: { filter: { [`one_in_${Math.round(1 / share)}`]: 0 } },
    },
    {
      share,
      what: 'in a range of time',
      option: { from: timeOf(Math.round(count * (1 - share))) },
    },
  ])
  const [whole, ...limited] = await interleave(
    [
      { run: (n) => db.search({ collection, vector: probe(n), k: K }) },
      ...limits.map(({ option }): Contender => ({
        run: (n) => db.search({ collection, vector: probe(n), k: K, ...option }),
      })),
    ],
    schedule,
  )
  if (whole === undefined) throw new Error('nothing was measured')
  return limits.map(({ share, what }, i) => {
    const some = limited[i] ?? whole
    return measuredRow({
      name: `db.search ${what} that leaves ${100 * share} %, ${count} x ${dimension}`,
      unit: 'ms',
      samples: some.ms,
      ratio: ratioOf(some, whole, `db.search of all (p50 ${median(whole.ms).toFixed(2)} ms)`),
      targets: [{ metric: 'ratio', limit: 2 }],
      note: 'fields and times are in memory from the first query on',
    })
  })
}

/** Compares with the plain scan; the mean number of originals looked at. */
function mustFindAll(
  index: ScanIndex,
  matrix: Float32Array,
  probes: readonly Float32Array[],
): number {
  let rescored = 0
  for (const probe of probes) {
    const found: Scanned = index.scan(probe, K)
    const wanted = plainScan(matrix, probe, K)
    const floor = (wanted.at(-1)?.score ?? 1) - 1e-5
    const hits = found.neighbours.filter(({ score }) => score >= floor).length
    if (hits !== wanted.length)
      throw new Error(`the scan found ${hits} of the ${wanted.length} nearest`)
    rescored += found.rescored
  }
  return Math.round(rescored / probes.length)
}

/** What the index was before: one matrix of unit vectors in float32, four sums side by side, a sorted list of the best. */
function plainScan(
  matrix: Float32Array,
  probe: Float32Array,
  k: number,
): { row: number; score: number }[] {
  const dimension = probe.length
  const best: { row: number; score: number }[] = []
  let floor = Number.NEGATIVE_INFINITY
  for (let offset = 0, row = 0; offset < matrix.length; offset += dimension, row++) {
    let a = 0
    let b = 0
    let c = 0
    let d = 0
    for (let i = 0; i < dimension; i += 4) {
      a += (probe[i] as number) * (matrix[offset + i] as number)
      b += (probe[i + 1] as number) * (matrix[offset + i + 1] as number)
      c += (probe[i + 2] as number) * (matrix[offset + i + 2] as number)
      d += (probe[i + 3] as number) * (matrix[offset + i + 3] as number)
    }
    const score = a + b + c + d
    if (best.length === k && score <= floor) continue
    best.push({ row, score })
    best.sort((one, other) => other.score - one.score)
    if (best.length > k) best.pop()
    floor = best.at(-1)?.score ?? floor
  }
  return best
}
