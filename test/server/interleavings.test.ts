import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { pick, seededRandom, wholeBelow, type Random } from '../../bench/support/random.ts'
import { newId } from '../../schema/values/id.ts'
import type { Database } from '../../server/postgres/database.ts'
import type { LogTail } from '../../server/sync/log-tail.ts'
import { advance } from '../../server/sync/positions.ts'
import { ClientBindings } from '../../server/sync/principal.ts'
import { PushService } from '../../server/sync/push/push.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import {
  BatchReader,
  divergenceOf,
  openCentralDatabase,
  SequenceCursorReader,
  type LogReader,
} from '../support/log-readers.ts'
import { Scheduler, steppedDatabase, type Query } from '../support/scheduler.ts'
import { nowMicros, pushRequest, update } from '../support/wire-client.ts'

/**
 * Interleavings of direct SQL, pushes and readers of the log on a real PostgreSQL, statement by statement, each from its
 * seed. What fails names the seed; the same seed runs the same interleaving. Images of the transition table and a
 * snapshot in the statement that takes the lock show in `commit-order.test.ts`.
 */
const SEEDS = 40
const watched = ['incidents', 'workflows', 'conversations', 'messages'] as const

let created: TestDatabase
let database: Database
const userId = newId()

beforeAll(async () => {
  created = await createDatabase(inject('postgresUrl'), 'interleavings')
  database = await openCentralDatabase(created.url)
  await database.query(
    `INSERT INTO users (id, email, username, password_hash, status) VALUES ($1, 'i@b.co', 'interleaved', 'x', 'active')`,
    [userId],
  )
})
afterAll(async () => {
  await database.close()
  await created.drop()
})

interface World {
  readonly conversations: readonly string[]
  readonly incidents: readonly string[]
  /** Incidents that the writers may have made. */
  readonly made: string[]
}

async function newWorld(): Promise<World> {
  const make = async (sql: string): Promise<string> => {
    const id = newId()
    await database.query(sql, sql.includes('$2') ? [id, userId] : [id])
    return id
  }
  const conversation = `INSERT INTO conversations (id, user_id, title) VALUES ($1, $2, 't')`
  const incident = `INSERT INTO incidents (id, title, severity, source) VALUES ($1, 't', 'low', 's')`
  return {
    conversations: [await make(conversation), await make(conversation)],
    incidents: [await make(incident), await make(incident)],
    made: [],
  }
}

/** A transaction of direct SQL: some draw their number early, some are rolled back, one statement may fire others. */
async function directSql(query: Query, random: Random, world: World): Promise<void> {
  await query('BEGIN')
  if (random() < 0.5) await query('SELECT pg_current_xact_id()')
  const statements = 1 + wholeBelow(random, 3)
  for (let n = 0; n < statements; n++) {
    const conversation = pick(random, world.conversations)
    const made = newId()
    world.made.push(made)
    const [sql, parameters] = pick<[string, readonly unknown[]]>(random, [
      [
        'UPDATE incidents SET title = $2 WHERE id = $1',
        [pick(random, world.incidents), `t${random()}`],
      ],
      [
        `INSERT INTO incidents (id, title, severity, source) VALUES ($1, 'new', 'low', 's')`,
        [made],
      ],
      ['UPDATE conversations SET title = $2 WHERE id = $1', [conversation, `c${random()}`]],
      [
        `INSERT INTO messages (conversation_id, sequence_number, role, content) VALUES ($1, 1, 'user', 'x')`,
        [conversation],
      ],
      ['DELETE FROM messages WHERE conversation_id = $1', [conversation]],
      // Its own change of the conversation, and that of the trigger which the message fires.
      [
        `WITH said AS (INSERT INTO messages (conversation_id, sequence_number, role, content)
          VALUES ($1, 1, 'user', 'x') RETURNING conversation_id)
        UPDATE conversations c SET title = $2 FROM said WHERE c.id = said.conversation_id`,
        [conversation, `n${random()}`],
      ],
    ])
    await query(sql, parameters)
  }
  await query(random() < 0.85 ? 'COMMIT' : 'ROLLBACK')
}

const noTail = { refresh: () => Promise.resolve() } as unknown as LogTail

/** Pushes that add to a counter, through the product's own code. Returns what was added. */
async function countingPushes(
  query: Query,
  random: Random,
  world: World,
  rewrite?: (sql: string) => string,
): Promise<Map<string, number>> {
  const service = new PushService(
    steppedDatabase(query, rewrite),
    noTail,
    new ClientBindings(),
    nowMicros,
  )
  const clientId = newId()
  const added = new Map<string, number>()
  for (let seq = 1; seq <= 2; seq++) {
    const id = pick(random, world.conversations)
    const by = 1 + wholeBelow(random, 9)
    const mutation = update('conversations', id, {
      total_cost_cents: by,
      'before:total_cost_cents': 0,
    })
    const idOf = (n: number): string => `${n}`.padStart(32, clientId.replaceAll('-', ''))
    const previous = seq === 1 ? null : { seq: seq - 1, id: idOf(seq - 1) }
    const transaction = { seq, id: idOf(seq), mutations: [mutation] }
    await service.push(
      { userId, agentId: clientId },
      pushRequest(clientId, [transaction], previous),
    )
    added.set(id, (added.get(id) ?? 0) + by)
  }
  return added
}

