import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { collections } from '../../schema/tables/embeddings.ts'
import { newId } from '../../schema/values/id.ts'
import { createUser, startCentre, type Centre, type TestUser } from '../support/centre.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import { anyQdrant } from '../support/qdrant.ts'
import { DIMENSION, embed, MODEL, pointsOf, qdrantCall, vectorOptions } from '../support/vectors.ts'
import { Random } from '../sim/random.ts'

interface Found {
  readonly id: string
  readonly score: number
  readonly model: string
  readonly contentPreview: string | null
  readonly payload: Record<string, unknown>
}

interface Answer {
  readonly results: Found[]
  readonly engine: string
}

let qdrant: Awaited<ReturnType<typeof anyQdrant>>
let database: TestDatabase
/** The same database behind two servers: one asks Qdrant, one reads the rows. */
let centre: Centre
let exact: Centre
let ada: TestUser
let eve: TestUser
const vectors = vectorOptions({}, collections)
const nameOf = (collection: string): string => `${vectors.prefix}${collection}`

beforeAll(async () => {
  qdrant = await anyQdrant()
  database = await createDatabase(inject('postgresUrl'), 'search')
  const secret = 'a secret of thirty-two characters'
  centre = await startCentre({ databaseUrl: database.url, secret, qdrantUrl: qdrant.url, vectors })
  exact = await startCentre({ databaseUrl: database.url, secret, vectors })
  ada = await createUser(centre)
  eve = await createUser(centre)
})
afterAll(async () => {
  await exact[Symbol.asyncDispose]()
  await centre[Symbol.asyncDispose]()
  await database.drop()
  await qdrant[Symbol.asyncDispose]()
})

