import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { AgentDBError } from '../../schema/errors.ts'
import { loadSecret } from '../auth/secret.ts'
import { Database } from '../postgres/database.ts'
import { prepareCentre } from '../postgres/prepare.ts'
import type { CentrePlace } from './options.ts'

/** Opens the centre's database without serving it, and closes it after `work`. */
export async function withCentre<T>(
  { databaseUrl, dataFolder }: CentrePlace,
  work: (centre: { database: Database; secret: Uint8Array }) => Promise<T>,
): Promise<T> {
  const database = await Database.open({ url: databaseUrl, folder: dataFolder, connectionsMax: 2 })
  try {
    await prepareCentre(database)
    return await work({ database, secret: await loadSecret(database, secretOf()) })
  } finally {
    await database.close()
  }
}

/** The secret of the environment; without one the centre makes its own. */
export function secretOf(): string | undefined {
  const secret = process.env['AGENTDB_SECRET']
  return secret === '' ? undefined : secret
}

/** Of a command that only reads: a folder written wrong must not become a new, empty centre. */
export function mustExist({ dataFolder }: CentrePlace): void {
  if (dataFolder === undefined || existsSync(join(dataFolder, 'PG_VERSION'))) return
  throw new AgentDBError(
    'NOT_FOUND',
    `there is no centre in ${dataFolder}: agentdb user add or agentdb serve makes one`,
  )
}
