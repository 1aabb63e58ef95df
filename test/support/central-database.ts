import { inject } from 'vitest'

import { Database } from '../../server/postgres/database.ts'
import { migrateCentre } from '../../server/postgres/migrator.ts'
import { createDatabase } from './databases.ts'

/** A database of its own, real PostgreSQL or PGlite, without or with our schema. */
export interface CentralDatabase extends AsyncDisposable {
  readonly database: Database
}

export const databaseKinds = ['postgres', 'pglite'] as const
export type DatabaseKind = (typeof databaseKinds)[number]

export async function openEmptyCentre(kind: DatabaseKind): Promise<CentralDatabase> {
  const own =
    kind === 'postgres' ? await createDatabase(inject('postgresUrl'), 'schema') : undefined
  const database = await Database.open({ url: own?.url, folder: undefined, connectionsMax: 4 })
  return {
    database,
    async [Symbol.asyncDispose]() {
      await database.close()
      await own?.drop()
    },
  }
}

export async function openMigratedCentre(kind: DatabaseKind): Promise<CentralDatabase> {
  const centre = await openEmptyCentre(kind)
  await migrateCentre(centre.database)
  return centre
}
