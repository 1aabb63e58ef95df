import { request as httpRequest } from 'node:http'
import { sql } from 'kysely'
import { SignJWT, UnsecuredJWT } from 'jose'
import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from 'vitest'
import { MESSAGE_BYTES_MAX } from '../../schema/limits.ts'
import { newId } from '../../schema/values/id.ts'
import { SCHEMA_SKEW_MAX, SCHEMA_VERSION } from '../../schema/version.ts'
import { signCursor, type Cursor } from '../../server/sync/cursor.ts'
import { decodeMessage, encodeMessage, JSON_TYPE, MSGPACK } from '../../sync/protocol/codec.ts'
import {
  PUSH_TRANSACTIONS_MAX,
  pullResponseSchema,
  pushRequestSchema,
} from '../../sync/protocol/messages.ts'
import { encodeMsgpack } from '../../sync/protocol/msgpack.ts'
import {
  createUser,
  databaseKinds,
  SECRET_MARK,
  startCentre,
  startCentreOn,
  type Centre,
  type TestUser,
} from '../support/centre.ts'
import { createDatabase } from '../support/databases.ts'
import { newRowIds, sampleRow } from '../support/sample-rows.ts'
import {
  errorAnswer,
  insert,
  newTransactionId,
  pushRequest,
  update,
  wireClient,
  WireClient,
  type ErrorAnswer,
} from '../support/wire-client.ts'

const SECRET = 'the signing key of these tests, 48 characters !!'
const key = new TextEncoder().encode(SECRET)

/** What no answer may hold: keys, SQL, places in our code, the database's own words. */
const telling =
  /SELECT |INSERT |UPDATE \w+ SET|sync\.\w|pg_|postgres(?:ql)?:|relation |node_modules|at \/|\.ts\b|syntax error/

