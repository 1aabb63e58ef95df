/**
 * Two agents of one user, a centre in this process, and an incident that both edit while they are offline.
 *
 *   npx tsx examples/two-agents.ts
 */
import { AgentDB } from '@llm-copilot/agentdb'
import { addUser, serve } from '@llm-copilot/agentdb/server'
import { connect } from '@llm-copilot/agentdb/sync'

// A centre on PGlite in memory; give `dataFolder` or `databaseUrl` for one that stays.
await using server = await serve({ port: 0 })
const user = await addUser(server.db, { email: 'ada@example.com', username: 'ada' })
const tokenOf = (agentId: string): Promise<string> =>
  server.issueToken({ userId: user.id, agentId })

await using laptop = await AgentDB.open({ path: ':memory:', userId: user.id })
await using desktop = await AgentDB.open({ path: ':memory:', userId: user.id })
await using laptopSync = connect(laptop, { url: server.url, token: await tokenOf('laptop') })
await using desktopSync = connect(desktop, { url: server.url, token: await tokenOf('desktop') })

// Both know the incident.
const { id } = laptop.incidents.create({
  title: 'Checkout answers 500',
  severity: 'high',
  source: 'example',
})
await laptopSync.now()
await desktopSync.now()

// Each edits its own copy; nobody waits for anybody.
laptop.incidents.update(id, { root_cause: 'release 412', title: 'Checkout: payment times out' })
desktop.incidents.update(id, { status: 'acknowledged', title: 'Checkout is down in eu-west' })
await laptopSync.now()
await desktopSync.now()
await laptopSync.now()

for (const [name, db] of [
  ['laptop', laptop],
  ['desktop', desktop],
] as const) {
  const row = db.incidents.find(id)
  console.log(`${name}: "${row?.title}", ${row?.status}, caused by ${row?.root_cause}`)
}
// The title that lost is not gone: it is on record, with both sides.
for (const { state, mine, theirs } of laptop.syncConflicts.list())
  console.log('laptop keeps on record:', state, mine, theirs)
