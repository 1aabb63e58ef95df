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

/** Bindings that a server remembers; they never change. */
const REMEMBERED_MAX = 100_000

/**
 * Binds a client to user and agent at first contact, and holds it to them ever after: bound to nobody, one user could
 * move another's watermark and so erase its writes.
 */
export class ClientBindings {
  readonly #known = new Map<string, string>()

  async bind(session: Session, clientId: string, principal: Principal): Promise<void> {
    const wanted = JSON.stringify([principal.userId, principal.agentId])
    let bound = this.#known.get(clientId)
    if (bound === undefined) {
      bound = await firstContact(session, clientId, principal)
      if (this.#known.size >= REMEMBERED_MAX) this.#known.clear()
      this.#known.set(clientId, bound)
    }
    if (bound !== wanted) {
      throw new AgentDBError(
        'FORBIDDEN',
        'this store has synced as another user or agent; a token of that one is needed',
      )
    }
  }
}

async function firstContact(
  session: Session,
  clientId: string,
  principal: Principal,
): Promise<string> {
  await session.query(
    'INSERT INTO sync.client (client_id, user_id, agent_id) VALUES ($1, $2, $3) ON CONFLICT (client_id) DO NOTHING',
    [clientId, principal.userId, principal.agentId],
  )
  const { rows } = await session.query<{ user_id: string; agent_id: string }>(
    'SELECT user_id, agent_id FROM sync.client WHERE client_id = $1',
    [clientId],
  )
  return JSON.stringify([rows[0]?.user_id, rows[0]?.agent_id])
}
