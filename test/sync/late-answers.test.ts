import { afterEach, beforeEach, expect, test } from 'vitest'
import { AgentDBError } from '../../schema/errors.ts'
import { systemClock } from '../../schema/values/timestamp.ts'
import type { AgentDB } from '../../src/index.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import { formerClients } from '../../sync/client/fork-store.ts'
import { SyncEngine } from '../../sync/client/sync-engine.ts'
import type { Transport } from '../../sync/client/transport.ts'
import type { HealRequest, HealResponse } from '../../sync/protocol/messages.ts'
import { emptyBatch, refuse } from '../support/canned-pulls.ts'
import { connectionOf, openStore } from '../support/store.ts'

let db: AgentDB
let connection: Connection
let engine: SyncEngine | undefined

beforeEach(async () => {
  db = await openStore()
  connection = connectionOf(db)
})
afterEach(async () => {
  await engine?.close()
  await db.close()
})

const introduce: Transport['introduce'] = async () => ({ seq: 0 })

function engineWith(transport: Pick<Transport, 'pull' | 'heal'>): SyncEngine {
  engine = new SyncEngine({
    connection,
    transport: { push: refuse, checksum: refuse, introduce, ...transport },
    clock: systemClock,
    random: () => 0,
    checkToken: async () => undefined,
    pullWaitMs: 1e3,
    retryMinMs: 10,
    retryMaxMs: 10,
  })
  return engine
}

/** Where a store stands that another pull has brought there. */
const stand = (nonce: string, position: number): unknown =>
  connection.run(
    'UPDATE sync_state SET nonce = ?, position = ?, cursor = ?, provisional = 0',
    nonce,
    position,
    `cursor-${position}`,
  )

/** What a batch at a position of a history has acknowledged. */
const keep = (nonce: string, position: number): unknown =>
  connection.run(
    `INSERT INTO sync_kept_tx (seq, id, clock, nonce, position, acked_nonce, acked_position, acked_at) VALUES (1, 'kept', 1, NULL, 0, ?, ?, 1)`,
    nonce,
    position,
  )

const plan = (decision: HealResponse['decision']): HealResponse =>
  decision === 'not_needed'
    ? { decision, fork: null, nonce: null, position: 0, after: null, seq: 0 }
    : { decision, fork: 'second', nonce: 'first', position: 2, after: null, seq: 0 }

test('an answer of a new history does not follow what came of the old one since it was asked for', async () => {
  stand('first', 1)
  const asked: (string | undefined)[] = []
  await engineWith({
    heal: refuse,
    pull: async ({ cursor }) => {
      asked.push(cursor)
      // The new history went on from 1 and has no 3; only who asks from there hears of it.
      if (asked.length === 1) stand('first', 3)
      return emptyBatch('second', asked.length + 7)
    },
  }).now()
  expect(asked).toEqual(['cursor-1', 'cursor-3'])
})

test('a store that has seen more by the time it hears what to do asks again', async () => {
  stand('first', 2)
  const asked: HealRequest['histories'][] = []
  let isHealed = false
  await engineWith({
    heal: async ({ histories }) => {
      asked.push(histories)
      if (asked.length > 1) {
        isHealed = true
        return plan('all')
      }
      stand('first', 4)
      keep('first', 4)
      return plan('not_needed')
    },
    pull: async () => {
      if (!isHealed) throw new AgentDBError('FORKED', 'the centre went back')
      return { ...emptyBatch('second', 3), page: { first: true, last: true, rows: 0, total: 0 } }
    },
  }).now()
  expect(asked.slice(0, 2)).toEqual([
    [{ nonce: 'first', position: 2 }],
    [{ nonce: 'first', position: 4 }],
  ])
  expect(connection.all('SELECT id FROM sync_kept_tx')).toEqual([])
  // It became another client once: by what it heard last.
  expect(formerClients(connection)).toHaveLength(1)
})

test('a store without a cursor asks whether the centre still has what it keeps before it reads the scope', async () => {
  stand('first', 2)
  keep('first', 2)
  connection.run('UPDATE sync_state SET cursor = NULL')
  const sync = engineWith({
    heal: async () => plan('waiting'),
    pull: async () => ({
      ...emptyBatch('second', 3),
      page: { first: true, last: true, rows: 0, total: 0 },
    }),
  })
  await expect(sync.now()).rejects.toMatchObject({ code: 'HEALING_PENDING' })
  expect(connection.get('SELECT nonce, position, cursor FROM sync_state')).toEqual({
    nonce: 'first',
    position: 2,
    cursor: null,
  })
})
