/**
 * Another process on a store that is synced elsewhere: `node --import tsx child-neighbour.ts PATH USER URL TOKEN`. Writes
 * a conversation, tries to sync, and waits until it sees what the other process pulled.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { AgentDB, AgentDBError } from '../../src/index.ts'
import { connect } from '../../sync/index.ts'

process.stdin.resume().once('end', () => process.exit())
const [path = '', userId = '', url = '', token = ''] = process.argv.slice(2)
const db = await AgentDB.open({ path, userId })
const conversation = db.conversations.create({ title: 'from the neighbour' })
console.log(`wrote ${conversation.id}`)
try {
  connect(db, { url, token })
  console.log('syncs')
} catch (error) {
  console.log(`refused ${error instanceof AgentDBError ? error.code : String(error)}`)
}
while (!db.conversations.list().some(({ title }) => title === 'from the centre')) await sleep(10)
console.log('saw it')
