import { newId } from '../../schema/values/id.ts'
import type { SyncServer } from '../../server/index.ts'

/** An active user at the centre; returns its id. */
export async function newUser(server: SyncServer, username: string): Promise<string> {
  const id = newId()
  await server.db
    .insertInto('users')
    .values({
      id,
      username,
      email: `${username}@example.org`,
      password_hash: 'not a hash',
      role: 'developer',
      status: 'active',
    })
    .execute()
  return id
}
