import { execFileSync, spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs'
import { createRequire } from 'node:module'
import { cpus } from 'node:os'
import { dirname, join } from 'node:path'
import { createInterface, type Interface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { RemoteContender } from '../support/measure.ts'
import { isMissing, type Missing, type PeerPlaces } from './missing.ts'

const source = fileURLToPath(new URL('hnswlib/hnswlib-peer.cpp', import.meta.url))
const buildFolder = fileURLToPath(new URL('build/', import.meta.url))
const flags = ['-O3', '-march=native', '-DNDEBUG', '-std=c++17', '-pthread']

/** The program of `hnswlib/hnswlib-peer.cpp`, which is hnswlib as C++ has it, without Node between. */
export class HnswlibProcess implements AsyncDisposable {
  readonly #process: ChildProcessWithoutNullStreams
  readonly #lines: Interface
  readonly #answers: AsyncIterator<string>
  readonly #exited: Promise<void>

  private constructor(program: string) {
    this.#process = spawn(program, [], { stdio: ['pipe', 'pipe', 'pipe'] })
    this.#process.stderr.pipe(process.stderr)
    // A write to a program that ended is reported by the answer that does not come.
    this.#process.stdin.on('error', () => undefined)
    this.#exited = new Promise((done) => this.#process.once('close', () => done()))
    this.#lines = createInterface({ input: this.#process.stdout })
    this.#answers = this.#lines[Symbol.asyncIterator]()
  }

  /** Where the program is; compiled first, if need be. */
  static program({ compiler }: PeerPlaces = {}): string | Missing {
    return compile(compiler)
  }

  /** Says what is missing where it cannot. */
  static start(places?: PeerPlaces): HnswlibProcess | Missing {
    const program = HnswlibProcess.program(places)
    return isMissing(program) ? program : new HnswlibProcess(program)
  }

  /** Time of building alone, reading the file not counted, and the memory it grew by. */
  async build(
    file: string,
    settings: { dimension: number; m: number; efConstruct: number; room: number },
  ): Promise<{ readonly ms: number; readonly bytes: number }> {
    const { dimension, m, efConstruct, room } = settings
    const [ns = 0, bytes = 0] = await this.#numbers(
      `build ${dimension} ${m} ${efConstruct} ${room} ${file}`,
      'built',
    )
    return { ms: ns / 1e6, bytes: Math.max(1, bytes) }
  }

  async probes(file: string): Promise<void> {
    await this.#ask(`probes ${file}`, 'probes')
  }

  async fresh(file: string): Promise<void> {
    await this.#ask(`fresh ${file}`, 'fresh')
  }

  /** The rows that are nearest to each probe. */
  async find(k: number, ef: number): Promise<number[][]> {
    const answer = await this.#ask(`find ${ef} ${k}`, 'found')
    return answer.split(';').map((labels) => labels.trim().split(' ').map(Number))
  }

  query(k: number, ef: number): RemoteContender {
    return this.#contender((from, count) => `query ${ef} ${k} ${from} ${count}`)
  }

  add(): RemoteContender {
    return this.#contender((from, count) => `add ${from} ${count}`)
  }

  delete(): RemoteContender {
    return this.#contender((from, count) => `delete ${from} ${count}`)
  }

  /** Saves and loads once a round. */
  save(file: string): RemoteContender {
    return this.#contender(() => `save ${file}`)
  }

  load(file: string): RemoteContender {
    return this.#contender(() => `load ${file}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#process.stdin.end()
    await this.#exited
    this.#lines.close()
  }

  #contender(command: (from: number, count: number) => string): RemoteContender {
    return {
      round: async (from, count) =>
        (await this.#numbers(command(from, count), 'times')).map((ns) => ns / 1e6),
    }
  }

  async #numbers(line: string, kind: string): Promise<number[]> {
    return (await this.#ask(line, kind)).split(' ').map(Number)
  }

  /** What follows `kind` in its answer. */
  async #ask(line: string, kind: string): Promise<string> {
    this.#process.stdin.write(`${line}\n`)
    const { value, done } = await this.#answers.next()
    if (done === true) throw new Error(`hnswlib in C++ ended at ${JSON.stringify(line)}`)
    if (!value.startsWith(`${kind} `))
      throw new Error(`hnswlib in C++ said ${JSON.stringify(value)} to ${JSON.stringify(line)}`)
    return value.slice(kind.length + 1)
  }
}

/** The program, from an earlier compilation if nothing that goes into it has changed. */
function compile(compiler = process.env['CXX'] ?? 'g++'): string | Missing {
  const headers = headerFolder()
  if (headers === undefined)
    return { missing: 'the headers come with hnswlib-node, which is not installed: npm install' }
  let version: string
  try {
    version = execFileSync(compiler, ['--version'], { encoding: 'utf8' })
  } catch {
    return {
      missing: `${compiler} cannot be run: install a C++ compiler (apt-get install g++), or name one in CXX`,
    }
  }
  const parts = [source, ...readdirSync(headers).map((name) => join(headers, name))]
  const hash = createHash('sha256')
  for (const part of [version, flags.join(' '), cpus()[0]?.model ?? '']) hash.update(`${part}\0`)
  for (const part of parts) hash.update(readFileSync(part))
  const program = join(buildFolder, `hnswlib-${hash.digest('hex').slice(0, 16)}`)
  if (existsSync(program)) return program
  mkdirSync(buildFolder, { recursive: true })
  const unfinished = `${program}.${process.pid}`
  execFileSync(compiler, [...flags, '-I', headers, '-o', unfinished, source], { stdio: 'inherit' })
  renameSync(unfinished, program)
  return program
}

function headerFolder(): string | undefined {
  try {
    const main = createRequire(import.meta.url).resolve('hnswlib-node/package.json')
    return join(dirname(main), 'src', 'hnswlib')
  } catch {
    return undefined
  }
}
