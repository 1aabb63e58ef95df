import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { TimeIndex } from '../../../src/search/time-index.ts'

const moment = fc.oneof(fc.integer({ min: 0, max: 30 }), fc.integer({ min: 0, max: 1000 }))
/** What a program wrote may be no time. */
const time = fc.oneof(
  { weight: 6, arbitrary: moment },
  { weight: 1, arbitrary: fc.constant(Number.NaN) },
)
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ set: fc.nat(60), time }) },
  { weight: 1, arbitrary: fc.record({ delete: fc.nat(60) }) },
  // More than are looked at one by one, so that all are sorted.
  { weight: 1, arbitrary: fc.record({ many: fc.integer({ min: 501, max: 600 }), time }) },
  { weight: 2, arbitrary: fc.record({ from: moment, to: moment }) },
)

/** What keeps the rows between two moments from being those that a look at each finds; undefined where nothing does. */
function faultOf(
  index: TimeIndex,
  times: ReadonlyMap<string, number>,
  from: number,
  to: number,
): string | undefined {
  const wanted = [...times].filter(([, at]) => at >= from && at < to).map(([id]) => id)
  const found = index.between(from, to)
  const ids = [...new Set(found)].toSorted()
  if (ids.join(' ') !== wanted.toSorted().join(' ')) return `${ids.join(' ')} are found`
  if (found.size < wanted.length) return `size is ${found.size}, not ${wanted.length}`
  const odd = [...times.keys()].find((id) => found.has(id) !== wanted.includes(id))
  return odd && `has(${odd}) is ${found.has(odd)}`
}

test('rows between two moments are those that a look at each finds', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const index = new TimeIndex()
      const times = new Map<string, number>()
      const set = (id: string, at: number): void => {
        index.set(id, at)
        times.set(id, at)
      }
      const faults: string[] = []
      for (const one of steps) {
        if ('set' in one) set(`${one.set}`, one.time)
        else if ('many' in one) for (let i = 0; i < one.many; i++) set(`m${i}`, one.time + i)
        else if ('delete' in one) {
          index.delete(`${one.delete}`)
          times.delete(`${one.delete}`)
        } else {
          const fault = faultOf(index, times, one.from, one.to)
          if (fault !== undefined) faults.push(fault)
        }
      }
      expect(faults).toEqual([])
    }),
    { numRuns: 200 },
  )
})
