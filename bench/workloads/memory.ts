import Database from 'better-sqlite3'
import type { NewRow } from '../../schema/index.ts'
import { newId } from '../../schema/values/id.ts'
import { decodeVector } from '../../schema/values/vector.ts'
import { AgentDB } from '../../src/index.ts'
import { measuredRow, type BenchRow, type Target } from '../report/row.ts'
import { median } from '../report/statistics.ts'
import { sentence, vectorSource } from '../support/data.ts'
import { temporaryFolder } from '../support/folder.ts'
import { interleave, ratioOf, type Schedule } from '../support/measure.ts'
import { seededRandom } from '../support/random.ts'
import { localWorkload } from './workload.ts'

interface Parameters extends Schedule {
  readonly records: number
  readonly dimension: number
}

const MODEL = 'bench'
const ITEMS_OF_A_RECORD = 2
const INSERTED_AT_ONCE = 1000

/** What an agent waits for before it starts on a task; a call of a model takes a hundred times as long. */
export const memory = localWorkload<Parameters>({
  name: 'memory',
  claim:
    'the lessons of the nearest of 10 000 tasks take a quarter of a scan of their rows, and less than 100 ms at p95',
  sizes: {
    full: { records: 10_000, dimension: 384, rounds: 200, each: 1, warmup: 20 },
    quick: { records: 10_000, dimension: 384, rounds: 40, each: 1, warmup: 5 },
    tiny: { records: 30, dimension: 8, rounds: 2, each: 2, warmup: 1 },
  },
  run: async ({ records, dimension, ...schedule }) => {
    using folder = temporaryFolder()
    const path = folder.file('store.db')
    await using db = await AgentDB.open({ path, embed: () => [] })
    const next = vectorSource(seededRandom(5), dimension)
    fill(db, records, next)
    const probes = Array.from({ length: 200 }, next)
    const probe = (n: number): Float32Array => probes[n % probes.length] ?? next()
    const plain = new Database(path, { readonly: true })
    try {
      return await retrieve(db, plain, `${records} x ${dimension}`, probe, schedule)
    } finally {
      plain.close()
    }
  },
})

function fill(db: AgentDB, records: number, next: () => Float32Array): void {
  const random = seededRandom(6)
  const rows = Array.from({ length: records }, () => {
    const record = { record_id: newId(), query_vector: next(), source_query: sentence(random, 12) }
    return Array.from({ length: ITEMS_OF_A_RECORD }, (): NewRow<'memory_items'> => ({
      ...record,
      polarity: random() < 0.5 ? 'success' : 'failure',
      title: sentence(random, 5),
      description: sentence(random, 12),
      content: sentence(random, 40),
      model: MODEL,
      dimension: record.query_vector.length,
    }))
  }).flat()
  for (let from = 0; from < rows.length; from += INSERTED_AT_ONCE)
    db.memory.items.createMany(rows.slice(from, from + INSERTED_AT_ONCE))
}

async function retrieve(
  db: AgentDB,
  plain: Database.Database,
  size: string,
  probe: (n: number) => Float32Array,
  schedule: Schedule,
): Promise<BenchRow[]> {
  const retrieval = (n: number, count: boolean): Promise<readonly { recordId: string }[]> =>
    db.memory.retrieve({ embedding: probe(n), model: MODEL, count })
  const byRecord = plain.prepare(
    'SELECT id, polarity, title, description, content FROM memory_items WHERE record_id = ?',
  )
  const known = await Promise.all(
    Array.from({ length: 200 }, async (_, n) => (await retrieval(n, false))[0]?.recordId ?? ''),
  )
  const [ours, counted, scan, read] = await interleave(
    [
      { run: (n) => retrieval(n, false) },
      { run: (n) => retrieval(n, true) },
      { run: (n) => byRecord.all(nearestRecord(plain, probe(n))) },
      { run: (n) => byRecord.all(known[n % known.length]) },
    ],
    schedule,
  )
  const against = `reading the same rows with better-sqlite3 and comparing them in a loop (p50 ${median(scan.ms).toFixed(1)} ms)`
  const floor = `the rows alone, their record known: p50 ${median(read.ms).toFixed(3)} ms`
  const targets: readonly Target[] = [
    { metric: 'p95', limit: 100 },
    { metric: 'ratio', limit: 0.25 },
  ]
  return [
    measuredRow({
      name: `retrieve, ${size}`,
      unit: 'ms',
      samples: ours.ms,
      ratio: ratioOf(ours, scan, against),
      targets,
      note: `k=1, exact; ${floor}`,
    }),
    measuredRow({
      name: `retrieve and count, ${size}`,
      unit: 'ms',
      samples: counted.ms,
      ratio: ratioOf(counted, scan, against),
      targets,
      note: 'each retrieval is a local transaction that is synced',
    }),
  ]
}

/** What one writes in five minutes, and what the paper's reference code does with its file. */
function nearestRecord(plain: Database.Database, probe: Float32Array): string {
  let best = { id: '', score: Number.NEGATIVE_INFINITY }
  const rows = plain
    .prepare<unknown[], { record_id: string; query_vector: Uint8Array }>(
      'SELECT record_id, query_vector FROM memory_items',
    )
    .iterate()
  for (const { record_id: id, query_vector: bytes } of rows) {
    const vector = decodeVector(bytes)
    let dot = 0
    let squares = 0
    for (let i = 0; i < vector.length; i++) {
      const x = vector[i] ?? 0
      dot += x * (probe[i] ?? 0)
      squares += x * x
    }
    const score = dot / Math.sqrt(squares)
    if (score > best.score) best = { id, score }
  }
  return best.id
}