describe.each(databaseKinds)('the HTTP face on %s', (kind) => {
  let centre: Centre
  let user: TestUser
  let client: WireClient
  /** Every error body of the test that ran. */
  let bodies: string[] = []

  beforeAll(async () => {
    centre = await startCentreOn(kind, { secret: SECRET })
    user = await createUser(centre)
    client = await wireClient(centre, user)
  })

  afterAll(async () => {
    await centre[Symbol.asyncDispose]()
  })

  afterEach(() => {
    const told = bodies
    bodies = []
    for (const body of told) {
      expect(body).not.toMatch(telling)
      expect(body).not.toContain(SECRET)
      expect(body).not.toContain(SECRET_MARK)
      expect(Object.keys(JSON.parse(body) as object)).toEqual(['code', 'message'])
    }
  })

  const url = (path: string): URL => new URL(path, centre.url)

  async function refused(response: Response): Promise<ErrorAnswer> {
    expect(response.headers.get('content-type')).toContain(JSON_TYPE)
    const answer = await errorAnswer(response)
    bodies.push(JSON.stringify({ code: answer.code, message: answer.message }))
    return answer
  }

  const post = (
    body: Uint8Array | string | undefined,
    headers: Record<string, string> = {},
  ): Promise<Response> =>
    fetch(url('/sync/v1/push'), {
      method: 'POST',
      headers: {
        authorization: `Bearer ${client.token}`,
        'content-type': MSGPACK,
        ...headers,
      },
      ...(body === undefined ? {} : { body: Buffer.from(body) }),
    })

  const onePush = (): ReturnType<typeof pushRequest> =>
    pushRequest(newId(), [
      {
        seq: 1,
        id: newTransactionId(),
        mutations: [update('conversations', newId(), { title: 'x' })],
      },
    ])

  describe('refuses a token', () => {
    const good = (alg = 'HS256'): SignJWT =>
      new SignJWT({ agent: 'a' })
        .setProtectedHeader({ alg })
        .setSubject(user.id)
        .setIssuer('agentdb')
        .setAudience('agentdb-sync')
        .setIssuedAt()
        .setExpirationTime('1h')

    const bad: Record<string, () => string | undefined | Promise<string>> = {
      'that is missing': () => undefined,
      'that is empty': () => 'Bearer ',
      'of another scheme': async () => `Basic ${await good().sign(key)}`,
      'that is garbage': () => 'Bearer x',
      'that is garbage in three parts': () => 'Bearer a.b.c',
      'signed with another key': async () =>
        `Bearer ${await good().sign(new TextEncoder().encode('x'.repeat(48)))}`,
      'that has expired': async () =>
        `Bearer ${await good().setExpirationTime('1 minute ago').sign(key)}`,
      'without a signature': () =>
        `Bearer ${new UnsecuredJWT({ agent: 'a' }).setSubject(user.id).setIssuer('agentdb').setAudience('agentdb-sync').setExpirationTime('1h').encode()}`,
      'of another algorithm': async () => `Bearer ${await good('HS512').sign(key)}`,
      'of another issuer': async () => `Bearer ${await good().setIssuer('other').sign(key)}`,
      'for another audience': async () => `Bearer ${await good().setAudience('other').sign(key)}`,
      'without a user': async () => `Bearer ${await good().setSubject('me').sign(key)}`,
      'whose payload was changed': async () => {
        const [head, , mac] = (await good().sign(key)).split('.')
        const payload = Buffer.from(JSON.stringify({ sub: newId(), agent: 'a' }))
        return `Bearer ${head}.${payload.toString('base64url')}.${mac}`
      },
    }

    test.each(Object.keys(bad))('%s, on every route', async (name) => {
      const authorization = await bad[name]?.()
      const headers: Record<string, string> = authorization === undefined ? {} : { authorization }
      const query = `client=${newId()}&schema=${SCHEMA_VERSION}`
      const answers = [
        await fetch(url(`/sync/v1/pull?${query}`), { headers }),
        await fetch(url('/sync/v1/checksum'), { headers }),
        await fetch(url('/sync/v1/push'), {
          method: 'POST',
          headers: { ...headers, 'content-type': MSGPACK },
          body: Buffer.from(encodeMessage(pushRequestSchema, onePush(), MSGPACK)),
        }),
      ]
      for (const answer of answers)
        expect(await refused(answer)).toMatchObject({ status: 401, code: 'UNAUTHORIZED' })
    })

    test('but takes one of the same making', async () => {
      const headers = { authorization: `Bearer ${await good().sign(key)}` }
      const query = `client=${newId()}&schema=${SCHEMA_VERSION}`
      expect((await fetch(url(`/sync/v1/pull?${query}`), { headers })).status).toBe(200)
    })

    test('that has expired in words that say what to do', async () => {
      const token = await good().setExpirationTime('1 minute ago').sign(key)
      const answer = await refused(
        await fetch(url('/sync/v1/checksum'), { headers: { authorization: `Bearer ${token}` } }),
      )
      expect(answer.message).toBe('the token has expired; get a new one')
    })
  })

  test.each(['0', '2', '99', 'x', '-1'])('refuses protocol %s', async (protocol) => {
    const answer = await refused(await client.pullRaw({}, { 'x-agentdb-protocol': protocol }))
    expect(answer).toMatchObject({ status: 400, code: 'PROTOCOL' })
    expect(answer.message).toContain('this centre speaks protocol 1 to 1')
  })

  test('refuses a schema version that it does not know, and says who is to upgrade', async () => {
    const beyond = SCHEMA_VERSION + SCHEMA_SKEW_MAX + 1
    const newer = await refused(await client.pullRaw({ schema: String(beyond) }))
    expect(newer).toMatchObject({ status: 409, code: 'SCHEMA_UNKNOWN' })
    expect(newer.message).toContain('upgrade the centre')
    const push = { ...onePush(), schema: beyond }
    const pushed = await refused(await post(encodeMessage(pushRequestSchema, push, MSGPACK)))
    expect(pushed).toMatchObject({ status: 409, code: 'SCHEMA_UNKNOWN' })
    const older = await refused(await client.pullRaw({ schema: '0' }))
    expect(older.message).toContain('upgrade the agent')
  })

  const broken: Record<string, Uint8Array | string | undefined> = {
    nothing: undefined,
    'an empty body': new Uint8Array(0),
    'a byte that msgpack never uses': new Uint8Array([0xc1]),
    'a message cut short': encodeMsgpack({ clientId: newId(), transactions: [1, 2] }).subarray(
      0,
      20,
    ),
    'an array of four thousand million': new Uint8Array([0xdd, 0xff, 0xff, 0xff, 0xff]),
    'a map of four thousand million': new Uint8Array([0xdf, 0xff, 0xff, 0xff, 0xff]),
    'a text of four thousand million': new Uint8Array([0xdb, 0xff, 0xff, 0xff, 0xff]),
    'bytes of four thousand million': new Uint8Array([0xc6, 0xff, 0xff, 0xff, 0xff]),
    'two hundred thousand nested arrays': new Uint8Array(200_000).fill(0x91),
    'a message with something behind it': new Uint8Array([0x01, 0x02]),
    'a number': encodeMsgpack(7),
    null: encodeMsgpack(null),
  }

  test.each(Object.keys(broken))('refuses %s instead of a push', async (name) => {
    expect(await refused(await post(broken[name]))).toMatchObject({ status: 400, code: 'PROTOCOL' })
  })

  const brokenJson: Record<string, string | Uint8Array> = {
    'JSON cut short': '{"clientId": "',
    'JSON that is no UTF-8': new Uint8Array([0x22, 0xff, 0xfe, 0x22]),
    'JSON nested two hundred thousand deep': '['.repeat(200_000),
    'JSON with bytes that are no base64': JSON.stringify({ clientId: { $bytes: '%%' } }),
    'an empty JSON body': '',
  }

  test.each(Object.keys(brokenJson))('refuses %s', async (name) => {
    const answer = await refused(await post(brokenJson[name], { 'content-type': JSON_TYPE }))
    expect(answer).toMatchObject({ status: 400, code: 'PROTOCOL' })
  })

  test('refuses a content type that it does not read', async () => {
    const answer = await refused(await post('<push/>', { 'content-type': 'text/xml' }))
    expect(answer).toMatchObject({ status: 415, code: 'PROTOCOL' })
  })

  const wrong: readonly (readonly [field: string, change: (push: Mutable) => void])[] = [
    ['clientId', (push) => (push['clientId'] = 'me')],
    ['clientId', (push) => delete push['clientId']],
    ['schema', (push) => (push['schema'] = '1')],
    ['previous.id', (push) => (push['previous'] = { seq: 1, id: 'short' })],
    ['shapes.0.table', (push) => (first(push, 'shapes')['table'] = 'conversations')],
    ['shapes.0.columns.0', (push) => (first(push, 'shapes')['columns'] = [7])],
    ['transactions', (push) => (push['transactions'] = [])],
    ['transactions.0.seq', (push) => (first(push, 'transactions')['seq'] = 0)],
    ['transactions.0.seq', (push) => (first(push, 'transactions')['seq'] = 1.5)],
    ['transactions.0.seq', (push) => (first(push, 'transactions')['seq'] = 2 ** 53)],
    ['transactions.0.id', (push) => (first(push, 'transactions')['id'] = newId())],
    ['transactions.0.clock', (push) => (first(push, 'transactions')['clock'] = -1)],
    ['transactions.0.base', (push) => (first(push, 'transactions')['base'] = null)],
    ['transactions.0.mutations.0.1', (push) => (mutation(push)[1] = 'truncate')],
    ['transactions.0.mutations.0.2', (push) => (mutation(push)[2] = "'; DROP TABLE users; --")],
    ['transactions.0.mutations.0.3', (push) => (mutation(push)[3] = 'values')],
    ['transactions.0.mutations.0.3.0', (push) => (mutation(push)[3] = [{ $gt: '' }])],
    ['transactions.0.mutations.0.3.0', (push) => (mutation(push)[3] = [true])],
    ['transactions.0.mutations.0.3', (push) => (mutation(push)[3] = ['x', 'y'])],
    ['transactions.0.mutations.0.0', (push) => (mutation(push)[0] = 400)],
  ]

  type Mutable = Record<string, unknown>
  const first = (push: Mutable, name: string): Mutable => (push[name] as Mutable[])[0] ?? {}
  const mutation = (push: Mutable): unknown[] =>
    (first(push, 'transactions')['mutations'] as unknown[][])[0] ?? []

  test.each(wrong)('names the field of a wrong push: %s', async (field, change) => {
    const push = JSON.parse(JSON.stringify(onePush())) as Mutable
    change(push)
    const answer = await refused(await post(JSON.stringify(push), { 'content-type': JSON_TYPE }))
    expect(answer).toMatchObject({ status: 400, code: 'PROTOCOL' })
    expect(answer.message.startsWith(`${field}: `)).toBe(true)
  })

  test('refuses more transactions than a push may have', async () => {
    const push = onePush()
    const transactions = Array.from({ length: PUSH_TRANSACTIONS_MAX + 1 }, () => ({
      ...push.transactions[0],
    })) as typeof push.transactions
    for (const type of [MSGPACK, JSON_TYPE]) {
      const body = encodeMessage(pushRequestSchema, { ...push, transactions }, type)
      const answer = await refused(await post(body, { 'content-type': type }))
      expect(answer).toMatchObject({ status: 400, code: 'PROTOCOL' })
      expect(answer.message.startsWith('transactions: ')).toBe(true)
    }
  })

  test.each([
    ['client', { client: 'me' }],
    ['client', { client: '' }],
    ['acked', { acked: '-1' }],
    ['acked', { acked: '1.5' }],
    ['acked', { acked: 'x' }],
    ['wait', { wait: 'long' }],
    ['wait', { wait: '1e400' }],
    ['schema', { schema: 'newest' }],
  ] as const)('names the wrong parameter of a pull: %s %o', async (name, query) => {
    const answer = await refused(await client.pullRaw(query))
    expect(answer).toMatchObject({ status: 400, code: 'PROTOCOL' })
    expect(answer.message.startsWith(`${name}: `)).toBe(true)
  })

  test.each(['client', 'cursor', 'acked', 'wait', 'schema'])(
    'a pull that names %s twice is refused, not a failure of the centre',
    async (name) => {
      const { cursor } = await client.pull()
      const all = {
        client: client.clientId,
        schema: String(SCHEMA_VERSION),
        acked: '0',
        wait: '0',
        cursor,
      }
      const query = new URLSearchParams(all)
      query.append(name, all[name as keyof typeof all])
      const response = await fetch(url(`/sync/v1/pull?${query.toString()}`), {
        headers: { authorization: `Bearer ${client.token}` },
      })
      expect(await refused(response)).toEqual({
        status: 400,
        code: 'PROTOCOL',
        message: `${name}: is given twice`,
      })
    },
  )

  test('a body that says that it is too long is refused before it is read', async () => {
    const answer = await new Promise<{ status: number; body: string }>((done, fail) => {
      const request = httpRequest(url('/sync/v1/push'), {
        method: 'POST',
        headers: {
          authorization: `Bearer ${client.token}`,
          'content-type': MSGPACK,
          'content-length': String(MESSAGE_BYTES_MAX + 1),
        },
      })
      request.on('error', fail)
      request.on('response', (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('end', () => {
          request.destroy()
          done({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString() })
        })
      })
      request.flushHeaders()
    })
    bodies.push(answer.body)
    expect(answer.status).toBe(413)
    expect(JSON.parse(answer.body)).toEqual({
      code: 'TOO_LARGE',
      message: `/sync/v1/push takes at most ${MESSAGE_BYTES_MAX} bytes: send fewer transactions at once`,
    })
  })

  test('a body that does not say its length is cut off at the limit', async () => {
    let sent = 0
    const end = await new Promise<number | 'hung up'>((done) => {
      const request = httpRequest(url('/sync/v1/push'), {
        method: 'POST',
        headers: { authorization: `Bearer ${client.token}`, 'content-type': MSGPACK },
      })
      let over = false
      const chunk = Buffer.alloc(1024 * 1024)
      const more = (): void => {
        if (over) return
        sent += chunk.length
        request.write(chunk, more)
      }
      const finish = (how: number | 'hung up'): void => {
        over = true
        done(how)
        request.destroy()
      }
      // The server hangs up on what still comes; its answer may be lost with the connection.
      request.on('error', () => finish('hung up'))
      request.on('close', () => finish('hung up'))
      request.on('response', (response) => finish(response.statusCode ?? 0))
      more()
    })
    expect([413, 'hung up']).toContain(end)
    expect(sent).toBeGreaterThan(MESSAGE_BYTES_MAX)
    expect(sent).toBeLessThan(2 * MESSAGE_BYTES_MAX)
    expect((await fetch(url('/health/live'))).status).toBe(200)
  })

  test.each([
    ['GET', '/'],
    ['GET', '/sync/v1/push'],
    ['POST', '/sync/v1/pull'],
    ['GET', '/sync/v2/pull'],
    ['GET', '/sync/v1/pull/..%2f..%2fetc%2fpasswd'],
    ['DELETE', '/health/live'],
  ])('%s %s is not there', async (method, path) => {
    expect(await refused(await fetch(url(path), { method }))).toMatchObject({
      status: 404,
      code: 'NOT_FOUND',
    })
  })

  test('says that it lives and is ready, to anyone', async () => {
    const live = await fetch(url('/health/live'))
    expect([live.status, await live.json()]).toEqual([200, { status: 'ok' }])
    const ready = await fetch(url('/health/ready'))
    expect([ready.status, await ready.json()]).toEqual([200, { status: 'ok', database: kind }])
  })

  test('speaks JSON to whoever asks, and means the same', async () => {
    const own = await wireClient(centre, user)
    const rows = newRowIds()
    const embedding = sampleRow('embeddings', rows.embeddings, user.id, rows)
    await own.push([
      [insert('embeddings', embedding)],
      [update('incidents', newId(), { title: 'x' })],
    ])
    const [packed, json] = await Promise.all(
      [MSGPACK, JSON_TYPE].map(async (accept) => {
        const response = await own.pullRaw({}, { accept })
        expect(response.headers.get('content-type')).toContain(accept)
        const bytes = new Uint8Array(await response.arrayBuffer())
        return decodeMessage(pullResponseSchema, bytes, accept)
      }),
    )
    expect(packed?.rows.length).toBeGreaterThan(1)
    expect(packed?.outcomes).toHaveLength(1)
    const values = packed?.rows.find(([, row]) => row[0] === rows.embeddings)?.[1] ?? []
    expect(values.filter((value) => value instanceof Uint8Array)).toHaveLength(1)
    const comparable = (pull: typeof packed): unknown => ({
      ...pull,
      clock: 0,
      rows: pull?.rows.map(([shape, row]) => [
        shape,
        row.map((value) =>
          value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value,
        ),
      ]),
    })
    expect(comparable(json)).toEqual(comparable(packed))
  })

  test('takes a push in JSON, bytes and all', async () => {
    const own = await wireClient(centre, user)
    const rows = newRowIds()
    const embedding = sampleRow('embeddings', rows.embeddings, user.id, rows)
    const request = pushRequest(own.clientId, [
      { seq: 1, id: newTransactionId(), mutations: [insert('embeddings', embedding)] },
    ])
    const response = await fetch(url('/sync/v1/push'), {
      method: 'POST',
      headers: {
        authorization: `Bearer ${own.token}`,
        'content-type': JSON_TYPE,
        accept: JSON_TYPE,
      },
      body: Buffer.from(encodeMessage(pushRequestSchema, request, JSON_TYPE)),
    })
    expect([response.status, await response.json()]).toEqual([200, { nextSeq: 2 }])
    expect(await own.outcomes()).toEqual([])
    const row = await centre.db
      .selectFrom('embeddings')
      .select('vector')
      .where('id', '=', rows.embeddings)
      .executeTakeFirstOrThrow()
    expect([...row.vector]).toEqual([1, 0.5])
  })

  describe('refuses a cursor', () => {
    const tampered: Record<string, (good: string) => string> = {
      'that is garbage': () => 'x',
      'that is empty': () => '',
      'without its signature': (good) => good.split('.')[0] ?? '',
      'with another signature': (good) => `${good.split('.')[0]}.${'A'.repeat(22)}`,
      'whose position was changed': (good) => {
        const [text = '', mac] = good.split('.')
        const cursor = JSON.parse(Buffer.from(text, 'base64url').toString()) as Cursor
        const forged = JSON.stringify({ ...cursor, position: cursor.position - 1 })
        return `${Buffer.from(forged).toString('base64url')}.${mac}`
      },
      'that another centre signed': (good) => {
        const text = Buffer.from(good.split('.')[0] ?? '', 'base64url').toString()
        return signCursor(JSON.parse(text) as Cursor, new TextEncoder().encode('y'.repeat(48)))
      },
    }

    test.each(Object.keys(tampered))('%s', async (name) => {
      const { cursor } = await client.pull()
      const answer = await refused(await client.pullRaw({ cursor: tampered[name]?.(cursor) ?? '' }))
      expect(answer).toEqual({
        status: 400,
        code: 'PROTOCOL',
        message: 'the cursor was not issued by this centre',
      })
    })

    test('that points where this history does not lead', async () => {
      const { nonce, position } = await client.pull()
      const base = { nonce, position, scope: 'developer', schema: SCHEMA_VERSION } as const
      const forks = [
        { ...base, nonce: newId() },
        { ...base, position: position + 1000 },
      ]
      for (const fork of forks) {
        const answer = await refused(await client.pullRaw({ cursor: signCursor(fork, key) }))
        expect(answer).toMatchObject({ status: 409, code: 'FORKED' })
        expect(answer.message).toContain('restored to an earlier point')
      }
      expect((await client.pullRaw({ cursor: signCursor(base, key) })).status).toBe(200)
    })
  })

  test('a failure inside tells nothing of the inside', async () => {
    await sql`ALTER TABLE sync.applied RENAME TO applied_away`.execute(centre.db)
    try {
      const own = await wireClient(centre, user)
      const id = newId()
      const request = pushRequest(own.clientId, [
        {
          seq: 1,
          id: newTransactionId(),
          mutations: [insert('conversations', { id, user_id: user.id })],
        },
      ])
      const answer = await refused(await own.send(request))
      expect(answer).toEqual({
        status: 500,
        code: 'SERVER_ERROR',
        message: 'the centre failed; its log says why',
      })
      const found = await centre.db
        .selectFrom('conversations')
        .select('id')
        .where('id', '=', id)
        .execute()
      expect(found).toEqual([])
    } finally {
      await sql`ALTER TABLE sync.applied_away RENAME TO applied`.execute(centre.db)
    }
  })
})

