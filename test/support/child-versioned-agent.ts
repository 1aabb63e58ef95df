/**
 * An agent of whatever build this file lies in: `node --import tsx child-versioned-agent.ts OPTIONS`, as JSON. Does what
 * it is told in lines of JSON, `{"n":1,"ask":"now","of":[]}`, and answers each with `{"n":1,"answer":...}`.
 */
import { writeSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { AgentDB, AgentDBError } from '../../src/index.ts'
import { internalsOf } from '../../src/internal-for-sync.ts'
import { connect } from '../../sync/index.ts'
import { decodeMessage } from '../../sync/protocol/codec.ts'
import { pullResponseSchema } from '../../sync/protocol/messages.ts'

interface Options {
  readonly path: string
  readonly userId: string
  readonly agentId: string
  readonly url: string
  readonly token: string
  readonly start: boolean
}

type Statement = readonly [sql: string, ...parameters: (string | number | null)[]]

const { path, userId, agentId, url, token, start } = JSON.parse(process.argv[2] ?? '') as Options

/** What came by single pulls: which tables with how many rows, and whether it was a page. */
const pulls: unknown[] = []
const realFetch = globalThis.fetch
globalThis.fetch = async (input, init) => {
  const response = await realFetch(input, init)
  if (!response.ok || !response.url.includes('/sync/v1/pull?')) return response
  const bytes = new Uint8Array(await response.clone().arrayBuffer())
  const batch = decodeMessage(pullResponseSchema, bytes, response.headers.get('content-type') ?? '')
  const counts = batch.shapes.map(({ table, columns }, i) => ({
    table,
    columns,
    rows: batch.rows.filter(([shape]) => shape === i).length,
  }))
  pulls.push({ page: batch.page, tables: counts })
  return response
}

const tell = (message: unknown): void => void writeSync(1, `${JSON.stringify(message)}\n`)

process.stdin.resume().once('end', () => process.exit())
const db = await AgentDB.open({ path, userId, agentId }).catch((error: unknown) => {
  tell({ failed: error instanceof AgentDBError ? error.code : String(error) })
  process.exit(1)
})
const { connection } = internalsOf(db)
const sync = connect(db, { url, token, start, retryMinMs: 10, retryMaxMs: 100 })
const outcomes: unknown[] = []
sync.on('outcome', (outcome) => outcomes.push(outcome))
sync.on('progress', (progress) => tell({ progress }))

let told = 0
const shift = { isOn: true }
let working: Promise<{ written: number; counted: number }> | undefined

async function work(counter: string): Promise<{ written: number; counted: number }> {
  let written = 0
  let counted = 0
  for (; shift.isOn; written++) {
    const conversation = db.conversations.create({ title: `t${written}` }).id
    db.messages.create({ conversation_id: conversation, role: 'user', content: 'm' })
    db.incidents.create({ title: `i${written}`, severity: 'low', source: 'probe' })
    const row = db.conversations.find(counter)
    if (row !== undefined) {
      db.conversations.update(counter, { total_cost_cents: (row.total_cost_cents ?? 0) + 1 })
      counted += 1
    }
    // Lets the sync take its turns.
    await nextTurn()
    while (shift.isOn && sync.status().pending > 20)
      await new Promise((done) => setTimeout(done, 1))
  }
  return { written, counted }
}

const asked: Readonly<Record<string, (...of: never[]) => unknown>> = {
  /** One local transaction of raw statements, as the escape hatch allows. */
  write: (...statements: Statement[]) =>
    db.transaction(() => {
      for (const [sql, ...parameters] of statements) connection.run(sql, ...parameters)
    }),
  all: (...[sql, ...parameters]: Statement) => connection.all(sql, ...parameters),
  /** Writes without end: conversations with a message, incidents, and one more on a counter. */
  work(counter: string) {
    working = work(counter)
  },
  /** Writes one thing more, and waits until the centre took it. */
  met: (name: string) =>
    db.transaction((tx) => {
      db.runbooks.create({ name, steps: [] })
      return tx
    }).accepted,
  /** Writes without waiting; `told` says how many of those the centre is said to have. */
  later(title: string, summary: string) {
    const { accepted } = db.transaction((tx) => {
      const { id } = db.conversations.create({ title })
      connection.run('UPDATE conversations SET summary = ? WHERE id = ?', summary, id)
      return tx
    })
    void accepted.then(() => (told += 1))
  },
  told: () => told,
  /** Ends that, and tells how often it wrote and counted. */
  async rest() {
    shift.isOn = false
    return working
  },
  now: () => sync.now(),
  status: () => sync.status(),
  checksums: () => sync.checksums(),
  outcomes: () => outcomes.splice(0),
  pulls: () => pulls.splice(0),
  conflicts: () => db.syncConflicts.list(),
  async close() {
    await sync.close()
    await db.close()
    setImmediate(() => process.exit())
  },
}

tell({ opened: true })
for await (const line of createInterface({ input: process.stdin })) {
  const { n, ask, of } = JSON.parse(line) as { n: number; ask: string; of: never[] }
  try {
    tell({ n, answer: (await asked[ask]?.(...of)) ?? null })
  } catch (error) {
    tell({ n, failed: error instanceof AgentDBError ? error.code : String(error) })
  }
}
