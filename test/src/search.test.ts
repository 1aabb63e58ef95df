/* oxlint-disable unicorn/consistent-function-scoping -- a helper stands beside the tests that it helps */
import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { AgentDB, hashingEmbedder, HASHING_DIMENSION, type Json } from '../../src/index.ts'
import { SEARCH_K_MAX } from '../../src/search/search-options.ts'
import { connectionOf, errorOf, openStore, rejectionOf, scratchFolder } from '../support/store.ts'

let db: AgentDB
beforeEach(async () => {
  db = await openStore()
})
afterEach(() => db.close())

const collection = 'documentation_embeddings'

/** Cosine in double precision, the slow and obvious way. */
function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array): number =>
    x.reduce((sum, component, i) => sum + component * (y[i] ?? 0), 0)
  const length = Math.sqrt(dot(a, a)) * Math.sqrt(dot(b, b))
  return length === 0 ? 0 : dot(a, b) / length
}

const DIMENSION = 6
const aVector = fc
  .array(fc.integer({ min: -8, max: 8 }), { minLength: DIMENSION, maxLength: DIMENSION })
  .map((components) => Float32Array.from(components))
const scalar = fc.constantFrom<Json>('a', 'b', '1', 0, 1, 1.5, true, false, null)
const aField = fc.oneof(
  scalar,
  fc.array(scalar, { maxLength: 3 }),
  fc.constantFrom<Json>({ a: 1 }, { a: 'a' }, [['a']]),
)
const aPayload = fc.dictionary(fc.constantFrom('f', 'g', 'a.b', 'x y', 'q"', 'ü'), aField, {
  maxKeys: 3,
  noNullPrototype: true,
})
const aFilter = fc.dictionary(
  fc.constantFrom('f', 'g', 'a.b', 'x y', 'q"', 'ü', 'none'),
  fc.oneof(scalar, fc.array(fc.constantFrom('a', 'b', '1', 1, true, 1.5), { maxLength: 2 })),
  { minKeys: 1, maxKeys: 2, noNullPrototype: true },
)

/** Equal to the wanted value, or to one of several; of a list field any element. */
function matches(
  payload: Readonly<Record<string, Json>>,
  filter: Readonly<Record<string, unknown>>,
) {
  return Object.entries(filter).every(([field, wanted]) => {
    if (!Object.hasOwn(payload, field)) return false
    const has = Array.isArray(payload[field]) ? (payload[field] as unknown[]) : [payload[field]]
    const oneOf = Array.isArray(wanted) ? (wanted as unknown[]) : [wanted]
    return oneOf.some((value) => has.includes(value))
  })
}

