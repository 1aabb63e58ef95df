import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Polarity } from '../../schema/tables/memory.ts'
import { newId } from '../../schema/values/id.ts'
import { timestampOfMicros } from '../../schema/values/timestamp.ts'
import type { AgentDB, Relation, StoredMemoryItem } from '../../src/index.ts'
import { usefulness } from '../../src/memory/prune.ts'
import { openStore, rejectionOf, errorOf } from '../support/store.ts'

const DAY = 86_400_000_000
let db: AgentDB
let now: number
beforeEach(async () => {
  now = Date.parse('2026-03-01T00:00:00Z') * 1000
  db = await openStore({ clock: () => now, embed: () => [] })
})
afterEach(() => db.close())

interface Given {
  readonly words: string
  readonly vector: readonly number[]
  readonly polarity?: Polarity
  readonly task?: string | null
  readonly template?: string | null
  readonly trajectories?: readonly string[]
  readonly madeDay?: number
  readonly expiresDay?: number | null
  readonly usedDay?: number | null
  readonly used?: number
  readonly helped?: number
  readonly hurt?: number
}

const day = (number: number): string => timestampOfMicros(now + number * DAY)

/** An item as it stands after some time of use. */
function put(own: AgentDB, given: Given): StoredMemoryItem {
  const { words, vector, polarity = 'success', task = null, template = null } = given
  const { madeDay = -200, expiresDay = null, usedDay = null } = given
  return own.memory.items.create({
    record_id: newId(),
    polarity,
    task_id: task,
    template_id: template,
    trajectory_ids: given.trajectories,
    title: words,
    description: words,
    content: words,
    source_query: 'q',
    model: 'custom',
    dimension: vector.length,
    query_vector: Float32Array.from(vector),
    text_vector: Float32Array.from(vector),
    created_at: day(madeDay),
    expires_at: expiresDay === null ? null : day(expiresDay),
    last_used_at: usedDay === null ? null : day(usedDay),
    used_count: given.used ?? 0,
    helped_count: given.helped ?? 0,
    hurt_count: given.hurt ?? 0,
  })
}

const word = fc.constantFrom('page', 'list', 'sort', 'date', 'login', 'cart', 'search', 'map')
const anItem = fc.record({
  words: fc.array(word, { maxLength: 5 }).map((words) => words.join(' ')),
  vector: fc
    .tuple(fc.integer({ min: -2, max: 2 }), fc.integer({ min: 1, max: 2 }))
    .map((components): readonly number[] => components),
  polarity: fc.constantFrom<Polarity>('success', 'failure', 'contrast'),
  madeDay: fc.integer({ min: -300, max: 0 }),
  expiresDay: fc.option(fc.integer({ min: -10, max: 10 })),
})

function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array): number =>
    x.reduce((sum, component, i) => sum + component * (y[i] ?? 0), 0)
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b))
}

function overlap(a: StoredMemoryItem, b: StoredMemoryItem): number {
  const wordsOf = ({ title }: StoredMemoryItem): Set<string> => new Set(title.split(' '))
  const both = [...wordsOf(a)].filter((each) => wordsOf(b).has(each)).length
  return both / new Set([...wordsOf(a), ...wordsOf(b)]).size
}

const byAge = (a: StoredMemoryItem, b: StoredMemoryItem): number =>
  a.created_at === b.created_at ? (a.id < b.id ? -1 : 1) : a.created_at < b.created_at ? -1 : 1

/** Every pair, oldest first, without the shortcuts. */
function reference(items: readonly StoredMemoryItem[], at: string, minCosine: number, min: number) {
  const staying: StoredMemoryItem[] = []
  const merged = new Set<string>()
  const linked = new Set<string>()
  const live = items.filter(({ expires_at: expires }) => expires === null || expires > at)
  for (const item of live.toSorted(byAge)) {
    const alike = staying.filter(
      (older) =>
        overlap(item, older) >= min &&
        cosine(item.text_vector ?? item.query_vector, older.query_vector) >= minCosine,
    )
    if (alike.some(({ polarity }) => polarity === item.polarity)) {
      merged.add(item.id)
      continue
    }
    for (const older of alike) {
      if (item.polarity !== 'contrast' && older.polarity !== 'contrast')
        linked.add(`${item.id} ${older.id}`)
    }
    staying.push(item)
  }
  return { merged, linked }
}

