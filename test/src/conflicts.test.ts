import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import type { AgentDB, ConflictListOptions, Values } from '../../src/index.ts'
import { connectionOf, errorOf, logOf, openStore } from '../support/store.ts'

let db: AgentDB
beforeEach(async () => {
  db = await openStore()
})
afterEach(() => db.close())

interface RecordColumns {
  readonly state: string
  readonly table: string
  readonly row: string
  readonly op: string
  readonly mine: Values | string | null
  readonly at: string
  readonly reason: string | null
}

/** Files a record as the sync engine does, in stored forms. Returns its id. */
function record(columns: Partial<RecordColumns> = {}): string {
  const id = newId()
  const { mine = null } = columns
  connectionOf(db).applying(() =>
    connectionOf(db).run(
      `INSERT INTO sync_conflicts (id, at, state, table_name, row_id, op, reason, mine) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      id,
      columns.at ?? '2026-01-01T00:00:00.000000Z',
      columns.state ?? 'rejected',
      columns.table ?? 'incidents',
      columns.row ?? newId(),
      columns.op ?? 'update',
      columns.reason ?? null,
      typeof mine === 'string' || mine === null ? mine : JSON.stringify(mine),
    ),
  )
  return id
}

const incident = { title: 'x', severity: 'low', source: 's' } as const

describe('the list of conflicts', () => {
  test('put together of pages is the whole list, newest first, also where many came at once', () => {
    const ids = Array.from({ length: 25 }, (_, i) =>
      record({ at: `2026-01-0${1 + Math.floor(i / 10)}T00:00:00.000000Z` }),
    )
    const pages: string[][] = []
    let page = db.syncConflicts.list({ limit: 7 })
    while (page.length > 0) {
      pages.push(page.map(({ id }) => id))
      page = db.syncConflicts.list({ limit: 7, after: page.at(-1) })
    }
    expect(pages.map(({ length }) => length)).toEqual([7, 7, 7, 4])
    expect(pages.flat()).toEqual(ids.toReversed())
    expect(db.syncConflicts.list().map(({ id }) => id)).toEqual(ids.toReversed())
  })

  test('keeps to what is asked for', () => {
    const row = newId()
    const [a, b, c] = [
      record({ row }),
      record({ row, state: 'merged' }),
      record({ table: 'runbooks', state: 'merged' }),
    ]
    const ids = (options: ConflictListOptions): string[] =>
      db.syncConflicts.list(options).map(({ id }) => id)
    expect(ids({ row })).toEqual([b, a])
    expect(ids({ state: 'merged' })).toEqual([c, b])
    expect(ids({ table: 'runbooks' })).toEqual([c])
    expect(ids({ state: 'merged', row, table: undefined })).toEqual([b])
    expect(ids({ state: 'rejected', table: 'runbooks' })).toEqual([])
  })

  test.each([
    [{ states: 'merged' }, /no option "states"/],
    [{ state: 'lost' }, /no state "lost"; there are rejected/],
    [{ table: 'sync_log' }, /no table "sync_log"/],
    [{ limit: 0 }, /limit must be a whole number from 1, got 0/],
    [{ limit: 1.5 }, /limit/],
  ])('refuses the options %j', (options, message) => {
    const error = errorOf(() => db.syncConflicts.list(options as ConflictListOptions))
    expect(error.code).toBe('INVALID_OPTION')
    expect(error.message).toMatch(message)
  })

  test('shows what is no value of its column as it was written', () => {
    const id = record({
      table: 'workflows',
      mine: { tags: 'not json', definition: '{"n":1e999}', is_active: 1, gone_column: 'x' },
    })
    expect(db.syncConflicts.get(id)?.mine).toEqual({
      tags: 'not json',
      definition: '{"n":1e999}',
      is_active: true,
      gone_column: 'x',
    })
  })
})

describe('a retry', () => {
  test('is one with the removal of its record: what rolls back the one rolls back the other', () => {
    const { id: row } = db.incidents.create(incident)
    const id = record({ row, mine: { title: 'again' } })
    expect(() =>
      db.transaction(() => {
        expect(db.syncConflicts.retry(id)).toMatchObject({ id: row, title: 'again' })
        expect(db.syncConflicts.list()).toEqual([])
        throw new Error('no')
      }),
    ).toThrow('no')
    expect(db.incidents.find(row)?.title).toBe('x')
    expect(db.syncConflicts.get(id)?.mine).toEqual({ title: 'again' })
    const writes = logOf(db).length
    db.syncConflicts.retry(id)
    expect(logOf(db).slice(writes)).toMatchObject([{ op: 'update', patch: { title: 'again' } }])
    expect(errorOf(() => db.syncConflicts.retry(id))).toMatchObject({ code: 'NOT_FOUND' })
  })

  test('tells an explicit null from what is left out, in the record and in the patch', () => {
    const { id: row } = db.incidents.create({ ...incident, root_cause: 'r', description: 'd' })
    const update = record({ row, mine: { root_cause: null, title: 'again' } })
    db.syncConflicts.retry(update, { title: undefined, assigned_team: null })
    expect(db.incidents.find(row)).toMatchObject({
      root_cause: null,
      title: 'again',
      description: 'd',
      assigned_team: null,
    })
    // A column with a default that was null on purpose stays null.
    const inserted = newId()
    const insert = record({
      row: inserted,
      op: 'insert',
      mine: { ...incident, id: inserted, metadata: null, affected_users_count: null },
    })
    expect(db.syncConflicts.retry(insert, { affected_services: ['a', null] })).toMatchObject({
      id: inserted,
      metadata: null,
      affected_users_count: null,
      affected_services: ['a', null],
    })
  })

  test('of what the store keeps itself, of an unknown column and of a broken value is refused', () => {
    const { id: row } = db.workflows.create({ name: 'W', definition: {} })
    const of = (mine: Values, patch?: Values): string => {
      const id = record({ table: 'workflows', row, mine })
      const { code } = errorOf(() => db.syncConflicts.retry(id, patch))
      expect(db.syncConflicts.get(id)).toBeDefined()
      return code
    }
    expect(of({ name: 'V' }, { updated_at: '2026-01-01T00:00:00.000000Z' })).toBe(
      'READ_ONLY_COLUMN',
    )
    expect(of({ name: 'V' }, { id: newId() })).toBe('READ_ONLY_COLUMN')
    expect(of({ gone_column: 'x' })).toBe('UNKNOWN_COLUMN')
    expect(of({ tags: 'not json' })).toBe('INVALID_VALUE')
    expect(of({ definition: '{"n":1e999}' })).toBe('INVALID_VALUE')
    expect(of({ name: 'V' }, null as unknown as Values)).toBe('INVALID_VALUE')
    expect(db.workflows.find(row)).toMatchObject({ name: 'W', definition: {} })
  })

  test('of an update of a row that is gone says so, and of a delete of it is done', () => {
    const row = newId()
    const update = record({ row, mine: { title: 'again' } })
    expect(errorOf(() => db.syncConflicts.retry(update))).toMatchObject({
      code: 'NOT_FOUND',
      table: 'incidents',
      value: row,
    })
    const remove = record({ row, op: 'delete' })
    expect(db.syncConflicts.retry(remove)).toBeUndefined()
    expect(db.syncConflicts.list().map(({ id }) => id)).toEqual([update])
  })

  test('of an insert whose row is there by now is refused', () => {
    const { id: row } = db.incidents.create(incident)
    const id = record({ row, op: 'insert', mine: { ...incident, id: row } })
    expect(errorOf(() => db.syncConflicts.retry(id))).toMatchObject({
      code: 'CONSTRAINT',
      column: 'id',
      value: row,
    })
  })
})

describe('a discarded conflict', () => {
  test('is gone for every call, and what it held is gone from the file', () => {
    const secret = 'a value that nobody should find'
    const id = record({ mine: { title: secret } })
    db.syncConflicts.discard(id)
    expect(db.syncConflicts.get(id)).toBeUndefined()
    expect(db.syncConflicts.list()).toEqual([])
    expect(errorOf(() => db.syncConflicts.discard(id))).toMatchObject({ code: 'NOT_FOUND' })
    expect(JSON.stringify(connectionOf(db).all('SELECT * FROM sync_conflicts'))).not.toContain(
      secret,
    )
    expect(logOf(db)).toEqual([])
  })

  test('that never was is told', () => {
    expect(errorOf(() => db.syncConflicts.discard(newId()))).toMatchObject({ code: 'NOT_FOUND' })
    expect(errorOf(() => db.syncConflicts.retry('x'))).toMatchObject({ code: 'NOT_FOUND' })
  })
})
