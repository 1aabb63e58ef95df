/**
 * What users of other sync engines complain about most (ten complaints over all of them), held here by what must happen
 * instead. Tests that stand elsewhere already are named, not repeated; `test/docs/known-failures.test.ts` checks that they
 * exist.
 *
 * 1. The queue wedges, is never tried again, or no error is shown (PowerSync dart#307, #308, #452, sqlite-sync PR #64)
 *    - `test/faults/unavailable.test.ts`: "leaves the store at work and the queue whole; when it comes up, all drains by itself"
 *    - `test/server/push-failures.test.ts`: "goes to the conflicts of an agent with a real store, whose later work passes"
 *    - `test/server/push-failures.test.ts`: "push that waits in vain for a lock of somebody costs only what wants the lock"
 *    - `test/server/live.test.ts`: "whose link is half-open notices the silence and is back when it heals"
 * 2. A rejection is invisible or cryptic (RxDB #8632, #3622, libsql#2122, #2001)
 *    - `test/sync/local-transaction.test.ts`: "rejects with what and why, and is visible all the same"
 *    - `test/server/push.test.ts`: "names the constraint and the state of the database"
 *    - `test/sync/apply.test.ts`: "keeps its reason when the reply to its push is lost and the process dies"
 * 3. Everything is read again for trivial reasons; the first sync starts over (Electric #1459, #3020, libsql#2122)
 *    - `test/sync/hydration.test.ts`: "that is interrupted goes on from the page it had"
 * 4. Limits and noisy neighbours (PowerSync service#778, #611, Electric #1911, #4266, PGlite #652)
 *    - `test/server/live.test.ts`: "hears of everything over one connection, without asking again"
 *    - `test/server/live.test.ts`: "does so much at a time, lets so many wait, and sends the rest away at once"
 *    - `test/sync/placeholders.test.ts`: "as a placeholder that is named beside the row, one kind as the other, and nothing else is"
 * 5. No offline writes, flicker, a write at a time (Zero's documentation, TanStack #1602, #1323, #337)
 *    - `test/sync/apply.test.ts`: "stays visible and counts once between the reply to its push and the batch that holds it"
 *    - `test/sync/hydration.test.ts`: "stays visible, is sent only when it is whole, and ends in its outcome"
 * 6. The log grows for ever (Electric #1089, PR #1402, #3807, LiveStore #136)
 *    - `test/sync/hydration.test.ts`: "keeps what a transaction that ran long wrote above the floor, and one batch a minute as base"
 *    - `test/sync/healing.test.ts`: "what is older than the window is kept no longer"
 * 7. The schema changes under offline clients (WatermelonDB #1609, RxDB #8871, PowerSync dart#453)
 *    - `test/faults/unavailable.test.ts`: "a schema version that it does not know stops the sync, and the queue waits for the upgrade"
 *    - `test/schema/migrations.test.ts`: "refuses a store of a newer version and leaves it as it was"
 * 8. Deleted rows come back (WatermelonDB #649, Ditto)
 *    - `test/sync/hydration.test.ts`: "reads its scope again, loses what is gone, and resurrects nothing"
 *    - `test/server/push-merge.test.ts`: "is rejected as such, whatever it wants, and the row stays away"
 * 9. A row that breaks a local rule stops the pull or makes devices differ (loreai PR #1215, #1217, RxDB #5571, #7259)
 *    - `test/sync/apply.test.ts`: "in which two rows change places on a unique key goes in"
 *    - `test/sync/apply.test.ts`: "that takes the parent of a pending row displaces the row, and its outcome says why"
 * 10. Merges that race on the server lose the later value (sqlite-sync #70)
 *    - `test/server/push-concurrent.test.ts`: "in opposite orders loses no update"
 *    - `test/server/push-concurrent.test.ts`: "an update of a row that is being changed waits, then merges with what came of it"
 *    - `test/server/push-concurrent.test.ts`: "a deadlock with somebody is tried again until it passes"
 */
