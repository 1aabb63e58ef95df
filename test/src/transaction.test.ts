/* oxlint-disable unicorn/consistent-function-scoping -- a helper stands beside the tests that it helps */
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { AgentDB, type Row } from '../../src/index.ts'
import { Connection } from '../../src/sqlite/connection.ts'
import {
  acknowledgeAll,
  baseOf,
  connectionOf,
  errorOf,
  logOf,
  openStore,
  scratchFolder,
} from '../support/store.ts'

let db: AgentDB
beforeEach(async () => {
  db = await openStore()
})
afterEach(() => db.close())

const titles = (): (string | null)[] => db.conversations.list().map(({ title }) => title)
const add = (title: string): Row<'conversations'> => db.conversations.create({ title })

describe('a transaction', () => {
  test('gives what its work gives, and all of it happened', () => {
    expect(db.transaction(() => [add('a'), add('b')].length)).toBe(2)
    expect(titles()).toEqual(['a', 'b'])
  })

  test('that throws never was: no row, nothing to push, the error as thrown', () => {
    const thrown = new Error('mine')
    expect(() =>
      db.transaction(() => {
        add('a')
        throw thrown
      }),
    ).toThrow(thrown)
    expect(titles()).toEqual([])
    expect(logOf(db)).toEqual([])
    expect(connectionOf(db).all('SELECT * FROM sync_tx')).toEqual([])
    add('later')
    expect(titles()).toEqual(['later'])
  })

  test('inside another rolls back alone when its error is caught', () => {
    db.transaction(() => {
      add('before')
      expect(() =>
        db.transaction(() => {
          add('inner')
          db.transaction(() => add('innermost'))
          throw new Error('inner')
        }),
      ).toThrow('inner')
      expect(titles()).toEqual(['before'])
      db.transaction(() => add('second'))
      add('after')
    })
    expect(titles()).toEqual(['before', 'second', 'after'])
    expect(logOf(db).map(({ patch }) => patch?.['title'])).toEqual(['before', 'second', 'after'])
  })

  test('takes its nested ones along when it rolls back', () => {
    expect(() =>
      db.transaction(() => {
        db.transaction(() => add('inner'))
        throw new Error('outer')
      }),
    ).toThrow('outer')
    expect(titles()).toEqual([])
  })

  test('goes on after a statement in it that failed and was caught', () => {
    db.transaction(() => {
      add('a')
      expect(
        errorOf(() => db.messages.create({ conversation_id: 'x', role: 'user', content: '' })).code,
      ).toBe('INVALID_VALUE')
      add('b')
    })
    expect(titles()).toEqual(['a', 'b'])
  })

  test('of an async function is refused, and nothing of it happens, now or later', async () => {
    let resume: () => void = () => undefined
    const gate = new Promise<void>((resolve) => {
      resume = resolve
    })
    const finished: string[] = []
    const error = errorOf(() =>
      db.transaction(async () => {
        add('at once')
        await gate
        finished.push('went on')
        add('later')
      }),
    )
    expect(error).toMatchObject({ code: 'TRANSACTION_MISUSE' })
    resume()
    await gate
    await Promise.resolve()
    expect(titles()).toEqual([])
    expect(finished).toEqual([])
  })

  test('of a function that gives a promise is refused and rolled back', async () => {
    const error = errorOf(() =>
      db.transaction(() => {
        add('at once')
        return Promise.reject(new Error('unheard'))
      }),
    )
    expect(error).toMatchObject({ code: 'TRANSACTION_MISUSE' })
    expect(titles()).toEqual([])
  })

  test('is one unit of sync with a random id; each write outside is one of its own', () => {
    db.transaction(() => {
      add('a')
      db.transaction(() => add('b'))
    })
    add('c')
    add('d')
    const numbers = logOf(db).map(({ tx }) => tx)
    expect(numbers[0]).toBe(numbers[1])
    expect(new Set(numbers).size).toBe(3)
    expect(numbers).toEqual(numbers.toSorted((a, b) => a - b))
    const units = connectionOf(db).all<{ seq: number; id: string; clock: number }>(
      'SELECT seq, id, clock FROM sync_tx ORDER BY seq',
    )
    expect(units.map(({ seq }) => seq)).toEqual([...new Set(numbers)])
    expect(new Set(units.map(({ id }) => id)).size).toBe(3)
    expect(units.every(({ id }) => /^[0-9a-f]{32}$/.test(id))).toBe(true)
    const clocks = units.map(({ clock }) => clock)
    expect(clocks).toEqual([...new Set(clocks)].toSorted((a, b) => a - b))
  })

  test('that only reads leaves no gap in the numbers', () => {
    add('a')
    db.transaction(() => titles())
    add('b')
    const [first, second] = logOf(db).map(({ tx }) => tx)
    expect(second).toBe((first ?? 0) + 1)
  })

  test('gives its number to the next one when it rolls back, with another id', () => {
    const id = (): string | undefined =>
      connectionOf(db).get<{ id: string }>('SELECT id FROM sync_tx')?.id
    let lost: string | undefined
    expect(() =>
      db.transaction(() => {
        add('a')
        lost = id()
        throw new Error('no')
      }),
    ).toThrow('no')
    add('b')
    expect(logOf(db).map(({ tx }) => tx)).toEqual([1])
    expect(id()).not.toBe(lost)
  })
})

