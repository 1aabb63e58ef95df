/**
 * A store whose graph does not fit the disk: `node --import tsx child-graph-full-disk.ts PATH`. No file of this process
 * may grow until its save has failed.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { AgentDB } from '../../src/index.ts'
import { GraphRun, place, putVectors } from './graphs.ts'
import { rowsOf } from './hosted.ts'

const [path = ''] = process.argv.slice(2)
const limitFiles = (limit: string): void => {
  execFileSync('prlimit', ['--pid', String(process.pid), `--fsize=${limit}:`])
}
// Graphs work in the background, which keeps no process alive.
const alive = setInterval(() => undefined, 1000)
const db = await AgentDB.open({ path })
putVectors(
  db,
  rowsOf(2000).map(
    ({ vector }, n) =>
      [`00000000-0000-7000-8000-${n.toString().padStart(12, '0')}`, vector] as const,
  ),
)
const run = new GraphRun(db)
limitFiles('100000')
const graph = await run.whole()
await run.event('save-failed')
const folder = `${path}-vectors`
const look = async () => ({
  found: (await graph.search(new Float32Array(place.dimension).fill(1), 10, 100)).length,
  problem: run.graphs.status()[0]?.problem,
  files: existsSync(folder) ? readdirSync(folder).filter((name) => !name.startsWith('.')) : [],
})
const whileFull = await look()
limitFiles('unlimited')
await run.event('saved')
console.log(
  JSON.stringify({ kinds: run.events.map(({ kind }) => kind), whileFull, after: await look() }),
)
await run.graphs.close()
await db.close()
clearInterval(alive)
