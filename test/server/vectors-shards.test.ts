import { sql } from 'kysely'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { createUser, startCentre, type Centre } from '../support/centre.ts'
import { createDatabase } from '../support/databases.ts'
import { anyQdrant } from '../support/qdrant.ts'
import { embed, pointsOf, qdrantCall, rowsOf, vectorOptions } from '../support/vectors.ts'

let qdrant: Awaited<ReturnType<typeof anyQdrant>>

beforeAll(async () => {
  qdrant = await anyQdrant()
})
afterAll(() => qdrant[Symbol.asyncDispose]())

async function nameOf(centre: Centre): Promise<string> {
  const { rows } = await sql<{ name: string }>`SELECT name FROM sync.vector_collection`.execute(
    centre.db,
  )
  return rows[0]?.name ?? ''
}

test('every shard tells how far it follows: one that lost its last writes is found at the next start', async () => {
  await using database = await createDatabase(inject('postgresUrl'), 'shards')
  const vectors = vectorOptions({ shardNumber: 3 })
  const serving = { databaseUrl: database.url, qdrantUrl: qdrant.url, vectors }
  const alias = `${vectors.prefix}code_embeddings`
  {
    await using centre = await startCentre(serving)
    await centre.server.vectorsCaughtUp()
    const name = await nameOf(centre)
    const marks = async (): Promise<number[]> => {
      const { result } = (await qdrantCall(qdrant.url, 'GET', `/collections/${name}/cluster`)) as {
        result: { local_shards: { points_count: number }[] }
      }
      return result.local_shards.map((shard) => shard.points_count)
    }
    expect((await marks()).map((count) => count > 0)).toEqual([true, true, true])
    const [id = ''] = await embed(centre, await createUser(centre), [{}, {}])
    await centre.server.vectorsCaughtUp()
    await qdrantCall(qdrant.url, 'POST', `/collections/${name}/points/delete?wait=true`, {
      points: [id, 7],
    })
  }
  await using centre = await startCentre(serving)
  const rows = await rowsOf(centre)
  expect(rows.size).toBe(2)
  await expect.poll(() => pointsOf(qdrant.url, alias), { timeout: 20_000 }).toEqual(rows)
})
