import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import { QdrantEngine } from '../../server/qdrant/engine.ts'
import { Database } from '../../server/postgres/database.ts'
import { PointWriter } from '../../server/vectors/point-writer.ts'
import { readRows } from '../../server/vectors/rows.ts'
import { versionOf } from '../../server/vectors/state.ts'
import { advance } from '../../server/sync/positions.ts'
import { pruneLog } from '../../server/sync/retention.ts'
import {
  createUser,
  startCentre,
  startCentreOn,
  type Centre,
  type TestUser,
} from '../support/centre.ts'
import { Child } from '../support/child.ts'
import { createDatabase } from '../support/databases.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { HttpGate } from '../support/http-gate.ts'
import { startQdrant, type QdrantServer } from '../support/qdrant.ts'
import { RestorableCentre } from '../support/restorable-centre.ts'
import { embed, MODEL, pointsOf, qdrantCall, rowsOf, vectorOptions } from '../support/vectors.ts'
import { Random } from '../sim/random.ts'

let qdrant: QdrantServer

beforeAll(async () => {
  qdrant = await startQdrant()
})
afterAll(() => qdrant.stop())

const aliasOf = ({ prefix = '' }: { prefix?: string | undefined }): string =>
  `${prefix}code_embeddings`

/** What Qdrant has once it has followed; it is never nothing in these tests. */
async function pointsAfter(
  centre: Pick<Centre, 'server'>,
  url: string,
  alias: string,
): Promise<Map<string, string>> {
  await centre.server.vectorsCaughtUp()
  const points = await pointsOf(url, alias)
  expect(points.size).toBeGreaterThan(0)
  return points
}

/** Two rows in Qdrant, which is asked for nothing from then on: with the second the first pass is over. */
async function embedAndRest(
  centre: Pick<Centre, 'db' | 'server'>,
  user: TestUser,
): Promise<string[]> {
  const ids: string[] = []
  for (let i = 0; i < 2; i++) {
    ids.push(...(await embed(centre, user, [{}])))
    await centre.server.vectorsCaughtUp()
  }
  return ids
}

/** Failures in a row of the server that follows, as it notes them for operators. */
async function failuresNoted({ db }: Pick<Centre, 'db'>): Promise<number> {
  const { rows } = await sql<{ failures: number }>`SELECT failures FROM sync.vector_state`.execute(
    db,
  )
  return rows[0]?.failures ?? 0
}

/** Cuts the log at its head. */
async function cutLog(url: string): Promise<void> {
  const pruning = await Database.open({ url, folder: undefined, connectionsMax: 2 })
  await advance(pruning, true)
  await pruneLog(pruning, new Date(Date.now() + 60_000))
  // Of a week that is not over the partition stays.
  await pruning.query('DELETE FROM sync.log')
  await pruning.close()
}

/** A search of a user, again and again. */
async function searchOf(centre: Centre, user: TestUser): Promise<() => Promise<unknown>> {
  const token = await centre.server.issueToken({ userId: user.id, agentId: 'a' })
  return async () => {
    const answer = await fetch(`${centre.url}/search/v1`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify({ collection: 'code_embeddings', vector: [1, 0, 0, 0] }),
    })
    return await answer.json()
  }
}

/** Inserts, updates and deletes at random; returns what lives. */
async function churn(
  centre: Pick<Centre, 'db'>,
  user: TestUser,
  random: Random,
  live: string[],
): Promise<void> {
  const action = random.below(4)
  const id = live[random.below(Math.max(1, live.length))]
  if (action < 2 || id === undefined)
    live.push(...(await embed(centre, user, [{ preview: String(random.below(1000)) }, {}])))
  else if (action === 2)
    await sql`UPDATE embeddings SET content_preview = ${String(random.below(1000))} WHERE id = ${id}`.execute(
      centre.db,
    )
  else {
    await sql`DELETE FROM embeddings WHERE id = ${id}`.execute(centre.db)
    live.splice(live.indexOf(id), 1)
  }
}

