import { copyFileSync, cpSync, mkdtempSync, rmSync } from 'node:fs'
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import { serve, type SyncServer } from '../../server/index.ts'
import { AgentDB } from '../../src/index.ts'
import { internalsOf } from '../../src/internal-for-sync.ts'
import { connect, type ConnectOptions, type Sync, type SyncStatus } from '../../sync/index.ts'
import { Child } from '../support/child.ts'
import { FaultProxy } from '../support/fault-proxy.ts'

let server: SyncServer
let folder: string
let userId: string
let token: string
let db: AgentDB
const open: AsyncDisposable[] = []

beforeAll(async () => {
  server = await serve({ port: 0 })
})
afterAll(() => server.close())

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'agentdb-unavailable-'))
  userId = await addUser(server)
  token = await server.issueToken({ userId, agentId: 'a' })
  db = await openStore('agent.db')
})
afterEach(async () => {
  for (const resource of open.splice(0).toReversed()) await resource[Symbol.asyncDispose]()
  rmSync(folder, { recursive: true, force: true })
})

async function addUser(centre: SyncServer, id = newId()): Promise<string> {
  await centre.db
    .insertInto('users')
    .values({
      id,
      email: `u${id}@example.org`,
      username: `u-${id}`,
      password_hash: 'x',
      status: 'active',
    })
    .execute()
  return id
}

async function openStore(name: string): Promise<AgentDB> {
  const store = await AgentDB.open({ path: join(folder, name), userId, agentId: 'a' })
  open.push(store)
  return store
}

function startSync(store: AgentDB, options: Partial<ConnectOptions> = {}): Sync {
  const sync = connect(store, {
    url: server.url,
    token,
    retryMinMs: 10,
    retryMaxMs: 50,
    ...options,
  })
  open.push(sync)
  return sync
}

/** Resolves at the first status that fits, at once if it is so already. */
function until(sync: Sync, fits: (status: SyncStatus) => boolean): Promise<SyncStatus> {
  return new Promise((done) => {
    const stop = sync.on('status', (status) => {
      if (!fits(status)) return
      stop()
      done(status)
    })
    const now = sync.status()
    if (!fits(now)) return
    stop()
    done(now)
  })
}

const drained = ({ state, pending }: SyncStatus): boolean => state === 'live' && pending === 0

async function titlesAtCentre(centre = server): Promise<(string | null)[]> {
  const rows = await centre.db
    .selectFrom('conversations')
    .select('title')
    .where('user_id', '=', userId)
    .orderBy('id')
    .execute()
  return rows.map(({ title }) => title)
}

/** The local store takes and shows work, and the queue grows by it. */
function mustWorkLocally(store: AgentDB, sync: Sync): void {
  const { pending } = sync.status()
  const { id } = store.conversations.create({ title: 'meanwhile' })
  expect(store.conversations.find(id)?.title).toBe('meanwhile')
  expect(sync.status().pending).toBe(pending + 1)
  store.conversations.delete(id)
  expect(sync.status().pending).toBe(pending + 2)
}

async function mustFail(sync: Sync, code: string): Promise<SyncStatus> {
  await expect(sync.now()).rejects.toMatchObject({ code })
  const status = await until(sync, ({ lastError }) => lastError?.code === code)
  expect(status.lastError?.message).toEqual(expect.stringMatching(/\w{3}/))
  return status
}

/** A port where nobody listens. */
async function freePort(): Promise<number> {
  const probe = createServer()
  await new Promise<void>((done) => probe.listen(0, '127.0.0.1', done))
  const { port } = probe.address() as AddressInfo
  await new Promise((done) => probe.close(done))
  return port
}

/** A plain HTTP server that is no centre. */
async function startImpostor(listener: RequestListener): Promise<string> {
  const impostor: Server = createServer(listener)
  await new Promise<void>((done) => impostor.listen(0, '127.0.0.1', done))
  open.push({
    [Symbol.asyncDispose]: async () => {
      impostor.closeAllConnections()
      await new Promise((done) => impostor.close(done))
    },
  })
  return `http://127.0.0.1:${(impostor.address() as AddressInfo).port}`
}

/** Code of what a promise rejects with; undefined when it does not. */
const failureOf = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => undefined,
    (error: unknown) => (error as { code?: unknown }).code,
  )

/** A store that has synced, closed, so that its file can be copied. */
async function syncedFile(): Promise<string> {
  await using sync = connect(db, { url: server.url, token, start: false })
  db.conversations.create({ title: 'common' })
  await sync.now()
  await sync.close()
  await db.close()
  return db.path
}

