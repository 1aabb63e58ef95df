import type { Stored, StoredRow } from '../../../schema/codec.ts'
import { agentColumnsAt } from '../../../schema/columns-at.ts'
import type { TableDefinition } from '../../../schema/define.ts'
import { mergeUnit } from '../../../schema/merge-policy.ts'
import { allTables, mustTable, tableOfNumber } from '../../../schema/tables.ts'
import { users } from '../../../schema/tables/users.ts'
import { verifyCursor } from '../../../server/sync/cursor.ts'
import { decodeImage } from '../../../sync/client/image.ts'
import type { SimAgent } from '../agent.ts'
import { CURSOR_SECRET } from '../centre/feed.ts'
import { isVisibleIn, rowKey, type ModelDatabase, type Past } from '../centre/model-database.ts'
import { equal } from './equal.ts'
import { mayHold, profileOf } from './scope.ts'
import { must, Violation } from './violation.ts'

interface State {
  readonly client_id: string
  readonly user_id: string
  readonly nonce: string | null
  readonly position: number
  readonly cursor: string | null
  /** In the middle of reading the whole scope: the rows are of no one position. */
  readonly page_cursor: string | null
  readonly acked_seq: number
  /** The centre went back, and the scope is to be read again. */
  readonly healing: number
}

const synced = allTables.filter(({ writeClass }) => writeClass !== 'push-only')

/** Where an agent stood when it was looked at last (I4). */
export interface Seen {
  nonce: string | null
  position: number
}

/** All that must hold of one agent at any moment, looked at from outside: its file against the model's past. */
export function checkAgent(agent: SimAgent, model: ModelDatabase | undefined, seen: Seen): void {
  const { name, connection } = agent
  for (const failure of agent.failures) throw new Violation('engine', `${name}: ${failure}`)
  const state = connection.get<State>(
    'SELECT client_id, user_id, nonce, position, cursor, page_cursor, acked_seq, healing FROM sync_state',
  )
  if (state === undefined) throw new Violation('I14', `${name}: the store has lost its identity`)
  must(
    state.nonce !== seen.nonce || state.position >= seen.position,
    'I4',
    () => `${name} went back from ${seen.position} to ${state.position}`,
  )
  seen.nonce = state.nonce
  seen.position = state.position
  checkCommits(agent, state)
  // What goes back into the queue shows once the scope was read.
  if (state.healing === 0) checkPending(agent)
  agent.decisions.check(connection, name)
  checkLocalRules(agent, state)
  if (model !== undefined && state.cursor !== null && state.page_cursor === null)
    checkAgainstCentre(agent, state, model)
}

/** A local commit is in the queue until a batch has acknowledged it (I3, I14). */
function checkCommits(agent: SimAgent, { acked_seq: acked }: State): void {
  const { name, connection, commits, settled } = agent
  const queued = new Map(
    connection
      .all<{ id: string; seq: number; n: number }>(
        'SELECT t.id, t.seq, (SELECT count(*) FROM sync_log l WHERE l.tx = t.seq) AS n FROM sync_tx t',
      )
      .map(({ id, seq, n }) => [id, { seq, n }]),
  )
  let known: ReadonlySet<string> | undefined
  for (const { id, mutations } of commits.values()) {
    const row = queued.get(id)
    if (row === undefined) {
      if (settled.has(id)) continue
      known ??= agent.acknowledged()
      const isEmpty = mutations.every(({ pushed }) => pushed === 0)
      must(
        known.has(id) || isEmpty,
        'I14',
        () => `${name}: transaction ${id} is neither in the queue nor acknowledged (${acked})`,
      )
      settled.add(id)
      continue
    }
    must(
      row.seq > acked && !settled.has(id),
      'I9',
      () => `${name}: transaction ${row.seq} is acknowledged and still in the queue`,
    )
    must(
      row.n === mutations.length,
      'I14',
      () =>
        `${name}: transaction ${row.seq} had ${mutations.length} mutations, the queue has ${row.n}`,
    )
  }
}

