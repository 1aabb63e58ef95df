import { sql, type RawBuilder } from 'kysely'
import { agentColumns, tables } from '../../schema/index.ts'
import type { SyncServer } from '../../server/index.ts'
import { AgentDB } from '../../src/index.ts'
import { connect } from '../../sync/index.ts'
import { measuredRow, type Target } from '../report/row.ts'
import { median } from '../report/statistics.ts'
import { newUser } from '../support/centre.ts'
import { temporaryFolder, type Folder } from '../support/folder.ts'
import { openPlainStore, prepareInsert } from '../support/plain-store.ts'
import { startMeasuredCentre, type MeasuredCentre } from '../support/processes.ts'
import { postgresWorkload } from './workload.ts'

interface Parameters {
  readonly messages: number
  readonly rounds: number
  readonly warmup: number
}

const name = 'first sync'
const targets: readonly Target[] = [{ metric: 'p50', limit: 50_000 }]
const SEED_ROWS = 10_000

/** From an empty file to the whole scope of its user: read, sent, checked, written. */
export const firstSync = postgresWorkload<Parameters>({
  name: 'first-sync',
  claim: 'a new agent takes in at least 50 000 rows a second',
  sizes: {
    // The first round finds the server still following the log of the rows that were made for it.
    full: { messages: 1_000_000, rounds: 3, warmup: 1 },
    quick: { messages: 100_000, rounds: 2, warmup: 1 },
    tiny: { messages: 30, rounds: 1, warmup: 0 },
  },
  rows: [{ name, targets }],
  run: async ({ messages, rounds, warmup }, postgresUrl) => {
    await using centre = await startMeasuredCentre(postgresUrl, 'bench_first')
    using folder = temporaryFolder()
    const userId = await newUser(centre.admin, 'first')
    await seed(centre.admin, userId, messages)
    const ours: number[] = []
    const plain: number[] = []
    for (let round = 0; round < warmup + rounds; round++) {
      const path = folder.file(`agent${round}.db`)
      const ms = await syncOnce(centre, path, userId, messages)
      const bareMs = await copyPlain(path, folder, userId, messages, round)
      if (round < warmup) continue
      ours.push((messages / ms) * 1000)
      plain.push((messages / bareMs) * 1000)
    }
    return [
      measuredRow({
        name,
        unit: 'rows/s',
        samples: ours,
        ratio: {
          value: median(plain) / median(ours),
          against: `prepared better-sqlite3 inserts of the same rows, already in memory, into the same schema (p50 ${Math.round(median(plain))} rows/s)`,
        },
        targets,
        note: `${messages.toLocaleString('en')} messages of one user into a file, from PostgreSQL over HTTP; server and agent are processes of their own; published: PowerSync 27 600 rows/s (21 000 at a million rows)`,
      }),
    ]
  },
})

/** The same ids and texts on every run, ids ordered by time as ours are; conversations of 100 messages. */
export async function seed(server: SyncServer, userId: string, messages: number): Promise<void> {
  await sql`INSERT INTO conversations (id, user_id, title)
    SELECT ${idOf('conversation', sql`c`, sql`c * 100`)}, ${userId}::uuid, 'bench ' || c FROM generate_series(0, ${Math.floor(messages / 100)}::int) c`.execute(
    server.db,
  )
  for (let from = 0; from < messages; from += SEED_ROWS) {
    const to = Math.min(from + SEED_ROWS, messages) - 1
    await sql`INSERT INTO messages (id, conversation_id, role, content, tokens_used, sequence_number)
      SELECT ${idOf('message', sql`n`, sql`n`)},
        ${idOf('conversation', sql`n / 100`, sql`n / 100 * 100`)}, 'user',
        'message ' || n || repeat(' roll back the last deploy', 5), n % 400, n % 100
      FROM generate_series(${from}::int, ${to}::int) n`.execute(server.db)
  }
}

/** An id of the millisecond `at`, ordered by time as ours are. */
const idOf = (kind: string, n: RawBuilder<unknown>, at: RawBuilder<unknown>): RawBuilder<unknown> =>
  sql`overlay(md5(${sql.lit(kind)} || ${n}) placing lpad(to_hex(1760000000000 + ${at}), 12, '0') from 1 for 12)::uuid`

async function syncOnce(
  { admin, measured }: MeasuredCentre,
  path: string,
  userId: string,
  expected: number,
): Promise<number> {
  await using db = await AgentDB.open({ path, userId })
  const token = await admin.issueToken({ userId, agentId: db.agentId })
  await using sync = connect(db, { url: measured.url, token, start: false })
  const startedAt = performance.now()
  await sync.now()
  const ms = performance.now() - startedAt
  const row = await db.kysely
    .selectFrom('messages')
    .select(({ fn }) => fn.countAll<number>().as('count'))
    .executeTakeFirstOrThrow()
  if (row.count !== expected) throw new Error(`${row.count} of ${expected} messages arrived`)
  return ms
}

/** What SQLite itself needs for these rows: one transaction, one statement, values at hand. */
async function copyPlain(
  from: string,
  folder: Folder,
  userId: string,
  messages: number,
  round: number,
): Promise<number> {
  const database = await openPlainStore(folder.file(`plain${round}.db`), userId)
  try {
    database.pragma('foreign_keys = OFF')
    database.exec('DROP TRIGGER update_conversation_stats_on_message')
    database.prepare('ATTACH ? AS synced').run(from)
    const columns = agentColumns(tables.messages)
    const read = database
      .prepare<[number, number], unknown[]>(
        `SELECT ${columns.join(', ')} FROM synced.messages ORDER BY id LIMIT ? OFFSET ?`,
      )
      .raw()
    const insert = prepareInsert(database, 'main.messages', columns)
    let ms = 0
    let committedAt = 0
    database.transaction(() => {
      // In pieces, so that a million rows need not be in memory at once; reading them is not part of the time.
      for (let at = 0; at < messages; at += SEED_ROWS) {
        const rows = read.all(SEED_ROWS, at)
        const startedAt = performance.now()
        for (const row of rows) insert.run(...row)
        ms += performance.now() - startedAt
      }
      committedAt = performance.now()
    })()
    return ms + performance.now() - committedAt
  } finally {
    database.close()
  }
}
