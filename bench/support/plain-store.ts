import { AgentDB } from '../../src/index.ts'
import Database from 'better-sqlite3'

/**
 * What AgentDB is measured against: a file with the identical schema, indexes and statistics triggers, but nothing that
 * captures or guards, and bare better-sqlite3 on it with the same settings.
 */
export async function openPlainStore(
  path: string,
  userId: string,
  synchronous: 'normal' | 'full' = 'normal',
): Promise<Database.Database> {
  await (await AgentDB.open({ path, userId })).close()
  const database = new Database(path)
  for (const setting of [
    'journal_mode = WAL',
    `synchronous = ${synchronous}`,
    'foreign_keys = ON',
    'cache_size = -32000',
    'temp_store = MEMORY',
  ])
    database.pragma(setting)
  const triggers = database
    .prepare<[], string>(
      `SELECT name FROM sqlite_master WHERE type = 'trigger' AND (name LIKE '%\\_capture\\_%' ESCAPE '\\' OR name LIKE '%\\_guard\\_%' ESCAPE '\\')`,
    )
    .pluck()
    .all()
  for (const name of triggers) database.exec(`DROP TRIGGER ${name}`)
  return database
}

/** Inserts whole rows of a table, values in the order of `columns`. */
export function prepareInsert(
  database: Database.Database,
  table: string,
  columns: readonly string[],
): Database.Statement {
  return database.prepare(
    `INSERT INTO ${table} (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`,
  )
}
