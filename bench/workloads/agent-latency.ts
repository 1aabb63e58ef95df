import { Client } from 'pg'
import { setTimeout as sleep } from 'node:timers/promises'
import { serve } from '../../server/index.ts'
import { AgentDB } from '../../src/index.ts'
import { connect } from '../../sync/index.ts'
import { createDatabase } from '../../test/support/databases.ts'
import { measuredRow, type Target } from '../report/row.ts'
import { median } from '../report/statistics.ts'
import { newUser } from '../support/centre.ts'
import { newMessage } from '../support/data.ts'
import { temporaryFolder } from '../support/folder.ts'
import { seededRandom, type Random } from '../support/random.ts'
import { postgresWorkload } from './workload.ts'

interface Parameters {
  readonly messages: number
  readonly warmup: number
  /** Most time between two messages; agents do not write in step with the pull. */
  readonly pauseMs: number
}

const name = 'agent to agent, 2 agents'
/** The budget of 100 agents; this measures two. */
const targets: readonly Target[] = [
  { metric: 'p50', limit: 10 },
  { metric: 'p99', limit: 50 },
]

export const agentLatency = postgresWorkload<Parameters>({
  name: 'agent-latency',
  claim: 'what one agent commits, another sees within 10 ms at p50 and 50 ms at p99',
  sizes: {
    full: { messages: 500, warmup: 50, pauseMs: 20 },
    quick: { messages: 100, warmup: 20, pauseMs: 20 },
    tiny: { messages: 3, warmup: 1, pauseMs: 1 },
  },
  rows: [{ name, targets }],
  run: async ({ messages, warmup, pauseMs }, postgresUrl) => {
    await using database = await createDatabase(postgresUrl, 'bench_latency')
    using folder = temporaryFolder()
    await using server = await serve({ port: 0, databaseUrl: database.url })
    const userId = await newUser(server, 'latency')
    const open = async (agentId: string) => {
      const db = await AgentDB.open({ path: folder.file(`${agentId}.db`), userId, agentId })
      const token = await server.issueToken({ userId, agentId })
      return { db, sync: connect(db, { url: server.url, token }) }
    }
    const writer = await open('writer')
    const reader = await open('reader')
    const notify = await NotifyPair.open(database.url)
    try {
      const random = seededRandom(6)
      const conversation = writer.db.conversations.create({ title: 'bench' })
      await writer.sync.now()
      await reader.sync.now()
      const ours: number[] = []
      const theirs: number[] = []
      for (let n = 0; n < warmup + messages; n++) {
        await sleep(random() * pauseMs)
        const ms = await seenAfter(writer, reader, random, conversation.id)
        await sleep(random() * pauseMs)
        const bare = await notify.seenAfter(n)
        if (n < warmup) continue
        ours.push(ms)
        theirs.push(bare)
      }
      return [
        measuredRow({
          name,
          unit: 'ms',
          samples: ours,
          ratio: {
            value: median(ours) / median(theirs),
            against: `one INSERT with NOTIFY to a listener on PostgreSQL alone (p50 ${median(theirs).toFixed(2)} ms)`,
          },
          targets,
          note: 'commit in one store to change event in the other, long poll, files, real PostgreSQL; server and both agents share one process; the budget is for 100 agents',
        }),
      ]
    } finally {
      await notify.close()
      for (const { db, sync } of [writer, reader]) {
        await sync.close()
        await db.close()
      }
    }
  },
})

interface Agent {
  readonly db: AgentDB
  readonly sync: ReturnType<typeof connect>
}

/** Milliseconds from before the local write until the other agent tells of the row. */
async function seenAfter(
  writer: Agent,
  reader: Agent,
  random: Random,
  conversationId: string,
): Promise<number> {
  let id: string | undefined
  const handlers: (() => void)[] = []
  const seen = new Promise<number>((resolve) => {
    handlers.push(
      reader.sync.on('change', (changes) => {
        if (changes.some((change) => change.id === id)) resolve(performance.now())
      }),
    )
  })
  const startedAt = performance.now()
  id = writer.db.messages.create(newMessage(random, conversationId)).id
  const seenAt = await seen
  for (const remove of handlers) remove()
  return seenAt - startedAt
}

/** The least that PostgreSQL itself needs to tell one connection of another's commit. */
class NotifyPair {
  readonly #writer: Client
  readonly #listener: Client

  private constructor(writer: Client, listener: Client) {
    this.#writer = writer
    this.#listener = listener
  }

  static async open(url: string): Promise<NotifyPair> {
    const writer = new Client({ connectionString: url })
    const listener = new Client({ connectionString: url })
    await Promise.all([writer.connect(), listener.connect()])
    await writer.query('CREATE TABLE bench_note (n integer PRIMARY KEY)')
    await listener.query('LISTEN bench_note')
    return new NotifyPair(writer, listener)
  }

  async seenAfter(n: number): Promise<number> {
    const heard = new Promise<void>((resolve) => {
      this.#listener.once('notification', () => resolve())
    })
    const startedAt = performance.now()
    await this.#writer.query(
      `WITH made AS (INSERT INTO bench_note VALUES (${n}) RETURNING n) SELECT pg_notify('bench_note', n::text) FROM made`,
    )
    await heard
    return performance.now() - startedAt
  }

  async close(): Promise<void> {
    await Promise.all([this.#writer.end(), this.#listener.end()])
  }
}
