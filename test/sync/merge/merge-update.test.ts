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
    before: {},
    placeholders: new Set(),
    stamps: new Map(),
    clock: 10,
    writer: 'me',
    ...input,
  })

/** Nothing refused. */
const quiet = { rejected: [], illegal: undefined }

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
      ...quiet,
    })
  })

  test('a later clock wins over a concurrent change and keeps what it overwrote', () => {
    const decision = merge({
      patch: { title: 'mine' },
      stamps: new Map([['title', stamp(9, 'other')]]),
    })
    expect(decision.outcome).toBe('merged')
    expect(decision.write).toEqual({ title: 'mine' })
    expect(decision.overwritten).toEqual([
      { writer: 'other', lost: { title: 'theirs' }, kept: { title: 'mine' } },
    ])
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
      lost: [{ writer: 'other', lost: { title: 'mine' }, kept: { title: 'theirs' } }],
      ...quiet,
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
      ...quiet,
    })
  })

  test('a group wins or loses as one: a vector is never torn from its model', () => {
    const patch = { model: 'mine', dimension: 2 }
    const decision = merge({
      table: mustTable('embeddings'),
      current: { model: 'theirs', dimension: 3 },
      patch,
      stamps: new Map([['model', stamp(11, 'other')]]),
    })
    expect(decision.write).toEqual({})
    expect(decision.lost).toEqual([
      { writer: 'other', lost: patch, kept: { model: 'theirs', dimension: 3 } },
    ])
  })

  test('a patch that lacks a column of its group, whose value its writer could not hold, loses or wins with it', () => {
    const rival = (clock: number) =>
      merge({
        table: mustTable('embeddings'),
        current: { model: 'theirs', payload: '{}' },
        patch: { model: 'mine' },
        stamps: new Map([['payload', stamp(clock, 'other')]]),
      })
    expect(rival(11)).toEqual({
      outcome: 'superseded',
      write: {},
      overwritten: [],
      lost: [{ writer: 'other', lost: { model: 'mine' }, kept: { model: 'theirs' } }],
      ...quiet,
    })
    // What it could not hold it does not overwrite, either.
    expect(rival(9)).toEqual({
      outcome: 'merged',
      write: { model: 'mine' },
      overwritten: [],
      lost: [],
      ...quiet,
    })
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

describe('merging by policy', () => {
  const runbooks = mustTable('runbooks')
  const conversations = mustTable('conversations')

  test('a counter takes the difference, whoever else changed it, and overwrites nothing', () => {
    const decision = merge({
      table: runbooks,
      current: { execution_count: 15 },
      before: { execution_count: 10 },
      patch: { execution_count: 13 },
      stamps: new Map([['execution_count', stamp(99, 'other')]]),
    })
    expect(decision).toEqual({
      outcome: 'merged',
      write: { execution_count: 18 },
      overwritten: [],
      lost: [],
      ...quiet,
    })
  })

  test('a counter takes the difference where an earlier change of its own writer came to nothing', () => {
    const decision = merge({
      table: runbooks,
      current: { execution_count: 10 },
      before: { execution_count: 13 },
      patch: { execution_count: 14 },
    })
    expect(decision).toMatchObject({ outcome: 'merged', write: { execution_count: 11 } })
  })

  test('an old agent that does not tell what it had before writes its value, and what that overwrites is kept', () => {
    const decision = merge({
      table: runbooks,
      current: { execution_count: 15 },
      patch: { execution_count: 13 },
      stamps: new Map([['execution_count', stamp(9, 'other')]]),
    })
    expect(decision.write).toEqual({ execution_count: 13 })
    expect(decision.overwritten).toHaveLength(1)
  })

  test('what stands for a value that no agent can hold is taken or left whole', () => {
    const decision = merge({
      table: conversations,
      current: { tags: '[]' },
      before: { tags: '["a"]' },
      patch: { tags: '["a","b"]' },
      placeholders: new Set(['tags']),
      stamps: new Map([['tags', stamp(11, 'other')]]),
    })
    expect(decision.outcome).toBe('superseded')
  })

  test('the greater value stands, and a lesser one is told so without a record', () => {
    const decision = merge({
      table: runbooks,
      current: { last_executed_at: '2026-03-01T00:00:00.000000Z' },
      before: { last_executed_at: null },
      patch: { last_executed_at: '2026-02-01T00:00:00.000000Z' },
      stamps: new Map([['last_executed_at', stamp(1, 'other')]]),
    })
    expect(decision).toEqual({
      outcome: 'merged',
      write: {},
      overwritten: [],
      lost: [],
      ...quiet,
    })
  })

  test.each([
    [11, 'mine'],
    [9, 'theirs'],
  ] as const)(
    'of a key that both changed the later stands (clock %i), the rest merges',
    (clock, winner) => {
      const decision = merge({
        table: conversations,
        current: { model_config: '{"deep":{"t":3},"p":1}' },
        before: { model_config: '{"deep":{"t":1}}' },
        patch: { model_config: '{"deep":{"t":2},"m":1}' },
        stamps: new Map([['model_config', stamp(10, 'other')]]),
        clock,
      })
      const [mine, theirs] = [
        { model_config: '{"deep":{"t":2}}' },
        { model_config: '{"deep":{"t":3}}' },
      ]
      const t = winner === 'mine' ? 2 : 3
      expect(decision.outcome).toBe('merged')
      expect(decision.write).toEqual({ model_config: `{"deep":{"t":${t}},"m":1,"p":1}` })
      expect(decision.overwritten).toEqual(
        winner === 'mine' ? [{ writer: 'other', lost: theirs, kept: mine }] : [],
      )
      expect(decision.lost).toEqual(
        winner === 'mine' ? [] : [{ writer: 'other', lost: mine, kept: theirs }],
      )
    },
  )

  test('of two playbooks the later to arrive is rejected, by whatever column of the group', () => {
    const decision = merge({
      table: runbooks,
      current: { steps: '[]', version: 2, is_automated: 0 },
      patch: { steps: '[1]', version: 2, is_automated: 0 },
      stamps: new Map([['version', stamp(1, 'other')]]),
    })
    expect(decision).toMatchObject({ outcome: 'rejected', rejected: ['steps'] })
    const seen = merge({
      table: runbooks,
      current: { steps: '[]' },
      patch: { steps: '[1]' },
      stamps: new Map([['steps', stamp(99, 'other', false)]]),
    })
    expect(seen).toMatchObject({ outcome: 'applied', write: { steps: '[1]' }, rejected: [] })
  })

  describe('a state', () => {
    const at = (second: number): string => `2026-01-01T00:00:0${second}.000000Z`
    const open = { status: 'open', acknowledged_at: null, resolved_at: null }
    const taken = { ...open, status: 'acknowledged', acknowledged_at: at(1) }
    const solved = { ...open, status: 'resolved', resolved_at: at(2) }
    const stamps = (clock: number) =>
      new Map([
        ['status', stamp(clock, 'other')],
        ['acknowledged_at', stamp(clock, 'other')],
      ])

    test('that may follow is written with the times that its writer changed; others stay', () => {
      const decision = merge({ current: taken, before: open, patch: solved, stamps: stamps(99) })
      expect(decision.outcome).toBe('merged')
      expect(decision.write).toEqual({ status: 'resolved', resolved_at: at(2) })
      expect(decision.overwritten).toEqual([
        { writer: 'other', lost: { status: 'acknowledged' }, kept: { status: 'resolved' } },
      ])
    })

    test('that may not is superseded with its whole group, whatever the clocks say', () => {
      const decision = merge({ current: solved, before: open, patch: taken, stamps: stamps(1) })
      expect(decision).toEqual({
        outcome: 'superseded',
        write: {},
        overwritten: [],
        lost: [{ writer: 'other', lost: taken, kept: solved }],
        rejected: [],
        illegal: { column: 'status', from: 'resolved', to: 'acknowledged' },
      })
    })

    test('that may not follow is superseded even if nobody else was there', () => {
      const decision = merge({ current: solved, before: solved, patch: taken })
      expect(decision).toMatchObject({ outcome: 'superseded', write: {} })
      expect(decision.lost).toEqual([{ writer: null, lost: taken, kept: solved }])
    })

    test('that is the same for both leaves the times to the later', () => {
      const mine = { ...taken, acknowledged_at: at(3) }
      const both = (clock: number) =>
        merge({ current: taken, before: open, patch: mine, stamps: stamps(clock) })
      expect(both(9).write).toEqual({ acknowledged_at: at(3) })
      expect(both(11)).toMatchObject({ outcome: 'superseded', write: {} })
    })

    test('that nobody moved lets its times be put right, beside a move of another', () => {
      const patch = { ...open, acknowledged_at: at(3) }
      const decision = merge({
        current: solved,
        before: open,
        patch,
        stamps: new Map([['resolved_at', stamp(1, 'other')]]),
      })
      expect(decision.write).toEqual({ acknowledged_at: at(3) })
      expect(decision.lost).toEqual([])
    })
  })
})
