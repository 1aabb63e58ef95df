import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import type { AgentDB, PutEmbedding, SearchOptions } from '../../src/index.ts'
import { matchExpression, matches } from '../../src/search/text-query.ts'
import { connectionOf, openStore, rejectionOf } from '../support/store.ts'

let db: AgentDB
let conversation: string
beforeEach(async () => {
  db = await openStore()
  conversation = db.conversations.create({ title: 'Night shift', tags: ['oncall'] }).id
})
afterEach(() => db.close())

const say = (...contents: string[]): string[] =>
  db.messages
    .createMany(
      contents.map((content) => ({ conversation_id: conversation, role: 'user', content })),
    )
    .map(({ id }) => id)
const ids = async (options: SearchOptions): Promise<string[]> =>
  (await db.search(options)).map(({ id }) => id)
const sorted = (...found: readonly (string | undefined)[]): string[] => found.map(String).toSorted()
const inMessages = (text: string, more: Partial<SearchOptions> = {}): Promise<string[]> =>
  ids({ collection: 'messages', text, ...more })

describe('what is searched for', () => {
  test('is data: nothing in it is an operator, and nothing in it fails', async () => {
    const [plain] = say('deploy and roll near the end', 'something else')
    for (const text of [
      'deploy"',
      '"deploy',
      'deploy*',
      'deploy^2',
      '-deploy',
      'content:deploy',
      'content : deploy',
      '{content} : deploy',
      'deploy AND nothingness',
      'nothingness OR deploy',
      'NEAR(deploy nothingness, 5)',
      'NOT deploy',
      'deploy NOT near',
      'deploy + nothingness',
      "deploy'; DROP TABLE messages; --",
      'deploy\0nothingness',
      '(deploy',
      'search_messages MATCH deploy',
      'rank:deploy',
    ])
      expect([text, await inMessages(text)]).toEqual([text, [plain]])
    for (const text of ['', '"', '***', '()', '\0', '\ud800', '🦊'])
      expect([text, await inMessages(text)]).toEqual([text, []])
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string({ unit: 'binary' }),
          fc.string({ unit: fc.constantFrom('"', '*', '(', ')', ':', '-', '^', 'a', ' ', '\0') }),
        ),
        fc.constantFrom(...matches.filter((match) => match !== 'substring')),
        async (text, match) => {
          await inMessages(text, { match })
        },
      ),
      { numRuns: 300 },
    )
  })

  test('in code has parts of identifiers, quotes and all', async () => {
    const put = (content: string) =>
      db.embeddings.put({ collection: 'code_embeddings', content, payload: { file_path: 'a.ts' } })
    const named = await put('export function getUserById(id) {}')
    const quoted = await put(`const motto = '"quoted" OR (not)'`)
    const parts = (text: string): Promise<string[]> =>
      ids({ collection: 'code_embeddings', text, match: 'substring', mode: 'text' })
    expect(await parts('UserBy')).toEqual([named.id])
    expect(await parts('userby')).toEqual([named.id])
    expect(await parts('"quoted"')).toEqual([quoted.id])
    expect(await parts('yId(id')).toEqual([named.id])
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary', minLength: 3 }), async (text) => {
        fc.pre(text.split(/\s+|\0/).some((part) => Array.from(part).length >= 3))
        await parts(text)
      }),
      { numRuns: 100 },
    )
  })

  test('meets other forms of a word, accents or none, and words that only begin like it', async () => {
    const [deploys, cafe, other] = say('The deployments were slow', 'Café crème', 'unrelated')
    expect(await inMessages('deployment')).toEqual([deploys])
    expect(await inMessages('cafe creme')).toEqual([cafe])
    expect(await inMessages('cafe\u0301')).toEqual([cafe])
    expect(await inMessages('unre')).toEqual([])
    expect(await inMessages('unre', { match: 'prefix' })).toEqual([other])
  })

  test('finds each beginning of each word of a text, whatever the word’s stem is', async () => {
    const content = 'The deployment of the configuration is running'
    const [row] = say(content)
    for (const word of content.toLowerCase().split(' ')) {
      for (let length = 1; length <= word.length; length++) {
        const text = word.slice(0, length)
        expect([text, await inMessages(text, { match: 'prefix' })]).toEqual([text, [row]])
      }
    }
    const [result] = await db.search({
      collection: 'messages',
      text: 'configurat',
      match: 'prefix',
      highlight: true,
    })
    expect(result?.highlight).toBe('The deployment of the **configuration** is running')
  })

  test('as beginnings finds the texts that have such words, and no others', async () => {
    const aWord = fc
      .tuple(
        fc.constantFrom('deploy', 'configur', 'run', 'happ', 'relat', 'trunc'),
        fc.constantFrom(
          '',
          's',
          'y',
          'ed',
          'ing',
          'ning',
          'ment',
          'ation',
          'ional',
          'iness',
          'ies',
        ),
      )
      .map((parts) => parts.join(''))
    const texts = fc.sample(fc.array(aWord, { minLength: 1, maxLength: 4 }), 200)
    const rows = say(...texts.map((words) => words.join(' ')))
    const aBeginning = fc
      .tuple(aWord, fc.integer({ min: 1, max: 12 }))
      .map(([word, length]) => word.slice(0, length))
    await fc.assert(
      fc.asyncProperty(fc.array(aBeginning, { minLength: 1, maxLength: 3 }), async (beginnings) => {
        const found = await inMessages(beginnings.join(' '), { match: 'prefix', k: 200 })
        const begun = (words: readonly string[]): boolean =>
          words.some((word) => beginnings.some((beginning) => word.startsWith(beginning)))
        expect(found.toSorted()).toEqual(rows.filter((_, i) => begun(texts[i] ?? [])).toSorted())
      }),
    )
  })

  test('is any of its words, all of them, or all in a row', async () => {
    const [row, apart, one] = say(
      'cache invalidation is hard',
      'invalidation of the cache',
      'one cache',
    )
    expect((await inMessages('cache invalidation')).toSorted()).toEqual(sorted(row, apart, one))
    expect((await inMessages('cache invalidation', { match: 'all' })).toSorted()).toEqual(
      sorted(row, apart),
    )
    expect(await inMessages('cache invalidation', { match: 'phrase' })).toEqual([row])
  })

  test('leaves out words that stand everywhere, unless there are no others', () => {
    expect(matchExpression('When did the deploy fail?', 'any')).toBe('"deploy" OR "fail"')
    expect(matchExpression('to be or not to be', 'any')).toBe('"to" OR "be" OR "or" OR "not"')
    expect(matchExpression('the end', 'phrase')).toBe('"the end"')
    expect(matchExpression(' ?! ', 'any')).toBeUndefined()
  })
})

