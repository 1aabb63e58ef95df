import { AgentDB, hashingEmbedder, type Embed, type SearchOptions } from '../../src/index.ts'
import { measuredRow, type BenchRow, type SkippedRow, type Target } from '../report/row.ts'
import { lsaEmbedder } from '../support/lsa.ts'
import {
  locomoFolder,
  madeUpTalks,
  readLocomo,
  type Question,
  type Talk,
} from '../support/locomo.ts'
import type { Size, Workload } from './workload.ts'

const LSA_DIMENSION = 256
/** Weights of the vectors that are tried; which counts is chosen without the talk that is asked about. */
const WEIGHTS = [0, 0.1, 0.2, 0.3, 0.4, 0.5] as const

const published =
  'published: BM25 .6395 / .8325, BM25 + bge-base .6987, + e5-base .7017, + e5-large .7518 (arXiv 2606.04194)'

const latency = { metric: 'p95', limit: 500 } as const
/** At most 1: Hit@1 is not below that of words alone. Vectors alone need not reach it; that is what fusion is for. */
const targetsOf = ({ options }: Method): Target[] =>
  options.mode === 'vector' ? [latency] : [latency, { metric: 'ratio', limit: 1 }]

/** One way to search a talk for the session that has the answer. */
interface Method {
  readonly name: string
  readonly embedder: 'hashing' | 'lsa'
  readonly options: Omit<SearchOptions, 'text' | 'collection'>
  /** Whether the weight of the vectors is chosen, talk by talk, on the other talks. */
  readonly isTuned?: boolean
  /** What its Hit@1 is held against. */
  readonly baseline: 'sessions' | 'both'
}

const both = {
  in: ['conversations', 'conversation_embeddings'],
  groupBy: { field: 'conversation_id', rank: 'sources' },
} as const
const turns = { in: ['conversation_embeddings'], groupBy: 'conversation_id' } as const

const methods: readonly Method[] = [
  {
    name: 'FTS5 alone, sessions',
    embedder: 'hashing',
    options: { in: ['conversations'], mode: 'text', groupBy: 'conversation_id' },
    baseline: 'sessions',
  },
  {
    name: 'FTS5 alone, turns',
    embedder: 'hashing',
    options: { ...turns, mode: 'text' },
    baseline: 'sessions',
  },
  {
    name: 'FTS5 alone, sessions and turns',
    embedder: 'hashing',
    options: { ...both, mode: 'text' },
    baseline: 'both',
  },
  {
    name: 'vectors alone, hashing',
    embedder: 'hashing',
    options: { ...turns, mode: 'vector' },
    baseline: 'sessions',
  },
  {
    name: `vectors alone, LSA-${LSA_DIMENSION}`,
    embedder: 'lsa',
    options: { ...turns, mode: 'vector' },
    baseline: 'sessions',
  },
  { name: 'hybrid, hashing, default weight', embedder: 'hashing', options: both, baseline: 'both' },
  {
    name: 'hybrid, hashing, weight chosen on the other talks',
    embedder: 'hashing',
    options: both,
    isTuned: true,
    baseline: 'both',
  },
  {
    name: `hybrid, LSA-${LSA_DIMENSION}, weight chosen on the other talks`,
    embedder: 'lsa',
    options: both,
    isTuned: true,
    baseline: 'both',
  },
]

export const locomo: Workload = {
  name: 'locomo',
  claim: 'hybrid search finds the session with the answer at least as often as words alone',
  needsPostgres: false,
  run: async (size) => {
    const talks = talksOf(size)
    if (talks === undefined) {
      return methods.map((method): SkippedRow => {
        const reason = 'set AGENTDB_LOCOMO to the folder of locomo10.json (snap-research/locomo)'
        return {
          kind: 'skipped',
          name: `LoCoMo, ${method.name}`,
          targets: targetsOf(method),
          reason,
        }
      })
    }
    return measure(talks)
  },
}

function talksOf(size: Size): readonly Talk[] | undefined {
  if (size === 'tiny') return madeUpTalks
  const folder = locomoFolder()
  if (folder === undefined) return undefined
  const talks = readLocomo(folder)
  if (size === 'full') return talks
  return talks.map(({ sessions, questions }) => ({
    sessions,
    questions: questions.filter((_, i) => i % 10 === 0),
  }))
}

async function measure(talks: readonly Talk[]): Promise<BenchRow[]> {
  const lsa = lsaEmbedder(
    talks.flatMap(({ sessions }) => sessions.flatMap((session) => session.turns)),
    talks === madeUpTalks ? 2 : LSA_DIMENSION,
  )
  const results: { method: Method; result: Result }[] = []
  for (const embedder of ['hashing', 'lsa'] as const) {
    const embed = embedder === 'lsa' ? lsa : hashingEmbedder.embed
    const stores = await Promise.all(talks.map((talk) => storeOf(talk, embed)))
    for (const method of methods.filter((each) => each.embedder === embedder))
      results.push({ method, result: await ask(talks, stores, method) })
    for (const store of stores) await store.db.close()
  }
  const hitsOf = (name: string): number =>
    results.find(({ method }) => method.name === name)?.result.all.hit ?? 0
  const baselines = {
    sessions: hitsOf('FTS5 alone, sessions'),
    both: hitsOf('FTS5 alone, sessions and turns'),
  }
  return methods.flatMap((method) => {
    const result = results.find((each) => each.method === method)?.result
    return result === undefined ? [] : [rowOf(method, result, baselines[method.baseline])]
  })
}

