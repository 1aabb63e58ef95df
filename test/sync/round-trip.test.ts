import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import type { Json } from '../../src/index.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import { Fleet, type TestAgent } from '../support/fleet.ts'

/** A failure prints its seed; `ROUND_TRIP_SEED=...` runs it again. */
const seed = Number(process.env['ROUND_TRIP_SEED'] ?? Date.now() % 2 ** 31)

/** What PostgreSQL cannot store is refused at the door, and tested as such. */
const storable = (text: string): boolean => !text.includes('\0')

const hardTexts = [
  '',
  ' ',
  'null',
  'NULL',
  '{}',
  '{a,"b",NULL}',
  `'"\\\n\r\t,{}[]%_$1`,
  '👩‍👩‍👧‍👦🏳️‍🌈',
  'e\u0301\u0301 \u212B \uFB01',
  'שלום \u202E abc',
  '\uFFFF\uFEFF\u2028\u0001\u007F',
  '\u{10FFFF}',
  '__proto__',
]
const texts = fc.oneof(
  fc.constantFrom(...hardTexts),
  fc.string({ unit: 'binary', maxLength: 40 }).filter(storable),
  fc.string({ unit: 'grapheme', maxLength: 40 }).filter(storable),
)

const hardJson: readonly Json[] = [
  JSON.parse('{"__proto__":{"x":1},"constructor":null,"toString":[]}') as Json,
  { b: 1, a: { d: [], c: {} }, 10: 'x', 9: 'y', '': '' },
  [Number.MAX_SAFE_INTEGER, -Number.MAX_SAFE_INTEGER, 2 ** 53, 2 ** 63, -(2 ** 63), 1e21, 1e-7],
  [Number.MAX_VALUE, Number.MIN_VALUE, 0.1, 1 / 3, 5e-324, 1.5e300, 123456789012345680000],
  [null, [null], [[[]]], { a: null }],
  { 'emoji 👩‍👧': 'e\u0301', '\u{10FFFF}': '\uFFFF' },
  '9223372036854775807',
]
const json = fc.oneof(
  fc.constantFrom(...hardJson),
  fc
    .jsonValue({ stringUnit: 'binary', maxDepth: 4 })
    .filter((value) => !JSON.stringify(value).includes('\\u0000')) as fc.Arbitrary<Json>,
)
const object = fc.dictionary(texts, json, { maxKeys: 4 })

const integers = fc.oneof(
  fc.constantFrom(0, 1, -1, 2 ** 31 - 1, -(2 ** 31)),
  fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
)

const times = fc.oneof(
  fc.constantFrom(
    '0001-01-01T00:00:00.000000Z',
    '9999-12-31T23:59:59.999999Z',
    '1969-12-31T23:59:59.999999Z',
    '2024-02-29T12:00:00.000001Z',
    '1582-10-10T00:00:00.100000Z',
  ),
  fc
    .tuple(
      fc.date({
        min: new Date('0001-01-02T00:00:00Z'),
        max: new Date('9999-12-30T00:00:00Z'),
        noInvalidDate: true,
      }),
      fc.nat(999),
    )
    .map(([date, micros]) =>
      date.toISOString().replace('Z', `${String(micros).padStart(3, '0')}Z`),
    ),
)

const vectors = fc
  .oneof(
    fc.constant([-0, 0, 1.401298464324817e-45, 3.4028234663852886e38, -1]),
    fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: 1, maxLength: 20 }),
  )
  .map((values) => Float32Array.from(values))

const nullable = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | null> =>
  fc.option(value, { nil: null, freq: 8 })
const list = <T>(element: fc.Arbitrary<T>): fc.Arbitrary<(T | null)[] | null> =>
  nullable(fc.array(nullable(element), { maxLength: 5 }))

const rows = fc.record({
  text: texts,
  nullableText: nullable(texts),
  json: object,
  nullableJson: nullable(json),
  integer: nullable(integers),
  flag: nullable(fc.boolean()),
  time: times,
  nullableTime: nullable(times),
  texts: list(texts),
  integers: list(integers),
  ids: list(fc.uuid()),
  vector: vectors,
  address: fc.oneof(
    fc.ipV4(),
    fc.ipV6(),
    fc.constantFrom('10.0.0.1/24', '::', '::1/128', '::ffff:1.2.3.4', '::1.2.3.4', 'FE80::1/64'),
  ),
})
type Values = typeof rows extends fc.Arbitrary<infer T> ? T : never