describe('results', () => {
  test('come from several sources at once, each with its own payload', async () => {
    say('the checkout answers slowly')
    const incident = db.incidents.create({
      title: 'Checkout slow',
      severity: 'high',
      source: 'pager',
      affected_services: ['checkout', 'cart'],
    })
    db.runbooks.create({ name: 'Restart', steps: [{ title: 'Drain the checkout pool' }] })
    const document = await db.embeddings.put({
      collection: 'documentation_embeddings',
      content: 'How the checkout is deployed',
      payload: { title: 'Checkout' },
    })
    const results = await db.search({
      in: ['messages', 'incidents', 'runbooks', 'documentation_embeddings', 'conversations'],
      text: 'checkout',
    })
    expect(results.map(({ collection }) => collection).toSorted()).toEqual([
      'documentation_embeddings',
      'incidents',
      'messages',
      'runbooks',
    ])
    expect(results.find(({ id }) => id === incident.id)).toMatchObject({
      model: null,
      vectorScore: null,
      textScore: expect.any(Number),
      payload: { severity: 'high', services: ['checkout', 'cart'] },
    })
    expect(results.find(({ id }) => id === document.id)).toMatchObject({
      score: 1,
      vectorScore: expect.any(Number),
    })
  })

  test('keep to the filter, the time and the owner', async () => {
    const at = (day: number): string => `2026-01-0${day}T00:00:00.000000Z`
    const other = db.conversations.create({ title: 'other' })
    const [mine, later, theirs] = db.messages.createMany([
      { conversation_id: conversation, role: 'user', content: 'disk full', created_at: at(1) },
      { conversation_id: conversation, role: 'tool', content: 'disk full', created_at: at(3) },
      { conversation_id: other.id, role: 'user', content: 'disk full', created_at: at(5) },
    ])
    const all = (more: Partial<SearchOptions>): Promise<string[]> =>
      inMessages('disk', more).then((found) => found.toSorted())
    expect(await all({})).toEqual([mine?.id, later?.id, theirs?.id])
    expect(await all({ filter: { conversation_id: conversation } })).toEqual([mine?.id, later?.id])
    expect(await all({ filter: { role: ['tool', 'system'] } })).toEqual([later?.id])
    expect(await all({ from: at(3) })).toEqual([later?.id, theirs?.id])
    expect(await all({ from: at(1), to: new Date(at(3)) })).toEqual([mine?.id])
    expect(await all({ userId: db.userId })).toHaveLength(3)
    expect(await all({ userId: conversation })).toEqual([])
  })

  test('of embeddings keep to the time in the payload, however it is written', async () => {
    const put = (timestamp: string): Promise<{ id: string }> =>
      db.embeddings.put({
        collection: 'conversation_embeddings',
        content: 'disk full',
        payload: { timestamp },
      })
    const early = await put('2026-01-01T01:00:00+02:00')
    const late = await put('2026-01-01T00:00:00.000000Z')
    const query = { collection: 'conversation_embeddings', text: 'disk' } as const
    for (const mode of ['text', 'vector', 'hybrid'] as const) {
      expect(await ids({ ...query, mode, to: '2026-01-01' })).toEqual([early.id])
      expect(await ids({ ...query, mode, from: '2026-01-01' })).toEqual([late.id])
    }
  })

  test('that are stubs of rows outside the scope are not there', async () => {
    const incident = db.incidents.create({ title: 'Secret', severity: 'low', source: 'test' })
    const query = { collection: 'incidents', text: 'secret' } as const
    expect(await ids(query)).toEqual([incident.id])
    connectionOf(db).run('INSERT INTO sync_stub (id, tbl) VALUES (?, 8)', incident.id)
    expect(await ids(query)).toEqual([])
  })

  test('of pages one after another are those of one long list', async () => {
    say(...Array.from({ length: 30 }, (_, i) => `disk ${'and disk '.repeat(i % 5)} ${i}`))
    const all = await inMessages('disk', { k: 30 })
    const pages: string[] = []
    for (let offset = 0; offset < 30; offset += 7)
      pages.push(...(await inMessages('disk', { k: 7, offset })))
    expect(pages).toEqual(all)
    expect(new Set(all).size).toBe(30)
  })

  test('show the words around what matched, marked as asked', async () => {
    const [long] = say(`${'word '.repeat(200)}the disks are full ${'word '.repeat(200)}`)
    const [result] = await db.search({
      collection: 'messages',
      text: 'disk',
      highlight: { before: '<b>', after: '</b>', words: 5 },
    })
    expect(result).toMatchObject({
      id: long,
      highlight: expect.stringMatching(/^….*<b>disks<\/b>.*…$/),
    })
    const [near] = await db.embeddings.putMany([
      { collection: 'code_embeddings', content: 'nothing alike' },
    ])
    expect(
      await db.search({ collection: 'code_embeddings', text: 'disk', highlight: true }),
    ).toEqual([expect.objectContaining({ id: near?.id, highlight: null })])
  })

  test('are grouped by a field, each group by its best, or by what each source found of it', async () => {
    const b = db.conversations.create({ title: 'Disk of the night' }).id
    say('disk disk', 'disk full')
    db.messages.create({ conversation_id: b, role: 'user', content: 'a disk, they said, was full' })
    const query = { in: ['messages', 'conversations'], text: 'disk' } as const
    const best = await db.search({ ...query, groupBy: { field: 'conversation_id', size: 2 } })
    const values = best.map(({ group }) => group?.value)
    // Two messages here, a message and the title there; of each group the best two, together.
    expect(sorted(...values)).toEqual(sorted(conversation, conversation, b, b))
    expect(values[0]).toBe(values[1])
    expect(best[0]?.score).toBe(best[0]?.group?.score)
    const [first, second] = await db.search({
      ...query,
      groupBy: { field: 'conversation_id', rank: 'sources' },
    })
    expect(first?.group?.value).toBe(b)
    expect(second?.group).toMatchObject({ value: conversation, score: 0.5 })
    expect(await db.search({ ...query, groupBy: 'no_such_field' })).toEqual([])
  })

  test('have every group, however many rows of one group come first', async () => {
    say(...Array.from({ length: 250 }, () => 'disk disk full'))
    const others = Array.from({ length: 5 }, () => db.conversations.create({}).id)
    db.messages.createMany(
      others.map((id) => ({ conversation_id: id, role: 'user', content: 'a disk, they said' })),
    )
    const groups = async (more: Partial<SearchOptions>): Promise<(string | undefined)[]> => {
      const query = { collection: 'messages', text: 'disk', groupBy: 'conversation_id' } as const
      return (await db.search({ ...query, ...more })).map(({ group }) => group?.value)
    }
    const all = await groups({})
    expect(all[0]).toBe(conversation)
    expect(sorted(...all.slice(1))).toEqual(others)
    expect([...(await groups({ k: 3 })), ...(await groups({ k: 3, offset: 3 }))]).toEqual(all)
    expect(await groups({ filter: { conversation_id: others } })).toHaveLength(5)
  })

  test.each(['text', 'vector', 'hybrid'] as const)(
    'in mode %s are of the groups that all rows are of, in their order',
    async (mode) => {
      const collection = 'documentation_embeddings'
      const row = (payload: PutEmbedding['payload'], angle: number): PutEmbedding => ({
        collection,
        content: 'disk '.repeat(10 - Math.floor(angle * 5)),
        vector: Float32Array.of(Math.cos(angle), Math.sin(angle)),
        payload,
      })
      const rowsOf = (count: number, payload: PutEmbedding['payload'], angle: number) =>
        Array.from({ length: count }, (_, i) => row(payload, angle + i / 10_000))
      await db.embeddings.putMany([
        ...rowsOf(210, {}, 0),
        ...rowsOf(210, { team: 'a' }, 0.2),
        ...rowsOf(210, { team: true }, 0.4),
        ...rowsOf(210, { team: 7 }, 0.6),
        ...rowsOf(5, { team: ['list'] }, 0.8),
        ...['c', 'd', '7', 1.5].map((team, i) => row({ team }, 1 + i / 5)),
      ])
      const query = {
        collection,
        mode,
        ...(mode === 'vector' ? {} : { text: 'disk' }),
        ...(mode === 'text' ? {} : { vector: Float32Array.of(1, 0) }),
        ...(mode === 'hybrid' ? { vectorWeight: 0.5 } : {}),
      } as const
      const best = new Map<string, number>()
      for (const { payload, score } of await db.search({ ...query, k: 1000 })) {
        const { team } = payload as { team?: string | number | boolean | string[] }
        if (team === undefined || Array.isArray(team) || best.has(String(team))) continue
        best.set(String(team), score)
      }
      expect([...best.keys()]).toEqual(['a', 'true', '7', 'c', 'd', '1.5'])
      const grouped = await db.search({ ...query, groupBy: 'team' })
      expect(grouped.map(({ group }) => [group?.value, group?.score])).toEqual([...best])
    },
  )

  test('keep to the least cosine, also those that only words found', async () => {
    const collection = 'incident_knowledge'
    const same = await db.embeddings.put({ collection, content: 'checkout pool exhausted' })
    await db.embeddings.put({
      collection,
      content: `pool ${Array.from({ length: 60 }, (_, i) => `other${i}`).join(' ')}`,
    })
    const text = 'checkout pool exhausted'
    expect(await ids({ collection, text })).toHaveLength(2)
    expect(await ids({ collection, text, minScore: 0.7 })).toEqual([same.id])
  })

  test('of a text and a vector of one’s own are of both', async () => {
    const collection = 'documentation_embeddings'
    const [near, worded] = await db.embeddings.putMany([
      { collection, content: 'alpha', vector: Float32Array.of(1, 0) },
      { collection, content: 'beta', vector: Float32Array.of(0, 1) },
    ])
    const query = {
      collection,
      text: 'beta',
      vector: Float32Array.of(1, 0),
      mode: 'hybrid',
    } as const
    expect(await ids({ ...query, vectorWeight: 0 })).toEqual([worded?.id, near?.id])
    expect(await ids({ ...query, vectorWeight: 1 })).toEqual([near?.id, worded?.id])
  })

  test.each([
    ['no source', { in: [] }],
    ['a source that is not there', { in: ['poems'] }],
    ['a source twice told', { in: ['messages'], collection: 'messages' }],
    ['an option that is not there', { in: ['messages'], limit: 3 }],
    ['vectors of messages', { in: ['messages'], mode: 'vector' }],
    ['a mode that is not there', { in: ['messages'], mode: 'magic' }],
    ['a match that is not there', { in: ['messages'], match: 'magic' }],
    ['parts of words in messages', { in: ['messages'], match: 'substring' }],
    ['parts that are too short', { in: ['code_embeddings'], match: 'substring', text: 'ab c' }],
    [
      'words where only vectors are searched',
      { in: ['code_embeddings'], text: undefined, vector: Float32Array.of(1), mode: 'text' },
    ],
    ['a least cosine of messages', { in: ['messages'], minScore: 0.5 }],
    ['a least cosine of words', { in: ['code_embeddings'], mode: 'text', minScore: 0.5 }],
    ['a weight beyond 1', { in: ['code_embeddings'], vectorWeight: 1.1 }],
    ['an offset beyond the limit', { in: ['messages'], k: 10, offset: 991 }],
    ['a time that is none', { in: ['messages'], from: 'yesterday' }],
    ['an owner that is none', { in: ['messages'], userId: 'me' }],
    ['a group of nothing', { in: ['messages'], groupBy: '' }],
    ['a group of a hundred and one', { in: ['messages'], groupBy: { field: 'role', size: 101 } }],
    ['a mark that is no text', { in: ['messages'], highlight: { before: 7 } }],
    ['words shown beyond 64', { in: ['messages'], highlight: { words: 65 } }],
  ])('refuses %s', async (_, options) => {
    const error = await rejectionOf(db.search({ text: 'x', ...options } as never))
    expect(error).toMatchObject({ code: 'INVALID_OPTION' })
  })
})

