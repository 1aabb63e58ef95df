/** Saves a graph over and over: `node --import tsx child-graph-saver.ts PATH ENGINE`, and says before each save. */
import { engineNames } from '../../src/vector/graph/engine.ts'
import { applyRows, openHosted, rowsOf, specOf } from './hosted.ts'

const [path = '', name] = process.argv.slice(2)
const engine = engineNames.find((one) => one === name) ?? 'hnswlib'
const rows = rowsOf(2000, 64)
const { graph, answer } = await openHosted(specOf(path, { engines: [engine], dimension: 64 }))
if (!answer.isLoaded) await applyRows(graph, rows)
for (let n = 0; ; n++) {
  process.stdout.write(`saving ${n}\n`)
  await graph.handle({ type: 'save', graph: 1 })
}
