import { AgentDBError } from '../../schema/errors.ts'
import {
  RetryLaterError,
  type PullParameters,
  type Transport,
} from '../../sync/client/transport.ts'
import { decodeMessage, encodeMessage, MSGPACK } from '../../sync/protocol/codec.ts'
import {
  checksumResponseSchema,
  healRequestSchema,
  healResponseSchema,
  introduceRequestSchema,
  introduceResponseSchema,
  pullResponseSchema,
  pushRequestSchema,
  pushResponseSchema,
  type ChecksumResponse,
  type IntroduceRequest,
  type HealRequest,
  type HealResponse,
  type IntroduceResponse,
  type PullResponse,
  type PushRequest,
  type PushResponse,
} from '../../sync/protocol/messages.ts'
import { HEARTBEAT_MS } from '../../sync/protocol/frames.ts'
import { ownBuild, type SimBuild } from './build.ts'
import type { Claims, SimCentre } from './centre/centre.ts'
import type { Random } from './random.ts'
import type { Trace } from './trace.ts'

/** How bad the network of a run is; each a probability for one message. */
export interface Weather {
  readonly loseRequest: number
  readonly loseReply: number
  readonly duplicate: number
  readonly refuse: number
  readonly overload: number
  readonly slow: number
}

export const calm: Weather = {
  loseRequest: 0,
  loseReply: 0,
  duplicate: 0,
  refuse: 0,
  overload: 0,
  slow: 0,
}

export type LinkState = 'up' | 'refused' | 'half-open'

/** As long as `HttpTransport` waits beyond what was asked. */
const SILENCE_MS_MAX = 3 * HEARTBEAT_MS

const unreachable = (why: string): AgentDBError =>
  new AgentDBError('UNREACHABLE', `the centre cannot be reached (${why})`)

type Serve = (signal: AbortSignal) => Promise<Uint8Array>

/** Between agents and centre: delays, losses, duplicates, partitions. All by the run's randomness, in virtual time. */
export class Network {
  readonly #random: Random
  readonly #trace: Trace
  readonly #links = new Map<string, LinkState>()
  readonly centre: SimCentre
  weather: Weather = calm

  constructor(centre: SimCentre, random: Random, trace: Trace) {
    this.centre = centre
    this.#random = random
    this.#trace = trace
  }

  setLink(agent: string, state: LinkState): void {
    this.#links.set(agent, state)
  }

  heal(): void {
    this.weather = calm
    this.#links.clear()
  }

  /** One request and its answer, or what became of them. */
  call(
    agent: string,
    kind: string,
    timeoutMs: number,
    signal: AbortSignal,
    serve: Serve,
  ): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      const timers = new Set<NodeJS.Timeout>()
      const gone = new AbortController()
      const settle = (how: () => void): void => {
        for (const timer of timers) clearTimeout(timer)
        signal.removeEventListener('abort', onAbort)
        gone.abort()
        how()
      }
      const fail = (error: Error): void => settle(() => reject(error))
      const onAbort = (): void => fail(unreachable('aborted'))
      const later = (ms: number, what: () => void): void => {
        const timer = setTimeout(() => {
          timers.delete(timer)
          what()
        }, ms)
        timers.add(timer)
      }
      if (signal.aborted) return onAbort()
      signal.addEventListener('abort', onAbort)
      later(timeoutMs, () => fail(unreachable('silence')))
      const { weather } = this
      const link = this.#links.get(agent) ?? 'up'
      const random = this.#random
      if (link === 'refused' || random.chance(weather.refuse))
        return later(this.#delay(), () => fail(unreachable('refused')))
      if (link === 'half-open' || random.chance(weather.loseRequest))
        return this.#trace.add(agent, `${kind}: the request is lost`)
      if (random.chance(weather.overload))
        return later(this.#delay(), () =>
          fail(new RetryLaterError('OVERLOADED', 'too many requests at once', 2000)),
        )
      if (kind === 'push' && random.chance(weather.duplicate)) this.#deliverAgain(agent, serve)
      const isReplyLost = random.chance(weather.loseReply)
      later(this.#delay(), () => {
        const answer = serve(gone.signal)
        const back = (how: () => void): void => {
          if (isReplyLost || this.#links.get(agent) === 'half-open')
            return this.#trace.add(agent, `${kind}: the reply is lost`)
          later(this.#delay(), () => settle(how))
        }
        answer.then(
          (bytes) => back(() => resolve(bytes)),
          (error: unknown) => back(() => reject(asSent(error))),
        )
      })
    })
  }

  /**
   * A stream of batches: each is delayed, and the link may break or fall silent between any two. A silent one is noticed
   * after three heartbeats.
   */
  async *stream(
    agent: string,
    signal: AbortSignal,
    open: (signal: AbortSignal) => AsyncGenerator<Uint8Array>,
  ): AsyncGenerator<Uint8Array, void> {
    const gone = new AbortController()
    const onAbort = (): void => gone.abort()
    signal.addEventListener('abort', onAbort)
    try {
      await this.#hop(agent, gone.signal)
      const batches = open(gone.signal)
      for (;;) {
        const next = await unlessAborted(batches.next(), gone.signal).catch((error: unknown) => {
          throw asSent(error)
        })
        if (next.done === true) return
        await this.#hop(agent, gone.signal)
        yield next.value
      }
    } finally {
      signal.removeEventListener('abort', onAbort)
      gone.abort()
    }
  }

  async #hop(agent: string, signal: AbortSignal): Promise<void> {
    const link = this.#links.get(agent) ?? 'up'
    const { loseReply, refuse } = this.weather
    const isBroken = link === 'refused' || this.#random.chance(refuse)
    const isSilent = link === 'half-open' || this.#random.chance(loseReply)
    const ms = isSilent && !isBroken ? SILENCE_MS_MAX : this.#delay()
    await unlessAborted(new Promise((done) => setTimeout(done, ms)), signal)
    if (isBroken || isSilent) throw unreachable(isBroken ? 'the link broke' : 'silence')
  }

  /** The network keeps a copy of a message and delivers it once more, perhaps much later. */
  #deliverAgain(agent: string, serve: Serve): void {
    setTimeout(
      () => {
        this.#trace.add(agent, 'push: delivered once more')
        serve(new AbortController().signal).catch((error: unknown) =>
          this.#trace.add(agent, `push: the copy is answered ${String(error)}`),
        )
      },
      this.#random.longTailed(200, 60_000),
    )
  }

  #delay(): number {
    if (this.#random.chance(this.weather.slow)) return this.#random.between(1000, 20_000)
    return this.#random.longTailed(30, 500)
  }
}

