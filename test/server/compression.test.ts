import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { createInterface } from 'node:readline'
import { brotliCompressSync, brotliDecompressSync, gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { MESSAGE_BYTES_MAX } from '../../schema/limits.ts'
import { mustTable } from '../../schema/tables.ts'
import { newId } from '../../schema/values/id.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import { linesForm } from '../../server/http/live.ts'
import { HttpTransport } from '../../sync/client/transport.ts'
import { inflate, isLoopback, readBody } from '../../sync/client/wire-bytes.ts'
import { decodeMessage, encodeMessage, JSON_TYPE, MSGPACK } from '../../sync/protocol/codec.ts'
import { ACCEPT_HEADER } from '../../sync/protocol/encodings.ts'
import { FrameKind, FrameReader, type Frame } from '../../sync/protocol/frames.ts'
import {
  errorResponseSchema,
  pullResponseSchema,
  pushRequestSchema,
  type PullResponse,
} from '../../sync/protocol/messages.ts'
import { createUser, startCentreOn, type Centre, type TestUser } from '../support/centre.ts'
import { HttpGate } from '../support/http-gate.ts'
import {
  errorAnswer,
  insert,
  newTransactionId,
  pushRequest,
  wireClient,
  type WireClient,
} from '../support/wire-client.ts'

let centre: Centre
let user: TestUser
let client: WireClient

beforeAll(async () => {
  centre = await startCentreOn('pglite')
  user = await createUser(centre)
  client = await wireClient(centre, user)
  const rows = Array.from({ length: 60 }, (_, n) => ({
    id: newId(),
    user_id: user.id,
    title: `conversation ${n}: ${'the same words again '.repeat(5)}`,
  }))
  await centre.db.insertInto('conversations').values(rows).execute()
})
afterAll(() => centre[Symbol.asyncDispose]())

/** An answer as it is on the wire. */
async function pullRaw(
  headers: Record<string, string>,
  query = {},
): Promise<{ response: IncomingMessage; body: Buffer }> {
  const url = new URL('/sync/v1/pull', centre.url)
  const all = { client: client.clientId, schema: String(SCHEMA_VERSION), ...query }
  url.search = new URLSearchParams(all).toString()
  const request = get(url, { headers: { authorization: `Bearer ${client.token}`, ...headers } })
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  const pieces: Buffer[] = []
  for await (const piece of response as AsyncIterable<Buffer>) pieces.push(piece)
  return { response, body: Buffer.concat(pieces) }
}

/** Ids of the conversations that a pull brings. */
const conversations = ({ rows, shapes }: PullResponse): Set<unknown> => {
  const { number } = mustTable('conversations')
  const own = rows.filter(([shape]) => shapes[shape]?.table === number)
  return new Set(own.map(([, values]) => values[0]))
}

describe('an answer', () => {
  test.each([
    ['br', brotliDecompressSync],
    ['gzip', gunzipSync],
  ] as const)(
    'is compressed by %s for whoever reads that, and is the same',
    async (encoding, open) => {
      const bare = await pullRaw({})
      expect(bare.response.headers['content-encoding']).toBeUndefined()
      for (const accept of [MSGPACK, JSON_TYPE]) {
        const { response, body } = await pullRaw({ accept, 'accept-encoding': encoding })
        expect(response.headers['content-encoding']).toBe(encoding)
        expect(response.headers['vary']).toBe('accept, accept-encoding')
        const opened = decodeMessage(pullResponseSchema, open(body), accept)
        const expected = decodeMessage(pullResponseSchema, bare.body, MSGPACK)
        expect(conversations(opened).size).toBeGreaterThanOrEqual(60)
        expect(conversations(opened)).toEqual(conversations(expected))
        expect(body.byteLength).toBeLessThan(open(body).byteLength)
      }
    },
  )

  test('that is short goes as it is', async () => {
    const { cursor } = await client.pull()
    const { response } = await pullRaw({ 'accept-encoding': 'br, gzip' }, { cursor })
    expect(response.headers['content-encoding']).toBeUndefined()
  })

  test('says how requests may be compressed, also where it is an error', async () => {
    const response = await fetch(new URL('/sync/v1/checksum', centre.url))
    expect([response.status, response.headers.get(ACCEPT_HEADER)]).toEqual([401, 'br, gzip'])
  })
})

describe('a compressed push', () => {
  const onePush = (): Uint8Array =>
    encodeMessage(
      pushRequestSchema,
      pushRequest(newId(), [
        {
          seq: 1,
          id: newTransactionId(),
          mutations: [
            insert('conversations', { id: newId(), user_id: user.id, title: 'compressed' }),
          ],
        },
      ]),
      MSGPACK,
    )

  const post = (body: Uint8Array, encoding: string, token = client.token): Promise<Response> =>
    fetch(new URL('/sync/v1/push', centre.url), {
      method: 'POST',
      headers: {
        authorization: `Bearer ${token}`,
        'content-type': MSGPACK,
        'content-encoding': encoding,
      },
      body: Buffer.from(body),
    })

  test('is taken', async () => {
    expect((await post(gzipSync(onePush()), 'gzip')).status).toBe(200)
    expect((await post(brotliCompressSync(onePush()), 'br')).status).toBe(200)
    expect((await post(onePush(), 'identity')).status).toBe(200)
  })

  test.each([
    ['gzip', gzipSync],
    ['br', brotliCompressSync],
  ] as const)(
    'that unfolds to more than a message may have is too large: %s',
    async (encoding, shut) => {
      const bomb = shut(Buffer.alloc(MESSAGE_BYTES_MAX + 1))
      expect(bomb.byteLength).toBeLessThan(MESSAGE_BYTES_MAX / 100)
      const answer = await errorAnswer(await post(bomb, encoding))
      expect(answer).toMatchObject({ status: 413, code: 'TOO_LARGE' })
      const stranger = await errorAnswer(await post(bomb, encoding, 'x'))
      expect(stranger).toMatchObject({ status: 401, code: 'UNAUTHORIZED' })
    },
  )

  test.each([
    ['gzip', () => onePush()],
    ['br', () => onePush()],
    ['gzip', () => gzipSync(onePush()).subarray(0, 40)],
    ['br', () => brotliCompressSync(onePush()).subarray(0, 40)],
    ['gzip', () => new Uint8Array()],
    ['zstd', () => onePush()],
    ['gzip, gzip', () => gzipSync(gzipSync(onePush()))],
    ['constructor', () => onePush()],
  ] as const)('that is not what it says is refused: %s', async (encoding, body) => {
    const answer = await errorAnswer(await post(body(), encoding))
    expect(answer).toMatchObject({ status: 400, code: 'PROTOCOL' })
  })
})

describe('an agent far from the centre', () => {
  test('compresses its pushes once the centre said that it reads them, and gets its batches compressed', async () => {
    await using gate = await HttpGate.start(centre.url)
    const clientId = newId()
    const token = await centre.server.issueToken({ userId: user.id, agentId: 'far' })
    const far = new HttpTransport(gate.url, token, { compress: true })
    const signal = AbortSignal.timeout(30_000)
    const push = (previous: { seq: number; id: string } | null) => {
      const first = (previous?.seq ?? 0) + 1
      return pushRequest(
        clientId,
        Array.from({ length: 20 }, (_, n) => ({
          seq: first + n,
          id: newTransactionId(),
          mutations: [
            insert('conversations', { id: newId(), user_id: user.id, title: `far ${n}` }),
          ],
        })),
        previous,
      )
    }
    const one = push(null)
    await far.push(one, signal)
    const last = one.transactions.at(-1)
    await far.push(push(last === undefined ? null : { seq: last.seq, id: last.id }), signal)
    expect(gate.contentEncodings).toEqual([undefined, 'br'])

    const before = gate.bytes
    const pulled = await far.pull({ clientId, cursor: undefined, ackedSeq: 0, waitMs: 0 }, signal)
    const pullBytes = gate.bytes - before
    for await (const batch of far.live({ clientId, cursor: undefined, ackedSeq: 0 }, signal)) {
      expect(conversations(batch)).toEqual(conversations(pulled))
      break
    }
    const bare = encodeMessage(pullResponseSchema, pulled, MSGPACK).byteLength
    expect(pulled.rows.length).toBeGreaterThan(90)
    expect(pullBytes).toBeLessThan(bare * 0.8)
    expect(gate.bytes - before - pullBytes).toBeLessThan(bare * 0.8)
  })

  test.each([
    ['http://localhost:8080', true],
    ['http://127.0.0.1/', true],
    ['http://[::1]:80/', true],
    ['http://128.0.0.1/', false],
    ['http://127.example.org/', false],
    ['https://centre.example.org/', false],
  ])('%s is this machine: %s', (url, is) => {
    expect(isLoopback(new URL(url))).toBe(is)
  })

  test('does not read more of an answer or a frame than the limit, however it was packed', async () => {
    const tooLarge = expect.objectContaining({ code: 'TOO_LARGE' }) as Error
    await expect(readBody(new Response(new Uint8Array(1001)), 1000)).rejects.toThrow(tooLarge)
    expect(await readBody(new Response(new Uint8Array(1000)), 1000)).toHaveLength(1000)
    for (const [encoding, shut] of [
      ['br', brotliCompressSync],
      ['gzip', gzipSync],
    ] as const) {
      const bytes = shut(Buffer.alloc(1_000_000))
      await expect(inflate(bytes, encoding, 999_999)).rejects.toThrow(tooLarge)
      expect(await inflate(bytes, encoding, 1_000_000)).toHaveLength(1_000_000)
      await expect(inflate(bytes.subarray(0, 9), encoding)).rejects.toMatchObject({
        code: 'PROTOCOL',
      })
      await expect(inflate(Buffer.from('x'), encoding)).rejects.toMatchObject({ code: 'PROTOCOL' })
    }
  })
})

describe('a live stream', () => {
  const open = async (headers: Record<string, string>, query = {}): Promise<IncomingMessage> => {
    const url = new URL('/sync/v1/live', centre.url)
    const all = { client: newId(), schema: String(SCHEMA_VERSION), acked: '0', ...query }
    url.search = new URLSearchParams(all).toString()
    const request = get(url, { headers: { authorization: `Bearer ${client.token}`, ...headers } })
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    return response
  }

  const firstFrame = async (response: IncomingMessage): Promise<Frame> => {
    const reader = new FrameReader()
    for await (const piece of response as AsyncIterable<Buffer>)
      for (const frame of reader.read(piece)) return frame
    throw new Error('the stream ended')
  }

  test('compresses a long batch as it was asked, and no other', async () => {
    const asked = await firstFrame(await open({}, { encoding: 'br' }))
    const bare = await firstFrame(await open({}))
    expect([asked.kind, asked.isCompressed]).toEqual([FrameKind.batch, true])
    expect([bare.kind, bare.isCompressed]).toEqual([FrameKind.batch, false])
    const opened = brotliDecompressSync(asked.payload)
    expect(conversations(decodeMessage(pullResponseSchema, opened, MSGPACK))).toEqual(
      conversations(decodeMessage(pullResponseSchema, bare.payload, MSGPACK)),
    )
  })

  test('is lines of JSON for whoever asks for JSON: batches, heartbeats, the error at its end', async () => {
    const someone = await createUser(centre)
    const token = await centre.server.issueToken({ userId: someone.id, agentId: 'curl' })
    const response = await open({ accept: JSON_TYPE, authorization: `Bearer ${token}` })
    expect(response.headers['content-type']).toBe('application/x-ndjson')
    const lines: Record<string, unknown>[] = []
    for await (const line of createInterface({ input: response })) {
      lines.push(JSON.parse(line) as Record<string, unknown>)
      if (lines.length === 1)
        await centre.db
          .updateTable('users')
          .set({ status: 'suspended' })
          .where('id', '=', someone.id)
          .execute()
    }
    expect(lines.map((line) => Object.keys(line))).toEqual([['batch'], ['error']])
    expect(pullResponseSchema.parse(lines[0]?.['batch']).rows.length).toBeGreaterThan(0)
    expect(errorResponseSchema.parse(lines[1]?.['error']).code).toBe('FORBIDDEN')
    expect(Buffer.from(linesForm.heartbeat).toString()).toBe('{"heartbeat":true}\n')
  })
})