/** Writes a row of each kind that has such columns; gives what the store then shows. */
function write(agent: TestAgent, values: Values): Record<string, unknown>[] {
  const { db } = agent
  const conversation = db.conversations.create({
    description: values.nullableText,
    system_prompt: values.text,
    context_snapshot: values.nullableJson,
    tags: values.texts,
    total_cost_cents: values.integer,
    started_at: values.time,
    ended_at: values.nullableTime,
  })
  const workflow = db.workflows.create({
    name: newId(),
    definition: values.json,
    is_active: values.flag,
    tags: values.texts,
  })
  const runbook = db.runbooks.create({ name: newId(), steps: values.json, tags: values.texts })
  const execution = db.runbookExecutions.create({
    runbook_id: runbook.id,
    completed_steps: values.integers,
    success: values.flag,
    notes: values.nullableText,
  })
  const incident = db.incidents.create({
    title: 'x',
    severity: 'info',
    source: 'x',
    related_incidents: values.ids,
    remediation_steps: values.texts,
    blast_radius: values.nullableJson,
  })
  const embedding = db.embeddings.create({
    collection: 'incident_knowledge',
    model: 'm',
    dimension: values.vector.length,
    vector: values.vector,
    payload: values.json,
  })
  return [conversation, workflow, runbook, execution, incident, embedding]
}

const shown = ({ db }: TestAgent): Map<string, unknown> =>
  new Map(
    [
      ...db.conversations.list(),
      ...db.workflows.list(),
      ...db.runbooks.list(),
      ...db.runbookExecutions.list(),
      ...db.incidents.list(),
      ...db.embeddings.list(),
    ].map((row) => [row.id, row]),
  )

/** Bytes as they lie in the file. */
const stored = ({ connection }: TestAgent): unknown[] =>
  ['conversations', 'workflows', 'runbooks', 'runbook_executions', 'incidents', 'embeddings'].map(
    (table) => connection.all(`SELECT * FROM ${table} ORDER BY id`),
  )

/** What the program gave, as JSON has it: -0 is 0. */
const asJson = (value: unknown): unknown => JSON.parse(JSON.stringify(value)) as unknown