/** What is pending shows, or says why not (I3). */
function checkPending({ name, connection, build }: SimAgent): void {
  const rows = new Map<
    string,
    { table: TableDefinition; id: string; op: string; patch: StoredRow }
  >()
  const log = connection.all<{ tbl: number; id: string; op: string; patch: string | null }>(
    `SELECT tbl, id, op, patch FROM ${build.loggedMutations} WHERE blocked = 0 ORDER BY n`,
  )
  for (const { tbl, id, op, patch } of log) {
    const table = tableOfNumber(tbl)
    if (table === undefined) continue
    const key = rowKey(tbl, id)
    const before = op === 'insert' ? {} : (rows.get(key)?.patch ?? {})
    const more = patch === null ? {} : decodeImage(table, patch)
    rows.set(key, { table, id, op, patch: { ...before, ...more } })
  }
  const stubs = new Set(
    connection
      .all<{ id: string; tbl: number }>('SELECT id, tbl FROM sync_stub')
      .map(({ id, tbl }) => rowKey(tbl, id)),
  )
  for (const { table, id, op, patch } of rows.values()) {
    const row = connection.get<StoredRow>(`SELECT * FROM ${table.name} WHERE id = ?`, id)
    // A row that others still refer to stays as a stub, which is hidden.
    const isGone = row === undefined || stubs.has(rowKey(table.number, id))
    const shows =
      op === 'delete'
        ? isGone
        : row !== undefined &&
          Object.keys(patch).every(
            (column) => isCombined(table, column) || equal(row[column], patch[column]),
          )
    must(
      shows,
      'I3',
      () =>
        `${name}: the pending ${op} of ${table.name} ${id} does not show: ${JSON.stringify({ row, patch })}`,
    )
  }
  const hidden = connection.get<{ tx: number; id: string }>(
    `SELECT l.tx, l.id FROM sync_log l WHERE l.blocked = 1 AND NOT EXISTS
      (SELECT 1 FROM sync_conflicts c WHERE c.state = 'blocked' AND c.tx = l.tx AND c.row_id = l.id)`,
  )
  must(
    hidden === undefined,
    'I3',
    () => `${name}: ${hidden?.id} of ${hidden?.tx} is hidden and nobody is told`,
  )
}

/** Whether what shows of a pending change depends on what others wrote: the oracle checks these once they are merged. */
function isCombined(table: TableDefinition, column: string): boolean {
  const { policy } = mergeUnit(table, column)
  return policy !== 'lww' && policy !== 'reject'
}

/** Foreign keys hold at each commit (I12), and counters count what is there. */
function checkLocalRules({ name, connection }: SimAgent, state: State): void {
  const broken = connection.all('PRAGMA foreign_key_check')
  must(broken.length === 0, 'I12', () => `${name}: foreign keys: ${JSON.stringify(broken)}`)
  const applying = connection.get<{ applying: number }>('SELECT applying FROM sync_state')
  must(applying?.applying === 0, 'I2', () => `${name}: is left in the middle of a batch`)
  // Between two pages of the whole scope a conversation may be there without its messages.
  if (state.page_cursor !== null || state.cursor === null) return
  const miscounted = connection.get<{ id: string }>(
    `SELECT c.id FROM conversations c WHERE NOT EXISTS (SELECT 1 FROM sync_stub s WHERE s.id = c.id)
      AND (c.message_count, c.total_tokens) IS NOT (SELECT count(*), coalesce(sum(m.tokens_used), 0) FROM messages m WHERE m.conversation_id = c.id)`,
  )
  must(
    miscounted === undefined,
    'derived',
    () => `${name}: statistics of conversation ${miscounted?.id}`,
  )
}