import { afterAll, beforeAll, beforeEach, describe, expect, inject, test, vi } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import { systemClock } from '../../schema/values/timestamp.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import { Database } from '../../server/postgres/database.ts'
import { Feed } from '../../server/sync/feed.ts'
import { LogTail } from '../../server/sync/log-tail.ts'
import { PullBuilder } from '../../server/sync/pull-response.ts'
import { ClientBindings } from '../../server/sync/principal.ts'
import { pruneLog } from '../../server/sync/retention.ts'
import { AgentDB } from '../../src/index.ts'
import { internalsOf } from '../../src/internal-for-sync.ts'
import { connect, type Sync, type SyncStatus } from '../../sync/index.ts'
import { SyncEngine } from '../../sync/client/sync-engine.ts'
import { HttpTransport } from '../../sync/client/transport.ts'
import type { PullResponse } from '../../sync/protocol/messages.ts'
import {
  createUser,
  openAgent,
  startCentre,
  type Centre,
  type TestUser,
} from '../support/centre.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import { Fleet, type TestAgent } from '../support/fleet.ts'
import { HttpGate } from '../support/http-gate.ts'
import { incident } from '../support/push.ts'
import { RestorableCentre } from '../support/restorable-centre.ts'
import { scratchFolder, type ScratchFolder } from '../support/store.ts'
import { nowMicros, update, WireClient } from '../support/wire-client.ts'

const PUSH = '/sync/v1/push'

let database: TestDatabase
let centre: Centre
let user: TestUser
let folder: ScratchFolder

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'), 'known_failures')
  centre = await startCentre({ databaseUrl: database.url })
  folder = scratchFolder()
})
afterAll(async () => {
  await centre[Symbol.asyncDispose]()
  await database.drop()
  folder[Symbol.dispose]()
})
beforeEach(async () => {
  user = await createUser(centre)
})

/** Resolves at the first status that fits, at once if it is so already. */
function until(
  sync: Pick<Sync, 'on' | 'status'>,
  fits: (status: SyncStatus) => boolean,
): Promise<SyncStatus> {
  return new Promise((done) => {
    const look = (): void => {
      const now = sync.status()
      if (!fits(now)) return
      off()
      done(now)
    }
    const off = sync.on('status', look)
    look()
  })
}

const isLive = ({ state }: SyncStatus): boolean => state === 'live'
const isWell = ({ state, pending, lastError }: SyncStatus): boolean =>
  state === 'live' && pending === 0 && lastError === undefined

const conversationsAt = async (of: { readonly id: string }): Promise<(string | null)[]> => {
  const rows = await centre.db
    .selectFrom('conversations')
    .select('title')
    .where('user_id', '=', of.id)
    .orderBy('id')
    .execute()
  return rows.map(({ title }) => title)
}

const conversationOf = async (of: { readonly id: string }, title: string): Promise<string> => {
  const id = newId()
  await centre.db.insertInto('conversations').values({ id, user_id: of.id, title }).execute()
  return id
}

/** Resolves once a row is there. */
const isThere = (db: AgentDB, sync: Pick<Sync, 'on'>, id: string): Promise<void> =>
  new Promise((done) => {
    const look = (): void => {
      if (db.conversations.find(id) === undefined) return
      off()
      done()
    }
    const off = sync.on('change', look)
    look()
  })

async function mustEqualCentre(sync: Pick<Sync, 'checksums'>): Promise<void> {
  const { local, central } = await sync.checksums()
  expect(local).toEqual(central)
}

