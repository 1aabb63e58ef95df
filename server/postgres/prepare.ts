import type { Database } from './database.ts'
import { migrateCentre } from './migrator.ts'

/** Makes a database ready to be written: our schema version, and the partitions that rows of now fall into. */
export async function prepareCentre(database: Database): Promise<void> {
  await migrateCentre(database)
  await makePartitions(database)
}

/** Partitions of this week and month and of those that come next; what has none falls into a default one. */
export async function makePartitions(database: Database): Promise<void> {
  await database.query('SELECT sync.ensure_log_partitions()')
  await database.query(
    `SELECT create_audit_logs_partition(now()::date), create_audit_logs_partition((now() + interval '1 month')::date)`,
  )
}
