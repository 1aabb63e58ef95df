/* oxlint-disable unicorn/consistent-function-scoping -- a helper stands beside the tests that it helps */
import { setImmediate, setTimeout } from 'node:timers/promises'

import Database from 'better-sqlite3'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { AgentDB, AgentDBError } from '../../src/index.ts'
import { asCentre, connectionOf, errorOf, openStore, scratchFolder } from '../support/store.ts'

const words = ['wolf', 'bear', 'lynx', 'otter'] as const
type Word = (typeof words)[number]

const found = async (db: AgentDB, text: string, collection: 'messages' | 'code_embeddings') =>
  (await db.search({ collection, text, mode: 'text', k: 1000 })).map(({ id }) => id).toSorted()

/** Messages of one word each, in a conversation of their own. */
function sayMany(db: AgentDB, count: number): void {
  const { id } = db.conversations.create({})
  db.messages.createMany(
    Array.from({ length: count }, () => ({
      conversation_id: id,
      role: 'user' as const,
      content: 'lynx',
    })),
  )
}

/** Ids of the rows that have the word, by a scan. */
const scanned = (db: AgentDB, table: 'messages' | 'embeddings', word: Word): string[] =>
  connectionOf(db)
    .all<{ id: string }>(`SELECT id FROM ${table} WHERE instr(content, ?) > 0 ORDER BY id`, word)
    .map(({ id }) => id)

const aText = fc
  .array(fc.constantFrom(...words), { minLength: 1, maxLength: 3 })
  .map((chosen) => chosen.join(' '))
const anOperation = fc.oneof(
  fc.record({ kind: fc.constant('add' as const), texts: fc.array(aText, { maxLength: 8 }) }),
  fc.record({ kind: fc.constant('embed' as const), text: aText }),
  fc.record({
    kind: fc.constantFrom('edit' as const, 'centre-edit' as const, 'centre-add' as const),
    place: fc.nat(),
    text: aText,
  }),
  fc.record({
    kind: fc.constantFrom(
      'delete' as const,
      'delete-last' as const,
      'delete-conversation' as const,
      'delete-embedding' as const,
      'centre-delete' as const,
      'undone' as const,
    ),
    place: fc.nat(),
  }),
  fc.record({ kind: fc.constant('search' as const), word: fc.constantFrom(...words) }),
)

type Operation = typeof anOperation extends fc.Arbitrary<infer T> ? T : never

const pick = <T>(list: readonly T[], place: number): T | undefined => list[place % list.length]

async function carryOut(db: AgentDB, other: AgentDB, operation: Operation): Promise<void> {
  const messages = db.messages.list({ orderBy: { created_at: 'asc' } })
  switch (operation.kind) {
    case 'add': {
      const conversation = other.conversations.list()[0] ?? other.conversations.create({})
      const writer = operation.texts.length % 2 === 0 ? db : other
      writer.messages.createMany(
        operation.texts.map((content) => ({
          conversation_id: conversation.id,
          role: 'user' as const,
          content,
        })),
      )
      return
    }
    case 'embed':
      await db.embeddings.put({ collection: 'code_embeddings', content: operation.text })
      return
    case 'edit': {
      const row = pick(db.embeddings.list(), operation.place)
      if (row === undefined) return
      const { id, collection } = row
      await other.embeddings.put({ id, collection: collection as never, content: operation.text })
      return
    }
    case 'centre-edit': {
      const row = pick(messages, operation.place)
      if (row === undefined) return
      asCentre(other, 'UPDATE messages SET content = ? WHERE id = ?', operation.text, row.id)
      return
    }
    case 'centre-add': {
      const row = pick(messages, operation.place)
      if (row === undefined) return
      const sql = `INSERT INTO messages (conversation_id, role, content, sequence_number) VALUES (?, 'user', ?, 9)`
      asCentre(other, sql, row.conversation_id, operation.text)
      return
    }
    case 'delete':
    case 'centre-delete': {
      const row = pick(messages, operation.place)
      if (row === undefined) return
      if (operation.kind === 'delete') db.messages.delete(row.id)
      else asCentre(other, 'DELETE FROM messages WHERE id = ?', row.id)
      return
    }
    case 'delete-last':
      // What comes next gets the rowid of what is gone.
      connectionOf(other).run(
        'DELETE FROM messages WHERE rowid > (SELECT max(rowid) FROM messages) - ?',
        1 + (operation.place % 3),
      )
      return
    case 'delete-conversation': {
      const row = pick(db.conversations.list(), operation.place)
      if (row !== undefined && operation.place % 4 === 0) other.conversations.delete(row.id)
      return
    }
    case 'delete-embedding': {
      const row = pick(db.embeddings.list(), operation.place)
      if (row !== undefined) db.embeddings.delete(row.id)
      return
    }
    case 'undone':
      errorOf(() =>
        db.transaction(() => {
          const { id } = db.conversations.create({})
          db.messages.create({ conversation_id: id, role: 'user', content: words.join(' ') })
          for (const row of messages.slice(-2)) db.messages.delete(row.id)
          throw new AgentDBError('INVALID_VALUE', 'undone')
        }),
      )
      return
    case 'search':
      expectAll(await lookFor(db, operation.word))
  }
}

