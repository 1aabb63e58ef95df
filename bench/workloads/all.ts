import { agentLatency } from './agent-latency.ts'
import { firstSync } from './first-sync.ts'
import { getById } from './get-by-id.ts'
import { batchInsert, durableInsert } from './insert.ts'
import { liveStreams } from './live-streams.ts'
import { locomo } from './locomo.ts'
import { memory } from './memory.ts'
import { oneRowApply } from './one-row-apply.ts'
import { pushRate } from './push-rate.ts'
import { reconcile } from './reconcile.ts'
import { textSearch } from './text-search.ts'
import { vectorCentre } from './vector-centre.ts'
import { vectorExact } from './vector-exact.ts'
import { vectorScan } from './vector-scan.ts'
import { vectorGraph } from './vector-graph.ts'
import { vectorGraphMillion, vectorStoresMillion } from './vector-million.ts'
import { vectorStores } from './vector-stores.ts'
import { wire } from './wire.ts'
import type { Workload } from './workload.ts'

/** Every bench, in the order of the report. */
export const workloads: readonly Workload[] = [
  getById,
  batchInsert,
  durableInsert,
  vectorExact,
  textSearch,
  locomo,
  memory,
  vectorScan,
  vectorGraph,
  vectorStores,
  vectorGraphMillion,
  vectorStoresMillion,
  vectorCentre,
  pushRate,
  agentLatency,
  liveStreams,
  firstSync,
  oneRowApply,
  reconcile,
  wire,
]
