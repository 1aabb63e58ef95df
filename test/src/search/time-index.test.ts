import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { TimeIndex } from '../../../src/search/time-index.ts'

const time = fc.oneof(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 0, max: 1000 }))
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ set: fc.nat(60), time }) },
  { weight: 1, arbitrary: fc.record({ delete: fc.nat(60) }) },
  // More than are looked at one by one, so that all are sorted.
  { weight: 1, arbitrary: fc.record({ many: fc.integer({ min: 501, max: 600 }), time }) },
  { weight: 2, arbitrary: fc.record({ from: time, to: time }) },
)

test('rows between two moments are those that a look at each finds', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const index = new TimeIndex()
      const times = new Map<string, number>()
      const set = (id: string, at: number): void => {
        index.set(id, at)
        times.set(id, at)
      }
      for (const one of steps) {
        if ('set' in one) set(`${one.set}`, one.time)
        else if ('many' in one) for (let i = 0; i < one.many; i++) set(`m${i}`, one.time + i)
        else if ('delete' in one) {
          index.delete(`${one.delete}`)
          times.delete(`${one.delete}`)
        } else {
          const { from, to } = one
          const wanted = [...times].filter(([, at]) => at >= from && at < to).map(([id]) => id)
          const found = index.between(from, to)
          expect([...new Set(found)].toSorted()).toEqual(wanted.toSorted())
          expect(found.size).toBeGreaterThanOrEqual(wanted.length)
          for (const id of times.keys()) expect(found.has(id)).toBe(wanted.includes(id))
        }
      }
    }),
    { numRuns: 200 },
  )
})
