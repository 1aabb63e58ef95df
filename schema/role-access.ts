import type { SharedKey } from './define.ts'
import type { UserRole } from './enums.ts'

/** What a role may do with the rows that roles share. A user's own rows need no entry here. */
export interface RoleAccess {
  readonly read: readonly SharedKey[]
  readonly write: readonly SharedKey[]
  readonly delete: readonly SharedKey[]
}

/**
 * The four roles of SA-012. A viewer reads runbooks, and those incidents that are assigned to it.
 */
export const roleAccess: Readonly<Record<UserRole, RoleAccess>> = {
  admin: {
    read: ['incidents', 'runbooks'],
    write: ['incidents', 'runbooks'],
    delete: ['incidents', 'runbooks'],
  },
  operator: {
    read: ['incidents', 'runbooks'],
    write: ['incidents', 'runbooks'],
    delete: ['incidents'],
  },
  developer: { read: ['incidents', 'runbooks'], write: ['incidents', 'runbooks'], delete: [] },
  viewer: { read: ['runbooks'], write: [], delete: [] },
}

/** Scope key of a user's own rows. */
export const userKey = (userId: string): string => `u:${userId}`
/** Scope key of public profiles: everyone holds it. */
export const profileKey = 'p'
/** Scope key of what concerns one client alone: its watermark and outcomes. */
export const clientKey = (clientId: string): string => `c:${clientId}`

/** All keys that a user's client may read. */
export function scopeKeys(user: { id: string; role: UserRole }, clientId: string): string[] {
  return [userKey(user.id), profileKey, clientKey(clientId), ...roleAccess[user.role].read]
}
