import { AgentDBError } from '../../schema/errors.ts'
import { pendingMigrations, readMigrations } from '../../schema/migrations.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type { Connection } from './connection.ts'

/** Brings a store's file to our schema version, each migration in a transaction, under the file's write lock. */
export function migrateStore(connection: Connection): void {
  const applied = appliedMigrations(connection)
  const newest = Math.max(0, ...applied.map(({ version }) => version))
  if (newest > SCHEMA_VERSION) {
    throw new AgentDBError(
      'STORE_NEWER',
      `the store has schema version ${newest}, this AgentDB knows ${SCHEMA_VERSION}: upgrade the package`,
    )
  }
  const known = readMigrations('sqlite')
  for (const migration of pendingMigrations(known, applied)) {
    const startedAt = performance.now()
    connection.exec('BEGIN IMMEDIATE')
    try {
      // Another process may have been faster.
      if (!appliedMigrations(connection).some(({ version }) => version === migration.version)) {
        connection.exec(migration.sql)
        connection.run(
          'INSERT INTO schema_migrations (version, name, checksum, execution_time_ms) VALUES (?, ?, ?, ?)',
          migration.version,
          migration.name,
          migration.checksum,
          Math.round(performance.now() - startedAt),
        )
      }
      connection.exec('COMMIT')
    } catch (error) {
      connection.exec('ROLLBACK')
      throw new AgentDBError(
        'MIGRATION_FAILED',
        `migration ${migration.name} failed: ${String(error)}`,
        {
          cause: error,
        },
      )
    }
  }
}

function appliedMigrations(connection: Connection): { version: number; checksum: string }[] {
  const objects = connection.all<{ name: string }>(
    `SELECT name FROM sqlite_master WHERE type = 'table'`,
  )
  if (objects.length === 0) return []
  if (!objects.some(({ name }) => name === 'schema_migrations')) {
    throw new AgentDBError(
      'STORE_CORRUPT',
      'the file is a SQLite database, but not an AgentDB store',
    )
  }
  return connection.all('SELECT version, checksum FROM schema_migrations WHERE success = 1')
}