interface Outcome {
  readonly problems: readonly string[]
}

/** Runs the interleaving of one seed: three writers by SQL, two agents that push, one server that makes batches. */
async function runSeed(
  seed: number,
  options: {
    readonly reader?: (on: Database) => LogReader
    readonly rewrite?: (sql: string) => string
  } = {},
): Promise<Outcome> {
  const random = seededRandom(seed)
  const reading = new SwitchedDatabase(database)
  const reader = (options.reader ?? ((on) => new BatchReader(on)))(reading as unknown as Database)
  await reader.read()
  const world = await newWorld()
  await using scheduler = await Scheduler.open(created.url, random)
  const added: Map<string, number>[] = []
  for (let n = 0; n < 3; n++)
    await scheduler.add(`sql ${n}`, (query) => directSql(query, seededRandom(seed * 10 + n), world))
  for (let n = 0; n < 2; n++)
    await scheduler.add(`push ${n}`, async (query) => {
      added.push(
        await countingPushes(query, seededRandom(seed * 10 + 5 + n), world, options.rewrite),
      )
    })
  await scheduler.add('batches', async (query) => {
    for (let n = 0; n < 4; n++) await advance(steppedDatabase(query), true)
  })
  // The reader's own statements are steps, too: it looks while others write.
  await scheduler.add('reader', async (query) => {
    reading.current = steppedDatabase(query)
    for (let n = 0; n < 8; n++) await reader.read()
  })
  const failures = await scheduler.run()
  reading.current = database
  await reader.read()
  const problems = (await divergenceOf(database, reader, watched))
    .filter(({ row }) => isOf(world, row))
    .map(({ row, what }) => `${row}: ${what}`)
  for (const [name, failure] of failures)
    if (failure instanceof Error && (failure as { code?: unknown }).code !== '40P01')
      problems.push(`${name}: ${failure.message}`)
  for (const id of world.conversations) {
    const wanted = added.reduce((sum, own) => sum + (own.get(id) ?? 0), 0)
    const { rows } = await database.query<{ total: number }>(
      'SELECT total_cost_cents AS total FROM conversations WHERE id = $1',
      [id],
    )
    if (rows[0]?.total !== wanted) problems.push(`${id} counts ${rows[0]?.total}, not ${wanted}`)
  }
  return { problems }
}

/** A reader's database, which is stepped while others run and plain before and after. */
class SwitchedDatabase implements Pick<Database, 'query' | 'transaction'> {
  current: Database

  constructor(current: Database) {
    this.current = current
  }

  readonly query: Database['query'] = (sql, parameters) => this.current.query(sql, parameters)
  readonly transaction: Database['transaction'] = (work, mode) =>
    this.current.transaction(work, mode)
}

/** Rows of other seeds were read by other readers. */
const isOf = ({ conversations, incidents, made }: World, row: string): boolean =>
  [...conversations, ...incidents, ...made].some((id) => row.endsWith(id))

/** The first seeds that show something. */
async function seedsThatFail(
  count: number,
  options: Parameters<typeof runSeed>[1],
): Promise<number[]> {
  const failing: number[] = []
  for (let seed = 1; seed <= count; seed++)
    if ((await runSeed(seed, options)).problems.length > 0) failing.push(seed)
  return failing
}

test('whatever the order of statements, nothing is lost, nothing older is served last, every count is right', async () => {
  for (let seed = 1; seed <= SEEDS; seed++)
    expect({ seed, ...(await runSeed(seed)) }).toEqual({ seed, problems: [] })
})

test('a seed is one interleaving', async () => {
  const traceOf = async (): Promise<readonly string[]> => {
    const random = seededRandom(5)
    const world = await newWorld()
    await using scheduler = await Scheduler.open(created.url, random)
    for (let n = 0; n < 4; n++)
      await scheduler.add(`sql ${n}`, (query) => directSql(query, seededRandom(50 + n), world))
    await scheduler.run()
    return scheduler.trace
  }
  expect(await traceOf()).toEqual(await traceOf())
})

describe('the interleavings find a centre that is built wrong:', () => {
  test('a cursor over the sequence loses rows', async () => {
    const failing = await seedsThatFail(SEEDS, { reader: (on) => new SequenceCursorReader(on) })
    expect(failing.length).toBeGreaterThan(0)
  })

  test('a push that reads before it locks loses counts', async () => {
    const withoutLocks = (sql: string): string =>
      /^SELECT 1 FROM \w+ WHERE id = ANY/.test(sql) ? 'SELECT 1 WHERE $1::uuid[] IS NULL' : sql
    const failing = await seedsThatFail(SEEDS, { rewrite: withoutLocks })
    expect(failing.length).toBeGreaterThan(0)
  })
})
