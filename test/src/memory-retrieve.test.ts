import { setImmediate } from 'node:timers/promises'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Polarity } from '../../schema/tables/memory.ts'
import { newId } from '../../schema/values/id.ts'
import type { AgentDB, RetrievedItem, RetrieveOptions, StoredMemoryItem } from '../../src/index.ts'
import { MemoryIndex } from '../../src/memory/memory-index.ts'
import { asCentre, connectionOf, openStore, rejectionOf, scratchFolder } from '../support/store.ts'

const DIMENSION = 3
const MODEL = 'custom'
const EPSILON = 1e-6
const dayOf = (day: number): string => `2026-01-${String(day).padStart(2, '0')}T00:00:00.000000Z`

function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array): number =>
    x.reduce((sum, component, i) => sum + component * (y[i] ?? 0), 0)
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b))
}

/** Small grids, so that many are equally near, and a few vectors that the items of a record share. */
const aVector = fc
  .oneof(
    fc.constantFrom([1, 0, 0], [0, 1, 0], [-1, 0, 1]),
    fc.array(fc.integer({ min: -2, max: 2 }), { minLength: DIMENSION, maxLength: DIMENSION }),
  )
  .filter((components) => components.some((component) => component !== 0))
  .map((components): Float32Array => Float32Array.from(components))
const aPolarity = fc.constantFrom<Polarity>('success', 'failure', 'contrast')

const anItem = fc.record({
  record: fc.nat(5),
  polarity: fc.oneof(fc.constant<Polarity>('success'), aPolarity),
  model: fc.constantFrom(MODEL, MODEL, MODEL, 'other'),
  query: aVector,
  text: fc.option(aVector),
  expires: fc.option(fc.integer({ min: 1, max: 28 })),
})
type Item = typeof anItem extends fc.Arbitrary<infer T> ? T : never

const aChange = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('add' as const), item: anItem }) },
  fc.record({ kind: fc.constant('delete' as const), at: fc.nat() }),
  fc.record({ kind: fc.constant('supersede' as const), at: fc.nat(), by: fc.nat() }),
  fc.record({ kind: fc.constant('restore' as const), at: fc.nat() }),
  fc.record({ kind: fc.constant('embed' as const), at: fc.nat(), vector: aVector }),
  fc.record({ kind: fc.constant('arrive' as const), at: fc.nat(), vector: aVector }),
)
type Change = typeof aChange extends fc.Arbitrary<infer T> ? T : never

const aProbe = fc.record({
  vector: aVector,
  k: fc.integer({ min: 1, max: 5 }),
  by: fc.constantFrom('task' as const, 'text' as const),
  polarity: fc.option(aPolarity),
  at: fc.integer({ min: 1, max: 28 }),
  minScore: fc.option(fc.constantFrom(-0.5, 0, 0.5)),
})
type Probe = typeof aProbe extends fc.Arbitrary<infer T> ? T : never

const add = (db: AgentDB, records: readonly string[], item: Item): StoredMemoryItem =>
  db.memory.items.create({
    record_id: records[item.record] ?? '',
    polarity: item.polarity,
    title: 't',
    description: 'd',
    content: 'c',
    source_query: 'q',
    model: item.model,
    dimension: DIMENSION,
    query_vector: item.query,
    text_vector: item.text,
    expires_at: item.expires === null ? null : dayOf(item.expires),
  })

function apply(db: AgentDB, records: readonly string[], change: Change): void {
  if (change.kind === 'add') {
    add(db, records, change.item)
    return
  }
  const items = db.memory.items.list()
  const pick = (at: number): string => items[at % items.length]?.id ?? ''
  if (items.length === 0) return
  const id = pick(change.at)
  if (change.kind === 'delete') db.memory.items.delete(id)
  if (change.kind === 'supersede') db.memory.items.update(id, { superseded_by: pick(change.by) })
  if (change.kind === 'restore') db.memory.restore(id)
  if (change.kind === 'embed') db.memory.items.update(id, { query_vector: change.vector })
  if (change.kind === 'arrive') {
    // As a batch of the centre writes it: uncaptured.
    const hex = Buffer.from(change.vector.buffer).toString('hex')
    asCentre(db, `UPDATE memory_items SET text_vector = x'${hex}' WHERE id = ?`, id)
  }
}

