/**
 * A store on a disk that is full: `node --import tsx child-full-disk.ts PATH USER BYTES`. No file of this process may
 * grow beyond so many bytes, until it lifts the limit. Prints what it had acknowledged and what it was told.
 */
import { execFileSync } from 'node:child_process'
import { AgentDB, AgentDBError } from '../../src/index.ts'

const [path = '', userId = '', bytes = ''] = process.argv.slice(2)
const limitFiles = (limit: string): void => {
  execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${limit}:`])
}

const db = await AgentDB.open({ path, userId })
const conversation = db.conversations.create({ title: 'x' }).id
limitFiles(bytes)
const acknowledged: string[] = []
const write = (): void => {
  const message = db.messages.create({
    conversation_id: conversation,
    role: 'user',
    content: 'x'.repeat(10_000),
  })
  acknowledged.push(message.id)
}
let code = 'none'
try {
  for (;;) write()
} catch (error) {
  code = error instanceof AgentDBError ? error.code : String(error)
}
const whileFull = db.messages.list().map(({ id }) => id)
limitFiles('unlimited')
write()
console.log(
  JSON.stringify({ code, acknowledged, whileFull, after: db.messages.list().map(({ id }) => id) }),
)
await db.close()
