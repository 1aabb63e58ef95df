import type { BenchRow, Target } from '../report/row.ts'
import type { Schedule } from '../support/measure.ts'
import { comparedRow, rowName, type Comparison, type Side, type VectorSize } from './vector-rows.ts'

export interface Parameters extends Schedule {
  readonly size: VectorSize
  /** Commits that the rows come in; the first of them is not counted. */
  readonly portions: number
  /** Rows that come one small commit after the other, again and again. */
  readonly stream: { readonly rows: number; readonly commit: number; readonly rounds: number }
  readonly probes: number
  readonly reindexes: number
  /** How long Qdrant may take to arrange its segments before it is asked. */
  readonly settleMs: number
}

const RECALL = 0.99

/** PF-005. */
const SEARCH: readonly Target[] = [
  { metric: 'p95', limit: 100 },
  { metric: 'recall', limit: RECALL },
]
/** PF-012. */
const HYBRID: readonly Target[] = [{ metric: 'p95', limit: 500 }]
/** DESIGN, budgets. */
const FILTERED: readonly Target[] = [
  { metric: 'ratio', limit: 2 },
  { metric: 'recall', limit: RECALL },
]
/** Ours, as nobody asks for one: reading, fencing and following take no longer than Qdrant itself. */
const TO_UPSERTS: readonly Target[] = [{ metric: 'ratio', limit: 2 }]
/** Ours: what it falls behind while rows come, it makes up in as much time again. */
const TO_INSERTS: readonly Target[] = [{ metric: 'ratio', limit: 1 }]

const QDRANT = 'AgentDB with Qdrant'
const ROWS = 'AgentDB without Qdrant'
const UPSERTS = 'plain upserts'

type Plan = Omit<Comparison, 'ours' | 'theirs'> & { readonly ours: string; readonly theirs: string }

/** What is compared with what, in the order of the report. */
export function plansOf({ size, portions, stream }: Parameters) {
  const ms = { unit: 'ms', size } as const
  const rate = { unit: 'rows/s', targets: TO_UPSERTS, theirs: UPSERTS, ours: 'AgentDB' } as const
  const search = { ...ms, measure: 'search at the centre', targets: SEARCH }
  const hybrid = { ...ms, measure: 'hybrid search at the centre', targets: HYBRID }
  const filtered = {
    ...ms,
    ours: QDRANT,
    theirs: 'the same without a filter',
    targets: FILTERED,
    isAnotherMeasure: true,
  }
  const portion = { ...size, vectors: size.vectors / portions }
  return {
    follow: { ...rate, measure: 'from the log into Qdrant', size: portion },
    behind: {
      measure: 'behind the last insert',
      unit: 'ms',
      size: { ...size, vectors: stream.rows },
      targets: TO_INSERTS,
      ours: 'AgentDB',
      theirs: 'the inserts',
      isAnotherMeasure: true,
    },
    direct: { ...search, ours: QDRANT, theirs: 'Qdrant asked directly' },
    exact: { ...search, ours: ROWS, theirs: QDRANT },
    tenth: { ...filtered, measure: 'search at the centre in 10 %' },
    hundredth: { ...filtered, measure: 'search at the centre in 1 %' },
    hybrid: { ...hybrid, ours: QDRANT, theirs: ROWS },
    hybridExact: { ...hybrid, ours: ROWS, theirs: QDRANT },
    reindex: { ...rate, measure: 'reindex', size },
  } as const satisfies Record<string, Plan>
}

export const planned = (parameters: Parameters): { name: string; targets: readonly Target[] }[] =>
  Object.values(plansOf(parameters)).map((plan: Plan) => ({
    name: rowName(plan, plan.ours, plan.theirs),
    targets: plan.targets,
  }))

/** Neither side's own name: the plan has them. */
export type Measured = Omit<Side, 'name'>

export const rowOf = (plan: Plan, ours: Measured, theirs: Measured, note: string): BenchRow =>
  comparedRow({
    ...plan,
    ours: { ...ours, name: plan.ours },
    theirs: { ...theirs, name: plan.theirs },
    note,
  })
