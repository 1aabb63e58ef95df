/* oxlint-disable unicorn/consistent-function-scoping -- a helper stands beside the tests that it helps */
import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import type { AgentDB, ListOptions, Row } from '../../src/index.ts'
import { errorOf, openStore } from '../support/store.ts'

let db: AgentDB
beforeEach(async () => {
  db = await openStore()
})
afterEach(() => db.close())

type Incident = Row<'incidents'>

/** Few values each, so that ties are common, and characters whose UTF-16 order is not their code point order. */
const title = fc.constantFrom('', 'a', 'B', 'b', 'é', '\u{ffff}', '😀', 'a b')
const moment = fc.constantFrom(
  '2026-01-01T00:00:00.000000Z',
  '2026-01-01T00:00:00.000001Z',
  '2030-01-01T00:00:00.000000Z',
)
const anIncident = fc.record({
  title,
  severity: fc.constantFrom('critical', 'high', 'low'),
  source: title,
  detection_method: fc.option(title),
  affected_users_count: fc.option(fc.integer({ min: -2, max: 2 })),
  assigned_team: fc.option(title),
  affected_services: fc.option(fc.array(fc.constantFrom('a', 'b', ''), { maxLength: 2 })),
  metadata: fc.option(fc.constantFrom({}, { a: 1 }, { a: [1] }, 'x', 0)),
  detected_at: moment,
})
const sortable = [
  'title',
  'severity',
  'detection_method',
  'affected_users_count',
  'assigned_team',
  'affected_services',
  'metadata',
  'detected_at',
  'root_cause',
  'id',
] as const
const term = fc.record({
  column: fc.constantFrom(...sortable),
  direction: fc.constantFrom('asc' as const, 'desc' as const),
})

/** Order of stored values: NULL, numbers, then text by code point. */
function compare(a: unknown, b: unknown): number {
  if (a === null || b === null) return Number(a !== null) - Number(b !== null)
  if (typeof a === 'number' && typeof b === 'number') return a - b
  return Buffer.compare(Buffer.from(textOf(a)), Buffer.from(textOf(b)))
}

const textOf = (value: unknown): string =>
  typeof value === 'string' ? value : JSON.stringify(value)

function byTerms(terms: readonly { column: keyof Incident; direction: 'asc' | 'desc' }[]) {
  return (a: Incident, b: Incident): number => {
    for (const { column, direction } of terms) {
      // A JSON column is stored as its text, strings with their quotes.
      const [x, y] = [a[column], b[column]].map((value) =>
        column === 'metadata' && value !== null ? JSON.stringify(value) : value,
      )
      const order = compare(x, y)
      if (order !== 0) return direction === 'asc' ? order : -order
    }
    return 0
  }
}

describe('pages', () => {
  test('put together are the whole list, in the order asked for, of whatever columns', () => {
    fc.assert(
      fc.property(
        fc.array(anIncident, { maxLength: 25 }),
        fc.array(term, { maxLength: 3 }),
        fc.integer({ min: 1, max: 6 }),
        fc.constantFrom('text', 'object'),
        (rows, terms, limit, style) => {
          for (const { id } of db.incidents.list()) db.incidents.delete(id)
          const made = db.incidents.createMany(rows)
          const orderBy = terms.map(({ column, direction }) =>
            style === 'text' ? `${column} ${direction}` : { [column]: direction },
          ) as NonNullable<ListOptions<Incident>['orderBy']>
          const tie = { column: 'id' as const, direction: terms.at(-1)?.direction ?? 'asc' }

          const whole = db.incidents.list({ orderBy })
          expect(whole).toEqual(made.toSorted(byTerms([...terms, tie])))

          const pages: Incident[] = []
          for (;;) {
            const page = db.incidents.list({ orderBy, limit, after: pages.at(-1) })
            pages.push(...page)
            if (page.length < limit) break
          }
          expect(pages).toEqual(whole)
        },
      ),
      { numRuns: 150 },
    )
  })

  test('go on where they were when rows come and go meanwhile', () => {
    const make = (name: string): Incident =>
      db.incidents.create({ title: name, severity: 'low', source: 's' })
    for (const name of ['a', 'c', 'e', 'g']) make(name)
    const first = db.incidents.list({ orderBy: 'title', limit: 2 })
    make('b')
    make('d')
    db.incidents.delete(first[1]?.id ?? '')
    expect(
      db.incidents.list({ orderBy: 'title', limit: 2, after: first[1] }).map((row) => row.title),
    ).toEqual(['d', 'e'])
  })

  test('keep the conditions', () => {
    const rows = db.incidents.createMany(
      Array.from({ length: 10 }, (_, i) => ({
        title: String(i),
        severity: i % 2 === 0 ? ('low' as const) : ('high' as const),
        source: 's',
      })),
    )
    const where = { severity: 'low' } as const
    const first = db.incidents.list({ where, limit: 2, orderBy: 'id desc' })
    const second = db.incidents.list({ where, limit: 2, orderBy: 'id desc', after: first.at(-1) })
    expect([...first, ...second].map((row) => row.id)).toEqual([8, 6, 4, 2].map((i) => rows[i]?.id))
  })

  test('may be empty', () => {
    db.incidents.create({ title: 't', severity: 'low', source: 's' })
    expect(db.incidents.list({ limit: 0 })).toEqual([])
  })
})

