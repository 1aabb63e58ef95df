/**
 * An agent in a process of its own that brings a centre back what it lost, made to be killed meanwhile:
 * `node --import tsx child-healer.ts PATH USER AGENT URL TOKEN`. It says how far it is, and waits when all is sent.
 */
import { writeSync } from 'node:fs'
import { AgentDB } from '../../src/index.ts'
import { connect } from '../../sync/index.ts'

process.stdin.resume().once('end', () => process.exit())
const [path = '', userId = '', agentId = '', url = '', token = ''] = process.argv.slice(2)
const say = (line: string): void => void writeSync(1, `${line}\n`)
const db = await AgentDB.open({ path, userId, agentId })
const sync = connect(db, { url, token, retryMinMs: 5, retryMaxMs: 50, start: false })
sync.on('heal', ({ offered }) => say(`heals ${offered}`))
sync.on('outcome', ({ transactionId }) => say(`outcome ${transactionId}`))
say('opened')
await sync.now()
say(`drained ${sync.status().pending}`)
