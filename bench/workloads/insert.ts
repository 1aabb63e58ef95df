import type Database from 'better-sqlite3'
import { agentColumns, tables, type NewRow } from '../../schema/index.ts'
import { timestampOfMicros } from '../../schema/values/timestamp.ts'
import { AgentDB, type Synchronous } from '../../src/index.ts'
import { measuredRow, type BenchRow } from '../report/row.ts'
import { median } from '../report/statistics.ts'
import { newMessage } from '../support/data.ts'
import { temporaryFolder, type Folder } from '../support/folder.ts'
import { interleave, ratioOf, type Schedule, type Timing } from '../support/measure.ts'
import { openPlainStore, prepareInsert } from '../support/plain-store.ts'
import { pick, seededId, seededRandom } from '../support/random.ts'
import { localWorkload } from './workload.ts'

type Message = NewRow<'messages'>

interface BatchParameters extends Schedule {
  readonly rows: number
}

const CONVERSATIONS = 10
const target = { metric: 'ratio', limit: 1.5 } as const
const columns = agentColumns(tables.messages)

/** Capture, validation and encoding together cost at most half of the insert itself. */
export const batchInsert = localWorkload<BatchParameters>({
  name: 'batch-insert',
  claim: 'a batch of 1000 messages, change log included, costs at most 1.5x the same rows without',
  sizes: {
    full: { rows: 1000, rounds: 60, each: 1, warmup: 10 },
    quick: { rows: 1000, rounds: 15, each: 1, warmup: 5 },
    tiny: { rows: 5, rounds: 2, each: 1, warmup: 1 },
  },
  run: async ({ rows, ...schedule }) => {
    using folder = temporaryFolder()
    await using stores = await openStores(folder, 'normal')
    const { db, twin, plain } = stores
    const batches = (schedule.rounds + schedule.warmup) * schedule.each
    const whole = messageBatches(stores.conversationIds, batches, rows, 1)
    const short = messageBatches(stores.conversationIds, batches, rows, 2).map((batch) =>
      batch.map(withoutDefaults),
    )
    const insert = prepareInsert(plain, 'messages', columns)
    const insertAll = plain.transaction((batch: readonly Stored[][]) => {
      for (const values of batch) insert.run(...values)
    })
    const stored = whole.map((batch) => batch.map(storedValues))
    const [given, made, theirs] = await interleave(
      [
        { run: (n) => db.messages.createMany(whole[n] ?? []) },
        { run: (n) => twin.messages.createMany(short[n] ?? []) },
        { run: (n) => insertAll(stored[n] ?? []) },
      ],
      schedule,
    )
    const against = `prepared better-sqlite3 inserts into the same schema with statistics, without capture (p50 ${median(theirs.ms).toFixed(2)} ms)`
    const row = (name: string, timing: Timing, note: string): BenchRow =>
      measuredRow({
        name,
        unit: 'ms',
        samples: timing.ms,
        ratio: ratioOf(timing, theirs, against),
        targets: [target],
        note,
      })
    return [
      row(`insert ${rows} messages`, given, 'all values given'),
      row(`insert ${rows} messages, defaults`, made, 'ids, sequence numbers and times made here'),
    ]
  },
})

export const durableInsert = localWorkload<Schedule>({
  name: 'durable-insert',
  claim: 'one insert that survives a power cut costs at most 1.5x the same without the change log',
  sizes: {
    full: { rounds: 100, each: 10, warmup: 10 },
    quick: { rounds: 20, each: 10, warmup: 3 },
    tiny: { rounds: 2, each: 2, warmup: 1 },
  },
  run: async (schedule) => {
    using folder = temporaryFolder()
    await using stores = await openStores(folder, 'full')
    const { db, plain } = stores
    const count = (schedule.rounds + schedule.warmup) * schedule.each
    const rows = messageBatches(stores.conversationIds, count, 1, 3).flat()
    const stored = rows.map(storedValues)
    const insert = prepareInsert(plain, 'messages', columns)
    const [ours, theirs] = await interleave(
      [
        { run: (n) => db.messages.createMany(rows.slice(n, n + 1)) },
        { run: (n) => insert.run(...(stored[n] ?? [])) },
      ],
      schedule,
    )
    return [
      measuredRow({
        name: 'insert 1 message, synchronous full',
        unit: 'us',
        samples: ours.ms.map((ms) => ms * 1000),
        ratio: ratioOf(
          ours,
          theirs,
          `a prepared better-sqlite3 insert without capture, synchronous full (p50 ${(median(theirs.ms) * 1000).toFixed(0)} us)`,
        ),
        targets: [target],
      }),
    ]
  },
})

interface Stores extends AsyncDisposable {
  readonly db: AgentDB
  /** One more of ours: rows of two kinds in one file would spoil each other's order of keys. */
  readonly twin: AgentDB
  readonly plain: Database.Database
  readonly conversationIds: readonly string[]
}

/** Our store and the plain one, with the same user and the same conversations. */
async function openStores(folder: Folder, synchronous: Synchronous): Promise<Stores> {
  const db = await AgentDB.open({ path: folder.file('ours.db'), synchronous })
  const { userId } = db
  const twin = await AgentDB.open({ path: folder.file('twin.db'), userId, synchronous })
  const plain = await openPlainStore(folder.file('plain.db'), userId, synchronous)
  const random = seededRandom(7)
  const conversations = Array.from({ length: CONVERSATIONS }, (_, i) => ({
    id: seededId(random, i),
    title: `bench ${i}`,
  }))
  for (const store of [db, twin]) store.conversations.createMany(conversations)
  const insert = plain.prepare('INSERT INTO conversations (id, user_id, title) VALUES (?, ?, ?)')
  for (const { id, title } of conversations) insert.run(id, userId, title)
  return {
    db,
    twin,
    plain,
    conversationIds: conversations.map(({ id }) => id),
    async [Symbol.asyncDispose]() {
      plain.close()
      await twin.close()
      await db.close()
    },
  }
}

type Stored = string | number | null

function messageBatches(
  conversationIds: readonly string[],
  batches: number,
  rows: number,
  seed: number,
): Message[][] {
  const random = seededRandom(seed)
  let n = 0
  return Array.from({ length: batches }, () =>
    Array.from({ length: rows }, (): Message => {
      n += 1
      return {
        ...newMessage(random, pick(random, conversationIds)),
        id: seededId(random, n),
        content_type: 'text',
        sequence_number: n,
        created_at: timestampOfMicros(1_760_000_000_000_000 + n),
      }
    }),
  )
}

function withoutDefaults(message: Message): Message {
  const {
    id: _id,
    sequence_number: _number,
    created_at: _at,
    content_type: _type,
    ...rest
  } = message
  return rest
}

const storedValues = (message: Message): Stored[] =>
  columns.map((name) => (message[name as keyof Message] as Stored | undefined) ?? null)
