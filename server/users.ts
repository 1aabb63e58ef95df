import type { Kysely } from 'kysely'
import { userRole, userStatus, type UserRole, type UserStatus } from '../schema/enums.ts'
import { AgentDBError, preview } from '../schema/errors.ts'
import type { CentralDatabase } from '../schema/types.ts'
import { isId, newId } from '../schema/values/id.ts'

export interface NewUser {
  readonly email: string
  /** 3 to 100 letters, digits, `_` or `-`. */
  readonly username: string
  readonly fullName?: string | undefined
  /** Default: `developer`. */
  readonly role?: UserRole | undefined
  /** Default: `active`. */
  readonly status?: UserStatus | undefined
  /** Default: a new id. Give the one of a store that already works offline. */
  readonly id?: string | undefined
}

export interface CentralUser {
  readonly id: string
  readonly email: string
  readonly username: string
  readonly role: UserRole
  readonly status: UserStatus
}

/** No password has this hash: an account made here has agents, no login. */
const NO_PASSWORD = '!'

/**
 * Adds a user at the centre.
 *
 * @example
 * const user = await addUser(server.db, { email: 'ada@example.com', username: 'ada' })
 *
 * @throws AgentDBError `INVALID_VALUE`, `CONSTRAINT` when email, username or id is taken
 */
export async function addUser(db: Kysely<CentralDatabase>, input: NewUser): Promise<CentralUser> {
  validate(input)
  try {
    return await db
      .insertInto('users')
      .values({
        id: input.id ?? newId(),
        email: input.email,
        username: input.username,
        full_name: input.fullName ?? null,
        role: input.role ?? 'developer',
        status: input.status ?? 'active',
        password_hash: NO_PASSWORD,
      })
      .returning(['id', 'email', 'username', 'role', 'status'])
      .executeTakeFirstOrThrow()
  } catch (error) {
    throw taken(error, input) ?? error
  }
}

/** The user of an id or an email, unless it was deleted. */
export async function findUser(
  db: Kysely<CentralDatabase>,
  idOrEmail: string,
): Promise<CentralUser | undefined> {
  const users = db
    .selectFrom('users')
    .select(['id', 'email', 'username', 'role', 'status'])
    .where('deleted_at', 'is', null)
  const found = isId(idOrEmail)
    ? users.where('id', '=', idOrEmail)
    : users.where((eb) => eb(eb.fn<string>('lower', ['email']), '=', idOrEmail.toLowerCase()))
  return found.executeTakeFirst()
}

const EMAIL = /^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$/
const USERNAME = /^[A-Za-z0-9_-]{3,100}$/
const EMAIL_LENGTH_MAX = 255
const NAME_LENGTH_MAX = 255

function validate({ email, username, fullName, role, status, id }: NewUser): void {
  const refuse = (column: string, value: unknown, rule: string): never => {
    throw new AgentDBError('INVALID_VALUE', `users.${column} ${rule} (got ${preview(value)})`, {
      table: 'users',
      column,
      value,
    })
  }
  if (typeof email !== 'string' || email.length > EMAIL_LENGTH_MAX || !EMAIL.test(email))
    refuse('email', email, 'is not an address such as ada@example.com')
  if (typeof username !== 'string' || !USERNAME.test(username))
    refuse('username', username, 'must be 3 to 100 letters, digits, _ or -')
  if (fullName !== undefined && !(typeof fullName === 'string' && fits(fullName)))
    refuse('full_name', fullName, `must be a text of at most ${NAME_LENGTH_MAX} characters`)
  if (role !== undefined && !userRole.values.includes(role))
    refuse('role', role, `is not one of ${userRole.values.join(', ')}`)
  if (status !== undefined && !userStatus.values.includes(status))
    refuse('status', status, `is not one of ${userStatus.values.join(', ')}`)
  if (id !== undefined && !isId(id)) refuse('id', id, 'is not a lower-case UUID')
}

const fits = (name: string): boolean => [...name].length <= NAME_LENGTH_MAX && !name.includes('\0')

/** Unique keys of `users`, with the column that each guards. */
const keys: Readonly<Record<string, 'email' | 'username' | 'id'>> = {
  uq_users_email: 'email',
  uq_users_username: 'username',
  users_pkey: 'id',
}

function taken(error: unknown, input: NewUser): AgentDBError | undefined {
  const { code, constraint } = error as { code?: unknown; constraint?: unknown }
  if (code !== '23505' || typeof constraint !== 'string') return undefined
  const column = keys[constraint]
  if (column === undefined) return undefined
  return new AgentDBError(
    'CONSTRAINT',
    `there is already a user with ${column} ${preview(input[column])}`,
    { cause: error, table: 'users', column, value: input[column], constraint },
  )
}
