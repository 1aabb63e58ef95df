import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest'
import { AgentDB, TransactionRejectedError, type LocalTransaction } from '../../src/index.ts'
import { connect } from '../../sync/index.ts'
import { agentdb } from '../cli/command.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import { Fleet, type TestAgent } from '../support/fleet.ts'
import { errorOf, rejectionOf, scratchFolder } from '../support/store.ts'

let database: TestDatabase
let fleet: Fleet
let userId: string
let a: TestAgent
let b: TestAgent

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'), 'local_transaction')
  fleet = await Fleet.start({ databaseUrl: database.url })
})
afterAll(async () => {
  await fleet[Symbol.asyncDispose]()
  await database.drop()
})
beforeEach(async () => {
  await fleet.clear()
  userId = await fleet.addUser()
  a = await fleet.addAgent(userId)
  b = await fleet.addAgent(userId)
})

/** Runs a local transaction and gives its handle. */
function write(agent: { db: AgentDB }, work: () => unknown): LocalTransaction {
  return agent.db.transaction((tx) => {
    work()
    return tx
  })
}

const say = (agent: TestAgent, title: string) => () => agent.db.conversations.create({ title })

/** Whether a promise has settled by now, however. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  const open = Symbol('open')
  const settled = promise.catch(() => undefined)
  await nextTurn()
  return (await Promise.race([settled, Promise.resolve(open)])) !== open
}

describe('a local transaction', () => {
  test('is accepted and visible with the batch that acknowledges it, not with the reply to its push', async () => {
    await a.sync()
    const tx = write(a, say(a, 'x'))
    const { accepted, visible } = tx
    expect(await a.sync(['none', 'refuse'])).toBe(false)
    expect(await fleet.sql('SELECT title FROM conversations')).toEqual([{ title: 'x' }])
    expect(await isSettled(accepted)).toBe(false)
    expect(await isSettled(visible)).toBe(false)
    await a.pull()
    const { position, history } = await visible
    expect(await accepted).toEqual({ position, history, outcomes: [] })
    expect(position).toBe(a.engine.status().position)
    expect(a.connection.get('SELECT nonce FROM sync_state')).toEqual({ nonce: history })
  })

  test('has the id that the centre knows it by, for life; one that wrote nothing has none', async () => {
    let inside: string | undefined
    const tx = a.db.transaction((self) => {
      expect(self.id).toBeUndefined()
      say(a, 'x')()
      inside = self.id
      return self
    })
    expect(tx.id).toMatch(/^[0-9a-f]{32}$/)
    expect(inside).toBe(tx.id)
    await a.sync()
    expect(
      await fleet.sql('SELECT tx_id FROM sync.client WHERE client_id = ?', a.clientId),
    ).toEqual([{ tx_id: tx.id }])
    expect(tx.id).toBe(inside)
    const idle = write(a, () => a.db.conversations.list())
    expect(idle.id).toBeUndefined()
    const { position } = a.engine.status()
    expect(await idle.visible).toMatchObject({ position })
    expect(await idle.accepted).toMatchObject({ position, outcomes: [] })
  })

  test('is one with those nested in it, also where one of them rolled back', async () => {
    const handles: LocalTransaction[] = []
    a.db.transaction((outer) => {
      say(a, 'outer')()
      a.db.transaction((inner) => {
        handles.push(outer, inner)
        say(a, 'inner')()
      })
      expect(() =>
        a.db.transaction((inner) => {
          handles.push(inner)
          say(a, 'lost')()
          throw new Error('caught')
        }),
      ).toThrow('caught')
    })
    expect(new Set(handles).size).toBe(1)
    // Asked for while it was open, too.
    let early: Promise<unknown> | undefined
    a.db.transaction((tx) => {
      early = tx.accepted
      say(a, 'early')()
    })
    await a.sync()
    expect(await handles[0]?.accepted).toMatchObject({ outcomes: [] })
    expect(await early).toMatchObject({ outcomes: [] })
    expect(await fleet.sql('SELECT title FROM conversations ORDER BY title')).toEqual([
      { title: 'early' },
      { title: 'inner' },
      { title: 'outer' },
    ])
  })

  test('that was asked for late still tells its own position', async () => {
    const [first, second] = [
      write(a, say(a, '1')),
      await a.sync().then(() => write(a, say(a, '2'))),
    ]
    const after = a.engine.status().position
    await a.sync()
    write(b, say(b, 'others'))
    await b.sync()
    await a.sync()
    const head = a.engine.status().position
    const [one, two] = [await first.visible, await second.visible]
    expect(one.position).toBe(after)
    expect(two.position).toBeGreaterThan(one.position)
    expect(two.position).toBeLessThan(head)
  })

  test('that was merged is accepted and says what came out otherwise', async () => {
    const incident = a.db.incidents.create({ title: 'first', severity: 'low', source: 'x' })
    await a.sync()
    await b.sync()
    a.db.workflows.create({ name: 'W', definition: {} })
    await a.sync()
    const tx = write(b, () => {
      b.db.workflows.create({ name: 'W', definition: {} })
      b.db.incidents.update(incident.id, { title: 'second' })
    })
    await b.sync()
    const { outcomes } = await tx.accepted
    expect(outcomes).toMatchObject([{ kind: 'merged', table: 'workflows', reason: 'next_version' }])
    expect(b.db.syncConflicts.get(outcomes[0]?.conflictId ?? '')).toMatchObject({
      transactionId: tx.id,
      theirs: { version: 2 },
    })
  })
})

describe('a local transaction that the centre refused', () => {
  /** A runbook whose name is taken, and a conversation beside it. */
  async function refused(): Promise<LocalTransaction> {
    a.db.runbooks.create({ name: 'deploy', steps: [] })
    await a.sync()
    const tx = write(b, () => {
      b.db.conversations.create({ title: 'beside' })
      b.db.runbooks.create({ name: 'deploy', steps: [] })
    })
    return tx
  }

  test('rejects with what and why, and is visible all the same', async () => {
    const tx = await refused()
    const { accepted, visible } = tx
    await b.sync()
    const error = await rejectionOfClass(accepted)
    expect(error).toMatchObject({
      code: 'TRANSACTION_REJECTED',
      transactionId: tx.id,
      table: 'runbooks',
      outcomes: [
        { kind: 'dependency_failed', table: 'conversations', op: 'insert', reason: 'sibling' },
        { kind: 'rejected', table: 'runbooks', op: 'insert', reason: 'unique' },
      ],
    })
    expect(error.message).toMatch(/refused the local transaction: insert runbooks .*deploy|unique/)
    const records = error.outcomes.map(({ conflictId }) => b.db.syncConflicts.get(conflictId))
    expect(records.map((record) => record?.table)).toEqual(['conversations', 'runbooks'])
    expect(await visible).toMatchObject({ position: b.engine.status().position })
    expect(b.db.conversations.list()).toEqual([])
  })

  test('stays refused when its records were retried or discarded before anyone asked', async () => {
    const tx = await refused()
    await b.sync()
    const [one, other] = b.db.syncConflicts.list()
    b.db.syncConflicts.discard(one?.id ?? '')
    const again = write(b, () =>
      b.db.syncConflicts.retry(other?.id ?? '', other?.table === 'runbooks' ? { name: 'new' } : {}),
    )
    await b.sync()
    const { outcomes } = await rejectionOfClass(tx.accepted)
    expect(outcomes.map(({ kind }) => kind).toSorted()).toEqual(['dependency_failed', 'rejected'])
    expect(again.id).not.toBe(tx.id)
    expect(await again.accepted).toMatchObject({ outcomes: [] })
  })

  test('ends no process where nobody looks, or only at one of the promises', async () => {
    const unhandled: unknown[] = []
    const note = (reason: unknown): number => unhandled.push(reason)
    process.on('unhandledRejection', note)
    try {
      const [, half] = [
        await refused(),
        write(b, () => b.db.runbooks.create({ name: 'deploy 2', steps: [] })),
      ]
      a.db.runbooks.create({ name: 'deploy 2', steps: [] })
      await a.sync()
      const { accepted, visible } = half
      await b.sync()
      await visible
      await nextTurn()
      expect(unhandled).toEqual([])
      await expect(accepted).rejects.toThrow('refused')
    } finally {
      process.off('unhandledRejection', note)
    }
  })

  async function rejectionOfClass(promise: Promise<unknown>): Promise<TransactionRejectedError> {
    const error = await promise.then(
      () => undefined,
      (reason: unknown) => reason,
    )
    if (error instanceof TransactionRejectedError) return error
    throw new Error(`not rejected as such: ${String(error)}`)
  }
})