function roundTrips(open: () => Promise<Fleet>, numRuns: number): void {
  let fleet: Fleet
  let userId: string
  let a: TestAgent
  let b: TestAgent

  beforeAll(async () => {
    fleet = await open()
    userId = await fleet.addUser()
    a = await fleet.addAgent(userId)
    b = await fleet.addAgent(userId)
  })
  afterAll(() => fleet[Symbol.asyncDispose]())

  async function mustBeEqualEverywhere(): Promise<void> {
    for (const agent of [a, b, a]) await agent.sync()
    for (const agent of [a, b]) {
      const { local, central } = await agent.pull()
      expect(local).toEqual(central)
    }
    expect(stored(a)).toEqual(stored(b))
  }

  test('every type comes from an agent to the centre and to another agent as it was', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(rows, { minLength: 1, maxLength: 12 }), async (batch) => {
        const written = batch.flatMap((values) => write(a, values))
        const audits = batch.map(({ address }) =>
          a.db.auditLogs.create({ action: 'read', resource_type: 'x', ip_address: address }),
        )
        await mustBeEqualEverywhere()
        expect(a.outcomes.filter(({ kind }) => kind !== 'applied')).toEqual([])
        for (const agent of [a, b]) {
          const rowsShown = shown(agent)
          for (const row of written) {
            // The centre stamps `updated_at` itself.
            expect({ ...(rowsShown.get(String(row['id'])) as object), updated_at: '' }).toEqual({
              ...row,
              updated_at: '',
              ...('updated_at' in row ? {} : { updated_at: '' }),
            })
          }
        }
        const addresses = await fleet.sql(
          'SELECT id, to_jsonb(ip_address) AS address FROM audit_logs WHERE id = ANY(?::uuid[])',
          audits.map(({ id }) => id),
        )
        expect(new Map(addresses.map(({ id, address }) => [id, address]))).toEqual(
          new Map(audits.map(({ id, ip_address: address }) => [id, address])),
        )
      }),
      { numRuns, seed },
    )
  }, 300_000)

  test('what a program gave is what it reads', async () => {
    await fc.assert(
      fc.asyncProperty(rows, async (values) => {
        const [conversation, workflow, , execution, incident, embedding] = write(a, values)
        expect(conversation).toMatchObject({
          description: values.nullableText,
          system_prompt: values.text,
          context_snapshot: asJson(values.nullableJson),
          tags: values.texts,
          total_cost_cents: values.integer,
          started_at: values.time,
          ended_at: values.nullableTime,
        })
        expect(workflow).toMatchObject({
          definition: asJson(values.json),
          is_active: values.flag,
        })
        expect(execution).toMatchObject({ completed_steps: values.integers })
        expect(incident).toMatchObject({ related_incidents: values.ids })
        expect(embedding?.['vector']).toEqual(values.vector)
      }),
      { numRuns: 50, seed },
    )
    await mustBeEqualEverywhere()
  })

  test('every type comes from direct SQL at the centre to the agents as it was', async () => {
    await fc.assert(
      fc.asyncProperty(rows, async (values) => {
        const [conversation, incident, runbook, execution, session] = [
          newId(),
          newId(),
          newId(),
          newId(),
          newId(),
        ]
        await fleet.sql(
          `INSERT INTO conversations (id, user_id, description, system_prompt, context_snapshot, tags, total_cost_cents, started_at, ended_at)
          VALUES (?, ?, ?, ?, ?::text::jsonb, ?::text[], ?, ?, ?)`,
          conversation,
          userId,
          values.nullableText,
          values.text,
          values.nullableJson === null ? null : JSON.stringify(values.nullableJson),
          values.texts,
          values.integer,
          values.time,
          values.nullableTime,
        )
        await fleet.sql(
          `INSERT INTO incidents (id, title, severity, source, related_incidents) VALUES (?, 'x', 'low', 'x', ?::uuid[])`,
          incident,
          values.ids,
        )
        await fleet.sql(
          `INSERT INTO runbooks (id, name, steps, is_automated) VALUES (?, ?, ?::text::jsonb, ?)`,
          runbook,
          runbook,
          JSON.stringify(values.json),
          values.flag,
        )
        await fleet.sql(
          `INSERT INTO runbook_executions (id, runbook_id, executed_by, completed_steps) VALUES (?, ?, ?, ?::integer[])`,
          execution,
          runbook,
          userId,
          values.integers,
        )
        await fleet.sql(
          `INSERT INTO sessions (id, user_id, token_hash, ip_address, expires_at) VALUES (?, ?, ?, ?, '2099-01-01')`,
          session,
          userId,
          session,
          values.address,
        )
        const [{ address } = { address: '' }] = await fleet.sql(
          'SELECT to_jsonb(ip_address) AS address FROM sessions WHERE id = ?',
          session,
        )
        await a.sync()
        expect(a.db.conversations.find(conversation)).toMatchObject({
          description: values.nullableText,
          system_prompt: values.text,
          context_snapshot: asJson(values.nullableJson),
          tags: values.texts,
          total_cost_cents: values.integer,
          started_at: values.time,
          ended_at: values.nullableTime,
        })
        expect(a.db.incidents.find(incident)?.related_incidents).toEqual(values.ids)
        expect(a.db.runbooks.find(runbook)).toMatchObject({
          steps: asJson(values.json),
          is_automated: values.flag,
        })
        expect(a.db.runbookExecutions.find(execution)?.completed_steps).toEqual(values.integers)
        expect(a.db.sessions.find(session)?.ip_address).toBe(address)
      }),
      { numRuns: numRuns * 2, seed },
    )
    await mustBeEqualEverywhere()
  }, 300_000)

  test('a megabyte of text, of JSON and of vector, and every edge of Unicode', async () => {
    const long = 'ä👩‍👩‍👧\u0301"\\\n'.repeat(110_000)
    const conversation = a.db.conversations.create({
      description: long,
      context_snapshot: { long },
    })
    const embedding = a.db.embeddings.create({
      collection: 'incident_knowledge',
      model: 'm',
      dimension: 65_535,
      vector: Float32Array.from({ length: 65_535 }, (_, i) => Math.fround(Math.sin(i))),
    })
    await mustBeEqualEverywhere()
    expect(b.db.conversations.find(conversation.id)).toMatchObject({
      description: long,
      context_snapshot: { long },
    })
    expect(b.db.embeddings.find(embedding.id)?.vector).toEqual(embedding.vector)
  })

  test('JSON that raw SQL wrote in another order or spelling comes back canonical on all sides', async () => {
    const id = newId()
    a.connection.transaction(() =>
      a.connection.run(
        `INSERT INTO workflows (id, user_id, name, definition, tags) VALUES (?, ?, 'raw', '{ "b": 1.50e1, "a": [ ] }', '[ "x" ]')`,
        id,
        userId,
      ),
    )
    await mustBeEqualEverywhere()
    expect(a.connection.get('SELECT definition, tags FROM workflows WHERE id = ?', id)).toEqual({
      definition: '{"a":[],"b":15}',
      tags: '["x"]',
    })
  })

  test('a number in raw JSON that a double cannot hold is rejected with its path, and stays readable', async () => {
    const id = newId()
    a.connection.transaction(() =>
      a.connection.run(
        `INSERT INTO workflows (id, user_id, name, definition) VALUES (?, ?, 'big', '{"n":9223372036854775807}')`,
        id,
        userId,
      ),
    )
    await mustBeEqualEverywhere()
    expect(a.outcomes.at(-1)).toMatchObject({ kind: 'rejected', reason: 'invalid_value', id })
    expect(a.outcomes.at(-1)?.message).toMatch(/workflows\.definition .*9223372036854775807/)
    expect(a.db.workflows.find(id)).toBeUndefined()
    expect(a.db.syncConflicts.list({ state: 'rejected' })).toMatchObject([
      { rowId: id, mine: { definition: '{"n":9223372036854775807}' } },
    ])
  })
}

