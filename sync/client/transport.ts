import type { z } from 'zod'
import { AgentDBError, errorCodes, preview, type ErrorCode } from '../../schema/errors.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import { decodeMessage, encodeMessage, MSGPACK } from '../protocol/codec.ts'
import {
  checksumResponseSchema,
  errorResponseSchema,
  pullResponseSchema,
  pushRequestSchema,
  pushResponseSchema,
  healRequestSchema,
  healResponseSchema,
  introduceRequestSchema,
  introduceResponseSchema,
  type ChecksumResponse,
  type HealRequest,
  type HealResponse,
  type IntroduceRequest,
  type IntroduceResponse,
  type PullResponse,
  type PushRequest,
  type PushResponse,
} from '../protocol/messages.ts'
import { ACCEPT_HEADER, chooseEncoding, encodings, type Encoding } from '../protocol/encodings.ts'
import { FrameKind, FrameReader, HEARTBEAT_MS, STREAM, type Frame } from '../protocol/frames.ts'
import { PROTOCOL_VERSION } from '../protocol/version.ts'
import { compressBody, inflate, isLoopback, readBody } from './wire-bytes.ts'

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
  /** Tells the centre what a store was before it forked. */
  introduce(request: IntroduceRequest, signal: AbortSignal): Promise<IntroduceResponse>
  /** Asks what to do where the store has seen more than the centre has. */
  heal(request: HealRequest, signal: AbortSignal): Promise<HealResponse>
  /**
   * Batches as they come, over one connection. Ends when the centre ends it, throws when the link breaks or falls
   * silent, and throws {@link LiveUnavailableError} where something between here and the centre does not let a stream
   * through. Absent where there are only single requests.
   */
  live?(
    parameters: Omit<PullParameters, 'waitMs'>,
    signal: AbortSignal,
  ): AsyncGenerator<PullResponse, void>
}

/** No stream gets through; single requests may. */
export class LiveUnavailableError extends AgentDBError {
  constructor(message: string) {
    super('UNREACHABLE', message)
  }
}

