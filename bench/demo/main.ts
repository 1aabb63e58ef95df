import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createDemoDatabase, type DemoDatabase } from './database.ts'
import { DemoFailure, Narrator } from './narrator.ts'
import { endAll } from './rpc.ts'
import { STEPS, tellStory, type Summary } from './story.ts'

/**
 * The main job of AgentDB in one command: `npm run demo`. It checks itself and ends with 1 when anything does not hold.
 */
const HELP = `npm run demo [-- --json]

Two agents of one user work offline, get in each other's way, and reconcile through one centre that is
killed with -9, as is one of them. It takes some 20 seconds and needs no configuration.

  --json        a summary as JSON in the last line
  DATABASE_URL  run on this PostgreSQL, in a database of its own that is dropped in the end
`

/** Well beyond what it takes on two slow cores. */
const DEMO_MS_MAX = 180_000

const args = process.argv.slice(2)
const json = args.includes('--json')
const unknown = args.filter((arg) => !['--json', '--help', '-h'].includes(arg))

if (unknown.length > 0) {
  process.stderr.write(`demo: there is no ${unknown.join(' ')}\n\n${HELP}`)
  process.exitCode = 2
} else if (args.length > 0 && !json) {
  process.stdout.write(HELP)
} else {
  process.exitCode = await main()
}

async function main(): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'agentdb-demo-'))
  const narrator = new Narrator(STEPS)
  let database: DemoDatabase | undefined
  const cleanUp = async (): Promise<void> => {
    await endAll()
    await database?.drop().catch(() => undefined)
    rmSync(folder, { recursive: true, force: true })
  }
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const)
    process.once(signal, () => void cleanUp().finally(() => process.exit(code)))
  try {
    narrator.title('AgentDB: two agents, offline, one centre, nothing lost')
    const { DATABASE_URL: adminUrl } = process.env
    if (adminUrl !== undefined && adminUrl !== '') database = await createDemoDatabase(adminUrl)
    const summary = await withinTime(
      tellStory({ folder, databaseUrl: database?.url, narrator }),
      DEMO_MS_MAX,
    )
    await cleanUp()
    conclude(narrator, summary)
    return 0
  } catch (error) {
    await cleanUp()
    const reason = error instanceof Error ? error.message : String(error)
    process.stderr.write(`\ndemo failed after ${narrator.elapsedMs} ms: ${reason}\n`)
    if (json)
      printJson({ ok: false, reason, elapsedMs: narrator.elapsedMs, checks: narrator.checks })
    return 1
  }
}

async function withinTime<T>(work: Promise<T>, limitMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_done, fail) => {
    const error = new DemoFailure(`it has not ended after ${limitMs / 1000} s`)
    timer = setTimeout(() => fail(error), limitMs)
  })
  return Promise.race([work, late]).finally(() => clearTimeout(timer))
}

function conclude(narrator: Narrator, summary: Summary): void {
  const { elapsedMs, checks } = narrator
  const { rows, serverKill, agentKill, checksums } = summary
  narrator.title(`All ${checks.length} checks hold, after ${(elapsedMs / 1000).toFixed(1)} s.`)
  process.stdout.write(`
    rows acknowledged    ${rows.acknowledged}, lost ${rows.lost}, twice ${rows.twice}, refused and kept ${rows.refusedAndKept}
    server killed        with ${serverKill.committed} of ${serverKill.queued} transactions committed
    agent killed         with ${agentKill.rowsWritten} rows written, ${agentKill.rowsKept} left behind
    checksums            equal on A, B and the centre: ${checksums.rows} rows in ${checksums.tables} tables
    direct SQL           on both agents in ${summary.directSqlMs} ms
`)
  if (json) printJson({ ok: true, elapsedMs, checks, ...summary })
}

function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}