describe('a queue whose pushes fail while everything else works', () => {
  test('is sent by a timer, with no further write, and its status tells of the failure until it is over', async () => {
    await using gate = await HttpGate.start(centre.url)
    await using agent = await openAgent({ ...centre, url: gate.url }, user, { start: true })
    await until(agent.sync, isLive)
    gate.away.add(PUSH)
    let attempts = 0
    agent.sync.on('status', ({ state }) => state === 'waiting' && (attempts += 1))
    agent.db.conversations.create({ title: 'mine' })
    const failing = await until(agent.sync, () => attempts >= 3)
    expect(failing).toMatchObject({ pending: 1, lastError: { code: 'UNREACHABLE' } })
    expect(gate.count(PUSH)).toBeGreaterThanOrEqual(3)

    gate.away.delete(PUSH)
    await until(agent.sync, isWell)
    expect(await conversationsAt(user)).toEqual(['mine'])
  })

  test('gives up a push that falls into silence, and sends it again', async () => {
    await using gate = await HttpGate.start(centre.url)
    await using db = await AgentDB.open({ path: ':memory:', userId: user.id })
    const token = await centre.server.issueToken({ userId: user.id, agentId: db.agentId })
    const engine = new SyncEngine({
      ...internalsOf(db),
      transport: new HttpTransport(gate.url, token, { silenceMs: 300 }),
      random: Math.random,
      checkToken: async () => undefined,
      pullWaitMs: 100,
      retryMinMs: 10,
      retryMaxMs: 50,
    })
    engine.start()
    await until(engine, isLive)
    const hold = gate.hold(PUSH, 'request')
    const { id } = db.conversations.create({ title: 'into the void' })
    await hold.reached
    await until(engine, ({ pending }) => pending === 0)
    expect(await conversationsAt(user)).toEqual(['into the void'])
    // What was swallowed comes after all.
    hold.release()
    await engine.now()
    expect(db.conversations.list().map((row) => row.id)).toEqual([id])
    await engine.close()
  })

  test('outlives a token that cannot be got for a while', async () => {
    await using db = await AgentDB.open({ path: ':memory:', userId: user.id })
    const token = await centre.server.issueToken({ userId: user.id, agentId: db.agentId })
    let asked = 0
    await using sync = connect(db, {
      url: centre.url,
      retryMinMs: 10,
      retryMaxMs: 20,
      token: () => {
        asked += 1
        if (asked <= 5) throw new TypeError('the keychain is locked')
        return token
      },
    })
    const failing = await until(sync, ({ lastError }) => lastError !== undefined)
    expect(failing.lastError?.message).toContain('the keychain is locked')
    db.conversations.create({ title: 'kept' })
    await until(sync, isWell)
    expect(await conversationsAt(user)).toEqual(['kept'])
  })
})

describe('a unique key that is taken', () => {
  test('is told with values and reason though nobody listens, blocks nothing, and is mended without a new file', async () => {
    const name = `deploy ${newId()}`
    const taken = { id: newId(), name, steps: '[]' }
    await centre.db.insertInto('runbooks').values(taken).execute()
    const path = folder.file('taken.db')
    const agentId = 'keeper'
    {
      await using agent = await openAgent(centre, user, { path, agentId })
      agent.db.runbooks.create({ name, description: 'mine', steps: [1] })
      agent.db.conversations.create({ title: 'after it' })
      await agent.sync.now()
      expect(agent.sync.status()).toMatchObject({ pending: 0, lastError: undefined })
      expect(await conversationsAt(user)).toEqual(['after it'])
    }
    await using agent = await openAgent(centre, user, { path, agentId })
    const [conflict] = agent.db.syncConflicts.list()
    expect(conflict).toMatchObject({
      state: 'rejected',
      reason: 'unique',
      constraint: 'runbooks_name_key',
      sqlstate: '23505',
      mine: { name, description: 'mine', steps: [1] },
    })
    agent.db.syncConflicts.retry(conflict?.id ?? '', { name: `${name} 2` })
    await agent.sync.now()
    expect(agent.db.syncConflicts.list()).toEqual([])
    const names = agent.db.runbooks.list({ where: { name: { in: [name, `${name} 2`] } } })
    expect(names).toHaveLength(2)
    await mustEqualCentre(agent.sync)
  })

  test('is told of the write that took it, not of a later one of the same row that was accepted', async () => {
    const name = newId()
    await centre.db.insertInto('runbooks').values({ name, steps: '[]' }).execute()
    await using agent = await openAgent(centre, user)
    const { runbooks } = agent.db
    const { id } = runbooks.create({ name: `${name} of mine`, steps: [] })
    const write = (work: () => unknown) =>
      agent.db.transaction((tx) => {
        work()
        return tx
      })
    const refused = write(() => {
      runbooks.update(id, { description: 'with a name that is taken' })
      runbooks.create({ name, steps: [] })
    })
    const accepted = write(() => runbooks.update(id, { description: 'later' }))
    const ends = Promise.allSettled([refused.accepted, accepted.accepted])
    await agent.sync.now()
    const [first, second] = await ends
    expect(first).toMatchObject({ status: 'rejected', reason: { code: 'TRANSACTION_REJECTED' } })
    expect(second).toMatchObject({ status: 'fulfilled' })
    expect(runbooks.find(id)?.description).toBe('later')
    await mustEqualCentre(agent.sync)
  })
})