/** What a promise comes to, unless the one who waits has gone. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const leave = (): void => reject(unreachable('aborted'))
    if (signal.aborted) return leave()
    signal.addEventListener('abort', leave)
    void work.then(resolve, reject).finally(() => signal.removeEventListener('abort', leave))
  })
}

/** An error as it comes off the wire. */
function asSent(error: unknown): Error {
  if (!(error instanceof AgentDBError))
    return new AgentDBError(
      'SERVER_ERROR',
      `bug: ${error instanceof Error ? (error.stack ?? '') : String(error)}`,
    )
  if (error.code === 'OVERLOADED' || error.code === 'DATABASE_UNREACHABLE')
    return new RetryLaterError(error.code, error.message, 2000)
  return new AgentDBError(error.code, error.message)
}

/** The wire of one life of an agent. Every message goes through the product's codec, both ways. */
export class SimTransport implements Transport {
  readonly #network: Network
  readonly #agent: string
  readonly #claims: Claims
  readonly #build: SimBuild
  /** Absent where this life of the agent has only single requests. */
  readonly live?: NonNullable<Transport['live']>

  constructor(
    network: Network,
    agent: string,
    claims: Claims,
    { build, hasLive }: { readonly build: SimBuild; readonly hasLive: boolean },
  ) {
    if (hasLive) this.live = (parameters, signal) => this.#follow(parameters, signal)
    this.#network = network
    this.#agent = agent
    this.#claims = claims
    this.#build = build
  }

  async push(request: PushRequest, signal: AbortSignal): Promise<PushResponse> {
    const body = encodeMessage(pushRequestSchema, request, MSGPACK)
    const answer = await this.#call('push', 2 * SILENCE_MS_MAX, signal, (gone) =>
      this.#network.centre.push(this.#claims, body, gone),
    )
    return decodeMessage(pushResponseSchema, answer, MSGPACK)
  }

  async pull(parameters: PullParameters, signal: AbortSignal): Promise<PullResponse> {
    const { version: schema } = this.#build
    const timeoutMs =
      parameters.waitMs + (parameters.cursor === undefined ? 10 : 1) * SILENCE_MS_MAX
    const answer = await this.#call('pull', timeoutMs, signal, (gone) =>
      this.#network.centre.pull(this.#claims, { ...parameters, schema }, gone),
    )
    return decodeMessage(pullResponseSchema, answer, MSGPACK)
  }

  async introduce(request: IntroduceRequest, signal: AbortSignal): Promise<IntroduceResponse> {
    const body = encodeMessage(introduceRequestSchema, request, MSGPACK)
    const answer = await this.#call('introduce', SILENCE_MS_MAX, signal, (gone) =>
      this.#network.centre.introduce(this.#claims, body, gone),
    )
    return decodeMessage(introduceResponseSchema, answer, MSGPACK)
  }

  async heal(request: HealRequest, signal: AbortSignal): Promise<HealResponse> {
    const body = encodeMessage(healRequestSchema, request, MSGPACK)
    const answer = await this.#call('heal', SILENCE_MS_MAX, signal, (gone) =>
      this.#network.centre.heal(this.#claims, body, gone),
    )
    return decodeMessage(healResponseSchema, answer, MSGPACK)
  }

  async *#follow(
    parameters: Omit<PullParameters, 'waitMs'>,
    signal: AbortSignal,
  ): AsyncGenerator<PullResponse, void> {
    const { version: schema } = this.#build
    const stream = this.#network.stream(this.#agent, signal, (gone) =>
      this.#network.centre.live(this.#claims, { ...parameters, waitMs: 0, schema }, gone),
    )
    try {
      for await (const bytes of stream) yield decodeMessage(pullResponseSchema, bytes, MSGPACK)
    } catch (error) {
      throw this.#asOwn(error)
    }
  }

  async checksum(signal: AbortSignal): Promise<ChecksumResponse> {
    const answer = await this.#call('checksum', 10 * SILENCE_MS_MAX, signal, (gone) =>
      this.#network.centre.checksum(this.#claims, this.#build.version, gone),
    )
    return decodeMessage(checksumResponseSchema, answer, MSGPACK)
  }

  #call(kind: string, timeoutMs: number, signal: AbortSignal, serve: Serve): Promise<Uint8Array> {
    const answer = this.#network.call(this.#agent, kind, timeoutMs, signal, serve)
    if (this.#build === ownBuild) return answer
    return answer.catch((error: unknown) => {
      throw this.#asOwn(error)
    })
  }

  /** The same error in the classes of the agent's build. */
  #asOwn(error: unknown): unknown {
    const { AgentDBError: Own, RetryLaterError: OwnRetry } = this.#build
    if (this.#build === ownBuild || !(error instanceof AgentDBError)) return error
    return error instanceof RetryLaterError
      ? new OwnRetry(error.code, error.message, error.retryAfterMs)
      : new Own(error.code, error.message)
  }
}
