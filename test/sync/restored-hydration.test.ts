import { afterAll, beforeAll, expect, test } from 'vitest'
import { sql } from 'kysely'
import { newId } from '../../schema/values/id.ts'
import { createUser, openAgent, type TestAgent } from '../support/centre.ts'
import { RestorableCentre } from '../support/restorable-centre.ts'
import { scratchFolder, type ScratchFolder } from '../support/store.ts'

let centre: RestorableCentre
let folder: ScratchFolder

beforeAll(async () => {
  centre = await RestorableCentre.start()
  folder = scratchFolder()
})
afterAll(async () => {
  folder[Symbol.dispose]()
  await centre[Symbol.asyncDispose]()
})

test('a store that has read half of its scope when the centre goes back keeps nothing of what that lost', async () => {
  const user = await createUser(centre)
  // Two conversations, and more messages than two pages hold.
  const [first, second] = [newId(), newId()]
  for (const id of [first, second])
    await centre.db
      .insertInto('conversations')
      .values({ id, user_id: user.id, title: 'long' })
      .execute()
  await sql`INSERT INTO messages (conversation_id, sequence_number, role, content)
    SELECT c::uuid, n, 'user', 'message ' || n FROM unnest(${[first, second]}::text[]) c, generate_series(1, 5010) n`.execute(
    centre.db,
  )
  const path = folder.file('agent.db')
  const open = (): Promise<TestAgent> => openAgent(centre, user, { path, agentId: 'reader' })
  /** Reads a page; then its process ends. */
  const readPage = async (): Promise<void> => {
    await using agent = await open()
    agent.sync.on('progress', () => void agent.sync.close())
    await Promise.allSettled([agent.sync.now()])
    expect(agent.sync.status().hydrating).toBe(true)
  }

  await readPage()
  await centre.backup()
  // On the second page, the first of its conversation.
  const lost = `00000000${newId().slice(8)}`
  await centre.db
    .insertInto('messages')
    .values({
      id: lost,
      conversation_id: second,
      role: 'user',
      content: 'lost',
      sequence_number: 6000,
    })
    .execute()
  await readPage()
  await centre.restore()

  await using agent = await open()
  await agent.sync.now()
  expect(agent.db.messages.find(lost)).toBeUndefined()
  const { local, central } = await agent.sync.checksums()
  expect(local).toEqual(central)
})
