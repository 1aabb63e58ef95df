import { vectorSettings } from '../../server/vectors/settings.ts'
import { ScanIndex } from '../../src/vector/scan-index.ts'
import { isMissing } from '../peers/missing.ts'
import type { BenchRow } from '../report/row.ts'
import type { NewEmbedding } from '../support/embedding-inserts.ts'
import { interleave, type Contender, type Timing } from '../support/measure.ts'
import { openQdrant } from '../support/qdrant.ts'
import { seededId, seededRandom } from '../support/random.ts'
import { VectorCentre, type CentreSearch } from '../support/vector-centre.ts'
import { recallOf, vectorData, type VectorSet } from '../support/vector-set.ts'
import { phrase } from './text-search.ts'
import { planned, plansOf, rowOf, type Measured, type Parameters } from './vector-centre-plan.ts'
import { postgresWorkload } from './workload.ts'

const K = 10
const WORDS_OF_ROW = 64
const WORDS_OF_QUERY = 3

/** Vectors at the centre: how Qdrant follows the rows, and what `POST /search/v1` takes with it and without. */
export const vectorCentre = postgresWorkload<Parameters>({
  name: 'vector-centre',
  claim:
    'POST /search/v1 takes 100 ms at p95, with words 500 ms, with Qdrant and without; Qdrant follows the log at half the rate of plain upserts',
  sizes: {
    full: {
      size: { vectors: 10_000, dimension: 1536 },
      portions: 10,
      stream: { rows: 1000, commit: 50, rounds: 5 },
      probes: 100,
      reindexes: 3,
      settleMs: 600_000,
      rounds: 50,
      each: 2,
      warmup: 5,
    },
    quick: {
      size: { vectors: 2000, dimension: 1536 },
      portions: 5,
      stream: { rows: 200, commit: 50, rounds: 2 },
      probes: 40,
      reindexes: 1,
      settleMs: 30_000,
      rounds: 20,
      each: 2,
      warmup: 2,
    },
    tiny: {
      size: { vectors: 40, dimension: 8 },
      portions: 2,
      stream: { rows: 4, commit: 2, rounds: 1 },
      probes: 3,
      reindexes: 1,
      settleMs: 0,
      rounds: 2,
      each: 1,
      warmup: 1,
    },
  },
  rows: (parameters) => planned(parameters),
  run: async (parameters, postgresUrl) => {
    const opened = await openQdrant()
    if (isMissing(opened))
      return planned(parameters).map((row) => ({ kind: 'skipped', ...row, reason: opened.missing }))
    await using qdrant = opened
    await using centre = await VectorCentre.open(postgresUrl, qdrant, parameters.size.dimension)
    const scene = sceneOf(centre, parameters)
    return [
      ...(await followRows(scene)),
      ...(await searchRows(scene)),
      ...(await hybridRows(scene)),
      await reindexRow(scene),
    ]
  },
})

interface Scene {
  readonly centre: VectorCentre
  readonly parameters: Parameters
  readonly plans: ReturnType<typeof plansOf>
  readonly stored: readonly NewEmbedding[]
  readonly streamed: readonly NewEmbedding[]
  readonly probes: VectorSet
  readonly texts: readonly string[]
  readonly numberOf: ReadonlyMap<string, number>
}

function sceneOf(centre: VectorCentre, parameters: Parameters): Scene {
  const { size, stream, probes } = parameters
  const data = vectorData(size.dimension, {
    stored: size.vectors,
    probes,
    fresh: stream.rows * (stream.rounds + 1),
  })
  const random = seededRandom(33)
  let made = 0
  const rowsOf = (vectors: VectorSet): NewEmbedding[] =>
    Array.from({ length: vectors.count }, (_, row) => ({
      id: seededId(random, made++),
      vector: vectors.row(row),
      content: phrase(random, WORDS_OF_ROW),
      payload: payloadOf(row),
    }))
  const stored = rowsOf(data.stored)
  return {
    centre,
    parameters,
    plans: plansOf(parameters),
    stored,
    streamed: rowsOf(data.fresh),
    probes: data.probes,
    texts: Array.from({ length: probes }, () => phrase(random, WORDS_OF_QUERY)),
    numberOf: new Map(stored.map(({ id }, row) => [id, row])),
  }
}

/** One language in ten rows, one project in a hundred. */
const payloadOf = (row: number): Record<string, string> => ({
  language: `language-${row % 10}`,
  project_id: `project-${row % 100}`,
})

async function followRows(scene: Scene): Promise<BenchRow[]> {
  const { centre, plans, stored, parameters } = scene
  const length = stored.length / parameters.portions
  const portion = (n: number): NewEmbedding[] => stored.slice(n * length, (n + 1) * length)
  const upserts = centre.plainUpserts()
  await upserts.make()
  const [ours, theirs] = await interleave(
    [
      {
        round: async (n) => {
          await centre.insert(portion(n), 'searched')
          return [await msOf(() => centre.caughtUp())]
        },
      },
      {
        round: async (n) => {
          const points = portion(n).map((row) => centre.point(row))
          return [await msOf(() => upserts.put(points))]
        },
      },
    ],
    { rounds: parameters.portions - 1, each: 1, warmup: 1 },
  )
  await mustHave(centre, stored.length)
  const follow = rowOf(
    plans.follow,
    { timing: ours },
    { timing: theirs },
    `from the commit of ${length} rows until all are points, nobody else writing; rows and points were equal in number after ${parameters.portions} commits`,
  )
  return [follow, await behindRow(scene)]
}

async function mustHave(centre: VectorCentre, rows: number): Promise<void> {
  const points = await centre.points('searched')
  if (points !== rows) throw new Error(`of ${rows} rows there are ${points} points`)
}