describe('rows and points are equal afterwards', () => {
  test('when Qdrant is killed again and again while rows change', async () => {
    await using own = await startQdrant()
    const vectors = vectorOptions({ timeoutMs: 2000 })
    await using centre = await startCentreOn('postgres', {
      qdrantUrl: own.url,
      vectors,
      onError: () => undefined,
    })
    const user = await createUser(centre)
    const random = new Random(11, 0)
    const live: string[] = []
    await centre.server.vectorsCaughtUp()
    for (let kills = 0; kills < 4; kills++) {
      const writing = (async () => {
        for (let i = 0; i < 25; i++) await churn(centre, user, random, live)
      })()
      await own.kill9()
      await churn(centre, user, random, live)
      await own.restart()
      await writing
    }
    expect(await pointsAfter(centre, own.url, aliasOf(vectors))).toEqual(await rowsOf(centre))
  })

  test('when Qdrant comes back without its disk', async () => {
    await using own = await startQdrant()
    const vectors = vectorOptions({ timeoutMs: 2000 })
    await using centre = await startCentreOn('postgres', {
      qdrantUrl: own.url,
      vectors,
      onError: () => undefined,
    })
    const user = await createUser(centre)
    await embed(centre, user, [{}, {}])
    await centre.server.vectorsCaughtUp()
    await own.restartEmpty()
    // The next write finds nothing there.
    await embed(centre, user, [{}])
    expect(await pointsAfter(centre, own.url, aliasOf(vectors))).toEqual(await rowsOf(centre))
  })

  test('when Qdrant loses its disk while nobody writes or searches', async () => {
    await using own = await startQdrant()
    const vectors = vectorOptions({ timeoutMs: 2000 })
    await using centre = await startCentreOn('postgres', {
      qdrantUrl: own.url,
      vectors,
      onError: () => undefined,
    })
    const user = await createUser(centre)
    await embedAndRest(centre, user)
    await own.restartEmpty()
    const points = (): Promise<unknown> =>
      pointsOf(own.url, aliasOf(vectors)).catch((error: unknown) => error)
    await expect.poll(points, { timeout: 30_000 }).toEqual(await rowsOf(centre))
  })

  test('when the process that follows the log is killed at random moments', async () => {
    await using database = await createDatabase(inject('postgresUrl'), 'killed')
    const vectors = vectorOptions()
    const serving = { port: 0, databaseUrl: database.url, qdrantUrl: qdrant.url, vectors }
    await using writer = await startCentre({ databaseUrl: database.url })
    const user = await createUser(writer)
    const random = new Random(12, 0)
    const live: string[] = []
    for (let kills = 0; kills < 2; kills++) {
      await using child = Child.start('child-server.ts', [JSON.stringify(serving)])
      await child.line((line) => line.startsWith('listening'))
      for (let i = random.below(60); i >= 0; i--) await churn(writer, user, random, live)
      await child.kill()
      await churn(writer, user, random, live)
    }
    await using centre = await startCentre(serving)
    expect(await pointsAfter(centre, qdrant.url, aliasOf(vectors))).toEqual(await rowsOf(centre))
  })

  test('when the link to Qdrant is cut in answers, reset, or hangs', async () => {
    await using proxy = await FaultProxy.start(qdrant.url)
    const vectors = vectorOptions({ timeoutMs: 300 })
    const told: unknown[] = []
    await using centre = await startCentreOn('postgres', {
      qdrantUrl: proxy.url,
      vectors,
      onError: (error) => told.push(error),
    })
    const user = await createUser(centre)
    await embed(centre, user, [{}])
    await centre.server.vectorsCaughtUp()
    for (const mode of [{ cutAfter: 20 }, 'reset', 'hang'] as const) {
      proxy.set(mode)
      await embed(centre, user, [{}, {}])
      await expect.poll(() => failuresNoted(centre), { timeout: 20_000 }).toBeGreaterThan(0)
      proxy.set('pass')
      expect(await pointsAfter(centre, qdrant.url, aliasOf(vectors))).toEqual(await rowsOf(centre))
    }
    expect(told[0]).toMatchObject({ code: 'QDRANT_UNREACHABLE' })
  })

  test('when Qdrant answers with 500, 503 and 429 now and then, and breaks its word after doing it', async () => {
    await using flaky = await Flaky.start(qdrant.url)
    const vectors = vectorOptions({ timeoutMs: 2000 })
    await using centre = await startCentreOn('postgres', {
      qdrantUrl: flaky.url,
      vectors,
      onError: () => undefined,
    })
    const user = await createUser(centre)
    const random = new Random(13, 0)
    const live: string[] = []
    await centre.server.vectorsCaughtUp()
    flaky.failing = random
    for (let i = 0; i < 60; i++) await churn(centre, user, random, live)
    await expect.poll(() => flaky.failures).toBeGreaterThan(3)
    flaky.failing = undefined
    expect(await pointsAfter(centre, qdrant.url, aliasOf(vectors))).toEqual(await rowsOf(centre))
    const { rows } = await sql<{ n: number }>`SELECT count(*) AS n FROM sync.vector_dead`.execute(
      centre.db,
    )
    expect(rows).toEqual([{ n: 0 }])
  })

  test('when the centre goes back to a backup', async () => {
    const vectors = vectorOptions()
    const onError = (): void => undefined
    await using centre = await RestorableCentre.start({ qdrantUrl: qdrant.url, vectors, onError })
    const user = await createUser(centre)
    const [kept = '', changed = ''] = await embed(centre, user, [{}, {}])
    await centre.server.vectorsCaughtUp()
    await centre.backup()
    await embed(centre, user, [{}, {}, {}])
    await sql`UPDATE embeddings SET content_preview = 'lost' WHERE id = ${changed}`.execute(
      centre.db,
    )
    await sql`DELETE FROM embeddings WHERE id = ${kept}`.execute(centre.db)
    await centre.server.vectorsCaughtUp()
    await centre.restoreUnderServer()
    expect(await pointsAfter(centre, qdrant.url, aliasOf(vectors))).toEqual(await rowsOf(centre))
    expect((await rowsOf(centre)).size).toBe(2)
  })

  test('when the log was cut below the watermark while nobody followed', async () => {
    await using database = await createDatabase(inject('postgresUrl'), 'cut')
    const vectors = vectorOptions()
    const serving = { databaseUrl: database.url, qdrantUrl: qdrant.url, vectors }
    await using writer = await startCentre({ databaseUrl: database.url })
    const user = await createUser(writer)
    const following = await startCentre(serving)
    const [gone = ''] = await embed(writer, user, [{}, {}])
    await following.server.vectorsCaughtUp()
    await following[Symbol.asyncDispose]()
    await sql`DELETE FROM embeddings WHERE id = ${gone}`.execute(writer.db)
    await embed(writer, user, [{}])
    await cutLog(database.url)
    await using centre = await startCentre(serving)
    expect(await pointsAfter(centre, qdrant.url, aliasOf(vectors))).toEqual(await rowsOf(centre))
  })

  test('when a row moves to another model and back', async () => {
    const vectors = vectorOptions()
    await using centre = await startCentreOn('postgres', { qdrantUrl: qdrant.url, vectors })
    const user = await createUser(centre)
    const [id = ''] = await embed(centre, user, [{}, {}])
    await embed(centre, user, [{ model: 'second' }])
    await centre.server.vectorsCaughtUp()
    for (const model of ['second', MODEL, 'second']) {
      await sql`UPDATE embeddings SET model = ${model} WHERE id = ${id}`.execute(centre.db)
      expect(await pointsAfter(centre, qdrant.url, aliasOf(vectors))).toEqual(await rowsOf(centre))
    }
    expect((await pointsOf(qdrant.url, aliasOf(vectors))).has(id)).toBe(false)
  })
})

