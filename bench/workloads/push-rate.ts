import { SCHEMA_VERSION, tables } from '../../schema/index.ts'
import { timestampOfMicros } from '../../schema/values/timestamp.ts'
import { serve, type SyncServer } from '../../server/index.ts'
import { encodeMessage, MSGPACK } from '../../sync/protocol/codec.ts'
import { pushRequestSchema, type PushRequest } from '../../sync/protocol/messages.ts'
import { PROTOCOL_VERSION } from '../../sync/protocol/version.ts'
import { createDatabase } from '../../test/support/databases.ts'
import { measuredRow, type Target } from '../report/row.ts'
import { median } from '../report/statistics.ts'
import { newUser } from '../support/centre.ts'
import { newMessage } from '../support/data.ts'
import { PlainInserts, sentColumns } from '../support/plain-inserts.ts'
import { pick, seededId, seededRandom, type Random } from '../support/random.ts'
import { postgresWorkload } from './workload.ts'

interface Parameters {
  /** Agents that push at the same time, each of another user. */
  readonly agents: number
  /** Messages of one push; each is a local transaction of its own, as when an agent logs a turn at a time. */
  readonly batch: number
  /** Pushes of each agent in one round. */
  readonly pushes: number
  readonly rounds: number
  readonly warmup: number
}

const name = 'push into PostgreSQL'
const targets: readonly Target[] = [{ metric: 'p50', limit: 10_000 }]
const CONVERSATIONS = 10

/** One server process takes what a fleet writes. Client, server and PostgreSQL share the cores of this machine. */
export const pushRate = postgresWorkload<Parameters>({
  name: 'push-rate',
  claim: 'one server process pushes at least 10 000 changes a second in batches of 500',
  sizes: {
    full: { agents: 4, batch: 500, pushes: 4, rounds: 15, warmup: 3 },
    quick: { agents: 4, batch: 500, pushes: 2, rounds: 6, warmup: 2 },
    tiny: { agents: 2, batch: 5, pushes: 1, rounds: 2, warmup: 1 },
  },
  rows: [{ name, targets }],
  run: async (parameters, postgresUrl) => {
    await using database = await createDatabase(postgresUrl, 'bench_push')
    await using server = await serve({ port: 0, databaseUrl: database.url })
    await using plain = new PlainInserts(database.url)
    const random = seededRandom(5)
    const pushers: Pusher[] = []
    for (let i = 0; i < parameters.agents; i++) pushers.push(await Pusher.open(server, random, i))
    const { agents, batch, pushes, rounds, warmup } = parameters
    const changes = agents * batch * pushes
    const pushed: number[] = []
    const inserted: number[] = []
    for (let round = 0; round < warmup + rounds; round++) {
      const bodies = pushers.map((pusher) =>
        Array.from({ length: pushes }, () => pusher.nextPush(batch)),
      )
      const tuples = pushers.map((pusher) =>
        Array.from({ length: pushes }, () => pusher.rows(batch)),
      )
      const ours = (): Promise<unknown> =>
        Promise.all(pushers.map((pusher, i) => inTurn(bodies[i], (body) => pusher.send(body))))
      const bare = (): Promise<unknown> =>
        Promise.all(tuples.map((own) => inTurn(own, (rows) => plain.insert(rows))))
      // Whoever comes second finds the caches warm.
      const order = round % 2 === 0 ? [ours, bare] : [bare, ours]
      for (const contender of order) {
        const startedAt = performance.now()
        await contender()
        const rate = (changes / (performance.now() - startedAt)) * 1000
        if (round >= warmup) (contender === ours ? pushed : inserted).push(rate)
      }
    }
    return [
      measuredRow({
        name,
        unit: 'rows/s',
        samples: pushed,
        ratio: {
          value: median(inserted) / median(pushed),
          against: `INSERT ... SELECT FROM unnest of as many rows into the same table with its triggers (p50 ${Math.round(median(inserted))} rows/s)`,
        },
        targets,
        note: `${agents} agents, batches of ${batch}, a local transaction a message; server and load share one process`,
      }),
    ]
  },
})

/** An agent that pushes what it is given as fast as the server takes it; encoding is not part of the time. */
class Pusher {
  readonly #server: SyncServer
  readonly #token: string
  readonly #clientId: string
  readonly #conversationIds: readonly string[]
  readonly #random: Random
  #seq = 0
  #n: number

  private constructor(
    server: SyncServer,
    token: string,
    conversationIds: readonly string[],
    random: Random,
    index: number,
  ) {
    this.#server = server
    this.#token = token
    this.#conversationIds = conversationIds
    this.#random = random
    this.#n = index * 10_000_000
    this.#clientId = seededId(random, index)
  }

  static async open(server: SyncServer, random: Random, index: number): Promise<Pusher> {
    const userId = await newUser(server, `pusher${index}`)
    const token = await server.issueToken({ userId, agentId: `agent-${index}` })
    const made = await server.db
      .insertInto('conversations')
      .values(Array.from({ length: CONVERSATIONS }, (_, i) => ({ user_id: userId, title: `${i}` })))
      .returning('id')
      .execute()
    return new Pusher(
      server,
      token,
      made.map(({ id }) => id),
      random,
      index,
    )
  }

  /** Stored values of messages in order of the columns that an agent inserts. */
  rows(count: number): (string | number | null)[][] {
    return Array.from({ length: count }, () => {
      this.#n += 1
      const message: Record<string, unknown> = {
        ...newMessage(this.#random, pick(this.#random, this.#conversationIds)),
        id: seededId(this.#random, this.#n),
        content_type: 'text',
        sequence_number: this.#n,
        created_at: timestampOfMicros(1_760_000_000_000_000 + this.#n),
      }
      return sentColumns.map((column) => (message[column] as string | number | undefined) ?? null)
    })
  }

  nextPush(count: number): Buffer {
    const before = this.#seq
    const transactions = this.rows(count).map((values): PushRequest['transactions'][number] => {
      this.#seq += 1
      return {
        seq: this.#seq,
        id: this.#transactionId(this.#seq),
        clock: 1_760_000_000_000_000 + this.#seq,
        base: { nonce: null, position: 0 },
        mutations: [[0, 'insert', String(values[sentColumns.indexOf('id')]), values]],
      }
    })
    const request: PushRequest = {
      clientId: this.#clientId,
      schema: SCHEMA_VERSION,
      previous: before === 0 ? null : { seq: before, id: this.#transactionId(before) },
      shapes: [{ table: tables.messages.number, columns: [...sentColumns] }],
      transactions,
    }
    return Buffer.from(encodeMessage(pushRequestSchema, request, MSGPACK))
  }

  async send(body: Buffer): Promise<void> {
    const response = await fetch(new URL('sync/v1/push', `${this.#server.url}/`), {
      method: 'POST',
      headers: {
        authorization: `Bearer ${this.#token}`,
        'content-type': MSGPACK,
        accept: 'application/json',
        'x-agentdb-protocol': String(PROTOCOL_VERSION),
      },
      body,
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`the push was refused: ${text}`)
  }

  #transactionId(seq: number): string {
    return `${this.#clientId.replaceAll('-', '').slice(0, 16)}${seq.toString(16).padStart(16, '0')}`
  }
}

async function inTurn<T>(
  items: readonly T[] | undefined,
  work: (item: T) => Promise<void>,
): Promise<void> {
  for (const item of items ?? []) await work(item)
}
