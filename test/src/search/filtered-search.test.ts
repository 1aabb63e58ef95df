import { setImmediate } from 'node:timers/promises'
import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type AgentDB, type Json } from '../../../src/index.ts'
import type { PayloadFilter } from '../../../src/search/payload-filter.ts'
import { PayloadPostings } from '../../../src/search/payload-postings.ts'
import { connectionOf, openStore, rejectionOf } from '../../support/store.ts'

const collection = 'documentation_embeddings'
const elsewhere = 'code_embeddings'
const vector = Float32Array.of(1, 0)

let db: AgentDB
beforeEach(async () => {
  db = await openStore()
})
afterEach(() => db.close())

const found = async (filter: Record<string, Json>): Promise<string[]> =>
  (await db.search({ collection, vector, k: 1000, filter: filter as never })).map(({ id }) => id)

const tag = fc.constantFrom<Json>('a', 'b', 1, '1', true, null, ['a', 'b'], ['a', 'a', 1], [])
const payload = fc.dictionary(fc.constantFrom('f', 'g'), tag, { noNullPrototype: true })

describe('a filtered search', () => {
  test('finds what SQL finds, whatever changed since the field was first filtered on', async () => {
    const step = fc.record({
      kind: fc.constantFrom('put', 'again', 'delete', 'move', 'sql'),
      at: fc.nat(),
      payload,
    })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        await using own = await openStore()
        const connection = connectionOf(own)
        for (const { kind, at, payload: wanted } of steps) {
          const rows = own.embeddings.list()
          const row = rows[at % Math.max(1, rows.length)]
          if (kind === 'put' || row === undefined)
            await own.embeddings.put({ collection, vector, payload: wanted })
          else if (kind === 'again')
            await own.embeddings.put({
              id: row.id,
              collection: row.collection as typeof collection,
              vector,
              payload: wanted,
            })
          else if (kind === 'delete') own.embeddings.delete(row.id)
          else if (kind === 'move')
            connection.applying(() =>
              connection.run(
                'UPDATE embeddings SET collection = ? WHERE id = ?',
                row.collection === collection ? elsewhere : collection,
                row.id,
              ),
            )
          else
            await own.kysely
              .updateTable('embeddings')
              .set({ payload: wanted })
              .where('id', '=', row.id)
              .execute()
          for (const [field, value] of [
            ['f', 'a'],
            ['f', 1],
            ['g', null],
            ['g', true],
          ] as const) {
            const ids = connection.all<{ id: string }>(
              `SELECT DISTINCT e.id FROM embeddings e, json_each(e.payload, '$.' || ?) p
                WHERE e.collection = ? AND json_quote(p.value) = ? AND p.type NOT IN ('true', 'false') = ?`,
              field,
              collection,
              value === true ? '1' : JSON.stringify(value),
              value === true ? 0 : 1,
            )
            const results = await own.search({
              collection,
              vector,
              k: 1000,
              filter: { [field]: value },
            })
            expect(results.map(({ id }) => id).toSorted()).toEqual(
              ids.map(({ id }) => id).toSorted(),
            )
          }
        }
      }),
      { numRuns: 40 },
    )
  })

  test('of several fields wants all of them, of several values any', async () => {
    const [one, two, three] = await db.embeddings.putMany([
      { collection, vector, payload: { f: 'a', g: 1 } },
      { collection, vector, payload: { f: 'a', g: 2 } },
      { collection, vector, payload: { f: ['b', 'a'], g: 2 } },
    ])
    expect(await found({ f: 'a', g: 2 })).toEqual([two?.id, three?.id])
    expect(await found({ f: ['b', 'c'] })).toEqual([three?.id])
    expect(await found({ f: 'a', g: [1, 3] })).toEqual([one?.id])
    expect(await found({ f: [] })).toEqual([])
    expect(await found({})).toEqual([one?.id, two?.id, three?.id])
  })

  test('tells whole numbers apart that no double holds', async () => {
    const row = await db.embeddings.put({ collection, vector })
    const set = (text: string): void => {
      connectionOf(db).run('UPDATE embeddings SET payload = ? WHERE id = ?', text, row.id)
    }
    set('{"n":9007199254740993}')
    expect(await found({ n: 9_007_199_254_740_992 })).toEqual([])
    set('{"n":9007199254740992}')
    expect(await found({ n: 9_007_199_254_740_992 })).toEqual([row.id])
  })

  test('compares only the vectors that pass where they are few, and all where they are many', async () => {
    const wide = (y: number): Float32Array =>
      Float32Array.from({ length: 1000 }, (_, i) => y * i + 1)
    const query = wide(0)
    await db.embeddings.putMany(
      Array.from({ length: 90 }, (_, i) => ({
        collection,
        vector: wide(i),
        payload: { n: i % 30, most: i !== 3 },
      })),
    )
    const most = { collection, vector: query, filter: { most: true }, k: 4, explain: true } as const
    const many = await db.search(most)
    expect(many.plans[0]).toMatchObject({ method: 'filtered exact', matching: 89, scanned: 90 })
    const all = await db.search({ collection, vector: query, k: 5 })
    expect(many.results).toEqual(all.filter((_, i) => i !== 3))
    const { plans } = await db.search({
      collection,
      vector: query,
      filter: { n: 7 },
      explain: true,
    })
    expect(plans).toMatchObject([{ method: 'filtered exact', matching: 3, scanned: 3 }])
  })
})