describe('a local transaction that has nothing to wait for', () => {
  test('since it rolled back, says so and why', async () => {
    let handle: LocalTransaction | undefined
    const cause = new Error('mine')
    let early: Promise<unknown> | undefined
    expect(() =>
      a.db.transaction((tx) => {
        handle = tx
        early = tx.accepted
        say(a, 'x')()
        throw cause
      }),
    ).toThrow(cause)
    const rolledBack = { code: 'TRANSACTION_ROLLED_BACK', cause }
    expect(handle?.id).toBeUndefined()
    await expect(early).rejects.toMatchObject(rolledBack)
    await expect(handle?.accepted).rejects.toMatchObject(rolledBack)
    await expect(handle?.visible).rejects.toMatchObject(rolledBack)
    // The next one is not taken for a nested one.
    expect(write(a, say(a, 'y')).id).toMatch(/^[0-9a-f]{32}$/)
  })

  test('since its function was asynchronous, never begins', async () => {
    let begun = false
    const work = async (): Promise<void> => {
      begun = true
    }
    expect(errorOf(() => a.db.transaction(work))).toMatchObject({ code: 'TRANSACTION_MISUSE' })
    expect(begun).toBe(false)
  })

  test('since the store is closed, says that; what was known before stays known', async () => {
    const known = write(a, say(a, '1'))
    await a.sync()
    const { position } = await known.visible
    const waiting = write(a, say(a, '2'))
    const { accepted } = waiting
    const late = write(a, say(a, '3'))
    await a.db.close()
    expect(await rejectionOf(accepted)).toMatchObject({ code: 'STORE_CLOSED' })
    expect(await rejectionOf(late.visible)).toMatchObject({ code: 'STORE_CLOSED' })
    expect(await known.accepted).toMatchObject({ position })
  })
})