function rowOf(method: Method, { all, ms, weights }: Result, words: number): BenchRow {
  const { name, baseline } = method
  const figures = `Hit@1 ${share(all.hit, all.count)}, Recall@5 ${share(all.recall, all.count)}, MRR ${share(all.reciprocal, all.count)} over ${all.count} questions`
  const chosen =
    weights.length === 0
      ? ''
      : `; weights chosen: ${[...new Set(weights)].toSorted((a, b) => a - b).join(', ')}`
  const of = baseline === 'both' ? 'sessions and turns' : 'sessions'
  return measuredRow({
    name: `LoCoMo, ${name}`,
    unit: 'ms',
    samples: ms,
    ratio: {
      value: words / Math.max(all.hit, 1),
      against: `Hit@1 of FTS5 alone on ${of} (${share(words, all.count)}), divided by that of this row`,
    },
    targets: targetsOf(method),
    note: `${figures}${chosen}; ${published}`,
  })
}

const share = (sum: number, of: number): string => (sum / of).toFixed(4).replace(/^0/, '')

interface Store {
  readonly db: AgentDB
  /** Ids of the conversations, in the order of the sessions. */
  readonly ids: readonly string[]
}

/** Each session a conversation with its whole text, each turn an embedding with the date that it was said on. */
async function storeOf({ sessions }: Talk, embed: Embed): Promise<Store> {
  const db = await AgentDB.open({ path: ':memory:', embed, embedModel: 'bench' })
  const ids: string[] = []
  for (const { date, turns: said } of sessions) {
    const { id } = db.conversations.create({ title: date, description: said.join('\n') })
    ids.push(id)
    await db.embeddings.putMany(
      said.map((turn) => ({
        collection: 'conversation_embeddings',
        content: turn,
        // Words find the date, vectors are of what was said.
        payload: { conversation_id: id, title: date },
      })),
    )
  }
  return { db, ids }
}

interface Figures {
  count: number
  /** Questions whose first session has evidence. */
  hit: number
  /** Share of the evidence among the first five sessions, summed. */
  recall: number
  /** One over the place of the first session with evidence, summed. */
  reciprocal: number
}

interface Result {
  readonly all: Figures
  readonly ms: readonly number[]
  /** Of each talk, where they were chosen. */
  readonly weights: readonly number[]
}

async function ask(
  talks: readonly Talk[],
  stores: readonly Store[],
  { options, isTuned = false, embedder }: Method,
): Promise<Result> {
  const ms: number[] = []
  const run = async (vectorWeight: number | undefined): Promise<Figures[]> => {
    const found: Figures[] = []
    for (const [i, { questions }] of talks.entries()) {
      const store = stores[i]
      if (store === undefined) continue
      const figures: Figures = { count: 0, hit: 0, recall: 0, reciprocal: 0 }
      for (const question of questions) {
        const startedAt = performance.now()
        const weight = options.mode === undefined ? { vectorWeight } : {}
        const results = await store.db.search({ ...options, ...weight, text: question.text, k: 50 })
        ms.push(performance.now() - startedAt)
        count(
          figures,
          question,
          results.map(({ group }) => store.ids.indexOf(group?.value ?? '')),
        )
      }
      found.push(figures)
    }
    return found
  }
  if (!isTuned) {
    // A store that is given a function does not know that it is the built-in one.
    const weight = embedder === 'hashing' ? hashingEmbedder.vectorWeight : undefined
    return { all: sumOf(await run(weight)), ms, weights: [] }
  }
  const perWeight: Figures[][] = []
  for (const weight of WEIGHTS) perWeight.push(await run(weight))
  const places = talks.map((_, held) => bestWithout(perWeight, held))
  const heldOut = places.flatMap((place, held) => perWeight[place]?.[held] ?? [])
  return { all: sumOf(heldOut), ms, weights: places.map((place) => WEIGHTS[place] ?? 0) }
}

/** The weight that has most hits on all talks but one; of equals the smaller. */
function bestWithout(perWeight: readonly (readonly Figures[])[], held: number): number {
  const hits = perWeight.map((talks) => sumOf(talks.filter((_, i) => i !== held)).hit)
  return hits.indexOf(Math.max(...hits))
}

function count(figures: Figures, { evidence }: Question, sessions: readonly number[]): void {
  const first = sessions.findIndex((session) => evidence.has(session))
  figures.count += 1
  if (first === 0) figures.hit += 1
  if (first >= 0) figures.reciprocal += 1 / (first + 1)
  figures.recall +=
    sessions.slice(0, 5).filter((session) => evidence.has(session)).length / evidence.size
}

const sumOf = (all: readonly Figures[]): Figures =>
  all.reduce(
    (sum, each) => ({
      count: sum.count + each.count,
      hit: sum.hit + each.hit,
      recall: sum.recall + each.recall,
      reciprocal: sum.reciprocal + each.reciprocal,
    }),
    { count: 0, hit: 0, recall: 0, reciprocal: 0 },
  )
