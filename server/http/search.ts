import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { AgentDBError } from '../../schema/errors.ts'
import { JSON_TYPE } from '../../sync/protocol/codec.ts'
import type { Claims } from '../auth/tokens.ts'
import { searchForms } from '../vectors/search-request.ts'
import type { SearchAnswer, SearchService } from '../vectors/search.ts'

/** A vector of the most dimensions there are, written out at length. */
const BODY_BYTES_MAX = 2 * 1024 * 1024
const LINES_TYPE = 'application/x-ndjson'

/** `POST /search/v1` and the searches of the seeds below it. */
export function searchRoutes(
  app: FastifyInstance,
  service: SearchService,
  claimsOf: (request: FastifyRequest) => Claims,
): void {
  for (const [path, form] of Object.entries(searchForms)) {
    app.post(`/search/v1${path}`, { bodyLimit: BODY_BYTES_MAX }, async (request, reply) => {
      const answer = await service.search(claimsOf(request), form(bodyOf(request)))
      return send(request, reply, answer)
    })
  }
}

function bodyOf({ body, headers }: FastifyRequest): unknown {
  const type = headers['content-type'] ?? ''
  if (!type.startsWith(JSON_TYPE) || !Buffer.isBuffer(body))
    throw new AgentDBError('PROTOCOL', `a search is JSON: content-type: ${JSON_TYPE}`)
  try {
    return JSON.parse(body.toString()) as unknown
  } catch (error) {
    throw new AgentDBError('PROTOCOL', 'the body is no JSON', { cause: error })
  }
}

/** One object, or a line a result for who reads them as they come. */
function send(request: FastifyRequest, reply: FastifyReply, answer: SearchAnswer): FastifyReply {
  const wantsLines = (request.headers.accept ?? '').includes(LINES_TYPE)
  if (!wantsLines) return reply.type(JSON_TYPE).send(JSON.stringify(answer))
  const { results, ...rest } = answer
  const lines = [...results.map((result) => ({ result })), { end: rest }]
  return reply.type(LINES_TYPE).send(lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
}