describe('through PGlite', () => {
  roundTrips(() => Fleet.start(), 10)
})

describe('through PostgreSQL', () => {
  let database: TestDatabase
  afterAll(() => database.drop())
  roundTrips(async () => {
    database = await createDatabase(inject('postgresUrl'), 'round_trip')
    return Fleet.start({ databaseUrl: database.url })
  }, 10)
})

describe('a value that would not come back as it went', () => {
  let fleet: Fleet
  let agent: TestAgent
  beforeAll(async () => {
    fleet = await Fleet.start()
    agent = await fleet.addAgent(await fleet.addUser())
  })
  afterAll(() => fleet[Symbol.asyncDispose]())

  const refused: [what: string, column: string, values: Record<string, unknown>][] = [
    ['2^31 in an integer column', 'total_cost_cents', { total_cost_cents: 2 ** 31 }],
    ['2^53 in an integer column', 'total_cost_cents', { total_cost_cents: 2 ** 53 }],
    ['an int64 as bigint', 'total_cost_cents', { total_cost_cents: 2n ** 63n - 1n }],
    ['a fraction in an integer column', 'total_cost_cents', { total_cost_cents: 0.5 }],
    ['a bigint in JSON', 'context_snapshot', { context_snapshot: { n: 2n ** 60n } }],
    ['NaN in JSON', 'context_snapshot', { context_snapshot: [Number.NaN] }],
    ['undefined in a JSON array', 'context_snapshot', { context_snapshot: [undefined] }],
    ['U+0000 in text', 'description', { description: 'a\0b' }],
    ['U+0000 in a JSON key', 'context_snapshot', { context_snapshot: { 'a\0': 1 } }],
    ['a lone surrogate in text', 'description', { description: 'a\uD800' }],
    ['a lone surrogate in an array', 'tags', { tags: ['\uDC00'] }],
    ['nanoseconds', 'started_at', { started_at: '2026-01-01T00:00:00.1234567Z' }],
    ['a day that does not exist', 'started_at', { started_at: '2026-02-30T00:00:00Z' }],
  ]
  test.each(refused)('%s is refused by name and writes nothing', (_what, column, values) => {
    expect(() => agent.db.conversations.create(values as object)).toThrowError(
      expect.objectContaining({ code: 'INVALID_VALUE', table: 'conversations', column }) as Error,
    )
    expect(agent.db.conversations.list()).toEqual([])
  })

  test('a vector with NaN or infinity is refused', () => {
    for (const component of [Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() =>
        agent.db.embeddings.create({
          collection: 'incident_knowledge',
          model: 'm',
          dimension: 1,
          vector: Float32Array.of(component),
        }),
      ).toThrowError(expect.objectContaining({ code: 'INVALID_VALUE', column: 'vector' }) as Error)
    }
  })
})
