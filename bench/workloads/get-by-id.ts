import Database from 'better-sqlite3'
import { AgentDB } from '../../src/index.ts'
import { measuredRow, type BenchRow } from '../report/row.ts'
import { median } from '../report/statistics.ts'
import { newIncident, newMessage } from '../support/data.ts'
import { temporaryFolder } from '../support/folder.ts'
import { interleave, ratioOf, type Schedule } from '../support/measure.ts'
import { pick, seededRandom } from '../support/random.ts'
import { localWorkload } from './workload.ts'

interface Parameters extends Schedule {
  readonly rows: number
}

/** A repository costs no more than a bare prepared statement, although it decodes JSON, arrays and booleans. */
export const getById = localWorkload<Parameters>({
  name: 'get-by-id',
  claim:
    'a get by id through a repository, decoded, costs at most 1.1x a prepared better-sqlite3 get',
  sizes: {
    full: { rows: 10_000, rounds: 200, each: 200, warmup: 40 },
    quick: { rows: 2000, rounds: 50, each: 100, warmup: 20 },
    tiny: { rows: 20, rounds: 2, each: 5, warmup: 1 },
  },
  run: async (parameters) => {
    using folder = temporaryFolder()
    const path = folder.file('store.db')
    await using db = await AgentDB.open({ path })
    const random = seededRandom(1)
    const conversation = db.conversations.create({ title: 'bench' })
    const inputs = Array.from({ length: parameters.rows }, () =>
      newMessage(random, conversation.id),
    )
    const messages = db.messages.createMany(inputs)
    const incidents = db.incidents.createMany(
      Array.from({ length: parameters.rows }, () => newIncident(random)),
    )
    const plain = new Database(path, { readonly: true })
    try {
      return [
        await compare('messages', db.messages, messages, plain, parameters),
        await compare('incidents', db.incidents, incidents, plain, parameters),
      ]
    } finally {
      plain.close()
    }
  },
})

async function compare(
  table: string,
  repository: { find(id: string): unknown },
  rows: readonly { id: string }[],
  plain: Database.Database,
  schedule: Schedule,
): Promise<BenchRow> {
  const statement = plain.prepare(`SELECT * FROM ${table} WHERE id = ?`)
  const random = seededRandom(2)
  const ids = Array.from({ length: 4096 }, () => pick(random, rows).id)
  const idOf = (n: number): string => ids[n % ids.length] ?? ''
  const [ours, theirs] = await interleave(
    [{ run: (n) => repository.find(idOf(n)) }, { run: (n) => statement.get(idOf(n)) }],
    schedule,
  )
  return measuredRow({
    name: `get by id, ${table}`,
    unit: 'us',
    samples: ours.ms.map((ms) => ms * 1000),
    ratio: ratioOf(
      ours,
      theirs,
      `a prepared better-sqlite3 get of the same row (p50 ${(median(theirs.ms) * 1000).toFixed(2)} us)`,
    ),
    targets: [{ metric: 'ratio', limit: 1.1 }],
  })
}