interface Wanted {
  score: number
  readonly items: { readonly id: string; readonly score: number }[]
}

/** Slow and obvious: every item, each record as near as the nearest of its items. */
function reference(db: AgentDB, probe: Probe): Map<string, Wanted> {
  const records = new Map<string, Wanted>()
  const visible = db.memory.items
    .list()
    .filter(
      (item) =>
        item.model === MODEL &&
        item.superseded_by === null &&
        (item.expires_at === null || item.expires_at > dayOf(probe.at)) &&
        (probe.polarity === null || item.polarity === probe.polarity),
    )
    .toSorted((a, b) =>
      a.created_at === b.created_at ? (a.id < b.id ? -1 : 1) : a.created_at < b.created_at ? -1 : 1,
    )
  for (const item of visible) {
    const vector = probe.by === 'task' ? item.query_vector : item.text_vector
    if (vector === null) continue
    const score = cosine(vector, probe.vector)
    const record = records.get(item.record_id) ?? { score, items: [] }
    record.score = Math.max(record.score, score)
    record.items.push({ id: item.id, score })
    records.set(item.record_id, record)
  }
  return records
}

const optionsOf = ({ vector, k, by, polarity, at, minScore }: Probe): RetrieveOptions => ({
  embedding: vector,
  k,
  by,
  polarity: polarity ?? undefined,
  at: dayOf(at),
  minScore: minScore ?? undefined,
  maxItems: 500,
  count: false,
})

const isNear = (a: number, b = Number.NaN): boolean => Math.abs(a - b) < EPSILON

/** In what an answer is not the reference's. */
async function faults(db: AgentDB, probe: Probe): Promise<string[]> {
  const found = await db.memory.retrieve(optionsOf(probe))
  const wanted = reference(db, probe)
  const order = [...new Set(found.map(({ recordId }) => recordId))]
  const scores = order.map((id) => wanted.get(id)?.score ?? Number.NaN)
  const best = [...wanted.values()].map(({ score }) => score).toSorted((a, b) => b - a)
  const minScore = probe.minScore ?? -2
  // At the edge of minScore, float and double may differ.
  const enough = (margin: number): number =>
    best.filter((score) => score >= minScore + margin).slice(0, probe.k).length
  const rules: Readonly<Record<string, boolean>> = {
    ...(probe.by === 'task' ? rulesByTask : rulesByText)(found, wanted, order, minScore),
    'as near as the best, best first': scores.every((score, i) => isNear(score, best[i])),
    'not too few': scores.length >= enough(EPSILON),
    'not too many': scores.length <= enough(-EPSILON),
  }
  return Object.keys(rules).filter((rule) => rules[rule] !== true)
}

type Rules = (
  found: readonly RetrievedItem[],
  wanted: ReadonlyMap<string, Wanted>,
  order: readonly string[],
  minScore: number,
) => Readonly<Record<string, boolean>>

const rulesByTask: Rules = (found, wanted, order) => ({
  'whole records, items in the order of writing':
    found.map(({ id }) => id).join() ===
    order.flatMap((id) => wanted.get(id)?.items.map((item) => item.id)).join(),
  'the score of the record': found.every(({ recordId, score }) =>
    isNear(score, wanted.get(recordId)?.score),
  ),
})

