import { copyFileSync, existsSync, readdirSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { seededId, seededRandom } from '../../bench/support/random.ts'
import { AgentDB } from '../../src/index.ts'
import { cacheFiles } from '../../src/vector/graph/vector-graphs.ts'
import { GraphRun, place, putVectors } from '../support/graphs.ts'
import { asCentre, connectionOf, openStore, rejectionOf, scratchFolder } from '../support/store.ts'
import { nearest, randomVector, recall } from '../support/random-vectors.ts'

const K = 10
const EF = 200

function someVectors(count: number, seed = 1): Map<string, Float32Array> {
  const random = seededRandom(seed)
  return new Map(
    Array.from({ length: count }, (_, n) => [
      seededId(random, n),
      randomVector(random, place.dimension),
    ]),
  )
}

/** What a graph that has all rows says of these vectors: how many it has, what it misses, what it finds and is gone. */
async function compared(
  run: GraphRun,
  vectors: Map<string, Float32Array>,
): Promise<{ size: number; recall: number; gone: string[] }> {
  const graph = await run.whole()
  const random = seededRandom(77)
  const gone: string[] = []
  let sum = 0
  for (let n = 0; n < 5; n++) {
    const query = randomVector(random, place.dimension)
    const found = await graph.search(query, K, EF)
    sum += recall(found, nearest(vectors, query, K))
    gone.push(...found.map(({ id }) => id).filter((id) => !vectors.has(id)))
  }
  return { size: graph.size, recall: Math.round(sum * 2) / 10, gone }
}

/** All of them, nothing missed and nothing that is gone. */
const equalTo = (vectors: Map<string, Float32Array>): unknown => ({
  size: vectors.size,
  recall: 1,
  gone: [],
})

describe('a graph follows the rows', () => {
  test('that are there, that come, that change, that go and that leave its place', async () => {
    const db = await openStore()
    await using run = new GraphRun(db)
    const vectors = someVectors(600)
    putVectors(db, vectors)
    expect(run.of()).toBeUndefined()
    expect(await compared(run, vectors)).toEqual(equalTo(vectors))

    const [first = '', second = '', third = '', fourth = '', fifth = ''] = vectors.keys()
    const moved = randomVector(seededRandom(5), place.dimension)
    putVectors(db, [[first, moved]])
    vectors.set(first, moved)
    db.embeddings.delete(second)
    vectors.delete(second)
    db.embeddings.update(third, { model: 'another' })
    vectors.delete(third)
    connectionOf(db).run('DELETE FROM embeddings WHERE id = ?', fourth)
    vectors.delete(fourth)
    asCentre(db, 'DELETE FROM embeddings WHERE id = ?', fifth)
    vectors.delete(fifth)
    for (const [id, vector] of someVectors(50, 2)) {
      putVectors(db, [[id, vector]])
      vectors.set(id, vector)
    }
    expect(await compared(run, vectors)).toEqual(equalTo(vectors))
    const graph = await run.whole()
    expect(await graph.search(moved, 1, EF)).toMatchObject([{ id: first }])
    await db.close()
  })

  test('of its own collection, model and dimension alone', async () => {
    const db = await openStore()
    await using run = new GraphRun(db)
    const vectors = someVectors(100)
    putVectors(db, vectors)
    putVectors(db, someVectors(70, 2), { ...place, model: 'other' })
    putVectors(db, someVectors(60, 3), { ...place, collection: 'incident_knowledge' })
    expect(await compared(run, vectors)).toEqual(equalTo(vectors))
    expect((await run.whole({ ...place, model: 'other' })).size).toBe(70)
    expect((await run.whole({ ...place, collection: 'incident_knowledge' })).size).toBe(60)
    expect(run.workers).toHaveLength(1)
    await db.close()
  })

  test('leaves out a vector that has no direction or was damaged, and goes on with the rows after it', async () => {
    using folder = scratchFolder()
    const path = folder.file('a.db')
    const db = await AgentDB.open({ path })
    const vectors = someVectors(100)
    putVectors(db, vectors)
    const [zero = '', broken = ''] = vectors.keys()
    putVectors(db, [[zero, new Float32Array(place.dimension)]])
    const damaged = Buffer.from(new Float32Array(place.dimension).fill(Number.NaN).buffer)
    connectionOf(db).run('UPDATE embeddings SET vector = ? WHERE id = ?', damaged, broken)
    vectors.delete(zero)
    vectors.delete(broken)
    putVectors(db, someVectors(20, 4))
    for (const [id, vector] of someVectors(20, 4)) vectors.set(id, vector)
    {
      await using run = new GraphRun(db)
      expect(await compared(run, vectors)).toEqual(equalTo(vectors))
      expect(run.graphs.status()).toMatchObject([{ unsearchable: 2, state: 'ready', behind: 0 }])
      await run.event('saved')
    }
    await using again = new GraphRun(db)
    expect(await compared(again, vectors)).toEqual(equalTo(vectors))
    expect(again.events.map(({ kind }) => kind)).not.toContain('file-refused')
    await db.close()
  })

  test('is built only where there are enough of them', async () => {
    const db = await openStore()
    await using run = new GraphRun(db, { threshold: 60 })
    putVectors(db, [...someVectors(60)].slice(0, 59))
    expect(run.of()).toBeUndefined()
    expect(run.workers).toHaveLength(0)
    putVectors(db, someVectors(60))
    expect(run.of()).toBeUndefined()
    await run.event('ready')
    expect(run.of()?.size).toBe(60)
    await db.close()
  })

  test('is built anew when too much of it is dead, and is searched meanwhile', async () => {
    const db = await openStore()
    await using run = new GraphRun(db)
    const vectors = someVectors(500)
    putVectors(db, vectors)
    await run.whole()
    const ids = [...vectors.keys()].slice(0, 200)
    db.transaction(() => {
      for (const id of ids) db.embeddings.delete(id)
    })
    for (const id of ids) vectors.delete(id)
    await run.event('rebuilt')
    expect(await compared(run, vectors)).toEqual(equalTo(vectors))
    expect(run.graphs.status()).toMatchObject([{ tombstones: 0, size: 300 }])
    await db.close()
  })
})

describe('a graph that is not there', () => {
  test('is none where the option says exact', async () => {
    const db = await openStore()
    await using run = new GraphRun(db, { index: 'exact' })
    putVectors(db, someVectors(20))
    expect(run.of()).toBeUndefined()
    expect([run.graphs.status(), run.workers]).toEqual([[], []])
    await db.close()
  })

  test.each(['hnsw', '', null, 1])(
    'AgentDB.open refuses %s as vectorIndex',
    async (vectorIndex) => {
      const error = await rejectionOf(openStore({ vectorIndex: vectorIndex as 'auto' }))
      expect(error.code).toBe('INVALID_OPTION')
      expect(error.message).toContain('vectorIndex must be auto, exact, hnswlib, usearch')
    },
  )

  test.each(['hnswlib', 'usearch'] as const)('%s is taken where it is asked for', async (index) => {
    const db = await openStore()
    await using run = new GraphRun(db, { index })
    const vectors = someVectors(300)
    putVectors(db, vectors)
    expect(await compared(run, vectors)).toEqual(equalTo(vectors))
    expect(run.graphs.status()).toMatchObject([{ engine: index, state: 'ready' }])
    await db.close()
  })

  test('a search is refused before anything native is touched', async () => {
    const db = await openStore()
    await using run = new GraphRun(db)
    putVectors(db, someVectors(20))
    const graph = await run.whole()
    const good = new Float32Array(place.dimension).fill(1)
    for (const bad of [new Float32Array(3), good.map(() => Number.NaN), good.map(() => 0), [1, 2]])
      expect((await rejectionOf(graph.search(bad as Float32Array, 1, 10))).code).toBe(
        'INVALID_VALUE',
      )
    expect((await rejectionOf(graph.search(good, 0, 10))).code).toBe('INVALID_VALUE')
    expect((await rejectionOf(graph.search(good, 1, 1e9))).code).toBe('INVALID_VALUE')
    expect(good).toEqual(new Float32Array(place.dimension).fill(1))
    expect(await graph.search(good, 1, 10)).toHaveLength(1)
    await db.close()
  })
})

describe('the thread of the graphs', () => {
  test('that is killed fails its searches, is started again and knows all', async () => {
    const db = await openStore()
    await using run = new GraphRun(db)
    const vectors = someVectors(400)
    putVectors(db, vectors)
    const graph = await run.whole()
    const query = new Float32Array(place.dimension).fill(1)
    const answers = Array.from({ length: 20 }, () => graph.search(query, K, EF))
    await run.workers[0]?.terminate()
    const ended = await Promise.allSettled(answers)
    expect(ended.every(({ status }) => status === 'fulfilled' || status === 'rejected')).toBe(true)
    expect((await rejectionOf(graph.search(query, K, EF))).code).toBe('VECTOR_INDEX_UNAVAILABLE')
    expect(run.of()).toBeUndefined()
    for (const [id, vector] of someVectors(30, 2)) {
      putVectors(db, [[id, vector]])
      vectors.set(id, vector)
    }
    expect(await compared(run, vectors)).toEqual(equalTo(vectors))
    expect(run.workers).toHaveLength(2)
    await db.close()
  })

  test('keeps no graph that is not followed any more', async () => {
    const db = await openStore()
    const vectors = someVectors(200)
    putVectors(db, vectors)
    await using run = new GraphRun(db)
    await run.whole()
    run.failToRead(new Error('disk I/O error'))
    const more = someVectors(20, 2)
    putVectors(db, more)
    for (const [id, vector] of more) vectors.set(id, vector)
    await run.event('interrupted')
    expect(run.graphs.status()).toMatchObject([{ problem: 'disk I/O error' }])
    expect(await compared(run, vectors)).toEqual(equalTo(vectors))
    expect(run.heldByThread()).toHaveLength(1)
    expect(run.graphs.status()).toMatchObject([{ state: 'ready', problem: undefined }])
    await db.close()
  })

  test('that is killed while it builds starts over', async () => {
    const db = await openStore()
    await using run = new GraphRun(db)
    const vectors = someVectors(3000)
    putVectors(db, vectors)
    expect(run.of()).toBeUndefined()
    await run.workers[0]?.terminate()
    await run.event('interrupted')
    expect(await compared(run, vectors)).toEqual(equalTo(vectors))
    await db.close()
  })

  test('that cannot be started leaves the store as it is, and says why', async () => {
    const db = await openStore()
    const told: string[] = []
    const { VectorGraphs } = await import('../../src/vector/graph/vector-graphs.ts')
    const { StoreChanges } = await import('../../src/search/store-changes.ts')
    putVectors(db, someVectors(20))
    let toldOne = (): void => undefined
    const first = new Promise<void>((done) => {
      toldOne = done
    })
    const graphs = new VectorGraphs({
      index: 'auto',
      threshold: 1,
      storePath: ':memory:',
      storeId: 'x',
      source: new StoreChanges(connectionOf(db)),
      startWorker: () => {
        throw new Error('no threads here')
      },
      onEvent: ({ kind, message }) => {
        told.push(`${kind}: ${message}`)
        toldOne()
      },
    })
    expect(graphs.of(place.collection, place.model, place.dimension)).toBeUndefined()
    await first
    expect(told).toEqual(['interrupted: no threads here'])
    expect(graphs.of(place.collection, place.model, place.dimension)).toBeUndefined()
    await graphs.close()
    await db.close()
  })
})

describe('the file of a graph', () => {
  const fileOf = (path: string): string => cacheFiles(path, place)?.usearch ?? ''

  test('spares the next start the build, and what came since is caught up', async () => {
    using folder = scratchFolder()
    const path = folder.file('a.db')
    const db = await AgentDB.open({ path })
    const vectors = someVectors(500)
    putVectors(db, vectors)
    {
      await using run = new GraphRun(db)
      await run.whole()
      await run.event('saved')
    }
    for (const [id, vector] of someVectors(40, 2)) {
      putVectors(db, [[id, vector]])
      vectors.set(id, vector)
    }
    const [gone = ''] = vectors.keys()
    db.embeddings.delete(gone)
    vectors.delete(gone)
    await using again = new GraphRun(db)
    expect(await compared(again, vectors)).toEqual(equalTo(vectors))
    expect(again.graphs.status()).toMatchObject([{ tombstones: 1 }])
    await db.close()
  })

  test('makes searches exact while it is written', async () => {
    using folder = scratchFolder()
    const db = await AgentDB.open({ path: folder.file('a.db') })
    putVectors(db, someVectors(100))
    await using run = new GraphRun(db)
    await run.whole()
    await run.event('saved')
    const saves = run.asked.filter(({ request }) => request.type === 'save')
    expect(saves).toMatchObject([{ isAtFile: true }])
    expect(run.of()?.isAtFile).toBe(false)
    await db.close()
  })

  test('is not there for a store in memory', async () => {
    const db = await openStore()
    await using run = new GraphRun(db)
    putVectors(db, someVectors(20))
    await run.whole()
    expect(existsSync(':memory:-vectors')).toBe(false)
    await db.close()
  })

  test('that is newer than the store, which was put back to an earlier copy, is not used', async () => {
    using folder = scratchFolder()
    const path = folder.file('a.db')
    const vectors = someVectors(200)
    {
      const db = await AgentDB.open({ path })
      putVectors(db, vectors)
      connectionOf(db).exec(`VACUUM INTO '${folder.file('copy.db')}'`)
      putVectors(db, someVectors(100, 2))
      await using run = new GraphRun(db)
      await run.whole()
      await run.event('saved')
      await run.graphs.close()
      await db.close()
    }
    putBack(folder.file('copy.db'), path)
    const db = await AgentDB.open({ path })
    await using run = new GraphRun(db)
    expect(await compared(run, vectors)).toEqual(equalTo(vectors))
    expect(run.events[0]).toMatchObject({
      kind: 'file-refused',
      message: expect.stringContaining('ahead'),
    })
    await db.close()
  })

  test('is not used for a store that was put back and has gone as far on another way', async () => {
    using folder = scratchFolder()
    const path = folder.file('a.db')
    const vectors = someVectors(200)
    const [shared = ''] = vectors.keys()
    {
      const db = await AgentDB.open({ path })
      putVectors(db, vectors)
      connectionOf(db).exec(`VACUUM INTO '${folder.file('copy.db')}'`)
      // The same row, changed under the same number as below, to another vector.
      putVectors(db, [[shared, new Float32Array(place.dimension).fill(1)]])
      await using run = new GraphRun(db)
      await run.whole()
      await run.event('saved')
      await run.graphs.close()
      await db.close()
    }
    putBack(folder.file('copy.db'), path)
    const db = await AgentDB.open({ path })
    const other = new Float32Array(place.dimension).fill(-1)
    putVectors(db, [[shared, other]])
    vectors.set(shared, other)
    await using run = new GraphRun(db)
    expect(await compared(run, vectors)).toEqual(equalTo(vectors))
    expect(run.events[0]?.kind).toBe('file-refused')
    expect(run.heldByThread()).toHaveLength(1)
    expect(await (await run.whole()).search(other, 1, EF)).toMatchObject([{ id: shared }])
    await db.close()
  })

  test('of a place has a name that any model and path can have', () => {
    const files = cacheFiles('/x/agent.db', { ...place, model: '../../etc/passwd\0' })
    expect(files?.usearch).toMatch(
      /^\/x\/agent\.db-vectors\/code_embeddings-[0-9a-f]{16}-8-usearch\.hnsw$/,
    )
  })

  test("is the engine's own: two processes with different ones find theirs", async () => {
    using folder = scratchFolder()
    await using db = await AgentDB.open({ path: folder.file('a.db') })
    const vectors = someVectors(200)
    putVectors(db, vectors)
    const told: string[][] = []
    for (const index of ['usearch', 'hnswlib', 'usearch', 'hnswlib'] as const) {
      await using run = new GraphRun(db, { index })
      expect(await compared(run, vectors)).toEqual(equalTo(vectors))
      if (told.length < 2) await run.event('saved')
      told.push(run.events.map(({ kind }) => kind))
    }
    expect(told.flat()).not.toContain('file-refused')
    expect(told.slice(2)).toEqual([['ready'], ['ready']])
    const names = readdirSync(`${db.path}-vectors`).map((name) => name.split('-').at(-1))
    expect(names.toSorted()).toEqual(['hnswlib.hnsw', 'usearch.hnsw'])
  })

  test('leaves no other file behind', async () => {
    using folder = scratchFolder()
    const path = folder.file('a.db')
    const db = await AgentDB.open({ path })
    putVectors(db, someVectors(200))
    for (let n = 0; n < 2; n++) {
      await using run = new GraphRun(db)
      await run.whole()
      if (n === 0) await run.event('saved')
    }
    expect(readdirSync(`${path}-vectors`)).toEqual([fileOf(path).split('/').at(-1)])
    await db.close()
  })
})

function putBack(copy: string, path: string): void {
  for (const suffix of ['-wal', '-shm'])
    if (existsSync(path + suffix)) throw new Error('the store was not closed')
  copyFileSync(copy, path)
}