describe('exact search', () => {
  test('finds what a scan of all vectors finds: the same scores, order and number', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(aVector, { maxLength: 60 }),
        aVector,
        fc.integer({ min: 1, max: 20 }),
        fc.option(fc.double({ min: -1, max: 1, noNaN: true })),
        async (vectors, probe, k, minScore) => {
          await using own = await openStore()
          const rows = await own.embeddings.putMany(
            vectors.map((vector) => ({ collection, vector })),
          )
          const found = await own.search({
            collection,
            vector: probe,
            k,
            ...(minScore === null ? {} : { minScore }),
          })
          const scores = new Map(rows.map((row) => [row.id, cosine(row.vector, probe)]))
          const best = [...scores.values()].toSorted((a, b) => b - a).slice(0, k)
          // At the edge of minScore, float and double may differ.
          const sure = (margin: number): number =>
            best.filter((score) => score >= (minScore ?? -2) + margin).length
          expect(found.length).toBeGreaterThanOrEqual(sure(1e-5))
          expect(found.length).toBeLessThanOrEqual(sure(-1e-5))
          expect(new Set(found.map(({ id }) => id)).size).toBe(found.length)
          for (const [i, { id, score }] of found.entries()) {
            expect(Math.abs(score - (scores.get(id) ?? Number.NaN))).toBeLessThan(1e-5)
            expect(Math.abs(score - (best[i] ?? Number.NaN))).toBeLessThan(1e-5)
          }
          expect(found).toEqual(
            found.toSorted((a, b) => b.score - a.score || (a.id < b.id ? -1 : 1)),
          )
        },
      ),
      { numRuns: 60 },
    )
  })

  test('with a filter finds what a scan of all payloads finds', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(aPayload, { minLength: 1, maxLength: 12 }),
        aFilter,
        async (payloads, filter) => {
          await using own = await openStore()
          const rows = await own.embeddings.putMany(
            payloads.map((payload) => ({ collection, vector: Float32Array.of(1, 0), payload })),
          )
          const found = await own.search({
            collection,
            vector: Float32Array.of(1, 0),
            k: 100,
            filter: filter as never,
          })
          expect(found.map(({ id }) => id).toSorted()).toEqual(
            rows
              .flatMap((row, i) => (matches(payloads[i] ?? {}, filter) ? [row.id] : []))
              .toSorted(),
          )
        },
      ),
      { numRuns: 150 },
    )
  })

  test('gives the payload and the preview with the score', async () => {
    const row = await db.embeddings.put({
      collection,
      content: 'how to roll back a deploy',
      payload: { title: 'Rollback', section: 'Ops', url: 'https://x.y' },
    })
    const [probe] = await hashingEmbedder.embed(['roll back'])
    expect(await db.search({ collection, text: 'roll back' })).toEqual([
      {
        id: row.id,
        score: 1,
        vectorScore: expect.closeTo(cosine(row.vector, probe ?? row.vector), 5),
        textScore: expect.any(Number),
        collection,
        model: hashingEmbedder.model,
        contentPreview: 'how to roll back a deploy',
        payload: row.payload,
      },
    ])
  })

  test('keeps to its collection and to its model', async () => {
    const vector = Float32Array.of(1, 0)
    const a = await db.embeddings.put({ collection, vector, model: 'a' })
    await db.embeddings.put({ collection: 'code_embeddings', vector, model: 'a' })
    expect((await db.search({ collection, vector })).map(({ id }) => id)).toEqual([a.id])
    expect(await db.search({ collection, vector: Float32Array.of(1, 0, 0) })).toEqual([])
    expect(await db.search({ collection, text: 'hashed' })).toEqual([])

    const b = await db.embeddings.put({ collection, vector, model: 'b' })
    const error = await rejectionOf(db.search({ collection, vector }))
    expect(error).toMatchObject({ code: 'INVALID_OPTION' })
    expect(error.message).toMatch(/a, b/)
    db.embeddings.delete(b.id)
    expect((await db.search({ collection, vector })).map(({ id }) => id)).toEqual([a.id])
  })

  test('sees updates, deletes and what a transaction took back', async () => {
    const near = Float32Array.of(1, 0)
    const far = Float32Array.of(-1, 0)
    const row = await db.embeddings.put({ collection, vector: near, payload: { v: 1 } })
    const scores = async (): Promise<number[]> =>
      (await db.search({ collection, vector: near })).map(({ score }) => score)
    expect(await scores()).toEqual([1])
    await db.embeddings.put({ id: row.id, collection, vector: far, payload: { v: 2 } })
    expect(await scores()).toEqual([-1])
    expect((await db.search({ collection, vector: near, filter: { v: 1 } })).length).toBe(0)
    expect(() =>
      db.transaction(() => {
        db.embeddings.delete(row.id)
        throw new Error('no')
      }),
    ).toThrow('no')
    expect(await scores()).toEqual([-1])
    await db.kysely.updateTable('embeddings').set({ vector: near }).execute()
    expect(await scores()).toEqual([1])
    db.embeddings.delete(row.id)
    expect(await scores()).toEqual([])
  })

  test('sees what another connection and what a batch of the centre wrote', async () => {
    using folder = scratchFolder()
    const path = folder.file('agent.db')
    await using mine = await AgentDB.open({ path })
    await using theirs = await AgentDB.open({ path })
    const vector = Float32Array.of(1, 0)
    const found = async (): Promise<string[]> =>
      (await mine.search({ collection, vector })).map(({ id }) => id)
    expect(await found()).toEqual([])
    const row = await theirs.embeddings.put({ collection, vector })
    expect(await found()).toEqual([row.id])
    connectionOf(theirs).applying(() => connectionOf(theirs).run('DELETE FROM embeddings'))
    expect(await found()).toEqual([])
  })

  test.each([
    ['no query', {}],
    ['two queries', { text: 'x', vector: Float32Array.of(1) }],
    ['a collection that is not there', { collection: 'poems', text: 'x' }],
    ['k of zero', { text: 'x', k: 0 }],
    ['k that is too large', { text: 'x', k: SEARCH_K_MAX + 1 }],
    ['k that is no whole number', { text: 'x', k: 1.5 }],
    ['a vector with NaN', { vector: Float32Array.of(Number.NaN) }],
    ['a vector that is a list', { vector: [1, 2] }],
    ['an empty vector', { vector: new Float32Array(0) }],
    ['a score that is none', { text: 'x', minScore: Number.NaN }],
    ['a text that is none', { text: 7 }],
    ['a recall above all', { text: 'x', recall: 1.01 }],
    ['a recall that is none', { text: 'x', recall: Number.NaN }],
    ['explain that is neither yes nor no', { text: 'x', explain: 'yes' }],
    ['a filter on an object', { text: 'x', filter: { a: { b: 1 } } }],
    ['a filter that is no object', { text: 'x', filter: 'a' }],
  ])('refuses %s', async (_, options) => {
    const error = await rejectionOf(db.search({ collection, ...options } as never))
    expect(error).toMatchObject({ code: 'INVALID_OPTION' })
  })
})