/** Keeps every answer to a pull. */
class RecordingTransport extends HttpTransport {
  readonly answers: PullResponse[] = []

  override async pull(...call: Parameters<HttpTransport['pull']>): Promise<PullResponse> {
    const answer = await super.pull(...call)
    this.answers.push(answer)
    return answer
  }
}

describe('what is no reason to read the whole scope again', () => {
  let own: RestorableCentre
  let owner: TestUser

  beforeAll(async () => {
    own = await RestorableCentre.start()
    owner = await createUser(own)
    const rows = Array.from({ length: 300 }, (_, n) => ({ user_id: owner.id, title: `row ${n}` }))
    await own.db.insertInto('conversations').values(rows).execute()
  })
  afterAll(() => own[Symbol.asyncDispose]())

  /** Opens the store, syncs it, and tells what the centre sent. */
  async function syncOnce(work?: (db: AgentDB) => void): Promise<PullResponse[]> {
    await using db = await AgentDB.open({
      path: folder.file('long-lived.db'),
      userId: owner.id,
      agentId: 'a',
    })
    const token = await own.server.issueToken({ userId: owner.id, agentId: 'a' })
    const transport = new RecordingTransport(own.url, token)
    const engine = new SyncEngine({
      ...internalsOf(db),
      transport,
      random: Math.random,
      checkToken: async () => undefined,
      pullWaitMs: 1000,
      retryMinMs: 10,
      retryMaxMs: 50,
    })
    work?.(db)
    await engine.now()
    expect(db.conversations.list().some(({ title }) => title === 'row 299')).toBe(true)
    const { local, central } = await engine.checksums()
    expect(local).toEqual(central)
    await engine.close()
    return transport.answers
  }

  const refusedWrite = (db: AgentDB): void => {
    db.transaction(() => db.runbooks.create({ name: 'taken', steps: [] }))
  }

  test.each<[string, (() => Promise<unknown>) | undefined, ((db: AgentDB) => void)?]>([
    ['a new process of the agent, with a new token', undefined],
    ['a new server process', () => own.restartServer()],
    ['a database that crashed and recovered', () => own.crash()],
    [
      'a write that was refused',
      () => own.db.insertInto('runbooks').values({ name: 'taken', steps: '[]' }).execute(),
      refusedWrite,
    ],
    [
      'a log that was pruned up to where the agent stands',
      async () => {
        const direct = await Database.open({
          url: own.databaseUrl,
          folder: undefined,
          connectionsMax: 2,
        })
        await pruneLog(direct, new Date(Date.now() + 60_000))
        await direct.close()
      },
    ],
  ])('%s', async (_what, happens, work) => {
    await syncOnce()
    await happens?.()
    await own.db.insertInto('conversations').values({ user_id: owner.id, title: 'news' }).execute()
    const answers = await syncOnce(work)
    expect(answers.filter(({ page }) => page !== null)).toEqual([])
    const rows = answers.reduce((sum, answer) => sum + answer.rows.length, 0)
    // Of the refused write comes the row that stands, too.
    expect(rows).toBeGreaterThan(0)
    expect(rows).toBeLessThan(5)
  })
})