/** What search finds of a word, beside what a scan finds. */
async function lookFor(
  db: AgentDB,
  word: Word,
): Promise<{ found: string[][]; scanned: string[][] }> {
  const parts = await db.search({
    collection: 'code_embeddings',
    text: word.slice(0, 3),
    match: 'substring',
    mode: 'text',
    k: 1000,
  })
  const begun = await db.search({
    collection: 'messages',
    text: word.slice(0, 3),
    match: 'prefix',
    k: 1000,
  })
  const messages = scanned(db, 'messages', word)
  const embeddings = scanned(db, 'embeddings', word)
  return {
    found: [
      await found(db, word, 'messages'),
      begun.map(({ id }) => id).toSorted(),
      await found(db, word, 'code_embeddings'),
      parts.map(({ id }) => id).toSorted(),
    ],
    scanned: [messages, messages, embeddings, embeddings],
  }
}

const expectAll = (looked: { found: string[][]; scanned: string[][] }): void =>
  expect(looked.found).toEqual(looked.scanned)

describe('a full-text index', () => {
  test('finds what a scan finds, whoever adds, edits and deletes: this process, another, the centre', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(anOperation, { minLength: 5, maxLength: 30 }),
        async (operations) => {
          using folder = scratchFolder()
          const path = folder.file('agent.db')
          await using db = await AgentDB.open({ path })
          await using other = await AgentDB.open({ path })
          for (const operation of operations) await carryOut(db, other, operation)
          for (const word of words) {
            const looked = await lookFor(other, word)
            expect(looked.found).toEqual(looked.scanned)
          }
        },
      ),
      { numRuns: 25 },
    )
  })

  test('has a row that got the rowid of one which was gone before the index was made', async () => {
    await using db = await openStore()
    const { id } = db.conversations.create({})
    const say = (content: string): string =>
      db.messages.create({ conversation_id: id, role: 'user', content }).id
    const [first, second] = [say('wolf one'), say('wolf two')]
    db.messages.delete(first)
    expectAll(await lookFor(db, 'wolf'))
    db.messages.delete(second)
    const third = say('wolf three')
    expect(await found(db, 'wolf', 'messages')).toEqual([third])
    const fourth = say('wolf four')
    db.messages.delete(third)
    expect(await found(db, 'wolf', 'messages')).toEqual([fourth])
  })

  test('costs an insert nothing: no trigger waits for one, and none is made before the first search', async () => {
    await using db = await openStore()
    const objects = (): string[] =>
      connectionOf(db)
        .all<{ sql: string }>(
          `SELECT sql FROM sqlite_master WHERE name LIKE 'search\\_%' ESCAPE '\\' AND sql IS NOT NULL`,
        )
        .map(({ sql }) => sql)
    expect(objects()).toEqual([])
    await db.search({ collection: 'messages', text: 'x' })
    const triggers = objects().filter((sql) => sql.startsWith('CREATE TRIGGER'))
    expect(triggers).toHaveLength(2)
    for (const sql of triggers) expect(sql).not.toMatch(/ON messages[^;]*INSERT ON|AFTER INSERT/)
  })

  test('holds after VACUUM, in a copy that VACUUM made, and after a change of the schema', async () => {
    using folder = scratchFolder()
    const path = folder.file('agent.db')
    const db = await AgentDB.open({ path })
    const { id } = db.conversations.create({})
    const rows = db.messages.createMany(
      Array.from({ length: 50 }, (_, i) => ({
        conversation_id: id,
        role: 'user' as const,
        content: `${words[i % 4]} ${i}`,
      })),
    )
    expectAll(await lookFor(db, 'wolf'))
    for (const row of rows.slice(0, 31)) db.messages.delete(row.id)
    connectionOf(db).exec('VACUUM')
    expectAll(await lookFor(db, 'wolf'))
    connectionOf(db).exec(`VACUUM INTO '${folder.file('copy.db')}'`)
    connectionOf(db).exec('CREATE INDEX mine ON messages (role, content)')
    for (const word of words) expectAll(await lookFor(db, word))
    await db.close()
    await using copy = await AgentDB.open({ path: folder.file('copy.db') })
    copy.messages.create({ conversation_id: id, role: 'user', content: 'wolf at last' })
    for (const word of words) {
      const looked = await lookFor(copy, word)
      expect(looked.found).toEqual(looked.scanned)
    }
  })

  test('that another process keeps from being written still finds everything', async () => {
    using folder = scratchFolder()
    const path = folder.file('agent.db')
    await using db = await AgentDB.open({ path })
    const { id } = db.conversations.create({})
    const [first, second, third] = db.messages.createMany(
      ['wolf one', 'wolf two', 'bear three'].map((content) => ({
        conversation_id: id,
        role: 'user' as const,
        content,
      })),
    )
    expectAll(await lookFor(db, 'wolf'))
    db.messages.delete(first?.id ?? '')
    db.messages.create({ conversation_id: id, role: 'user', content: 'wolf four' })
    asCentre(db, `UPDATE messages SET content = 'wolf now' WHERE id = ?`, third?.id ?? '')
    const blocker = new Database(path)
    blocker.exec('BEGIN IMMEDIATE')
    const whileBlocked = await found(db, 'wolf', 'messages')
    const neverIndexed = await db.search({ collection: 'conversations', text: 'x' })
    blocker.exec('ROLLBACK')
    blocker.close()
    expect(whileBlocked).toEqual(scanned(db, 'messages', 'wolf'))
    expect(whileBlocked).toHaveLength(3)
    expect(whileBlocked).toContain(second?.id)
    expect(neverIndexed).toEqual([])
    expectAll(await lookFor(db, 'bear'))
  })

  test('that is damaged is made anew', async () => {
    using folder = scratchFolder()
    const path = folder.file('agent.db')
    const db = await AgentDB.open({ path })
    const { id } = db.conversations.create({})
    const row = db.messages.create({ conversation_id: id, role: 'user', content: 'otter' })
    expect(await found(db, 'otter', 'messages')).toEqual([row.id])
    await db.close()
    const raw = new Database(path)
    raw.unsafeMode(true)
    raw.exec(`UPDATE search_messages_data SET block = x'ffffffffffffffffffff'`)
    raw.close()

    await using again = await AgentDB.open({ path })
    again.messages.create({ conversation_id: id, role: 'user', content: 'otter and otter' })
    expect(await found(again, 'otter', 'messages')).toHaveLength(2)
    for (const word of words) expectAll(await lookFor(again, word))
  })

  test('follows the writer without a search', async () => {
    await using db = await openStore()
    await db.search({ collection: 'messages', text: 'x' })
    sayMany(db, 3000)
    const upto = (): number | undefined =>
      connectionOf(db).get<{ upto: number }>('SELECT upto FROM search_index')?.upto
    expect(upto()).toBe(0)
    await expect.poll(upto, { timeout: 10_000 }).toBe(3000)
  })

  test('that a search in a transaction asks for is made after it, whether it is taken back or not', async () => {
    using folder = scratchFolder()
    await using db = await AgentDB.open({ path: folder.file('agent.db'), busyTimeoutMs: 1234 })
    const { id } = db.conversations.create({})
    const asked: Promise<string[]>[] = []
    const sayAndLook = (content: string): void => {
      db.messages.create({ conversation_id: id, role: 'user', content })
      asked.push(found(db, 'wolf', 'messages'))
    }
    errorOf(() =>
      db.transaction(() => {
        sayAndLook('wolf one')
        throw new AgentDBError('INVALID_VALUE', 'undone')
      }),
    )
    expect(await asked[0]).toEqual([])
    db.transaction(() => sayAndLook('wolf two'))
    expect(await asked[1]).toEqual(scanned(db, 'messages', 'wolf'))
    expect(await asked[1]).toHaveLength(1)
    expect(connectionOf(db).pragma('busy_timeout')).toBe(1234)
  })

  test('is brought up to date behind a writer who lets go of the lock only now and then', async () => {
    using folder = scratchFolder()
    const path = folder.file('agent.db')
    await using db = await AgentDB.open({ path })
    sayMany(db, 5000)
    await found(db, 'x', 'code_embeddings')
    const upto = (): number | undefined =>
      connectionOf(db).get<{ upto: number }>('SELECT upto FROM search_index WHERE idx = 1')?.upto
    const writer = new Database(path)
    const over = new AbortController()
    // Long enough for some attempts, and free until one of them has got on.
    const write = async (): Promise<void> => {
      while (!over.signal.aborted) {
        const before = upto()
        writer.exec('BEGIN IMMEDIATE')
        await setTimeout(35)
        writer.exec('ROLLBACK')
        while (!over.signal.aborted && upto() === before) await setImmediate()
      }
    }
    const writing = write()
    const results = await found(db, 'lynx', 'messages')
    over.abort()
    await writing
    writer.close()
    expect(results).toHaveLength(1000)
    expect(upto()).toBe(5000)
  })

  test('that cannot be written leaves the event loop free while what is newer is read', async () => {
    using folder = scratchFolder()
    const path = folder.file('agent.db')
    await using db = await AgentDB.open({ path })
    sayMany(db, 5000)
    expect(await found(db, 'lynx', 'messages')).toHaveLength(1000)
    asCentre(db, `UPDATE messages SET content = 'otter' WHERE rowid <= 450 OR rowid > 4550`)
    sayMany(db, 5000)
    const blocker = new Database(path)
    blocker.exec('BEGIN IMMEDIATE')
    const searches = [found(db, 'otter', 'messages'), found(db, 'otter', 'messages')]
    let isOver = false
    const turns = async (): Promise<number> => {
      for (let seen = 0; ; await setImmediate()) {
        if (isOver) return seen
        const sql = `SELECT 1 FROM sqlite_temp_schema WHERE name LIKE 'search_messages_newer_'`
        if (connectionOf(db).get(sql) !== undefined) seen += 1
      }
    }
    const counted = turns()
    const results = await Promise.all(searches)
    isOver = true
    blocker.close()
    for (const each of results) expect(each).toEqual(scanned(db, 'messages', 'otter'))
    expect(await counted).toBeGreaterThan(2)
    const left = connectionOf(db).get('SELECT 1 FROM sqlite_temp_schema')
    expect(left).toBeUndefined()
  })
})
