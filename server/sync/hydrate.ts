import { gainedBetween } from '../../schema/columns-at.ts'
import { agentColumns, type TableDefinition } from '../../schema/define.ts'
import { AgentDBError } from '../../schema/errors.ts'
import { profileKey, roleAccess, userKey } from '../../schema/role-access.ts'
import { allTables, mustTable, tableOfNumber } from '../../schema/tables.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type { WireConflict, WireOutcome } from '../../sync/protocol/messages.ts'
import { ownPredicate } from '../../schema/postgres/access.ts'
import type { Database, Session } from '../postgres/database.ts'
import { CONFLICTS_TOLD_MAX } from './forget.ts'
import { readLog } from './log-entry.ts'
import type { PageMark } from './cursor.ts'
import { advance, latestBatch, type Batch } from './positions.ts'
import type { Principal } from './principal.ts'
import type { PullBuilder } from './pull-response.ts'

/** Rows and bytes of one page; enough to keep both sides busy, little enough to hold in memory for each reader. */
const PAGE_ROWS = 5000
const PAGE_BYTES = 4 * 1024 * 1024

export interface Scope {
  readonly principal: Principal
  readonly clientId: string
  readonly keys: readonly string[]
  readonly ackedSeq: number
  /** The schema version whose tables are read; without, ours. */
  readonly schema?: number
}

/** The tables that are new, or gained columns, between two schema versions: all that an upgrade makes worth reading. */
export const tablesGained = (after: number, upTo: number): readonly TableDefinition[] =>
  allTables.filter((table) => table.writeClass !== 'push-only' && gainedBetween(table, after, upTo))

/** Tables that a hydration reads, in order. */
function tablesRead(
  { schema = SCHEMA_VERSION }: Scope,
  only?: readonly number[],
): TableDefinition[] {
  return allTables.filter(
    ({ number, since, writeClass }) =>
      writeClass !== 'push-only' && since <= schema && (only?.includes(number) ?? true),
  )
}

/**
 * A whole scope is read page by page (`SYNC-DESIGN.md` 1): note a position, read the tables in a fixed order, each page as
 * it then is, make a batch whose snapshot is later than the last page, and replay what the log has between. Pages alone
 * would hold rows beyond their position. The mark is all that goes from page to page, so that any server reads the next.
 */
export async function beginHydration(
  database: Database,
  scope: Scope,
): Promise<{ from: Batch; mark: PageMark }> {
  const from = await latestBatch(database)
  if (from === undefined) throw new Error('bug in AgentDB: the centre has no batch')
  return { from, mark: await firstMark(database, scope, from.nonce) }
}

/** The mark of a hydration that has read nothing yet: of all tables, or of some. */
export async function firstMark(
  database: Database,
  scope: Scope,
  history: string,
  only?: readonly number[],
): Promise<PageMark> {
  const { principal } = scope
  let total = 0
  for (const table of tablesRead(scope, only)) {
    const where = scopeCondition(table, principal)
    const { rows } = await database.query<{ count: number }>(
      `SELECT count(*)::integer AS count FROM ${table.name} t WHERE ${where}`,
      where.includes('$1') ? [principal.userId] : [],
    )
    total += rows[0]?.count ?? 0
  }
  const tables = only === undefined ? {} : { tables: only }
  return { table: allTables[0]?.number ?? 0, after: null, rows: 0, total, history, ...tables }
}

/** Reads the next page into a batch; undefined when it was the last. */
export async function readPage(
  database: Database,
  builder: PullBuilder,
  scope: Scope,
  mark: PageMark,
): Promise<PageMark | undefined> {
  let { rows } = mark
  let after = mark.after
  const room = { rows: PAGE_ROWS, bytes: PAGE_BYTES }
  const { principal } = scope
  return database.transaction(async (session) => {
    await session.query(`SET LOCAL timezone = 'UTC'`)
    for (const table of tablesRead(scope, mark.tables)) {
      if (table.number < mark.table) continue
      const read = await readTablePage(session, builder, table, { principal, after, room })
      rows += read.rows
      room.rows -= read.rows
      room.bytes -= read.bytes
      if (read.last !== undefined)
        return {
          ...mark,
          table: table.number,
          after: read.last,
          rows,
          total: Math.max(mark.total, rows),
        }
      after = null
    }
    return undefined
  })
}