describe('the searches of the seeds', () => {
  const code = (project_id: string, language: string): Promise<{ id: string }> =>
    db.embeddings.put({
      collection: 'code_embeddings',
      content: 'retry the payment with a growing pause',
      payload: { project_id, language, file_path: 'pay', function_name: 'retryPayment' },
    })

  test('code by project, and by language if given, with its payload', async () => {
    const ts = await code('shop', 'typescript')
    const go = await code('shop', 'go')
    await code('other', 'go')
    const query = { collection: 'code_embeddings', text: 'payment retry', k: 5 } as const
    const inProject = await db.search({ ...query, filter: { project_id: 'shop' } })
    expect(inProject.map(({ id }) => id).toSorted()).toEqual([ts.id, go.id].toSorted())
    expect(inProject[0]?.payload).toMatchObject({ function_name: 'retryPayment' })
    expect(await ids({ ...query, filter: { project_id: 'shop', language: 'go' } })).toEqual([go.id])
  })

  test('incidents that are alike, of several severities and a service, from a cosine of 0.7 on', async () => {
    const put = (severity: string, services: string[], content: string): Promise<{ id: string }> =>
      db.embeddings.put({
        collection: 'incident_knowledge',
        content,
        payload: { severity, services, title: content },
      })
    const text = 'checkout pool exhausted, requests time out'
    const a = await put('critical', ['checkout', 'cart'], text)
    const b = await put('high', ['checkout'], `${text} again`)
    await put('low', ['checkout'], text)
    await put('high', ['search'], text)
    await put('high', ['checkout'], 'the pool of the hotel is closed for the whole winter season')
    const query = {
      collection: 'incident_knowledge',
      text,
      minScore: 0.7,
      filter: { severity: ['critical', 'high'], services: 'checkout' },
    } as const
    for (const mode of ['vector', 'hybrid'] as const)
      expect(await ids({ ...query, mode })).toEqual([a.id, b.id])
    expect(await ids({ ...query, filter: { severity: [] } })).toEqual([])
  })

  test('documents by keywords and vectors, where either alone finds less', async () => {
    const put = (content: string): Promise<{ id: string }> =>
      db.embeddings.put({ collection: 'documentation_embeddings', content })
    const typo = await put('roolback of a realease')
    const word = await put(`rollback ${'of something else entirely '.repeat(20)}`)
    const query = { collection: 'documentation_embeddings', text: 'rollback' } as const
    expect(await ids({ ...query, mode: 'text' })).toEqual([word.id])
    expect((await ids(query)).toSorted()).toEqual([typo.id, word.id].toSorted())
  })

  test('conversations of their owner alone, by what was said in them', async () => {
    const [mine] = say('we restart the queue at night')
    const theirs = '0190a000-0000-7000-8000-000000000001'
    connectionOf(db).applying(() => {
      connectionOf(db).run('INSERT INTO conversations (id, user_id) VALUES (?, ?)', theirs, theirs)
      connectionOf(db).run(
        `INSERT INTO messages (conversation_id, role, content, sequence_number) VALUES (?, 'user', 'the queue', 1)`,
        theirs,
      )
    })
    expect(await inMessages('queue')).toHaveLength(2)
    expect(await inMessages('queue', { userId: db.userId })).toEqual([mine])
  })
})
