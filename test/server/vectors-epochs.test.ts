import { sql } from 'kysely'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { createUser, startCentre } from '../support/centre.ts'
import { createDatabase } from '../support/databases.ts'
import { HttpGate } from '../support/http-gate.ts'
import { anyQdrant } from '../support/qdrant.ts'
import { embed, pointsOf, rowsOf, vectorOptions } from '../support/vectors.ts'

let qdrant: Awaited<ReturnType<typeof anyQdrant>>

beforeAll(async () => {
  qdrant = await anyQdrant()
})
afterAll(() => qdrant[Symbol.asyncDispose]())

test('a fill and a comparison that fail again and again take one epoch each', async () => {
  await using database = await createDatabase(inject('postgresUrl'), 'epochs')
  await using gate = await HttpGate.start(qdrant.url)
  const vectors = vectorOptions()
  await using writer = await startCentre({ databaseUrl: database.url })
  const user = await createUser(writer)
  await embed(writer, user, [{}, {}])
  await using centre = await startCentre({
    databaseUrl: database.url,
    qdrantUrl: gate.url,
    vectors,
    onError: () => undefined,
  })
  const alias = `${vectors.prefix}code_embeddings`
  const state = async (): Promise<{ failures: number; epoch: number; name: string }> => {
    const { rows } = await sql<{ failures: number; epoch: number; name: string }>`
      SELECT failures, epoch, name FROM sync.vector_state, sync.vector_collection`.execute(
      writer.db,
    )
    return rows[0] ?? { failures: 0, epoch: 0, name: '' }
  }
  await centre.server.vectorsCaughtUp()
  const { name, epoch } = await state()
  const epochAfterFailures = async (): Promise<number> => {
    await expect.poll(async () => (await state()).failures, { timeout: 20_000 }).toBeGreaterThan(3)
    gate.away.clear()
    await centre.server.vectorsCaughtUp()
    expect(await pointsOf(qdrant.url, alias)).toEqual(await rowsOf(writer))
    return (await state()).epoch
  }
  const scroll = `/collections/${name}/points/scroll`
  gate.away.add(scroll)
  await sql`UPDATE sync.vector_collection SET state = 'filling'`.execute(writer.db)
  expect(await epochAfterFailures()).toBe(epoch + 1)
  gate.away.add(scroll)
  // Another history, as after a restore.
  await sql`UPDATE sync.vector_state SET nonce = gen_random_uuid(), failures = 0`.execute(writer.db)
  expect(await epochAfterFailures()).toBe(epoch + 2)
})