const rulesByText: Rules = (found, wanted, order, minScore) => {
  const all = order.flatMap((id) => wanted.get(id)?.items ?? [])
  return {
    'the nearest items first': found.every(({ score }, i) => score <= (found[i - 1]?.score ?? 1)),
    'the score of the item': found.every(({ id, score }) =>
      isNear(score, all.find((item) => item.id === id)?.score),
    ),
    'all of a record that are near enough': all
      .filter(({ score }) => score >= minScore + EPSILON)
      .every(({ id }) => found.some((item) => item.id === id)),
    'none that is not': found.every(({ score }) => score >= minScore),
  }
}

describe('retrieval', () => {
  test('finds what a scan of all items finds, whatever was added, changed, superseded and deleted', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(aChange, { minLength: 1, maxLength: 60, size: 'max' }),
        fc.array(aProbe, { minLength: 1, maxLength: 12, size: 'max' }),
        async (changes, probes) => {
          await using db = await openStore({ embed: () => [] })
          const records = Array.from({ length: 6 }, newId)
          // Asked in between, so that the index has something to forget.
          for (const [i, change] of changes.entries()) {
            apply(db, records, change)
            const asked = i % 7 === 0 ? probes.slice(0, 1) : []
            for (const probe of asked) expect(await faults(db, probe)).toEqual([])
          }
          for (const probe of probes) expect(await faults(db, probe)).toEqual([])
        },
      ),
      { numRuns: 60 },
    )
  })

  test('goes on past any number of expired records that are nearer', async () => {
    await using db = await openStore({ embed: () => [] })
    const put = (vector: Float32Array, expires: number | null): StoredMemoryItem =>
      add(db, [newId()], {
        record: 0,
        polarity: 'success',
        model: MODEL,
        query: vector,
        text: null,
        expires,
      })
    db.transaction(() => {
      for (let i = 0; i < 700; i++) put(Float32Array.of(1, i / 1e5, 0), 2)
    })
    const alive = put(Float32Array.of(0, 0, 1), null)
    const options = { embedding: Float32Array.of(1, 0, 0), count: false }
    const found = await db.memory.retrieve({ ...options, at: dayOf(2) })
    expect(found.map(({ id }) => id)).toEqual([alive.id])
    expect(await db.memory.retrieve({ ...options, at: dayOf(1), k: 9, maxItems: 9 })).toHaveLength(
      9,
    )
  })

  test('forgets what was deleted, superseded or embedded anew, however much it was', async () => {
    await using db = await openStore({ embed: () => [] })
    const put = (vector: Float32Array): StoredMemoryItem =>
      add(db, [newId()], {
        record: 0,
        polarity: 'success',
        model: MODEL,
        query: vector,
        text: null,
        expires: null,
      })
    const near = Array.from({ length: 90 }, (_, i) => put(Float32Array.of(1, i / 1e5, 0)))
    const far = put(Float32Array.of(0, 0, 1))
    const options = { embedding: Float32Array.of(1, 0, 0), count: false }
    expect(await db.memory.retrieve(options)).toMatchObject([{ id: near[0]?.id }])
    for (const [i, { id }] of near.entries()) {
      if (i % 3 === 0) db.memory.items.delete(id)
      if (i % 3 === 1) db.memory.items.update(id, { superseded_by: far.id })
      if (i % 3 === 2) db.memory.items.update(id, { query_vector: Float32Array.of(-1, 0, 0) })
    }
    expect(await db.memory.retrieve(options)).toMatchObject([{ id: far.id }])
  })

  test('gives one record and three items unless asked for more, cut from the end', async () => {
    await using db = await openStore()
    const item = { description: 'd', content: 'c' }
    const titles = ['a', 'b', 'c', 'd', 'e']
    await db.memory.append({
      query: 'book a flight to Rome',
      polarity: 'contrast',
      items: titles.map((title) => ({ title, ...item })),
    })
    await db.memory.append({
      query: 'book a flight',
      polarity: 'success',
      items: [{ title: 'z', ...item }],
    })
    const query = 'book a flight to Rome'
    const titlesOf = async (options: Partial<RetrieveOptions>): Promise<string[]> =>
      (await db.memory.retrieve({ query, ...options })).map(({ title }) => title)
    expect(await titlesOf({})).toEqual(['a', 'b', 'c'])
    expect(await titlesOf({ k: 2 })).toEqual(['a', 'b', 'c'])
    expect(await titlesOf({ k: 2, maxItems: 50 })).toEqual([...titles, 'z'])
    expect(await titlesOf({ polarity: 'success' })).toEqual(['z'])
  })

  test('by text, gives the items that match first, each with a score of its own', async () => {
    await using db = await openStore()
    const append = (...titles: string[]): Promise<unknown> =>
      db.memory.append({
        query: 'book a flight',
        polarity: 'success',
        items: titles.map((title) => ({ title, description: title, content: title })),
      })
    await append('read pages', 'sort columns', 'close dialogs', 'wait longer', 'compare prices')
    await append('compare currencies')
    const retrieve = (options: Partial<RetrieveOptions>): Promise<RetrievedItem[]> =>
      db.memory.retrieve({ query: 'compare prices', by: 'text', ...options })
    const titles = (items: readonly RetrievedItem[]): string[] => items.map(({ title }) => title)
    const found = await retrieve({})
    expect(found).toHaveLength(3)
    expect(found[0]?.title).toBe('compare prices')
    expect(found[0]?.score).toBeGreaterThan(0.9)
    expect(found[1]?.score).toBeLessThan(0.5)
    expect(titles(await retrieve({ k: 2, maxItems: 2 }))).toEqual([
      'compare prices',
      'compare currencies',
    ])
    expect(titles(await retrieve({ minScore: 0.9, maxItems: 50 }))).toEqual(['compare prices'])
  })

  test('lets others run while it reads many items for the first time', async () => {
    await using db = await openStore({ embed: () => [] })
    const shared = { record: 0, polarity: 'success', model: MODEL, expires: null } as const
    db.transaction(() => {
      for (let i = 0; i < 1000; i++)
        add(db, [newId()], { ...shared, query: Float32Array.of(1, i / 1e5, 0), text: null })
    })
    const progress = { turns: 0, isOver: false }
    const others = (async (): Promise<void> => {
      for (; !progress.isOver; progress.turns++) await setImmediate()
    })()
    const options = { embedding: Float32Array.of(1, 0, 0), count: false, maxItems: 5, k: 5 }
    expect(await db.memory.retrieve(options)).toHaveLength(5)
    progress.isOver = true
    // Between four slices.
    expect(progress.turns).toBeGreaterThan(2)
    await others
  })

  test('embeds the instruction with the query, as models that take one want it', async () => {
    const asked: string[] = []
    await using db = await openStore({
      embed: (texts) => {
        asked.push(...texts)
        return texts.map(() => Float32Array.of(1))
      },
    })
    await db.memory.retrieve({ query: 'x', instruction: 'find alike' })
    expect(asked).toEqual(['Instruct: find alike\nQuery: x'])
  })

  test('never compares vectors of two models, also of one dimension', async () => {
    await using db = await openStore({ embed: () => [Float32Array.of(1, 0, 0)] })
    const shared = { record: 0, polarity: 'success', text: null, expires: null } as const
    const query = Float32Array.of(1, 0, 0)
    add(db, [newId()], { ...shared, model: 'other', query })
    expect(await db.memory.retrieve({ query: 'x' })).toEqual([])
    expect(await db.memory.retrieve({ embedding: query })).toEqual([])
    expect(await db.memory.retrieve({ embedding: query, model: 'other' })).toHaveLength(1)
  })

  test('sees what another process writes to the same file', async () => {
    using folder = scratchFolder()
    const path = folder.file('store.db')
    await using first = await openStore({ path })
    await using second = await openStore({ path })
    expect(await second.memory.retrieve({ query: 'q' })).toEqual([])
    const items = [{ title: 't', description: 'd', content: 'c' }]
    const [item] = await first.memory.append({ query: 'q', polarity: 'success', items })
    expect(await second.memory.retrieve({ query: 'q' })).toMatchObject([{ id: item?.id }])
    first.memory.items.delete(item?.id ?? '')
    expect(await second.memory.retrieve({ query: 'q' })).toEqual([])
  })

  test('knows no item that went so long ago that its change is forgotten', async () => {
    using folder = scratchFolder()
    const path = folder.file('store.db')
    await using first = await openStore({ path })
    await using second = await openStore({ path })
    const shared = {
      record: 0,
      polarity: 'success',
      model: MODEL,
      text: null,
      expires: null,
    } as const
    const query = Float32Array.of(1, 0, 0)
    const ids = Array.from({ length: 8 }, () => add(first, [newId()], { ...shared, query }).id)
    const index = new MemoryIndex(connectionOf(second), 'query_vector')
    const known = (): string[] => {
      index.follow()
      return index
        .nearest({ model: MODEL, polarity: undefined }, query, 10)
        .flatMap(({ itemIds }) => [...itemIds])
        .toSorted()
    }
    expect(known()).toEqual(ids.toSorted())
    for (const id of ids.slice(0, 3)) first.memory.items.delete(id)
    connectionOf(first).run(
      'UPDATE memory_changes SET seq = seq + 200000 WHERE seq = (SELECT max(seq) FROM memory_changes)',
    )
    for (const id of ids.slice(3, 6)) first.memory.items.delete(id)
    const sums = connectionOf(first).get('SELECT sum(gone) AS gone FROM memory_changes')
    expect(sums).toEqual({ gone: 4 })
    expect(known()).toEqual(ids.slice(6).toSorted())
  })

  test.each(['query_vector', 'text_vector'])(
    'finds the others where SQL wrote what is no %s',
    async (column) => {
      await using db = await openStore()
      const append = async (title: string): Promise<string> => {
        const items = [{ title, description: 'd', content: 'c' }]
        const [item] = await db.memory.append({ query: 'q', polarity: 'success', items })
        return item?.id ?? ''
      }
      const [bad, good] = [await append('bad'), await append('good')]
      connectionOf(db).run(
        `UPDATE memory_items SET ${column} = CAST(x'0000c07f' || substr(${column}, 5) AS BLOB) WHERE id = ?`,
        bad,
      )
      const by = column === 'query_vector' ? 'task' : 'text'
      expect(await db.memory.retrieve({ query: 'q', by })).toMatchObject([{ id: good }])
    },
  )

  test.each<[Record<string, unknown>, string]>([
    [{}, 'query or embedding'],
    [{ query: 'a', embedding: Float32Array.of(1) }, 'one of them'],
    [{ query: 7 }, 'query must be a string'],
    [{ embedding: Float32Array.of(Number.NaN) }, 'not finite'],
    [{ embedding: Float32Array.of(0, 0) }, 'no direction'],
    [{ embedding: [1] }, 'not a Float32Array'],
    [{ query: 'a', model: 'm' }, 'model is that of embedding'],
    [{ query: 'a', k: 0 }, 'k must be 1 to 100, got 0'],
    [{ query: 'a', k: 1.5 }, 'k must be'],
    [{ query: 'a', maxItems: 501 }, 'maxItems must be'],
    [{ query: 'a', polarity: 'both' }, 'polarity must be one of'],
    [{ query: 'a', by: 'title' }, 'by must be task or text'],
    [{ query: 'a', at: 'tomorrow' }, 'at is not an ISO-8601 time'],
    [{ query: 'a', minScore: Number.NaN }, 'minScore must be a number'],
    [{ query: 'a', count: 1 }, 'count must be true or false'],
    [{ query: 'a', limit: 3 }, 'no option "limit"'],
  ])('refuses %j', async (options, says) => {
    await using db = await openStore()
    const error = await rejectionOf(db.memory.retrieve(options))
    expect(error.code).toBe('INVALID_OPTION')
    expect(error.message).toContain(says)
  })
})
