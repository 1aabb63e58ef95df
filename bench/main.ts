import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { describeMachine } from './report/machine.ts'
import type { BenchRow } from './report/row.ts'
import { drawPictures } from './report/svg.ts'
import { renderTable } from './report/table.ts'
import { openPostgres } from './support/postgres.ts'
import { workloads } from './workloads/all.ts'
import type { BenchContext, Size, Workload } from './workloads/workload.ts'

const latest = fileURLToPath(new URL('results/latest.json', import.meta.url))

const help = `usage: npm run bench -- [options]

  --only NAME   run one bench; may be given several times
  --quick       fewer rows and rounds: a look, not a figure to quote
  --json        print the result as JSON instead of a table
  --out FILE    write the JSON there. Default: bench/results/latest.json
  --draw FILE   run nothing: draw the curves of vectors of a result, as SVG beside it; several give one set of curves
  --help        this

benches:
${workloads.map(({ name, claim, onlyWhenNamed = false }) => `  ${name.padEnd(15)} ${claim}${onlyWhenNamed ? ' (only when named)' : ''}`).join('\n')}

Each row states a ratio against something measured in the same run, interleaved with it: absolute times differ by
machine. PostgreSQL: the one of DATABASE_URL, else one that is started for the run; without either its rows are skipped
and say so. Peers of the vector benches: hnswlib in C++ is compiled with g++, or what CXX names; sqlite-vec and LanceDB are
installed by npm ci --prefix bench/peers. What is missing has rows that say so. Exit code 0 when the benches ran, whether targets are met or not; the table says which.`

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true, default: [] },
      quick: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
      out: { type: 'string', default: latest },
      draw: { type: 'string', multiple: true, default: [] },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) return console.log(help)
  const [firstResult] = values.draw
  if (firstResult !== undefined) return drawAll(values.draw, dirname(firstResult))
  const chosen = choose(values.only)
  const size: Size = values.quick ? 'quick' : 'full'
  const startedAt = new Date().toISOString()
  const machine = describeMachine()
  const { rows, postgres } = await runAll(chosen, size)
  const result = { startedAt, size, machine, postgres, rows }
  mkdirSync(dirname(values.out), { recursive: true })
  writeFileSync(values.out, `${JSON.stringify(result, undefined, 2)}\n`)
  if (values.json) return console.log(JSON.stringify(result, undefined, 2))
  console.log(renderTable(rows))
  console.log(`\n${machine.cpu}, ${machine.cores} cores, Node ${machine.node}; ${postgres}`)
  console.log(`written to ${relative(process.cwd(), values.out)}`)
}

function choose(only: readonly string[]): readonly Workload[] {
  const unknown = only.find((name) => !workloads.some((workload) => workload.name === name))
  if (unknown !== undefined) {
    const names = workloads.map(({ name }) => name).join(', ')
    throw new TypeError(`there is no bench ${JSON.stringify(unknown)}; there are ${names}`)
  }
  return workloads.filter(({ name, onlyWhenNamed = false }) =>
    only.length === 0 ? !onlyWhenNamed : only.includes(name),
  )
}

function drawAll(files: readonly string[], folder: string): void {
  const rows = files.flatMap((file) => {
    const result = JSON.parse(readFileSync(file, 'utf8')) as { rows?: BenchRow[] } | null
    if (!Array.isArray(result?.rows))
      throw new TypeError(`${file} is no result: npm run bench -- --out FILE writes one`)
    return result.rows
  })
  const points = rows.flatMap((row) => (row.kind === 'measured' ? (row.points ?? []) : []))
  const pictures = drawPictures(points)
  if (pictures.length === 0)
    throw new TypeError('nothing to draw: a curve needs a vector bench of two sizes, or a graph')
  for (const { file, svg } of pictures) {
    writeFileSync(join(folder, file), svg)
    console.log(`written to ${relative(process.cwd(), join(folder, file))}`)
  }
}

async function runAll(
  chosen: readonly Workload[],
  size: Size,
): Promise<{ rows: BenchRow[]; postgres: string }> {
  if (!chosen.some(({ needsPostgres }) => needsPostgres)) {
    const none: BenchContext = { postgres: { missing: 'not asked for' } }
    return { rows: await runEach(chosen, size, none), postgres: 'no PostgreSQL was needed' }
  }
  await using postgres = await openPostgres()
  return { rows: await runEach(chosen, size, postgres), postgres: postgres.description }
}

async function runEach(
  chosen: readonly Workload[],
  size: Size,
  context: BenchContext,
): Promise<BenchRow[]> {
  const rows: BenchRow[] = []
  for (const workload of chosen) {
    // On stderr, so that --json stays JSON.
    console.error(`${workload.name}: ${workload.claim}`)
    rows.push(...(await workload.run(size, context)))
  }
  return rows
}

try {
  await main()
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error))
  process.exitCode = 1
}
