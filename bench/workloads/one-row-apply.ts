import { copyFileSync } from 'node:fs'
import type Database from 'better-sqlite3'
import { agentColumns, tables } from '../../schema/index.ts'
import type { Stored } from '../../schema/codec.ts'
import { timestampOfMicros } from '../../schema/values/timestamp.ts'
import { AgentDB } from '../../src/index.ts'
import { internalsOf, readIdentity, type Connection } from '../../src/internal-for-sync.ts'
import { applyBatch } from '../../sync/client/apply-batch.ts'
import type { PullResponse } from '../../sync/protocol/messages.ts'
import { measuredRow, type BenchRow, type Target } from '../report/row.ts'
import { median } from '../report/statistics.ts'
import { newMessage } from '../support/data.ts'
import { temporaryFolder } from '../support/folder.ts'
import { interleave, ratioOf, type Schedule, type Timing } from '../support/measure.ts'
import { openPlainStore, prepareInsert } from '../support/plain-store.ts'
import { pick, seededId, seededRandom, wholeBelow } from '../support/random.ts'
import { localWorkload } from './workload.ts'

interface Parameters extends Schedule {
  readonly messages: number
}

const targets: readonly Target[] = [{ metric: 'p50', limit: 3 }]
const CONVERSATIONS = 1000
const PAGE_ROWS = 5000
const columns = agentColumns(tables.messages)

/** What a large store pays for a small piece of news: it must not depend on what is there already. */
export const oneRowApply = localWorkload<Parameters>({
  name: 'one-row-apply',
  claim: 'a batch of one row goes into a store of 500 000 within 3 ms',
  sizes: {
    full: { messages: 500_000, rounds: 200, each: 10, warmup: 20 },
    quick: { messages: 50_000, rounds: 40, each: 10, warmup: 5 },
    tiny: { messages: 20, rounds: 2, each: 2, warmup: 1 },
  },
  run: async ({ messages, ...schedule }) => {
    using folder = temporaryFolder()
    const path = folder.file('ours.db')
    const source = new MessageSource(messages)
    let userId: string
    {
      await using db = await AgentDB.open({ path })
      ;({ userId } = db)
      fill(internalsOf(db).connection, source, userId)
    }
    copyFileSync(path, folder.file('plain.db'))
    await using db = await AgentDB.open({ path, userId })
    const plain = await openPlainStore(folder.file('plain.db'), userId)
    try {
      return await measure(internalsOf(db).connection, plain, source, schedule)
    } finally {
      plain.close()
    }
  },
})

async function measure(
  connection: Connection,
  plain: Database.Database,
  source: MessageSource,
  schedule: Schedule,
): Promise<BenchRow[]> {
  const identity = readIdentity(connection)
  const count = (schedule.rounds + schedule.warmup) * schedule.each
  const made = Array.from({ length: count }, () => source.next())
  const changed = Array.from({ length: count }, () => source.changed())
  const apply = (row: readonly Stored[] | undefined): void => {
    const batch = source.batch(row === undefined ? [] : [row])
    applyBatch(connection, identity, batch, timestampOfMicros(batch.clock))
  }
  const noteCursor = plain.prepare('UPDATE sync_state SET position = position + 1')
  const insert = prepareInsert(plain, 'messages', columns)
  const update = plain.prepare(
    `UPDATE messages SET ${columns.slice(1).join(' = ?, ')} = ? WHERE id = ?`,
  )
  const insertOne = plain.transaction((row: readonly Stored[]) => {
    insert.run(...row)
    noteCursor.run()
  })
  const updateOne = plain.transaction(([id, ...rest]: readonly Stored[]) => {
    update.run(...rest, id)
    noteCursor.run()
  })
  const [ourInsert, theirInsert, ourUpdate, theirUpdate] = await interleave(
    [
      { run: (n) => apply(made[n]) },
      { run: (n) => insertOne(made[n] ?? []) },
      { run: (n) => apply(changed[n]) },
      { run: (n) => updateOne(changed[n] ?? []) },
    ],
    schedule,
  )
  const row = (what: string, ours: Timing, theirs: Timing): BenchRow =>
    measuredRow({
      name: `apply 1 ${what} row`,
      unit: 'ms',
      samples: ours.ms,
      ratio: ratioOf(
        ours,
        theirs,
        `one better-sqlite3 transaction with that row and a cursor, no capture (p50 ${median(theirs.ms).toFixed(3)} ms)`,
      ),
      targets,
      note: `a store of ${source.stored} messages, file, WAL; published: PowerSync 3 ms for one operation on 500 000 rows`,
    })
  return [row('new', ourInsert, theirInsert), row('changed', ourUpdate, theirUpdate)]
}

/** Messages as the centre tells of them. */
class MessageSource {
  readonly stored: number
  readonly conversationIds: readonly string[]
  readonly #random = seededRandom(9)
  readonly #ids: string[] = []
  #position = 0

  constructor(stored: number) {
    this.stored = stored
    this.conversationIds = Array.from({ length: CONVERSATIONS }, (_, n) =>
      seededId(this.#random, n),
    )
  }

  next(): Stored[] {
    const id = seededId(this.#random, this.#ids.length)
    this.#ids.push(id)
    return this.#row(id, this.#ids.length)
  }

  /** Another content for one of those that were stored at the beginning. */
  changed(): Stored[] {
    const n = wholeBelow(this.#random, this.stored)
    return this.#row(this.#ids[n] ?? '', n + 1)
  }

  #row(id: string, n: number): Stored[] {
    const message: Record<string, unknown> = {
      ...newMessage(this.#random, pick(this.#random, this.conversationIds)),
      id,
      content_type: 'text',
      tool_calls: '[]',
      sequence_number: n,
      created_at: timestampOfMicros(1_760_000_000_000_000 + n),
    }
    return columns.map((name) => (message[name] as Stored | undefined) ?? null)
  }

  batch(rows: readonly (readonly Stored[])[], more: Partial<PullResponse> = {}): PullResponse {
    this.#position += 1
    return {
      nonce: '0190a3c1-7b1e-7c2a-9f53-2d1c8e0b4a77',
      position: this.#position,
      cursor: `cursor ${this.#position}`,
      clock: 1_790_000_000_000_000 + this.#position,
      page: null,
      shapes: [{ table: tables.messages.number, columns: [...columns] }],
      rows: rows.map((row) => [0, [...row]]),
      gone: [],
      watermark: null,
      outcomes: [],
      conflicts: [],
      ...more,
    }
  }
}

function fill(connection: Connection, source: MessageSource, userId: string): void {
  const identity = readIdentity(connection)
  const at = timestampOfMicros(1_760_000_000_000_000)
  const named = ['id', 'user_id', 'title', 'tags', 'context_snapshot', 'model_config'] as const
  const times = ['started_at', 'created_at', 'updated_at'] as const
  const counts = ['message_count', 'total_tokens', 'total_cost_cents'] as const
  const conversations = source.conversationIds.map((id): [number, Stored[]] => [
    0,
    [id, userId, 'bench', '[]', '{}', '{}', at, at, at, 0, 0, 0],
  ])
  const shape = { table: tables.conversations.number, columns: [...named, ...times, ...counts] }
  const first = source.batch([], { shapes: [shape], rows: conversations })
  applyBatch(connection, identity, first, at)
  for (let left = source.stored; left > 0; left -= PAGE_ROWS) {
    const rows = Array.from({ length: Math.min(left, PAGE_ROWS) }, () => source.next())
    applyBatch(connection, identity, source.batch(rows), at)
  }
}
