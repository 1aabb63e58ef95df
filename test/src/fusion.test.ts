import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { AgentDB, SearchOptions } from '../../src/index.ts'
import { fuse } from '../../src/search/fusion.ts'
import { notes, questions } from '../support/questions.ts'
import { openStore } from '../support/store.ts'

const collection = 'documentation_embeddings'
let db: AgentDB
beforeAll(async () => {
  db = await openStore()
  await db.embeddings.putMany(
    Object.entries(notes).map(([title, content]) => ({
      collection,
      content,
      payload: { section: title },
    })),
  )
})
afterAll(() => db.close())

interface Quality {
  readonly hits: number
  readonly reciprocal: number
}

/** How often the right note comes first, and the sum of one over its place. */
async function qualityOf(options: Partial<SearchOptions>): Promise<Quality> {
  let hits = 0
  let reciprocal = 0
  for (const [text, note] of questions) {
    const found = await db.search({ collection, text, k: 24, ...options })
    const place = found.findIndex(
      ({ payload }) => (payload as { section: string }).section === note,
    )
    if (place === 0) hits += 1
    if (place >= 0) reciprocal += 1 / (place + 1)
  }
  return { hits, reciprocal }
}

describe('hybrid search with the built-in embedder', () => {
  test('finds the right note at least as often as words alone, and more often than vectors alone', async () => {
    const words = await qualityOf({ mode: 'text' })
    const vectors = await qualityOf({ mode: 'vector' })
    const hybrid = await qualityOf({})
    expect(words.hits).toBeGreaterThan(questions.length / 2)
    expect(hybrid.hits).toBeGreaterThanOrEqual(words.hits)
    expect(hybrid.reciprocal).toBeGreaterThanOrEqual(words.reciprocal)
    expect(hybrid.hits).toBeGreaterThan(vectors.hits)
  })

  test('never changes the order that words give, and has what they do not find after it', async () => {
    for (const [text] of questions) {
      const words = await db.search({ collection, text, k: 24, mode: 'text' })
      const hybrid = await db.search({ collection, text, k: 24 })
      expect(hybrid.length).toBeGreaterThan(words.length)
      expect(hybrid.slice(0, words.length).map(({ textScore }) => textScore)).toEqual(
        words.map(({ textScore }) => textScore),
      )
    }
  })

  test('finds something where no word matches', async () => {
    expect(await db.search({ collection, text: 'rollbacks?', mode: 'text' })).not.toEqual([])
    expect(await db.search({ collection, text: 'roolback', mode: 'text' })).toEqual([])
    const [best] = await db.search({ collection, text: 'roolback' })
    expect(best?.payload).toMatchObject({ section: 'rollback' })
  })
})

const scores = fc
  .uniqueArray(fc.nat(30), { maxLength: 12 })
  .chain((ids) =>
    fc.tuple(
      ...ids.map((id) =>
        fc.double({ min: 1e-6, max: 20, noNaN: true }).map((score) => ({ id: `r${id}`, score })),
      ),
    ),
  )
  .map((list) => list.toSorted((a, b) => b.score - a.score))

describe('hybrid search of more rows than either side gives', () => {
  const probe = Float32Array.of(1, 0)
  const query = { collection, text: 'disk', vector: probe, mode: 'hybrid' } as const
  const at = (angle: number): Float32Array => Float32Array.of(Math.cos(angle), Math.sin(angle))

  test('tells a near row the score of its words, however many rows are before it by words', async () => {
    await using own = await openStore()
    await own.embeddings.putMany(
      Array.from({ length: 400 }, () => ({ collection, content: 'disk full', vector: at(0.93) })),
    )
    const best = await own.embeddings.put({
      collection,
      content: 'disk full today',
      vector: probe,
    })
    for (const k of [10, 110]) {
      const [first] = await own.search({ ...query, vectorWeight: 0.5, k })
      expect(first).toMatchObject({ id: best.id, textScore: expect.any(Number), vectorScore: 1 })
    }
  })

  test('tells every row the scores that it has alone, on whichever page', async () => {
    await using own = await openStore()
    await own.embeddings.putMany(
      Array.from({ length: 500 }, (_, i) => ({
        collection,
        content: `${i % 3 === 0 ? '' : 'disk '.repeat(1 + (i % 7))}${'word '.repeat((i * 37) % 50)}`,
        vector: at((i * 2.4) % 3),
      })),
    )
    const scoresOf = async (mode: 'text' | 'vector'): Promise<Map<string, number>> => {
      const sought = mode === 'text' ? { text: 'disk', mode } : { vector: probe, mode }
      const found = await own.search({ collection, k: 1000, ...sought })
      return new Map(
        found.map(({ id, textScore, vectorScore }) => [id, textScore ?? vectorScore ?? 0]),
      )
    }
    const [texts, vectors] = [await scoresOf('text'), await scoresOf('vector')]
    for (const offset of [0, 30, 90]) {
      const page = await own.search({ ...query, vectorWeight: 0.9, k: 30, offset })
      expect(page).toHaveLength(30)
      for (const { id, textScore, vectorScore } of page) {
        expect(textScore).toBe(texts.get(id) ?? null)
        expect(vectorScore).toBeCloseTo(vectors.get(id) ?? Number.NaN, 5)
      }
    }
  })
})

describe('fusion', () => {
  test('keeps a lead of the words that is larger than all that the vectors can give', () => {
    fc.assert(
      fc.property(scores, scores, fc.double({ min: 0, max: 1, noNaN: true }), (words, near, w) => {
        const place = new Map(fuse(words, near, w).map(({ id }, i) => [id, i]))
        const best = words[0]?.score ?? 1
        const lost = words.flatMap((a) =>
          words.filter(
            (b) =>
              ((a.score - b.score) / best) * (1 - w) > w + 1e-9 &&
              (place.get(a.id) ?? 0) > (place.get(b.id) ?? 0),
          ),
        )
        expect(lost).toEqual([])
      }),
    )
  })

  test('has every row of either side once, with shares of 0 to 1, best first', () => {
    fc.assert(
      fc.property(scores, scores, fc.double({ min: 0, max: 1, noNaN: true }), (words, near, w) => {
        const fused = fuse(words, near, w)
        expect(fused.map(({ id }) => id).toSorted()).toEqual(
          [...new Set([...words, ...near].map(({ id }) => id))].toSorted(),
        )
        for (const { score } of fused) {
          expect(score).toBeGreaterThanOrEqual(0)
          expect(score).toBeLessThanOrEqual(1 + 1e-9)
        }
        expect(fused).toEqual(fused.toSorted((a, b) => b.score - a.score))
      }),
    )
  })

  test('of weight 0 is the order of the words, of weight 1 that of the vectors', () => {
    const words = [
      { id: 'a', score: 9 },
      { id: 'b', score: 3 },
    ]
    const near = [
      { id: 'b', score: 0.9 },
      { id: 'c', score: 0.2 },
      { id: 'a', score: -0.5 },
    ]
    const order = (weight: number): string[] => fuse(words, near, weight).map(({ id }) => id)
    expect(order(0)).toEqual(['a', 'b', 'c'])
    expect(order(1)).toEqual(['b', 'c', 'a'])
  })
})