test('of two servers one follows the log; when it stops the other takes over', async () => {
  await using database = await createDatabase(inject('postgresUrl'), 'two')
  const vectors = vectorOptions({ leaseMs: 60_000 })
  const serving = { databaseUrl: database.url, qdrantUrl: qdrant.url, vectors }
  const first = await startCentre(serving)
  await first.server.vectorsCaughtUp()
  await using second = await startCentre(serving)
  const user = await createUser(second)
  const holder = async (): Promise<string | null> => {
    const { rows } = await sql<{
      holder: string | null
    }>`SELECT holder FROM sync.vector_state`.execute(second.db)
    return rows[0]?.holder ?? null
  }
  await embed(second, user, [{}])
  expect(await pointsAfter(second, qdrant.url, aliasOf(vectors))).toEqual(await rowsOf(second))
  const held = await holder()
  await first[Symbol.asyncDispose]()
  await embed(second, user, [{}])
  // Not after the lease of a minute: who closes gives it back.
  expect(await pointsAfter(second, qdrant.url, aliasOf(vectors))).toEqual(await rowsOf(second))
  expect(await holder()).not.toBe(held)
})

describe('a writer that was thought dead', () => {
  test('changes nothing: neither a newer point nor one that was deleted meanwhile', async () => {
    const vectors = vectorOptions()
    await using database = await createDatabase(inject('postgresUrl'), 'zombie')
    await using centre = await startCentre({
      databaseUrl: database.url,
      qdrantUrl: qdrant.url,
      vectors,
    })
    const user = await createUser(centre)
    const [changed = '', deleted = ''] = await embed(centre, user, [{}, {}])
    await centre.server.vectorsCaughtUp()
    const rows = database.url
    const zombie = await Database.open({ url: rows, folder: undefined, connectionsMax: 2 })
    const old = await readRows(zombie, [changed, deleted])
    const { rows: states } = await zombie.query<{ epoch: number; position: number }>(
      'SELECT epoch, position FROM sync.vector_state',
    )
    const version = versionOf(states[0]?.epoch ?? 0, states[0]?.position ?? 0)
    await sql`UPDATE embeddings SET content_preview = 'newer' WHERE id = ${changed}`.execute(
      centre.db,
    )
    await sql`DELETE FROM embeddings WHERE id = ${deleted}`.execute(centre.db)
    await centre.server.vectorsCaughtUp()
    const engine = new QdrantEngine({ url: qdrant.url, apiKey: undefined, timeoutMs: 5000 })
    await new PointWriter(zombie, engine, () => undefined).put(aliasOf(vectors), old, version)
    await zombie.close()
    expect(old).toHaveLength(2)
    expect(await pointsAfter(centre, qdrant.url, aliasOf(vectors))).toEqual(await rowsOf(centre))
  })

  test('tombstones go when no write can be under way any more', async () => {
    const vectors = vectorOptions({ tombstoneMs: 1 })
    await using database = await createDatabase(inject('postgresUrl'), 'purge')
    const serving = { databaseUrl: database.url, qdrantUrl: qdrant.url, vectors }
    const tombstones = async (): Promise<number> => {
      const { result } = (await qdrantCall(
        qdrant.url,
        'POST',
        `/collections/${aliasOf(vectors)}/points/count`,
        {
          exact: true,
          filter: { must: [{ key: '_kind', match: { value: 'tombstone' } }] },
        },
      )) as { result: { count: number } }
      return result.count
    }
    const first = await startCentre(serving)
    const user = await createUser(first)
    const [id] = await embed(first, user, [{}, {}])
    await first.server.vectorsCaughtUp()
    await sql`DELETE FROM embeddings WHERE id = ${id}`.execute(first.db)
    await first.server.vectorsCaughtUp()
    expect(await tombstones()).toBe(1)
    await first[Symbol.asyncDispose]()
    await using second = await startCentre(serving)
    await expect.poll(tombstones).toBe(0)
    expect(await pointsAfter(second, qdrant.url, aliasOf(vectors))).toEqual(await rowsOf(second))
  })
})

