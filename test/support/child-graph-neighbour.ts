/**
 * Another process on a store with a graph: `node --import tsx child-graph-neighbour.ts PATH`. Says when it saved; finds
 * the nearest of each vector that it is given as a line of JSON.
 */
import { createInterface } from 'node:readline'
import { AgentDB } from '../../src/index.ts'
import { GraphRun } from './graphs.ts'

const [path = ''] = process.argv.slice(2)
// Graphs work in the background, which keeps no process alive.
setInterval(() => undefined, 1000)
const db = await AgentDB.open({ path })
const run = new GraphRun(db)
const tell = async (): Promise<never> => {
  for (let seen = 0; ; seen = run.events.length) {
    await run.event('saved', seen)
    console.log(`saved ${run.events.length}`)
  }
}
void tell()
await run.whole()
console.log('ready')
for await (const line of createInterface({ input: process.stdin })) {
  const graph = await run.whole()
  const vector = Float32Array.from(JSON.parse(line) as number[])
  const [found] = await graph.search(vector, 1, 200)
  console.log(`found ${found?.id} of ${graph.size}`)
}