describe('an embedding', () => {
  test('has the fields of its collection filled in from its content, unless they are given', async () => {
    const content = `${'😀'.repeat(150)}${'x'.repeat(600)}`
    const at = expect.stringMatching(/^\d{4}-.*\.\d{6}Z$/)
    const preview200 = '😀'.repeat(150) + 'x'.repeat(50)
    for (const name of ['code_embeddings', 'documentation_embeddings'] as const) {
      const row = await db.embeddings.put({
        collection: name,
        content,
        payload: { language: 'ts' },
      })
      expect(row).toMatchObject({
        payload: { indexed_at: at, language: 'ts' },
        content_preview: preview200,
      })
    }
    expect(
      await db.embeddings.put({ collection: 'conversation_embeddings', content }),
    ).toMatchObject({
      payload: {
        timestamp: at,
        user_id: db.userId,
        char_count: 750,
        content_preview: preview200,
      },
    })
    const preview500 = '😀'.repeat(150) + 'x'.repeat(350)
    expect(await db.embeddings.put({ collection: 'incident_knowledge', content })).toMatchObject({
      payload: { indexed_at: at, resolution_preview: preview500 },
      content_preview: preview500,
    })
    expect(
      await db.embeddings.put({
        collection: 'conversation_embeddings',
        content,
        payload: { char_count: 1, timestamp: 'then', message_id: 'm' },
      }),
    ).toMatchObject({ payload: { char_count: 1, timestamp: 'then', message_id: 'm' } })
  })

  test.each([
    ['code_embeddings', { file_path: 1 }],
    ['code_embeddings', { project_id: ['a'] }],
    ['documentation_embeddings', { title: {} }],
    ['documentation_embeddings', { url: false }],
    ['conversation_embeddings', { char_count: '7' }],
    ['conversation_embeddings', { message_id: 7 }],
    ['incident_knowledge', { services: 'web' }],
    ['incident_knowledge', { services: ['web', 1] }],
    ['incident_knowledge', { severity: 1 }],
  ] as const)('of %s with payload %j is refused', async (name, payload) => {
    const error = await rejectionOf(db.embeddings.put({ collection: name, content: 'x', payload }))
    expect(error).toMatchObject({ code: 'INVALID_VALUE', table: 'embeddings', column: 'payload' })
    expect(error.message).toContain(Object.keys(payload)[0])
    expect(db.embeddings.list()).toEqual([])
  })

  test('has the id it is given; put again under it, it is embedded again', async () => {
    const conversation = db.conversations.create({})
    const message = db.messages.create({
      conversation_id: conversation.id,
      role: 'user',
      content: 'a',
    })
    const put = (content: string): Promise<{ id: string; content_preview: string | null }> =>
      db.embeddings.put({ id: message.id, collection: 'conversation_embeddings', content })
    expect((await put('first')).id).toBe(message.id)
    expect((await put('second')).content_preview).toBe('second')
    expect(db.embeddings.list()).toHaveLength(1)
    expect(db.embeddings.find(message.id)?.vector).toEqual(
      (await hashingEmbedder.embed(['second']))[0],
    )
  })

  test('is refused without content and vector, with a bad vector, and under an id of another collection', async () => {
    for (const bad of [
      {},
      { vector: Float32Array.of(Number.NaN) },
      { vector: new Float32Array(0) },
      { vector: [1] },
      { content: 7 },
      { collection: 'poems', content: 'x' },
    ]) {
      expect(await rejectionOf(db.embeddings.put({ collection, ...bad } as never))).toMatchObject({
        code: 'INVALID_VALUE',
        table: 'embeddings',
      })
    }
    const row = await db.embeddings.put({ collection, content: 'x' })
    expect(
      await rejectionOf(
        db.embeddings.put({ id: row.id, collection: 'code_embeddings', content: 'y' }),
      ),
    ).toMatchObject({ code: 'INVALID_VALUE', table: 'embeddings', column: 'collection' })
    expect(db.embeddings.list()).toEqual([row])
  })

  test('of many is written whole or not at all', async () => {
    expect(
      await rejectionOf(
        db.embeddings.putMany([
          { collection, content: 'a' },
          { collection, content: 'b', payload: { bad: Number.NaN } },
        ]),
      ),
    ).toMatchObject({ code: 'INVALID_VALUE', column: 'payload' })
    expect(db.embeddings.list()).toEqual([])
    expect(await db.embeddings.putMany([])).toEqual([])
  })

  test('comes from the model that the store was opened with, which is asked once for many', async () => {
    const asked: string[][] = []
    await using own = await openStore({
      embedModel: 'mine',
      embed: async (texts) => {
        asked.push([...texts])
        return texts.map((text) => Float32Array.of(text.length, 1))
      },
    })
    const rows = await own.embeddings.putMany([
      { collection, content: 'a' },
      { collection, vector: Float32Array.of(9, 9), model: 'other' },
      { collection, content: 'bbb' },
    ])
    expect(rows.map(({ model, dimension, vector }) => [model, dimension, ...vector])).toEqual([
      ['mine', 2, 1, 1],
      ['other', 2, 9, 9],
      ['mine', 2, 3, 1],
    ])
    expect(asked).toEqual([['a', 'bbb']])
    const [best] = await own.search({ collection, text: 'ccc' })
    expect(best?.id).toBe(rows[2]?.id)
  })

  test('of a model that gives something else is refused', async () => {
    for (const answer of [[], [[1, 2]], [Float32Array.of(1), Float32Array.of(2)]]) {
      await using own = await openStore({ embed: () => answer as never })
      expect(await rejectionOf(own.embeddings.put({ collection, content: 'x' }))).toMatchObject({
        code: 'INVALID_VALUE',
      })
      expect(own.embeddings.list()).toEqual([])
    }
  })
})

