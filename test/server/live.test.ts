import { get, type IncomingMessage } from 'node:http'
import { once } from 'node:events'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import { newId } from '../../schema/values/id.ts'
import { serve } from '../../server/index.ts'
import { Admission } from '../../server/http/admission.ts'
import { AgentDB } from '../../src/index.ts'
import { internalsOf } from '../../src/internal-for-sync.ts'
import { SyncEngine } from '../../sync/client/sync-engine.ts'
import { HttpTransport } from '../../sync/client/transport.ts'
import { decodeMessage, MSGPACK } from '../../sync/protocol/codec.ts'
import { encodeFrame, FrameKind, FrameReader, type Frame } from '../../sync/protocol/frames.ts'
import { pullResponseSchema, type PullResponse } from '../../sync/protocol/messages.ts'
import {
  createUser,
  openAgent,
  startCentre,
  startCentreOn,
  type Centre,
  type TestUser,
} from '../support/centre.ts'
import { createDatabase } from '../support/databases.ts'
import { FaultProxy } from '../support/fault-proxy.ts'
import { HttpGate } from '../support/http-gate.ts'

let centre: Centre
let user: TestUser

beforeAll(async () => {
  centre = await startCentreOn('postgres')
  user = await createUser(centre)
})
afterAll(() => centre[Symbol.asyncDispose]())

/** A conversation made at the centre, which every agent of the user is told of. */
async function conversationAtCentre(title: string, at = centre, of = user): Promise<string> {
  const id = newId()
  await at.db.insertInto('conversations').values({ id, user_id: of.id, title }).execute()
  return id
}

/** An engine at work over a link, whose silence ends soon. */
async function follow(url: string, silenceMs: number) {
  const db = await AgentDB.open({ path: ':memory:', userId: user.id })
  const token = await centre.server.issueToken({ userId: user.id, agentId: db.agentId })
  const engine = new SyncEngine({
    ...internalsOf(db),
    transport: new HttpTransport(url, token, { silenceMs }),
    random: Math.random,
    checkToken: async () => undefined,
    pullWaitMs: 200,
    retryMinMs: 10,
    retryMaxMs: 50,
  })
  engine.start()
  return {
    db,
    engine,
    async [Symbol.asyncDispose]() {
      await engine.close()
      await db.close()
    },
  }
}

type Following = Awaited<ReturnType<typeof follow>>

const isLive = (agent: Following): Promise<void> =>
  new Promise((done) => {
    const look = (): void => {
      if (agent.engine.status().state !== 'live') return
      off()
      done()
    }
    const off = agent.engine.on('status', look)
    look()
  })

/** Resolves once the store has the row. */
const hasConversation = (agent: Following, id: string): Promise<void> =>
  new Promise((done) => {
    const look = (): void => {
      if (agent.db.conversations.find(id) === undefined) return
      off()
      done()
    }
    const off = agent.engine.on('change', look)
    look()
  })