describe('a neighbour that writes much', () => {
  test.each([
    ['a server that remembers the batches', true],
    ['a server that has just started, and reads the log', false],
  ])('costs others no row and no statement more, at %s', async (_what, remembers) => {
    const direct = await Database.open({ url: database.url, folder: undefined, connectionsMax: 4 })
    const clientId = newId()
    const bindings = new ClientBindings()
    const secret = Buffer.alloc(32, 7)
    let tail = new LogTail(direct, 60_000)
    const pull = async (cursor?: string) => {
      if (!remembers) tail = new LogTail(direct, 60_000)
      await tail.refresh()
      const query = vi.spyOn(direct, 'query')
      const add = vi.spyOn(PullBuilder.prototype, 'add')
      const answer = await new Feed(direct, tail, bindings, secret, systemClock).pull({
        claims: { userId: user.id, agentId: 'quiet' },
        clientId,
        cursor,
        schema: SCHEMA_VERSION,
        ackedSeq: 0,
        waitMs: 0,
        signal: new AbortController().signal,
      })
      const results = await Promise.all(query.mock.results.map(({ value }) => value))
      const entries = add.mock.calls.length
      vi.restoreAllMocks()
      return {
        answer,
        entries,
        statements: results.length,
        rows: results.reduce((sum, result) => sum + result.rows.length, 0),
      }
    }
    const { cursor } = (await pull()).answer
    await conversationOf(user, 'quiet')
    const before = await pull(cursor)
    const neighbour = await createUser(centre)
    for (let n = 0; n < 20; n++)
      await centre.db
        .insertInto('conversations')
        .values(Array.from({ length: 200 }, () => ({ user_id: neighbour.id, title: 'loud' })))
        .execute()
    await tail.refresh()
    const after = await pull(cursor)
    // The neighbour's profile is news to everyone.
    expect(after.answer.rows.length).toBe(before.answer.rows.length + 1)
    expect(after.entries).toBe(before.entries + 1)
    expect(after.rows).toBe(before.rows + (remembers ? 0 : 1))
    expect(after.statements).toBe(before.statements)
    await direct.close()
  })
})

test('a thousand writes of an offline week are sent by the hundred, not one a round trip', async () => {
  await using gate = await HttpGate.start(centre.url)
  await using agent = await openAgent({ ...centre, url: gate.url }, user)
  const ids = Array.from({ length: 1200 }, (_, n) =>
    agent.db.conversations.create({ title: `${n}` }),
  )
  await agent.sync.now()
  expect(agent.sync.status().pending).toBe(0)
  expect(await conversationsAt(user)).toHaveLength(ids.length)
  expect(gate.count(PUSH)).toBeLessThanOrEqual(3)
  const { connection } = internalsOf(agent.db)
  for (const table of ['sync_tx', 'sync_log', 'sync_base'])
    expect(connection.all(`SELECT '${table}' FROM ${table}`)).toEqual([])
})

test('the log goes when its time is over, though an agent has been away the whole time', async () => {
  await using agent = await openAgent(centre, user)
  await agent.sync.now()
  agent.db.conversations.create({ title: 'pending' })
  const direct = await Database.open({ url: database.url, folder: undefined, connectionsMax: 2 })
  const count = async (table: string): Promise<number> =>
    (await direct.query<{ n: number }>(`SELECT count(*)::integer AS n FROM ${table}`)).rows[0]?.n ??
    -1
  for (let n = 0; n < 10; n++) {
    await conversationOf(user, `news ${n}`)
    await using other = await openAgent(centre, user)
    await other.sync.now()
  }
  expect(await count('sync.log')).toBeGreaterThan(10)
  const eightDays = new Date(Date.now() + 8 * 24 * 3_600_000)
  await direct.query('SELECT sync.ensure_log_partitions(0)')
  await pruneLog(direct, eightDays)
  expect(await count('sync.log')).toBe(0)
  // Nothing at the database keeps its write-ahead log for a client.
  expect(await count('pg_replication_slots')).toBe(0)
  await direct.close()

  await agent.sync.now()
  expect(agent.db.conversations.list()).toHaveLength(11)
  await mustEqualCentre(agent.sync)
})

