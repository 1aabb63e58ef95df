import { AgentDBError } from '../../schema/errors.ts'
import { pendingMigrations, readMigrations } from '../../schema/migrations.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type { Database, Session } from './database.ts'

/** Any constant will do; it only has to be ours. */
const MIGRATION_LOCK = 7_203_951

/** How long a statement of a migration waits for a table: whatever comes after it waits, too. */
const LOCK_TIMEOUT_MS = 3000
const ATTEMPTS_MAX = 20

/**
 * Brings the centre to our schema version; of several servers that start at once, one does it. Servers of the version
 * before go on meanwhile: a migration that meets their locks gives way and tries again.
 */
export async function migrateCentre(database: Database): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await migrateOnce(database)
    } catch (error) {
      const { code } = (error as { cause?: { code?: unknown } }).cause ?? {}
      // Deadlock, and no lock in time.
      if ((code !== '40P01' && code !== '55P03') || attempt >= ATTEMPTS_MAX) throw error
      await new Promise((done) => setTimeout(done, 100 * Math.random() * attempt))
    }
  }
}

async function migrateOnce(database: Database): Promise<void> {
  const known = readMigrations('postgres')
  for (;;) {
    const more = await database.transaction(async (session) => {
      await session.query('SELECT pg_advisory_xact_lock($1)', [MIGRATION_LOCK])
      await session.query(`SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`)
      const applied = await appliedMigrations(session)
      const newest = Math.max(0, ...applied.map(({ version }) => version))
      if (newest > SCHEMA_VERSION) {
        throw new AgentDBError(
          'SCHEMA_UNKNOWN',
          `the centre has schema version ${newest}, this server knows ${SCHEMA_VERSION}: upgrade it`,
        )
      }
      const [next] = pendingMigrations(known, applied)
      if (next === undefined) return false
      const startedAt = performance.now()
      try {
        await session.query(next.sql)
      } catch (error) {
        throw new AgentDBError(
          'MIGRATION_FAILED',
          `migration ${next.name} failed: ${String(error)}`,
          { cause: error },
        )
      }
      await session.query(
        'INSERT INTO schema_migrations (version, name, checksum, execution_time_ms) VALUES ($1, $2, $3, $4)',
        [next.version, next.name, next.checksum, Math.round(performance.now() - startedAt)],
      )
      return true
    })
    if (!more) return
  }
}

async function appliedMigrations(
  session: Session,
): Promise<{ version: number; checksum: string }[]> {
  const { rows } = await session.query<{ found: boolean }>(
    `SELECT to_regclass('public.schema_migrations') IS NOT NULL AS found`,
  )
  if (rows[0]?.found !== true) return []
  const applied = await session.query<{ version: number; checksum: string }>(
    'SELECT version, checksum FROM schema_migrations WHERE success',
  )
  return applied.rows
}
