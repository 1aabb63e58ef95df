import { Agent, createServer, request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { AgentDBError } from '../../schema/errors.ts'
import { allTables } from '../../schema/tables.ts'
import { newId } from '../../schema/values/id.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import { internalsOf, readIdentity } from '../../src/internal-for-sync.ts'
import { applyBatch, NeedsWholeScopeSignal } from '../../sync/client/apply-batch.ts'
import { localChecksum } from '../../sync/client/local-checksum.ts'
import { HttpTransport } from '../../sync/client/transport.ts'
import { decodeMessage, encodeMessage, JSON_TYPE, MSGPACK } from '../../sync/protocol/codec.ts'
import { encodeFrame, FrameKind, STREAM } from '../../sync/protocol/frames.ts'
import {
  pullResponseSchema,
  pushRequestSchema,
  type PullResponse,
} from '../../sync/protocol/messages.ts'
import { encodeMsgpack } from '../../sync/protocol/msgpack.ts'
import { Random } from '../sim/random.ts'
import {
  createUser,
  openAgent,
  startCentre,
  type Centre,
  type TestUser,
} from '../support/centre.ts'
import { mutate } from '../support/mutate.ts'
import { newRowIds, sampleRow } from '../support/sample-rows.ts'
import {
  insert,
  newTransactionId,
  pushRequest,
  remove,
  update,
  WireClient,
  type WireMutation,
} from '../support/wire-client.ts'
import { pullOfEveryLane, pushOfEveryKind } from '../support/wire-samples.ts'

/**
 * 100 000 frames that are broken, at all who read them. `FUZZ_SEED` repeats a run; what fails names its seed and frame.
 */
const SEED = Number(process.env['FUZZ_SEED'] ?? 20_261_121)
const DECODED_BY_SERVER = 40_000
const DECODED_BY_CLIENT = 40_000
const SENT_TO_SERVER = 10_000
const ANSWERED_TO_CLIENT = 4_000
const APPLIED_BY_CLIENT = 6_000
/** What the process may grow by while it reads them; a header that is believed takes more at once. */
const GROWTH_BYTES_MAX = 512 * 1024 * 1024

let centre: Centre
let user: TestUser
let owner: TestUser
let client: WireClient
const strays: unknown[] = []
const note = (error: unknown): void => void strays.push(error)

beforeAll(async () => {
  process.on('unhandledRejection', note)
  centre = await startCentre()
  user = await createUser(centre)
  owner = await createUser(centre)
  const token = await centre.server.issueToken({ userId: user.id, agentId: 'fuzz' })
  client = new WireClient(centre.url, token)
})

afterAll(async () => {
  process.off('unhandledRejection', note)
  await centre[Symbol.asyncDispose]()
})

/** Runs over broken frames; a failure names what repeats it. */
async function broken(
  stream: number,
  count: number,
  corpus: readonly Uint8Array[],
  read: (frame: Uint8Array, random: Random) => unknown,
): Promise<void> {
  const random = new Random(SEED, stream)
  const before = process.memoryUsage().rss
  for (let n = 0; n < count; n++) {
    const frame = mutate(random, random.pick(corpus) ?? new Uint8Array(), corpus)
    try {
      const result = read(frame, random)
      if (result instanceof Promise) await result
    } catch (error) {
      const hex = Buffer.from(frame).toString('hex').slice(0, 4000)
      throw new Error(`FUZZ_SEED=${SEED}, stream ${stream}, frame ${n}: ${hex}`, { cause: error })
    }
  }
  expect(process.memoryUsage().rss - before).toBeLessThan(GROWTH_BYTES_MAX)
  expect(strays).toEqual([])
}

const mustBeOurs = (error: unknown, codes: readonly string[]): void => {
  if (error instanceof AgentDBError && codes.includes(error.code)) return
  throw error
}

/** Mutations of each kind, of rows that are another user's: none of them may ever be applied. */
function foreignMutations(): WireMutation[] {
  const ids = newRowIds()
  return [
    insert('conversations', sampleRow('conversations', ids.conversations, owner.id, ids)),
    insert('messages', sampleRow('messages', ids.messages, owner.id, ids)),
    insert('embeddings', sampleRow('embeddings', ids.embeddings, owner.id, ids)),
    update('conversations', ids.conversations, { title: 'x' }),
    remove('messages', ids.messages),
  ]
}

/** Pushes that begin far beyond what the centre has of their client, which it answers with FORKED. */
function pushFrames(): Uint8Array[] {
  const push = (count: number): Uint8Array =>
    encodeMessage(
      pushRequestSchema,
      pushRequest(
        newId(),
        Array.from({ length: count }, (_, n) => ({
          seq: 100_000 + n,
          id: newTransactionId(),
          mutations: foreignMutations(),
        })),
        { seq: 99_999, id: newTransactionId() },
      ),
      MSGPACK,
    )
  return [push(1), push(2), push(12), encodeMessage(pushRequestSchema, pushOfEveryKind, MSGPACK)]
}

/** A checksum of every row of the domain at the centre. */
async function centralRows(): Promise<unknown> {
  const sums: unknown[] = []
  for (const { name } of allTables) {
    const text = sql.raw(
      `SELECT count(*) AS count, md5(string_agg(t::text, ',' ORDER BY t.id)) AS sum FROM ${name} t`,
    )
    sums.push([name, (await sql`${text}`.execute(centre.db)).rows])
  }
  return sums
}

test('a broken push is refused by its reader, or is a message', async () => {
  let messages = 0
  await broken(1, DECODED_BY_SERVER, pushFrames(), (frame) => {
    try {
      const push = decodeMessage(pushRequestSchema, frame, MSGPACK)
      // What is let through holds what the centre counts on.
      expect(pushRequestSchema.safeParse(push).error).toBeUndefined()
      messages += 1
    } catch (error) {
      mustBeOurs(error, ['PROTOCOL', 'TOO_LARGE'])
    }
  })
  expect(messages).toBeLessThan(DECODED_BY_SERVER / 2)
})

test('a broken batch is refused by its reader, or is a message', async () => {
  const pull = await client.pull()
  const frames = [pull, pullOfEveryLane].map((message) =>
    encodeMessage(pullResponseSchema, message, MSGPACK),
  )
  let messages = 0
  await broken(2, DECODED_BY_CLIENT, frames, (frame) => {
    try {
      const batch = decodeMessage(pullResponseSchema, frame, MSGPACK)
      expect(pullResponseSchema.safeParse(batch).error).toBeUndefined()
      messages += 1
    } catch (error) {
      mustBeOurs(error, ['PROTOCOL', 'TOO_LARGE'])
    }
  })
  expect(messages).toBeLessThan(DECODED_BY_CLIENT / 2)
})

interface Sent {
  readonly method: 'GET' | 'POST'
  readonly path: string
  readonly type: string
  readonly encoding: string | undefined
  readonly body: Uint8Array | undefined
}

test('the centre answers every broken request with an error, and no row of it changes', async () => {
  const before = await centralRows()
  const ancestor = { clientId: newId(), seq: 5, id: newTransactionId() }
  const introduce = encodeMsgpack({ clientId: newId(), ancestor })
  const corpus = [...pushFrames(), introduce]
  const agent = new Agent({ keepAlive: true, maxSockets: 8 })
  const statuses = new Map<number, number>()
  const running = new Set<Promise<void>>()
  const cursor = (await client.pull()).cursor
  try {
    await broken(3, SENT_TO_SERVER, corpus, async (frame, random) => {
      const request = requestOf(random, frame, cursor)
      const exchange = async (): Promise<void> => {
        const status = await send(agent, request)
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
        running.delete(sending)
      }
      const sending = exchange()
      running.add(sending)
      if (running.size >= 8) await Promise.race(running)
    })
    await Promise.all(running)
  } finally {
    agent.destroy()
  }
  const known = [200, 400, 401, 403, 404, 409, 413, 414, 415, 431]
  expect([...statuses.keys()].filter((status) => !known.includes(status))).toEqual([])
  expect(statuses.get(400)).toBeGreaterThan(SENT_TO_SERVER / 2)
  expect(await centralRows()).toEqual(before)
  expect((await fetch(new URL('/health/ready', centre.url))).status).toBe(200)
})

/** Mostly msgpack for a push; some compressed, some as JSON, some in the parameters of a pull. */
function requestOf(random: Random, frame: Uint8Array, cursor: string): Sent {
  const post = { method: 'POST', type: MSGPACK, encoding: undefined, body: frame } as const
  const path = random.chance(0.9) ? '/sync/v1/push' : '/sync/v1/introduce'
  switch (random.below(8)) {
    case 0:
      return { ...post, path, encoding: 'gzip', body: random.chance(0.5) ? gzipSync(frame) : frame }
    case 1:
      return { ...post, path, encoding: 'br', body: damaged(random, brotliCompressSync(frame)) }
    case 2:
      return { ...post, path, type: JSON_TYPE, body: Buffer.from(frame.toString()) }
    case 3: {
      const query = new URLSearchParams({ client: client.clientId, schema: String(SCHEMA_VERSION) })
      const name = random.pick(['client', 'schema', 'cursor', 'acked', 'wait', 'x']) ?? ''
      const text = Buffer.from(damaged(random, Buffer.from(cursor))).toString('latin1')
      query.set(
        name,
        name === 'cursor' ? text : Buffer.from(frame).toString('latin1').slice(0, 200),
      )
      const route = random.pick(['pull', 'live', 'checksum/x'])
      return {
        ...post,
        method: 'GET',
        path: `/sync/v1/${route}?${query.toString()}`,
        body: undefined,
      }
    }
    default:
      return { ...post, path }
  }
}

function damaged(random: Random, bytes: Uint8Array): Uint8Array {
  const copy = Uint8Array.from(bytes)
  const i = random.below(copy.length)
  copy[i] = (copy[i] ?? 0) ^ (1 << random.below(8))
  return copy
}

/** The status of the answer; an answer that is no error of ours is a failure. */
function send(agent: Agent, { method, path, type, encoding, body }: Sent): Promise<number> {
  return new Promise((done, fail) => {
    const request = httpRequest(new URL(path, centre.url), {
      agent,
      method,
      headers: {
        authorization: `Bearer ${client.token}`,
        'content-type': type,
        ...(encoding === undefined ? {} : { 'content-encoding': encoding }),
        ...(body === undefined ? {} : { 'content-length': body.byteLength }),
      },
    })
    request.on('error', fail)
    request.on('response', (response) => {
      const status = response.statusCode ?? 0
      // A pull whose parameters are still right is answered; a live stream would not end.
      if (status === 200 && path.startsWith('/sync/v1/live')) {
        response.destroy()
        return done(status)
      }
      const pieces: Buffer[] = []
      response.on('data', (piece: Buffer) => pieces.push(piece))
      response.on('error', fail)
      response.on('end', () => {
        const text = Buffer.concat(pieces).toString()
        if (status === 200) return done(status)
        const answer = JSON.parse(text) as { code?: unknown; message?: unknown }
        if (typeof answer.code !== 'string' || typeof answer.message !== 'string')
          return fail(new Error(`${status}: ${text}`))
        done(status)
      })
    })
    request.end(body)
  })
}

test('a broken answer reaches no agent as anything but an error or a message', async () => {
  const pull = encodeMessage(pullResponseSchema, await client.pull(), MSGPACK)
  const live = Buffer.concat([
    encodeFrame(FrameKind.heartbeat),
    encodeFrame(FrameKind.batch, pull),
    encodeFrame(FrameKind.batch, brotliCompressSync(pull), true),
  ])
  let answer: { headers: Record<string, string>; status: number; body: Uint8Array } | undefined
  const server = createServer((_request, response) => {
    response.writeHead(answer?.status ?? 500, answer?.headers)
    response.end(answer?.body)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as AddressInfo
  const transport = new HttpTransport(`http://127.0.0.1:${port}`, 'x', { compress: true })
  const parameters = { clientId: newId(), cursor: undefined, ackedSeq: 0 }
  try {
    await broken(4, ANSWERED_TO_CLIENT, [pull, live], async (frame, random) => {
      const isLive = random.chance(0.5)
      const type = random.chance(0.95)
        ? isLive
          ? STREAM
          : MSGPACK
        : (random.pick([JSON_TYPE, 'text/html', '']) ?? '')
      const encoding = random.chance(0.1) ? random.pick(['gzip', 'br']) : undefined
      answer = {
        status: random.chance(0.9) ? 200 : (random.pick([400, 401, 404, 413, 500, 503]) ?? 500),
        headers: {
          'content-type': type,
          ...(encoding === undefined ? {} : { 'content-encoding': encoding }),
        },
        body: encoding !== undefined && random.chance(0.5) ? gzipSync(frame) : frame,
      }
      const signal = AbortSignal.timeout(20_000)
      try {
        if (isLive) for await (const _ of transport.live(parameters, signal));
        else await transport.pull({ ...parameters, waitMs: 0 }, signal)
      } catch (error) {
        mustBeOurs(error, ['PROTOCOL', 'TOO_LARGE', 'UNREACHABLE', 'SERVER_ERROR'])
      }
      expect(signal.aborted).toBe(false)
    })
  } finally {
    server.closeAllConnections()
    server.close()
  }
})

test('a broken batch that is still a message is applied whole or leaves the store as it was', async () => {
  const ids = newRowIds()
  await centre.db
    .insertInto('conversations')
    .values(
      Array.from({ length: 6 }, (_, n) => ({
        id: n === 0 ? ids.conversations : newId(),
        user_id: user.id,
        title: `of ${n}`,
      })),
    )
    .execute()
  const agent = await openAgent(centre, user)
  await agent.sync.now()
  const { connection } = internalsOf(agent.db)
  const identity = readIdentity(connection)
  const pull = await client.pull()
  const corpus = [encodeMessage(pullResponseSchema, pull, MSGPACK)]
  let applied = 0
  let refused = 0
  let kept = JSON.stringify(localChecksum(connection))
  await broken(5, APPLIED_BY_CLIENT, corpus, (frame) => {
    let batch: PullResponse
    try {
      batch = decodeMessage(pullResponseSchema, frame, MSGPACK)
    } catch (error) {
      return mustBeOurs(error, ['PROTOCOL', 'TOO_LARGE'])
    }
    try {
      applyBatch(connection, identity, batch, '2026-11-21T00:00:00.000000Z')
      applied += 1
      kept = JSON.stringify(localChecksum(connection))
    } catch (error) {
      if (!(error instanceof NeedsWholeScopeSignal))
        mustBeOurs(error, ['PROTOCOL', 'TOO_LARGE', 'FORKED', 'STORE_FORKED'])
      refused += 1
    }
    expect(JSON.stringify(localChecksum(connection))).toBe(kept)
  })
  // Both occur, or the corpus shows nothing.
  expect(Math.min(applied, refused)).toBeGreaterThan(10)
  expect(connection.all('PRAGMA integrity_check')).toEqual([{ integrity_check: 'ok' }])
  expect(connection.all('PRAGMA foreign_key_check')).toEqual([])
  await agent.close()
})
