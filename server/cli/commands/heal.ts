import { InvalidArgumentError, Option, type Command } from 'commander'
import { decide, HEALING_DAYS, report, type Decision, type ForkReport } from '../../sync/heal.ts'
import { withCentre } from '../centre.ts'
import { addCentreOptions, centreOf, jsonOption } from '../options.ts'
import { plural, print, printJson, table } from '../output.ts'

interface HealOptions {
  readonly all?: true
  readonly after?: number
  readonly none?: true
  readonly report?: true
  readonly window: number
  readonly json?: true
}

export function registerHeal(root: Command): void {
  addCentreOptions(
    root
      .command('heal')
      .description('After the centre was restored: decide what agents bring back of what it lost.'),
  )
    .option('--all', 'everything that agents had got acknowledged')
    .addOption(
      new Option('--after <time>', 'only what was written after a moment, as 2026-11-20T09:30:00Z')
        .argParser(moment)
        .conflicts(['all', 'none']),
    )
    .addOption(new Option('--none', 'nothing: the restore was meant to undo it').conflicts('all'))
    .option('--report', 'what came back from whom')
    .addOption(
      new Option('--window <days>', 'for how long agents that come later may still bring theirs')
        .argParser(days)
        .default(HEALING_DAYS),
    )
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Agents notice by themselves that the centre has less than they have seen, and wait for a decision. Without one of
--all, --after and --none, it says what waits. What is not brought back stays in the agents' stores: agentdb conflicts.
It writes to the database itself. PGlite lets one process in: stop agentdb serve first.

Examples:
  $ agentdb heal
  $ agentdb heal --all --database-url postgres://agentdb@db/agentdb
  $ agentdb heal --after 2026-11-20T09:30:00Z
  $ agentdb heal --report --json`,
    )
    .action(async (options: HealOptions, command: Command) => {
      const decision = decisionOf(options)
      const result = await withCentre(centreOf(command), async ({ database }) => {
        const decided =
          decision === undefined
            ? []
            : await decide(database, {
                decision,
                after: options.after ?? null,
                days: options.window,
              })
        return { decided, forks: await report(database) }
      })
      if (options.json === true) return printJson(result)
      if (decision !== undefined)
        print(
          result.decided.length === 0
            ? 'nothing waits for a decision'
            : `${plural(result.decided.length, 'fork')} decided: ${decision}; agents do it when they next sync`,
        )
      print(text(result.forks, options.report === true))
    })
}

function decisionOf({ all, after, none }: HealOptions): Decision | undefined {
  if (all === true) return 'all'
  if (after !== undefined) return 'after'
  return none === true ? 'none' : undefined
}

function moment(value: string): number {
  const ms = Date.parse(value)
  if (Number.isNaN(ms)) throw new InvalidArgumentError('Write it like 2026-11-20T09:30:00Z')
  return ms * 1000
}

function days(value: string): number {
  const count = Number(value)
  if (!(Number.isInteger(count) && count >= 1 && count <= 365))
    throw new InvalidArgumentError('It must be 1 to 365')
  return count
}

function text(forks: readonly ForkReport[], withClients: boolean): string {
  if (forks.length === 0) return 'no agent has noticed that this centre went back'
  return forks
    .map((fork) =>
      [
        table([
          ['fork', fork.fork],
          ['common', `up to position ${fork.commonPosition}`],
          ['noticed', fork.noticedAt],
          [
            'decision',
            fork.decision === null
              ? 'none yet: agentdb heal --all | --after TIME | --none'
              : `${fork.decision}, ${fork.decidedAt ?? ''}; open until ${fork.openUntil ?? ''}`,
          ],
          ['agents', plural(fork.clients.length, 'agent')],
        ]),
        ...(withClients ? fork.clients.map(clientText) : []),
      ].join('\n'),
    )
    .join('\n\n')
}

const clientText = (client: ForkReport['clients'][number]): string =>
  `    ${client.email ?? 'a deleted user'} ${client.agentId}: ${plural(client.offered, 'transaction')} offered, ${client.broughtBack} brought back, ${client.alreadyThere} already there, ${client.refused} refused, ${client.parked} parked, ${client.withheld} withheld`
