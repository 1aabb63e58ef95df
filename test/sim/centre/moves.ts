import type { StoredRow } from '../../../schema/codec.ts'
import type { TableDefinition } from '../../../schema/define.ts'
import { allTables, mustTable } from '../../../schema/tables.ts'
import { canonicalJson } from '../../../schema/values/canonical-json.ts'
import { rowKey, type ModelDatabase, type Transaction } from './model-database.ts'

/** Tables whose rows belong to whom a row of this one belongs to. */
export const tablesBelow = (table: TableDefinition): TableDefinition[] =>
  allTables.filter(({ owner }) => owner.kind === 'parent' && owner.table === table.name)

/** The entry of a row in `sync.row_meta`, as a lock. */
export const metaLock = (table: TableDefinition, id: string): string =>
  `meta:${rowKey(table.number, id)}`

interface Ref {
  readonly table: TableDefinition
  readonly id: string
}

/** Whether an update gives a row that has others below it to another user. */
export function isGivenAway(table: TableDefinition, before: StoredRow, after: StoredRow): boolean {
  const { owner } = table
  return (
    owner.kind === 'column' &&
    before[owner.column] !== after[owner.column] &&
    (tablesBelow(table).length > 0 || table.name === 'conversations')
  )
}

/** The user's embeddings of a conversation, which go along with it (`docs/decisions/0007`). */
export function embeddingsAlong(
  database: ModelDatabase,
  transaction: Transaction,
  conversation: StoredRow,
): StoredRow[] {
  return [...database.rowsOf(mustTable('embeddings').number, transaction)]
    .filter(
      (row) =>
        row['collection'] === 'conversation_embeddings' &&
        row['user_id'] === conversation['user_id'] &&
        payloadOf(row)['conversation_id'] === conversation['id'],
    )
    .toSorted((a, b) => (String(a['id']) < String(b['id']) ? -1 : 1))
}

/** What becomes of such an embedding. */
export function givenAlong(row: StoredRow, from: unknown, to: string): StoredRow {
  const payload = payloadOf(row)
  const follows = payload['user_id'] === from
  return {
    ...row,
    user_id: to,
    ...(follows ? { payload: canonicalJson({ ...payload, user_id: to }) } : {}),
  }
}

const payloadOf = (row: StoredRow): Record<string, unknown> =>
  (JSON.parse(String(row['payload'])) ?? {}) as Record<string, unknown>

/**
 * Locks the entries of all rows below one that is given away, level by level. Its own entry first: who makes a child holds
 * that for sharing, and so either is done, and the child moves along, or waits and reads the new keys.
 */
export async function lockRowsBelow(
  database: ModelDatabase,
  transaction: Transaction,
  { table, id }: Ref,
): Promise<Ref[]> {
  await transaction.lock(metaLock(table, id), 'update')
  const below: Ref[] = []
  for (const child of tablesBelow(table)) {
    const { owner } = child
    if (owner.kind !== 'parent') continue
    const ids = [...database.rowsOf(child.number, transaction)]
      .filter((row) => row[owner.column] === id)
      .map((row) => String(row['id']))
      .toSorted()
    for (const own of ids) {
      const ref = { table: child, id: own }
      below.push(ref, ...(await lockRowsBelow(database, transaction, ref)))
    }
  }
  return below
}
