import { bakeOff, type BakeOff } from './vector-graph.ts'
import type { VectorSize } from './vector-rows.ts'
import { compareStores, type StoresBench } from './vector-stores.ts'
import { localWorkload } from './workload.ts'

/** The largest size, by itself: it takes the better part of an hour where the others take minutes. */
const size = { vectors: 1_000_000, dimension: 384 } as const
const schedule = { changes: 50, queries: 50, rounds: 25, each: 2, warmup: 2 } as const

const lookSize = { vectors: 20_000, dimension: 384 } as const

const tinySize = { vectors: 60, dimension: 4 } as const
const tinySchedule = { changes: 2, queries: 2, rounds: 1, each: 1, warmup: 0 } as const

export const vectorGraphMillion = localWorkload<{ size: VectorSize; bench: BakeOff }>({
  name: 'vector-graph-million',
  claim: 'vector-graph at 1 000 000 x 384, with the engine that is taken first',
  onlyWhenNamed: true,
  sizes: {
    full: { size, bench: { ...schedule, engines: ['usearch'] } },
    quick: { size: lookSize, bench: { ...schedule, engines: ['usearch'] } },
    tiny: { size: tinySize, bench: { ...tinySchedule, engines: ['usearch'] } },
  },
  run: ({ size: of, bench }) => bakeOff(of, bench),
})

export const vectorStoresMillion = localWorkload<{ size: VectorSize; bench: StoresBench }>({
  name: 'vector-stores-million',
  claim: 'vector-stores at 1 000 000 x 384',
  onlyWhenNamed: true,
  sizes: {
    full: { size, bench: { ...schedule, openings: 2 } },
    quick: { size: lookSize, bench: { ...schedule, openings: 2 } },
    tiny: { size: tinySize, bench: { ...tinySchedule, openings: 1 } },
  },
  run: ({ size: of, bench }) => compareStores(of, bench),
})
