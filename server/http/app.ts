import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { AgentDBError, preview, type ErrorCode } from '../../schema/errors.ts'
import { MESSAGE_BYTES_MAX } from '../../schema/limits.ts'
import { isId } from '../../schema/values/id.ts'
import { SCHEMA_SKEW_MAX, SCHEMA_VERSION } from '../../schema/version.ts'
import { decodeMessage, encodeMessage, JSON_TYPE, MSGPACK } from '../../sync/protocol/codec.ts'
import {
  ACCEPT_HEADER,
  chooseEncoding,
  encodings,
  type Encoding,
} from '../../sync/protocol/encodings.ts'
import { HEARTBEAT_MS } from '../../sync/protocol/frames.ts'
import {
  checksumResponseSchema,
  healRequestSchema,
  healResponseSchema,
  introduceRequestSchema,
  introduceResponseSchema,
  pullResponseSchema,
  pushRequestSchema,
  pushResponseSchema,
  type PushResponse,
} from '../../sync/protocol/messages.ts'
import { PROTOCOL_VERSION, PROTOCOL_VERSION_MIN } from '../../sync/protocol/version.ts'
import { verifyToken, type Claims } from '../auth/tokens.ts'
import type { Database } from '../postgres/database.ts'
import { checksum } from '../sync/checksum.ts'
import type { Feed, PullRequest } from '../sync/feed.ts'
import type { HealService } from '../sync/heal-service.ts'
import type { PushService } from '../sync/push/push.ts'
import type { SearchService } from '../vectors/search.ts'
import { Admission, type Limits } from './admission.ts'
import { compress, decompress } from './compression.ts'
import { framesForm, linesForm, writeLive } from './live.ts'
import { searchRoutes } from './search.ts'

export interface AppContext {
  readonly database: Database
  readonly feed: Feed
  readonly push: PushService
  readonly heal: HealService
  readonly search: SearchService
  readonly secret: Uint8Array
  /** Told of every failure that is answered with 500. */
  readonly onError: (error: unknown) => void
}

/** Status of each error that leaves by HTTP; all others are 500 and say nothing of what is inside. */
const statuses: Partial<Record<ErrorCode, number>> = {
  UNAUTHORIZED: 401,
  FORBIDDEN: 403,
  PROTOCOL: 400,
  INVALID_OPTION: 400,
  SCHEMA_UNKNOWN: 409,
  SCHEMA_BEHIND: 409,
  FORKED: 409,
  STORE_FORKED: 409,
  NOT_INTRODUCED: 409,
  TOO_LARGE: 413,
  OVERLOADED: 503,
  DATABASE_UNREACHABLE: 503,
}

/** Clients add jitter of their own, so that they do not come back as one. */
const RETRY_AFTER_S = 2
/** Requests that one server holds open at the same time, long polls among them. */
const REQUESTS_MAX = 2000
/** Live streams of one server; each costs a socket and a few kilobytes. */
const STREAMS: Limits = { running: 10_000, waiting: 0 }
/** Pushes at work; more than the database has connections for would only wait inside. */
const PUSHES: Limits = { running: 16, waiting: 500 }

/** The HTTP face of the centre: translates the wire to the services and back; no SQL here. */
export function createApp(context: AppContext): FastifyInstance {
  const app = Fastify({
    bodyLimit: MESSAGE_BYTES_MAX,
    requestTimeout: 120_000,
    // Long polls are answered before this; connections that idle longer are half-open.
    keepAliveTimeout: 75_000,
    forceCloseConnections: true,
    logger: false,
  })
  let open = 0
  app.addHook('onRequest', async (request, reply) => {
    void reply.header(ACCEPT_HEADER, encodings.join(', '))
    if (isStream(request)) return
    open += 1
    if (open > REQUESTS_MAX)
      throw new AgentDBError('OVERLOADED', 'too many requests at once; try again soon')
  })
  // Before the body is read: a stranger gets no memory.
  app.addHook('onRequest', async (request) => {
    if (!request.is404 && !request.url.startsWith('/health/'))
      claimsOf.set(request, await authenticate(request, context.secret))
  })
  app.addHook('onResponse', async (request) => {
    if (!isStream(request)) open -= 1
  })
  app.addContentTypeParser([MSGPACK, JSON_TYPE], { parseAs: 'buffer' }, (_request, body, done) =>
    done(null, body),
  )
  app.setErrorHandler((error, request, reply) =>
    sendError(reply, bodyTooLarge(error, request) ?? error, context.onError),
  )
  app.setNotFoundHandler((_request, reply) =>
    sendError(
      reply,
      new AgentDBError('NOT_FOUND', 'there is nothing here; agents speak to /sync/v1/'),
    ),
  )
  healthRoutes(app, context)
  syncRoutes(app, context)
  searchRoutes(app, context.search, mustClaims)
  return app
}

