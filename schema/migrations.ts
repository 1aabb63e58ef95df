import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { AgentDBError } from './errors.ts'

/**
 * Migrations are immutable SQL files, one folder a dialect, `V001_initial_schema.sql`. Reading them is the only thing
 * here; each dialect's migrator applies them under its own lock.
 */
export interface Migration {
  readonly version: number
  readonly name: string
  readonly sql: string
  /** SHA-256 of the file, hex. */
  readonly checksum: string
}

const fileName = /^V(\d{3,})_([a-z0-9_]+)\.sql$/

export function readMigrations(dialect: 'sqlite' | 'postgres'): Migration[] {
  const folder = new URL(`./migrations/${dialect}/`, import.meta.url)
  return readdirSync(folder)
    .flatMap((file) => {
      const match = fileName.exec(file)
      if (match === null) return []
      const sql = readFileSync(new URL(file, folder), 'utf8')
      const checksum = createHash('sha256').update(sql).digest('hex')
      return [{ version: Number(match[1]), name: match[2] ?? file, sql, checksum }]
    })
    .toSorted((a, b) => a.version - b.version)
}

/** Those still to apply. Throws when what was applied is not what we ship. */
export function pendingMigrations(
  known: readonly Migration[],
  applied: readonly { version: number; checksum: string }[],
): Migration[] {
  const done = new Map(applied.map(({ version, checksum }) => [version, checksum]))
  for (const migration of known) {
    const checksum = done.get(migration.version)
    if (checksum !== undefined && checksum !== migration.checksum) {
      throw new AgentDBError(
        'MIGRATION_CHANGED',
        `migration V${String(migration.version).padStart(3, '0')} was applied with other contents; it must never change`,
      )
    }
  }
  return known.filter(({ version }) => !done.has(version))
}