describe('consolidation', () => {
  test('merges and links what a comparison of all pairs does, once, and can be taken back', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(anItem, { maxLength: 20 }),
        // Off the values that a grid of such vectors and words has: no rounding decides.
        fc.constantFrom(0.31, 0.77, 0.93),
        fc.constantFrom(0, 0.3, 0.55, 0.9),
        async (given, minCosine, minOverlap) => {
          await using own = await openStore({ clock: () => now, embed: () => [] })
          const made = given.map((each) => put(own, each))
          const options = { minCosine, minOverlap }
          const wanted = reference(made, day(0), minCosine, minOverlap)
          const told = await own.memory.consolidate({ ...options, dryRun: true })
          expect(own.memory.items.list().every((item) => item.superseded_by === null)).toBe(true)
          const done = await own.memory.consolidate(options)
          expect(done).toEqual(told)
          expect(new Set(done.merged.map(({ id }) => id))).toEqual(wanted.merged)
          expect(new Set(done.linked.map((link) => `${link.id} ${link.contradicts}`))).toEqual(
            wanted.linked,
          )
          const rows = new Map(own.memory.items.list().map((row) => [row.id, row]))
          for (const { id, into } of done.merged) {
            const [item, older] = [rows.get(id), rows.get(into)]
            if (item === undefined || older === undefined) throw new Error('an item is gone')
            expect(item.superseded_by).toBe(into)
            expect(older.superseded_by).toBeNull()
            expect(byAge(older, item)).toBe(-1)
          }
          expect(await own.memory.consolidate(options)).toEqual({ merged: [], linked: [] })

          for (const { id } of done.merged) own.memory.restore(id)
          const words = ({ id, title, content, superseded_by }: StoredMemoryItem): unknown => ({
            id,
            title,
            content,
            superseded_by,
          })
          expect(own.memory.items.list().map(words)).toEqual(
            expect.arrayContaining(made.map(words)),
          )
          // Nobody wants to take the same merge back twice.
          const again = await own.memory.consolidate(options)
          for (const { id, into } of done.merged)
            expect(again.merged).not.toContainEqual({ id, into })
        },
      ),
      { numRuns: 80 },
    )
  })

  test('a merged item is not retrieved, its lesson is, and both can be traced', async () => {
    const first = put(db, { words: 'sort by date', vector: [1, 0], madeDay: -3 })
    const second = put(db, { words: 'sort by date', vector: [1, 0], madeDay: -2 })
    await db.memory.consolidate()
    const options = { embedding: Float32Array.of(1, 0), k: 9, count: false }
    expect((await db.memory.retrieve(options)).map(({ id }) => id)).toEqual([first.id])
    expect(db.memory.trace(first.id).supersedes).toMatchObject([{ id: second.id }])
    db.memory.restore(second.id)
    expect(await db.memory.retrieve(options)).toHaveLength(2)
  })

  test('asks about pairs that look alike, and believes the answer', async () => {
    const older = put(db, { words: 'scroll to the end', vector: [1, 0], madeDay: -9 })
    const newer = put(db, { words: 'never scroll to the end', vector: [1, 0.1], madeDay: 0 })
    put(db, { words: 'something else', vector: [0, 1] })
    const asked: string[][] = []
    const answer = (relation: Relation) =>
      db.memory.consolidate({
        relate: async (a, b) => {
          asked.push([a.title, b.title])
          return relation
        },
      })
    expect(await answer('different')).toEqual({ merged: [], linked: [] })
    expect(asked).toEqual([['never scroll to the end', 'scroll to the end']])
    const link = { id: newer.id, contradicts: older.id }
    expect(await answer('contradicts')).toEqual({ merged: [], linked: [link] })
    expect(db.memory.items.find(newer.id)).toMatchObject({
      contradicts: [older.id],
      superseded_by: null,
    })
    // What is known to contradict is not asked about again.
    expect(await answer('same')).toEqual({ merged: [], linked: [] })
    expect(asked).toHaveLength(2)
  })

  test.each([
    ['throws', () => Promise.reject(new Error('429'))],
    ['gives nonsense', () => 'maybe' as Relation],
  ])('writes nothing when relate %s', async (_, relate) => {
    put(db, { words: 'a b', vector: [1, 0], madeDay: -9 })
    put(db, { words: 'a b', vector: [1, 0], madeDay: -8 })
    put(db, { words: 'a b c', vector: [1, 0], madeDay: -7 })
    let calls = 0
    const error = await rejectionOf(
      db.memory.consolidate({ relate: () => (++calls === 1 ? 'same' : relate()) }),
    )
    expect(error.code).toBe('CALLBACK_FAILED')
    expect(db.memory.items.list({ where: { superseded_by: null } })).toHaveLength(3)
  })

  test('leaves alone what was deleted or merged while it asked', async () => {
    const older = put(db, { words: 'a b', vector: [1, 0], madeDay: -9 })
    const newer = put(db, { words: 'a b', vector: [1, 0], madeDay: -8 })
    await db.memory.consolidate({
      relate: () => {
        db.memory.items.delete(older.id)
        return 'same'
      },
    })
    expect(db.memory.items.find(newer.id)?.superseded_by).toBeNull()
  })
})

