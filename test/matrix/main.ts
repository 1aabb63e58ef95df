/** The partition matrix of jepsen-powersync, on AgentDB: `npm run matrix -- --help`. */
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { startPostgres } from '../support/postgres-server.ts'
import { seededRandom } from '../../bench/support/random.ts'
import { faults, runCell, type CellResult, type MatrixFault } from './cell.ts'

const help = `Runs agents, sync server and PostgreSQL as real processes, breaks them, and judges what every agent saw.

  npm run matrix -- [options]

  --agents 5,10          numbers of agents
  --rates 10,20,30,40    transactions a second, all agents together
  --faults ${faults.join(',')}
  --seconds 20           how long each cell is worked and broken
  --seed 1               draws who is hit and when; processes make no run equal another
  --json FILE            writes the results there
  --help

Ends with 0 when no cell has an error.

Examples:
  npm run matrix
  npm run matrix -- --agents 5 --rates 10 --faults partition --seconds 60`

const { values } = parseArgs({
  options: {
    agents: { type: 'string', default: '5,10' },
    rates: { type: 'string', default: '10,20,30,40' },
    faults: { type: 'string', default: faults.join(',') },
    seconds: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    json: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})

const numbers = (name: string, text: string): number[] =>
  text.split(',').map((part) => {
    const value = Number(part)
    if (!(Number.isFinite(value) && value > 0)) fail(`--${name}: ${part} is not a number above 0`)
    return value
  })

function fail(message: string): never {
  process.stderr.write(`${message}\n`)
  process.exit(2)
}

async function main(): Promise<void> {
  if (values.help) return void process.stdout.write(`${help}\n`)
  const wanted = values.faults.split(',')
  const unknown = wanted.find((name) => !(faults as readonly string[]).includes(name))
  if (unknown !== undefined)
    fail(`--faults: there is no ${unknown}; there are ${faults.join(', ')}`)
  const cells = numbers('agents', values.agents).flatMap((agents) =>
    numbers('rates', values.rates).flatMap((rate) =>
      wanted.map((fault) => ({ agents, rate, fault: fault as MatrixFault })),
    ),
  )
  const [seconds = 20] = numbers('seconds', values.seconds)
  const random = seededRandom(Number(values.seed))
  await using postgres = await startPostgres()
  const results: CellResult[] = []
  process.stdout.write(
    '| agents | tx/s | fault | transactions | faults | converged after | errors |\n',
  )
  process.stdout.write('|---|---|---|---|---|---|---|\n')
  for (const cell of cells) {
    const result = await runCell({ ...cell, seconds, random, postgresUrl: postgres.url })
    results.push(result)
    process.stdout.write(`${row(result)}\n`)
    for (const violation of result.violations.slice(0, 10)) process.stderr.write(`  ${violation}\n`)
    if (values.json !== undefined)
      writeFileSync(values.json, `${JSON.stringify(results, undefined, 2)}\n`)
  }
  const errors = results.reduce((sum, { violations }) => sum + violations.length, 0)
  const transactions = results.reduce((sum, result) => sum + result.transactions, 0)
  process.stdout.write(
    `\n${results.length} cells, ${transactions} transactions, ${errors} errors\n`,
  )
  process.exitCode = errors === 0 ? 0 : 1
}

const row = ({
  agents,
  rate,
  fault,
  transactions,
  faults: count,
  convergedMs,
  violations,
}: CellResult): string =>
  `| ${agents} | ${rate} | ${fault} | ${transactions} | ${count} | ${(convergedMs / 1000).toFixed(1)} s | ${violations.length} |`

await main()
// Sockets of agents that were killed in the middle of a request may linger.
process.exit()
