import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
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