test('beyond its limit the field that was filtered on longest ago is forgotten, and read again when wanted', async () => {
  await db.embeddings.putMany(
    Array.from({ length: 8 }, (_, i) => ({ collection, vector, payload: { f: i, g: i, h: i } })),
  )
  const postings = new PayloadPostings(connectionOf(db), collection, () => 16)
  const count = async (filter: PayloadFilter): Promise<number | undefined> => {
    await postings.load(filter)
    return postings.matching(filter)?.count
  }
  expect([await count({ f: 1 }), await count({ g: 1 }), await count({ f: 2 })]).toEqual([1, 1, 1])
  expect(postings.matching({ g: 1 })?.count).toBe(1)
  expect(await count({ h: 1 })).toBe(1)
  expect(postings.matching({ f: 1 })).toBe(undefined)
  expect(postings.matching({ g: 1 })?.count).toBe(1)
  expect(await count({ f: 1 })).toBe(1)
})

describe('the first search of many vectors', () => {
  /** Calls `work` each time that others get their turn, until `running` ends; how often that was. */
  async function meanwhile(running: Promise<unknown>, work: () => void): Promise<number> {
    const state = { isRunning: true }
    void running.finally(() => (state.isRunning = false))
    let turns = 0
    for (; state.isRunning; turns++) {
      work()
      await setImmediate()
    }
    return turns
  }

  test('lets others run while it reads them, and finds what they write meanwhile', async () => {
    await db.embeddings.putMany(
      Array.from({ length: 1600 }, (_, i) => ({
        collection,
        vector: Float32Array.of(1, i / 1000),
        payload: { even: i % 2 === 0 },
      })),
    )
    const connection = connectionOf(db)
    const ids = db.embeddings.list({ limit: 2000 }).map(({ id }) => id)
    let turn = 0
    const write = (): void => {
      turn += 1
      // Behind what was read, and before what will be.
      for (const at of [turn, 800 + turn, 1599 - turn]) {
        const id = ids[at] ?? ''
        if (turn % 3 === 0) connection.run('DELETE FROM embeddings WHERE id = ?', id)
        else connection.run(`UPDATE embeddings SET payload = '{"even":7}' WHERE id = ?`, id)
      }
    }
    const filter = { even: true }
    const first = db.search({ collection, vector, filter, k: 1000 })
    // 6 slices of changes, 3 of payloads.
    expect(await meanwhile(first, write)).toBeGreaterThan(8)
    const truth = connection
      .all<{ id: string }>(`SELECT id FROM embeddings WHERE payload ->> 'even' = 1`)
      .map(({ id }) => id)
      .toSorted()
    expect(truth.length).toBeLessThan(800)
    expect((await found(filter)).toSorted()).toEqual(truth)
    expect((await first).map(({ id }) => id).toSorted()).toEqual(truth)
  })

  test('goes in pieces where it compares all of many, and finds what is written meanwhile', async () => {
    const dimension = 16_384
    // More than 16 MiB of codes, which are one piece.
    for (let from = 0; from < 1200; from += 100)
      await db.embeddings.putMany(
        Array.from({ length: 100 }, (_, i) => ({
          collection,
          vector: new Float32Array(dimension).fill(1).fill(-1, from + i),
        })),
      )
    const wanted = new Float32Array(dimension).fill(1)
    const search = (): Promise<readonly { id: string; score: number }[]> =>
      db.search({ collection, vector: wanted, k: 1 })
    await search()
    const connection = connectionOf(db)
    const [{ id = '' } = {}] = connection.all<{ id?: string }>(
      'SELECT id FROM embeddings ORDER BY id LIMIT 1',
    )
    const vectorBytes = new Uint8Array(wanted.buffer)
    const pieces = search()
    let turn = 0
    await meanwhile(pieces, () => {
      turn += 1
      // Its row was compared in the first piece.
      if (turn === 2)
        connection.run('UPDATE embeddings SET vector = ? WHERE id = ?', vectorBytes, id)
    })
    expect(turn).toBeGreaterThan(1)
    expect(await pieces).toMatchObject([{ id, score: 1 }])
  })

  test('fails with the store that is closed meanwhile, and with nothing else', async () => {
    await db.embeddings.putMany(
      Array.from({ length: 600 }, () => ({ collection, vector, payload: { f: 1 } })),
    )
    const first = rejectionOf(db.search({ collection, vector, filter: { f: 1 } }))
    await setImmediate()
    await db.close()
    expect(await first).toMatchObject({ code: 'STORE_CLOSED' })
  })
})

test('a stored vector that is none is not found, and keeps nothing else from being found', async () => {
  const [good, bad] = await db.embeddings.putMany([
    { collection, vector },
    { collection, vector },
  ])
  connectionOf(db).run(
    'UPDATE embeddings SET vector = ? WHERE id = ?',
    new Uint8Array(Float32Array.of(1, Number.NaN).buffer),
    bad?.id ?? '',
  )
  expect((await db.search({ collection, vector })).map(({ id }) => id)).toEqual([good?.id])
})