// Qdrant sends a compressed answer in two parts; the second often waited 40 ms for word that the first had come.
test('Qdrant is asked for answers that are not compressed', async () => {
  await using gate = await HttpGate.start(qdrant.url)
  const engine = new QdrantEngine({ url: gate.url, apiKey: undefined, timeoutMs: 5000 })
  await engine.names()
  expect(gate.acceptEncodings).toEqual(['identity'])
})

describe('search while Qdrant is away', () => {
  test('reads the rows, and asks Qdrant again once it is back', async () => {
    await using own = await startQdrant()
    const vectors = vectorOptions({ timeoutMs: 1000 })
    await using centre = await startCentreOn('postgres', {
      qdrantUrl: own.url,
      vectors,
      onError: () => undefined,
    })
    const user = await createUser(centre)
    const [id] = await embed(centre, user, [{}])
    await centre.server.vectorsCaughtUp()
    const search = await searchOf(centre, user)
    expect(await search()).toMatchObject({ engine: 'qdrant', results: [{ id }] })
    await own.kill9()
    for (let i = 0; i < 5; i++)
      expect(await search()).toMatchObject({ engine: 'exact', results: [{ id }] })
    await own.restart()
    await centre.server.vectorsCaughtUp()
    await expect
      .poll(search, { timeout: 20_000 })
      .toMatchObject({ engine: 'qdrant', results: [{ id }] })
  })

  test('is told of, once each, where the link hangs while nobody writes; the note goes when it is over', async () => {
    await using proxy = await FaultProxy.start(qdrant.url)
    const told: unknown[] = []
    await using centre = await startCentreOn('postgres', {
      qdrantUrl: proxy.url,
      vectors: vectorOptions({ timeoutMs: 300 }),
      onError: (error) => told.push(error),
    })
    const user = await createUser(centre)
    const [id] = await embedAndRest(centre, user)
    const search = await searchOf(centre, user)
    // A slow machine may have taken longer than the timeout to make the collections.
    told.length = 0
    proxy.set('hang')
    for (let i = 0; i < 8; i++)
      expect(await search()).toMatchObject({ engine: 'exact', results: [{ id }, {}] })
    await expect.poll(() => failuresNoted(centre), { timeout: 20_000 }).toBeGreaterThan(0)
    // By the first search that failed, and by what follows the log.
    expect(told).toMatchObject([{ code: 'QDRANT_UNREACHABLE' }, { code: 'QDRANT_UNREACHABLE' }])
    proxy.set('pass')
    await expect.poll(search, { timeout: 20_000 }).toMatchObject({ engine: 'qdrant' })
    await expect.poll(() => failuresNoted(centre), { timeout: 20_000 }).toBe(0)
  })

  test('has it looked at what Qdrant has, which is filled again where that is gone', async () => {
    await using own = await startQdrant()
    await using centre = await startCentreOn('postgres', {
      qdrantUrl: own.url,
      vectors: vectorOptions({ timeoutMs: 2000 }),
      onError: () => undefined,
    })
    const user = await createUser(centre)
    await embedAndRest(centre, user)
    await own.restartEmpty()
    const search = await searchOf(centre, user)
    expect(await search()).toMatchObject({ engine: 'exact', results: [{}, {}] })
    await expect
      .poll(search, { timeout: 20_000 })
      .toMatchObject({ engine: 'qdrant', results: [{}, {}] })
  })

  test('asks it again also where the database failed in the one search that might try', async () => {
    await using gate = await HttpGate.start(qdrant.url)
    const vectors = vectorOptions()
    await using centre = await startCentreOn('postgres', {
      qdrantUrl: gate.url,
      vectors,
      onError: () => undefined,
    })
    const user = await createUser(centre)
    const [id] = await embed(centre, user, [{}])
    await centre.server.vectorsCaughtUp()
    const search = await searchOf(centre, user)
    const { rows } = await sql<{ name: string }>`SELECT name FROM sync.vector_collection`.execute(
      centre.db,
    )
    const alias = rows[0]?.name.replace(/\.g1$/, '') ?? ''
    const path = `/collections/${alias}/points/query`
    gate.away.add(path)
    for (let i = 0; i < 3; i++) expect(await search()).toMatchObject({ engine: 'exact' })
    const asked = gate.count(path)
    expect(asked).toBe(3)
    gate.away.clear()
    // No result can be read: what Qdrant answers cannot be judged.
    await sql`ALTER TABLE embeddings RENAME COLUMN content_preview TO hidden`.execute(centre.db)
    const tries = async (): Promise<number> => {
      expect(await search()).toMatchObject({ code: 'SERVER_ERROR' })
      return gate.count(path)
    }
    await expect.poll(tries, { timeout: 20_000 }).toBeGreaterThan(asked)
    await sql`ALTER TABLE embeddings RENAME COLUMN hidden TO content_preview`.execute(centre.db)
    await expect
      .poll(search, { timeout: 20_000 })
      .toMatchObject({ engine: 'qdrant', results: [{ id }] })
  })

  test('goes on where only writes fail, and does not have them tried more often', async () => {
    await using gate = await HttpGate.start(qdrant.url)
    const vectors = vectorOptions()
    await using centre = await startCentreOn('postgres', {
      qdrantUrl: gate.url,
      vectors,
      onError: () => undefined,
    })
    const user = await createUser(centre)
    await embed(centre, user, [{}])
    await centre.server.vectorsCaughtUp()
    const search = await searchOf(centre, user)
    const { rows } = await sql<{ name: string }>`SELECT name FROM sync.vector_collection`.execute(
      centre.db,
    )
    gate.away.add(`/collections/${rows[0]?.name ?? ''}/points`)
    await embed(centre, user, [{}])
    const failuresAfterSearch = async (): Promise<number> => {
      expect(await search()).toMatchObject({ engine: 'qdrant', results: [{}, {}] })
      return await failuresNoted(centre)
    }
    await expect.poll(failuresAfterSearch, { timeout: 20_000 }).toBeGreaterThan(4)
    gate.away.clear()
    await centre.server.vectorsCaughtUp()
    expect(await failuresNoted(centre)).toBe(0)
  })
})

