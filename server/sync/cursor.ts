import { createHmac, timingSafeEqual } from 'node:crypto'
import type { UserRole } from '../../schema/enums.ts'
import { AgentDBError } from '../../schema/errors.ts'
import type { PullResponse } from '../../sync/protocol/messages.ts'

/**
 * Where a client stands, signed, opaque to it.
 *
 *   base64url({"nonce":"…","position":17,"scope":"developer","schema":1}).base64url(hmac)
 *
 * `scope` is what its user's role was: where it is another, what that took and gave is worked out.
 */
export interface Cursor {
  readonly nonce: string
  readonly position: number
  readonly scope: UserRole
  /** Whose columns the client has: its schema version, or the centre's where that was older. */
  readonly schema: number
  /** In the middle of reading the whole scope: the position then is where that began. */
  readonly page?: PageMark | undefined
}

export type PageReason = NonNullable<NonNullable<PullResponse['page']>['reason']>

/** Up to where a whole scope has been read. */
export interface PageMark {
  /** Number of the table that is being read, and the last of its rows that was: its id, after its parent's if it has one. */
  readonly table: number
  readonly after: readonly string[] | null
  /** Rows so far, and how many there were at the beginning. */
  readonly rows: number
  readonly total: number
  /** The history in which reading began: pages of two lives of the database may hold what went with the first. */
  readonly history: string
  /** Numbers of the tables that are read, where it is not all. */
  readonly tables?: readonly number[] | undefined
  /** Why it is read, as every page says. */
  readonly reason?: PageReason | undefined
}

const signature = (text: string, secret: Uint8Array): Buffer =>
  createHmac('sha256', secret).update(`cursor:${text}`).digest().subarray(0, 16)

export function signCursor(cursor: Cursor, secret: Uint8Array): string {
  const text = Buffer.from(JSON.stringify(cursor)).toString('base64url')
  return `${text}.${signature(text, secret).toString('base64url')}`
}

export function verifyCursor(token: string, secret: Uint8Array): Cursor {
  const [text = '', mac = ''] = token.split('.')
  const given = Buffer.from(mac, 'base64url')
  const expected = signature(text, secret)
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
    throw new AgentDBError('PROTOCOL', 'the cursor was not issued by this centre')
  }
  return JSON.parse(Buffer.from(text, 'base64url').toString()) as Cursor
}
