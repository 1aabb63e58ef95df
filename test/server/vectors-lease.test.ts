import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createUser, startCentreOn } from '../support/centre.ts'
import { HttpGate } from '../support/http-gate.ts'
import { anyQdrant } from '../support/qdrant.ts'
import { embed, pointsOf, rowsOf, vectorOptions } from '../support/vectors.ts'

let qdrant: Awaited<ReturnType<typeof anyQdrant>>

beforeAll(async () => {
  qdrant = await anyQdrant()
})
afterAll(() => qdrant[Symbol.asyncDispose]())

test('the lease is kept while one call of Qdrant takes longer than it lasts', async () => {
  await using gate = await HttpGate.start(qdrant.url)
  const vectors = vectorOptions({ leaseMs: 300 })
  await using centre = await startCentreOn('postgres', { qdrantUrl: gate.url, vectors })
  const user = await createUser(centre)
  await centre.server.vectorsCaughtUp()
  const state = async () => {
    const { rows } = await sql<{ name: string; holder: string; until: string }>`
      SELECT name, holder, held_until::text AS until FROM sync.vector_state, sync.vector_collection`.execute(
      centre.db,
    )
    return rows[0] ?? { name: '', holder: '', until: '' }
  }
  const { name, holder } = await state()
  const held = gate.hold(`/collections/${name}/points`, 'request')
  await embed(centre, user, [{}])
  await held.reached
  // Renewed so often within one call that it would have been over twice.
  const seen = new Set<string>()
  await expect
    .poll(
      async () => {
        const now = await state()
        expect(now.holder).toBe(holder)
        return seen.add(now.until).size
      },
      { timeout: 10_000 },
    )
    .toBeGreaterThan(6)
  held.release()
  await centre.server.vectorsCaughtUp()
  expect(await pointsOf(qdrant.url, `${vectors.prefix}code_embeddings`)).toEqual(
    await rowsOf(centre),
  )
})