describe('a live agent', () => {
  test('hears of everything over one connection, without asking again', async () => {
    await using gate = await HttpGate.start(centre.url)
    await using agent = await follow(gate.url, 30_000)
    await hasConversation(agent, await conversationAtCentre('first'))
    await isLive(agent)
    const pulls = gate.count('/sync/v1/pull')
    for (let n = 0; n < 5; n++)
      await hasConversation(agent, await conversationAtCentre(`news ${n}`))
    expect(gate.count('/sync/v1/live')).toBe(1)
    expect(gate.count('/sync/v1/pull')).toBe(pulls)
  })

  test('that also pulls by itself stays at the furthest position, and its stream goes on', async () => {
    await using gate = await HttpGate.start(centre.url)
    await using agent = await follow(gate.url, 30_000)
    await isLive(agent)
    for (let n = 0; n < 5; n++) {
      const id = await conversationAtCentre(`both ${n}`)
      const before = agent.engine.status().position
      await agent.engine.now()
      expect(agent.db.conversations.find(id)?.title).toBe(`both ${n}`)
      expect(agent.engine.status().position).toBeGreaterThan(before)
    }
    await hasConversation(agent, await conversationAtCentre('by the stream'))
    expect(gate.count('/sync/v1/live')).toBe(1)
  })

  test.each(['not-found', 'buffer'] as const)(
    'behind something that lets no stream through (%s) polls instead',
    async (rule) => {
      await using gate = await HttpGate.start(centre.url)
      gate.rule = rule
      await using agent = await follow(gate.url, 500)
      await isLive(agent)
      while (gate.count('/sync/v1/live') === 0)
        await hasConversation(agent, await conversationAtCentre('x'))
      for (let n = 0; n < 5; n++)
        await hasConversation(agent, await conversationAtCentre(`polled ${n}`))
      expect(gate.count('/sync/v1/live')).toBe(1)
      expect(agent.engine.status().lastError?.code).toBe(undefined)
    },
  )

  test('whose link is half-open notices the silence and is back when it heals', async () => {
    await using proxy = await FaultProxy.start(centre.url)
    await using agent = await follow(proxy.url, 400)
    await hasConversation(agent, await conversationAtCentre('before'))
    await isLive(agent)
    const waits = new Promise<void>((done) => {
      agent.engine.on('status', ({ state }) => state === 'waiting' && done())
    })
    proxy.set('hang')
    await waits
    const id = await conversationAtCentre('meanwhile')
    proxy.set('pass')
    await hasConversation(agent, id)
    expect(agent.db.conversations.find(id)?.title).toBe('meanwhile')
  })

  test('finds the centre again after a restart, and what happened meanwhile', async () => {
    await using database = await createDatabase(inject('postgresUrl'), 'live')
    const first = await startCentre({ databaseUrl: database.url })
    const owner = await createUser(first)
    await using agent = await openAgent(first, owner, { start: true })
    await agent.sync.now()
    const port = Number(new URL(first.url).port)
    await first[Symbol.asyncDispose]()
    await using second = await startCentre({ databaseUrl: database.url, port })
    const id = await conversationAtCentre('after the restart', second, owner)
    await new Promise<void>((done) => {
      const look = (): void => {
        if (agent.db.conversations.find(id) !== undefined) done()
      }
      agent.sync.on('change', look)
      look()
    })
    expect(agent.db.conversations.find(id)?.title).toBe('after the restart')
  })

  test('hears at once of what came in through another server', async () => {
    await using database = await createDatabase(inject('postgresUrl'), 'live')
    // Without the notice, the second server would look after an hour.
    await using near = await startCentre({ databaseUrl: database.url, pollMs: 3_600_000 })
    await using far = await startCentre({ databaseUrl: database.url, pollMs: 3_600_000 })
    const owner = await createUser(near)
    await using writer = await openAgent(near, owner)
    await using reader = await openAgent(far, owner, { start: true })
    await reader.sync.now()
    const live = new Promise<void>((done) => {
      const look = (): void => {
        if (reader.sync.status().state === 'live') done()
      }
      reader.sync.on('status', look)
      look()
    })
    await live
    const heard = new Promise<readonly { id: string }[]>((done) => reader.sync.on('change', done))
    const { id } = writer.db.conversations.create({ title: 'from afar' })
    await writer.sync.now()
    expect((await heard).map((change) => change.id)).toContain(id)
  })
})

/** A stream by hand: nothing is read before it is asked for. */
async function openStream(at: Centre, token: string): Promise<IncomingMessage> {
  const query = new URLSearchParams({ client: newId(), schema: String(SCHEMA_VERSION), acked: '0' })
  const request = get(new URL(`/sync/v1/live?${query.toString()}`, at.url), {
    headers: { authorization: `Bearer ${token}` },
  })
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  return response
}

const batchesOf = (frames: readonly Frame[]): PullResponse[] =>
  frames
    .filter(({ kind }) => kind === FrameKind.batch)
    .map(({ payload }) => decodeMessage(pullResponseSchema, payload, MSGPACK))

test('a client that does not read costs one frame of memory, and catches up in one step', async () => {
  const token = await centre.server.issueToken({ userId: user.id, agentId: 'slow' })
  const response = await openStream(centre, token)
  response.pause()
  const rounds = 60
  const title = 'x'.repeat(400)
  for (let n = 0; n < rounds; n++) {
    const rows = Array.from({ length: 500 }, () => ({ id: newId(), user_id: user.id, title }))
    await centre.db.insertInto('conversations').values(rows).execute()
  }
  const last = await conversationAtCentre('the last')
  const reader = new FrameReader()
  const frames: Frame[] = []
  const ids = new Set<unknown>()
  for await (const piece of response as AsyncIterable<Buffer>) {
    for (const frame of reader.read(piece)) {
      frames.push(frame)
      for (const batch of batchesOf([frame]))
        for (const [, values] of batch.rows) ids.add(values[0])
    }
    if (ids.has(last)) break
  }
  response.destroy()
  expect(ids.size).toBeGreaterThanOrEqual(rounds * 500)
  expect(batchesOf(frames).length).toBeLessThan(rounds / 2)
})

