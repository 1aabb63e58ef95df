import { spawn } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import { makeNextSimulator, thisBuild } from '../support/next-build.ts'
import { loadBuild } from './build.ts'
import { runSeed, scratch, type RunResult } from './simulation.ts'

/** Lines of the trace that are shown of a run that failed. */
const LINES_SHOWN = 40
const STEPS = 100

interface Options {
  readonly seeds: number
  readonly from: number
  readonly seed?: number
  readonly steps: number
  readonly trace?: boolean
  readonly json?: boolean
  readonly keepGoing?: boolean
  readonly skew?: boolean
  readonly older?: string
}

function whole(text: string): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value))
    throw new InvalidArgumentError('It must be a whole number')
  return value
}

const program = new Command('sim')
  .description(
    'Runs agents, a network and a centre in virtual time, each run decided by its seed, and checks every invariant.',
  )
  .option('--seeds <n>', 'how many seeds to run', whole, 100)
  .option('--from <n>', 'the first of them', whole, 1)
  .option('--seed <n>', 'replay this one, with its trace', whole)
  .option('--steps <n>', 'steps of a run before all is healed', whole, STEPS)
  .option('--trace', 'print every step as it happens')
  .option('--keep-going', 'go on after a failure')
  .option('--json', 'one line of JSON at the end, for machines')
  .option(
    '--skew',
    'agents of this version meet a centre and agents of the next, and are upgraded as it runs',
  )
  // What --skew starts in the next version: where the build of the version before is.
  .addOption(new Option('--older <folder>').hideHelp())
  .addHelpText(
    'after',
    `
Examples:
  npm run sim -- --seeds 1000            runs seeds 1 to 1000, stops at the first that fails
  npm run sim -- --seed 17               replays seed 17 and shows what happened
  npm run sim -- --from 5000 --seeds 20000 --keep-going --json
                                         a long run: every failure, one line of JSON
  npm run sim -- --skew --seeds 200      versions meet: the next one is made of this source first
A run is decided by its seed, --steps and --skew: give them all to see the same again. docs/simulator.md says what is checked.`,
  )
  .showHelpAfterError('(see --help)')
  .exitOverride((error) => process.exit(error.exitCode === 0 ? 0 : 2))

interface Tally {
  done: number
  commits: number
  statements: number
  virtualMs: number
  readonly failures: RunResult[]
}

const seconds = (since: bigint): number => Number(process.hrtime.bigint() - since) / 1e9

function replay({ seed, steps, isSkewed }: RunResult): string {
  const skew = isSkewed ? ' --skew' : ''
  return `npm run sim -- --seed ${seed}${steps === STEPS ? '' : ` --steps ${steps}`}${skew}`
}

function tellFailure(result: RunResult): void {
  const { failure, seed, trace } = result
  if (failure === undefined) return
  const place = failure.step < result.steps ? `at step ${failure.step}` : 'after the last step'
  process.stderr.write(
    `\nseed ${seed} fails ${place}: ${failure.invariant}: ${failure.message}\n\n${trace.slice(-LINES_SHOWN).join('\n')}\n\nreplay it: ${replay(result)}\n`,
  )
}

function summary(tally: Tally, took: number): string {
  const { done, failures, commits, statements, virtualMs } = tally
  const rate = (done / Math.max(took, 0.001)).toFixed(1)
  return (
    `${done} seeds in ${took.toFixed(1)} s (${rate} a second): ${(virtualMs / 3_600_000).toFixed(1)} hours of virtual time, ` +
    `${commits} commits at the centre, ${statements} SQLite statements; ${failures.length === 0 ? 'no failure' : `${failures.length} failed`}`
  )
}

/** Makes the next version of this source and runs the same command there, with this build as the one before. */
async function runSkewed(): Promise<number> {
  const folder = scratch()
  try {
    const { root } = makeNextSimulator(folder)
    const args = ['--import', 'tsx', join(root, 'test/sim/main.ts'), ...process.argv.slice(2)]
    // The keyboard interrupts both; the one below tells what it did until then.
    process.on('SIGINT', () => undefined)
    const child = spawn(process.execPath, [...args, '--older', thisBuild.root], {
      cwd: root,
      stdio: 'inherit',
    })
    return await new Promise((done, fail) => {
      child.once('error', fail)
      child.once('exit', (code) => done(code ?? 1))
    })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

async function main(): Promise<number> {
  const options = program.parse().opts<Options>()
  if (options.skew === true && options.older === undefined) return runSkewed()
  const older = options.older === undefined ? undefined : await loadBuild(options.older)
  const only = options.seed
  const from = only ?? options.from
  const seeds = only === undefined ? options.seeds : 1
  const shows = options.trace === true || (only !== undefined && options.json !== true)
  const onLine = shows ? (line: string): void => void process.stdout.write(`${line}\n`) : undefined
  const tally: Tally = { done: 0, commits: 0, statements: 0, virtualMs: 0, failures: [] }
  const started = process.hrtime.bigint()
  const interrupted = new AbortController()
  process.once('SIGINT', () => {
    interrupted.abort()
    process.once('SIGINT', () => process.exit(130))
  })
  const hasProgress = process.stderr.isTTY && !shows
  for (let seed = from; seed < from + seeds && !interrupted.signal.aborted; seed++) {
    const result = await runSeed({ seed, steps: options.steps, onLine, older })
    tally.done += 1
    tally.commits += result.commits
    tally.statements += result.statements
    tally.virtualMs += result.virtualMs
    if (result.failure !== undefined) {
      tally.failures.push(result)
      if (options.json !== true) tellFailure(result)
      if (options.keepGoing !== true) break
    }
    if (hasProgress) {
      const rate = (tally.done / seconds(started)).toFixed(1)
      process.stderr.write(`\r${tally.done} of ${seeds} seeds, ${rate} a second `)
    }
    if (only !== undefined && shows && result.failure === undefined)
      process.stdout.write(`the trace's hash is ${result.digest}\n`)
  }
  if (hasProgress) process.stderr.write('\n')
  report(options, tally, seconds(started))
  return tally.failures.length > 0 ? 1 : interrupted.signal.aborted ? 130 : 0
}

function report({ json }: Options, tally: Tally, took: number): void {
  if (json !== true) return void process.stdout.write(`${summary(tally, took)}\n`)
  const failures = tally.failures.map((result) => ({
    seed: result.seed,
    ...result.failure,
    replay: replay(result),
  }))
  const { done, commits, statements, virtualMs } = tally
  process.stdout.write(
    `${JSON.stringify({ seeds: done, seconds: took, virtualMs, commits, statements, failures })}\n`,
  )
}

process.exitCode = await main()