/** Three heartbeats. */
const SILENCE_MS_MAX = 3 * HEARTBEAT_MS

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
  readonly #silenceMs: number
  /** How answers may be compressed, the best first. */
  readonly #encodings: readonly Encoding[]
  /** How the centre said that requests may be. */
  #accepted: Encoding | undefined

  /**
   * `silenceMs`: how long the centre may be silent beyond what was asked; a half-open link ends here. `compress`: whether
   * messages are compressed both ways. Default: unless the centre is on this machine.
   */
  constructor(
    url: string,
    token: string | (() => string | Promise<string>),
    {
      silenceMs = SILENCE_MS_MAX,
      compress,
    }: { readonly silenceMs?: number; readonly compress?: boolean } = {},
  ) {
    this.#silenceMs = silenceMs
    this.#base = new URL(url.endsWith('/') ? url : `${url}/`)
    this.#encodings = (compress ?? !isLoopback(this.#base)) ? encodings : []
    this.#token = typeof token === 'function' ? token : () => token
  }

  push(request: PushRequest, signal: AbortSignal): Promise<PushResponse> {
    const body = encodeMessage(pushRequestSchema, request, MSGPACK)
    return this.#call('sync/v1/push', pushResponseSchema, {
      body,
      timeoutMs: 2 * this.#silenceMs,
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
      parameters.waitMs + (parameters.cursor === undefined ? 10 : 1) * this.#silenceMs
    return this.#call(`sync/v1/pull?${query.toString()}`, pullResponseSchema, { timeoutMs, signal })
  }

  checksum(signal: AbortSignal): Promise<ChecksumResponse> {
    return this.#call(`sync/v1/checksum?schema=${SCHEMA_VERSION}`, checksumResponseSchema, {
      timeoutMs: 10 * this.#silenceMs,
      signal,
    })
  }

  introduce(request: IntroduceRequest, signal: AbortSignal): Promise<IntroduceResponse> {
    return this.#call('sync/v1/introduce', introduceResponseSchema, {
      body: encodeMessage(introduceRequestSchema, request, MSGPACK),
      timeoutMs: this.#silenceMs,
      signal,
    })
  }

  heal(request: HealRequest, signal: AbortSignal): Promise<HealResponse> {
    return this.#call('sync/v1/heal', healResponseSchema, {
      body: encodeMessage(healRequestSchema, request, MSGPACK),
      timeoutMs: this.#silenceMs,
      signal,
    })
  }

  async *live(
    { clientId, cursor, ackedSeq }: Omit<PullParameters, 'waitMs'>,
    signal: AbortSignal,
  ): AsyncGenerator<PullResponse, void> {
    const [encoding] = this.#encodings
    const query = new URLSearchParams({
      client: clientId,
      schema: String(SCHEMA_VERSION),
      acked: String(ackedSeq),
      ...(cursor === undefined ? {} : { cursor }),
      ...(encoding === undefined ? {} : { encoding }),
    })
    // The whole scope may take its time; news and heartbeats come at least as often as agreed.
    const watch = new SilenceWatch((cursor === undefined ? 10 : 1) * this.#silenceMs)
    try {
      const response = await this.#fetch(`sync/v1/live?${query.toString()}`, {
        accept: `${STREAM}, ${MSGPACK}`,
        signal: AbortSignal.any([signal, watch.signal]),
      })
      const type = response.headers.get('content-type') ?? ''
      if (response.status === 404 || response.status === 405 || response.status === 501)
        throw new LiveUnavailableError(
          `${this.#base.origin} has no live stream (${response.status})`,
        )
      if (!response.ok) throw errorOf(response, type, await readBody(response))
      if (!type.startsWith(STREAM) || response.body === null)
        throw notTheCentre(this.#base, response.status)
      const frames = new FrameReader()
      for await (const piece of response.body as unknown as AsyncIterable<Uint8Array>) {
        watch.heard()
        for (const frame of frames.read(piece)) {
          if (frame.kind === FrameKind.error)
            throw toldError(await payloadOf(frame, encoding), MSGPACK, 0)
          if (frame.kind === FrameKind.batch)
            yield decodeMessage(pullResponseSchema, await payloadOf(frame, encoding), MSGPACK)
          // What the program does with a batch is not the centre's silence.
          watch.heard()
        }
      }
    } catch (error) {
      if (error instanceof AgentDBError) throw error
      throw unreachableCentre(this.#base, error)
    } finally {
      watch.stop()
    }
  }

  async #call<S extends z.ZodType>(
    path: string,
    schema: S,
    options: { body?: Uint8Array; timeoutMs: number; signal: AbortSignal },
  ): Promise<z.infer<S>> {
    const { signal, timeoutMs, body } = options
    const response = await this.#fetch(path, {
      ...(body === undefined ? {} : { body }),
      accept: MSGPACK,
      signal: AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]),
    })
    const type = response.headers.get('content-type') ?? ''
    const bytes = await readBody(response)
    if (!response.ok) throw errorOf(response, type, bytes)
    if (!type.startsWith(MSGPACK)) throw notTheCentre(this.#base, response.status)
    return decodeMessage(schema, bytes, type)
  }

  async #fetch(
    path: string,
    { body, accept, signal }: { body?: Uint8Array; accept: string; signal: AbortSignal },
  ): Promise<Response> {
    const { bytes, headers: more } =
      body === undefined
        ? { bytes: undefined, headers: {} }
        : await compressBody(body, this.#accepted)
    const headers: Record<string, string> = {
      ...more,
      // Said also when it is none: left out, fetch would ask for what it reads.
      'accept-encoding': this.#encodings.length === 0 ? 'identity' : this.#encodings.join(', '),
      authorization: `Bearer ${await this.#token()}`,
      accept,
      'x-agentdb-protocol': String(PROTOCOL_VERSION),
      ...(body === undefined ? {} : { 'content-type': MSGPACK }),
    }
    try {
      const response = await fetch(new URL(path, this.#base), {
        method: bytes === undefined ? 'GET' : 'POST',
        headers,
        ...(bytes === undefined ? {} : { body: Buffer.from(bytes) }),
        redirect: 'error',
        signal,
      })
      if (this.#encodings.length > 0)
        this.#accepted = chooseEncoding(response.headers.get(ACCEPT_HEADER))
      return response
    } catch (error) {
      throw unreachableCentre(this.#base, error)
    }
  }
}

/** A centre that compresses what it was not asked to is none of ours. */
async function payloadOf(frame: Frame, encoding: Encoding | undefined): Promise<Uint8Array> {
  if (!frame.isCompressed) return frame.payload
  if (encoding === undefined)
    throw new AgentDBError('PROTOCOL', 'frame: is compressed, which was not asked for')
  return inflate(frame.payload, encoding)
}

/** Aborts when nothing was heard for as long as `ms`. */
class SilenceWatch {
  readonly #abort = new AbortController()
  readonly #timer: NodeJS.Timeout

  constructor(ms: number) {
    this.#timer = setTimeout(() => {
      this.#abort.abort(new Error(`nothing was heard for ${ms} ms`))
    }, ms)
  }

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  heard(): void {
    this.#timer.refresh()
  }

  stop(): void {
    clearTimeout(this.#timer)
  }
}

function errorOf(response: Response, type: string, bytes: Uint8Array): AgentDBError {
  const retryAfterMs = Number(response.headers.get('retry-after') ?? 0) * 1000
  try {
    return toldError(bytes, type, retryAfterMs)
  } catch {
    return notTheCentre(new URL(response.url), response.status)
  }
}

/** The error that the centre tells; throws where it does not speak our language. */
function toldError(bytes: Uint8Array, type: string, retryAfterMs: number): AgentDBError {
  const told = decodeMessage(errorResponseSchema, bytes, type)
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