test('an account that is suspended is told so in its open stream, which ends', async () => {
  await using own = await startCentreOn('pglite')
  const someone = await createUser(own)
  const token = await own.server.issueToken({ userId: someone.id, agentId: 'a' })
  const response = await openStream(own, token)
  const reader = new FrameReader()
  const frames: Frame[] = []
  for await (const piece of response as AsyncIterable<Buffer>) {
    for (const frame of reader.read(piece)) {
      frames.push(frame)
      if (batchesOf(frames).length === 1 && frame.kind === FrameKind.batch)
        await own.db
          .updateTable('users')
          .set({ status: 'suspended' })
          .where('id', '=', someone.id)
          .execute()
    }
  }
  expect(frames.at(-1)?.kind).toBe(FrameKind.error)
  expect(new TextDecoder().decode(frames.at(-1)?.payload)).toContain('FORBIDDEN')
})

test('a centre that closes ends its streams', async () => {
  const server = await serve({ port: 0 })
  const own: Centre = {
    server,
    url: server.url,
    db: server.db,
    databaseUrl: undefined,
    [Symbol.asyncDispose]: () => server.close(),
  }
  const someone = await createUser(own)
  const response = await openStream(
    own,
    await server.issueToken({ userId: someone.id, agentId: 'a' }),
  )
  const ended = once(response.resume(), 'close')
  await server.close()
  await ended
  expect(response.complete).toBe(true)
})

describe('admission', () => {
  test('does so much at a time, lets so many wait, and sends the rest away at once', async () => {
    const admission = new Admission('jobs', { running: 2, waiting: 1 })
    const places = [await admission.enter(), await admission.enter()]
    const third = admission.enter()
    await expect(admission.enter()).rejects.toMatchObject({ code: 'OVERLOADED' })
    expect(admission.running).toBe(2)
    places[0]?.()
    places[0]?.()
    const leave = await third
    expect(admission.running).toBe(2)
    leave()
    places[1]?.()
    expect(admission.running).toBe(0)
  })

  test('gives the place of work that failed to the next', async () => {
    const admission = new Admission('jobs', { running: 1, waiting: 5 })
    const failing = admission.run(() => Promise.reject(new Error('no')))
    const next = admission.run(() => Promise.resolve('done'))
    await expect(failing).rejects.toThrow('no')
    await expect(next).resolves.toBe('done')
    expect(admission.running).toBe(0)
  })
})

describe('frames', () => {
  const frame = fc
    .record({
      kind: fc.constantFrom(FrameKind.batch, FrameKind.error),
      isCompressed: fc.boolean(),
      payload: fc.uint8Array({ maxLength: 40 }),
    })
    .map((made): Frame => made)
  const heartbeat = fc.constant<Frame>({
    kind: FrameKind.heartbeat,
    isCompressed: false,
    payload: new Uint8Array(),
  })

  test('come out as they went in, whatever pieces the network made of them', () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(frame, heartbeat), { maxLength: 10 }),
        fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 20 }),
        (frames, sizes) => {
          const bytes = Buffer.concat(
            frames.map(({ kind, payload, isCompressed }) =>
              encodeFrame(kind, payload, isCompressed),
            ),
          )
          const reader = new FrameReader()
          const out: Frame[] = []
          for (let at = 0, n = 0; at < bytes.length; n++) {
            const size = sizes[n % sizes.length] ?? 1
            for (const part of reader.read(bytes.subarray(at, at + size)))
              out.push({ ...part, payload: new Uint8Array(part.payload) })
            at += size
          }
          expect(out).toEqual(frames)
        },
      ),
    )
  })

  test.each([
    ['an unknown kind', [0, 0, 0, 0, 9]],
    ['a length beyond all limits', [255, 255, 255, 255, 1]],
    ['a heartbeat that holds something', [0, 0, 0, 1, 0, 7]],
  ])('with %s are refused before anything is kept', (_what, bytes) => {
    expect(() => [...new FrameReader().read(Uint8Array.from(bytes))]).toThrow(
      expect.objectContaining({ code: 'PROTOCOL' }),
    )
  })
})
