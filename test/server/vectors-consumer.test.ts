import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  startCentreOn,
  createUser,
  databaseKinds,
  type Centre,
  type TestUser,
} from '../support/centre.ts'
import { anyQdrant } from '../support/qdrant.ts'
import { embed, pointsOf, rowsOf, vectorOptions } from '../support/vectors.ts'

let qdrant: Awaited<ReturnType<typeof anyQdrant>>

beforeAll(async () => {
  qdrant = await anyQdrant()
})
afterAll(() => qdrant[Symbol.asyncDispose]())

describe.each(databaseKinds)('the consumer of the log on %s', (kind) => {
  let centre: Centre
  let user: TestUser
  const vectors = vectorOptions()
  const code = `${vectors.prefix}code_embeddings`

  beforeAll(async () => {
    centre = await startCentreOn(kind, { qdrantUrl: qdrant.url, vectors })
    user = await createUser(centre)
  })
  afterAll(() => centre[Symbol.asyncDispose]())

  test('what is inserted, changed and deleted by any SQL is so in Qdrant, too', async () => {
    const ids = await embed(centre, user, [{}, {}, { vector: [0, 1, 0, 0] }])
    await centre.server.vectorsCaughtUp()
    expect(await pointsOf(qdrant.url, code)).toEqual(await rowsOf(centre))
    await sql`UPDATE embeddings SET content_preview = 'changed' WHERE id = ${ids[0]}`.execute(
      centre.db,
    )
    await sql`DELETE FROM embeddings WHERE id = ${ids[1]}`.execute(centre.db)
    await centre.server.vectorsCaughtUp()
    const points = await pointsOf(qdrant.url, code)
    expect(points.size).toBe(2)
    expect(points).toEqual(await rowsOf(centre))
  })
})