/**
 * What a page is completed with at the end: what became of the client's own writes, and the log from the beginning on.
 * Where the batch is of another history than the mark, the pages are of no use: the database may have gone back, and of
 * what went with that no log tells.
 */
export async function finishHydration(
  database: Database,
  builder: PullBuilder,
  scope: Scope,
  from: { readonly snapshot: string },
): Promise<Batch> {
  await readClient(database, builder, scope)
  await advance(database, true)
  const to = await latestBatch(database)
  if (to === undefined) throw new Error('bug in AgentDB: the centre has no batch')
  const replay = await readLog(database, { from: from.snapshot, to: to.snapshot }, scope.keys)
  for (const entry of replay) builder.add(entry)
  return to
}

/** All pages at once, for whoever can hold them. */
export async function readScope(
  database: Database,
  builder: PullBuilder,
  scope: Scope,
): Promise<Batch> {
  const { from, mark } = await beginHydration(database, scope)
  for (let at: PageMark | undefined = mark; at !== undefined;)
    at = await readPage(database, builder, scope, at)
  const to = await finishHydration(database, builder, scope, from)
  if (to.nonce === mark.history) return to
  throw new AgentDBError('DATABASE_UNREACHABLE', 'the database of the centre was started again')
}

interface PageBounds {
  readonly principal: Principal
  readonly after: readonly string[] | null
  readonly room: Room
}

interface Room {
  readonly rows: number
  readonly bytes: number
}

/** `last` is the key of the row to go on after, where the page is full before the table is read. */
interface PartRead extends Room {
  readonly last: readonly string[] | undefined
}

async function readTablePage(
  session: Session,
  builder: PullBuilder,
  table: TableDefinition,
  bounds: PageBounds,
): Promise<PartRead> {
  const { owner } = table
  if (owner.kind === 'parent') return readByParent(session, builder, table, owner, bounds)
  const { principal, after, room } = bounds
  const where = scopeCondition(table, principal)
  const parameters: unknown[] = where.includes('$1') ? [principal.userId] : []
  const more = after === null ? '' : ` AND t.id > $${parameters.push(after[0])}`
  const sql = `${pageColumns(table)} WHERE ${where}${more} ORDER BY t.id LIMIT ${room.rows}`
  const keys = keysHeld(table, principal)
  return readPart(session, builder, { table, keys, sql, parameters, room, keyOf: ({ id }) => [id] })
}

const PARENTS_FIRST = 16
const PARENTS_MAX = 1000

/**
 * Rows that belong through a parent are read some parents at a time. In the order of their own ids alone, PostgreSQL would
 * sort all of them for every page, or compare every row of the table with every parent of the user.
 */
async function readByParent(
  session: Session,
  builder: PullBuilder,
  table: TableDefinition,
  owner: { readonly table: string; readonly column: string },
  { principal, after, room }: PageBounds,
): Promise<PartRead> {
  const own = ownPredicate(mustTable(owner.table), 'p', '$1')
  const keys = keysHeld(table, principal)
  let [parent = NIL, id = NIL] = after ?? []
  let wanted = PARENTS_FIRST
  const read = { rows: 0, bytes: 0 }
  for (;;) {
    const found = await session.query<{ id: string }>(
      `SELECT p.id FROM ${owner.table} p WHERE ${own} AND p.id >= $2 ORDER BY p.id LIMIT ${wanted}`,
      [principal.userId, parent],
    )
    const parents = found.rows.map((row) => row.id)
    const left = { rows: room.rows - read.rows, bytes: room.bytes - read.bytes }
    const part = await readPart(session, builder, {
      table,
      keys,
      sql: `${pageColumns(table, `t.${owner.column}`)}
        WHERE t.${owner.column} = ANY($1::uuid[]) AND (t.${owner.column}, t.id) > ($2, $3)
        ORDER BY t.${owner.column}, t.id LIMIT ${left.rows}`,
      parameters: [parents, parent, id],
      room: left,
      keyOf: (row) => [row.parent, row.id],
    })
    read.rows += part.rows
    read.bytes += part.bytes
    const lastParent = parents.at(-1)
    if (part.last !== undefined || lastParent === undefined || parents.length < wanted)
      return { ...read, last: part.last }
    parent = lastParent
    id = BEYOND_ALL
    wanted = likelyParents(parents.length, part.rows, room.rows - read.rows)
  }
}