const hasExpired = ({ expires_at: at }: StoredMemoryItem): boolean => at !== null && at <= day(0)
const wasUsed = ({ last_used_at: at }: StoredMemoryItem, days: number): boolean =>
  at !== null && at >= day(-days)
const groupOf = ({ template_id, task_id, source_query }: StoredMemoryItem): string =>
  JSON.stringify(template_id ?? [task_id ?? [source_query]])

/** The rules of pruning once more, one after the other. */
function whatGoes(
  items: readonly StoredMemoryItem[],
  rules: { keepDays: number; cap: number | null; min: number | null; halfLifeMs: number },
): Map<string, string> {
  const going = new Map<string, string>()
  const worth = (item: StoredMemoryItem): number => usefulness(item, day(0), rules.halfLifeMs)
  const isIdle = (item: StoredMemoryItem): boolean => !wasUsed(item, rules.keepDays)
  for (const item of items) {
    if (hasExpired(item)) going.set(item.id, 'expired')
    else if (rules.min !== null && isIdle(item) && worth(item) < rules.min)
      going.set(item.id, 'decayed')
  }
  const live = items.filter(({ id, superseded_by: by }) => by === null && !going.has(id))
  for (const item of live) {
    // Of equals the newer stays.
    const better = live.filter(
      (other) =>
        other.id !== item.id &&
        groupOf(other) === groupOf(item) &&
        (worth(other) > worth(item) || (worth(other) === worth(item) && byAge(other, item) > 0)),
    )
    if (rules.cap !== null && better.length >= rules.cap && isIdle(item))
      going.set(item.id, 'over-cap')
  }
  let known = -1
  while (known !== going.size) {
    known = going.size
    for (const { id, superseded_by: by, ...item } of items)
      if (
        by !== null &&
        going.has(by) &&
        !going.has(id) &&
        isIdle({ ...item, id, superseded_by: by })
      )
        going.set(id, 'merged')
  }
  return going
}