describe('a push in flight', () => {
  test.each(['request', 'answer'] as const)(
    'loses none of the batches that come meanwhile (it waits with its %s)',
    async (stage) => {
      await using gate = await HttpGate.start(centre.url)
      const path = folder.file(`flight-${stage}.db`)
      const through = { ...centre, url: gate.url }
      const ids: string[] = []
      {
        await using agent = await openAgent(through, user, { path, agentId: 'a', start: true })
        const shared = agent.db.conversations.create({ title: 'shared' })
        await until(agent.sync, isWell)
        const hold = gate.hold(PUSH, stage)
        agent.db.conversations.update(shared.id, { title: 'mine' })
        await hold.reached
        for (let n = 0; n < 5; n++) ids.push(await conversationOf(user, `meanwhile ${n}`))
        await centre.db
          .updateTable('conversations')
          .set({ description: 'theirs' })
          .where('id', '=', shared.id)
          .execute()
        ids.push(shared.id)
        for (const id of ids) await isThere(agent.db, agent.sync, id)
        expect(agent.db.conversations.find(shared.id)?.title).toBe('mine')
        hold.release()
        await agent.sync.now()
        expect(agent.db.conversations.find(shared.id)).toMatchObject({
          title: 'mine',
          description: 'theirs',
        })
        await mustEqualCentre(agent.sync)
      }
      await using reopened = await openAgent(through, user, { path, agentId: 'a' })
      expect(ids.filter((id) => reopened.db.conversations.find(id) === undefined)).toEqual([])
      await mustEqualCentre(reopened.sync)
    },
  )

  test.each(['request', 'answer'] as const)(
    'that is broken off by closing is not taken for sent, and happens once (it waits with its %s)',
    async (stage) => {
      await using gate = await HttpGate.start(centre.url)
      const path = folder.file(`closed-${stage}.db`)
      const through = { ...centre, url: gate.url }
      {
        await using agent = await openAgent(through, user, { path, agentId: 'a', start: true })
        await until(agent.sync, isLive)
        const hold = gate.hold(PUSH, stage)
        agent.db.conversations.create({ title: 'once' })
        await hold.reached
        await agent.close()
        hold.release()
      }
      await using reopened = await openAgent(through, user, { path, agentId: 'a' })
      expect(reopened.db.conversations.list().map(({ title }) => title)).toEqual(['once'])
      await reopened.sync.now()
      expect(reopened.outcomes.filter(({ table }) => table === 'conversations')).toMatchObject([
        { kind: 'applied' },
      ])
      expect(await conversationsAt(user)).toEqual(['once'])
      await mustEqualCentre(reopened.sync)
    },
  )
})