/** The same scope at the same position is the same rows (I1, I2, I11), and as much is acknowledged as had been applied (I3). */
function checkAgainstCentre(agent: SimAgent, state: State, model: ModelDatabase): void {
  const { name, connection } = agent
  // Where the centre went back and this store has not heard of it, that is a history which was lost.
  const past = model.pastOf(state.nonce, state.position)
  if (past === undefined)
    throw new Violation('I4', `${name} is at ${state.position} of ${state.nonce}, which never was`)
  const isVisible = isVisibleIn(past.batch.snapshot)
  const mark = past.clients.at(state.client_id, isVisible)
  must(
    (mark?.seq ?? 0) === state.acked_seq,
    'I3',
    () =>
      `${name} takes ${state.acked_seq} for acknowledged; at ${state.position} the centre had ${mark?.seq ?? 0}`,
  )
  const { scope: role, schema } = verifyCursor(state.cursor ?? '', CURSOR_SECRET)
  mustHaveHadRole(agent, role, { state, past, isVisible })
  const at = (table: TableDefinition, id: string): StoredRow | undefined =>
    past.rows.at(rowKey(table.number, id), isVisible)
  const expected = new Map<string, StoredRow>()
  for (const key of past.rows.keys()) {
    const [number = '', id = ''] = key.split(':')
    const table = tableOfNumber(Number(number))
    const row = table === undefined ? undefined : at(table, id)
    if (table === undefined || row === undefined || table.writeClass === 'push-only') continue
    if (table.since > schema) continue
    const find = (target: string, parent: unknown): StoredRow | undefined =>
      at(mustTable(target), String(parent))
    if (!mayHold({ id: state.user_id, role }, table.name, row, find)) continue
    expected.set(key, table.name === 'users' && id !== state.user_id ? profileOf(row) : row)
  }
  compare(`${name} at ${state.position}`, schema, expected, authoritativeRows(connection, schema))
}

/** The role that the store's scope was made for is one that the user had at the position or has had since. */
function mustHaveHadRole(
  agent: SimAgent,
  role: string,
  { state, past, isVisible }: { state: State; past: Past; isVisible: (xid: number) => boolean },
): void {
  const key = rowKey(users.number, state.user_id)
  const then = past.rows.at(key, isVisible)?.['role']
  const since = past.rows
    .versions(key)
    .filter(({ xid }) => !isVisible(xid))
    .map(({ value }) => value?.['role'])
  must(
    [then, ...since].includes(role),
    'I11',
    () => `${agent.name} holds the scope of a ${role}; its user was a ${String(then)}`,
  )
}

/**
 * What the store takes for the centre's: without stubs, and with what is pending taken off. Of tables that came after the
 * schema version up to which it has read, nothing.
 */
function authoritativeRows(
  connection: SimAgent['connection'],
  schema: number,
): Map<string, StoredRow> {
  const rows = new Map<string, StoredRow>()
  const other = new Set(
    connection
      .all<{ tbl: number; id: string }>(
        `SELECT tbl, id FROM sync_stub UNION ALL SELECT l.tbl, l.id FROM sync_log l WHERE l.op = 'insert'
          AND NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = l.id AND b.tbl = l.tbl)`,
      )
      .map(({ tbl, id }) => rowKey(tbl, id)),
  )
  for (const table of synced) {
    if (table.since > schema) continue
    for (const row of connection.all<StoredRow>(`SELECT * FROM ${table.name}`)) {
      const key = rowKey(table.number, String(row['id']))
      if (!other.has(key)) rows.set(key, row)
    }
  }
  for (const { tbl, id, image } of connection.all<{
    tbl: number
    id: string
    image: string | null
  }>('SELECT tbl, id, image FROM sync_base')) {
    const table = tableOfNumber(tbl)
    if (table !== undefined && table.since > schema) continue
    if (image === null || table === undefined) rows.delete(rowKey(tbl, id))
    else rows.set(rowKey(tbl, id), decodeImage(table, image))
  }
  return rows
}

/** Column by column of those that came up to a schema version. */
function compare(
  where: string,
  schema: number,
  expected: ReadonlyMap<string, StoredRow>,
  actual: ReadonlyMap<string, StoredRow>,
): void {
  for (const [key, row] of expected) {
    const table = tableOfNumber(Number(key.split(':')[0]))
    const own = actual.get(key)
    if (table === undefined) continue
    must(own !== undefined, 'I1', () => `${where} lacks ${table.name} ${key}`)
    for (const column of agentColumnsAt(table, schema))
      must(
        equal(own?.[column], row[column]),
        'I1',
        () =>
          `${where}: ${table.name} ${key} ${column} is ${show(own?.[column])}, at the centre ${show(row[column])}`,
      )
  }
  for (const key of actual.keys())
    must(
      expected.has(key),
      'I11',
      () =>
        `${where} holds ${tableOfNumber(Number(key.split(':')[0]))?.name} ${key}, which it must not`,
    )
}

const show = (value: Stored | undefined): string =>
  value instanceof Uint8Array ? Buffer.from(value).toString('hex') : JSON.stringify(value)
