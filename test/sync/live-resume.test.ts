import { expect, test } from 'vitest'
import { SyncEngine } from '../../sync/client/sync-engine.ts'
import type { Transport } from '../../sync/client/transport.ts'
import { systemClock } from '../../schema/values/timestamp.ts'
import { emptyBatch, refuse } from '../support/canned-pulls.ts'
import { connectionOf, openStore } from '../support/store.ts'

test('a stream whose batch could not be applied is asked for again from where the store stands', async () => {
  const db = await openStore()
  const connection = connectionOf(db)
  const stand = (nonce: string, position: number): unknown =>
    connection.run(
      'UPDATE sync_state SET nonce = ?, position = ?, cursor = ?, provisional = 0',
      nonce,
      position,
      `cursor-${position}`,
    )
  stand('first', 1)
  const asked: (string | undefined)[] = []
  let again: () => void = () => undefined
  const askedAgain = new Promise<void>((done) => (again = done))
  const transport: Transport = {
    pull: async () => emptyBatch('first', 1),
    push: refuse,
    checksum: refuse,
    introduce: refuse,
    heal: refuse,
    async *live({ cursor }, signal) {
      asked.push(cursor)
      // The centre was started twice, and a single pull has seen what the stream has not: the life in between.
      if (asked.length === 1) stand('second', 2)
      yield emptyBatch('third', asked.length + 4)
      if (asked.length === 2) again()
      await new Promise((done) => signal.addEventListener('abort', done))
    },
  }
  const engine = new SyncEngine({
    connection,
    transport,
    clock: systemClock,
    random: () => 0,
    checkToken: async () => undefined,
    pullWaitMs: 1e3,
    retryMinMs: 10,
    retryMaxMs: 10,
  })
  engine.start()
  await askedAgain
  expect(asked).toEqual(['cursor-1', 'cursor-2'])
  expect(engine.status().position).toBe(6)
  await engine.close()
  await db.close()
}, 10_000)