/** Goes on as a client of its own, by itself, with all that was pending. */
async function mustFork(store: AgentDB): Promise<void> {
  const sync = startSync(store)
  const status = await until(sync, (now) => now.lastFork !== undefined && drained(now))
  expect(status.lastFork?.reason).toMatch(/copied|restored/)
  expect(status.lastError).toBeUndefined()
}

describe('a centre that does not answer', () => {
  test('leaves the store at work and the queue whole; when it comes up, all drains by itself', async () => {
    const port = await freePort()
    const dataFolder = join(folder, 'centre')
    const secret = 'a secret of thirty-two characters'
    const sync = startSync(db, { url: `http://127.0.0.1:${port}` })
    db.conversations.create({ title: 'offline' })
    const status = await mustFail(sync, 'UNREACHABLE')
    expect(status.lastError?.message).toContain(`127.0.0.1:${port}`)
    expect(await until(sync, ({ nextRetryAt }) => nextRetryAt !== undefined)).toMatchObject({
      state: 'waiting',
      pending: 1,
    })
    mustWorkLocally(db, sync)

    await using late = await serve({ port, dataFolder, secret })
    await addUser(late, userId)
    // The token was signed by the other centre: its key is not this one's.
    expect((await until(sync, (s) => s.lastError?.code === 'UNAUTHORIZED')).pending).toBe(3)
    await sync.close()
    const own = await late.issueToken({ userId, agentId: 'a' })
    const again = startSync(db, { url: late.url, token: own })
    await until(again, drained)
    expect(await titlesAtCentre(late)).toEqual(['offline'])
    expect(db.conversations.list().map(({ title }) => title)).toEqual(['offline'])
    await again.close()
  })

  test('that takes connections and stays silent holds up no local work; once they are reset, all drains', async () => {
    await using proxy = await FaultProxy.start(server.url)
    const sync = startSync(db, { url: proxy.url })
    await until(sync, drained)
    proxy.set('hang')
    db.conversations.create({ title: 'into the void' })
    mustWorkLocally(db, sync)
    expect(await titlesAtCentre()).toEqual([])
    proxy.set('pass')
    await until(sync, drained)
    expect(await titlesAtCentre()).toEqual(['into the void'])
    await sync.close()
  })

  test('that resets every connection is told as UNREACHABLE', async () => {
    await using proxy = await FaultProxy.start(server.url)
    proxy.set('reset')
    const sync = startSync(db, { url: proxy.url, start: false })
    db.conversations.create({ title: 'kept' })
    await mustFail(sync, 'UNREACHABLE')
    // Nobody tries again by itself, so it does not say that it waits to.
    expect(sync.status()).toMatchObject({
      state: 'idle',
      lastError: { code: 'UNREACHABLE' },
      nextRetryAt: undefined,
    })
    mustWorkLocally(db, sync)
    proxy.set('pass')
    await sync.now()
    expect(sync.status()).toMatchObject({ state: 'idle', pending: 0, lastError: undefined })
    expect(await titlesAtCentre()).toEqual(['kept'])
    await sync.close()
  })

  test('that is cut off in the middle of its answers, at any byte, loses and doubles nothing', async () => {
    await using proxy = await FaultProxy.start(server.url)
    const sync = startSync(db, { url: proxy.url, start: false })
    await sync.now()
    const expected: string[] = []
    const told = new Set<unknown>()
    for (const cutAfter of [1, 20, 100, 150, 200, 250, 400, 800]) {
      const title = `cut after ${cutAfter}`
      expected.push(title)
      db.conversations.create({ title })
      proxy.set({ cutAfter })
      told.add(await failureOf(sync.now()))
    }
    expect(proxy.cuts).toBeGreaterThanOrEqual(5)
    told.delete(undefined)
    expect([...told]).toEqual(['UNREACHABLE'])
    proxy.set('pass')
    // An idle connection may only now be found cut.
    await failureOf(sync.now())
    await sync.now()
    expect(await titlesAtCentre()).toEqual(expected)
    expect(db.syncConflicts.list()).toEqual([])
    const { local, central } = await sync.checksums()
    expect(local).toEqual(central)
    await sync.close()
  })
})