async function behindRow({ centre, plans, streamed, parameters }: Scene): Promise<BenchRow> {
  const { rows, commit, rounds } = parameters.stream
  const behind: number[] = []
  const inserting: number[] = []
  // The first round is not counted.
  for (let round = 0; round <= rounds; round++) {
    const some = streamed.slice(round * rows, (round + 1) * rows)
    inserting.push(
      await msOf(async () => {
        for (let at = 0; at < rows; at += commit)
          await centre.insert(some.slice(at, at + commit), 'aside')
      }),
    )
    behind.push(await msOf(() => centre.hasAside((round + 1) * rows)))
  }
  return rowOf(
    plans.behind,
    { timing: elsewhere(behind.slice(1)) },
    { timing: elsewhere(inserting.slice(1)) },
    `commits of ${commit} rows, one after the other while Qdrant follows; from the last commit until Qdrant counts all rows; the consumer looks every ${vectorSettings().pollMs} ms`,
  )
}

async function msOf(work: () => Promise<void>): Promise<number> {
  const startedAt = performance.now()
  await work()
  return performance.now() - startedAt
}

/** Most of it is the time of other processes. */
const elsewhere = (ms: number[]): Timing => ({ ms, cpuMs: Number.NaN })

const TENTH = { language: 'language-0' } as const
const HUNDREDTH = { project_id: 'project-0' } as const
const SHARED =
  'one caller; both servers and the caller share a process, PostgreSQL and Qdrant the machine'

async function searchRows(scene: Scene): Promise<BenchRow[]> {
  const { centre, plans, probes, parameters } = scene
  const standing = await centre.settled(parameters.settleMs)
  const via = (way: 'qdrant' | 'exact', filter?: CentreSearch['filter']) => (n: number) =>
    centre.search(way, { vector: probes.row(n), filter }, K)
  const asked = [
    { find: via('qdrant'), oneIn: 1 },
    { find: via('exact'), oneIn: 1 },
    { find: (n: number) => centre.searchDirectly(probes.row(n), K), oneIn: 1 },
    { find: via('qdrant', TENTH), oneIn: 10 },
    { find: via('qdrant', HUNDREDTH), oneIn: 100 },
  ] as const
  const timings = await interleave(
    asked.map(({ find }): Contender => ({ run: find })),
    parameters,
  )
  const truths = new Map([1, 10, 100].map((oneIn) => [oneIn, truthOf(scene, oneIn)]))
  const sides: Measured[] = []
  for (const [i, { find, oneIn }] of asked.entries()) {
    const recall = await recallBy(find, scene, truths.get(oneIn) ?? [])
    // Qdrant's part is another process's time.
    sides.push({ timing: elsewhere(timings[i]?.ms ?? []), recall })
  }
  const [qdrant, exact, direct, tenth, hundredth] = sides as [
    Measured,
    Measured,
    Measured,
    Measured,
    Measured,
  ]
  const note = `${SHARED}; ${standing}`
  return [
    rowOf(plans.direct, qdrant, direct, note),
    rowOf(plans.exact, exact, qdrant, note),
    rowOf(plans.tenth, tenth, qdrant, note),
    rowOf(plans.hundredth, hundredth, qdrant, note),
  ]
}

/** The true nearest of each probe, among every so many rows. */
function truthOf({ stored, probes, parameters }: Scene, oneIn: number): ReadonlySet<number>[] {
  const scan = new ScanIndex(parameters.size.dimension)
  for (let row = 0; row < stored.length; row += oneIn)
    scan.set(String(row), stored[row]?.vector ?? new Float32Array())
  return Array.from(
    { length: probes.count },
    (_, n) => new Set(scan.search(probes.row(n), K).map(({ id }) => Number(id))),
  )
}

async function recallBy(
  find: (n: number) => Promise<string[]>,
  { probes, numberOf }: Scene,
  truth: readonly ReadonlySet<number>[],
): Promise<number> {
  const found: number[][] = []
  for (let n = 0; n < probes.count; n++)
    found.push((await find(n)).map((id) => numberOf.get(id) ?? -1))
  return recallOf(found, truth)
}

async function hybridRows({
  centre,
  plans,
  probes,
  texts,
  parameters,
}: Scene): Promise<BenchRow[]> {
  const via = (way: 'qdrant' | 'exact'): Contender => ({
    run: (n) => centre.search(way, { vector: probes.row(n), text: texts[n % texts.length] }, K),
  })
  const [qdrant, exact] = await interleave([via('qdrant'), via('exact')], parameters)
  const note = `${WORDS_OF_QUERY} words and a vector; rows of ${WORDS_OF_ROW} words by Zipf's law; ${SHARED}`
  const ours = { timing: elsewhere(qdrant.ms) }
  const theirs = { timing: elsewhere(exact.ms) }
  return [rowOf(plans.hybrid, ours, theirs, note), rowOf(plans.hybridExact, theirs, ours, note)]
}

/** Last, since no server runs any more: this process does the work. */
async function reindexRow({ centre, plans, stored, parameters }: Scene): Promise<BenchRow> {
  await using operations = await centre.openOperations()
  const upserts = centre.plainUpserts()
  const points = stored.map((row) => centre.point(row))
  const [ours, theirs] = await interleave(
    [
      { run: () => operations.reindex() },
      {
        run: async () => {
          await upserts.make()
          await upserts.put(points)
        },
      },
    ],
    { rounds: parameters.reindexes, each: 1, warmup: 0 },
  )
  await mustHave(centre, stored.length)
  return rowOf(
    plans.reindex,
    { timing: elsewhere(ours.ms) },
    { timing: elsewhere(theirs.ms) },
    'as agentdb vectors reindex does it where no server runs; both make the collection and its indexes first',
  )
}
