import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { newId } from '../../../schema/values/id.ts'
import { systemClock } from '../../../schema/values/timestamp.ts'
import { SCHEMA_VERSION } from '../../../schema/version.ts'
import { Database } from '../../../server/postgres/database.ts'
import { prepareCentre } from '../../../server/postgres/prepare.ts'
import { Feed } from '../../../server/sync/feed.ts'
import { LogTail } from '../../../server/sync/log-tail.ts'
import { ClientBindings } from '../../../server/sync/principal.ts'
import { createDatabase, type TestDatabase } from '../../support/databases.ts'

let scratch: TestDatabase
let database: Database
const userId = newId()
const secret = Buffer.alloc(32, 7)
const never = new AbortController().signal

beforeAll(async () => {
  scratch = await createDatabase(inject('postgresUrl'), 'feed_wait')
  database = await Database.open({ url: scratch.url, folder: undefined, connectionsMax: 4 })
  await prepareCentre(database)
  await database.query(
    `INSERT INTO users (id, email, username, password_hash, status) VALUES ($1, 'a@example.org', 'anna', 'x', 'active')`,
    [userId],
  )
})

afterAll(async () => {
  await database.close()
  await scratch.drop()
})

const pullOf = (clientId: string, cursor: string | undefined, waitMs: number) => ({
  claims: { userId, agentId: 'agent' },
  clientId,
  cursor,
  schema: SCHEMA_VERSION,
  ackedSeq: 0,
  waitMs,
  signal: never,
})

test('a pull that comes when the server closes is answered at once and does not spin', async () => {
  const tail = new LogTail(database, 60_000)
  await tail.refresh()
  const feed = new Feed(database, tail, new ClientBindings(), secret, systemClock)
  const clientId = newId()
  const { cursor } = await feed.pull(pullOf(clientId, undefined, 0))
  // What the first contact itself wrote is read, so that the next pull has nothing to bring.
  const { cursor: settled } = await feed.pull(pullOf(clientId, cursor, 0))
  await tail.close()

  const answer = await feed.pull(pullOf(clientId, settled, 3_000_000))

  expect(answer.rows).toEqual([])
})

test('a batch made between the look and the wait ends the wait', async () => {
  const tail = new LogTail(database, 60_000)
  await tail.refresh()
  const seen = tail.head?.position ?? 0
  await database.query(`UPDATE users SET full_name = 'Anna' WHERE id = $1`, [userId])
  await tail.refresh()

  await tail.waitForBatch(seen, 3_000_000, never)

  expect(tail.head?.position).toBeGreaterThan(seen)
  await tail.close()
})
