import type { GraphIndex } from '../vector/graph-index.ts'
import type { ScanIndex } from '../vector/scan-index.ts'

/**
 * How much of the truth a graph finds, by `ef`: measured on queries whose exact answer the scan gives. It holds for the
 * data and the `k` it was made with.
 */
export interface Calibration {
  readonly k: number
  /** Vectors in the graph when it was measured. */
  readonly size: number
  readonly queries: number
  /** In ascending order of `ef`; ends with the first that misses next to nothing. */
  readonly measured: readonly Measured[]
}

interface Measured {
  readonly ef: number
  /** Mean recall at k. */
  readonly recall: number
  /** Standard error of that mean. */
  readonly error: number
}

export interface CalibrationInput {
  readonly graph: GraphIndex
  readonly scan: ScanIndex
  readonly k: number
  /** As they were asked. */
  readonly queries: readonly Float32Array[]
  /** What the graph does not know of yet: no miss of the graph, as it is compared exactly anyway. */
  readonly newer: ReadonlySet<string>
  /** Called between queries, so that others get their turn. */
  readonly pause: () => Promise<unknown>
}

/** With 32 queries for 10 neighbours the standard error of a recall of 0.99 is 0.006. */
export const CALIBRATION_QUERIES = 32
const EF_LADDER = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048]
/** No larger `ef` is tried once this is found. */
const ENOUGH = 0.9995
/** Scores this close are the same neighbour's or as good: a copy of a vector is no miss. */
const TIE = 1e-6

interface Truth {
  readonly vector: Float32Array
  readonly floor: number
  readonly wanted: number
}

export async function calibrate(input: CalibrationInput): Promise<Calibration> {
  const { graph, scan, k, queries, newer, pause } = input
  const { size } = graph
  const truths: Truth[] = []
  for (const vector of queries) {
    using sweep = scan.sweep(vector, k, (id) => !newer.has(id))
    while (sweep.next()) await pause()
    const { neighbours: best } = sweep.finish()
    const floor = best.at(-1)?.score
    if (floor !== undefined) truths.push({ vector, floor: floor - TIE, wanted: best.length })
    await pause()
  }
  const measured: Measured[] = []
  for (const ef of EF_LADDER.filter((step) => step > k)) {
    const recalls: number[] = []
    for (const truth of truths) recalls.push(await recallOf(input, truth, ef))
    const mean = meanOf(recalls)
    measured.push({ ef, ...mean })
    if (mean.recall >= ENOUGH || ef >= 4 * size) break
  }
  return { k, size, queries: truths.length, measured }
}

async function recallOf(
  { graph, scan, k, newer, pause }: CalibrationInput,
  truth: Truth,
  ef: number,
): Promise<number> {
  const hits = await graph.search(truth.vector, k, ef)
  const ids = hits.map(({ id }) => id).filter((id) => !newer.has(id))
  // Scored anew: a graph of rounded vectors gives rounded scores.
  const found = scan.search(truth.vector, k, ids)
  await pause()
  return Math.min(1, found.filter(({ score }) => score >= truth.floor).length / truth.wanted)
}

function meanOf(recalls: readonly number[]): { recall: number; error: number } {
  const { length: n } = recalls
  const recall = recalls.reduce((sum, one) => sum + one, 0) / Math.max(1, n)
  const squares = recalls.reduce((sum, one) => sum + (one - recall) ** 2, 0)
  return { recall, error: Math.sqrt(squares / Math.max(1, n - 1) / Math.max(1, n)) }
}

/**
 * The least `ef` whose measured recall reaches the target, less its standard error: a few queries that went well by chance
 * are not enough. Undefined where none did.
 */
export function efFor({ measured }: Calibration, recall: number): number | undefined {
  return measured.find((point) => point.recall - point.error >= recall)?.ef
}
