import { existsSync } from 'node:fs'
import { AgentDBError } from '../../schema/errors.ts'
import { AgentDB } from '../../src/index.ts'

/** Opens a store that exists: a path written wrong must not become a new, empty one. */
export async function openStore(path: string): Promise<AgentDB> {
  if (!existsSync(path)) throw new AgentDBError('NOT_FOUND', `there is no store ${path}`)
  return AgentDB.open({ path })
}
