import { agentLatency } from './agent-latency.ts'
import { firstSync } from './first-sync.ts'
import { getById } from './get-by-id.ts'
import { batchInsert, durableInsert } from './insert.ts'
import { pushRate } from './push-rate.ts'
import { vectorExact } from './vector-exact.ts'
import { wire } from './wire.ts'
import type { Workload } from './workload.ts'

/** Every bench, in the order of the report. */
export const workloads: readonly Workload[] = [
  getById,
  batchInsert,
  durableInsert,
  vectorExact,
  pushRate,
  agentLatency,
  firstSync,
  wire,
]
