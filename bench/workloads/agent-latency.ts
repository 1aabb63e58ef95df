import { setTimeout as sleep } from 'node:timers/promises'
import { AgentDB } from '../../src/index.ts'
import { connect } from '../../sync/index.ts'
import type { Child } from '../../test/support/child.ts'
import { measuredRow, type BenchRow, type Target } from '../report/row.ts'
import { median } from '../report/statistics.ts'
import { newUser } from '../support/centre.ts'
import { sharedNow } from '../support/clock.ts'
import { newMessage } from '../support/data.ts'
import { temporaryFolder, type Folder } from '../support/folder.ts'
import { NotifyPair } from '../support/notify-pair.ts'
import { startAgents, startMeasuredCentre, type MeasuredCentre } from '../support/processes.ts'
import { seededRandom } from '../support/random.ts'
import { postgresWorkload } from './workload.ts'

interface Parameters {
  /** Sizes of the fleets that are measured, the writer included. */
  readonly fleets: readonly { readonly agents: number; readonly processes: number }[]
  readonly messages: number
  readonly warmup: number
  /** Most time between two messages; agents do not write in step with the feed. */
  readonly pauseMs: number
}

const nameOf = (agents: number): string => `agent to agent, ${agents} agents`
const LAST = ', the last of them'
const targets: readonly Target[] = [
  { metric: 'p50', limit: 10 },
  { metric: 'p99', limit: 50 },
]

/** One writes, all others are live: from before the local write to each one's change event. */
export const agentLatency = postgresWorkload<Parameters>({
  name: 'agent-latency',
  claim: 'what one agent commits, 100 live ones see within 10 ms at p50 and 50 ms at p99',
  sizes: {
    full: {
      fleets: [
        { agents: 2, processes: 1 },
        { agents: 100, processes: 4 },
      ],
      messages: 500,
      warmup: 50,
      pauseMs: 50,
    },
    quick: {
      fleets: [
        { agents: 2, processes: 1 },
        { agents: 100, processes: 4 },
      ],
      messages: 60,
      warmup: 20,
      pauseMs: 50,
    },
    tiny: {
      fleets: [
        { agents: 2, processes: 1 },
        { agents: 4, processes: 2 },
      ],
      messages: 3,
      warmup: 1,
      pauseMs: 1,
    },
  },
  rows: (parameters) =>
    parameters.fleets.flatMap(({ agents }) => rowNames(agents).map((name) => ({ name, targets }))),
  run: async (parameters, postgresUrl) => {
    const rows: BenchRow[] = []
    for (const { agents, processes } of parameters.fleets) {
      await using centre = await startMeasuredCentre(postgresUrl, 'bench_latency')
      using folder = temporaryFolder()
      const measured = await measureFleet(centre, folder, parameters, agents - 1, processes)
      rows.push(...rowsOf(agents, processes, measured))
    }
    return rows
  },
})

const rowNames = (agents: number): string[] =>
  agents > 2 ? [nameOf(agents), nameOf(agents) + LAST] : [nameOf(agents)]

interface Measured {
  /** Of each message and each reader. */
  readonly each: readonly number[]
  /** Of each message, the slowest reader. */
  readonly last: readonly number[]
  readonly notify: readonly number[]
}

function rowsOf(agents: number, processes: number, { each, last, notify }: Measured): BenchRow[] {
  const bare = median(notify)
  const note = `commit in one store to change event in the others, live streams, files, real PostgreSQL; the server, the writer and the readers (${processes}) are processes of their own; published: Electric 6 ms to one client, without a store`
  return rowNames(agents).map((name) => {
    const samples = name.endsWith(LAST) ? last : each
    return measuredRow({
      name,
      unit: 'ms',
      samples,
      ratio: {
        value: median(samples) / bare,
        against: `one INSERT with NOTIFY to a listener on PostgreSQL alone (p50 ${bare.toFixed(2)} ms)`,
      },
      targets,
      note,
    })
  })
}

async function measureFleet(
  { admin, measured, databaseUrl }: MeasuredCentre,
  folder: Folder,
  { messages, warmup, pauseMs }: Parameters,
  readers: number,
  processes: number,
): Promise<Measured> {
  const userId = await newUser(admin, 'latency')
  const token = await admin.issueToken({ userId, agentId: 'bench' })
  const { url } = measured
  await using db = await AgentDB.open({ path: folder.file('writer.db'), userId })
  await using sync = connect(db, { url, token })
  const conversation = db.conversations.create({ title: 'bench' })
  await sync.now()
  await using notify = await NotifyPair.open(databaseUrl)
  const children: Child[] = []
  const random = seededRandom(6)
  const result: { each: number[]; last: number[]; notify: number[] } = {
    each: [],
    last: [],
    notify: [],
  }
  try {
    for (let left = readers, n = 0; n < processes; n++) {
      const count = Math.ceil(left / (processes - n))
      left -= count
      const options = { url, token, userId, folder: folder.file(''), name: `reader${n}`, count }
      children.push(await startAgents(options))
    }
    for (let n = 0; n < warmup + messages; n++) {
      await sleep(random() * pauseMs)
      const startedAt = sharedNow()
      const { id } = db.messages.create(newMessage(random, conversation.id))
      const start = `seen ${id} `
      const seen = await Promise.all(
        children.map(async (child) => {
          const line = await child.line((text) => text.startsWith(start))
          return line.slice(start.length).split(' ').map(Number)
        }),
      )
      const bare = await notify.seenAfter(n)
      if (n < warmup) continue
      const ms = seen.flat().map((at) => at - startedAt)
      result.each.push(...ms)
      result.last.push(Math.max(...ms))
      result.notify.push(bare)
    }
  } finally {
    for (const child of children) await child[Symbol.asyncDispose]()
  }
  return result
}
