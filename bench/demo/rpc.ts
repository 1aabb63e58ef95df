import { spawn, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/**
 * Calls between the demo and its processes, over Node's IPC channel. A process answers with a table of functions; the
 * demo calls them by name, with the types of that table.
 */
// oxlint-disable-next-line typescript/no-explicit-any -- the arguments of any function
export type Handlers = Readonly<Record<string, (...args: any[]) => unknown>>

type Request = { readonly call: number; readonly name: string; readonly args: unknown[] }
type Reply = { readonly call: number; readonly value?: unknown; readonly error?: string }
type Notice = { readonly event: string; readonly data: unknown }

/** Longest that one call may take; more than the whole demo should. */
const CALL_MS_MAX = 60_000

/** In a process of the demo: answers calls until the demo is gone. */
export function answer(handlers: Handlers): void {
  process.on('message', ({ call, name, args }: Request) => {
    const handler = handlers[name]
    void Promise.resolve()
      .then(() => {
        if (handler === undefined) throw new Error(`there is no ${name}`)
        return handler(...args)
      })
      .then((value) => process.send?.({ call, value } satisfies Reply))
      .catch((error: unknown) => process.send?.({ call, error: describe(error) } satisfies Reply))
  })
  // Whatever ends the demo ends its processes.
  process.on('disconnect', () => process.exit(0))
  // Ctrl-C reaches the whole group; the demo closes its processes itself.
  process.on('SIGINT', () => undefined)
  notify('ready', process.pid)
}

/** In a process of the demo: tells the demo something. */
export function notify(event: string, data: unknown): void {
  process.send?.({ event, data } satisfies Notice)
}

function describe(error: unknown): string {
  const { code } = error as { code?: unknown }
  const message = error instanceof Error ? error.message : String(error)
  return typeof code === 'string' ? `${code}: ${message}` : message
}

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A process of the demo, seen from the demo. */
export class Child<H extends Handlers> {
  readonly name: string
  readonly exited: Promise<Exit>
  readonly #process: ChildProcess
  readonly #calls = new Map<number, { done: (value: unknown) => void; fail: (e: Error) => void }>()
  readonly #listeners = new Map<string, Set<(data: unknown) => void>>()
  #stderr = ''
  #next = 0

  private constructor(name: string, file: string) {
    this.name = name
    const path = fileURLToPath(new URL(file, import.meta.url))
    this.#process = spawn(process.execPath, ['--import', 'tsx', path], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      serialization: 'advanced',
    })
    this.#process.stderr?.on('data', (chunk: Buffer) => {
      this.#stderr = `${this.#stderr}${chunk.toString()}`.slice(-4000)
    })
    this.#process.on('message', (message: Reply | Notice) => this.#hear(message))
    this.exited = new Promise((done) => {
      this.#process.once('exit', (code, signal) => {
        const why = `${name} ended (${signal ?? code})${this.#stderr === '' ? '' : `:\n${this.#stderr}`}`
        for (const { fail } of this.#calls.values()) fail(new Error(why))
        this.#calls.clear()
        done({ code, signal })
      })
    })
  }

  /** Starts a process; `file` is relative to this folder. */
  static async start<H extends Handlers>(name: string, file: string): Promise<Child<H>> {
    const child = new Child<H>(name, file)
    running.add(child)
    void child.exited.then(() => running.delete(child))
    await Promise.race([
      child.once('ready'),
      child.exited.then(() => {
        throw new Error(`${name} did not start:\n${child.#stderr}`)
      }),
    ])
    return child
  }

  get pid(): number {
    return this.#process.pid ?? 0
  }

  call<K extends keyof H & string>(
    name: K,
    ...args: Parameters<H[K]>
  ): Promise<Awaited<ReturnType<H[K]>>> {
    const call = this.#next++
    return new Promise((done, fail) => {
      const timer = setTimeout(
        () => fail(new Error(`${this.name} does not answer ${name} for ${CALL_MS_MAX / 1000} s`)),
        CALL_MS_MAX,
      )
      const settle = <T>(finish: (value: T) => void) => {
        return (value: T): void => {
          clearTimeout(timer)
          this.#calls.delete(call)
          finish(value)
        }
      }
      this.#calls.set(call, { done: settle(done as (value: unknown) => void), fail: settle(fail) })
      if (this.#process.connected) this.#process.send({ call, name, args } satisfies Request)
      else this.#calls.get(call)?.fail(new Error(`${this.name} is gone`))
    })
  }

  /** Returns a function that stops listening. */
  on<T>(event: string, listener: (data: T) => void): () => void {
    const listeners = this.#listeners.get(event) ?? new Set()
    this.#listeners.set(event, listeners)
    listeners.add(listener as (data: unknown) => void)
    return () => listeners.delete(listener as (data: unknown) => void)
  }

  once(event: string): Promise<unknown> {
    return new Promise((done) => {
      const stop = this.on(event, (data) => {
        stop()
        done(data)
      })
    })
  }

  kill(signal: NodeJS.Signals): void {
    this.#process.kill(signal)
  }

  #hear(message: Reply | Notice): void {
    if ('event' in message) {
      for (const listener of this.#listeners.get(message.event) ?? []) listener(message.data)
      return
    }
    const waiting = this.#calls.get(message.call)
    if (message.error === undefined) waiting?.done(message.value)
    else waiting?.fail(new Error(`${this.name}: ${message.error}`))
  }
}

const running = new Set<{ kill(signal: NodeJS.Signals): void; exited: Promise<Exit> }>()

/** Ends every process that is left. */
export async function endAll(): Promise<void> {
  const left = [...running]
  for (const child of left) child.kill('SIGKILL')
  await Promise.all(left.map(({ exited }) => exited))
}
