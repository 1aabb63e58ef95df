/** The worker thread of a store: hosts its graphs, and answers one message for each. */
import { parentPort } from 'node:worker_threads'
import { AgentDBError } from '../../../schema/errors.ts'
import { HostedGraph } from './hosted-graph.ts'
import type { Call, Reply } from './messages.ts'

const graphs = new Map<number, HostedGraph>()

function graphOf(number: number): HostedGraph {
  let graph = graphs.get(number)
  if (graph === undefined) {
    graph = new HostedGraph()
    graphs.set(number, graph)
  }
  return graph
}

async function answer({ call, request }: Call): Promise<Reply> {
  try {
    const value = await graphOf(request.graph).handle(request)
    if (request.type === 'close') graphs.delete(request.graph)
    return { call, ok: true, value }
  } catch (error) {
    return {
      call,
      ok: false,
      code: error instanceof AgentDBError ? error.code : undefined,
      message: error instanceof Error ? error.message : String(error),
    }
  }
}

const port = parentPort
port?.on('message', (message: Call) => {
  void answer(message).then((reply) => port.postMessage(reply))
})