describe('a centre that refuses', () => {
  test('a token that is none says so and keeps the queue; a right one drains it', async () => {
    let given = 'nonsense'
    const sync = startSync(db, { token: () => given })
    db.conversations.create({ title: 'kept' })
    await mustFail(sync, 'UNAUTHORIZED')
    mustWorkLocally(db, sync)
    given = token
    await until(sync, drained)
    expect(await titlesAtCentre()).toEqual(['kept'])
  })

  test('a token that another centre signed', async () => {
    const [header, payload] = token.split('.')
    const sync = startSync(db, { token: `${header}.${payload}.${'A'.repeat(43)}` })
    db.conversations.create({ title: 'kept' })
    await mustFail(sync, 'UNAUTHORIZED')
    mustWorkLocally(db, sync)
    expect(await titlesAtCentre()).toEqual([])
  })

  test('a token of another user stops the sync before anything is sent', async () => {
    const other = await addUser(server)
    let asked = 0
    const url = await startImpostor((_request, response) => {
      asked += 1
      response.end()
    })
    const sync = startSync(db, {
      url,
      token: await server.issueToken({ userId: other, agentId: 'a' }),
    })
    db.conversations.create({ title: 'kept' })
    await mustFail(sync, 'TOKEN_USER_MISMATCH')
    expect(sync.status().state).toBe('stopped')
    expect(asked).toBe(0)
    mustWorkLocally(db, sync)
    await sync.close()
    const right = startSync(db)
    await until(right, drained)
    expect(await titlesAtCentre()).toEqual(['kept'])
  })

  test('a schema version that it does not know stops the sync, and the queue waits for the upgrade', async () => {
    const url = await startImpostor((_request, response) => {
      response.writeHead(409, { 'content-type': 'application/json' })
      response.end(
        JSON.stringify({ code: 'SCHEMA_UNKNOWN', message: 'this centre has schema version 0' }),
      )
    })
    const sync = startSync(db, { url })
    db.conversations.create({ title: 'kept' })
    const status = await mustFail(sync, 'SCHEMA_UNKNOWN')
    expect(status).toMatchObject({ state: 'stopped', pending: 1 })
    mustWorkLocally(db, sync)
    await sync.close()
    await until(startSync(db), drained)
    expect(await titlesAtCentre()).toEqual(['kept'])
  })

  test.each([
    { what: 'a web page', status: 200, code: 'PROTOCOL' },
    { what: 'a page that says not found', status: 404, code: 'PROTOCOL' },
    { what: 'the error page of a gateway', status: 502, code: 'UNREACHABLE' },
  ])('everything, because the URL leads to $what', async ({ status, code }) => {
    const url = await startImpostor((_request, response) => {
      response.writeHead(status, { 'content-type': 'text/html' })
      response.end('<!doctype html><title>Welcome</title>')
    })
    const sync = startSync(db, { url })
    db.conversations.create({ title: 'kept' })
    const failed = await mustFail(sync, code)
    expect(failed.lastError?.message).toContain('check the URL')
    mustWorkLocally(db, sync)
    expect(sync.status().state).not.toBe('stopped')
  })
})

describe('a full disk', () => {
  test('refuses the write that does not fit, loses nothing, and the store works on once there is space', async () => {
    const path = join(folder, 'full.db')
    await using child = Child.start('child-full-disk.ts', [path, userId, '1000000'])
    const told = JSON.parse(await child.line((line) => line.startsWith('{'))) as {
      code: string
      acknowledged: string[]
      whileFull: string[]
      after: string[]
    }
    expect(told.code).toBe('STORE_FULL')
    expect(told.acknowledged.length).toBeGreaterThan(2)
    expect(told.whileFull).toEqual(told.acknowledged.slice(0, -1))
    expect(told.after).toEqual(told.acknowledged)
    const reopened = await openStore('full.db')
    expect(reopened.messages.list().map(({ id }) => id)).toEqual(told.acknowledged)
    const sync = startSync(reopened)
    await until(sync, drained)
    expect(sync.status().pending).toBe(0)
  })

  test('stops neither the queue nor the position: a batch that does not fit is pulled again', async () => {
    const sync = startSync(db, { start: false })
    const { id } = db.conversations.create({ title: 'mine' })
    await sync.now()
    const mine = db.conversations.find(id)
    const { position } = sync.status()
    const { connection } = internalsOf(db)
    const pages = Number(connection.pragma('page_count'))
    await server.db
      .updateTable('conversations')
      .set({ description: 'x'.repeat(1_000_000) })
      .where('id', '=', id)
      .execute()
    connection.pragma(`max_page_count = ${pages + 20}`)
    await mustFail(sync, 'STORE_FULL')
    expect(sync.status().position).toBe(position)
    expect(() =>
      db.conversations.create({ title: 'y', description: 'y'.repeat(500_000) }),
    ).toThrowError(expect.objectContaining({ code: 'STORE_FULL' }) as Error)
    expect(db.conversations.list()).toEqual([mine])

    connection.pragma('max_page_count = 1000000')
    db.conversations.create({ title: 'after' })
    await sync.now()
    expect(db.conversations.find(id)?.description).toHaveLength(1_000_000)
    const { local, central } = await sync.checksums()
    expect(local).toEqual(central)
  })
})

