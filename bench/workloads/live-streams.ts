import { setTimeout as sleep } from 'node:timers/promises'
import { AgentDB } from '../../src/index.ts'
import { connect } from '../../sync/index.ts'
import { measuredRow, type BenchRow, type Target } from '../report/row.ts'
import { median } from '../report/statistics.ts'
import { newUser } from '../support/centre.ts'
import { sharedNow } from '../support/clock.ts'
import { temporaryFolder } from '../support/folder.ts'
import { NotifyPair } from '../support/notify-pair.ts'
import {
  ServerProcess,
  startMeasuredCentre,
  StreamsProcess,
  type Memory,
} from '../support/processes.ts'
import { seededRandom } from '../support/random.ts'
import { postgresWorkload } from './workload.ts'

interface Parameters {
  /** How many live agents memory is measured with, ascending; the last number is told of changes. */
  readonly fleets: readonly number[]
  readonly processes: number
  readonly changes: number
  readonly warmup: number
  readonly pauseMs: number
}

const text = (agents: number): string => agents.toLocaleString('en')
const memoryName = (agents: number): string => `memory per agent, ${text(agents)} live`
const reachName = (agents: number): string => `a change reaches all of ${text(agents)} agents`
/** Of a live stream with its socket; there is no budget but this one. */
const memoryTargets: readonly Target[] = [{ metric: 'p50', limit: 64 * 1024 }]
/** What Electric publishes at p99 for 16 transactions a second, with a network of caches in front. */
const reachTargets: readonly Target[] = [{ metric: 'p99', limit: 405 }]

/** What a fleet costs one server process, and how soon it hears. No stores behind the streams: they are not measured. */
export const liveStreams = postgresWorkload<Parameters>({
  name: 'live-streams',
  claim:
    'one server holds 1 000 live agents at 64 KiB each, and a change reaches all within 405 ms',
  sizes: {
    full: { fleets: [200, 1000], processes: 2, changes: 200, warmup: 20, pauseMs: 100 },
    quick: { fleets: [200, 1000], processes: 2, changes: 20, warmup: 5, pauseMs: 100 },
    tiny: { fleets: [2, 6], processes: 2, changes: 2, warmup: 1, pauseMs: 1 },
  },
  rows: ({ fleets }) => [
    ...fleets.map((agents) => ({ name: memoryName(agents), targets: memoryTargets })),
    { name: reachName(fleets.at(-1) ?? 0), targets: reachTargets },
  ],
  run: async (parameters, postgresUrl) => {
    await using centre = await startMeasuredCentre(postgresUrl, 'bench_streams')
    await using plain = await ServerProcess.start({ plain: true })
    const userId = await newUser(centre.admin, 'streams')
    const token = await centre.admin.issueToken({ userId, agentId: 'light' })
    await using ours = new Fleet(centre.measured, token, true, parameters.processes)
    await using theirs = new Fleet(plain, token, false, parameters.processes)
    const rows: BenchRow[] = []
    await ours.settle()
    await theirs.settle()
    for (const agents of parameters.fleets) {
      const each = await ours.bytesEach(agents)
      const bare = await theirs.bytesEach(agents)
      rows.push(
        measuredRow({
          name: memoryName(agents),
          unit: 'bytes',
          samples: [each.resident],
          ratio: {
            value: each.objects / bare.objects,
            against: `an answer that Node's own HTTP server holds open, objects only: ${Math.round(each.objects)} and ${Math.round(bare.objects)} bytes`,
          },
          targets: memoryTargets,
          note: 'resident memory of the server process beyond what it had before, garbage collected; published: Electric Circuits 7-9 KiB a live query, without its connection',
        }),
      )
    }
    using folder = temporaryFolder()
    await using db = await AgentDB.open({ path: folder.file('writer.db'), userId })
    await using sync = connect(db, { url: centre.measured.url, token })
    await sync.now()
    await using notify = await NotifyPair.open(centre.databaseUrl)
    rows.push(await reach(db, ours, notify, parameters))
    return rows
  },
})

async function reach(
  writer: AgentDB,
  fleet: Fleet,
  notify: NotifyPair,
  { fleets, changes, warmup, pauseMs }: Parameters,
): Promise<BenchRow> {
  const random = seededRandom(11)
  const ours: number[] = []
  const bare: number[] = []
  for (let n = 0; n < warmup + changes; n++) {
    await sleep(random() * pauseMs)
    const mark = `mark-${n}`
    const startedAt = sharedNow()
    writer.conversations.create({ title: `${mark} of the bench` })
    const reachedAt = await fleet.seen(mark)
    const ms = await notify.seenAfter(n)
    if (n < warmup) continue
    ours.push(reachedAt - startedAt)
    bare.push(ms)
  }
  return measuredRow({
    name: reachName(fleets.at(-1) ?? 0),
    unit: 'ms',
    samples: ours,
    ratio: {
      value: median(ours) / median(bare),
      against: `one INSERT with NOTIFY to a listener on PostgreSQL alone (p50 ${median(bare).toFixed(2)} ms)`,
    },
    targets: reachTargets,
    note: 'commit in one store until the last stream has the bytes; the agents are of one user; published: Electric p99 405 ms at 16 transactions a second behind caches',
  })
}

/** Streams of several processes into one server. */
class Fleet implements AsyncDisposable {
  readonly #server: ServerProcess
  readonly #streams: readonly StreamsProcess[]
  #before: Memory = { resident: 0, objects: 0 }
  #open = 0

  constructor(server: ServerProcess, token: string, isCentre: boolean, processes: number) {
    this.#server = server
    const { url } = server
    this.#streams = Array.from(
      { length: processes },
      () => new StreamsProcess({ url, token, isCentre }),
    )
  }

  /** A few streams first, so that what a server makes once is not taken for what each agent costs. */
  async settle(): Promise<void> {
    await this.#openTo(this.#streams.length)
    this.#before = await this.#server.memory()
  }

  async bytesEach(agents: number): Promise<Memory> {
    const settled = this.#streams.length
    await this.#openTo(agents)
    const now = await this.#server.memory()
    // So few that nothing can be told, in tests.
    const each = (kind: keyof Memory): number =>
      Math.max(1, (now[kind] - this.#before[kind]) / Math.max(1, this.#open - settled))
    return { resident: each('resident'), objects: each('objects') }
  }

  async seen(mark: string): Promise<number> {
    return Math.max(...(await Promise.all(this.#streams.map((streams) => streams.seen(mark)))))
  }

  async #openTo(agents: number): Promise<void> {
    const each = Math.ceil(agents / this.#streams.length)
    this.#open = each * this.#streams.length
    await Promise.all(this.#streams.map((streams) => streams.openTo(each)))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const streams of this.#streams) await streams[Symbol.asyncDispose]()
  }
}