describe('conditions', () => {
  const titles = (where: NonNullable<ListOptions<Incident>['where']>): string[] =>
    db.incidents.list({ where, orderBy: 'title' }).map((row) => row.title)

  beforeEach(() => {
    const base = { severity: 'low', source: 's' } as const
    db.incidents.createMany([
      { ...base, title: 'a', affected_users_count: 1, affected_services: ['web', 'db'] },
      { ...base, title: 'b', affected_users_count: 2, root_cause: '50%_off', metadata: { k: 1 } },
      { ...base, title: 'c', affected_users_count: null, root_cause: 'x', affected_services: null },
      { ...base, title: 'd', severity: 'high', affected_users_count: 3, detected_at: '2020-01-01' },
    ])
  })

  test('compare by value, null, list and operator', () => {
    expect(titles({ title: 'b' })).toEqual(['b'])
    expect(titles({ root_cause: null })).toEqual(['a', 'd'])
    expect(titles({ title: ['a', 'c', 'zzz'] })).toEqual(['a', 'c'])
    expect(titles({ title: [] })).toEqual([])
    expect(titles({ title: { in: ['d'] } })).toEqual(['d'])
    expect(titles({ affected_users_count: { gt: 1 } })).toEqual(['b', 'd'])
    expect(titles({ affected_users_count: { gte: 1, lt: 3 } })).toEqual(['a', 'b'])
    expect(titles({ affected_users_count: { lte: 1 } })).toEqual(['a'])
    expect(titles({ affected_users_count: { eq: null } })).toEqual(['c'])
    expect(titles({ root_cause: { ne: null } })).toEqual(['b', 'c'])
    expect(titles({ root_cause: { ne: 'x' } })).toEqual(['a', 'b', 'd'])
    expect(titles({ root_cause: { like: '50%off' } })).toEqual(['b'])
    expect(titles({ severity: 'low', affected_users_count: 2, title: undefined })).toEqual(['b'])
  })

  test('find null in a list of values', () => {
    expect(titles({ affected_users_count: [1, null] })).toEqual(['a', 'c'])
    expect(titles({ affected_users_count: { in: [null] } })).toEqual(['c'])
  })

  test('look into arrays and compare arrays and JSON as wholes', () => {
    expect(titles({ affected_services: { contains: 'db' } })).toEqual(['a'])
    expect(titles({ affected_services: ['web', 'db'] })).toEqual(['a'])
    expect(titles({ affected_services: ['db', 'web'] })).toEqual([])
    expect(titles({ affected_services: [] })).toEqual(['b', 'd'])
    expect(titles({ metadata: { k: 1 } })).toEqual(['b'])
  })

  test('take moments in any form', () => {
    expect(titles({ detected_at: { lt: '2020-01-01T01:00:00+00:30' } })).toEqual(['d'])
    expect(titles({ detected_at: '2020-01-01' })).toEqual(['d'])
  })

  test('quote nothing: text with SQL in it is text', () => {
    expect(titles({ title: `' OR 1=1 --` })).toEqual([])
    expect(
      errorOf(() => db.incidents.list({ where: { [`title" OR 1=1 --`]: 'x' } as never })),
    ).toMatchObject({
      code: 'UNKNOWN_COLUMN',
    })
  })

  test.each([
    ['a column that is not there', { where: { colour: 'red' } }, 'UNKNOWN_COLUMN'],
    [
      'an operator that is not there',
      { where: { title: { eq: 'a', regex: 'b' } } },
      'INVALID_VALUE',
    ],
    ['a value of another type', { where: { affected_users_count: 'many' } }, 'INVALID_VALUE'],
    ['a value of another enum', { where: { severity: 'urgent' } }, 'INVALID_VALUE'],
    ['a pattern that is no text', { where: { title: { like: {} } } }, 'INVALID_VALUE'],
    [
      'an element that is none',
      { where: { affected_services: { contains: {} } } },
      'INVALID_VALUE',
    ],
    ['an order by nothing', { orderBy: 'colour' }, 'UNKNOWN_COLUMN'],
    ['an order by SQL', { orderBy: 'title; DROP TABLE incidents' }, 'INVALID_OPTION'],
    ['a direction that is none', { orderBy: 'title up' }, 'INVALID_OPTION'],
    ['a limit below zero', { limit: -1 }, 'INVALID_OPTION'],
    ['a limit that is no number', { limit: '1' }, 'INVALID_OPTION'],
    ['an option that is none', { offset: 1 }, 'INVALID_OPTION'],
    [
      'an after without the columns of the order',
      { after: { id: 'x' }, orderBy: 'title' },
      'INVALID_OPTION',
    ],
    ['an after that is an id', { after: 'x' }, 'INVALID_OPTION'],
    ['an after that is null', { after: null }, 'INVALID_OPTION'],
  ])('refuse %s', (_, options, code) => {
    expect(errorOf(() => db.incidents.list(options as never))).toMatchObject({ code })
  })
})