test('a search reads the rows where the log was cut below the watermark: nothing says any more what Qdrant lacks', async () => {
  await using database = await createDatabase(inject('postgresUrl'), 'cut_search')
  const vectors = vectorOptions()
  await using centre = await startCentre({
    databaseUrl: database.url,
    qdrantUrl: qdrant.url,
    vectors,
  })
  const user = await createUser(centre)
  const [kept = '', gone = ''] = await embed(centre, user, [{}, {}])
  await centre.server.vectorsCaughtUp()
  const search = await searchOf(centre, user)
  expect(await search()).toMatchObject({ engine: 'qdrant', results: [{}, {}] })
  // Another server has the lease, and sleeps.
  await sql`UPDATE sync.vector_state SET holder = ${newId()}, held_until = 'infinity'`.execute(
    centre.db,
  )
  await sql`DELETE FROM embeddings WHERE id = ${gone}`.execute(centre.db)
  const [fresh = ''] = await embed(centre, user, [{ vector: [1, 0.1, 0, 0] }])
  await cutLog(database.url)
  expect(await search()).toMatchObject({
    engine: 'exact',
    results: [{ id: kept }, { id: fresh }],
  })
})

test('a search that Qdrant refuses is answered from the rows, and keeps no other from asking', async () => {
  const vectors = vectorOptions()
  const told: unknown[] = []
  await using centre = await startCentreOn('postgres', {
    qdrantUrl: qdrant.url,
    vectors,
    onError: (error) => told.push(error),
  })
  const user = await createUser(centre)
  const [id] = await embed(centre, user, [{}])
  await centre.server.vectorsCaughtUp()
  const search = await searchOf(centre, user)
  const allow = async (max_query_limit: number): Promise<unknown> =>
    await qdrantCall(qdrant.url, 'PATCH', `/collections/${aliasOf(vectors)}`, {
      strict_mode_config: { max_query_limit },
    })
  await allow(1)
  for (let i = 0; i < 4; i++)
    expect(await search()).toMatchObject({ engine: 'exact', results: [{ id }] })
  await allow(1000)
  expect(await search()).toMatchObject({ engine: 'qdrant', results: [{ id }] })
  const refusal = { message: expect.stringContaining('Qdrant refuses what it is asked') as string }
  expect(told).toMatchObject([refusal, refusal, refusal, refusal])
})