test.each([
  ['NaN', Float32Array.of(1, Number.NaN)],
  ['nothing', new Float32Array(0)],
])('a search by text is refused where the model gives %s', async (_, vector) => {
  await using own = await openStore({ embed: () => [vector] })
  await own.embeddings.put({ collection, vector: Float32Array.of(1, 2), model: 'custom' })
  expect(await rejectionOf(own.search({ collection, text: 'x' }))).toMatchObject({
    code: 'INVALID_VALUE',
  })
})

describe('the hashing embedder', () => {
  const embed = async (...texts: string[]): Promise<Float32Array[]> => [
    ...(await hashingEmbedder.embed(texts)),
  ]

  test('gives unit vectors that depend on the text alone', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'grapheme' }), async (text) => {
        const [a, b] = await embed(text, text)
        expect(a).toEqual(b)
        expect(a).toHaveLength(HASHING_DIMENSION)
        expect(Math.abs(Math.hypot(...(a ?? [])) - 1)).toBeLessThan(1e-5)
      }),
    )
    expect(await embed('Roll BACK')).toEqual(await embed('roll back'))
  })

  test('does not change between releases: stored vectors would no longer be found', async () => {
    const [vector] = await embed('roll back the deploy')
    const largest = [...(vector ?? [])]
      .map((component, slot) => ({ slot, component }))
      .toSorted((a, b) => Math.abs(b.component) - Math.abs(a.component) || a.slot - b.slot)
      .slice(0, 4)
      .map(({ slot, component }) => [slot, component.toFixed(4)])
    expect(largest).toMatchInlineSnapshot(`
      [
        [
          48,
          "-0.3123",
        ],
        [
          120,
          "0.3123",
        ],
        [
          144,
          "-0.3123",
        ],
        [
          258,
          "0.3123",
        ],
      ]
    `)
  })

  test('puts texts that share words nearer than texts that do not', async () => {
    const [a, b, c] = await embed(
      'how to roll back a deploy',
      'deploy: roll it back',
      'the colour of the sea at night',
    )
    const empty = new Float32Array(1)
    expect(cosine(a ?? empty, b ?? empty)).toBeGreaterThan(cosine(a ?? empty, c ?? empty) + 0.2)
  })
})

test('a store that is closed says so', async () => {
  const own = await openStore()
  await own.close()
  expect(await rejectionOf(own.search({ collection, text: 'x' }))).toMatchObject({
    code: 'STORE_CLOSED',
  })
  expect(errorOf(() => own.embeddings.list())).toMatchObject({ code: 'STORE_CLOSED' })
})
