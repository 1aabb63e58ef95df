import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { agentColumns } from '../../schema/define.ts'
import { mustTable } from '../../schema/tables.ts'
import { readIdentity } from '../../src/internal-for-sync.ts'
import { applyBatch } from '../../sync/client/apply-batch.ts'
import type { PullResponse } from '../../sync/protocol/messages.ts'
import { Fleet, type TestAgent } from '../support/fleet.ts'

let fleet: Fleet
let a: TestAgent
let b: TestAgent
let conversationId: string

beforeAll(async () => {
  fleet = await Fleet.start()
})
afterAll(() => fleet[Symbol.asyncDispose]())
beforeEach(async () => {
  await fleet.clear()
  const userId = await fleet.addUser()
  a = await fleet.addAgent(userId)
  b = await fleet.addAgent(userId)
  conversationId = a.db.conversations.create({ title: 'x' }).id
})

describe('statistics of a conversation', () => {
  test('count a message once that two agents deleted, while the later delete is pending', async () => {
    const say = (content: string): string =>
      a.db.messages.create({
        conversation_id: conversationId,
        role: 'user',
        content,
        tokens_used: 7,
      }).id
    const [first] = [say('first'), say('second')]
    for (const agent of [a, b, a]) await agent.sync()
    a.db.messages.delete(first)
    b.db.messages.delete(first)
    await b.sync()

    await a.pull()
    expect(a.engine.status().pending).toBe(1)
    expect(a.db.conversations.find(conversationId)).toMatchObject({
      message_count: 1,
      total_tokens: 7,
    })
  })

  test('count a message once that the centre has while its insert is pending here, as a copied store brought it', async () => {
    await a.sync()
    const { id } = a.db.messages.create({
      conversation_id: conversationId,
      role: 'user',
      content: 'of both',
      tokens_used: 7,
    })
    await fleet.sql(
      `INSERT INTO messages (id, conversation_id, role, content, tokens_used, sequence_number) VALUES (?, ?, 'user', 'of both', 7, 1)`,
      id,
      conversationId,
    )

    await a.pull()
    expect(a.engine.status().pending).toBe(1)
    const once = { message_count: 1, total_tokens: 7 }
    expect(a.db.conversations.find(conversationId)).toMatchObject(once)
    a.db.messages.delete(id)
    await fleet.sql('UPDATE conversations SET title = ? WHERE id = ?', 'new', conversationId)
    await a.pull()
    expect(a.db.conversations.find(conversationId)).toMatchObject({
      message_count: 0,
      title: 'new',
    })
  })

  test('leave out a message that is deleted here, also when its conversation was given away and came back', async () => {
    const other = await fleet.addUser()
    const message = { conversation_id: conversationId, role: 'user', tokens_used: 7 } as const
    const { id } = a.db.messages.create({ ...message, content: 'deleted' })
    for (const agent of [a, b, a]) await agent.sync()
    a.db.messages.delete(id)
    const give = (to: string): Promise<unknown> =>
      fleet.sql('UPDATE conversations SET user_id = ? WHERE id = ?', to, conversationId)
    await give(other)
    await a.pull()
    expect(a.db.conversations.find(conversationId)).toBeUndefined()
    await give(a.userId)

    await a.pull()
    expect(a.engine.status().pending).toBe(1)
    expect(a.db.messages.list()).toEqual([])
    expect(a.db.conversations.find(conversationId)).toMatchObject({
      message_count: 0,
      total_tokens: 0,
    })
  })

  test('do not take off again a message that a whole scope no longer has, by its last page', async () => {
    const message = { conversation_id: conversationId, role: 'user', tokens_used: 7 } as const
    const { id } = a.db.messages.create({ ...message, content: 'deleted' })
    await a.sync()
    a.db.messages.delete(id)
    const table = mustTable('conversations')
    const columns = [...agentColumns(table)]
    const { connection } = a
    const state = connection.get<{ nonce: string; position: number; cursor: string }>(
      'SELECT nonce, position, cursor FROM sync_state',
    )
    const row = connection.get<Record<string, string>>('SELECT * FROM conversations')
    if (state === undefined || row === undefined) throw new Error('the store is empty')
    const take = (first: boolean, last: boolean, rows: PullResponse['rows']): void => {
      const page = { first, last, rows: 1, total: 1 }
      const nothing = { gone: [], watermark: null, outcomes: [], conflicts: [] }
      const shapes = [{ table: table.number, columns }]
      const batch = { ...state, ...nothing, clock: 0, page, shapes, rows }
      applyBatch(connection, readIdentity(connection), batch, '2026-01-05T09:00:00.000000Z')
    }
    // As at the centre once another agent has deleted it, too.
    take(true, false, [[0, columns.map((name) => row[name] ?? null)]])
    take(false, true, [])

    expect(a.db.conversations.find(conversationId)).toMatchObject({
      message_count: 0,
      total_tokens: 0,
    })
  })

  test('leave out a message that was made and deleted here, whatever else arrives meanwhile', async () => {
    for (const agent of [a, b, a]) await agent.sync()
    const message = { conversation_id: conversationId, role: 'user', tokens_used: 3 } as const
    const { id } = a.db.messages.create({ ...message, content: 'mine' })
    a.db.messages.delete(id)
    b.db.messages.create({ ...message, content: 'theirs' })
    await b.sync()

    await a.pull()
    expect(a.db.conversations.find(conversationId)).toMatchObject({
      message_count: 1,
      total_tokens: 3,
    })
  })
})

test('a derived column that only raw SQL changed is as at the centre again after the next batch', async () => {
  for (const agent of [a, b, a]) await agent.sync()
  const before = a.db.conversations.find(conversationId)
  a.connection.run(`UPDATE conversations SET updated_at = '2001-01-01T00:00:00.000000Z'`)
  b.db.incidents.create({ title: 'other', severity: 'low', source: 'x' })
  await b.sync()

  await a.pull()
  expect(a.db.conversations.find(conversationId)).toEqual(before)
  expect(a.connection.all('SELECT * FROM sync_base')).toEqual([])
})
