import type { SharedKey } from '../../schema/define.ts'
import type { UserRole } from '../../schema/enums.ts'
import { roleAccess } from '../../schema/role-access.ts'
import { allTables } from '../../schema/tables.ts'
import type { Database } from '../postgres/database.ts'
import { readRows } from './hydrate.ts'
import type { Principal } from './principal.ts'
import type { PullBuilder } from './pull-response.ts'

/** What another role takes away and what it adds: keys of rows that roles share. */
export interface ScopeChange {
  readonly lost: readonly SharedKey[]
  readonly gained: readonly SharedKey[]
}

/** Undefined where the earlier role is none that we know: then the whole scope is read. */
export function scopeChange(before: string, after: UserRole): ScopeChange | undefined {
  if (!Object.hasOwn(roleAccess, before)) return undefined
  const held = roleAccess[before as UserRole].read
  const holds = roleAccess[after].read
  return {
    lost: held.filter((key) => !holds.includes(key)),
    gained: holds.filter((key) => !held.includes(key)),
  }
}

/**
 * Reads what a change of role moves, as it is in one snapshot: the rows under gained keys, and which rows under lost
 * ones leave. Rows that are the user's own it held before and holds on. What changed since the client's position, the
 * log then tells on top.
 */
export async function readScopeChange(
  database: Database,
  builder: PullBuilder,
  { userId }: Principal,
  { lost, gained }: ScopeChange,
): Promise<void> {
  if (lost.length === 0 && gained.length === 0) return
  await database.transaction(async (session) => {
    await session.query(`SET LOCAL timezone = 'UTC'`)
    for (const table of allTables) {
      const { owner } = table
      if (owner.kind !== 'shared') continue
      const where = `t.${owner.column} IS DISTINCT FROM $1`
      if (gained.includes(owner.key))
        await readRows(session, builder, table, { where, userId, keys: [owner.key] })
      if (!lost.includes(owner.key)) continue
      const { rows } = await session.query<{ id: string }>(
        `SELECT t.id FROM ${table.name} t WHERE ${where}`,
        [userId],
      )
      for (const { id } of rows)
        builder.add({
          tbl: table.number,
          id,
          image: null,
          keysBefore: [owner.key],
          keysAfter: [],
        })
    }
  }, 'REPEATABLE READ READ ONLY')
}
