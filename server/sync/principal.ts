import { AgentDBError } from '../../schema/errors.ts'
import type { UserRole, UserStatus } from '../../schema/enums.ts'
import { scopeKeys } from '../../schema/role-access.ts'
import type { Session } from '../postgres/database.ts'

/** Who is asking: from the token only the ids; role and status from `users`, as they are now. */
export interface Principal {
  readonly userId: string
  readonly agentId: string
  readonly role: UserRole
}

export async function loadPrincipal(
  session: Session,
  claims: { userId: string; agentId: string },
): Promise<Principal> {
  const { rows } = await session.query<{ role: UserRole; status: UserStatus; deleted: boolean }>(
    'SELECT role, status, deleted_at IS NOT NULL AS deleted FROM users WHERE id = $1',
    [claims.userId],
  )
  const [user] = rows
  if (user === undefined) {
    throw new AgentDBError('UNAUTHORIZED', 'the token names a user that the centre does not know')
  }
  if (user.deleted || user.status === 'suspended' || user.status === 'inactive') {
    throw new AgentDBError('FORBIDDEN', `the account is ${user.deleted ? 'deleted' : user.status}`)
  }
  return { ...claims, role: user.role }
}

/** The scope keys of a principal's client. */
export const keysOf = (principal: Principal, clientId: string): string[] =>
  scopeKeys({ id: principal.userId, role: principal.role }, clientId)

/** Bindings that a server remembers; they never change, but may be lost with the database. */
const REMEMBERED_MAX = 100_000

interface Binding {
  readonly userId: string
  readonly agentId: string
}

/**
 * Binds a client to user and agent at first contact, and holds it to them ever after: bound to nobody, one user could
 * move another's watermark and so erase its writes. Who finds its id bound to another user takes another id, so that
 * nobody can keep a store away by being first.
 */
export class ClientBindings {
  readonly #known = new Map<string, Binding>()

  /** Where the database went back to before a binding, under a server that remembers it. */
  async bindAgain(session: Session, clientId: string, principal: Principal): Promise<void> {
    this.#known.delete(clientId)
    await this.bind(session, clientId, principal)
  }

  async bind(session: Session, clientId: string, principal: Principal): Promise<void> {
    let bound = this.#known.get(clientId)
    if (bound === undefined) {
      bound = await firstContact(session, clientId, principal)
      if (this.#known.size >= REMEMBERED_MAX) this.#known.clear()
      this.#known.set(clientId, bound)
    }
    if (bound.userId !== principal.userId)
      throw new AgentDBError('STORE_FORKED', 'this client id is taken: the store needs another')
    if (bound.agentId !== principal.agentId) {
      throw new AgentDBError(
        'FORBIDDEN',
        'this store has synced as another agent; a token of that one is needed',
      )
    }
  }
}

async function firstContact(
  session: Session,
  clientId: string,
  principal: Principal,
): Promise<Binding> {
  await session.query(
    'INSERT INTO sync.client (client_id, user_id, agent_id) VALUES ($1, $2, $3) ON CONFLICT (client_id) DO NOTHING',
    [clientId, principal.userId, principal.agentId],
  )
  const { rows } = await session.query<Binding>(
    'SELECT user_id AS "userId", agent_id AS "agentId" FROM sync.client WHERE client_id = $1',
    [clientId],
  )
  const [bound] = rows
  if (bound === undefined) throw new Error('bug in AgentDB: a client that was just bound is gone')
  return bound
}
