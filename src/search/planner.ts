/**
 * How a vector query is answered. A pure function of counts: what it costs to compare every vector, only those that a
 * filter leaves (or all after all, where finding them one by one takes longer), or to walk the graph and compare what it found and what is newer than it. The cheapest that reaches
 * the recall wanted is taken.
 */
export type SearchMethod = 'exact' | 'filtered exact' | 'hnsw'

export interface PlanInput {
  /** Vectors of the collection, model and dimension. */
  readonly count: number
  readonly dimension: number
  readonly k: number
  /** Share of the true k nearest that must be found, 0 to 1. */
  readonly recall: number
  /** Rows that the filter leaves, at most; undefined without a filter. */
  readonly matching?: number | undefined
  readonly graph?: GraphState | undefined
}

export interface GraphState {
  /** Changes that the graph has not taken in, at most: they are compared exactly. */
  readonly behind: number
  /** The least `ef` that finds the share `recall` of the `k` nearest; or why there is none. */
  efFor(k: number, recall: number): number | string
}

export interface Alternative {
  readonly method: SearchMethod
  readonly estimatedUs: number
}

export interface Plan {
  readonly method: SearchMethod
  /** In words. */
  readonly reason: string
  /** Microseconds that it should take on the machine of {@link COSTS}: good for comparing, not for promising. */
  readonly estimatedUs: number
  /** All that could be done, the cheapest first. */
  readonly alternatives: readonly Alternative[]
  /** How widely the graph looks, and for how many it is asked; undefined unless it is. */
  readonly graph?: { readonly ef: number; readonly k: number } | undefined
  /** Of a filtered scan: whether only matching rows are compared, or all of them and the filter asked of the best. */
  readonly picksRows: boolean
}

/** Nanoseconds, and steps of the graph. */
export interface Costs {
  readonly scanRow: number
  readonly scanByte: number
  /** To find the row of an id, where only some rows are compared. */
  readonly pickRow: number
  /** To another thread and back. */
  readonly graphCall: number
  /** Vectors compared for each unit of `ef`. */
  readonly graphSteps: number
  readonly graphStep: number
  readonly graphByte: number
}

/**
 * The scan's were measured on one core of an AMD EPYC (`npm run bench -- --only vector-scan`). The graph's are an estimate for
 * hnswlib with M = 16 and float32, each of whose steps is a read at random: they decide when it is tried, never what is found.
 */
export const COSTS: Costs = {
  scanRow: 5,
  scanByte: 0.1,
  pickRow: 800,
  graphCall: 100_000,
  graphSteps: 18,
  graphStep: 50,
  graphByte: 0.1,
}

/** Neighbours that a graph is asked for at most. */
export const GRAPH_K_MAX = 1000

export function plan(input: PlanInput, costs: Costs = COSTS): Plan {
  const { count, matching } = input
  const all = us(count * rowCost(input, costs))
  const picked = us((matching ?? count) * pickedCost(input, costs))
  const scan: Way =
    matching === undefined
      ? { method: 'exact', estimatedUs: all }
      : { method: 'filtered exact', estimatedUs: Math.min(all, picked) }
  const graph = graphWay(input, scan.estimatedUs, costs)
  const ways: Way[] = typeof graph === 'string' ? [scan] : [scan, graph]
  ways.sort((a, b) => a.estimatedUs - b.estimatedUs)
  const [best = scan] = ways
  return {
    method: best.method,
    reason: reasonFor(input, best, graph),
    estimatedUs: best.estimatedUs,
    alternatives: ways.map(({ method, estimatedUs }) => ({ method, estimatedUs })),
    graph: best.graph,
    picksRows: matching !== undefined && picked <= all,
  }
}

type Way = Alternative & { readonly graph?: Plan['graph'] }
type GraphWay = Alternative & { readonly graph: NonNullable<Plan['graph']> }

/** What the graph would cost, or why it is out. */
function graphWay(input: PlanInput, scanUs: number, costs: Costs): GraphWay | string {
  const { count, k, recall, matching = count, graph } = input
  if (graph === undefined) return 'there is no graph'
  if (recall >= 1) return 'a recall of 1 wants every vector compared'
  if (input.matching === 0) return 'the filter leaves nothing'
  if (k >= matching) return `k = ${k} wants all ${matching} rows there are`
  // As many again as may have changed since, and half as many again as the share of matching rows asks for.
  const spare = Math.min(graph.behind, k)
  const share = matching < count ? (1.5 * count) / matching : 1
  const wanted = Math.ceil((k + spare) * share)
  if (wanted > GRAPH_K_MAX) {
    return `the graph would have to give ${wanted} neighbours for ${k} to remain, ${GRAPH_K_MAX} at most`
  }
  const takes = (ef: number): number =>
    us(walkCost(input, ef, costs) + (wanted + graph.behind) * pickedCost(input, costs))
  if (takes(wanted) >= scanUs) return 'comparing them costs less than any walk of the graph'
  const ef = graph.efFor(wanted, recall)
  if (typeof ef === 'string') return ef
  return { method: 'hnsw', estimatedUs: takes(ef), graph: { ef, k: wanted } }
}

function walkCost({ dimension }: PlanInput, ef: number, costs: Costs): number {
  const { graphCall, graphSteps, graphStep, graphByte } = costs
  return graphCall + ef * graphSteps * (graphStep + 4 * dimension * graphByte)
}

const rowCost = ({ dimension }: PlanInput, { scanRow, scanByte }: Costs): number =>
  scanRow + dimension * scanByte

const pickedCost = (input: PlanInput, costs: Costs): number => costs.pickRow + rowCost(input, costs)

const us = (nanoseconds: number): number => Math.ceil(nanoseconds / 1000)

function reasonFor(input: PlanInput, best: Alternative, graph: GraphWay | string): string {
  const { count, matching, recall } = input
  const share = matching === undefined || count === 0 ? 1 : matching / count
  const rows =
    matching === undefined
      ? `${count} vectors`
      : `${matching} of ${count} vectors (${percent(share)}) pass the filter`
  if (typeof graph === 'string') return `${rows}; ${graph}`
  if (best.method === 'hnsw') {
    const { ef, k } = graph.graph
    return `${rows}; the graph finds ${percent(recall)} of the nearest ${k} with ef = ${ef}, for less than comparing all`
  }
  return `${rows}; comparing them costs less than the graph (${graph.estimatedUs} us with ef = ${graph.graph.ef})`
}

const percent = (share: number): string => `${Number((100 * share).toPrecision(3))} %`
