import type { SharedKey, TableDefinition } from '../../schema/define.ts'
import type { UserRole } from '../../schema/enums.ts'
import { roleAccess } from '../../schema/role-access.ts'
import { allTables } from '../../schema/tables.ts'
import type { Database, Session } from '../postgres/database.ts'
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

/** Rows that one batch moves; more come page by page. */
const MOVED_AT_ONCE_MAX = 5000

/** The tables whose rows a change of role may move. */
export const tablesMoved = ({ lost, gained }: ScopeChange): readonly TableDefinition[] =>
  allTables.filter(
    ({ owner }) =>
      owner.kind === 'shared' && (lost.includes(owner.key) || gained.includes(owner.key)),
  )

/** Whether a change of role moves more rows than one batch should hold. Counts no further than that. */
export async function movesMany(
  session: Session,
  { userId }: Principal,
  change: ScopeChange,
): Promise<boolean> {
  let room = MOVED_AT_ONCE_MAX
  for (const table of tablesMoved(change)) {
    const { rows } = await session.query<{ n: number }>(
      `SELECT count(*)::integer AS n FROM (SELECT 1 FROM ${table.name} t WHERE ${othersOf(table)} LIMIT ${room + 1}) moved`,
      [userId],
    )
    room -= rows[0]?.n ?? 0
    if (room < 0) return true
  }
  return false
}

/** Rows of a shared table that are not the user's own: those it holds under any role. `$1` is the user. */
const othersOf = ({ owner }: TableDefinition): string =>
  owner.kind === 'shared' ? `t.${owner.column} IS DISTINCT FROM $1` : 'false'

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
    for (const table of tablesMoved({ lost, gained })) {
      const { owner } = table
      if (owner.kind !== 'shared') continue
      const where = othersOf(table)
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