async function ask(
  of: Centre,
  user: TestUser | undefined,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<Response> {
  const token =
    user === undefined ? undefined : await of.server.issueToken({ userId: user.id, agentId: 'a' })
  return await fetch(`${of.url}/search/v1${path}`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      ...headers,
    },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
}

async function search(user: TestUser, path: string, body: unknown): Promise<Answer> {
  const answer = await ask(centre, user, path, body)
  expect(answer.status).toBe(200)
  const found = (await answer.json()) as Answer
  expect(found.engine).toBe('qdrant')
  return found
}

/** What both servers answer, which is the same. */
async function both(user: TestUser, path: string, body: unknown): Promise<Found[]> {
  const { results } = await search(user, path, body)
  const rows = (await (await ask(exact, user, path, body)).json()) as Answer
  expect(rows.engine).toBe('exact')
  expect(results.map(({ id }) => id)).toEqual(rows.results.map(({ id }) => id))
  for (const [i, { score }] of rows.results.entries())
    expect(results[i]?.score).toBeCloseTo(score, 4)
  expect(results.map((one) => ({ ...one, score: 0 }))).toEqual(
    rows.results.map((one) => ({ ...one, score: 0 })),
  )
  return results
}

const ids = (results: readonly Found[]): string[] => results.map(({ id }) => id)

describe('search at the centre', () => {
  test('Qdrant and the rows give the same answers under every filter', async () => {
    const user = await createUser(centre)
    const random = new Random(7, 0)
    const languages = ['ts', 'rs', ['ts', 'rs'], 7, null]
    await embed(
      centre,
      user,
      Array.from({ length: 300 }, (_, i) => ({
        vector: Array.from({ length: DIMENSION }, () => random.below(2000) / 1000 - 1),
        preview: `row ${i}`,
        payload: {
          project_id: `p${i % 3}`,
          language: languages[i % 5],
          indexed_at:
            i % 7 === 0
              ? 'yesterday'
              : `2026-11-${String((i % 28) + 1).padStart(2, '0')}T00:00:00Z`,
        },
      })),
    )
    await centre.server.vectorsCaughtUp()
    const vector = [0.3, -0.2, 0.9, 0.1]
    const since = '2026-11-05T00:00:00Z'
    const until = '2026-11-20T00:00:00Z'
    const filters = [
      {},
      { project_id: 'p1' },
      { project_id: ['p1', 'p2'], language: 'ts' },
      { language: ['rs', 'ts'] },
      { since },
      { project_id: 'p0', since, until },
      { language: 'none' },
    ]
    const sizes: number[] = []
    for (const filter of filters) {
      const body = { collection: 'code_embeddings', vector, k: 300, exact: true, filter }
      sizes.push((await both(user, '', body)).length)
    }
    expect(sizes[0]).toBe(300)
    expect(sizes[1]).toBe(100)
    expect(sizes.at(-1)).toBe(0)
    expect(new Set(sizes).size).toBeGreaterThan(5)
  })

  test('code is found in its project, of one language or any', async () => {
    const [ts = '', rs = ''] = await embed(centre, ada, [
      { vector: [1, 0, 0, 0], payload: { project_id: 'one', language: 'ts', file_path: 'a.ts' } },
      { vector: [1, 0.1, 0, 0], payload: { project_id: 'one', language: 'rs' } },
      { vector: [1, 0, 0, 0], payload: { project_id: 'two', language: 'ts' } },
    ])
    await centre.server.vectorsCaughtUp()
    const vector = [1, 0, 0, 0]
    expect(ids(await both(ada, '/code', { project: 'one', vector }))).toEqual([ts, rs])
    const some = await both(ada, '/code', { project: 'one', language: 'rs', vector })
    expect(ids(some)).toEqual([rs])
    expect(some[0]?.payload).toEqual({ project_id: 'one', language: 'rs' })
    expect((await ask(centre, ada, '/code', { vector })).status).toBe(400)
  })

  test('similar incidents are of any of the severities, of the service, and near enough', async () => {
    const incident = (severity: string, services: string[], vector: number[]) => ({
      collection: 'incident_knowledge' as const,
      vector,
      payload: { severity, services },
    })
    const [high = '', low = '', , far = ''] = await embed(centre, ada, [
      incident('high', ['api', 'db'], [0, 1, 0, 0]),
      incident('low', ['api'], [0, 1, 0.2, 0]),
      incident('critical', ['web'], [0, 1, 0, 0]),
      incident('high', ['api'], [1, 1, 0, 0.3]),
    ])
    await centre.server.vectorsCaughtUp()
    const vector = [0, 1, 0, 0]
    const body = { severities: ['low', 'high'], service: 'api', vector }
    expect(ids(await both(ada, '/incidents', body))).toEqual([high, low])
    expect(ids(await both(ada, '/incidents', { ...body, minScore: 0 }))).toEqual([high, low, far])
    expect(await both(ada, '/incidents', { vector })).toHaveLength(3)
    expect((await ask(centre, ada, '/incidents', { vector, severities: [] })).status).toBe(400)
  })

  test('documentation is found by meaning and by words, and one that has both comes first', async () => {
    const page = (title: string, preview: string, vector: number[]) => ({
      collection: 'documentation_embeddings' as const,
      preview,
      vector,
      payload: { title },
    })
    const [wordsAlone = '', nearest = '', fitting = ''] = await embed(centre, ada, [
      page('Rollback of a release', 'How to roll a failed deployment back.', [-1, 0.2, 0, 0]),
      page('Colours', 'Which colours the charts have.', [0, 0, 1, 0]),
      page('Deployment', 'A deployment needs a rollback plan.', [0, 0, 1, 0.1]),
      page('Nothing of it', 'Lunch.', [-1, 0, -0.5, 0]),
    ])
    await centre.server.vectorsCaughtUp()
    const vector = [0, 0, 1, 0]
    const words = await both(ada, '/documentation', {
      vector,
      keywords: ['rollback', 'deployment'],
      k: 3,
    })
    expect(words[0]?.id).toBe(fitting)
    expect(ids(words)).toContain(wordsAlone)
    const meaning = await both(ada, '/documentation', { vector, k: 2 })
    expect(ids(meaning)).toEqual([nearest, fitting])
    const text = await both(ada, '', { collection: 'documentation_embeddings', text: 'Lunch' })
    expect(text.map(({ payload }) => payload['title'])).toEqual(['Nothing of it'])
    expect(await both(ada, '', { collection: 'documentation_embeddings', text: '?!' })).toEqual([])
  })

  test('words are found in the whole content, as far as it is searched', async () => {
    const user = await createUser(centre)
    const filler = 'word '.repeat(1000)
    const [inBody = '', beyond = '', changed = ''] = await embed(centre, user, [
      { preview: 'start of a text', content: `${filler} marmalade` },
      { preview: 'start of a text', content: `${filler.repeat(2)} marmalade` },
      { preview: 'start of a text', content: 'no such thing' },
    ])
    await centre.server.vectorsCaughtUp()
    // How rare a word is, the two count over different rows: which rows they find is the same.
    const found = async (text: string): Promise<string[]> => {
      const body = { collection: 'code_embeddings', text }
      const { results } = await search(user, '', body)
      const rows = (await (await ask(exact, user, '', body)).json()) as Answer
      expect(ids(results)).toEqual(ids(rows.results))
      return ids(results)
    }
    expect(await found('marmalade')).toEqual([inBody])
    await sql`UPDATE embeddings SET content = 'now with marmalade' WHERE id = ${changed}`.execute(
      centre.db,
    )
    await centre.server.vectorsCaughtUp()
    const now = await found('marmalade')
    expect(now.toSorted()).toEqual([changed, inBody].toSorted())
    expect(now).not.toContain(beyond)
    // The content is searched in the preview's place: what it begins with does not count twice.
    expect(await found('start')).toEqual([])
  })

  test('conversations are found by their owner, of one conversation and a span of time', async () => {
    const conversation = newId()
    const said = (timestamp: string, id = conversation) => ({
      collection: 'conversation_embeddings' as const,
      payload: { conversation_id: id, timestamp },
    })
    const [early = '', late = '', other = ''] = await embed(centre, ada, [
      said('2026-11-01T00:00:00.000001Z'),
      said('2026-11-02T00:00:00Z'),
      said('2026-11-03T00:00:00Z', newId()),
    ])
    await embed(centre, eve, [said('2026-11-02T00:00:00Z')])
    await centre.server.vectorsCaughtUp()
    const vector = [1, 0, 0, 0]
    const sorted = async (body: object): Promise<string[]> =>
      ids(await both(ada, '/conversations', { vector, ...body })).toSorted()
    expect(await sorted({})).toEqual([early, late, other].toSorted())
    expect(await sorted({ conversation })).toEqual([early, late].toSorted())
    expect(await sorted({ conversation, since: '2026-11-01T00:00:00.000002Z' })).toEqual([late])
    expect(await sorted({ until: '2026-11-02T00:00:00Z' })).toEqual([early])
  })

  test('a stranger finds nothing of others, by vector, by words, or by naming ids in a filter', async () => {
    await embed(centre, ada, [{ preview: 'secret plan', payload: { project_id: 'hidden' } }])
    await centre.server.vectorsCaughtUp()
    const stranger = await createUser(centre, { role: 'admin' })
    const [own = ''] = await embed(centre, stranger, [{ preview: 'nothing', vector: [0, 1, 0, 0] }])
    await centre.server.vectorsCaughtUp()
    const found = async (body: object): Promise<string[]> =>
      ids(await both(stranger, '', { collection: 'code_embeddings', ...body }))
    const vector = [1, 0, 0, 0]
    expect(await found({ vector, k: 1000 })).toEqual([own])
    expect(await found({ text: 'secret plan' })).toEqual([])
    expect(await found({ vector, text: 'secret', filter: { project_id: 'hidden' } })).toEqual([])
  })

  test('a stale or forged point leaks no row, and does not hide those that are there', async () => {
    const user = await createUser(centre)
    const [hers = ''] = await embed(centre, ada, [{ vector: [0, 0, 0, 1], preview: 'of ada' }])
    const [mine = ''] = await embed(centre, user, [{ vector: [0, 0, 0.1, 1] }])
    await centre.server.vectorsCaughtUp()
    const collection = nameOf('code_embeddings')
    const forged = Array.from({ length: 20 }, () => newId())
    await qdrantCall(qdrant.url, 'PUT', `/collections/${collection}/points?wait=true`, {
      points: [hers, ...forged].map((id) => ({
        id,
        vector: { '': [0, 0, 0, 1] },
        payload: { _owner: user.id, _kind: 'row', _ver: 1 },
      })),
    })
    expect((await pointsOf(qdrant.url, collection)).size).toBeGreaterThan(20)
    const { results } = await search(user, '', {
      collection: 'code_embeddings',
      vector: [0, 0, 0, 1],
      k: 1,
    })
    expect(ids(results)).toEqual([mine])
    await qdrantCall(qdrant.url, 'POST', `/collections/${collection}/points/delete?wait=true`, {
      points: forged,
    })
  })

  test('what is not in Qdrant yet is found, and what is gone is not', async () => {
    const user = await createUser(centre)
    const slow = { ...vectors, pollMs: 3_600_000 }
    await using stalled = await startCentre({
      databaseUrl: database.url,
      secret: 'a secret of thirty-two characters',
      qdrantUrl: qdrant.url,
      vectors: slow,
    })
    const [kept = '', moved = '', gone = ''] = await embed(centre, user, [
      { vector: [1, 0, 0, 0] },
      { vector: [1, 0.1, 0, 0] },
      { vector: [1, 0.2, 0, 0] },
    ])
    await centre.server.vectorsCaughtUp()
    // Nobody follows the log now: the lease is another server's, which sleeps.
    await sql`UPDATE sync.vector_state SET holder = ${newId()}, held_until = 'infinity'`.execute(
      centre.db,
    )
    const [fresh = ''] = await embed(centre, user, [{ vector: [1, 0.05, 0, 0] }])
    await sql`UPDATE embeddings SET vector = decode('000080bf000000000000000000000000', 'hex') WHERE id = ${moved}`.execute(
      centre.db,
    )
    await sql`DELETE FROM embeddings WHERE id = ${gone}`.execute(centre.db)
    const answer = await ask(stalled, user, '', {
      collection: 'code_embeddings',
      vector: [1, 0, 0, 0],
    })
    const { results, engine } = (await answer.json()) as Answer
    expect(engine).toBe('qdrant')
    expect(ids(results)).toEqual([kept, fresh, moved])
    expect(results[2]?.score).toBeCloseTo(-1, 5)
    await sql`UPDATE sync.vector_state SET holder = NULL, held_until = NULL`.execute(centre.db)
  })

  test("a model is named, or is the collection's usual one; vectors of two are never compared", async () => {
    const user = await createUser(centre)
    const [usual = '', other = ''] = await embed(centre, user, [{}, { model: 'another-model' }])
    await embed(centre, user, [{ model: 'wide', vector: [1, 0] }])
    await centre.server.vectorsCaughtUp()
    const body = { collection: 'code_embeddings', vector: [1, 0, 0, 0] }
    expect(ids(await both(user, '', body))).toEqual([usual])
    expect(ids(await both(user, '', { ...body, model: 'another-model' }))).toEqual([other])
    expect(await both(user, '', { ...body, vector: [1, 0] })).toMatchObject([{ model: 'wide' }])
    expect((await ask(centre, user, '', { ...body, model: MODEL, vector: [1] })).status).toBe(200)
  })
})

describe('the face of search', () => {
  const body = { collection: 'code_embeddings', vector: [1, 0, 0, 0] }

  test.each([
    [{ ...body, k: 0 }, 'k: '],
    [{ ...body, k: 1001 }, 'k: '],
    [{ ...body, vector: [] }, 'vector: '],
    [{ ...body, vector: [1, 'x'] }, 'vector.1: '],
    [{ ...body, vector: [1e39] }, 'vector.0: '],
    [{ ...body, collection: 'users' }, 'collection: '],
    [{ ...body, frob: 1 }, 'frob'],
    [{ ...body, filter: { file_path: 'x' } }, 'filter.file_path: '],
    [{ ...body, filter: { language: [] } }, 'filter.language'],
    [{ ...body, filter: { since: 'soon' } }, 'filter.since: '],
    [{ ...body, filter: { project_id: '\ud800' } }, 'filter.project_id: '],
    [{ ...body, filter: { project_id: ['web', '\u0000'] } }, 'filter.project_id'],
    [{ ...body, model: 'a\u0000b' }, 'model: contains U+0000'],
    [{ ...body, text: '\udc00' }, 'text: contains a lone surrogate'],
    [{ ...body, minScore: 2 }, 'minScore: '],
    [{ collection: 'code_embeddings' }, 'vector or text'],
    [[], 'body: '],
  ])('%j is refused, and the answer names the field', async (wrong, named) => {
    const answer = await ask(centre, ada, '', wrong)
    const { code, message } = (await answer.json()) as { code: string; message: string }
    expect({ status: answer.status, code }).toEqual({ status: 400, code: 'INVALID_OPTION' })
    expect(message).toContain(named)
  })

  test('what neither PostgreSQL nor Qdrant takes is refused in every search, with Qdrant or without', async () => {
    const { vector } = body
    const forms: [string, object, string][] = [
      ['/code', { project: '\ud800' }, 'project: '],
      ['/code', { project: 'web', language: '\u0000' }, 'language: '],
      ['/incidents', { severities: ['high', '\u0000'] }, 'severities.1: '],
      ['/incidents', { service: '\ud800' }, 'service: '],
      ['/documentation', { keywords: ['\u0000'] }, 'keywords.0: '],
      ['/conversations', { conversation: '\u0000' }, 'conversation: '],
      ['/conversations', { model: '\u0000' }, 'model: '],
    ]
    for (const [path, wrong, named] of forms) {
      for (const of of [centre, exact]) {
        const answer = await ask(of, ada, path, { vector, ...wrong })
        expect(answer.status).toBe(400)
        expect(((await answer.json()) as { message: string }).message).toContain(named)
      }
    }
    const smiling = { ...body, filter: { project_id: '😀' } }
    expect((await ask(centre, ada, '', smiling)).status).toBe(200)
  })

  test('it is for whoever has a token and an active account', async () => {
    const suspended = await createUser(centre, { status: 'suspended' })
    const codes: unknown[] = []
    for (const user of [undefined, suspended]) {
      const answer = await ask(centre, user, '/code', { project: 'x', vector: [1] })
      codes.push([answer.status, ((await answer.json()) as { code: string }).code])
    }
    expect(codes).toEqual([
      [401, 'UNAUTHORIZED'],
      [403, 'FORBIDDEN'],
    ])
    expect((await ask(centre, ada, '', '{"collection"')).status).toBe(400)
  })

  test('a body beyond the limit is refused with the limit and what to do, whoever has a token', async () => {
    const limit = 2 * 1024 * 1024
    const padded = (length: number): string => {
      const json = JSON.stringify(body)
      return json + ' '.repeat(length - json.length)
    }
    const message = (path: string): string =>
      `/search/v1${path} takes at most ${limit} bytes: write the vector with fewer digits, filter by fewer values`
    for (const path of ['', '/code', '/documentation']) {
      const answer = await ask(centre, ada, path, padded(limit + 1))
      expect(answer.status).toBe(413)
      expect(await answer.json()).toEqual({ code: 'TOO_LARGE', message: message(path) })
    }
    expect((await ask(centre, ada, '', padded(limit))).status).toBe(200)
    expect((await ask(centre, undefined, '', padded(limit + 1))).status).toBe(401)
    // The longest vector there is, written out at length, is within it.
    const vector = Array.from({ length: 65_535 }, () => -1.2345678901234567e-100)
    const longest = JSON.stringify({ ...body, vector })
    expect(longest.length).toBeGreaterThan(1.5e6)
    expect((await ask(centre, ada, '', longest)).status).toBe(200)
  })

  test('results come as lines to who asks for lines', async () => {
    const user = await createUser(centre)
    await embed(centre, user, [{}, {}])
    await centre.server.vectorsCaughtUp()
    const answer = await ask(centre, user, '', body, { accept: 'application/x-ndjson' })
    const lines = (await answer.text()).trimEnd().split('\n')
    expect(lines.map((line) => Object.keys(JSON.parse(line) as object)[0])).toEqual([
      'result',
      'result',
      'end',
    ])
  })
})
