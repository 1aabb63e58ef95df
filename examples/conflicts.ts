/**
 * A write that the centre refuses: what the program hears of it, and how a person puts it right.
 *
 *   npx tsx examples/conflicts.ts
 */
import { AgentDB, TransactionRejectedError } from '@llm-copilot/agentdb'
import { addUser, serve } from '@llm-copilot/agentdb/server'
import { connect } from '@llm-copilot/agentdb/sync'

await using server = await serve({ port: 0 })
const user = await addUser(server.db, { email: 'ada@example.com', username: 'ada' })
const tokenOf = (agentId: string): Promise<string> =>
  server.issueToken({ userId: user.id, agentId })

await using laptop = await AgentDB.open({ path: ':memory:', userId: user.id })
await using desktop = await AgentDB.open({ path: ':memory:', userId: user.id })
// They sync when told here; by default a connection is live all the time.
const options = { url: server.url, start: false }
await using laptopSync = connect(laptop, { ...options, token: await tokenOf('laptop') })
await using desktopSync = connect(desktop, { ...options, token: await tokenOf('desktop') })

// Both write a runbook of the same name, which is unique at the centre.
desktop.runbooks.create({ name: 'Roll back', steps: ['redeploy the last tag'] })
await desktopSync.now()
const sent = laptop.transaction((tx) => {
  laptop.runbooks.create({ name: 'Roll back', steps: ['stop the queue', 'redeploy'] })
  return tx
})
await laptopSync.now()

try {
  await sent.accepted
} catch (error) {
  if (!(error instanceof TransactionRejectedError)) throw error
  for (const { op, table, reason, conflictId } of error.outcomes) {
    console.log(`refused: ${op} ${table}, ${reason}`)
    // Nothing is lost: it is sent again under another name.
    laptop.syncConflicts.retry(conflictId, { name: 'Roll back, with a queue' })
  }
}
await laptopSync.now()
await desktopSync.now()
console.log(desktop.runbooks.list({ orderBy: 'name' }).map(({ name }) => name))
console.log('conflicts left:', laptop.syncConflicts.list().length)
