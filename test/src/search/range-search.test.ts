import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { seededRandom } from '../../../bench/support/random.ts'
import { newId } from '../../../schema/values/id.ts'
import type { AgentDB, SearchOptions } from '../../../src/index.ts'
import { internalsOf } from '../../../src/internals.ts'
import { cosine } from '../../../src/vector/cosine.ts'
import { hashingEmbedder } from '../../../src/vector/embedder.ts'
import { Search } from '../../../src/search/search.ts'
import { connectionOf, openStore } from '../../support/store.ts'
import { LossyGraph } from '../../support/lossy-graph.ts'

const collection = 'documentation_embeddings'
/** More than are listed of one range. */
const COUNT = 6000
const DIMENSION = 4
const random = seededRandom(9)
const someVector = (): Float32Array =>
  Float32Array.from({ length: DIMENSION }, () => random() - 0.5)
/** Rows are a minute apart. */
const timeOf = (n: number): string =>
  new Date(Date.UTC(2026, 0, 1) + n * 60_000).toISOString().replace('Z', '000Z')

let db: AgentDB
const other = newId()
beforeAll(async () => {
  db = await openStore()
  for (let from = 0; from < COUNT; from += 1000)
    await db.embeddings.putMany(
      Array.from({ length: 1000 }, (_, i) => ({
        collection,
        vector: someVector(),
        payload: { n: from + i, one_in_ten: i % 10 },
      })),
    )
  const connection = connectionOf(db)
  connection.applying(() => {
    connection.run(
      `INSERT INTO users (id, username, email) VALUES (?, 'other', 'other@example.com')`,
      other,
    )
    for (const { id, payload } of db.embeddings.list({ limit: COUNT })) {
      const { n } = payload as { n: number }
      const owner = n % 3 === 0 ? other : db.userId
      connection.run(
        'UPDATE embeddings SET created_at = ?, user_id = ? WHERE id = ?',
        timeOf(n),
        owner,
        id,
      )
    }
  })
})
afterAll(() => db.close())

const numbers = (results: readonly { readonly payload?: unknown }[]): number[] =>
  results.map(({ payload }) => (payload as { n: number }).n)

/** Numbers of all rows, the nearest first. */
const byDistance = (to: Float32Array): number[] =>
  numbers(
    db.embeddings
      .list({ limit: COUNT })
      .map(({ payload, vector }) => ({ payload, score: cosine(vector, to) }))
      .toSorted((one, two) => two.score - one.score),
  )

type Range = Pick<SearchOptions, 'from' | 'to' | 'userId' | 'filter'>
const passes = (n: number, { from, to, userId, filter }: Range): boolean =>
  (from === undefined || timeOf(n) >= from) &&
  (to === undefined || timeOf(n) < to) &&
  (userId === undefined || (n % 3 === 0) === (userId === other)) &&
  (filter === undefined || n % 10 === filter['one_in_ten'])

const ranges: [string, Range][] = [
  ['all', { from: timeOf(0) }],
  ['nothing', { from: timeOf(COUNT) }],
  ['few', { from: timeOf(100), to: timeOf(160) }],
  ['half', { from: timeOf(COUNT / 2) }],
  ["another's", { userId: other }],
  ["another's few", { userId: other, to: timeOf(60) }],
  ["another's half", { userId: other, from: timeOf(COUNT / 2) }],
  ['few of a filter', { filter: { one_in_ten: 4 }, to: timeOf(100) }],
  ["another's of a filter", { filter: { one_in_ten: 4 }, userId: other }],
  ['no payload asked', { filter: {}, from: timeOf(10) }],
]

