import { afterEach, beforeEach, expect, test } from 'vitest'
import type { StoredRow } from '../../schema/codec.ts'
import { agentColumns } from '../../schema/define.ts'
import { AgentDBError } from '../../schema/errors.ts'
import { mustTable } from '../../schema/tables.ts'
import { newId } from '../../schema/values/id.ts'
import { systemClock } from '../../schema/values/timestamp.ts'
import type { AgentDB } from '../../src/index.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import { formerClients } from '../../sync/client/fork-store.ts'
import { SyncEngine } from '../../sync/client/sync-engine.ts'
import type { Transport } from '../../sync/client/transport.ts'
import type { HealRequest, HealResponse, PullResponse } from '../../sync/protocol/messages.ts'
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

/** A whole scope in one page, or the first page of a longer one. */
const firstPage = (nonce: string, position: number, last: boolean): PullResponse => ({
  ...emptyBatch(nonce, position),
  page: { first: true, last, rows: 0, total: 0 },
})

const standing = (): unknown =>
  connection.get('SELECT nonce, position, cursor, page_cursor FROM sync_state')

test.each([
  { what: 'of the history before', late: firstPage('first', 5, true) },
  { what: 'of the history before, in several pages', late: firstPage('first', 5, false) },
  { what: 'of this history, in several pages', late: firstPage('second', 7, false) },
])(
  'a whole scope $what that was asked for earlier leaves the store where it is',
  async ({ late }) => {
    const asked: (string | undefined)[] = []
    await engineWith({
      heal: refuse,
      pull: async ({ cursor }) => {
        asked.push(cursor)
        if (asked.length > 1) return emptyBatch('second', 8)
        // Another pull was answered first, after the centre had started again.
        stand('second', 8)
        return late
      },
    }).now()
    expect(asked.at(-1)).toBe('cursor-8')
    expect(standing()).toEqual({
      nonce: 'second',
      position: 8,
      cursor: 'cursor-8',
      page_cursor: null,
    })
  },
)

test('a batch that was asked for before the store began to read its scope does not end the reading', async () => {
  stand('first', 1)
  const asked: (string | undefined)[] = []
  await engineWith({
    heal: refuse,
    pull: async ({ cursor }) => {
      asked.push(cursor)
      if (asked.length > 1)
        return {
          ...firstPage('first', 4, true),
          page: { first: false, last: true, rows: 0, total: 0 },
        }
      // Another pull brought the first page of two: some rows are of a later position now, others are not.
      connection.run(`UPDATE sync_state SET page_cursor = 'page-2'`)
      return emptyBatch('first', 3)
    },
  }).now()
  expect(asked).toEqual(['cursor-1', 'page-2'])
  expect(standing()).toEqual({
    nonce: 'first',
    position: 4,
    cursor: 'cursor-4',
    page_cursor: null,
  })
})

test('a whole scope that is read twice at once takes no row away in between', async () => {
  const table = mustTable('conversations')
  const columns = agentColumns(table)
  await using other = await openStore({ userId: db.userId })
  const { id } = other.conversations.create({ title: 'x' })
  const row = connectionOf(other).get<StoredRow>('SELECT * FROM conversations WHERE id = ?', id)
  const ids = Array.from({ length: 900 }, () => newId())
  const scope = (title: string): PullResponse => ({
    ...firstPage('first', 2, true),
    shapes: [{ table: table.number, columns: [...columns] }],
    rows: ids.map((each) => {
      const made: StoredRow = { ...row, id: each, title }
      return [0, columns.map((name) => made[name] ?? null)]
    }),
  })
  const answers = [Promise.resolve(scope('as it was'))]
  const sync = engineWith({ heal: refuse, pull: async () => answers.shift() ?? refuse() })
  await sync.now()
  connection.run('UPDATE sync_state SET cursor = NULL')

  let answerSecond: () => void = () => undefined
  const second = new Promise<void>((done) => (answerSecond = done))
  answers.push(
    Promise.resolve(scope('as it is')),
    second.then(() => scope('as it is')),
  )
  const gone: string[] = []
  let changed = 0
  let isCut = false
  sync.on('change', (changes) => {
    gone.push(...changes.flatMap((change) => (change.op === 'delete' ? [change.id] : [])))
    changed += changes.length
    if (changed < 600) return
    // Near the end of the first, between two slices.
    isCut ||= changed < ids.length
    answerSecond()
  })
  await Promise.all([sync.now(), sync.now()])
  expect(isCut).toBe(true)
  expect(gone).toEqual([])
  expect(connection.get('SELECT count(*) AS n FROM conversations')).toEqual({ n: ids.length })
})
