import type { z } from 'zod'
import { AgentDBError, errorCodes, preview, type ErrorCode } from '../../schema/errors.ts'
import { MESSAGE_BYTES_MAX } from '../../schema/limits.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import { decodeMessage, encodeMessage, MSGPACK } from '../protocol/codec.ts'
import {
  checksumResponseSchema,
  errorResponseSchema,
  pullResponseSchema,
  pushResponseSchema,
  type ChecksumResponse,
  type PullResponse,
  type PushRequest,
  type PushResponse,
} from '../protocol/messages.ts'
import { PROTOCOL_VERSION } from '../protocol/version.ts'

export interface PullParameters {
  readonly clientId: string
  readonly cursor: string | undefined
  readonly ackedSeq: number
  readonly waitMs: number
}

/** What the engine needs of the wire. */
export interface Transport {
  push(request: PushRequest, signal: AbortSignal): Promise<PushResponse>
  pull(parameters: PullParameters, signal: AbortSignal): Promise<PullResponse>
  checksum(signal: AbortSignal): Promise<ChecksumResponse>
}

/** How long the centre may be silent beyond what was asked; a half-open connection ends here. */
const SILENCE_MS_MAX = 30_000

/** An error that the centre asked to try again after some time. */
export class RetryLaterError extends AgentDBError {
  readonly retryAfterMs: number

  constructor(code: ErrorCode, message: string, retryAfterMs: number) {
    super(code, message)
    this.retryAfterMs = retryAfterMs
  }
}

/** The wire over HTTP. */
export class HttpTransport implements Transport {
  readonly #base: URL
  readonly #token: () => string | Promise<string>

  constructor(url: string, token: string | (() => string | Promise<string>)) {
    this.#base = new URL(url.endsWith('/') ? url : `${url}/`)
    this.#token = typeof token === 'function' ? token : () => token
  }

  push(request: PushRequest, signal: AbortSignal): Promise<PushResponse> {
    const body = encodeMessage(request, MSGPACK)
    return this.#call('sync/v1/push', pushResponseSchema, {
      body,
      timeoutMs: 2 * SILENCE_MS_MAX,
      signal,
    })
  }

  pull(parameters: PullParameters, signal: AbortSignal): Promise<PullResponse> {
    const query = new URLSearchParams({
      client: parameters.clientId,
      schema: String(SCHEMA_VERSION),
      acked: String(parameters.ackedSeq),
      wait: String(parameters.waitMs),
      ...(parameters.cursor === undefined ? {} : { cursor: parameters.cursor }),
    })
    // Reading a whole scope takes its time.
    const timeoutMs =
      parameters.waitMs + (parameters.cursor === undefined ? 10 : 1) * SILENCE_MS_MAX
    return this.#call(`sync/v1/pull?${query.toString()}`, pullResponseSchema, { timeoutMs, signal })
  }

  checksum(signal: AbortSignal): Promise<ChecksumResponse> {
    return this.#call('sync/v1/checksum', checksumResponseSchema, {
      timeoutMs: 10 * SILENCE_MS_MAX,
      signal,
    })
  }

  async #call<S extends z.ZodType>(
    path: string,
    schema: S,
    options: { body?: Uint8Array; timeoutMs: number; signal: AbortSignal },
  ): Promise<z.infer<S>> {
    const response = await this.#fetch(path, options)
    const type = response.headers.get('content-type') ?? ''
    const bytes = await readBody(response)
    if (!response.ok) throw errorOf(response, type, bytes)
    if (!type.startsWith(MSGPACK)) throw notTheCentre(this.#base, response.status)
    return decodeMessage(schema, bytes, type)
  }

  async #fetch(
    path: string,
    { body, timeoutMs, signal }: { body?: Uint8Array; timeoutMs: number; signal: AbortSignal },
  ): Promise<Response> {
    const headers: Record<string, string> = {
      authorization: `Bearer ${await this.#token()}`,
      accept: MSGPACK,
      'x-agentdb-protocol': String(PROTOCOL_VERSION),
      ...(body === undefined ? {} : { 'content-type': MSGPACK }),
    }
    try {
      return await fetch(new URL(path, this.#base), {
        method: body === undefined ? 'GET' : 'POST',
        headers,
        ...(body === undefined ? {} : { body: Buffer.from(body) }),
        redirect: 'error',
        signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
      })
    } catch (error) {
      throw unreachableCentre(this.#base, error)
    }
  }
}

async function readBody(response: Response): Promise<Uint8Array> {
  const length = Number(response.headers.get('content-length') ?? 0)
  if (length > MESSAGE_BYTES_MAX * 8)
    throw new AgentDBError('TOO_LARGE', `the centre's answer has ${length} bytes`)
  try {
    return new Uint8Array(await response.arrayBuffer())
  } catch (error) {
    throw new AgentDBError(
      'UNREACHABLE',
      'the connection to the centre broke in the middle of an answer',
      { cause: error },
    )
  }
}

function errorOf(response: Response, type: string, bytes: Uint8Array): AgentDBError {
  const retryAfterMs = Number(response.headers.get('retry-after') ?? 0) * 1000
  let told: { code: string; message: string } | undefined
  try {
    told = decodeMessage(errorResponseSchema, bytes, type)
  } catch {
    return notTheCentre(new URL(response.url), response.status)
  }
  const code = (errorCodes as readonly string[]).includes(told.code)
    ? (told.code as ErrorCode)
    : 'SERVER_ERROR'
  return retryAfterMs > 0
    ? new RetryLaterError(code, told.message, retryAfterMs)
    : new AgentDBError(code, told.message)
}

const notTheCentre = (url: URL, status: number): AgentDBError =>
  new AgentDBError(
    status >= 500 ? 'UNREACHABLE' : 'PROTOCOL',
    `${url.origin} answers (${status}), but not as an AgentDB centre: check the URL`,
  )

function unreachableCentre(url: URL, error: unknown): AgentDBError {
  const cause = (error as { cause?: { code?: unknown; message?: unknown } }).cause
  const why = cause?.code ?? cause?.message ?? (error instanceof Error ? error.message : error)
  return new AgentDBError(
    'UNREACHABLE',
    `the centre at ${url.origin} cannot be reached (${preview(why)}); local work goes on`,
    { cause: error },
  )
}