test('a cursor from before the centre’s last life is good up to where that life began', async () => {
  await using centre = await startCentreOn('postgres', { secret: SECRET })
  const user = await createUser(centre)
  const client = await wireClient(centre, user)
  const old = await client.pull()
  await client.push([[insert('conversations', { id: newId(), user_id: user.id })]])
  const beyond = await client.pull(old.cursor)
  expect(beyond.position).toBeGreaterThan(old.position)
  // What the centre writes when it wakes after a restore to the earlier position.
  await sql`INSERT INTO sync.history (nonce, first_position, started) VALUES (${newId()}, ${old.position + 1}, 'later')`.execute(
    centre.db,
  )
  // Bindings and histories are remembered by a server; a restored centre has a new one.
  await using restored = await startCentre({
    databaseUrl: centre.databaseUrl,
    secret: SECRET,
  })
  const again = new WireClient(restored.url, client.token, client.clientId)
  expect((await again.pullRaw({ cursor: old.cursor })).status).toBe(200)
  const answer = await errorAnswer(await again.pullRaw({ cursor: beyond.cursor }))
  expect(answer).toMatchObject({ status: 409, code: 'FORKED' })
})

test('a centre whose database is gone lives, and says that it is not ready', async () => {
  await using database = await createDatabase(inject('postgresUrl'), 'gone')
  await using centre = await startCentre({ databaseUrl: database.url, secret: SECRET })
  await database.drop()
  const ready = await fetch(new URL('/health/ready', centre.url))
  expect([ready.status, await ready.json()]).toEqual([
    503,
    { status: 'unavailable', database: 'postgres' },
  ])
  expect((await fetch(new URL('/health/live', centre.url))).status).toBe(200)
})
