import type { UserRole } from '../../../schema/enums.ts'
import { AgentDBError } from '../../../schema/errors.ts'
import { users } from '../../../schema/tables/users.ts'
import type { Claims } from './centre.ts'
import { rowKey, type ModelDatabase } from './model-database.ts'

export interface Principal extends Claims {
  readonly role: UserRole
}

/** Who is asking: from the token only the ids; role and status from `users`, as they are now. */
export class Principals {
  readonly #database: ModelDatabase

  constructor(database: ModelDatabase) {
    this.#database = database
  }

  load(claims: Claims): Principal {
    const user = this.#database.rows.read(rowKey(users.number, claims.userId))
    if (user === undefined)
      throw new AgentDBError('UNAUTHORIZED', 'the token names a user that the centre does not know')
    const { role, status, deleted_at: deletedAt } = user
    if (deletedAt !== null || status === 'suspended' || status === 'inactive')
      throw new AgentDBError(
        'FORBIDDEN',
        `the account is ${deletedAt === null ? String(status) : 'deleted'}`,
      )
    return { userId: claims.userId, agentId: claims.agentId, role: role as UserRole }
  }

  /** Binds a client to user and agent at first contact, and holds it to them ever after. */
  async bind(clientId: string, { userId, agentId }: Claims): Promise<void> {
    const known = (): { userId: string; agentId: string } | undefined =>
      this.#database.clients.read(clientId)
    if (known() === undefined) {
      await this.#database.transaction(async (transaction) => {
        await transaction.lock(`client:${clientId}`, 'update')
        if (known() === undefined)
          transaction.write(this.#database.clients, clientId, {
            userId,
            agentId,
            seq: 0,
            txId: null,
            ancestor: null,
            commonClock: null,
            isIntroduced: false,
          })
      })
    }
    const bound = known()
    if (bound?.userId !== userId)
      throw new AgentDBError('STORE_FORKED', 'this client id is taken: the store needs another')
    if (bound.agentId !== agentId)
      throw new AgentDBError('FORBIDDEN', 'this store has synced as another user or agent')
  }
}
