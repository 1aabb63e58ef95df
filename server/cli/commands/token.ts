import { Option, type Command } from 'commander'
import { AgentDBError, preview } from '../../../schema/errors.ts'
import { signToken } from '../../auth/tokens.ts'
import { findUser, type CentralUser } from '../../users.ts'
import { mustExist, withCentre } from '../centre.ts'
import { addCentreOptions, centreOf, expiry, jsonOption, type CentrePlace } from '../options.ts'
import { print, printError, printJson } from '../output.ts'

interface TokenCommandOptions {
  readonly user: string
  readonly agent: string
  readonly expires: number
  readonly json?: boolean
}

interface Issued {
  readonly token: string
  readonly user: CentralUser
  readonly expiresAt: string
}

export function registerToken(root: Command): void {
  addCentreOptions(root.command('token').description('Sign a token for an agent of a user.'))
    .requiredOption('--user <id|email>', 'whose agent it is')
    .requiredOption('--agent <name>', 'name of the agent; a store keeps to the first one')
    .addOption(
      new Option('--expires <time>', 'lifetime, such as 90d, 12h, 30m')
        .argParser(expiry)
        .default(90 * 24 * 3600, '90d'),
    )
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Standard output has the token alone. It is a password: whoever has it is this agent.
AGENTDB_SECRET must be that of the server, if the server has one.

Examples:
  $ agentdb token --user ada@example.com --agent laptop
  $ export AGENTDB_TOKEN=$(agentdb token --user ada@example.com --agent ci --expires 12h)`,
    )
    .action(async (options: TokenCommandOptions, command: Command) => {
      const { token, user, expiresAt } = await issue(centreOf(command), options)
      if (options.json === true) {
        const { id: userId, email } = user
        return printJson({ token, userId, email, agentId: options.agent, expiresAt })
      }
      printError(`agent ${options.agent} of ${user.email} (${user.id}), until ${expiresAt}`)
      if (user.status === 'suspended' || user.status === 'inactive')
        printError(
          `the account is ${user.status}: the centre refuses this token until that changes`,
        )
      return print(token)
    })
}

async function issue(place: CentrePlace, options: TokenCommandOptions): Promise<Issued> {
  mustExist(place)
  return withCentre(place, async ({ database, secret }) => {
    const user = await findUser(database.kysely, options.user)
    if (user === undefined) {
      throw new AgentDBError(
        'NOT_FOUND',
        `the centre has no user ${preview(options.user)}: agentdb user add makes one`,
      )
    }
    const expiresAt = new Date(Date.now() + options.expires * 1000).toISOString()
    const claims = { userId: user.id, agentId: options.agent, expiresInSeconds: options.expires }
    return { token: await signToken(claims, secret), user, expiresAt }
  })
}
