import type { StoredRow } from '../../../schema/codec.ts'
import { mustColumn, type TableDefinition } from '../../../schema/define.ts'
import { appRole } from '../../../schema/postgres/access.ts'
import { postgresType } from '../../../schema/postgres/ddl.ts'
import { allTables } from '../../../schema/tables.ts'
import type { Session } from '../../postgres/database.ts'
import { toPostgresText } from '../../postgres/values.ts'
import type { Principal } from '../principal.ts'
import type { Write } from './decision.ts'

/** A statement that touched fewer rows than it should: row-level security said no. */
export class HiddenRowError extends Error {
  readonly code = '42501'
}

/** One statement's share of a row: all writes of a run to it taken together. */
interface RowWrite {
  readonly table: TableDefinition
  readonly op: Write['op']
  readonly id: string
  readonly values: StoredRow
}

/**
 * Carries writes out under the role that owns nothing, with the user's claims set: row-level security and column grants
 * judge every statement again. Set-based: one statement per table, operation and set of columns; parents are inserted
 * first and deleted last.
 */
export async function writeRows(
  session: Session,
  actor: { principal: Principal; clientId: string },
  writes: readonly Write[],
): Promise<void> {
  if (writes.length === 0) return
  await session.query(
    `SELECT set_config('app.user_id', $1, true), set_config('app.user_role', $2, true), set_config('agentdb.client', $3, true), set_config('role', '${appRole}', true)`,
    [actor.principal.userId, actor.principal.role, actor.clientId],
  )
  for (const run of runsOf(writes)) await writeRun(session, coalesce(run))
  await session.query('RESET ROLE')
}

/** Inserts, then updates, then deletes. */
async function writeRun(session: Session, rows: readonly RowWrite[]): Promise<void> {
  for (const table of allTables) {
    for (const group of byColumns(rows, table, 'insert')) await insertRows(session, table, group)
  }
  for (const table of allTables) {
    for (const group of byColumns(rows, table, 'update')) await updateRows(session, table, group)
  }
  for (const table of allTables.toReversed()) {
    const ids = rows.filter((row) => row.table === table && row.op === 'delete').map(({ id }) => id)
    if (ids.length > 0) await deleteRows(session, table, ids)
  }
}

/**
 * Cuts the writes before one that may take a unique key which a deleted row has freed: within a run deletes come last,
 * and the key would still be taken.
 */
function runsOf(writes: readonly Write[]): Write[][] {
  let run: Write[] = []
  const runs = [run]
  const freed = new Set<TableDefinition>()
  for (const write of writes) {
    if (freed.has(write.table) && setsUniqueKey(write)) {
      runs.push((run = []))
      freed.clear()
    }
    if (write.op === 'delete') freed.add(write.table)
    run.push(write)
  }
  return runs
}

const setsUniqueKey = ({ table, values }: Write): boolean =>
  table.uniques.some(({ columns }) => columns.some((column) => Object.hasOwn(values, column)))

/**
 * Several writes of one row become one. What is made and deleted in the same group is still made and deleted: only so
 * the triggers leave a tombstone, and what comes for the row later hears that it was deleted.
 */
function coalesce(writes: readonly Write[]): RowWrite[] {
  const rows = new Map<string, RowWrite>()
  const deletes: RowWrite[] = []
  for (const { table, op, id, values } of writes) {
    const key = `${table.number}:${id}`
    const before = rows.get(key)
    if (op === 'delete') {
      if (before?.op === 'update') rows.delete(key)
      deletes.push({ table, op, id, values })
    } else if (before === undefined) rows.set(key, { table, op, id, values })
    else rows.set(key, { ...before, values: { ...before.values, ...values } })
  }
  return [...rows.values(), ...deletes]
}

/** Rows of one operation that set the same columns, ids ascending. */
function byColumns(
  rows: readonly RowWrite[],
  table: TableDefinition,
  op: Write['op'],
): RowWrite[][] {
  const groups = new Map<string, RowWrite[]>()
  for (const row of rows) {
    if (row.table !== table || row.op !== op) continue
    const key = Object.keys(row.values).toSorted().join(',')
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [row])
    else group.push(row)
  }
  return [...groups.values()].map((group) => group.toSorted((a, b) => (a.id < b.id ? -1 : 1)))
}

const cast = (table: TableDefinition, column: string): string =>
  `u.${column}::${postgresType(mustColumn(table, column))}`

/** Each column as one text array; nested arrays would be flattened by `unnest`, so arrays travel as literals. */
function columnArrays(
  table: TableDefinition,
  rows: readonly RowWrite[],
  columns: readonly string[],
): (string | null)[][] {
  return columns.map((column) => {
    const shape = mustColumn(table, column)
    return rows.map(({ values }) => toPostgresText(shape, values[column] ?? null))
  })
}

const unnest = (columns: readonly string[], first: number): string =>
  `unnest(${columns.map((_, i) => `$${first + i}::text[]`).join(', ')}) AS u(${columns.join(', ')})`

async function insertRows(
  session: Session,
  table: TableDefinition,
  rows: readonly RowWrite[],
): Promise<void> {
  const columns = Object.keys(rows[0]?.values ?? {}).toSorted()
  const { rowCount } = await session.query(
    `INSERT INTO ${table.name} (${columns.join(', ')}) SELECT ${columns.map((column) => cast(table, column)).join(', ')} FROM ${unnest(columns, 1)}`,
    columnArrays(table, rows, columns),
  )
  mustTouch(table, rowCount, rows.length)
}

async function updateRows(
  session: Session,
  table: TableDefinition,
  rows: readonly RowWrite[],
): Promise<void> {
  const columns = Object.keys(rows[0]?.values ?? {}).toSorted()
  if (columns.length === 0) return
  const set = columns.map((column) => `${column} = ${cast(table, column)}`).join(', ')
  const { rowCount } = await session.query(
    `UPDATE ${table.name} t SET ${set} FROM ${unnest(['row_id', ...columns], 1)} WHERE t.id = u.row_id::uuid`,
    [rows.map(({ id }) => id), ...columnArrays(table, rows, columns)],
  )
  mustTouch(table, rowCount, rows.length)
}

async function deleteRows(
  session: Session,
  table: TableDefinition,
  ids: readonly string[],
): Promise<void> {
  const { rowCount } = await session.query(`DELETE FROM ${table.name} WHERE id = ANY($1::uuid[])`, [
    ids,
  ])
  mustTouch(table, rowCount, ids.length)
}

function mustTouch(table: TableDefinition, touched: number, wanted: number): void {
  if (touched !== wanted)
    throw new HiddenRowError(`row-level security hides ${wanted - touched} rows of ${table.name}`)
}
