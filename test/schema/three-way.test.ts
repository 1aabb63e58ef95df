import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Stored } from '../../schema/codec.ts'
import type { Json } from '../../schema/define.ts'
import { mergeCounter } from '../../schema/three-way/counter.ts'
import { mergeGreatest } from '../../schema/three-way/greatest.ts'
import { mergeJson } from '../../schema/three-way/json.ts'
import { mergeSet } from '../../schema/three-way/set.ts'
import { threeWayOf, type ThreeWay } from '../../schema/three-way/three-way.ts'
import { canonicalJson } from '../../schema/values/canonical-json.ts'
import { PLACEHOLDER_JSON } from '../../schema/values/placeholder.ts'

const number = fc.option(fc.integer({ min: -50, max: 50 }))
const element = fc.constantFrom('a', 'b', 'c', null, '__proto__', '"', 'é')
const arrayText = fc.option(fc.array(element, { maxLength: 6 }).map((list) => JSON.stringify(list)))
const leaf = fc.constantFrom<Json>(1, 2, 'x', null, [1], [2], true)
const key = fc.constantFrom('a', 'b', '__proto__', 'constructor')
const object = fc.letrec<{ value: Json; object: Json }>((tie) => ({
  value: fc.oneof({ maxDepth: 3 }, leaf, tie('object')),
  object: fc
    .array(fc.tuple(key, tie('value')), { maxLength: 3 })
    .map((entries) => Object.fromEntries(entries) as Json),
})).object
const jsonText = fc.option(fc.oneof(object, leaf).map((value) => canonicalJson(value)))

const mergeMine: ThreeWay = (before, mine, theirs) => mergeJson(before, mine, theirs, 'mine').merged
const mergeTheirs: ThreeWay = (before, mine, theirs) =>
  mergeJson(before, mine, theirs, 'theirs').merged

const policies: readonly [string, ThreeWay, fc.Arbitrary<Stored>][] = [
  ['counter', mergeCounter, number],
  ['max', mergeGreatest, number],
  ['set', mergeSet, arrayText],
  ['merge, mine wins', mergeMine, jsonText],
  ['merge, theirs wins', mergeTheirs, jsonText],
]

const asSet = (stored: Stored): unknown =>
  stored === null ? null : new Set(JSON.parse(String(stored)) as unknown[])

describe.each(policies)('%s', (_, threeWay, value) => {
  test('is what was written where nobody else changed it', () => {
    fc.assert(
      fc.property(value, value, (before, mine) => {
        expect(threeWay(before, mine, before)).toBe(mine)
      }),
    )
  })

  test('is what the others wrote where the writer changed nothing', () => {
    fc.assert(
      fc.property(value, value, (before, theirs) => {
        expect(threeWay(before, before, theirs)).toBe(theirs)
      }),
    )
  })

  test('a change that came out as it was is carried over to nothing else', () => {
    fc.assert(
      fc.property(value, value, value, (before, mine, theirs) => {
        const merged = threeWay(before, mine, theirs)
        // The next change of the same writer, made before it saw the merge.
        expect(threeWay(mine, mine, merged)).toBe(merged)
      }),
    )
  })
})

describe.each(policies.slice(1))('%s', (_, threeWay, value) => {
  test('taken in twice is as taken in once', () => {
    fc.assert(
      fc.property(value, value, value, (before, mine, theirs) => {
        fc.pre(mine !== before && theirs !== before)
        const once = threeWay(before, mine, theirs)
        expect(threeWay(before, mine, once)).toBe(once)
      }),
    )
  })
})

describe('in every order of arrival', () => {
  const orders = <T>(list: readonly T[]): T[][] =>
    list.length < 2
      ? [[...list]]
      : list.flatMap((one, i) => orders(list.toSpliced(i, 1)).map((rest) => [one, ...rest]))

  const commuting: readonly (readonly [
    string,
    ThreeWay,
    fc.Arbitrary<Stored>,
    (stored: Stored) => unknown,
  ])[] = [
    ['a counter', mergeCounter, fc.integer({ min: -50, max: 50 }), (stored) => stored],
    ['a set', mergeSet, arrayText, asSet],
  ]

  test.each(commuting)('%s of several writers ends the same', (_, threeWay, value, read) => {
    fc.assert(
      fc.property(
        value,
        fc.array(value, { minLength: 2, maxLength: 4 }),
        (before, writes: Stored[]) => {
          const ends = orders(writes.filter((mine) => read(mine) !== read(before))).map((order) =>
            read(order.reduce<Stored>((now, mine) => threeWay(before, mine, now), before)),
          )
          for (const end of ends) expect(end).toEqual(ends[0])
        },
      ),
    )
  })

  test('a value that only grows ends as the greatest', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 9 }),
        fc.array(fc.integer({ min: 10, max: 50 }), { minLength: 1, maxLength: 4 }),
        (before, writes) => {
          for (const order of orders(writes)) {
            const end = order.reduce<Stored>(
              (now, mine) => mergeGreatest(before, mine, now),
              before,
            )
            expect(end).toBe(Math.max(...writes))
          }
        },
      ),
    )
  })

  test('JSON of writers that changed different keys ends the same', () => {
    fc.assert(
      fc.property(object, leaf, leaf, (before, one, two) => {
        const base = before as Record<string, Json>
        const texts = [base, { ...base, one }, { ...base, two }].map((value) =>
          canonicalJson(value),
        )
        const [b = '', a1 = '', a2 = ''] = texts
        const both = canonicalJson({ ...base, one, two })
        expect(mergeJson(b, a2, a1, 'mine')).toEqual({ merged: both, contested: undefined })
        expect(mergeJson(b, a1, a2, 'theirs')).toEqual({ merged: both, contested: undefined })
      }),
    )
  })

  test('a client counts its pending changes on top of the others as the centre does', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: -9, max: 9 }),
        fc.array(fc.integer({ min: -9, max: 9 }), { maxLength: 5 }),
        fc.integer({ min: -9, max: 9 }),
        (start, steps, theirs) => {
          const values = steps.reduce<number[]>(
            (all, step) => [...all, (all.at(-1) ?? 0) + step],
            [start],
          )
          const end = values.reduce<Stored>(
            (now, mine, i) => mergeCounter(values[i - 1] ?? start, mine, now),
            start + theirs,
          )
          expect(end).toBe(start + theirs + steps.reduce((sum, step) => sum + step, 0))
        },
      ),
    )
  })
})

