import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { mustTable } from '../../../schema/tables.ts'
import { mergeUpdate } from '../../../sync/merge/merge-update.ts'
import { overlay } from '../../../sync/merge/overlay.ts'

describe('a pending update on top of a row', () => {
  test('adds what its writer added', () => {
    const row = { execution_count: 15, tags: '["a","theirs"]', name: 'theirs' }
    const patch = { execution_count: 13, tags: '["a","mine"]', name: 'mine' }
    const before = { execution_count: 10, tags: '["a"]', name: 'before' }
    expect(overlay(mustTable('runbooks'), row, patch, before)).toEqual({
      execution_count: 18,
      tags: '["a","theirs","mine"]',
      name: 'mine',
    })
  })

  test('shows its own value of a key that both changed, and their other keys', () => {
    const over = overlay(
      mustTable('users'),
      { preferences: '{"lang":"de","theme":"theirs"}' },
      { preferences: '{"theme":"mine"}' },
      { preferences: '{}' },
    )
    expect(over).toEqual({ preferences: '{"lang":"de","theme":"mine"}' })
  })

  test('moves a state on and leaves times of others; a move that will be refused stays in sight whole', () => {
    const incidents = mustTable('incidents')
    const before = { status: 'open', acknowledged_at: null, resolved_at: null }
    const patch = { status: 'acknowledged', acknowledged_at: 'mine', resolved_at: null }
    const row = (status: string) => ({ status, acknowledged_at: null, resolved_at: 'theirs' })
    expect(overlay(incidents, row('open'), patch, before)).toEqual({
      ...patch,
      resolved_at: 'theirs',
    })
    expect(overlay(incidents, row('resolved'), patch, before)).toEqual(patch)
  })

  test('shows what raw SQL wrote and no column holds as it is', () => {
    const raw = String.raw`{"a":"\u0000"}`
    const over = overlay(
      mustTable('users'),
      { preferences: '{"a":2,"b":1}' },
      { preferences: raw },
      { preferences: '{"a":1}' },
    )
    expect(over).toEqual({ preferences: raw })
  })

  test('of an insert that meets a row takes every value', () => {
    const over = overlay(mustTable('runbooks'), { execution_count: 15 }, { execution_count: 1 }, {})
    expect(over).toEqual({ execution_count: 1 })
  })
})

test('what a pending update shows is what the centre makes of it, where nothing can be lost', () => {
  const conversations = mustTable('conversations')
  const tags = fc.array(fc.constantFrom('a', 'b', 'c')).map((list) => JSON.stringify(list))
  const values = fc.record({
    total_cost_cents: fc.option(fc.integer({ min: 0, max: 9 })),
    tags: fc.option(tags),
    title: fc.constantFrom('x', 'y'),
  })
  fc.assert(
    fc.property(values, values, values, (before, patch, current) => {
      const { write } = mergeUpdate({
        table: conversations,
        current,
        patch,
        before,
        placeholders: new Set(),
        stamps: new Map(
          ['total_cost_cents', 'tags'].map((column) => [
            column,
            { concurrent: true, clock: 99, writer: 'other' },
          ]),
        ),
        clock: 1,
        writer: 'me',
      })
      expect(overlay(conversations, current, patch, before)).toEqual({ ...current, ...write })
    }),
  )
})
