/**
 * Live agents in a process of their own: `node --import tsx child-agents.ts OPTIONS`. Opens so many stores of one user,
 * connects them, and prints `seen ROW TIME ...` when each of them has told of a row: one time an agent, on the clock that
 * all processes of the machine share.
 */
import { join } from 'node:path'
import { AgentDB } from '../../src/index.ts'
import { connect } from '../../sync/index.ts'
import { sharedNow } from './clock.ts'

export interface AgentsOptions {
  readonly url: string
  readonly token: string
  readonly userId: string
  readonly folder: string
  readonly name: string
  readonly count: number
}

process.stdin.resume().once('end', () => process.exit())
const options = JSON.parse(process.argv[2] ?? '{}') as AgentsOptions
const { url, token, userId, folder, name, count } = options
const seen = new Map<string, number[]>()

for (let n = 0; n < count; n++) {
  const agentId = `${name}-${n}`
  const db = await AgentDB.open({ path: join(folder, `${agentId}.db`), userId, agentId })
  const sync = connect(db, { url, token })
  await new Promise<void>((done) => {
    const off = sync.on('status', ({ state }) => {
      if (state !== 'live') return
      off()
      done()
    })
  })
  sync.on('change', (changes) => {
    const at = sharedNow()
    for (const { table, id } of changes) {
      if (table !== 'messages') continue
      const times = seen.get(id) ?? []
      seen.set(id, times)
      times.push(at)
      if (times.length < count) continue
      seen.delete(id)
      console.log(`seen ${id} ${times.join(' ')}`)
    }
  })
}
console.log('ready')