test('a local transaction hears of its acknowledgement when another process syncs the store', async () => {
  using folder = scratchFolder()
  const path = folder.file('agent.db')
  await using db = await AgentDB.open({ path, userId, agentId: 'elsewhere' })
  const token = await fleet.server.issueToken({ userId, agentId: 'elsewhere' })
  a.db.runbooks.create({ name: 'deploy', steps: [] })
  await a.sync()
  const good = write({ db }, () => db.conversations.create({ title: 'x' }))
  const bad = write({ db }, () => db.runbooks.create({ name: 'deploy', steps: [] }))
  const promises = [good.accepted, bad.accepted, bad.visible] as const
  expect(await agentdb(['sync', path, '--url', fleet.server.url, '--token', token])).toMatchObject({
    code: 0,
  })
  const [accepted, refused, visible] = await Promise.allSettled(promises)
  expect(accepted).toMatchObject({ status: 'fulfilled', value: { outcomes: [] } })
  expect(refused).toMatchObject({ status: 'rejected', reason: { code: 'TRANSACTION_REJECTED' } })
  expect(visible).toMatchObject({ status: 'fulfilled' })
})

test('a local transaction of a store in memory hears of it at once, while sync runs', async () => {
  await using db = await AgentDB.open({ path: ':memory:', userId, agentId: 'memory' })
  const token = await fleet.server.issueToken({ userId, agentId: 'memory' })
  await using sync = connect(db, { url: fleet.server.url, token })
  const tx = write({ db }, () => db.conversations.create({ title: 'x' }))
  const { position } = await tx.visible
  expect(sync.status()).toMatchObject({ position, pending: 0 })
  expect(await tx.accepted).toMatchObject({ position, outcomes: [] })
})
