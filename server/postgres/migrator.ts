import { AgentDBError } from '../../schema/errors.ts'
import { pendingMigrations, readMigrations } from '../../schema/migrations.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type { Database, Session } from './database.ts'

/** Any constant will do; it only has to be ours. */
const MIGRATION_LOCK = 7_203_951

/** Brings the centre to our schema version; of several servers that start at once, one does it. */
export async function migrateCentre(database: Database): Promise<void> {
  const known = readMigrations('postgres')
  for (;;) {
    const more = await database.transaction(async (session) => {
      await session.query('SELECT pg_advisory_xact_lock($1)', [MIGRATION_LOCK])
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
