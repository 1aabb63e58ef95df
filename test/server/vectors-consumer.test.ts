import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, inject, test, vi } from 'vitest'
import { collections } from '../../schema/tables/embeddings.ts'
import {
  createUser,
  databaseKinds,
  startCentre,
  startCentreOn,
  type Centre,
  type TestUser,
} from '../support/centre.ts'
import { createDatabase } from '../support/databases.ts'
import { anyQdrant, startQdrant } from '../support/qdrant.ts'
import { embed, MODEL, pointsOf, qdrantCall, rowsOf, vectorOptions } from '../support/vectors.ts'

let qdrant: Awaited<ReturnType<typeof anyQdrant>>

beforeAll(async () => {
  qdrant = await anyQdrant()
})
afterAll(() => qdrant[Symbol.asyncDispose]())

describe.each(databaseKinds)('the consumer of the log on %s', (kind) => {
  let centre: Centre
  let user: TestUser
  const vectors = vectorOptions()
  const code = `${vectors.prefix}code_embeddings`

  beforeAll(async () => {
    centre = await startCentreOn(kind, { qdrantUrl: qdrant.url, vectors })
    user = await createUser(centre)
  })
  afterAll(() => centre[Symbol.asyncDispose]())

  test('what is inserted, changed and deleted by any SQL is so in Qdrant, too', async () => {
    const ids = await embed(centre, user, [{}, {}, { vector: [0, 1, 0, 0] }])
    await centre.server.vectorsCaughtUp()
    expect(await pointsOf(qdrant.url, code)).toEqual(await rowsOf(centre))
    await sql`UPDATE embeddings SET content_preview = 'changed' WHERE id = ${ids[0]}`.execute(
      centre.db,
    )
    await sql`DELETE FROM embeddings WHERE id = ${ids[1]}`.execute(centre.db)
    await centre.server.vectorsCaughtUp()
    const points = await pointsOf(qdrant.url, code)
    expect(points.size).toBe(2)
    expect(points).toEqual(await rowsOf(centre))
  })
})

interface CollectionInfo {
  readonly result: {
    readonly config: Record<string, Record<string, unknown>>
    readonly payload_schema: Record<string, { data_type: string; params?: { is_tenant?: boolean } }>
  }
}

