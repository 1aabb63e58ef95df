import type { Database } from './database.ts'
import { migrateCentre } from './migrator.ts'

/** Makes a database ready to be written: our schema version, and the partitions that rows of now fall into. */
export async function prepareCentre(database: Database): Promise<void> {
  await migrateCentre(database)
  await database.query('SELECT sync.ensure_log_partitions()')
  await database.query(
    `SELECT create_audit_logs_partition(now()::date), create_audit_logs_partition((now() + interval '1 month')::date)`,
  )
}
