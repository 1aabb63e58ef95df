import { references, type TableDefinition } from '../../../schema/define.ts'
import { allTables, referencesTo } from '../../../schema/tables.ts'
import type { Session } from '../../postgres/database.ts'
import type { ClientTransaction } from './transaction.ts'

type Strength = 'FOR UPDATE' | 'FOR NO KEY UPDATE' | 'FOR KEY SHARE'
const strengths: readonly Strength[] = ['FOR UPDATE', 'FOR NO KEY UPDATE', 'FOR KEY SHARE']

/**
 * Locks all that a group of transactions will touch, in one sorted pass before anything is read: tables in order of
 * definition, the stronger lock first, ids ascending. Rows to delete and their descendants FOR UPDATE, rows to change
 * and rows that triggers will touch FOR NO KEY UPDATE, parents of inserts FOR KEY SHARE.
 */
export async function lockRows(
  session: Session,
  transactions: readonly ClientTransaction[],
): Promise<void> {
  const wanted = collect(transactions)
  await wantConversationsOfDeleted(session, wanted)
  for (const table of allTables) {
    for (const strength of strengths) {
      const ids = wanted.get(table.name)?.get(strength)
      if (ids === undefined) continue
      // A stronger lock holds already.
      for (const stronger of strengths.slice(0, strengths.indexOf(strength)))
        for (const id of wanted.get(table.name)?.get(stronger) ?? []) ids.delete(id)
      if (ids.size === 0) continue
      await session.query(
        `SELECT 1 FROM ${table.name} WHERE id = ANY($1::uuid[]) ORDER BY id ${strength}`,
        [[...ids]],
      )
      if (strength === 'FOR UPDATE') await wantDescendants(session, wanted, table, [...ids])
    }
  }
}

type Wanted = Map<string, Map<Strength, Set<string>>>

function want(wanted: Wanted, table: string, strength: Strength, id: string): void {
  let byStrength = wanted.get(table)
  if (byStrength === undefined) wanted.set(table, (byStrength = new Map()))
  let ids = byStrength.get(strength)
  if (ids === undefined) byStrength.set(strength, (ids = new Set()))
  ids.add(id)
}

function collect(transactions: readonly ClientTransaction[]): Wanted {
  const wanted: Wanted = new Map()
  for (const { mutations } of transactions) {
    for (const mutation of mutations) {
      if (mutation.table === undefined || mutation.refusal !== undefined) continue
      const { table, op, id, patch } = mutation
      if (op === 'delete') want(wanted, table.name, 'FOR UPDATE', id)
      if (op === 'update') want(wanted, table.name, 'FOR NO KEY UPDATE', id)
      for (const { column, target } of references(table)) {
        const parent = patch[column]
        if (typeof parent === 'string') want(wanted, target, 'FOR KEY SHARE', parent)
      }
      // The statistics trigger of messages updates their conversation.
      const conversation = patch['conversation_id']
      if (table.name === 'messages' && typeof conversation === 'string') {
        want(wanted, 'conversations', 'FOR NO KEY UPDATE', conversation)
      }
    }
  }
  return wanted
}

/** Children come after their parents in the order of tables, so their locks are still to be taken. */
async function wantDescendants(
  session: Session,
  wanted: Wanted,
  parent: TableDefinition,
  ids: readonly string[],
): Promise<void> {
  for (const { table, column, onDelete } of referencesTo.get(parent.name) ?? []) {
    const { rows } = await session.query<{ id: string }>(
      `SELECT id FROM ${table.name} WHERE ${column} = ANY($1::uuid[])`,
      [ids],
    )
    const strength = onDelete === 'cascade' ? 'FOR UPDATE' : 'FOR NO KEY UPDATE'
    for (const { id } of rows) want(wanted, table.name, strength, id)
  }
}

/** The statistics trigger of messages updates the conversations of those that go; they are locked before the messages. */
async function wantConversationsOfDeleted(session: Session, wanted: Wanted): Promise<void> {
  const messages = wanted.get('messages')?.get('FOR UPDATE')
  if (messages === undefined) return
  const { rows } = await session.query<{ id: string }>(
    'SELECT DISTINCT conversation_id AS id FROM messages WHERE id = ANY($1::uuid[])',
    [[...messages]],
  )
  for (const { id } of rows) want(wanted, 'conversations', 'FOR NO KEY UPDATE', id)
}
