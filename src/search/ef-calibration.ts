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
  /** Mean recall at k by `ef`, in ascending order of `ef`; ends with the first that misses next to nothing. */
  readonly measured: readonly { readonly ef: number; readonly recall: number }[]
}

export interface CalibrationInput {
  readonly graph: GraphIndex
  readonly scan: ScanIndex
  readonly k: number
  /** Queries as they are asked; what they find of themselves is not counted. */
  readonly queries: readonly Query[]
  /** What the graph does not know of yet: no miss of the graph, as it is compared exactly anyway. */
  readonly newer: ReadonlySet<string>
  /** Called between queries, so that others get their turn. */
  readonly pause: () => Promise<unknown>
}

export interface Query {
  readonly vector: Float32Array
  /** Of a stored vector that serves as query. */
  readonly id?: string | undefined
}

/** With 32 queries for 10 neighbours the standard error of a recall of 0.99 is 0.006. */
export const CALIBRATION_QUERIES = 32
const EF_LADDER = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048]
/** No larger `ef` is tried once this is found. */
const ENOUGH = 0.9995
/** Scores this close are the same neighbour's or as good: a copy of a vector is no miss. */
const TIE = 1e-6

interface Truth extends Query {
  readonly floor: number
  readonly wanted: number
}

export async function calibrate(input: CalibrationInput): Promise<Calibration> {
  const { graph, scan, k, queries, newer, pause } = input
  const { size } = graph
  const truths: Truth[] = []
  for (const query of queries) {
    const known = scan.search(query.vector, k + 1, (id) => !newer.has(id))
    const best = others(known, query).slice(0, k)
    const floor = best.at(-1)?.score
    if (floor !== undefined) truths.push({ ...query, floor: floor - TIE, wanted: best.length })
    await pause()
  }
  const measured: { ef: number; recall: number }[] = []
  for (const ef of EF_LADDER.filter((step) => step > k)) {
    let recall = 0
    for (const truth of truths) recall += (await recallOf(input, truth, ef)) / truths.length
    measured.push({ ef, recall })
    if (recall >= ENOUGH || ef >= 4 * size) break
  }
  return { k, size, queries: truths.length, measured }
}

async function recallOf(
  { graph, scan, k, newer, pause }: CalibrationInput,
  truth: Truth,
  ef: number,
): Promise<number> {
  const hits = await graph.search(truth.vector, k + 1, ef)
  const ids = hits.map(({ id }) => id).filter((id) => !newer.has(id))
  // Scored anew: a graph of rounded vectors gives rounded scores.
  const found = others(scan.search(truth.vector, k + 1, ids), truth)
  await pause()
  return Math.min(1, found.filter(({ score }) => score >= truth.floor).length / truth.wanted)
}

const others = <T extends { readonly id: string }>(found: readonly T[], { id }: Query): T[] =>
  found.filter((neighbour) => neighbour.id !== id)

/** The least `ef` whose measured recall reaches the target; undefined where none did. */
export function efFor({ measured }: Calibration, recall: number): number | undefined {
  return measured.find((point) => point.recall >= recall)?.ef
}
