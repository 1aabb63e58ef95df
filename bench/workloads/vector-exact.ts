import { AgentDB } from '../../src/index.ts'
import { measuredRow, type BenchRow } from '../report/row.ts'
import { median } from '../report/statistics.ts'
import { vectorSource } from '../support/data.ts'
import { interleave, ratioOf, type Schedule } from '../support/measure.ts'
import { seededRandom } from '../support/random.ts'
import { localWorkload } from './workload.ts'

interface Parameters extends Schedule {
  readonly vectors: number
  readonly dimensions: readonly number[]
}

const K = 10
const PUT_ROWS = 500

/** The seeds ask for less than 100 ms at p95; exact search has no recall to trade. */
export const vectorExact = localWorkload<Parameters>({
  name: 'vector-exact',
  claim: 'an exact vector query over 10 000 embeddings, k = 10, stays below 100 ms at p95',
  sizes: {
    full: { vectors: 10_000, dimensions: [384, 1536], rounds: 100, each: 1, warmup: 10 },
    quick: { vectors: 10_000, dimensions: [384], rounds: 30, each: 1, warmup: 5 },
    tiny: { vectors: 30, dimensions: [8], rounds: 2, each: 2, warmup: 1 },
  },
  run: async ({ vectors, dimensions, ...schedule }) => {
    const rows: BenchRow[] = []
    for (const dimension of dimensions) rows.push(await query(vectors, dimension, schedule))
    return rows
  },
})

async function query(count: number, dimension: number, schedule: Schedule): Promise<BenchRow> {
  await using db = await AgentDB.open({ path: ':memory:' })
  const next = vectorSource(seededRandom(4), dimension)
  const vectors = Array.from({ length: count }, next)
  const collection = 'documentation_embeddings'
  for (let from = 0; from < count; from += PUT_ROWS) {
    const slice = vectors.slice(from, from + PUT_ROWS)
    await db.embeddings.putMany(slice.map((vector) => ({ collection, vector, model: 'bench' })))
  }
  const probes = Array.from({ length: 200 }, next)
  const probe = (n: number): Float32Array =>
    probes[n % probes.length] ?? new Float32Array(dimension)
  const [ours, naive] = await interleave(
    [
      { run: (n) => db.search({ collection, vector: probe(n), k: K }) },
      { run: (n) => naiveSearch(vectors, probe(n), K) },
    ],
    schedule,
  )
  return measuredRow({
    name: `exact query, ${count} x ${dimension}, k=${K}`,
    unit: 'ms',
    samples: ours.ms,
    ratio: ratioOf(
      ours,
      naive,
      `a plain loop in JavaScript, cosine and sort (p50 ${median(naive.ms).toFixed(1)} ms)`,
    ),
    targets: [{ metric: 'p95', limit: 100 }],
    note: 'rows with payload returned; the matrix is in memory from the first query on',
  })
}

/** What one writes in five minutes: cosine against every vector, sort, take k. */
function naiveSearch(vectors: readonly Float32Array[], probe: Float32Array, k: number): number[] {
  const scores = vectors.map((vector) => {
    let dot = 0
    let a = 0
    let b = 0
    for (let i = 0; i < vector.length; i++) {
      const x = vector[i] ?? 0
      const y = probe[i] ?? 0
      dot += x * y
      a += x * x
      b += y * y
    }
    return dot / Math.sqrt(a * b)
  })
  return scores
    .map((score, row) => ({ score, row }))
    .toSorted((a, b) => b.score - a.score)
    .slice(0, k)
    .map(({ row }) => row)
}
