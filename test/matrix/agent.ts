/**
 * One agent of the matrix in a process of its own: `node --import tsx agent.ts OPTIONS`. At its rate it reads what it
 * sees and writes one transaction that depends on all of that. Every observation is a line on standard output; a line is
 * printed only after the transaction has returned, so that what was printed must survive.
 */
import { writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { AgentDB } from '../../src/index.ts'
import { connect } from '../../sync/index.ts'
import type { AgentOptions, Observation, View } from './history.ts'

const options = JSON.parse(process.argv[2] ?? '{}') as AgentOptions
const { name, path, userId, url, token, conversations, meanMs } = options
const db = await AgentDB.open({ path, userId, agentId: name })
const sync = connect(db, { url, token, retryMinMs: 50, retryMaxMs: 1000, pullWaitMs: 5000 })
let writes = true

const tell = (line: Observation): void => {
  writeSync(1, `${JSON.stringify(line)}\n`)
}

/** Highest number and count of each agent's messages in each of the two conversations. */
function look(): View[] {
  return conversations.map((conversation_id) => {
    const view: View = {}
    for (const { content } of db.messages.list({ where: { conversation_id }, limit: 1_000_000 })) {
      const { agent, n } = JSON.parse(content) as { agent: string; n: number }
      const seen = (view[agent] ??= { last: 0, count: 0 })
      seen.last = Math.max(seen.last, n)
      seen.count += 1
    }
    return view
  })
}

/** Reads and writes in one transaction: both conversations get the next number, with what was seen before it. */
function write(): void {
  const observation = db.transaction((): Observation => {
    const views = look()
    const n = (views[0]?.[name]?.last ?? 0) + 1
    const depends = Object.fromEntries(
      Object.entries(views[0] ?? {}).map(([agent, { last }]) => [agent, last]),
    )
    for (const conversation_id of conversations)
      db.messages.create({
        conversation_id,
        role: 'user',
        content: JSON.stringify({ agent: name, n, depends }),
      })
    return { kind: 'wrote', agent: name, n, depends, views }
  })
  tell(observation)
}

process.stdin.setEncoding('utf8')
process.stdin.on('data', (text: string) => {
  if (text.includes('stop')) writes = false
  if (text.includes('report')) report()
})
process.stdin.once('end', () => process.exit())

function report(): void {
  const { pending, position, state, lastError } = sync.status()
  tell({ kind: 'status', agent: name, pending, position, state, error: lastError?.message ?? null })
  tell({ kind: 'saw', agent: name, views: look() })
}

sync.on('outcome', (outcome) => {
  if (outcome.kind !== 'applied') tell({ kind: 'outcome', agent: name, outcome: outcome.kind })
})
/** What was written before this process began, whether or not it was told. */
for (const content of db.messages.list({
  where: { conversation_id: conversations[0] },
  limit: 1_000_000,
})) {
  const own = JSON.parse(content.content) as {
    agent: string
    n: number
    depends: Record<string, number>
  }
  if (own.agent === name) tell({ kind: 'found', agent: name, n: own.n, depends: own.depends })
}
tell({ kind: 'started', agent: name })

while (db.isOpen) {
  // Exponential pauses: writes of different agents meet at every distance.
  await sleep(-Math.log(1 - Math.random()) * meanMs)
  // Nothing to write to before the first pull brought the conversations.
  if (writes && conversations.every((id) => db.conversations.find(id) !== undefined)) write()
}
