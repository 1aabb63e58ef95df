import { AgentDBError } from '../../schema/errors.ts'
import { pendingMigrations, readMigrations, type Migration } from '../../schema/migrations.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type { Connection } from './connection.ts'

/**
 * Brings a store's file to our schema version, each migration in a transaction, under the file's write lock.
 *
 * Most changes of a column need the table made anew, copied, and put in the place of the old one. So foreign keys are off
 * meanwhile, lest dropping it cascades, and checked at the end; a rename leaves what names the table alone; and nothing
 * that a migration writes is captured as a local change.
 */
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
  const pending = pendingMigrations(known, applied)
  if (pending.length === 0) return
  connection.pragma('foreign_keys = OFF')
  connection.pragma('legacy_alter_table = ON')
  try {
    applyMigrations(connection, pending)
  } finally {
    connection.pragma('legacy_alter_table = OFF')
    connection.pragma('foreign_keys = ON')
  }
}

function applyMigrations(connection: Connection, pending: readonly Migration[]): void {
  for (const migration of pending) {
    const startedAt = performance.now()
    connection.exec('BEGIN IMMEDIATE')
    try {
      // Another process may have been faster.
      if (!appliedMigrations(connection).some(({ version }) => version === migration.version)) {
        setApplying(connection, 1)
        connection.exec(migration.sql)
        setApplying(connection, 0)
        mustHoldReferences(connection)
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

/** Silences the triggers of capture; a new file has none. */
function setApplying(connection: Connection, applying: 0 | 1): void {
  const state = connection.get(`SELECT 1 FROM sqlite_master WHERE name = 'sync_state'`)
  if (state !== undefined) connection.run('UPDATE sync_state SET applying = ?', applying)
}

function mustHoldReferences(connection: Connection): void {
  const [broken] = connection.all<{ table: string }>('PRAGMA foreign_key_check')
  if (broken !== undefined) throw new Error(`rows of ${broken.table} refer to none`)
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
