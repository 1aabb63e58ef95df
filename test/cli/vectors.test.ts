import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest'
import { sql } from 'kysely'
import { newId } from '../../schema/values/id.ts'
import { createUser, startCentre, type Centre, type TestUser } from '../support/centre.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import { anyQdrant, startQdrant } from '../support/qdrant.ts'
import { embed, MODEL, pointsOf, qdrantCall, rowsOf, vectorOptions } from '../support/vectors.ts'
import { agentdbHere, parsed, Program } from './command.ts'

let qdrant: Awaited<ReturnType<typeof anyQdrant>>
let database: TestDatabase
let centre: Centre
let user: TestUser
const vectors = vectorOptions()
const code = `${vectors.prefix}code_embeddings`

beforeAll(async () => {
  qdrant = await anyQdrant()
  database = await createDatabase(inject('postgresUrl'), 'vectors')
  centre = await startCentre({ databaseUrl: database.url, qdrantUrl: qdrant.url, vectors })
  user = await createUser(centre)
  await centre.server.vectorsCaughtUp()
})
afterAll(async () => {
  await centre[Symbol.asyncDispose]()
  await database.drop()
  await qdrant[Symbol.asyncDispose]()
})

const vectorsCommand = (...args: string[]): ReturnType<typeof agentdbHere> =>
  agentdbHere([
    'vectors',
    ...args,
    '--database-url',
    database.url,
    '--qdrant-url',
    qdrant.url,
    '--qdrant-prefix',
    vectors.prefix ?? '',
  ])

/** `run` sets the exit code of its process, which here is that of the tests. */
async function exitCode(...args: string[]): Promise<number | null> {
  const { code: ended } = await vectorsCommand(...args)
  process.exitCode = 0
  return ended
}

const physical = async (): Promise<string> => {
  const { result } = (await qdrantCall(qdrant.url, 'GET', '/aliases')) as {
    result: { aliases: { alias_name: string; collection_name: string }[] }
  }
  return result.aliases.find(({ alias_name }) => alias_name === code)?.collection_name ?? ''
}

