import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { StoredRow } from '../../../schema/codec.ts'
import { mustTable } from '../../../schema/tables.ts'
import { mergeUpdate, type MergeInput, type Stamp } from '../../../sync/merge/merge-update.ts'

const incidents = mustTable('incidents')
const current: StoredRow = {
  id: 'i',
  title: 'theirs',
  root_cause: null,
  status: 'open',
  acknowledged_at: null,
}

const merge = (input: Partial<MergeInput>) =>
  mergeUpdate({
    table: incidents,
    current,
    patch: {},
    stamps: new Map(),
    clock: 10,
    writer: 'me',
    ...input,
  })

const stamp = (clock: number, writer: string | null, concurrent = true): Stamp => ({
  clock,
  writer,
  concurrent,
})

describe('merging an update', () => {
  test('writes a patch over what its writer had seen, and calls it applied', () => {
    const decision = merge({
      patch: { title: 'mine' },
      stamps: new Map([['title', stamp(99, 'other', false)]]),
    })
    expect(decision).toEqual({
      outcome: 'applied',
      write: { title: 'mine' },
      overwritten: [],
      lost: [],
    })
  })

  test('a later clock wins over a concurrent change and keeps what it overwrote', () => {
    const decision = merge({
      patch: { title: 'mine' },
      stamps: new Map([['title', stamp(9, 'other')]]),
    })
    expect(decision.outcome).toBe('merged')
    expect(decision.write).toEqual({ title: 'mine' })
    expect(decision.overwritten).toEqual([{ writer: 'other', values: { title: 'theirs' } }])
  })

  test('an earlier clock is superseded and its value is kept', () => {
    const decision = merge({
      patch: { title: 'mine' },
      stamps: new Map([['title', stamp(11, 'other')]]),
    })
    expect(decision).toEqual({
      outcome: 'superseded',
      write: {},
      overwritten: [],
      lost: [{ winner: 'other', values: { title: 'mine' } }],
    })
  })

  test('disjoint columns merge without a conflict', () => {
    const decision = merge({
      patch: { root_cause: 'disk' },
      stamps: new Map([['title', stamp(11, 'other')]]),
    })
    expect(decision).toEqual({
      outcome: 'merged',
      write: { root_cause: 'disk' },
      overwritten: [],
      lost: [],
    })
  })

  test('a group wins or loses as one: a status is never torn from its times', () => {
    const patch = { status: 'acknowledged', acknowledged_at: '2026-01-01T00:00:00.000000Z' }
    const decision = merge({ patch, stamps: new Map([['acknowledged_at', stamp(11, 'other')]]) })
    expect(decision.write).toEqual({})
    expect(decision.lost).toEqual([{ winner: 'other', values: patch }])
  })

  test('the same value written by both is no conflict', () => {
    const decision = merge({
      patch: { title: 'theirs' },
      stamps: new Map([['title', stamp(99, 'other')]]),
    })
    expect(decision.lost).toEqual([])
    expect(decision.overwritten).toEqual([])
  })

  test('of two concurrent writers the same one wins in either order of arrival', () => {
    const write = fc.record({
      clock: fc.integer({ min: 1, max: 5 }),
      writer: fc.constantFrom('a', 'b', 'c'),
      value: fc.string(),
    })
    fc.assert(
      fc.property(write, write, (one, two) => {
        fc.pre(one.writer !== two.writer)
        const arrive = (first: typeof one, second: typeof one): unknown => {
          const decision = merge({
            current: { ...current, title: first.value },
            patch: { title: second.value },
            stamps: new Map([['title', stamp(first.clock, first.writer)]]),
            clock: second.clock,
            writer: second.writer,
          })
          return decision.write['title'] ?? first.value
        }
        expect(arrive(one, two)).toBe(arrive(two, one))
      }),
    )
  })

  test('whatever is concurrent and differs is either kept or recorded as lost', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20 }),
        fc.string(),
        fc.string(),
        (clock, theirs, mine) => {
          const decision = merge({
            current: { ...current, title: theirs },
            patch: { title: mine },
            stamps: new Map([['title', stamp(10, 'other')]]),
            clock,
          })
          const recorded = decision.lost.length + decision.overwritten.length
          expect(recorded).toBe(theirs === mine ? 0 : 1)
        },
      ),
    )
  })
})
