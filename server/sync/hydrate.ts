import { agentColumns, type TableDefinition } from '../../schema/define.ts'
import { profileKey, roleAccess, userKey } from '../../schema/role-access.ts'
import { allTables } from '../../schema/tables.ts'
import type { WireConflict, WireOutcome } from '../../sync/protocol/messages.ts'
import { ownPredicate } from '../../schema/postgres/access.ts'
import type { Database, Session } from '../postgres/database.ts'
import { readLog } from './log-entry.ts'
import { advance, latestBatch, type Batch } from './positions.ts'
import type { Principal } from './principal.ts'
import type { PullBuilder } from './pull-response.ts'

/**
 * Reads a whole scope as it is at one position: note a position, read the tables in one snapshot, make a batch whose
 * snapshot is later, and replay what the log has between. Pages alone would hold rows beyond their position.
 */
export async function hydrate(
  database: Database,
  builder: PullBuilder,
  scope: { principal: Principal; clientId: string; keys: readonly string[]; ackedSeq: number },
): Promise<Batch> {
  const from = await database.transaction(async (session) => {
    await session.query(`SET LOCAL timezone = 'UTC'`)
    const before = await latestBatch(session)
    for (const table of allTables) await readTable(session, builder, table, scope)
    await readClient(session, builder, scope)
    return before
  }, 'REPEATABLE READ READ ONLY')
  await advance(database, true)
  const to = await latestBatch(database)
  if (from === undefined || to === undefined)
    throw new Error('bug in AgentDB: the centre has no batch')
  const replay = await readLog(database, { from: from.snapshot, to: to.snapshot }, scope.keys)
  for (const entry of replay) builder.add(entry)
  return to
}

async function readTable(
  session: Session,
  builder: PullBuilder,
  table: TableDefinition,
  { principal }: { principal: Principal },
): Promise<void> {
  if (table.writeClass === 'push-only') return
  const columns = agentColumns(table).map((name) => `t.${name}`)
  const where = scopeCondition(table, principal)
  const { rows } = await session.query<{ id: string; image: string }>(
    `SELECT t.id, row_to_json(r)::text AS image FROM ${table.name} t, LATERAL (SELECT ${columns.join(', ')}) r WHERE ${where}`,
    where.includes('$1') ? [principal.userId] : [],
  )
  const keys = keysHeld(table, principal)
  for (const { id, image } of rows) {
    builder.add({ tbl: table.number, id, image, keysBefore: [], keysAfter: keys })
  }
}

function scopeCondition(table: TableDefinition, principal: Principal): string {
  const { owner } = table
  if (owner.kind === 'self') return 'true'
  if (owner.kind === 'shared' && roleAccess[principal.role].read.includes(owner.key)) return 'true'
  return ownPredicate(table, 't', '$1')
}

/** Keys under which rows of this table are in the scope; every row that was read has one of them. */
function keysHeld(table: TableDefinition, principal: Principal): string[] {
  return table.owner.kind === 'self' ? [profileKey] : [userKey(principal.userId)]
}

async function readClient(
  session: Session,
  builder: PullBuilder,
  { principal, clientId, ackedSeq }: { principal: Principal; clientId: string; ackedSeq: number },
): Promise<void> {
  const client = await session.query<{ seq: number; tx_id: string | null }>(
    'SELECT seq, tx_id FROM sync.client WHERE client_id = $1',
    [clientId],
  )
  const [mark] = client.rows
  if (mark?.tx_id != null) builder.addWatermark({ seq: mark.seq, id: mark.tx_id })
  const outcomes = await session.query<{ detail: WireOutcome }>(
    'SELECT detail FROM sync.outcome WHERE client_id = $1 AND seq > $2 ORDER BY seq, n',
    [clientId, ackedSeq],
  )
  for (const { detail } of outcomes.rows) builder.addOutcome(detail)
  const conflicts = await session.query<{ detail: WireConflict }>(
    `SELECT l.image AS detail FROM sync.log l WHERE l.tbl = 102 AND l.keys_after && $1::text[] ORDER BY l.seq DESC LIMIT 1000`,
    [[userKey(principal.userId)]],
  )
  for (const { detail } of conflicts.rows) builder.addConflict(detail)
}
