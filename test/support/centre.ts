import { randomBytes } from 'node:crypto'
import { inject } from 'vitest'
import type { UserRole, UserStatus } from '../../schema/enums.ts'
import { newId } from '../../schema/values/id.ts'
import { serve, type ServeOptions, type SyncServer } from '../../server/index.ts'
import { AgentDB } from '../../src/index.ts'
import { connect, type Outcome, type Sync } from '../../sync/index.ts'
import { createDatabase } from './databases.ts'

/** A started sync server that belongs to one test. */
export interface Centre extends AsyncDisposable {
  readonly server: SyncServer
  readonly url: string
  /** The centre's database, all columns, past every access rule. */
  readonly db: SyncServer['db']
  /** Undefined on PGlite. */
  readonly databaseUrl: string | undefined
}

export const databaseKinds = ['postgres', 'pglite'] as const
export type DatabaseKind = (typeof databaseKinds)[number]

/**
 * Starts a centre on a free port: on the database of `databaseUrl`, without one on PGlite in memory.
 *
 * @example
 * await using centre = await startCentre()
 * const user = await createUser(centre)
 * await using agent = await openAgent(centre, user)
 */
export async function startCentre(options: ServeOptions = {}): Promise<Centre> {
  const server = await serve({ port: 0, ...options })
  return {
    server,
    url: server.url,
    db: server.db,
    databaseUrl: options.databaseUrl,
    [Symbol.asyncDispose]: () => server.close(),
  }
}

/** A centre on a database of its own: a new one of the tests' PostgreSQL, dropped with it, or PGlite. */
export async function startCentreOn(
  kind: DatabaseKind,
  options: Omit<ServeOptions, 'databaseUrl' | 'dataFolder'> = {},
): Promise<Centre> {
  if (kind === 'pglite') return startCentre(options)
  const database = await createDatabase(inject('postgresUrl'), 'centre')
  const drop = (): Promise<void> => database.drop()
  try {
    const centre = await startCentre({ ...options, databaseUrl: database.url })
    return {
      ...centre,
      async [Symbol.asyncDispose]() {
        await centre[Symbol.asyncDispose]()
        await drop()
      },
    }
  } catch (error) {
    await drop()
    throw error
  }
}

export interface NewUser {
  readonly role?: UserRole
  readonly status?: UserStatus
  readonly id?: string
}

/** What a test needs of a user; every secret column is filled, so that a leak can be seen. */
export interface TestUser {
  readonly id: string
  readonly email: string
  readonly username: string
  readonly role: UserRole
}

/** Start of every value that no agent may ever see. */
export const SECRET_MARK = 'top-secret'

export async function createUser(centre: Centre, user: NewUser = {}): Promise<TestUser> {
  const { role = 'developer', status = 'active', id = newId() } = user
  const username = `user_${randomBytes(6).toString('hex')}`
  const email = `${username}@example.org`
  await centre.db
    .insertInto('users')
    .values({
      id,
      email,
      username,
      role,
      status,
      full_name: `Full ${username}`,
      password_hash: `${SECRET_MARK}-password`,
      mfa_secret: `${SECRET_MARK}-mfa`,
      api_key_hash: `${SECRET_MARK}-api-${username}`,
    })
    .execute()
  return { id, email, username, role }
}

/** An embedded store connected to a centre. */
export interface TestAgent extends AsyncDisposable {
  readonly db: AgentDB
  readonly sync: Sync
  readonly token: string
  /** Outcomes that have arrived since it was opened, in order. */
  readonly outcomes: readonly Outcome[]
  close(): Promise<void>
}

export interface AgentOptions {
  /** Default: `:memory:`. */
  readonly path?: string
  readonly agentId?: string
  /** True syncs all the time. Default: only on `sync.now()`. */
  readonly start?: boolean
}

/** Opens a store of a user and connects it; it syncs when told. */
export async function openAgent(
  centre: Centre,
  user: { readonly id: string },
  options: AgentOptions = {},
): Promise<TestAgent> {
  const agentId = options.agentId ?? `agent-${randomBytes(4).toString('hex')}`
  const token = await centre.server.issueToken({ userId: user.id, agentId })
  const db = await AgentDB.open({ path: options.path ?? ':memory:', userId: user.id, agentId })
  const sync = connect(db, {
    url: centre.url,
    token,
    start: options.start ?? false,
    retryMinMs: 20,
  })
  const outcomes: Outcome[] = []
  sync.on('outcome', (outcome) => outcomes.push(outcome))
  const close = async (): Promise<void> => {
    await sync.close()
    await db.close()
  }
  return { db, sync, token, outcomes, close, [Symbol.asyncDispose]: close }
}
