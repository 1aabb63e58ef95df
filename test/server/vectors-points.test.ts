import { sql } from 'kysely'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { createUser, startCentre, startCentreOn } from '../support/centre.ts'
import { createDatabase } from '../support/databases.ts'
import { anyQdrant } from '../support/qdrant.ts'
import { embed, MODEL, pointsOf, qdrantCall, rowsOf, vectorOptions } from '../support/vectors.ts'

let qdrant: Awaited<ReturnType<typeof anyQdrant>>

beforeAll(async () => {
  qdrant = await anyQdrant()
})
afterAll(() => qdrant[Symbol.asyncDispose]())

test('a text that is cut in a point ends with a whole character', async () => {
  const vectors = vectorOptions()
  await using centre = await startCentreOn('pglite', { qdrantUrl: qdrant.url, vectors })
  const user = await createUser(centre)
  const texts = [`${'a'.repeat(499)}😀😀`, `${'a'.repeat(500)}😀`, '😀'.repeat(501)]
  const [, , third = ''] = await embed(
    centre,
    user,
    texts.map((text) => ({ payload: { file_path: text } })),
  )
  await centre.server.vectorsCaughtUp()
  const alias = `${vectors.prefix}code_embeddings`
  const rows = await rowsOf(centre)
  expect(rows.size).toBe(3)
  expect(await pointsOf(qdrant.url, alias)).toEqual(rows)
  expect(
    await qdrantCall(qdrant.url, 'GET', `/collections/${alias}/points/${third}`),
  ).toMatchObject({ result: { payload: { file_path: '😀'.repeat(500) } } })
})

test('a collection whose points have an older layout is filled anew, dead letters too', async () => {
  await using database = await createDatabase(inject('postgresUrl'), 'older_layout')
  const vectors = vectorOptions()
  const serving = { databaseUrl: database.url, qdrantUrl: qdrant.url, vectors }
  const alias = `${vectors.prefix}code_embeddings`
  const { name, dead } = await (async () => {
    await using centre = await startCentre(serving)
    const [id = ''] = await embed(centre, await createUser(centre), [{}, {}])
    await centre.server.vectorsCaughtUp()
    const { rows } = await sql<{ name: string }>`SELECT name FROM sync.vector_collection`.execute(
      centre.db,
    )
    const [made = { name: '' }] = rows
    await sql`INSERT INTO sync.vector_dead (name, id, reason) VALUES (${made.name}, ${id}, 'refused')`.execute(
      centre.db,
    )
    return { ...made, dead: id }
  })()
  await qdrantCall(qdrant.url, 'POST', `/collections/${name}/points/delete?wait=true`, {
    points: [dead],
  })
  await qdrantCall(qdrant.url, 'PATCH', `/collections/${name}`, {
    metadata: { agentdb: { collection: 'code_embeddings', model: MODEL, dimension: 4, layout: 2 } },
  })
  await using centre = await startCentre(serving)
  const rows = await rowsOf(centre)
  expect(rows.size).toBe(2)
  await expect.poll(() => pointsOf(qdrant.url, alias), { timeout: 20_000 }).toEqual(rows)
  const letters = async (): Promise<unknown[]> =>
    (await sql`SELECT id FROM sync.vector_dead`.execute(centre.db)).rows
  await expect.poll(letters).toEqual([])
})

test('a model that an operator has dropped gives its place to another', async () => {
  const vectors = vectorOptions({ modelsMax: 2 })
  await using centre = await startCentreOn('pglite', { qdrantUrl: qdrant.url, vectors })
  const user = await createUser(centre)
  const live = async (): Promise<string[]> => {
    await centre.server.vectorsCaughtUp()
    const { rows } = await sql<{ model: string }>`
      SELECT model FROM sync.vector_collection WHERE state = 'live' ORDER BY model`.execute(
      centre.db,
    )
    return rows.map(({ model }) => model)
  }
  await embed(centre, user, [{ model: 'first' }, { model: 'second' }])
  expect(await live()).toEqual(['first', MODEL])
  await sql`UPDATE sync.vector_collection SET state = 'off' WHERE model = 'first'`.execute(
    centre.db,
  )
  await embed(centre, user, [{ model: 'first' }, { model: 'second' }, { model: 'third' }])
  expect(await live()).toEqual(['second', MODEL])
})

test('of a row that Qdrant refuses for good the operator hears once, however often it is tried', async () => {
  const vectors = vectorOptions()
  const told: string[] = []
  await using centre = await startCentreOn('pglite', {
    qdrantUrl: qdrant.url,
    vectors,
    onError: (error) => told.push(String(error)),
  })
  const user = await createUser(centre)
  const [bad = ''] = await embed(centre, user, [{ vector: [Number.NaN, 0, 0, 0] }, {}])
  await centre.server.vectorsCaughtUp()
  await sql`UPDATE embeddings SET content_preview = 'tried again' WHERE id = ${bad}`.execute(
    centre.db,
  )
  await centre.server.vectorsCaughtUp()
  expect(told).toEqual([expect.stringContaining(bad)])
})