describe('two connections on one file', () => {
  const open = (path: string): Connection =>
    new Connection({ path, synchronous: 'normal', busyTimeoutMs: 100 })

  test('one that reads and then writes does not fail because the other has committed between', async () => {
    using folder = scratchFolder()
    const path = folder.file('agent.db')
    await using mine = await AgentDB.open({ path })
    const theirs = open(path)
    try {
      const seen: number[] = []
      mine.transaction(() => {
        seen.push(mine.conversations.list().length)
        // The other one has to wait for us: whoever begins, begins to write.
        expect(errorOf(() => theirs.transaction(() => undefined))).toMatchObject({
          code: 'STORE_BUSY',
        })
        mine.conversations.create({ title: 'mine' })
      })
      for (let i = 0; i < 20; i++) {
        theirs.transaction(() => theirs.run('UPDATE conversations SET title = ?', `theirs ${i}`))
        mine.transaction(() => {
          const [row] = mine.conversations.list()
          expect(row?.title).toBe(`theirs ${i}`)
          mine.conversations.update(row?.id ?? '', { description: String(i) })
        })
      }
      expect(seen).toEqual([0])
    } finally {
      theirs.close()
    }
  })

  test('a write that has to wait too long says that the store is busy, and works afterwards', async () => {
    using folder = scratchFolder()
    const path = folder.file('agent.db')
    await using mine = await AgentDB.open({ path, busyTimeoutMs: 1 })
    const theirs = open(path)
    try {
      theirs.transaction(() => {
        expect(errorOf(() => mine.conversations.create({}))).toMatchObject({ code: 'STORE_BUSY' })
        expect(mine.conversations.list()).toEqual([])
      })
      expect(mine.conversations.create({ title: 'now' }).title).toBe('now')
    } finally {
      theirs.close()
    }
  })
})