const isStream = (request: FastifyRequest): boolean => request.url.startsWith('/sync/v1/live')

function healthRoutes(app: FastifyInstance, { database }: AppContext): void {
  app.get('/health/live', async () => ({ status: 'ok' }))
  app.get('/health/ready', async (_request, reply) => {
    try {
      await database.query('SELECT 1')
      return { status: 'ok', database: database.kind }
    } catch {
      return reply.code(503).send({ status: 'unavailable', database: database.kind })
    }
  })
}

function syncRoutes(app: FastifyInstance, context: AppContext): void {
  const { database, feed, push } = context
  const pushes = new Admission('pushes', PUSHES)
  const streams = new Admission('live streams', STREAMS)
  app.post('/sync/v1/push', async (request, reply) => {
    const claims = mustClaims(request)
    const message = await receive(request, pushRequestSchema)
    mustKnowSchema(message.schema)
    const work = (): Promise<PushResponse> => push.push(claims, message)
    return send(request, reply, pushResponseSchema, await pushes.run(work))
  })
  app.get('/sync/v1/pull', async (request, reply) => {
    const pull = readPull(request, reply)
    return send(request, reply, pullResponseSchema, await feed.pull(pull))
  })
  app.get('/sync/v1/live', async (request, reply) => {
    const pull = readPull(request, reply)
    const leave = await streams.enter()
    try {
      const batches = feed.live({ ...pull, waitMs: HEARTBEAT_MS })
      const first = await batches.next()
      if (first.done === true) return await reply.code(503).send()
      reply.hijack()
      const form = wantsJson(request) ? linesForm : framesForm(pull.encoding)
      await writeLive(reply.raw, form, first.value, batches, (error) => {
        const { code, message } = told(error, context.onError)
        return { code, message }
      })
    } finally {
      leave()
    }
    return reply
  })
  app.post('/sync/v1/introduce', async (request, reply) => {
    const claims = mustClaims(request)
    const message = await receive(request, introduceRequestSchema)
    return send(request, reply, introduceResponseSchema, await push.introduce(claims, message))
  })
  app.post('/sync/v1/heal', async (request, reply) => {
    const claims = mustClaims(request)
    const message = await receive(request, healRequestSchema)
    return send(request, reply, healResponseSchema, await context.heal.heal(claims, message))
  })
  app.get('/sync/v1/checksum', async (request, reply) => {
    const claims = mustClaims(request)
    const { schema } = queryOf(request)
    const version = schema === undefined ? SCHEMA_VERSION : wholeNumber('schema', schema)
    mustKnowSchema(version)
    return send(request, reply, checksumResponseSchema, await checksum(database, claims, version))
  })
}

/** What a client asks for; its signal aborts when it is gone. */
function readPull(
  request: FastifyRequest,
  reply: FastifyReply,
): PullRequest & { readonly encoding: Encoding | undefined } {
  const claims = mustClaims(request)
  const query = queryOf(request)
  const schema = wholeNumber('schema', query['schema'])
  mustKnowSchema(schema)
  const abort = new AbortController()
  reply.raw.on('close', () => abort.abort())
  return {
    claims,
    clientId: clientIdOf(query),
    cursor: query['cursor'],
    schema,
    ackedSeq: wholeNumber('acked', query['acked']),
    waitMs: wholeNumber('wait', query['wait']),
    encoding: chooseEncoding(query['encoding']),
    signal: abort.signal,
  }
}

const claimsOf = new WeakMap<FastifyRequest, Claims>()

function mustClaims(request: FastifyRequest): Claims {
  const claims = claimsOf.get(request)
  if (claims === undefined) throw new Error('bug in AgentDB: a request that nobody authenticated')
  return claims
}

async function authenticate(request: FastifyRequest, secret: Uint8Array): Promise<Claims> {
  const protocol = Number(request.headers['x-agentdb-protocol'] ?? PROTOCOL_VERSION)
  if (!(protocol >= PROTOCOL_VERSION_MIN && protocol <= PROTOCOL_VERSION)) {
    throw new AgentDBError(
      'PROTOCOL',
      `this centre speaks protocol ${PROTOCOL_VERSION_MIN} to ${PROTOCOL_VERSION}, not ${preview(protocol)}`,
    )
  }
  const token = /^Bearer (\S+)$/i.exec(request.headers.authorization ?? '')?.[1]
  if (token === undefined)
    throw new AgentDBError('UNAUTHORIZED', 'a token is needed: Authorization: Bearer ...')
  return verifyToken(token, secret)
}

