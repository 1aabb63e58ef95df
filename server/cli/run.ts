import { createRequire } from 'node:module'
import { Command, CommanderError } from 'commander'
import { registerConflicts } from './commands/conflicts.ts'
import { registerHeal } from './commands/heal.ts'
import { registerIndex } from './commands/index-folder.ts'
import { registerSearch } from './commands/search.ts'
import { registerServe } from './commands/serve.ts'
import { registerStatus } from './commands/status.ts'
import { registerSync } from './commands/sync.ts'
import { registerToken } from './commands/token.ts'
import { registerUser } from './commands/user.ts'
import { registerVectors } from './commands/vectors.ts'
import { ExitCode, reportFailure, reportUsage } from './failure.ts'

/** Runs one command line, without the name of the program; resolves to its exit code. */
export async function run(args: readonly string[]): Promise<number> {
  const json = args.includes('--json')
  try {
    await program().parseAsync([...args], { from: 'user' })
    return Number(process.exitCode ?? ExitCode.ok)
  } catch (error) {
    if (!(error instanceof CommanderError)) return reportFailure(error, json)
    if (error.exitCode === 0) return ExitCode.ok
    // `agentdb` and `agentdb user` alone have shown the help already.
    return error.code === 'commander.help' ? ExitCode.usage : reportUsage(error.message, json)
  }
}

function program(): Command {
  const root = new Command('agentdb')
    .description('The centre of AgentDB, and a look into the stores of its agents.')
    .version(version(), '-V, --version')
    .exitOverride()
    // What went wrong is said once, by `run`.
    .configureOutput({ outputError: () => undefined })
    .helpCommand(false)
    .addHelpText(
      'after',
      `
A first centre, without any configuration:
  $ agentdb user add --email ada@example.com --username ada
  $ agentdb token --user ada@example.com --agent laptop
  $ agentdb serve

Exit codes: 0 done, 1 failed, 2 wrong usage. DEBUG=1 shows stacks.`,
    )
  registerServe(root)
  registerUser(root)
  registerToken(root)
  registerSync(root)
  registerStatus(root)
  registerConflicts(root)
  registerHeal(root)
  registerSearch(root)
  registerIndex(root)
  registerVectors(root)
  return root
}

/** By the package's own name: source and build lie at different depths. */
function version(): string {
  const require = createRequire(import.meta.url)
  return (require('@llm-copilot/agentdb/package.json') as { version: string }).version
}