describe('the collections that set-up makes', () => {
  test('have the parameters of the seeds, sizes in kilobytes, and an index on all that is filtered', async () => {
    await using database = await createDatabase(inject('postgresUrl'), 'layout')
    const { prefix = '' } = vectorOptions()
    const serving = { databaseUrl: database.url, qdrantUrl: qdrant.url, vectors: { prefix } }
    const info = async (name: string): Promise<CollectionInfo['result']> =>
      ((await qdrantCall(qdrant.url, 'GET', `/collections/${prefix}${name}`)) as CollectionInfo)
        .result
    for (let start = 0; start < 2; start++) {
      await using centre = await startCentre(serving)
      await centre.server.vectorsCaughtUp()
    }
    for (const collection of collections) {
      const { config, payload_schema: indexes } = await info(collection)
      expect(config['params']).toMatchObject({
        vectors: {
          size: 1536,
          distance: 'Cosine',
          on_disk: collection === 'conversation_embeddings',
        },
        sparse_vectors: { text: { modifier: 'idf' } },
      })
      // 10 000 vectors of 1536 floats are 60 000 kB.
      expect(config['hnsw_config']).toMatchObject({
        m: 16,
        ef_construct: 100,
        full_scan_threshold: 60_000,
        max_indexing_threads: 0,
        on_disk: false,
        payload_m: 16,
      })
      expect(config['optimizer_config']).toMatchObject({
        deleted_threshold: 0.2,
        vacuum_min_vector_number: 1000,
        default_segment_number: 2,
        max_segment_size: 1_200_000,
        memmap_threshold: 300_000,
        indexing_threshold: 120_000,
        flush_interval_sec: 5,
        max_optimization_threads: 4,
      })
      expect(config['quantization_config']).toBeNull()
      expect(config['strict_mode_config']).toMatchObject({ unindexed_filtering_retrieve: false })
      expect(config['metadata']).toMatchObject({
        agentdb: { collection, model: 'text-embedding-ada-002', dimension: 1536 },
      })
      expect(indexes['_owner']).toMatchObject({ data_type: 'keyword', params: { is_tenant: true } })
      const own = Object.entries(indexes).filter(([name]) => !name.startsWith('_'))
      expect(Object.fromEntries(own.map(([name, index]) => [name, index.data_type]))).toEqual(
        wantedIndexes[collection],
      )
    }
    const forgotten = { vector: Array.from({ length: 1536 }, () => 1), limit: 1 }
    await expect(
      qdrantCall(qdrant.url, 'POST', `/collections/${prefix}code_embeddings/points/search`, {
        ...forgotten,
        filter: { must: [{ key: 'file_path', match: { value: 'x' } }] },
      }),
    ).rejects.toThrow('Index required')
  })

  test('a point has the fields of its collection, of the type that they should have, and no others', async () => {
    const vectors = vectorOptions({}, collections)
    await using centre = await startCentreOn('pglite', { qdrantUrl: qdrant.url, vectors })
    const user = await createUser(centre)
    const at = '2026-11-20T09:30:00.000000Z'
    const wanted = {
      code_embeddings: {
        file_path: 'a.ts',
        function_name: 'f',
        language: 'ts',
        project_id: 'web',
        indexed_at: at,
      },
      documentation_embeddings: { title: 'T', section: 'S', url: 'https://x/y', indexed_at: at },
      conversation_embeddings: {
        conversation_id: 'c',
        message_id: 'm',
        user_id: 'u',
        content_preview: 'said',
        timestamp: at,
        char_count: 4,
      },
      incident_knowledge: {
        incident_id: 'i',
        title: 'T',
        severity: 'high',
        services: ['api', 'db'],
        resolution_preview: 'restarted',
        indexed_at: at,
      },
    } as const
    for (const collection of collections) {
      const payload = wanted[collection]
      const wrong = Object.fromEntries(Object.keys(payload).map((name) => [name, { no: 'such' }]))
      const [id = '', odd = ''] = await embed(centre, user, [
        { collection, payload: { ...payload, other: 'not of the collection' } },
        { collection, payload: wrong },
      ])
      await centre.server.vectorsCaughtUp()
      const own = async (point: string): Promise<Record<string, unknown>> => {
        const { result } = (await qdrantCall(
          qdrant.url,
          'GET',
          `/collections/${vectors.prefix}${collection}/points/${point}`,
        )) as { result: { payload: Record<string, unknown> } }
        return Object.fromEntries(
          Object.entries(result.payload).filter(([name]) => !name.startsWith('_')),
        )
      }
      expect(await own(id)).toEqual(payload)
      expect(await own(odd)).toEqual({})
    }
  })

  test('what has our name and is not ours is told of, and left alone', async () => {
    const vectors = vectorOptions()
    const name = `${vectors.prefix}code_embeddings`
    await qdrantCall(qdrant.url, 'PUT', `/collections/${name}`, {
      vectors: { size: 7, distance: 'Dot' },
    })
    const told = new Set<unknown>()
    let tell: () => void
    const first = new Promise<void>((done) => (tell = done))
    await using centre = await startCentreOn('postgres', {
      qdrantUrl: qdrant.url,
      vectors,
      onError: (error) => {
        told.add(error)
        tell()
      },
    })
    await first
    expect([...told]).toMatchObject([
      { code: 'QDRANT_MISMATCH', message: expect.stringContaining(name) as string },
    ])
    expect(centre.url).toContain('http')
    expect(await qdrantCall(qdrant.url, 'GET', `/collections/${name}`)).toMatchObject({
      result: { config: { params: { vectors: { size: 7 } } } },
    })
  })
})

const wantedIndexes = {
  code_embeddings: { language: 'keyword', project_id: 'keyword', indexed_at: 'datetime' },
  documentation_embeddings: { indexed_at: 'datetime' },
  conversation_embeddings: { conversation_id: 'keyword', timestamp: 'datetime' },
  incident_knowledge: {
    incident_id: 'keyword',
    severity: 'keyword',
    services: 'keyword',
    indexed_at: 'datetime',
  },
}

