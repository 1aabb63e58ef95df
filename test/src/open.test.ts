import { execFile } from 'node:child_process'
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { promisify } from 'node:util'

import Database from 'better-sqlite3'
import { describe, expect, test } from 'vitest'

import { newId } from '../../schema/values/id.ts'
import { AgentDB } from '../../src/index.ts'
import { connectionOf, logOf, openStore, rejectionOf, scratchFolder } from '../support/store.ts'

const provisional = (userId: string): string => `${userId}@provisional.invalid`

describe('a new store', () => {
  test('works before it ever met the centre: its user is there, provisional, and not to be pushed', async () => {
    const userId = newId()
    await using db = await openStore({ userId })
    expect(db.userId).toBe(userId)
    expect(db.users.list()).toEqual([
      expect.objectContaining({ id: userId, email: provisional(userId), status: 'active' }),
    ])
    expect(logOf(db)).toEqual([])
    expect(db.conversations.create({ title: 't' }).user_id).toBe(userId)
  })

  test('without a user or an agent makes both up, each time others', async () => {
    await using a = await openStore()
    await using b = await openStore()
    expect(new Set([a.userId, b.userId, a.agentId, b.agentId]).size).toBe(4)
  })
})

describe('a store that was closed', () => {
  test('has its rows, its user, its agent and its queue when it is opened again', async () => {
    using folder = scratchFolder()
    const path = folder.file('agent.db')
    const first = await AgentDB.open({ path, agentId: 'copilot-1' })
    const row = first.conversations.create({ title: 'kept', tags: ['a'] })
    const log = logOf(first)
    await first.close()
    expect(first.isOpen).toBe(false)

    await using again = await AgentDB.open({ path, agentId: 'another' })
    expect([again.userId, again.agentId]).toEqual([first.userId, 'copilot-1'])
    expect(again.conversations.list()).toEqual([row])
    expect(logOf(again)).toEqual(log)
    expect(again.users.list()).toHaveLength(1)
  })

  test('is opened by its own user and refused to another, untouched', async () => {
    using folder = scratchFolder()
    const path = folder.file('agent.db')
    const userId = newId()
    await (await AgentDB.open({ path, userId })).close()
    const other = newId()
    const error = await rejectionOf(AgentDB.open({ path, userId: other }))
    expect(error).toMatchObject({ code: 'WRONG_USER' })
    expect(error.message).toContain(userId)
    await using db = await AgentDB.open({ path, userId })
    expect(db.users.list().map(({ id }) => id)).toEqual([userId])
  })
})

describe('a path that is no store', () => {
  test('is refused: text, a torn or damaged file, a database of someone else; and left as it was', async () => {
    using folder = scratchFolder()
    const text = folder.file('notes.txt')
    writeFileSync(text, 'These are my notes, not a database.\n'.repeat(200))
    const torn = folder.file('torn.db')
    await (await AgentDB.open({ path: torn })).close()
    truncateSync(torn, 6000)
    const damaged = folder.file('damaged.db')
    await (await AgentDB.open({ path: damaged })).close()
    const bytes = readFileSync(damaged)
    writeFileSync(damaged, bytes.fill(0xa5, 100, 20_000))
    const foreign = folder.file('foreign.db')
    const raw = new Database(foreign)
    raw.exec('CREATE TABLE theirs (id INTEGER)')
    raw.close()
    const codes: string[] = []
    for (const path of [text, torn, damaged, foreign])
      codes.push((await rejectionOf(AgentDB.open({ path }))).code)
    expect(codes).toEqual(Array(4).fill('STORE_CORRUPT'))
    expect(readFileSync(text, 'utf8')).toMatch(/^These are my notes/)
    const check = new Database(foreign, { readonly: true })
    expect(check.prepare('SELECT name FROM sqlite_master').all()).toEqual([{ name: 'theirs' }])
    check.close()
  })

  test('is refused: a folder, and a file in a folder that is not there', async () => {
    using folder = scratchFolder()
    mkdirSync(folder.file('sub'))
    for (const path of [folder.file('sub'), folder.file('none/agent.db')]) {
      const error = await rejectionOf(AgentDB.open({ path }))
      expect(error).toMatchObject({ code: 'INVALID_OPTION' })
      expect(error.message).toContain(path)
    }
  })
})

test.each([
  ['nothing', undefined],
  ['no path', {}],
  ['an empty path', { path: '' }],
  ['an option that is none', { path: ':memory:', file: 'x' }],
  ['a user that is no id', { path: ':memory:', userId: 'me' }],
  ['an agent with blanks', { path: ':memory:', agentId: 'a b' }],
  ['another kind of synchronous', { path: ':memory:', synchronous: 'off' }],
  ['an embed that is no function', { path: ':memory:', embed: 'model' }],
  ['a timeout below zero', { path: ':memory:', busyTimeoutMs: -1 }],
])('open with %s is refused', async (_, options) => {
  expect(await rejectionOf(AgentDB.open(options as never))).toMatchObject({
    code: 'INVALID_OPTION',
  })
})

test('settings are those of the options and of the rules of sync', async () => {
  using folder = scratchFolder()
  for (const [synchronous, value] of [
    [undefined, 1],
    ['normal', 1],
    ['full', 2],
  ] as const) {
    await using db = await AgentDB.open({ path: folder.file('agent.db'), synchronous })
    const settings = ['journal_mode', 'synchronous', 'foreign_keys', 'recursive_triggers']
    expect(settings.map((name) => connectionOf(db).pragma(name))).toEqual(['wal', value, 1, 1])
  }
})

test('several processes may make and open one store at the same moment, and all write to it', async () => {
  using folder = scratchFolder()
  const path = folder.file('agent.db')
  const program = `
    import { AgentDB } from ${JSON.stringify(new URL('../../src/index.ts', import.meta.url).href)}
    const db = await AgentDB.open({ path: process.argv[1] })
    for (let i = 0; i < 20; i++) db.conversations.create({ title: String(process.pid) })
    console.log(db.userId, db.agentId)
    await db.close()`
  const run = promisify(execFile)
  const args = ['--import', 'tsx', '--input-type=module', '-e', program, path]
  const results = await Promise.all([1, 2, 3].map(() => run(process.execPath, args)))
  expect(new Set(results.map(({ stdout }) => stdout.trim())).size).toBe(1)
  await using db = await AgentDB.open({ path })
  expect(db.conversations.list()).toHaveLength(60)
  expect(db.users.list()).toHaveLength(1)
  expect(logOf(db).map(({ tx }) => tx)).toEqual(Array.from({ length: 60 }, (_, i) => i + 1))
})