describe('two processes on one store', () => {
  test('sync it once: the second is told so, sees what the first pulls, and its work is sent by the first', async () => {
    const sync = startSync(db)
    await until(sync, drained)
    await using neighbour = Child.start('child-neighbour.ts', [db.path, userId, server.url, token])
    expect(await neighbour.line((line) => !line.startsWith('wrote'))).toBe('refused SYNC_ELSEWHERE')
    const sent = new Promise<void>((done) => {
      sync.on('outcome', ({ table }) => table === 'conversations' && done())
    })
    await sent
    expect(await titlesAtCentre()).toEqual(['from the neighbour'])
    await server.db
      .insertInto('conversations')
      .values({ user_id: userId, title: 'from the centre' })
      .execute()
    await neighbour.line((line) => line === 'saw it')
  })

  test('hand the sync over when the first ends', async () => {
    const sync = startSync(db)
    const second = await openStore('agent.db')
    const connectSecond = (): Sync => startSync(second)
    expect(connectSecond).toThrowError(expect.objectContaining({ code: 'SYNC_ELSEWHERE' }) as Error)
    await sync.close()
    second.conversations.create({ title: 'handed over' })
    await until(connectSecond(), drained)
    expect(await titlesAtCentre()).toEqual(['handed over'])
  })
})

describe('a store file that is not the one the centre knows', () => {
  test('since it was copied: both go on, and both keep their work', async () => {
    copyFileSync(await syncedFile(), join(folder, 'clone.db'))
    const original = await openStore('agent.db')
    const clone = await openStore('clone.db')
    original.conversations.create({ title: 'of the original' })
    const own = clone.conversations.create({ title: 'of the clone' })
    const sync = startSync(original)
    await until(sync, drained)
    await mustFork(clone)
    expect(clone.conversations.find(own.id)).toMatchObject({ title: 'of the clone' })
    expect(await titlesAtCentre()).toEqual(['common', 'of the original', 'of the clone'])
    expect(sync.status().lastFork).toBeUndefined()
  })

  test('since an older copy was put back: its new work is not taken for what the centre has under its numbers', async () => {
    const path = await syncedFile()
    copyFileSync(path, join(folder, 'backup.db'))
    const later = await openStore('agent.db')
    later.conversations.create({ title: 'after the backup' })
    const sync = startSync(later)
    await until(sync, drained)
    await sync.close()
    await later.close()
    copyFileSync(join(folder, 'backup.db'), path)
    const restored = await openStore('agent.db')
    restored.conversations.create({ title: 'after the restore' })
    await mustFork(restored)
    const titles = ['common', 'after the backup', 'after the restore']
    expect(await titlesAtCentre()).toEqual(titles)
    expect(restored.conversations.list().map(({ title }) => title)).toEqual(titles)
  })
})

test('a centre that was restored to an earlier point is noticed, and nothing is taken away', async () => {
  const dataFolder = join(folder, 'centre')
  const secret = 'a secret of thirty-two characters'
  const lives = async (work: (centre: SyncServer) => Promise<void>): Promise<void> => {
    await using centre = await serve({ port: 0, dataFolder, secret })
    await work(centre)
  }
  let own = ''
  const syncOnce = async (centre: SyncServer): Promise<void> => {
    await using sync = connect(db, { url: centre.url, token: own, start: false })
    await sync.now()
  }
  await lives(async (centre) => {
    await addUser(centre, userId)
    own = await centre.issueToken({ userId, agentId: 'a' })
    db.conversations.create({ title: 'before the backup' })
    await syncOnce(centre)
  })
  cpSync(dataFolder, join(folder, 'backup'), { recursive: true })
  await lives(async (centre) => {
    db.conversations.create({ title: 'lost by the restore' })
    await syncOnce(centre)
  })
  rmSync(dataFolder, { recursive: true })
  cpSync(join(folder, 'backup'), dataFolder, { recursive: true })
  db.conversations.create({ title: 'new' })
  await lives(async (centre) => {
    const sync = startSync(db, { url: centre.url, token: own })
    const status = await until(sync, ({ lastError }) => lastError?.code === 'HEALING_PENDING')
    expect(status).toMatchObject({ state: 'waiting', pending: 1 })
    mustWorkLocally(db, sync)
    await sync.close()
    expect(await titlesAtCentre(centre)).toEqual(['before the backup'])
  })
  expect(db.conversations.list().map(({ title }) => title)).toEqual([
    'before the backup',
    'lost by the restore',
    'new',
  ])
})
