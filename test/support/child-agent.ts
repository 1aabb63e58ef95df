/**
 * An agent in a process of its own, made to be killed: `node --import tsx child-agent.ts PATH USER URL TOKEN`. It writes
 * and syncs without end, and prints the ids of each local transaction once `db.transaction` has returned.
 */
import { writeSync } from 'node:fs'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { AgentDB } from '../../src/index.ts'
import { connect } from '../../sync/index.ts'

process.stdin.resume().once('end', () => process.exit())
const [path = '', userId = '', url = '', token = ''] = process.argv.slice(2)
const db = await AgentDB.open({ path, userId })
const sync = connect(db, { url, token, retryMinMs: 10, retryMaxMs: 100 })
sync.on('change', () => writeSync(1, 'pulled\n'))

const conversation = db.conversations.create({ title: `of ${process.pid}` }).id
writeSync(1, `conversations ${conversation}\n`)
for (let i = 0; ; i++) {
  const written = db.transaction(() => {
    const ids = [1, 2].map(
      (n) =>
        db.messages.create({
          conversation_id: conversation,
          role: 'user',
          content: `${i}.${n}`,
          tokens_used: 1,
        }).id,
    )
    db.conversations.update(conversation, { total_cost_cents: i + 1 })
    return ids
  })
  // Only what was told counts as acknowledged.
  writeSync(1, `messages ${written.join(' ')}\n`)
  // Both agents take the same names: all but one get the next version at the centre.
  const name = `at ${Math.floor(Date.now() / 500)}`
  if (db.workflows.list({ where: { name }, limit: 1 }).length === 0)
    writeSync(1, `workflows ${db.workflows.create({ name, definition: { i } }).id}\n`)
  // Lets the sync take its turns; a queue that only grows would test nothing but the outbox.
  await nextTurn()
  while (sync.status().pending > 100) await new Promise((done) => setTimeout(done, 1))
}
