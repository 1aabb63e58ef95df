import { describe, expect, test } from 'vitest'
import { seededId, seededRandom } from '../../bench/support/random.ts'
import { AgentDB } from '../../src/index.ts'
import { GraphRun, place, putVectors } from '../support/graphs.ts'
import { nearest, randomVector } from '../support/random-vectors.ts'
import { connectionOf, openStore, scratchFolder } from '../support/store.ts'

type Sequence = 'embedding_changes' | 'memory_changes'

function vectorsOf(count: number, seed = 1): Map<string, Float32Array> {
  const random = seededRandom(seed)
  return new Map(
    Array.from({ length: count }, (_, n) => [
      seededId(random, n),
      randomVector(random, place.dimension),
    ]),
  )
}

/** As if so many changes had come since: the newest gets a later number. */
const muchLater = (db: AgentDB, sequence: Sequence, changes = 200_000): unknown =>
  connectionOf(db).run(
    `UPDATE ${sequence} SET seq = seq + ? WHERE seq = (SELECT max(seq) FROM ${sequence})`,
    changes,
  )

const noted = (db: AgentDB, sequence: Sequence = 'embedding_changes') =>
  connectionOf(db).get<{ gone: number; head: number }>(
    `SELECT coalesce(sum(gone), 0) AS gone, max(seq) AS head FROM ${sequence}`,
  )

/** Deletes rows, and others so much later that the first are forgotten. */
function deleteAndForget(db: AgentDB, first: readonly string[], later: readonly string[]): void {
  for (const id of first) db.embeddings.delete(id)
  muchLater(db, 'embedding_changes')
  for (const id of later) db.embeddings.delete(id)
  // The newest of the first counts as late, too.
  expect(noted(db)?.gone).toBe(later.length + 1)
}

describe('rows that are gone', () => {
  test('leave their sequence once they are far behind the newest change, and no number is given twice', async () => {
    const db = await openStore()
    const ids = [...vectorsOf(30).keys()]
    putVectors(db, vectorsOf(30))
    for (const id of ids.slice(0, 10)) db.embeddings.delete(id)
    expect(noted(db)).toEqual({ gone: 10, head: 40 })
    muchLater(db, 'embedding_changes', 99_000)
    db.embeddings.delete(ids[10] ?? '')
    expect(noted(db)).toEqual({ gone: 11, head: 99_041 })
    muchLater(db, 'embedding_changes', 100_000)
    // Two go with each that comes; what is newest stays, though it is gone.
    for (const [n, id] of ids.slice(11, 17).entries()) {
      db.embeddings.delete(id)
      expect(noted(db)).toEqual({ gone: Math.max(11 - (n + 1), n + 2), head: 199_042 + n })
    }
    await db.close()
  })

  test('are not found by a process that has not followed since before they were forgotten', async () => {
    using folder = scratchFolder()
    const path = folder.file('a.db')
    await using writer = await AgentDB.open({ path })
    await using reader = await AgentDB.open({ path })
    const vectors = vectorsOf(40)
    const ids = [...vectors.keys()]
    putVectors(writer, vectors)
    const search = async (vector: Float32Array): Promise<string[]> => {
      const found = await reader.search({ collection: place.collection, vector, k: 5 })
      return found.map(({ id }) => id)
    }
    // One that will be forgotten would take a place among the nearest.
    const query = vectors.get(ids[0] ?? '') ?? new Float32Array()
    expect((await search(query))[0]).toBe(ids[0])
    deleteAndForget(writer, ids.slice(0, 3), ids.slice(3, 7))
    for (const id of ids.slice(0, 7)) vectors.delete(id)
    expect(await search(query)).toEqual(nearest(vectors, query, 5).map(({ id }) => id))
  })

  test('are not in a graph that was behind: it is made anew', async () => {
    const db = await openStore()
    await using run = new GraphRun(db)
    const vectors = vectorsOf(60)
    const ids = [...vectors.keys()]
    putVectors(db, vectors)
    await run.whole()
    const seen = run.events.length
    deleteAndForget(db, ids.slice(0, 3), ids.slice(3, 7))
    for (const id of ids.slice(0, 7)) vectors.delete(id)
    const interrupted = await run.event('interrupted', seen)
    expect(interrupted.message).toContain('are forgotten')
    await run.event('ready', seen)
    const graph = await run.whole()
    expect(graph.size).toBe(53)
    const query = randomVector(seededRandom(9), place.dimension)
    const found = await graph.search(query, 53, 200)
    expect(found.map(({ id }) => id).toSorted()).toEqual([...vectors.keys()].toSorted())
    await db.close()
  })

  test('are not in a file of a graph that was written before: it is refused', async () => {
    using folder = scratchFolder()
    await using db = await AgentDB.open({ path: folder.file('a.db') })
    const vectors = vectorsOf(60)
    const ids = [...vectors.keys()]
    putVectors(db, vectors)
    {
      await using run = new GraphRun(db)
      await run.whole()
      await run.event('saved')
    }
    deleteAndForget(db, ids.slice(0, 3), ids.slice(3, 7))
    await using again = new GraphRun(db)
    const graph = await again.whole()
    expect(again.events.map(({ kind }) => kind)).toContain('file-refused')
    expect(graph.size).toBe(53)
  })
})