function mustKnowSchema(version: number): void {
  if (version > 0 && Math.abs(version - SCHEMA_VERSION) <= SCHEMA_SKEW_MAX) return
  throw new AgentDBError(
    'SCHEMA_UNKNOWN',
    `this centre has schema version ${SCHEMA_VERSION}, the agent ${preview(version)}, and they may be ${SCHEMA_SKEW_MAX} apart: ${version > SCHEMA_VERSION ? 'upgrade the centre first' : 'upgrade the agent'}`,
  )
}

/** Parameters by name; one that comes twice would be an array. */
function queryOf(request: FastifyRequest): Record<string, string | undefined> {
  const query = request.query as Record<string, string | string[]>
  for (const [name, value] of Object.entries(query)) {
    if (typeof value !== 'string') throw new AgentDBError('PROTOCOL', `${name}: is given twice`)
  }
  return query as Record<string, string>
}

function clientIdOf(query: Record<string, string | undefined>): string {
  const id = query['client']
  if (!isId(id)) throw new AgentDBError('PROTOCOL', `client: must be a UUID, got ${preview(id)}`)
  return id
}

function wholeNumber(name: string, text: string | undefined): number {
  const value = Number(text ?? 0)
  if (!Number.isSafeInteger(value) || value < 0)
    throw new AgentDBError('PROTOCOL', `${name}: must be a whole number, got ${preview(text)}`)
  return value
}

/** The message of a body, which is read and decompressed only for whoever has a token. */
async function receive<S extends z.ZodType>(
  request: FastifyRequest,
  schema: S,
): Promise<z.infer<S>> {
  const { 'content-encoding': encoding, 'content-type': type = MSGPACK } = request.headers
  return decodeMessage(schema, await decompress(request.body as Buffer, encoding), type)
}

const wantsJson = (request: FastifyRequest): boolean =>
  (request.headers.accept ?? '').includes(JSON_TYPE)

/** msgpack unless JSON is asked for, compressed as far as the client reads it. */
async function send<S extends z.ZodType>(
  request: FastifyRequest,
  reply: FastifyReply,
  schema: S,
  message: z.infer<S>,
): Promise<FastifyReply> {
  const type = wantsJson(request) ? JSON_TYPE : MSGPACK
  const { bytes, encoding } = await compress(
    encodeMessage(schema, message, type),
    chooseEncoding(request.headers['accept-encoding']),
  )
  void reply.type(type).header('vary', 'accept, accept-encoding')
  if (encoding !== undefined) void reply.header('content-encoding', encoding)
  return reply.send(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
}

function sendError(
  reply: FastifyReply,
  error: unknown,
  onError?: (error: unknown) => void,
): FastifyReply {
  const { status, code, message } = told(error, onError)
  if (status === 503) void reply.header('retry-after', String(RETRY_AFTER_S))
  return reply.code(status).type(JSON_TYPE).send(JSON.stringify({ code, message }))
}

/** What a client is told of a failure; what nobody expected is told to the operator. */
function told(
  error: unknown,
  onError?: (error: unknown) => void,
): { status: number; code: string; message: string } {
  const answer = describe(error)
  if (answer.status === 500) onError?.(error)
  return answer
}

function describe(error: unknown): { status: number; code: string; message: string } {
  if (error instanceof AgentDBError) {
    const status = error.code === 'NOT_FOUND' ? 404 : statuses[error.code]
    if (status !== undefined) return { status, code: error.code, message: error.message }
  }
  const fastify = error as { code?: unknown; statusCode?: unknown; message?: unknown }
  if (typeof fastify.statusCode === 'number' && fastify.statusCode < 500) {
    return { status: fastify.statusCode, code: 'PROTOCOL', message: String(fastify.message) }
  }
  if (isConnectionLoss(fastify.code)) {
    return {
      status: 503,
      code: 'DATABASE_UNREACHABLE',
      message: 'the database of the centre is away; try again soon',
    }
  }
  return { status: 500, code: 'SERVER_ERROR', message: 'the centre failed; its log says why' }
}

/** What is too long for its route, whether it says its length or not; each has a limit of its own. */
function bodyTooLarge(error: unknown, { routeOptions }: FastifyRequest): AgentDBError | undefined {
  if ((error as { code?: unknown }).code !== 'FST_ERR_CTP_BODY_TOO_LARGE') return undefined
  const { url = '', bodyLimit } = routeOptions
  const advice = url.startsWith('/search/')
    ? 'write the vector with fewer digits, filter by fewer values'
    : 'send fewer transactions at once'
  return new AgentDBError('TOO_LARGE', `${url} takes at most ${bodyLimit} bytes: ${advice}`)
}

/** Class 08 and 57P0x, and what the socket says. */
const isConnectionLoss = (code: unknown): boolean =>
  typeof code === 'string' && /^(?:08|57P0|53300|ECONN|EPIPE|ETIMEDOUT)/.test(code)