describe('between agents that were offline', () => {
  let fleet: Fleet
  let a: TestAgent
  let b: TestAgent
  let viewer: TestAgent

  beforeAll(async () => {
    fleet = await Fleet.start({ databaseUrl: database.url })
  })
  afterAll(() => fleet[Symbol.asyncDispose]())
  beforeEach(async () => {
    a = await fleet.addAgent(user.id)
    b = await fleet.addAgent(user.id)
    const other = await createUser(centre, { role: 'viewer' })
    viewer = await fleet.addAgent(other.id, 'viewer')
  })

  const mustAgree = async (...agents: TestAgent[]): Promise<void> => {
    for (const agent of agents) {
      const { local, central } = await agent.pull()
      expect(local).toEqual(central)
      expect(agent.connection.all('PRAGMA foreign_key_check')).toEqual([])
    }
  }

  test('a row that was deleted here stays away when the centre sends it once more', async () => {
    const { id } = a.db.conversations.create({ title: 'x' })
    for (const agent of [a, b]) await agent.sync()
    a.db.conversations.delete(id)
    b.db.conversations.update(id, { title: 'changed meanwhile' })
    await b.sync()
    await a.pull()
    expect(a.db.conversations.find(id)).toBeUndefined()
    for (const agent of [a, b]) await agent.sync()
    expect([a, b].map((agent) => agent.db.conversations.find(id))).toEqual([undefined, undefined])
    expect(await conversationsAt(user)).toEqual([])
    await mustAgree(a, b)
  })

  test('a row that was made and deleted offline is never seen by anyone', async () => {
    await b.sync()
    const seen: string[] = []
    b.engine.on('change', (changes) => seen.push(...changes.map((change) => change.id)))
    const doomed = a.db.conversations.create({ title: 'doomed' })
    const message = a.db.messages.create({
      conversation_id: doomed.id,
      role: 'user',
      content: 'with it',
    })
    a.db.conversations.delete(doomed.id)
    for (const agent of [a, b, a]) await agent.sync()
    expect(seen.filter((id) => id === doomed.id || id === message.id)).toEqual([])
    expect(a.db.conversations.find(doomed.id)).toBeUndefined()
    expect(await conversationsAt(user)).toEqual([])
    await mustAgree(a, b)
  })

  test('a row whose parent may not be seen costs no other row of its batch, in news and in a first sync', async () => {
    await viewer.sync()
    const [runbook, hidden] = [newId(), newId()]
    await fleet.sql(`INSERT INTO runbooks (id, name, steps) VALUES (?, ?, '[]')`, runbook, runbook)
    await fleet.sql(
      `INSERT INTO incidents (id, title, severity, source) VALUES (?, 'hidden', 'low', 'x')`,
      hidden,
    )
    await fleet.sql(
      `INSERT INTO runbook_executions (id, runbook_id, incident_id, executed_by)
        SELECT gen_random_uuid(), ?, CASE WHEN n = 7 THEN ?::uuid END, ? FROM generate_series(1, 20) n`,
      runbook,
      hidden,
      viewer.userId,
    )
    const late = await fleet.addAgent(viewer.userId, 'late')
    for (const agent of [viewer, late]) {
      await agent.sync()
      const executions = agent.db.runbookExecutions.list()
      expect(executions).toHaveLength(20)
      expect(executions.filter(({ incident_id: id }) => id === hidden)).toHaveLength(1)
      expect(agent.db.incidents.find(hidden)).toBeUndefined()
    }
    await mustAgree(viewer, late)
  })

  test('a row that collides with a pending one is held by every agent, while it is pending and after', async () => {
    const name = newId()
    const theirs = a.db.runbooks.create({ name, steps: [1] })
    const mine = b.db.runbooks.create({ name, steps: [2] })
    await a.sync()
    await b.pull()
    for (const agent of [a, b])
      expect(agent.db.runbooks.list({ where: { name } }).map(({ id }) => id)).toEqual([theirs.id])
    expect(b.db.syncConflicts.list()).toMatchObject([
      { state: 'blocked', rowId: mine.id, mine: { steps: [2] } },
    ])
    await mustAgree(a, b)
    await b.sync()
    expect(b.db.syncConflicts.list()).toMatchObject([{ state: 'rejected', rowId: mine.id }])
    await mustAgree(a, b)
  })
})

test('of writers that merge one row at the same moment through two servers, the latest clock wins and each loss is kept', async () => {
  await using second = await startCentre({ databaseUrl: database.url })
  const admin = await createUser(centre, { role: 'admin' })
  const clients = await Promise.all(
    Array.from({ length: 8 }, async (_, n) => {
      const token = await centre.server.issueToken({ userId: admin.id, agentId: `writer-${n}` })
      return new WireClient(n % 2 === 0 ? centre.url : second.url, token)
    }),
  )
  const [setup] = clients
  const ids = Array.from({ length: 10 }, () => newId())
  const before = nowMicros() - 60_000_000
  await setup?.push([ids.map((id) => incident(id))], { clock: before })
  for (const [round, id] of ids.entries())
    await Promise.all(
      clients.map((client, n) => {
        const clock = before + 1 + ((n + round) % clients.length)
        return client.push([[update('incidents', id, { title: `clock ${clock - before}` })]], {
          clock,
        })
      }),
    )
  const rows = await centre.db
    .selectFrom('incidents')
    .select('title')
    .where('id', 'in', ids)
    .execute()
  expect(rows.map(({ title }) => title)).toEqual(ids.map(() => `clock ${clients.length}`))
  const { conflicts = [] } = (await setup?.pull()) ?? {}
  for (const id of ids) {
    const lost = conflicts.filter(({ rowId }) => rowId === id).map((one) => one.lost['title'])
    const losers = Array.from({ length: clients.length - 1 }, (_, n) => `clock ${n + 1}`)
    expect(new Set(lost)).toEqual(new Set(losers))
    expect(lost).toHaveLength(losers.length)
  }
})