describe('what is kept for sync', () => {
  test('a patch holds the changed columns, before and after, and whole groups', () => {
    const row = db.incidents.create({ title: 'a', severity: 'low', source: 's' })
    acknowledgeAll(db)
    db.incidents.update(row.id, { title: 'b', severity: 'low' })
    db.incidents.update(row.id, { status: 'acknowledged' })
    const [first, second] = logOf(db)
    expect(first).toMatchObject({ op: 'update', pushed: true, id: row.id })
    expect(first?.patch).toEqual({ title: 'b' })
    expect(first?.before).toEqual({ title: 'a' })
    const times = { acknowledged_at: null, resolved_at: null, closed_at: null }
    expect(second?.patch).toEqual({
      status: 'acknowledged',
      detected_at: row.detected_at,
      ...times,
    })
    expect(second?.before).toEqual({ status: 'open', detected_at: row.detected_at, ...times })
  })

  test('an insert is logged with all that is sent, never with what is derived', () => {
    const row = db.conversations.create({ title: 'a', tags: ['x'] })
    const [logged] = logOf(db)
    expect(logged).toMatchObject({ op: 'insert', id: row.id, table: 'conversations', before: null })
    expect(logged?.patch).toMatchObject({ title: 'a', tags: '["x"]', user_id: db.userId })
    for (const derived of ['message_count', 'total_tokens', 'last_message_at', 'updated_at'])
      expect(logged?.patch).not.toHaveProperty(derived)
  })

  test('the authoritative image is the row before its first mutation, and stays so', () => {
    const row = db.incidents.create({ title: 'a', severity: 'low', source: 's' })
    expect(baseOf(db, 'incidents', row.id)).toBeUndefined()
    acknowledgeAll(db)
    db.incidents.update(row.id, { title: 'b' })
    const base = baseOf(db, 'incidents', row.id)
    expect(base).toMatchObject({ title: 'a', updated_at: row.updated_at, status: 'open' })
    db.incidents.update(row.id, { title: 'c', status: 'closed' })
    db.incidents.delete(row.id)
    expect(baseOf(db, 'incidents', row.id)).toEqual(base)
  })

  test('of two rows of two tables that share an id, each keeps its own image', async () => {
    const row = db.incidents.create({ title: 'a', severity: 'low', source: 's' })
    acknowledgeAll(db)
    await db.embeddings.put({ id: row.id, collection: 'incident_knowledge', content: 'what a is' })
    db.incidents.update(row.id, { title: 'b' })
    expect(baseOf(db, 'incidents', row.id)).toMatchObject({ title: 'a' })
    acknowledgeAll(db)
    await db.embeddings.put({ id: row.id, collection: 'incident_knowledge', content: 'changed' })
    db.incidents.update(row.id, { title: 'c' })
    expect(baseOf(db, 'embeddings', row.id)).toMatchObject({ content_preview: 'what a is' })
    expect(baseOf(db, 'incidents', row.id)).toMatchObject({ title: 'b' })
  })

  test('a message keeps the image of its conversation, whose statistics are never sent', () => {
    const c = db.conversations.create({})
    acknowledgeAll(db)
    db.messages.create({ conversation_id: c.id, role: 'user', content: '', tokens_used: 4 })
    expect(baseOf(db, 'conversations', c.id)).toMatchObject({ message_count: 0, total_tokens: 0 })
    expect(logOf(db).map(({ table, op }) => `${op} ${table}`)).toEqual(['insert messages'])
  })

  test('rows that go because their parent went are logged, kept for undo and never pushed', () => {
    const c = db.conversations.create({})
    const [first] = db.messages.createMany(
      ['a', 'b'].map((content) => ({ conversation_id: c.id, role: 'user', content })),
    )
    acknowledgeAll(db)
    db.conversations.delete(c.id)
    const log = logOf(db)
    expect(log.filter(({ pushed }) => pushed).map(({ table, op }) => `${op} ${table}`)).toEqual([
      'delete conversations',
    ])
    expect(log.filter(({ table }) => table === 'messages').map(({ op }) => op)).toEqual([
      'delete',
      'delete',
    ])
    expect(new Set(log.map(({ tx }) => tx)).size).toBe(1)
    expect(baseOf(db, 'messages', first?.id ?? '')).toMatchObject({ content: 'a' })
  })

  test('references that are set to NULL because their row went are logged and never pushed', () => {
    const c = db.conversations.create({})
    const parent = db.messages.create({ conversation_id: c.id, role: 'user', content: 'p' })
    const child = db.messages.create({
      conversation_id: c.id,
      role: 'user',
      content: 'c',
      parent_message_id: parent.id,
    })
    const incident = db.incidents.create({ title: 't', severity: 'low', source: 's' })
    const runbook = db.runbooks.create({ name: 'r', steps: [] })
    const execution = db.runbookExecutions.create({
      runbook_id: runbook.id,
      incident_id: incident.id,
    })
    acknowledgeAll(db)
    db.messages.delete(parent.id)
    db.incidents.delete(incident.id)
    expect(db.messages.find(child.id)?.parent_message_id).toBeNull()
    expect(db.runbookExecutions.find(execution.id)?.incident_id).toBeNull()
    expect(logOf(db).map(({ op, id, patch, pushed }) => ({ op, id, patch, pushed }))).toEqual(
      expect.arrayContaining([
        { op: 'delete', id: parent.id, patch: null, pushed: true },
        { op: 'update', id: child.id, patch: { parent_message_id: null }, pushed: false },
        { op: 'delete', id: incident.id, patch: null, pushed: true },
        { op: 'update', id: execution.id, patch: { incident_id: null }, pushed: false },
      ]),
    )
    expect(logOf(db)).toHaveLength(4)
    expect(baseOf(db, 'messages', child.id)).toMatchObject({ parent_message_id: parent.id })
  })

  test('a user’s own setting of a reference to NULL is pushed', () => {
    const incident = db.incidents.create({
      title: 't',
      severity: 'low',
      source: 's',
      assigned_to: db.userId,
    })
    acknowledgeAll(db)
    db.incidents.update(incident.id, { assigned_to: null })
    expect(logOf(db)).toEqual([
      expect.objectContaining({ patch: { assigned_to: null }, pushed: true }),
    ])
  })
})

