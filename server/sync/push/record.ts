import { clientKey, userKey } from '../../../schema/role-access.ts'
import { newId } from '../../../schema/values/id.ts'
import type { WireConflict } from '../../../sync/protocol/messages.ts'
import { LogKind } from '../../../sync/protocol/version.ts'
import type { Session } from '../../postgres/database.ts'
import type { Decision, LostValue, Write } from './decision.ts'
import { jsonRow } from './row-json.ts'
import { isParked } from './missing.ts'
import type { ClientTransaction } from './transaction.ts'

/** A group as it was decided. */
export interface RecordedGroup {
  /** Transactions that the centre did not have yet, and what was decided on each. */
  readonly fresh: readonly ClientTransaction[]
  readonly decisions: readonly Decision[]
  /** Where the watermark goes. */
  readonly last: ClientTransaction | undefined
}

/**
 * Writes what became of a group beside its rows, in the same transaction: watermark, outcomes, conflicts, clocks. All
 * of it goes through the log, so that a client learns it in the batch that holds the rows, neither before nor after.
 */
export async function recordGroup(
  session: Session,
  clientId: string,
  { fresh, decisions, last }: RecordedGroup,
): Promise<void> {
  if (last === undefined) return
  await stampClocks(
    session,
    clientId,
    decisions.flatMap(({ writes }) => writes),
  )
  await recordOutcomes(session, clientId, decisions)
  await recordConflicts(
    session,
    decisions.flatMap(({ conflicts }) => conflicts),
  )
  const settled = fresh.filter((_, i) => {
    const decision = decisions[i]
    return decision !== undefined && !isParked(decision)
  })
  const watermark = JSON.stringify({ seq: last.seq, id: last.id })
  await session.query(
    `WITH applied AS (INSERT INTO sync.applied (tx_id, client_id, seq, clock, at)
      SELECT u.id, $1, u.seq, u.clock, greatest(now(), to_timestamp(u.claimed / 1e6)) FROM unnest($2::text[], $3::bigint[], $8::bigint[], $9::bigint[]) u(id, seq, clock, claimed)),
    moved AS (UPDATE sync.client SET seq = $4, tx_id = $5, seen_at = now() WHERE client_id = $1)
    INSERT INTO sync.log (tbl, id, op, image, keys_after) VALUES (${LogKind.watermark}, $1, 'insert', $6, $7)`,
    [
      clientId,
      settled.map(({ id }) => id),
      settled.map(({ seq }) => seq),
      last.seq,
      last.id,
      watermark,
      [clientKey(clientId)],
      settled.map(({ clock }) => clock),
      // Known for as long as anyone who brings it again calls it recent.
      settled.map(({ claimedClock }) => claimedClock),
    ],
  )
}

/** The triggers stamped the time of the statement; what counts is the clock of the mutation. */
async function stampClocks(
  session: Session,
  clientId: string,
  writes: readonly Write[],
): Promise<void> {
  const clocks = new Map<string, { tbl: number; id: string; columns: Map<string, unknown[]> }>()
  for (const { table, op, id, values, clock, unseen = {} } of writes) {
    if (op !== 'update') continue
    const key = `${table.number}:${id}`
    const entry = clocks.get(key) ?? {
      tbl: table.number,
      id,
      columns: new Map<string, unknown[]>(),
    }
    for (const column of Object.keys(values)) {
      const others = unseen[column]
      entry.columns.set(column, others === undefined ? [clock] : [clock, others])
    }
    clocks.set(key, entry)
  }
  const list = [...clocks.values()]
  if (list.length === 0) return
  await session.query(
    `UPDATE sync.row_meta m SET cols = m.cols || s.stamps
    FROM (SELECT u.tbl, u.id, (SELECT coalesce(jsonb_object_agg(c.key, jsonb_build_array(pg_current_xact_id()::text, c.value -> 0, $4::text) || (c.value - 0)), '{}') FROM jsonb_each(u.clocks) c) AS stamps
      FROM unnest($1::smallint[], $2::uuid[], $3::jsonb[]) u(tbl, id, clocks)) s
    WHERE m.tbl = s.tbl AND m.id = s.id AND NOT m.deleted`,
    [
      list.map(({ tbl }) => tbl),
      list.map(({ id }) => id),
      list.map(({ columns }) => JSON.stringify(Object.fromEntries(columns))),
      clientId,
    ],
  )
}