describe('pruning', () => {
  const usage = (used: number, helped: number, hurt: number, usedDay: number | null) => ({
    created_at: day(-60),
    last_used_at: usedDay === null ? null : day(usedDay),
    used_count: used,
    helped_count: helped,
    hurt_count: hurt,
  })

  test('an item’s usefulness counts what it did and halves with time', () => {
    const monthMs = (30 * DAY) / 1000
    expect(usefulness(usage(0, 0, 0, null), day(-60), monthMs)).toBe(1)
    expect(usefulness(usage(0, 0, 0, null), day(0), monthMs)).toBe(0.25)
    expect(usefulness(usage(2, 1, 0, 0), day(0), monthMs)).toBe(5)
    expect(usefulness(usage(1, 0, 1, 0), day(0), monthMs)).toBe(0)
    expect(usefulness(usage(0, 0, 5, 0), day(0), monthMs)).toBe(0)
  })

  const anUsedItem = fc.record({
    words: fc.constant('w'),
    vector: fc.constant([1]),
    task: fc.option(fc.constantFrom('t1', 't2')),
    template: fc.option(fc.constantFrom('k1', 'k2')),
    madeDay: fc.integer({ min: -300, max: 0 }),
    expiresDay: fc.option(fc.integer({ min: -20, max: 20 })),
    usedDay: fc.option(fc.integer({ min: -100, max: 0 })),
    used: fc.nat(4),
    helped: fc.nat(4),
    hurt: fc.nat(4),
  })

  test('never removes what was used lately and has not expired; what it removes has a reason', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(anUsedItem, { maxLength: 24 }),
        fc.integer({ min: 1, max: 60 }),
        fc.option(fc.integer({ min: 1, max: 4 })),
        fc.option(fc.constantFrom(0.1, 1, 3)),
        fc.array(fc.tuple(fc.nat(23), fc.nat(23)), { maxLength: 6 }),
        async (given, keepDays, cap, min, merges) => {
          await using own = await openStore({ clock: () => now, embed: () => [] })
          const made = given.map((each) => put(own, each))
          for (const [a, b] of merges) {
            const [older, newer] = [made[Math.min(a, b)], made[Math.max(a, b)]]
            if (older !== undefined && newer !== undefined && a !== b)
              own.memory.items.update(newer.id, { superseded_by: older.id })
          }
          const before = own.memory.items.list()
          const halfLifeMs = (30 * DAY) / 1000
          const options = {
            keepUsedMs: (keepDays * DAY) / 1000,
            ...(cap === null ? {} : { capPerTask: cap }),
            ...(min === null ? {} : { decay: { halfLifeMs, min } }),
          }
          const told = own.memory.prune({ ...options, dryRun: true })
          expect(own.memory.items.list()).toEqual(before)
          const done = own.memory.prune(options)
          expect(done).toEqual(told)
          const rows = own.memory.items.list()
          const wanted = whatGoes(before, { keepDays, cap, min, halfLifeMs })
          expect(new Map(done.items.map(({ id, reason }) => [id, reason]))).toEqual(wanted)
          const idsOf = (items: readonly StoredMemoryItem[]): string[] =>
            items.map(({ id }) => id).toSorted()
          expect(idsOf(rows)).toEqual(idsOf(before.filter(({ id }) => !wanted.has(id))))
          const inUse = before.filter((item) => !hasExpired(item) && wasUsed(item, keepDays))
          expect(idsOf(rows)).toEqual(expect.arrayContaining(idsOf(inUse)))
          // Nothing comes back as a lesson of its own because what superseded it was pruned, unless it is in use.
          const isSuperseded = new Map(before.map((item) => [item.id, item.superseded_by !== null]))
          const back = rows.filter(
            (item) => item.superseded_by === null && isSuperseded.get(item.id),
          )
          expect(back.filter((item) => !wasUsed(item, keepDays))).toEqual([])
          const again = own.memory.prune({ ...options, dryRun: true }).items
          expect(back.length > 0 || again.length === 0).toBe(true)
        },
      ),
      { numRuns: 80 },
    )
  })

  test('removes expired trajectories; their items stay and say that they are gone', async () => {
    const input = { taskId: '1', query: 'q', steps: [] }
    const old = db.memory.recordTrajectory({ ...input, expiresAt: day(1) })
    const kept = db.memory.recordTrajectory(input)
    const item = put(db, { words: 'w', vector: [1], trajectories: [old.id] })
    now += DAY
    const told = db.memory.prune({ dryRun: true })
    expect(told).toEqual({ items: [], trajectories: [{ id: old.id, reason: 'expired' }] })
    expect(db.memory.prune()).toEqual(told)
    expect(db.memory.trajectories.list().map(({ id }) => id)).toEqual([kept.id])
    expect(db.memory.trace(item.id).missing).toEqual([old.id])
  })

  test('of thousands deletes all, in slices', () => {
    db.transaction(() => {
      for (let i = 0; i < 2100; i++) put(db, { words: 'w', vector: [1], expiresDay: -1 })
    })
    expect(db.memory.prune().items).toHaveLength(2100)
    expect(db.memory.items.list()).toEqual([])
  })

  test.each([
    [{ capPerTask: 0 }, 'capPerTask must be 1'],
    [{ capPerTask: 1.5 }, 'capPerTask must be'],
    [{ keepUsedMs: -1 }, 'keepUsedMs must be'],
    [{ decay: { halfLifeMs: 0, min: 1 } }, 'decay.halfLifeMs must be'],
    [{ decay: { min: 1 } }, 'decay needs halfLifeMs and min'],
    [{ at: 'soon' }, 'at is not an ISO-8601 time'],
    [{ cap: 3 }, 'no option "cap"'],
  ])('refuses %j', (options, says) => {
    const error = errorOf(() => db.memory.prune(options as never))
    expect(error.code).toBe('INVALID_OPTION')
    expect(error.message).toContain(says)
  })
})