describe('raw SQL on the store', () => {
  test('REPLACE logs the row that it removes, also where it collides on another key', () => {
    const [a, b] = [
      db.runbooks.create({ name: 'a', steps: [] }),
      db.runbooks.create({ name: 'b', steps: [] }),
    ]
    acknowledgeAll(db)
    const connection = connectionOf(db)
    connection.transaction(() =>
      connection.run(`REPLACE INTO runbooks (id, name, steps) VALUES (?, 'b', '[1]')`, a.id),
    )
    expect(db.runbooks.list().map(({ id, name }) => [id, name])).toEqual([[a.id, 'b']])
    expect(
      logOf(db)
        .map(({ op, id }) => `${op} ${id}`)
        .toSorted(),
    ).toEqual([`delete ${a.id}`, `delete ${b.id}`, `insert ${a.id}`].toSorted())
    expect(baseOf(db, 'runbooks', b.id)).toMatchObject({ name: 'b' })
    expect(baseOf(db, 'runbooks', a.id)).toMatchObject({ name: 'a' })
  })

  test('an update sets updated_at and keeps the image from before it', () => {
    const row = db.incidents.create({
      title: 'a',
      severity: 'low',
      source: 's',
    })
    acknowledgeAll(db)
    connectionOf(db).applying(() =>
      connectionOf(db).run(`UPDATE incidents SET updated_at = '2001-01-01T00:00:00.000000Z'`),
    )
    const connection = connectionOf(db)
    connection.transaction(() =>
      connection.run(`UPDATE incidents SET title = 'b' WHERE id = ?`, row.id),
    )
    expect(db.incidents.find(row.id)?.updated_at).not.toBe('2001-01-01T00:00:00.000000Z')
    expect(baseOf(db, 'incidents', row.id)).toMatchObject({
      title: 'a',
      updated_at: '2001-01-01T00:00:00.000000Z',
    })
    expect(logOf(db).map(({ patch }) => patch)).toEqual([{ title: 'b' }])
  })

  test('what an agent may not write is refused by the store itself', () => {
    const c = db.conversations.create({})
    const message = db.messages.create({ conversation_id: c.id, role: 'user', content: 'said' })
    db.auditLogs.create({ action: 'login', resource_type: 'x' })
    acknowledgeAll(db)
    const connection = connectionOf(db)
    for (const sql of [
      `UPDATE users SET role = 'admin'`,
      `UPDATE users SET deleted_at = created_at`,
      `DELETE FROM users`,
      `INSERT INTO users (email, username) VALUES ('a@b.co', 'abc')`,
      `INSERT INTO sessions (user_id, ip_address, expires_at) SELECT id, '::1', '2999-01-01T00:00:00.000000Z' FROM users`,
      `UPDATE messages SET content = 'unsaid'`,
      `UPDATE conversations SET id = '${message.id}'`,
      `UPDATE conversations SET user_id = '${message.id}'`,
      `UPDATE audit_logs SET action = 'logout'`,
      `DELETE FROM audit_logs`,
    ]) {
      const { code } = errorOf(() => connection.transaction(() => connection.run(sql)))
      expect([sql, code]).toEqual([sql, 'READ_ONLY_TABLE'])
    }
    expect(logOf(db)).toEqual([])
    expect(db.messages.find(message.id)?.content).toBe('said')
  })
})