async function recordOutcomes(
  session: Session,
  clientId: string,
  decisions: readonly Decision[],
): Promise<void> {
  const outcomes = decisions.flatMap((decision) => decision.outcomes)
  if (outcomes.length === 0) return
  await session.query(
    `INSERT INTO sync.outcome (client_id, seq, n, kind, detail)
    SELECT $1, u.seq, u.n, u.kind, u.detail FROM unnest($2::bigint[], $3::integer[], $4::text[], $5::jsonb[]) u(seq, n, kind, detail)`,
    [
      clientId,
      outcomes.map(({ seq }) => seq),
      outcomes.map(({ n }) => n),
      outcomes.map(({ kind }) => kind),
      outcomes.map((outcome) => JSON.stringify(outcome)),
    ],
  )
  const rejected = decisions.flatMap(({ rejectedRows, outcomes: [first] }) =>
    rejectedRows.map((row) => ({ ...row, seq: first?.seq ?? 0 })),
  )
  await session.query(
    `INSERT INTO sync.rejected (client_id, tbl, id, seq, n) SELECT $1, u.tbl, u.id, u.seq, u.n
    FROM unnest($2::smallint[], $3::uuid[], $4::bigint[], $5::integer[]) u(tbl, id, seq, n) ON CONFLICT DO NOTHING`,
    [
      clientId,
      rejected.map(({ table }) => table.number),
      rejected.map(({ id }) => id),
      rejected.map(({ seq }) => seq),
      rejected.map(({ n }) => n),
    ],
  )
  await log(
    session,
    LogKind.outcome,
    outcomes.map((outcome) => ({ id: clientId, image: outcome, keys: [clientKey(clientId)] })),
  )
}

/** Both sides of a lost value learn of it: every client of the users whose clients wrote it and overwrote it. */
async function recordConflicts(session: Session, conflicts: readonly LostValue[]): Promise<void> {
  for (const { table, id, loser, winner, lost, kept, placeholders } of conflicts) {
    const record: WireConflict = {
      id: newId(),
      at: new Date().toISOString(),
      table: table.name,
      rowId: id,
      loser,
      winner,
      lost: jsonRow(table, lost, placeholders?.lost),
      kept: jsonRow(table, kept, placeholders?.kept),
    }
    await session.query(
      'INSERT INTO sync.conflict (id, tbl, row_id, loser, winner, lost, kept) VALUES ($1, $2, $3, $4, $5, $6, $7)',
      [
        record.id,
        table.number,
        id,
        loser,
        winner,
        JSON.stringify(record.lost),
        JSON.stringify(record.kept),
      ],
    )
    const users = await session.query<{ user_id: string }>(
      'SELECT DISTINCT user_id FROM sync.client WHERE client_id = ANY($1::uuid[])',
      [[loser, winner].filter((client) => client !== null)],
    )
    await log(session, LogKind.conflict, [
      { id: record.id, image: record, keys: users.rows.map(({ user_id }) => userKey(user_id)) },
    ])
  }
}

async function log(
  session: Session,
  kind: number,
  entries: readonly { id: string; image: unknown; keys: readonly string[] }[],
): Promise<void> {
  await session.query(
    `INSERT INTO sync.log (tbl, id, op, image, keys_after)
    SELECT $1, u.id, 'insert', u.image, ARRAY(SELECT jsonb_array_elements_text(u.keys))
    FROM unnest($2::uuid[], $3::jsonb[], $4::jsonb[]) u(id, image, keys)`,
    [
      kind,
      entries.map(({ id }) => id),
      entries.map(({ image }) => JSON.stringify(image)),
      entries.map(({ keys }) => JSON.stringify(keys)),
    ],
  )
}