/** Passes calls of writes on, and fails some of them: before they are done, or after. */
class Flaky implements AsyncDisposable {
  readonly #server: Server
  failing: Random | undefined
  failures = 0

  private constructor(target: string) {
    this.#server = createServer((request, response) => {
      void (async () => {
        const chunks: Buffer[] = []
        for await (const chunk of request) chunks.push(chunk as Buffer)
        const failure = this.failing?.below(6)
        const status = [500, 503, 429][failure ?? 3]
        const isBefore = this.failing?.below(2) === 0
        let answer: Response | undefined
        if (status === undefined || !isBefore) {
          const { method = 'GET', url = '/' } = request
          answer = await fetch(`${target}${url}`, {
            method,
            headers: { 'content-type': 'application/json' },
            ...(method === 'GET' ? {} : { body: Buffer.concat(chunks) }),
          })
        }
        const body = await answer?.text()
        if (status !== undefined) this.failures += 1
        response.writeHead(status ?? answer?.status ?? 500, {
          'content-type': 'application/json',
          ...(status === 429 ? { 'retry-after': '20' } : {}),
        })
        response.end(status === undefined ? body : '{"status":{"error":"not now"}}')
      })()
    })
  }

  static async start(target: string): Promise<Flaky> {
    const flaky = new Flaky(target)
    await new Promise<void>((done) => flaky.#server.listen(0, '127.0.0.1', done))
    return flaky
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((done) => this.#server.close(done))
  }
}