describe('agentdb vectors', () => {
  test.each([
    ['', ['status', 'verify', 'reindex', 'switch-model']],
    ['status', ['--qdrant-url', 'QDRANT_API_KEY', 'Examples:']],
    ['verify', ['--collection', '--timeout', 'Exit code 1', 'Examples:']],
    ['reindex', ['serves until', '--timeout', 'Examples:']],
    ['switch-model', ['--model', '--drop-old', '--timeout', 'Examples:']],
  ])('vectors %s --help shows its options and examples', async (command, expected) => {
    const ended = await agentdbHere(['vectors', ...command.split(' ').filter(Boolean), '--help'])
    expect(ended).toMatchObject({ code: 0, stderr: '' })
    for (const words of expected) expect(ended.stdout).toContain(words)
  })

  test.each([
    [['status'], 'give --qdrant-url or QDRANT_URL'],
    [['status', '--qdrant-url', 'ftp://x'], 'It must start with http://'],
    [['verify', '--qdrant-url', 'http://x', '--timeout', '0'], 'a whole number from 1 on'],
    [['status', '--qdrant-url', 'http://u:p@x'], 'QDRANT_API_KEY'],
    [['reindex', '--qdrant-url', 'http://x', '--collection', 'users'], 'Allowed choices'],
    [
      ['switch-model', '--qdrant-url', 'http://x', '--collection', 'code_embeddings'],
      'give --model or --drop-old',
    ],
  ])('%j is refused with 2 and says why', async (args, why) => {
    const ended = await agentdbHere(['vectors', ...args])
    expect(ended).toMatchObject({ code: 2, stdout: '' })
    expect(ended.stderr).toContain(why)
  })

  test('serve makes the collections that the environment says, with the copies that a write needs', async () => {
    await using served = await createDatabase(inject('postgresUrl'), 'configured')
    const { prefix = '' } = vectorOptions()
    await using server = Program.start('server/cli/main.ts', ['serve', '--port', '0', '--json'], {
      env: {
        DATABASE_URL: served.url,
        QDRANT_URL: qdrant.url,
        QDRANT_PREFIX: prefix,
        QDRANT_MODELS: 'small:4,code_embeddings=nomic:v1.5:8',
        QDRANT_REPLICAS: '2',
        QDRANT_WRITE_CONSISTENCY: '2',
      },
    })
    await server.line((line) => line.includes('"url"'))
    const live = async (): Promise<string[]> => {
      const { result } = (await qdrantCall(qdrant.url, 'GET', '/aliases')) as {
        result: { aliases: { alias_name: string }[] }
      }
      return result.aliases
        .map(({ alias_name: name }) => name)
        .filter((name) => name.startsWith(prefix) && /\.\d+$/.test(name))
        .map((name) => name.slice(prefix.length).replace(/-[0-9a-f]{8}\./, ' '))
        .toSorted()
    }
    await vi.waitFor(async () => expect(await live()).toHaveLength(5), 60_000)
    expect(await live()).toEqual([
      'code_embeddings.nomic-v1-5 8',
      'code_embeddings.small 4',
      'conversation_embeddings.small 4',
      'documentation_embeddings.small 4',
      'incident_knowledge.small 4',
    ])
    const { result } = (await qdrantCall(
      qdrant.url,
      'GET',
      `/collections/${prefix}code_embeddings`,
    )) as { result: { config: { params: Record<string, unknown> } } }
    expect(result.config.params).toMatchObject({
      vectors: { size: 4 },
      replication_factor: 2,
      write_consistency_factor: 2,
    })
    server.signal('SIGINT')
    expect(await server.ended).toMatchObject({ code: 0 })
  })

  test('status tells position, counts and dead letters; a row that Qdrant refuses for good stops no other', async () => {
    const [bad = ''] = await embed(centre, user, [{}, {}])
    await centre.server.vectorsCaughtUp()
    await sql`UPDATE embeddings SET vector = decode('0000c07f000000000000000000000000', 'hex') WHERE id = ${bad}`.execute(
      centre.db,
    )
    const [after = ''] = await embed(centre, user, [{}])
    await centre.server.vectorsCaughtUp()
    expect((await pointsOf(qdrant.url, code)).has(bad)).toBe(false)
    expect((await pointsOf(qdrant.url, code)).has(after)).toBe(true)
    const status = parsed(await vectorsCommand('status', '--json'))
    expect(status).toMatchObject({
      pending: 0,
      isFollowed: true,
      isForked: false,
      failures: 0,
      qdrant: 'ok',
      position: status['head'],
      deadLetters: [{ id: bad }],
    })
    expect(status['collections']).toContainEqual(
      expect.objectContaining({
        collection: 'code_embeddings',
        rows: 3,
        points: 2,
        deadLetters: 1,
      }),
    )
    const verdict = await vectorsCommand('verify')
    process.exitCode = 0
    expect(verdict.code).toBe(1)
    expect(verdict.stdout).toContain(`DIFFERENT\n  rows that Qdrant refuses: 1 (${bad})`)
    await sql`DELETE FROM embeddings WHERE id = ${bad}`.execute(centre.db)
    await centre.server.vectorsCaughtUp()
    expect(await exitCode('verify')).toBe(0)
    expect(parsed(await vectorsCommand('status', '--json'))).toMatchObject({ deadLetters: [] })
    const text = await vectorsCommand('status')
    expect(text.stdout).toContain('nothing waits')
  })

  test('verify finds what is missing, changed and too much in Qdrant, and reindex puts it right', async () => {
    const [missing = '', changed = ''] = await embed(centre, user, [{}, {}, {}])
    await centre.server.vectorsCaughtUp()
    expect(await exitCode('verify')).toBe(0)
    const extra = newId()
    const points = `/collections/${code}/points`
    await qdrantCall(qdrant.url, 'POST', `${points}/delete?wait=true`, { points: [missing] })
    await qdrantCall(qdrant.url, 'POST', `${points}/payload?wait=true`, {
      points: [changed],
      payload: { _digest: 'of something else' },
    })
    await qdrantCall(qdrant.url, 'PUT', `${points}?wait=true`, {
      points: [{ id: extra, vector: { '': [1, 0, 0, 0] }, payload: {} }],
    })
    expect(await exitCode('verify')).toBe(1)
    const verdict = parsed(await vectorsCommand('verify', '--json'))
    process.exitCode = 0
    const before = await physical()
    expect(verdict).toMatchObject({ isEqual: false })
    expect(verdict['collections']).toContainEqual(
      expect.objectContaining({
        name: before,
        missing: [missing],
        different: [changed],
        extra: [extra],
      }),
    )
    expect(await exitCode('reindex', '--collection', 'code_embeddings')).toBe(0)
    expect(await physical()).not.toBe(before)
    expect(await pointsOf(qdrant.url, code)).toEqual(await rowsOf(centre))
    expect(await exitCode('verify')).toBe(0)
    await expect(qdrantCall(qdrant.url, 'GET', `/collections/${before}`)).rejects.toThrow('404')
  })

  test('reindex while others write ends with every row in the fresh collection', async () => {
    await embed(
      centre,
      user,
      Array.from({ length: 1500 }, () => ({})),
    )
    await centre.server.vectorsCaughtUp()
    const done = new AbortController()
    const writing = (async () => {
      const written: string[] = []
      while (!done.signal.aborted) {
        const [id = '', gone = ''] = await embed(centre, user, [{}, {}])
        await sql`UPDATE embeddings SET content_preview = ${id} WHERE id = ${written.at(-1) ?? id}`.execute(
          centre.db,
        )
        await sql`DELETE FROM embeddings WHERE id = ${gone}`.execute(centre.db)
        written.push(id)
      }
      return written.length
    })()
    expect(await exitCode('reindex', '--collection', 'code_embeddings', '--json')).toBe(0)
    done.abort()
    expect(await writing).toBeGreaterThan(0)
    await centre.server.vectorsCaughtUp()
    expect(await pointsOf(qdrant.url, code)).toEqual(await rowsOf(centre))
  })

  test('a collection switches to another model with what rows have of it; the old one goes when told', async () => {
    const model = 'newer-model'
    const switching = ['switch-model', '--collection', 'code_embeddings'] as const
    expect(await exitCode(...switching, '--model', model)).toBe(1)
    const [id = ''] = await embed(centre, user, [{ model, vector: [1, 0] }])
    await centre.server.vectorsCaughtUp()
    const old = await physical()
    const result = parsed(await vectorsCommand(...switching, '--model', model, '--json'))
    expect(result).toMatchObject({ rows: 1, before: MODEL })
    expect([...(await pointsOf(qdrant.url, code)).keys()]).toEqual([id])
    expect((await pointsOf(qdrant.url, old)).size).toBeGreaterThan(0)
    const token = await centre.server.issueToken({ userId: user.id, agentId: 'a' })
    const search = async (body: object): Promise<unknown> => {
      const answer = await fetch(`${centre.url}/search/v1`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
        body: JSON.stringify({ collection: 'code_embeddings', ...body }),
      })
      return await answer.json()
    }
    expect(await search({ vector: [1, 0] })).toMatchObject({ engine: 'qdrant', results: [{ id }] })
    expect(await exitCode(...switching, '--drop-old')).toBe(0)
    await expect(qdrantCall(qdrant.url, 'GET', `/collections/${old}`)).rejects.toThrow('404')
    const [later = ''] = await embed(centre, user, [{ vector: [0.5, 1, 0, 0] }])
    await centre.server.vectorsCaughtUp()
    expect(await search({ model: MODEL, vector: [0.5, 1, 0, 0], k: 1 })).toMatchObject({
      engine: 'exact',
      results: [{ id: later }],
    })
  })

  test('a command says what the server that follows fails at, and waits no longer than it may', async () => {
    const apiKey = 'the-key-of-this-test'
    await using locked = await startQdrant({ apiKey })
    await using own = await createDatabase(inject('postgresUrl'), 'vectors_waiting')
    const place = ['--database-url', own.url, '--qdrant-url', locked.url]
    const serving = { databaseUrl: own.url, qdrantUrl: locked.url, qdrantApiKey: 'a wrong key' }
    const patient = vectorOptions({ leaseMs: 600_000 })
    await using server = await startCentre({
      ...serving,
      vectors: patient,
      onError: () => undefined,
    })
    await embed(server, await createUser(server), [{}])
    vi.stubEnv('QDRANT_API_KEY', apiKey)
    try {
      for (const command of [['verify'], ['reindex', '--json']]) {
        const waiting = ['vectors', ...command, ...place, '--timeout', '3']
        const { code: ended, stderr } = await agentdbHere(waiting)
        const [said, last] = stderr.split('\n')
        expect({ ended, said, last }).toEqual({
          ended: 1,
          said: expect.stringContaining('agentdb: Qdrant refuses the key') as string,
          last: expect.stringContaining(
            'agentdb: QDRANT_UNREACHABLE: not done within 3 s: Qdrant refuses the key',
          ) as string,
        })
      }
    } finally {
      vi.unstubAllEnvs()
    }
  })

  test('without a server this process does the work; where Qdrant is away it says so', async () => {
    await using own = await createDatabase(inject('postgresUrl'), 'vectors_alone')
    const place = ['--database-url', own.url, '--qdrant-prefix', `${vectors.prefix}alone_`]
    const qdrantUrl = ['--qdrant-url', qdrant.url]
    const reindex = await agentdbHere(['vectors', 'reindex', '--json', ...place, ...qdrantUrl])
    expect(reindex.code).toBe(0)
    const away = await agentdbHere([
      'vectors',
      'verify',
      ...place,
      '--qdrant-url',
      'http://127.0.0.1:9',
    ])
    expect(away.code).toBe(1)
    expect(away.stderr).toContain('QDRANT_UNREACHABLE')
    process.exitCode = 0
  })
})
