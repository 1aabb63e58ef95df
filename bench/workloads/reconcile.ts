import { sql } from 'kysely'
import { timestampOfMicros } from '../../schema/values/timestamp.ts'
import { AgentDB } from '../../src/index.ts'
import { connect } from '../../sync/index.ts'
import { measuredRow, type Target } from '../report/row.ts'
import { median } from '../report/statistics.ts'
import { newUser } from '../support/centre.ts'
import { newMessage } from '../support/data.ts'
import { temporaryFolder } from '../support/folder.ts'
import { PlainInserts, sentColumns } from '../support/plain-inserts.ts'
import { startMeasuredCentre, type MeasuredCentre } from '../support/processes.ts'
import { pick, seededId, seededRandom, type Random } from '../support/random.ts'
import { postgresWorkload } from './workload.ts'

interface Parameters {
  /** Messages that wait, each a local transaction of its own. */
  readonly pending: number
  /** Rows that came at the centre meanwhile. */
  readonly news: number
  readonly rounds: number
  readonly warmup: number
}

const name = 'reconcile after a week offline'
/** The budget of pushes: whoever comes back may take what the server takes. */
const targets: readonly Target[] = [{ metric: 'p50', limit: 10_000 }]
const CONVERSATIONS = 20
const BATCH = 500

/** Of an agent that wrote all week without the centre: until all is acknowledged, and the store is at the head. */
export const reconcile = postgresWorkload<Parameters>({
  name: 'reconcile',
  claim: '100 000 rows written offline are at the centre and acknowledged within 10 s',
  sizes: {
    full: { pending: 100_000, news: 10_000, rounds: 3, warmup: 1 },
    quick: { pending: 10_000, news: 1000, rounds: 2, warmup: 0 },
    tiny: { pending: 20, news: 5, rounds: 1, warmup: 0 },
  },
  rows: [{ name, targets }],
  run: async ({ pending, news, rounds, warmup }, postgresUrl) => {
    await using centre = await startMeasuredCentre(postgresUrl, 'bench_reconcile')
    await using plain = new PlainInserts(centre.databaseUrl)
    const random = seededRandom(8)
    const ours: number[] = []
    const seconds: number[] = []
    const bare: number[] = []
    for (let round = 0; round < warmup + rounds; round++) {
      const ms = await comeBack(centre, random, round, { pending, news })
      const plainMs = await insertPlain(centre, plain, random, round, pending)
      if (round < warmup) continue
      ours.push((pending / ms) * 1000)
      seconds.push(ms / 1000)
      bare.push((pending / plainMs) * 1000)
    }
    return [
      measuredRow({
        name,
        unit: 'rows/s',
        samples: ours,
        ratio: {
          value: median(bare) / median(ours),
          against: `INSERT ... SELECT FROM unnest of as many rows, ${BATCH} at a time, over one connection (p50 ${Math.round(median(bare))} rows/s)`,
        },
        targets,
        note: `${median(seconds).toFixed(1)} s for ${pending} messages, a local transaction each, and ${news} rows that came meanwhile; server and agent are processes of their own; nobody publishes it`,
      }),
    ]
  },
})

/** Milliseconds from the first contact after the week until nothing is pending. */
async function comeBack(
  { admin, measured }: MeasuredCentre,
  random: Random,
  round: number,
  { pending, news }: { readonly pending: number; readonly news: number },
): Promise<number> {
  using folder = temporaryFolder()
  const userId = await newUser(admin, `away${round}`)
  await using db = await AgentDB.open({ path: folder.file('away.db'), userId })
  const token = await admin.issueToken({ userId, agentId: db.agentId })
  await using sync = connect(db, { url: measured.url, token, start: false })
  const conversations = db.conversations.createMany(
    Array.from({ length: CONVERSATIONS }, (_, n) => ({ title: `${n}` })),
  )
  await sync.now()
  for (let n = 0; n < pending; n++)
    db.messages.create(newMessage(random, pick(random, conversations).id))
  await sql`INSERT INTO conversations (user_id, title)
    SELECT ${userId}::uuid, 'meanwhile ' || n FROM generate_series(1, ${news}::integer) n`.execute(
    admin.db,
  )
  const startedAt = performance.now()
  await sync.now()
  const ms = performance.now() - startedAt
  const { pending: left } = sync.status()
  if (left > 0) throw new Error(`${left} local transactions are still pending`)
  const { count } = await admin.db
    .selectFrom('messages')
    .innerJoin('conversations', 'conversations.id', 'messages.conversation_id')
    .where('conversations.user_id', '=', userId)
    .select(({ fn }) => fn.countAll<string>().as('count'))
    .executeTakeFirstOrThrow()
  if (Number(count) !== pending) throw new Error(`${count} of ${pending} messages arrived`)
  return ms
}

/** As many rows of another user, by bare statements. */
async function insertPlain(
  { admin }: MeasuredCentre,
  plain: PlainInserts,
  random: Random,
  round: number,
  count: number,
): Promise<number> {
  const userId = await newUser(admin, `plain${round}`)
  const made = await admin.db
    .insertInto('conversations')
    .values(Array.from({ length: CONVERSATIONS }, () => ({ user_id: userId })))
    .returning('id')
    .execute()
  const ids = made.map(({ id }) => id)
  const rows = Array.from({ length: count }, (_, n) => {
    const message: Record<string, unknown> = {
      ...newMessage(random, pick(random, ids)),
      id: seededId(random, round * count + n),
      content_type: 'text',
      sequence_number: n,
      created_at: timestampOfMicros(1_760_000_000_000_000 + n),
    }
    return sentColumns.map((column) => (message[column] as string | number | undefined) ?? null)
  })
  const startedAt = performance.now()
  for (let at = 0; at < count; at += BATCH) await plain.insert(rows.slice(at, at + BATCH))
  return performance.now() - startedAt
}
