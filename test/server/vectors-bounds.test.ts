import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { Database } from '../../server/postgres/database.ts'
import { ExactSearch, type ResolvedSearch } from '../../server/vectors/exact-search.ts'
import type { Ranked } from '../../server/vectors/fusion.ts'
import { asPrincipal } from '../../server/vectors/principal-rows.ts'
import { readInParts } from '../../server/vectors/rows.ts'
import { newId } from '../../schema/values/id.ts'
import { createUser, startCentre, type Centre, type TestUser } from '../support/centre.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import { anyQdrant } from '../support/qdrant.ts'
import { embed, pointsOf, rowsOf, vectorOptions } from '../support/vectors.ts'
import { Random } from '../sim/random.ts'

const MEGABYTE = 1024 * 1024

let testDatabase: TestDatabase
let database: Database
let centre: Centre
let user: TestUser

beforeAll(async () => {
  testDatabase = await createDatabase(inject('postgresUrl'), 'bounds')
  centre = await startCentre({ databaseUrl: testDatabase.url })
  database = await Database.open({ url: testDatabase.url, folder: undefined, connectionsMax: 2 })
})
afterAll(async () => {
  await database.close()
  await centre[Symbol.asyncDispose]()
  await testDatabase.drop()
})

describe('a search of rows that keeps little', () => {
  const model = 'wide'
  const dimension = 512
  const search: ResolvedSearch = {
    collection: 'code_embeddings',
    model,
    dimension,
    k: 20,
    filter: { keywords: new Map(), timeField: 'indexed_at', since: undefined, until: undefined },
    isExact: true,
  }
  const random = new Random(23, 0)
  const anyVector = (): number[] =>
    Array.from({ length: dimension }, () => random.below(2000) / 1000 - 1)
  const ask = (exact: ExactSearch, more: Partial<ResolvedSearch>): Promise<Ranked[]> =>
    asPrincipal(database, { userId: user.id, agentId: 'a', role: user.role }, (session) =>
      exact.search(session, user.id, { ...search, ...more }),
    )

  beforeAll(async () => {
    user = await createUser(centre)
    for (let batch = 0; batch < 10; batch++)
      await embed(
        centre,
        user,
        Array.from({ length: 400 }, (_, i) => ({
          model,
          vector: anyVector(),
          content: `row ${batch} ${i} ${i % 7 === 0 ? 'rare' : 'usual'}`,
        })),
      )
  })

  test('finds what one finds that keeps everything, and keeps no more than it may', async () => {
    const bytesMax = 5 * MEGABYTE
    const [little, much] = [new ExactSearch({ bytesMax }), new ExactSearch()]
    const questions = [{ vector: anyVector() }, { text: 'rare 12' }]
    for (const question of [...questions, { ...questions[0], ...questions[1] }]) {
      const wanted = await ask(much, question)
      expect(wanted.length).toBeGreaterThanOrEqual(search.k)
      for (let round = 0; round < 2; round++) {
        const found = await ask(little, question)
        expect(found.map(({ id }) => id)).toEqual(wanted.map(({ id }) => id))
        for (const [i, { score }] of found.entries())
          expect(score).toBeCloseTo(wanted[i]?.score ?? 0, 6)
      }
    }
    expect(much.keptBytes).toBeGreaterThan(10 * MEGABYTE)
    expect(little.keptBytes).toBeLessThanOrEqual(bytesMax)
  })

  test('lets go of rows that are gone', async () => {
    const exact = new ExactSearch()
    await ask(exact, { text: 'usual' })
    const before = exact.keptBytes
    await sql`DELETE FROM embeddings WHERE user_id = ${user.id} AND content NOT LIKE 'row 0 %'`.execute(
      centre.db,
    )
    await ask(exact, { text: 'usual' })
    expect(exact.keptBytes).toBeLessThan(before / 2)
  })
})

test('rows are read in parts of some megabytes, with what their points hold of them and no more', async () => {
  const owner = await createUser(centre)
  const services = Array.from({ length: 3072 }, () => 'x'.repeat(1020))
  const collection = 'incident_knowledge'
  const large = {
    collection,
    payload: { services, title: 'T', other: 'y'.repeat(MEGABYTE) },
  } as const
  const ids = await embed(centre, owner, [large, large, large, { collection }])
  const asked = [newId(), ...ids, newId()]
  const parts: { ids: readonly string[]; rows: { id: string; payload: unknown }[] }[] = []
  for await (const part of readInParts(database, asked)) parts.push(part)
  expect(parts.map((part) => part.ids)).toEqual([asked.slice(0, 3), asked.slice(3)])
  expect(parts.flatMap(({ rows }) => rows.map(({ id }) => id)).toSorted()).toEqual(ids.toSorted())
  const row = parts.flatMap(({ rows }) => rows).find(({ id }) => id === ids[0])
  expect(row?.payload).toEqual({ services, title: 'T' })
})

test('an answer ends where its payloads have 16 MB, with Qdrant and without', async () => {
  await using qdrant = await anyQdrant()
  const vectors = vectorOptions()
  const secret = 'a secret of thirty-two characters'
  const serving = { databaseUrl: testDatabase.url, secret, vectors }
  await using following = await startCentre({ ...serving, qdrantUrl: qdrant.url })
  await using exact = await startCentre(serving)
  const owner = await createUser(centre)
  const blob = 'z'.repeat(10 * MEGABYTE)
  const ids = await embed(
    centre,
    owner,
    [0, 0.1, 0.2].map((y) => ({
      vector: [1, y, 0, 0],
      payload: { blob, indexed_at: '2026-11-20' },
    })),
  )
  await following.server.vectorsCaughtUp()
  expect(await pointsOf(qdrant.url, `${vectors.prefix}code_embeddings`)).toEqual(
    await rowsOf(centre),
  )
  const found = async ({ server, url }: Centre): Promise<unknown> => {
    const token = await server.issueToken({ userId: owner.id, agentId: 'a' })
    const answer = await fetch(`${url}/search/v1`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify({
        collection: 'code_embeddings',
        vector: [1, 0, 0, 0],
        filter: { since: '2026-11-01T00:00:00Z' },
      }),
    })
    const { engine, results } = (await answer.json()) as {
      engine: string
      results: { id: string }[]
    }
    return { engine, ids: results.map(({ id }) => id) }
  }
  expect(await found(following)).toEqual({ engine: 'qdrant', ids: ids.slice(0, 2) })
  expect(await found(exact)).toEqual({ engine: 'exact', ids: ids.slice(0, 2) })
})