test('a key is used, and told to nobody; without it the centre serves on and says what is wrong', async () => {
  const apiKey = 'the-key-of-this-test'
  await using database = await createDatabase(inject('postgresUrl'), 'key')
  await using locked = await startQdrant({ apiKey })
  const told: string[] = []
  const written: string[] = []
  const spies = (['stdout', 'stderr'] as const).map((stream) =>
    vi.spyOn(process[stream], 'write').mockImplementation((text) => {
      written.push(String(text))
      return true
    }),
  )
  const vectors = vectorOptions()
  try {
    {
      await using centre = await startCentre({
        databaseUrl: database.url,
        qdrantUrl: locked.url,
        qdrantApiKey: apiKey,
        vectors,
      })
      await centre.server.vectorsCaughtUp()
    }
    let tell: () => void
    const first = new Promise<void>((done) => (tell = done))
    await using centre = await startCentre({
      databaseUrl: database.url,
      qdrantUrl: locked.url,
      qdrantApiKey: 'wrong-key-of-this-test',
      vectors,
      onError: (error) => {
        told.push(String(error))
        tell()
      },
    })
    await first
    expect((await fetch(`${centre.url}/health/ready`)).status).toBe(200)
  } finally {
    for (const spy of spies) spy.mockRestore()
  }
  expect(told.join()).toContain('refuses the key')
  expect([...told, ...written].join()).not.toContain('key-of-this-test')
})

test('models beyond those that there is room for are kept out of Qdrant, and cost no others theirs', async () => {
  const vectors = vectorOptions({ modelsMax: 2 })
  await using centre = await startCentreOn('postgres', { qdrantUrl: qdrant.url, vectors })
  const user = await createUser(centre)
  await embed(centre, user, [{ model: 'second' }, {}])
  await centre.server.vectorsCaughtUp()
  await embed(centre, user, [{ model: 'third' }, { model: 'second' }, {}])
  await centre.server.vectorsCaughtUp()
  const { result } = (await qdrantCall(qdrant.url, 'GET', '/aliases')) as {
    result: { aliases: { alias_name: string }[] }
  }
  const models = result.aliases
    .map(({ alias_name: name }) => name)
    .filter((name) => name.startsWith(`${vectors.prefix}code_embeddings.`))
  const slugs = models.map((name) => (name.split('.')[1] ?? '').replace(/-[0-9a-f]{8}$/, ''))
  expect(new Set(slugs)).toEqual(new Set(['second', MODEL]))
  expect((await pointsOf(qdrant.url, `${vectors.prefix}code_embeddings`)).size).toBe(2)
})

test('on a cluster of two nodes every shard has a copy on each, and the death of one loses nothing', async () => {
  await using one = await startQdrant({ cluster: {} })
  await using two = await startQdrant({ cluster: { bootstrap: one } })
  const peers = async (url: string): Promise<number> => {
    const { result } = (await qdrantCall(url, 'GET', '/cluster')) as { result: { peers: object } }
    return Object.keys(result.peers).length
  }
  await expect.poll(() => peers(one.url), { timeout: 20_000 }).toBe(2)
  const vectors = vectorOptions({
    shardNumber: 2,
    replicationFactor: 2,
    writeConsistencyFactor: 2,
  })
  await using centre = await startCentreOn('postgres', { qdrantUrl: one.url, vectors })
  const user = await createUser(centre)
  await embed(
    centre,
    user,
    Array.from({ length: 50 }, () => ({})),
  )
  await centre.server.vectorsCaughtUp()
  const alias = `${vectors.prefix}code_embeddings`
  const name = await (async () => {
    const { result } = (await qdrantCall(one.url, 'GET', '/aliases')) as {
      result: { aliases: { alias_name: string; collection_name: string }[] }
    }
    return result.aliases.find(({ alias_name }) => alias_name === alias)?.collection_name ?? ''
  })()
  const { result } = (await qdrantCall(one.url, 'GET', `/collections/${name}/cluster`)) as {
    result: { shard_count: number; local_shards: object[]; remote_shards: object[] }
  }
  expect(result.shard_count).toBe(2)
  expect([result.local_shards.length, result.remote_shards.length]).toEqual([2, 2])
  const rows = await rowsOf(centre)
  expect(rows.size).toBe(50)
  expect(await pointsOf(two.url, alias)).toEqual(rows)
  await two.kill9()
  expect(await pointsOf(one.url, alias)).toEqual(rows)
})
