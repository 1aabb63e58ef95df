import { AgentDBError } from '../../schema/errors.ts'
import type { Connection } from './connection.ts'

export interface Identity {
  readonly agentId: string
  readonly clientId: string
  readonly userId: string
}

/** Who a store belongs to. */
export function readIdentity(connection: Connection): Identity {
  const row = connection.get<Identity>(
    'SELECT agent_id AS agentId, client_id AS clientId, user_id AS userId FROM sync_state',
  )
  if (row === undefined)
    throw new AgentDBError('STORE_CORRUPT', 'the store has lost its identity (sync_state is empty)')
  return row
}

interface NewIdentity {
  /** As the caller gave it; must match a store that exists. */
  readonly userId: string | undefined
  readonly newUserId: string
  readonly agentId: string
  readonly clientId: string
}

/**
 * Gives a new store its identity and the provisional row of its user: foreign keys hold before the centre was ever met.
 * The row is never pushed and is brought up to date in place on first contact.
 */
export function initializeState(connection: Connection, identity: NewIdentity): void {
  connection.applying(() => {
    const state = connection.get<{ user_id: string }>('SELECT user_id FROM sync_state')
    if (state === undefined) {
      connection.run(
        'INSERT INTO sync_state (one, agent_id, client_id, user_id, applying) VALUES (1, ?, ?, ?, 1)',
        identity.agentId,
        identity.clientId,
        identity.newUserId,
      )
      connection.run(
        `INSERT INTO users (id, email, username, status) VALUES (?, ?, ?, 'active')`,
        identity.newUserId,
        `${identity.newUserId}@provisional.invalid`,
        `user-${identity.newUserId}`,
      )
    } else if (identity.userId !== undefined && identity.userId !== state.user_id) {
      throw new AgentDBError(
        'WRONG_USER',
        `the store belongs to user ${state.user_id}, not ${identity.userId}`,
      )
    }
  })
}
