import { seededRandom } from '../../bench/support/random.ts'
import type { EngineName } from '../../src/vector/graph/engine.ts'
import { HostedGraph } from '../../src/vector/graph/hosted-graph.ts'
import type { GraphSpec, OpenAnswer } from '../../src/vector/graph/messages.ts'
import { randomVector } from './random-vectors.ts'

export function specOf(path: string, change: Partial<GraphSpec> = {}): GraphSpec {
  return {
    engines: ['hnswlib'],
    collection: 'code_embeddings',
    model: 'm',
    dimension: 8,
    m: 16,
    efConstruct: 100,
    storeId: 'store',
    files: { hnswlib: path, usearch: path },
    ...change,
  }
}

type Opened = Extract<OpenAnswer, { kind: 'open' }>

/** A graph as the worker hosts it, here in this thread. */
export async function openHosted(
  spec: GraphSpec,
  head = Number.MAX_SAFE_INTEGER,
): Promise<{ graph: HostedGraph; answer: Opened }> {
  const graph = new HostedGraph()
  const answer = await graph.handle({ type: 'open', graph: 1, spec, head, mayLoad: true })
  if (answer.kind !== 'open') throw new Error(answer.reason)
  return { graph, answer }
}

/** Row n of a made-up store: its id, its stamp and its vector. */
export const rowsOf = (count: number, dimension = 8, seed = 1) => {
  const random = seededRandom(seed)
  return Array.from({ length: count }, (_, n) => ({
    id: `row ${n}`,
    stamp: 1000 + n,
    vector: randomVector(random, dimension),
  }))
}

type Rows = ReturnType<typeof rowsOf>

export async function applyRows(
  graph: HostedGraph,
  rows: Rows,
  watermark = rows.length,
  deletes: readonly string[] = [],
): Promise<void> {
  const dimension = rows[0]?.vector.length ?? 0
  const vectors = new Float32Array(rows.length * dimension)
  for (const [i, { vector }] of rows.entries()) vectors.set(vector, i * dimension)
  await graph.handle({
    type: 'apply',
    graph: 1,
    deletes,
    ids: rows.map(({ id }) => id),
    stamps: Float64Array.from(rows, ({ stamp }) => stamp),
    vectors,
    watermark,
  })
}

/** Whether the file that was loaded is one of these rows, and of no other. */
export const verifyRows = (
  graph: HostedGraph,
  rows: readonly { id: string; stamp: number }[],
): Promise<boolean> =>
  graph.handle({
    type: 'verify',
    graph: 1,
    ids: rows.map(({ id }) => id),
    stamps: Float64Array.from(rows, ({ stamp }) => stamp),
    kinds: new Uint8Array(rows.length).fill(1),
    isLast: true,
  })

/** Makes the file of a graph of these rows. */
export async function writeFile(path: string, engine: EngineName, rows: Rows): Promise<void> {
  const { graph } = await openHosted(specOf(path, { engines: [engine] }))
  await applyRows(graph, rows)
  await graph.handle({ type: 'save', graph: 1 })
}