describe('a counter', () => {
  test.each([
    [5, 8, 10, 13],
    [5, 2, 10, 7],
    [null, 3, 4, 7],
    [5, null, 5, null],
    [5, null, 7, 2],
    [0, null, 3, 3],
  ])('that was %s, became %s and is now %s ends as %s', (before, mine, theirs, end) => {
    expect(mergeCounter(before, mine, theirs)).toBe(end)
  })
})

describe('a set', () => {
  test('keeps the order that it has, and puts additions behind', () => {
    const merged = mergeSet('["a","b"]', '["x","b","c"]', '["a","d","b"]')
    expect(merged).toBe('["d","b","x","c"]')
  })

  test.each([
    ['["a"]', '["a","a"]', '["a","b"]', '["a","b"]'],
    ['["a"]', null, '["a","b"]', '["b"]'],
    ['["a"]', null, '[]', null],
    ['["a"]', '[]', null, null],
    [null, '["a"]', '["a"]', '["a"]'],
    ['[1]', '[1,2]', '[1,3]', '[1,3,2]'],
    ['[]', '[null]', '["null"]', '["null",null]'],
  ])('%s that became %s and is now %s ends as %s', (before, mine, theirs, end) => {
    expect(mergeSet(before, mine, theirs)).toBe(end)
  })
})

describe('JSON', () => {
  const merge = (before: Json, mine: Json, theirs: Json, winner: 'mine' | 'theirs' = 'mine') => {
    const { merged, contested } = mergeJson(
      canonicalJson(before),
      canonicalJson(mine),
      canonicalJson(theirs),
      winner,
    )
    const read = (stored: Stored): unknown => JSON.parse(String(stored))
    return {
      merged: read(merged),
      contested: contested && { mine: read(contested.mine), theirs: read(contested.theirs) },
    }
  }

  test('merges nested objects, additions and removals of either side', () => {
    expect(
      merge(
        { a: 1, gone: 1, deep: { x: 1, y: 1 } },
        { a: 2, deep: { x: 2, y: 1 }, mine: 1 },
        { a: 1, gone: 1, deep: { x: 1, y: 2 }, theirs: [1] },
      ),
    ).toEqual({
      merged: { a: 2, deep: { x: 2, y: 2 }, mine: 1, theirs: [1] },
      contested: undefined,
    })
  })

  test('names what both changed by its path, and nothing else', () => {
    const before = { deep: { x: 1, y: 1 }, list: [1], kept: 1 }
    const mine = { deep: { x: 2, y: 2 }, list: [1, 2], kept: 1 }
    const theirs = { deep: { x: 3, y: 1 }, kept: 1 }
    const contested = { mine: { deep: { x: 2 }, list: [1, 2] }, theirs: { deep: { x: 3 } } }
    expect(merge(before, mine, theirs)).toEqual({
      merged: { deep: { x: 2, y: 2 }, list: [1, 2], kept: 1 },
      contested,
    })
    expect(merge(before, mine, theirs, 'theirs')).toEqual({
      merged: { deep: { x: 3, y: 2 }, kept: 1 },
      contested,
    })
  })

  test('the same change of both is no conflict, whatever order its keys came in', () => {
    expect(merge({}, { a: { x: 1, y: [2] } }, { a: { y: [2], x: 1 }, b: 1 })).toEqual({
      merged: { a: { x: 1, y: [2] }, b: 1 },
      contested: undefined,
    })
  })

  test('a value that is no object is contested whole', () => {
    expect(mergeJson('{"a":1}', null, '[1]', 'theirs')).toEqual({
      merged: '[1]',
      contested: { mine: null, theirs: '[1]' },
    })
  })

  test('what stands for a value that is not known here has no keys to merge', () => {
    expect(mergeJson('{}', '{"a":1}', PLACEHOLDER_JSON, 'mine')).toEqual({
      merged: '{"a":1}',
      contested: { mine: '{"a":1}', theirs: PLACEHOLDER_JSON },
    })
  })

  test('whoever wins, every contested leaf is named, and the two results differ in those only', () => {
    fc.assert(
      fc.property(object, object, object, (before, mine, theirs) => {
        const won = merge(before, mine, theirs)
        const lost = merge(before, mine, theirs, 'theirs')
        expect(won.contested).toEqual(lost.contested)
        const isSame = canonicalJson(won.merged) === canonicalJson(lost.merged)
        expect(isSame).toBe(won.contested === undefined)
      }),
    )
  })
})

test('policies that choose between two values carry nothing over', () => {
  expect(threeWayOf('lww')).toBeUndefined()
  expect(threeWayOf('reject')).toBeUndefined()
})
