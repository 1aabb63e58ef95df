import { sql } from 'kysely'
import { afterEach, beforeEach, expect, inject, test } from 'vitest'
import type { WireOutcome } from '../../sync/protocol/messages.ts'
import { newId } from '../../schema/values/id.ts'
import { createUser, startCentre, type Centre, type TestUser } from '../support/centre.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import {
  insert,
  newTransactionId,
  remove,
  update,
  wireClient,
  type WireClient,
  type WireMutation,
} from '../support/wire-client.ts'

/** More than any test sends: all of it is told to come back from before. */
const OFFERED = 100

let database: TestDatabase
let centre: Centre
let ada: TestUser
let eve: TestUser

beforeEach(async () => {
  database = await createDatabase(inject('postgresUrl'), 'heal_scope')
  centre = await startCentre({ databaseUrl: database.url })
  ada = await createUser(centre)
  eve = await createUser(centre)
})
afterEach(async () => {
  await centre[Symbol.asyncDispose]()
  await database.drop()
})

/** A client that says that it brings back what a restored centre lost; nobody can prove that it does not. */
async function healingClient(user: TestUser): Promise<WireClient> {
  const client = await wireClient(centre, user)
  const answer = await fetch(new URL('/sync/v1/introduce', centre.url), {
    method: 'POST',
    headers: { authorization: `Bearer ${client.token}`, 'content-type': 'application/json' },
    body: JSON.stringify({
      clientId: client.clientId,
      ancestor: { clientId: newId(), seq: 1, id: newTransactionId() },
      heal: { fork: newId(), offered: OFFERED, withheld: 0 },
    }),
  })
  expect(answer.status).toBe(200)
  return client
}

async function deletedSession(user: TestUser): Promise<string> {
  const id = newId()
  await sql`INSERT INTO sessions (id, user_id, token_hash, ip_address, expires_at)
    VALUES (${id}, ${user.id}, ${id}, '10.0.0.1', '2099-01-01')`.execute(centre.db)
  await sql`DELETE FROM sessions WHERE id = ${id}`.execute(centre.db)
  return id
}

async function deletedConversation(user: TestUser): Promise<string> {
  const id = newId()
  await sql`INSERT INTO conversations (id, user_id) VALUES (${id}, ${user.id})`.execute(centre.db)
  await sql`DELETE FROM conversations WHERE id = ${id}`.execute(centre.db)
  return id
}

test.each(['open', 'none'])(
  'who brings back what the centre lost cannot tell a row that another one deleted from one that never was: window %s',
  async (window) => {
    if (window === 'open')
      await sql`INSERT INTO sync.fork (nonce, common_position, decision, open_until)
        VALUES (${newId()}, 1, 'all', now() + interval '1 day')`.execute(centre.db)
    const client = await healingClient(ada)
    const own = newId()
    await client.push([[insert('conversations', { id: own, user_id: ada.id })]])
    /** What is told of a mutation that names a row, the name taken out. */
    const told = async (make: (named: string) => WireMutation, named: string): Promise<unknown> => {
      const mutation = make(named)
      const outcome: WireOutcome | undefined = await client.outcomeOf(mutation)
      if (outcome === undefined) return 'applied'
      const text = JSON.stringify({ ...outcome, seq: 0 })
      return text.replaceAll(named, 'NAMED').replaceAll(mutation.id, 'OWN')
    }
    const session = await deletedSession(eve)
    const talk = await deletedConversation(eve)
    const asked: [string, (named: string) => WireMutation, string][] = [
      [
        'optional reference of a new row',
        (named) => insert('conversations', { id: newId(), user_id: ada.id, session_id: named }),
        session,
      ],
      [
        'optional reference',
        (named) => update('conversations', own, { session_id: named }),
        session,
      ],
      [
        'parent',
        (named) =>
          insert('messages', {
            id: newId(),
            conversation_id: named,
            role: 'user',
            content: 'm',
            sequence_number: 1,
          }),
        talk,
      ],
      ['the row', (named) => update('conversations', named, { title: 't' }), talk],
      ['a delete', (named) => remove('conversations', named), talk],
    ]
    for (const [what, make, deleted] of asked) {
      const known = await told(make, deleted)
      expect([what, known]).toEqual([what, await told(make, newId())])
      // But for a delete, which a store may send before its row is back, none is taken.
      expect(known === 'applied').toBe(what === 'a delete' && window === 'open')
    }
  },
)

test('an optional reference to a row of its own that was deleted since is null when its row comes back', async () => {
  const client = await healingClient(ada)
  const id = newId()
  const session = await deletedSession(ada)
  const back = insert('conversations', { id, user_id: ada.id, session_id: session })
  expect(await client.outcomeOf(back)).toBeUndefined()
  const row = await centre.db
    .selectFrom('conversations')
    .select('session_id')
    .where('id', '=', id)
    .executeTakeFirst()
  expect(row).toEqual({ session_id: null })
})