describe('a search in a range of time or of an owner', () => {
  test.each(ranges)('finds the nearest of %s', async (_, { filter, ...range }) => {
    const isAsked = filter !== undefined && Object.keys(filter).length > 0
    const wanted: Range = isAsked ? { ...range, filter } : range
    for (let i = 0; i < 3; i++) {
      const vector = someVector()
      const nearest = byDistance(vector).filter((n) => passes(n, wanted))
      const found = await db.search({ collection, vector, k: 10, ...range, filter })
      expect(numbers(found)).toEqual(nearest.slice(0, 10))
    }
  })

  test.each(ranges)('finds them through a graph, too: %s', async (_, range) => {
    const { connection } = internalsOf(db)
    const head = connection.get<{ seq: number }>('SELECT max(seq) AS seq FROM embedding_changes')
    const rows = db.embeddings.list({ limit: COUNT }).map(({ id, vector }) => [id, vector] as const)
    const graph = new LossyGraph(rows, { watermark: head?.seq ?? 0 })
    const costs = { scanRow: 1e6, scanByte: 1, pickRow: 1e6 }
    const free = { graphCall: 0, graphSteps: 0, graphStep: 0, graphByte: 0 }
    const search = new Search(connection, hashingEmbedder, {
      graphs: () => graph,
      costs: { ...costs, ...free },
    })
    // Measured for as many neighbours as it takes for 10 to pass.
    for (let i = 0; i < 33; i++) {
      await search.search({ collection, vector: someVector(), ...range })
      await search.settled()
    }
    const vector = someVector()
    const { results, plans } = await search.explain({ collection, vector, k: 10, ...range })
    // Of two conditions more may pass each than both: too few are left of what the graph gave.
    const isOne = Object.keys(range).length === 1
    const isMany = (plans[0]?.matching ?? 0) > COUNT / 20
    const methods = isOne ? [isMany ? 'hnsw' : 'filtered exact'] : ['hnsw', 'filtered exact']
    expect(methods).toContain(plans[0]?.method)
    expect(numbers(results)).toEqual(numbers(await db.search({ collection, vector, ...range })))
  })

  test('tells about how many rows a large one leaves', async () => {
    const matching = async (range: Range): Promise<number | null | undefined> =>
      (await db.search({ collection, vector: someVector(), explain: true, ...range })).plans[0]
        ?.matching
    expect(await matching({ from: timeOf(COUNT - 60) })).toBe(60)
    const half = await matching({ from: timeOf(COUNT / 2) })
    expect(half).toBeGreaterThan(0.4 * COUNT)
    expect(half).toBeLessThan(0.6 * COUNT)
  })

  test('follows times and owners that change', async () => {
    await using own = await openStore()
    const put = (timestamp: string): ReturnType<AgentDB['embeddings']['put']> =>
      own.embeddings.put({ collection, vector: someVector(), payload: { timestamp } })
    const found = async (range: Range): Promise<string[]> =>
      (await own.search({ collection, vector: someVector(), ...range })).map(({ id }) => id)
    const early = await put(timeOf(1))
    const late = await put(timeOf(10))
    const range = { from: timeOf(5), userId: own.userId }
    expect(await found(range)).toEqual([late.id])
    own.embeddings.update(early.id, { payload: { timestamp: timeOf(6) } })
    expect((await found(range)).toSorted()).toEqual([early.id, late.id].toSorted())
    const connection = connectionOf(own)
    connection.applying(() => {
      connection.run(
        `INSERT INTO users (id, username, email) VALUES (?, 'other', 'other@example.com')`,
        other,
      )
      connection.run('UPDATE embeddings SET user_id = ? WHERE id = ?', other, early.id)
    })
    expect(await found(range)).toEqual([late.id])
    expect(await found({ ...range, userId: other })).toEqual([early.id])
    own.embeddings.delete(late.id)
    expect(await found(range)).toEqual([])
    const newest = await put(timeOf(11))
    expect(await found(range)).toEqual([newest.id])
    // Where what the payload has is no time, it is that of the row.
    const noTime = await put('abcd-ef-ghTij:kl:mn.opqrstZ')
    expect(await found({ from: noTime.created_at })).toEqual([noTime.id])
  })
})
