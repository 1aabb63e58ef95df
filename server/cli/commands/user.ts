import { Option, type Command } from 'commander'
import { userRole, userStatus, type UserRole, type UserStatus } from '../../../schema/enums.ts'
import { addUser } from '../../users.ts'
import { withCentre } from '../centre.ts'
import { addCentreOptions, centreOf, jsonOption, placeFlag } from '../options.ts'
import { print, printJson, table } from '../output.ts'

interface UserAddOptions {
  readonly email: string
  readonly username: string
  readonly fullName?: string
  readonly role: UserRole
  readonly status: UserStatus
  readonly id?: string
  readonly json?: boolean
}

export function registerUser(root: Command): void {
  const user = root.command('user').description('Users of the centre.').helpCommand(false)
  addCentreOptions(user.command('add').description('Add a user, whose agents may then sync.'))
    .requiredOption('--email <email>', 'address, unique')
    .requiredOption('--username <name>', '3 to 100 letters, digits, _ or -, unique')
    .option('--full-name <name>', 'name for people')
    .addOption(
      new Option('--role <role>', 'what it may read and write')
        .choices(userRole.values)
        .default('developer'),
    )
    .addOption(
      new Option('--status <status>', 'suspended and inactive users do not sync')
        .choices(userStatus.values)
        .default('active'),
    )
    .option('--id <uuid>', 'id of the user; default: a new one. See agentdb status <store>')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
It writes to the database itself. PGlite lets one process in: stop agentdb serve first.
The account has no password: agents come by token, logins come later.

Examples:
  $ agentdb user add --email ada@example.com --username ada
  $ agentdb user add --email ops@example.com --username ops --role operator \\
      --database-url postgres://agentdb@db/agentdb`,
    )
    .action(async (options: UserAddOptions, command: Command) => {
      const place = centreOf(command)
      const added = await withCentre(place, ({ database }) =>
        addUser(database.kysely, {
          email: options.email,
          username: options.username,
          fullName: options.fullName,
          role: options.role,
          status: options.status,
          id: options.id,
        }),
      )
      if (options.json === true) return printJson(added)
      print(`user ${added.username} added\n`)
      print(
        table([
          ['id', added.id],
          ['email', added.email],
          ['role', added.role],
          ['status', added.status],
          ['next', `agentdb token --user ${added.email} --agent laptop${placeFlag(place)}`],
        ]),
      )
    })
}
