import { bakeOff, type BakeOff } from './vector-graph.ts'
import type { VectorSize } from './vector-rows.ts'
import { compareStores, type StoresBench } from './vector-stores.ts'
import { localWorkload } from './workload.ts'

interface Parameters {
  readonly size: VectorSize
  readonly graphs: BakeOff
  readonly stores: StoresBench
}

const schedule = { changes: 50, queries: 50, rounds: 25, each: 2, warmup: 2 } as const

/** The largest size, by itself: it takes hours where the others take minutes. */
export const vectorMillion = localWorkload<Parameters>({
  name: 'vector-million',
  claim: 'vector-graph and vector-stores at 1 000 000 x 384, with the engine that is taken first',
  onlyWhenNamed: true,
  sizes: {
    full: {
      size: { vectors: 1_000_000, dimension: 384 },
      graphs: { ...schedule, engines: ['usearch'] },
      stores: { ...schedule, openings: 2 },
    },
    quick: {
      size: { vectors: 20_000, dimension: 384 },
      graphs: { ...schedule, engines: ['usearch'] },
      stores: { ...schedule, openings: 2 },
    },
    tiny: {
      size: { vectors: 60, dimension: 4 },
      graphs: { engines: ['usearch'], changes: 2, queries: 2, rounds: 1, each: 1, warmup: 0 },
      stores: { changes: 2, queries: 2, openings: 1, rounds: 1, each: 1, warmup: 0 },
    },
  },
  run: async ({ size, graphs, stores }) => [
    ...(await bakeOff(size, graphs)),
    ...(await compareStores(size, stores)),
  ],
})
