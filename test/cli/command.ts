import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { vi } from 'vitest'
import { run } from '../../server/cli/run.ts'

const root = fileURLToPath(new URL('../../', import.meta.url))

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

const configuring = new Set([
  'DATABASE_URL',
  'PORT',
  'DEBUG',
  'AGENTDB_SECRET',
  'AGENTDB_TOKEN',
  'AGENTDB_URL',
  'QDRANT_URL',
  'QDRANT_API_KEY',
  'QDRANT_PREFIX',
  'QDRANT_SHARDS',
  'QDRANT_REPLICAS',
  'QDRANT_WRITE_CONSISTENCY',
  'QDRANT_MODELS',
])

/** The environment of the tests, without what configures our programs. */
const environment = (more: Readonly<Record<string, string>>): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !configuring.has(name))),
  ...more,
})

/** A program of ours in a process of its own. */
export class Program implements AsyncDisposable {
  readonly lines: string[] = []
  readonly ended: Promise<Ended>
  readonly #process: ChildProcess
  readonly #waiting = new Set<() => void>()
  #stderr = ''
  #isOver = false

  private constructor(process: ChildProcess) {
    this.#process = process
    const { stdout, stderr } = process
    if (stdout === null || stderr === null) throw new Error('a program without pipes')
    const reader = createInterface({ input: stdout })
    reader.on('line', (line) => {
      this.lines.push(line)
      this.#wake()
    })
    stderr.on('data', (data: Buffer) => {
      this.#stderr += data.toString()
      this.#wake()
    })
    this.ended = once(process, 'close').then(([code, signal]) => {
      this.#isOver = true
      this.#wake()
      return {
        code: code as number | null,
        signal: signal as NodeJS.Signals | null,
        stdout: this.lines.join('\n'),
        stderr: this.#stderr,
      }
    })
  }

  /** Runs a script of the repository under Node with tsx; `script` is relative to the root, or absolute. */
  static start(
    script: string,
    args: readonly string[] = [],
    options: { env?: Readonly<Record<string, string>>; cwd?: string } = {},
  ): Program {
    const path = script.startsWith('/') ? script : `${root}${script}`
    return new Program(
      spawn(process.execPath, ['--import', import.meta.resolve('tsx'), path, ...args], {
        cwd: options.cwd ?? root,
        // Package names of ours lead to the sources, also from another folder.
        env: environment({ TSX_TSCONFIG_PATH: `${root}tsconfig.json`, ...options.env }),
        stdio: ['ignore', 'pipe', 'pipe'],
      }),
    )
  }

  get pid(): number {
    return this.#process.pid ?? 0
  }

  /** Resolves with the first line that matches; rejects with what was said when the program ends before. */
  async line(matches: (line: string) => boolean): Promise<string> {
    for (;;) {
      const found = this.lines.find(matches)
      if (found !== undefined) return found
      if (this.#isOver) throw new Error(`it ended without that line: ${this.#stderr.slice(-2000)}`)
      await new Promise<void>((done) => this.#waiting.add(done))
    }
  }

  /** Resolves once standard error as a whole matches. */
  async error(matches: (text: string) => boolean): Promise<void> {
    while (!matches(this.#stderr)) {
      if (this.#isOver) throw new Error(`it ended without that: ${this.#stderr.slice(-2000)}`)
      await new Promise<void>((done) => this.#waiting.add(done))
    }
  }

  signal(signal: NodeJS.Signals): void {
    this.#process.kill(signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isOver) this.#process.kill('SIGKILL')
    await this.ended
  }

  #wake(): void {
    for (const done of this.#waiting) done()
    this.#waiting.clear()
  }
}

/** Runs `agentdb` to its end. */
export async function agentdb(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Ended> {
  await using program = Program.start('server/cli/main.ts', args, { env })
  return await program.ended
}

/** The same in this process, for command lines that start nothing: twenty times as fast. */
export async function agentdbHere(args: readonly string[]): Promise<Omit<Ended, 'signal'>> {
  const said = { stdout: '', stderr: '' }
  const spies = (['stdout', 'stderr'] as const).map((stream) =>
    vi.spyOn(process[stream], 'write').mockImplementation((text) => {
      said[stream] += String(text)
      return true
    }),
  )
  try {
    const code = await run(args)
    return { code, ...said }
  } finally {
    for (const spy of spies) spy.mockRestore()
  }
}

/** The one line of JSON that `--json` prints. */
export const parsed = ({ stdout }: Pick<Ended, 'stdout'>): Record<string, unknown> =>
  JSON.parse(stdout) as Record<string, unknown>
