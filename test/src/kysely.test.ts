/* oxlint-disable unicorn/consistent-function-scoping -- a helper stands beside the tests that it helps */
import { sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { newId } from '../../schema/values/id.ts'
import type { AgentDB } from '../../src/index.ts'
import {
  acknowledgeAll,
  baseOf,
  connectionOf,
  logOf,
  openStore,
  rejectionOf,
} from '../support/store.ts'

let db: AgentDB
beforeEach(async () => {
  db = await openStore()
})
afterEach(() => db.close())

const base = { severity: 'low', source: 's' } as const

describe('reads through kysely', () => {
  test('decode as the repositories do, also under other names and in joins', async () => {
    const incident = db.incidents.create({
      ...base,
      title: 't',
      affected_services: ['a', null],
      metadata: { b: [1] },
    })
    const runbook = db.runbooks.create({ name: 'r', steps: [{ n: 1 }], is_automated: true })
    const execution = db.runbookExecutions.create({
      runbook_id: runbook.id,
      incident_id: incident.id,
      completed_steps: [1, 2],
    })
    await db.embeddings.put({
      id: incident.id,
      collection: 'incident_knowledge',
      vector: Float32Array.of(1, -2),
    })
    expect(await db.kysely.selectFrom('incidents').selectAll().execute()).toEqual([incident])
    expect(
      await db.kysely
        .selectFrom('runbook_executions as x')
        .innerJoin('runbooks as r', 'r.id', 'x.runbook_id')
        .innerJoin('embeddings as e', 'e.id', 'x.incident_id')
        .select(['x.id', 'x.completed_steps as done', 'r.is_automated', 'r.steps', 'e.vector'])
        .execute(),
    ).toEqual([
      {
        id: execution.id,
        done: [1, 2],
        is_automated: true,
        steps: [{ n: 1 }],
        vector: Float32Array.of(1, -2),
      },
    ])
  })

  test('take values of every kind as conditions', async () => {
    const row = db.runbooks.create({ name: 'r', steps: [], is_automated: true, tags: ['a'] })
    db.runbooks.create({ name: 'other', steps: [] })
    const found = await db.kysely
      .selectFrom('runbooks')
      .select('id')
      .where('is_automated', '=', true)
      .where('tags', '=', sql<readonly string[]>`${['a']}`)
      .where('created_at', '<=', sql<string>`${new Date(Date.now() + 60_000)}`)
      .execute()
    expect(found).toEqual([{ id: row.id }])
  })
})

describe('writes through kysely', () => {
  test('are captured like any other, with patch and image', async () => {
    const id = newId()
    await db.kysely
      .insertInto('incidents')
      .values({ ...base, id, title: 'a', metadata: { b: 1, a: 2 } })
      .execute()
    expect(logOf(db)).toEqual([
      expect.objectContaining({ op: 'insert', table: 'incidents', id, pushed: true }),
    ])
    expect(logOf(db)[0]?.patch).toMatchObject({ metadata: '{"a":2,"b":1}' })
    acknowledgeAll(db)

    const { numUpdatedRows } = await db.kysely
      .updateTable('incidents')
      .set({ title: 'b' })
      .where('id', '=', id)
      .executeTakeFirstOrThrow()
    expect(numUpdatedRows).toBe(1n)
    expect(logOf(db).map(({ op, patch, before }) => ({ op, patch, before }))).toEqual([
      { op: 'update', patch: { title: 'b' }, before: { title: 'a' } },
    ])
    expect(baseOf(db, 'incidents', id)).toMatchObject({ title: 'a' })

    await db.kysely.deleteFrom('incidents').where('id', '=', id).execute()
    expect(logOf(db).map(({ op }) => op)).toEqual(['update', 'delete'])
    expect(db.incidents.find(id)).toBeUndefined()
  })

  test('are a transaction a statement: many rows in one, two statements in two', async () => {
    await db.kysely
      .insertInto('runbooks')
      .values(['a', 'b'].map((name) => ({ name, steps: [] })))
      .execute()
    await db.kysely.insertInto('runbooks').values({ name: 'c', steps: [] }).execute()
    const [a, b, c] = logOf(db).map(({ tx }) => tx)
    expect(a).toBe(b)
    expect(c).toBe((a ?? 0) + 1)
  })

  test('happen whole or not at all', async () => {
    db.runbooks.create({ name: 'taken', steps: [] })
    acknowledgeAll(db)
    expect(
      await rejectionOf(
        db.kysely
          .insertInto('runbooks')
          .values(['free', 'taken', 'after'].map((name) => ({ name, steps: [] })))
          .execute(),
      ),
    ).toMatchObject({ code: 'CONSTRAINT', table: 'runbooks', column: 'name' })
    expect(db.runbooks.list().map(({ name }) => name)).toEqual(['taken'])
    expect(logOf(db)).toEqual([])
  })

  test('that return rows decode them', async () => {
    const inserted = await db.kysely
      .insertInto('runbooks')
      .values({ name: 'r', steps: [1], is_automated: true, tags: ['x'] })
      .returningAll()
      .executeTakeFirstOrThrow()
    expect(inserted).toEqual(db.runbooks.find(inserted.id))
    expect(inserted).toMatchObject({ is_automated: true, steps: [1], tags: ['x'] })
    expect(
      await db.kysely
        .updateTable('runbooks')
        .set({ is_automated: false })
        .returning(['is_automated', 'tags as labels'])
        .execute(),
    ).toEqual([{ is_automated: false, labels: ['x'] }])
    expect(
      await db.kysely.deleteFrom('runbooks').returning(['steps']).executeTakeFirstOrThrow(),
    ).toEqual({ steps: [1] })
    expect(logOf(db).map(({ op }) => op)).toEqual(['insert', 'update', 'delete'])
  })

  test('in a transaction of the store share its fate', async () => {
    expect(() =>
      db.transaction(() => {
        db.runbooks.create({ name: 'r', steps: [] })
        throw new Error('no')
      }),
    ).toThrow('no')
    await db.kysely.insertInto('runbooks').values({ name: 'r', steps: [] }).execute()
    expect(db.runbooks.list()).toHaveLength(1)
  })

  test('of what agents may not write are refused', async () => {
    expect(
      await rejectionOf(db.kysely.updateTable('users').set({ role: 'admin' }).execute()),
    ).toMatchObject({ code: 'READ_ONLY_TABLE' })
    expect(
      await rejectionOf(
        db.kysely
          .insertInto('sessions')
          .values({
            user_id: db.userId,
            ip_address: '::1',
            expires_at: '2999-01-01T00:00:00.000000Z',
          })
          .execute(),
      ),
    ).toMatchObject({ code: 'READ_ONLY_TABLE' })
    expect(db.users.find(db.userId)?.role).toBe('developer')
  })

  test('of a message need its number, which only create() gives; the compiler and the error say so', async () => {
    const conversation_id = db.conversations.create({ title: 't' }).id
    const message = { id: newId(), conversation_id, role: 'user', content: 'c' }
    // @ts-expect-error -- sequence_number is missing
    const unnumbered = db.kysely.insertInto('messages').values(message)
    await expect(unnumbered.execute()).rejects.toMatchObject({
      code: 'CONSTRAINT',
      table: 'messages',
      column: 'sequence_number',
      message: expect.stringContaining('create() numbers it within conversation_id') as string,
    })
    const numbered = { ...message, sequence_number: 1 }
    await db.kysely.insertInto('messages').values(numbered).execute()
    const next = db.messages.create({ conversation_id, role: 'user', content: 'next' })
    expect(next.sequence_number).toBe(2)

    const owner = sql`INSERT INTO conversations (id, title) VALUES (${newId()}, 't')`
    await expect(owner.execute(db.kysely)).rejects.toMatchObject({
      column: 'user_id',
      message: expect.stringContaining('create() takes the user of the store') as string,
    })
  })

  test('of values that a column cannot hold are refused', async () => {
    for (const bad of [
      { affected_users_count: 2 ** 31 },
      { title: 'x'.repeat(501) },
      { severity: 'urgent' as 'low' },
      { detected_at: 'yesterday' },
      { assigned_to: 'ME' },
    ]) {
      expect(
        await rejectionOf(
          db.kysely
            .insertInto('incidents')
            .values({ ...base, title: 't', ...bad })
            .execute(),
        ),
      ).toMatchObject({ code: 'CONSTRAINT' })
    }
    expect(db.incidents.list()).toEqual([])
  })
})

describe('what would break the store is refused', () => {
  test('transactions of kysely, with the name of what to use', async () => {
    let ran = false
    const error = await rejectionOf(
      db.kysely.transaction().execute(async () => {
        ran = true
      }),
    )
    expect(error).toMatchObject({ code: 'TRANSACTION_MISUSE' })
    expect(error.message).toContain('db.transaction')
    expect(ran).toBe(false)
    expect(await rejectionOf(db.kysely.startTransaction().execute())).toMatchObject({
      code: 'TRANSACTION_MISUSE',
    })
  })

  test.each([
    'BEGIN',
    'begin immediate',
    '  COMMIT',
    'END',
    'ROLLBACK',
    'SAVEPOINT a',
    'RELEASE a',
    'VACUUM',
    `ATTACH ':memory:' AS other`,
    'PRAGMA foreign_keys = OFF',
    'PRAGMA foreign_keys(0)',
    'PRAGMA main.foreign_keys = OFF',
    'PRAGMA "foreign_keys" = OFF',
    '/* why */ PRAGMA foreign_keys = OFF',
    '-- why\nPRAGMA foreign_keys = OFF',
    ';PRAGMA foreign_keys = OFF',
    'EXPLAIN PRAGMA foreign_keys = OFF',
    '/* why */ BEGIN',
  ])('%j', async (statement) => {
    expect(await rejectionOf(sql.raw(statement).execute(db.kysely))).toMatchObject({
      code: 'TRANSACTION_MISUSE',
    })
    const connection = connectionOf(db)
    expect(connection.pragma('foreign_keys')).toBe(1)
    expect(connection.pragma('recursive_triggers')).toBe(1)
    expect(db.conversations.create({}).id).toMatch(/./)
  })

  test('a setting that is only read is not', async () => {
    const { rows } = await sql<{ foreign_keys: number }>`PRAGMA foreign_keys`.execute(db.kysely)
    expect(rows).toEqual([{ foreign_keys: 1 }])
  })

  test('streaming, which would hold the connection', async () => {
    const read = async (): Promise<void> => {
      for await (const row of db.kysely.selectFrom('users').selectAll().stream()) void row
    }
    expect(await rejectionOf(read())).toMatchObject({ code: 'TRANSACTION_MISUSE' })
  })
})
