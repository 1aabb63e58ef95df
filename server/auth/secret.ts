import { randomBytes } from 'node:crypto'
import { AgentDBError } from '../../schema/errors.ts'
import type { Database } from '../postgres/database.ts'

const SECRET_LENGTH_MIN = 32

/**
 * The key that signs tokens and cursors: the given one, or one that is made once and kept in the database, where only
 * its owner reads it, so that all servers of a centre share it.
 */
export async function loadSecret(
  database: Database,
  given: string | undefined,
): Promise<Uint8Array> {
  if (given !== undefined) {
    if (given.length < SECRET_LENGTH_MIN) {
      throw new AgentDBError(
        'INVALID_OPTION',
        `the secret must have at least ${SECRET_LENGTH_MIN} characters`,
      )
    }
    return new TextEncoder().encode(given)
  }
  await database.query(
    `INSERT INTO sync.setting (name, value) VALUES ('secret', $1) ON CONFLICT (name) DO NOTHING`,
    [randomBytes(48).toString('base64url')],
  )
  const { rows } = await database.query<{ value: string }>(
    `SELECT value FROM sync.setting WHERE name = 'secret'`,
  )
  return new TextEncoder().encode(rows[0]?.value ?? '')
}