/** Before and after all ids. */
const NIL = '00000000-0000-0000-0000-000000000000'
const BEYOND_ALL = 'ffffffff-ffff-ffff-ffff-ffffffffffff'

/** As many parents as have the rows that still fit, if they have as many as those before; and the one that was the last. */
const likelyParents = (parents: number, rows: number, room: number): number =>
  Math.min(PARENTS_MAX, Math.ceil((room * parents) / Math.max(rows, 1)) + 1)

/** `r` is the row as it is sent. */
const pageColumns = (table: TableDefinition, parent = 'NULL'): string =>
  `SELECT t.id, ${parent} AS parent, row_to_json(r)::text AS image FROM ${table.name} t, LATERAL (SELECT ${agentColumns(
    table,
  )
    .map((name) => `t.${name}`)
    .join(', ')}) r`

interface PageRow {
  readonly id: string
  readonly parent: string
  readonly image: string
}

interface Part {
  readonly table: TableDefinition
  readonly keys: readonly string[]
  readonly sql: string
  readonly parameters: unknown[]
  readonly room: Room
  readonly keyOf: (row: PageRow) => readonly string[]
}

/** With a cursor: rows may have a kilobyte or a megabyte, and only reading them tells. */
async function readPart(
  session: Session,
  builder: PullBuilder,
  { table, keys, sql, parameters, room, keyOf }: Part,
): Promise<PartRead> {
  await session.query(`DECLARE page NO SCROLL CURSOR FOR ${sql}`, parameters)
  let count = 0
  let bytes = 0
  let last: readonly string[] | undefined
  for (;;) {
    const wanted = Math.max(1, Math.min(room.rows - count, fetchSize(count, bytes, room.bytes)))
    const { rows } = await session.query<PageRow>(`FETCH ${wanted} FROM page`)
    for (const { id, image } of rows) {
      builder.add({ tbl: table.number, id, image, keysBefore: [], keysAfter: keys })
      bytes += image.length
    }
    const final = rows.at(-1)
    last = final === undefined || rows.length < wanted ? undefined : keyOf(final)
    count += rows.length
    if (last === undefined || count >= room.rows || bytes >= room.bytes) break
  }
  await session.query('CLOSE page')
  return { rows: count, bytes, last }
}

const FETCH_FIRST = 64

/** As many rows as fit the rest of the page, if they are as large as those before. */
function fetchSize(count: number, bytes: number, room: number): number {
  if (count === 0) return FETCH_FIRST
  return Math.ceil((room - bytes) / (bytes / count))
}

/** Reads rows of a table into a batch, under keys by which they are in its scope. `$1` of `where` is the user. */
export async function readRows(
  session: Session,
  builder: PullBuilder,
  table: TableDefinition,
  { where, userId, keys }: { where: string; userId: string; keys: readonly string[] },
): Promise<void> {
  const columns = agentColumns(table).map((name) => `t.${name}`)
  const { rows } = await session.query<{ id: string; image: string }>(
    `SELECT t.id, row_to_json(r)::text AS image FROM ${table.name} t, LATERAL (SELECT ${columns.join(', ')}) r WHERE ${where}`,
    where.includes('$1') ? [userId] : [],
  )
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
  // Not from the log: whoever was away for longer than that goes back must still hear of what it lost.
  const conflicts = await session.query<Omit<WireConflict, 'table'> & { tbl: number }>(
    `WITH own AS (SELECT client_id FROM sync.client WHERE user_id = $1),
    told AS (SELECT c.* FROM own JOIN sync.conflict c ON c.loser = own.client_id
      UNION SELECT c.* FROM own JOIN sync.conflict c ON c.winner = own.client_id)
    SELECT id, to_jsonb(at) #>> '{}' AS at, tbl, row_id AS "rowId", loser, winner, lost, kept FROM told
    ORDER BY told.at DESC LIMIT $2`,
    [principal.userId, CONFLICTS_TOLD_MAX],
  )
  for (const { tbl, ...conflict } of conflicts.rows) {
    const table = tableOfNumber(tbl)?.name
    if (table !== undefined) builder.addConflict({ ...conflict, table })
  }
}
