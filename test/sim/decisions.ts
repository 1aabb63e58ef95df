import { encodeColumn, type Stored, type StoredRow } from '../../schema/codec.ts'
import { mustColumn, type TableDefinition } from '../../schema/define.ts'
import { mergeUnit } from '../../schema/merge-policy.ts'
import { mustTable } from '../../schema/tables.ts'
import { newId } from '../../schema/values/id.ts'
import type { AgentDB } from '../../src/index.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import { equal } from './checks/equal.ts'
import { must } from './checks/violation.ts'
import type { Random } from './random.ts'
import { carry } from './three-way.ts'

/** What a person decided of a conflict. */
export interface Decided {
  readonly id: string
  readonly how: 'retried' | 'discarded'
}

type Conflict = ReturnType<AgentDB['syncConflicts']['list']>[number]
type Patch = Readonly<Record<string, unknown>>

/** Programs that decide conflicts: what was refused or lost is sent again, or given up. */
export const decisionSteps: Readonly<
  Record<string, (db: AgentDB, random: Random, connection: Connection) => Decided | undefined>
> = {
  'retry conflict': (db, random, connection) => {
    const conflict = random.pick(db.syncConflicts.list())
    if (conflict === undefined) return undefined
    const { id } = conflict
    const patch = patchFor(conflict, random)
    const before = sidesOf(connection, conflict)
    db.syncConflicts.retry(id, patch)
    mustBeWritten(db, connection, { conflict, patch, sides: before })
    return { id, how: 'retried' }
  },
  'discard conflict': (db, random) => {
    const id = random.pick(db.syncConflicts.list())?.id
    if (id === undefined) return undefined
    db.syncConflicts.discard(id)
    return { id, how: 'discarded' }
  },
}

export const decisionKinds = Object.keys(decisionSteps)

const named: Readonly<Record<string, string>> = {
  conversations: 'title',
  workflows: 'name',
  runbooks: 'name',
  incidents: 'title',
}

/** None, the other side, a new id for what was refused under the old, or a new name. */
function patchFor({ table, state, op, theirs }: Conflict, random: Random): Patch {
  const column = named[table]
  const didNotHappen = state === 'rejected' || state === 'dependency_failed'
  return random.weighted<Patch>([
    [4, {}],
    [state === 'overwritten' && theirs !== null ? 3 : 0, theirs ?? {}],
    [didNotHappen && op === 'insert' ? 3 : 0, { id: newId() }],
    [
      column === undefined || op === 'delete' ? 0 : 2,
      { [column ?? '']: `again ${random.below(4)}` },
    ],
  ])
}

interface Sides {
  readonly row: StoredRow | undefined
  readonly mine: StoredRow
  readonly base: StoredRow
  readonly theirs: StoredRow
}

/** The row and the record in stored forms, as they are before it is decided. */
function sidesOf(connection: Connection, { id, table, rowId }: Conflict): Sides {
  const record = connection.get<Record<'mine' | 'base' | 'theirs', string | null>>(
    'SELECT mine, base, theirs FROM sync_conflicts WHERE id = ?',
    id,
  )
  const side = (text: string | null | undefined): StoredRow => {
    const values = (text == null ? null : JSON.parse(text)) as Record<string, Stored> | null
    return Object.fromEntries(
      Object.entries(values ?? {}).map(([name, value]) => [
        name,
        isVector(table, name) && typeof value === 'string' ? Buffer.from(value, 'hex') : value,
      ]),
    )
  }
  return {
    row: rowOf(connection, table, rowId),
    mine: side(record?.mine),
    base: side(record?.base),
    theirs: side(record?.theirs),
  }
}

const isVector = (table: string, column: string): boolean =>
  mustTable(table).columns[column]?.shape.kind === 'vector'

const rowOf = (connection: Connection, table: string, id: string): StoredRow | undefined =>
  connection.get<StoredRow>(`SELECT * FROM ${table} WHERE id = ?`, id)

/** Whether a row is outside the scope, and there only because others refer to it. */
const isHidden = (connection: Connection, { number }: TableDefinition, id: string): boolean =>
  connection.get('SELECT 1 FROM sync_stub WHERE id = ? AND tbl = ?', id, number) !== undefined

/** What a retry must have come to on the row, by the plainest reading of `ConflictLog.retry`. */
function mustBeWritten(
  db: AgentDB,
  connection: Connection,
  { conflict, patch, sides }: { conflict: Conflict; patch: Patch; sides: Sides },
): void {
  const { id, state, op } = conflict
  const table = mustTable(conflict.table)
  const row = rowOf(
    connection,
    table.name,
    typeof patch['id'] === 'string' ? patch['id'] : conflict.rowId,
  )
  const what = (): string => `the retry of ${state} ${op} of ${table.name} ${conflict.rowId}`
  must(db.syncConflicts.get(id) === undefined, 'conflict', () => `${what()} leaves its record`)
  const mark = table.softDelete
  const { mine } = sides
  if (op === 'delete' || (Object.keys(mine).join() === mark && mine[mark] !== null)) {
    const isMarked = mark !== undefined && row?.[mark] !== null
    const isGone = row === undefined || isMarked || isHidden(connection, table, conflict.rowId)
    return must(isGone, 'conflict', () => `${what()} leaves the row`)
  }
  must(row !== undefined, 'conflict', () => `${what()} leaves no row`)
  const expected = { ...expectedOf(conflict, table, sides), ...patchOf(conflict, table, patch) }
  for (const [column, value] of Object.entries(expected))
    must(
      equal(row?.[column], value),
      'conflict',
      () =>
        `${what()} makes ${column} ${String(row?.[column])}; it must be ${String(value)} (was ${String(sides.row?.[column])})`,
    )
}

function patchOf({ state }: Conflict, table: TableDefinition, patch: Patch): StoredRow {
  return Object.fromEntries(
    Object.entries(patch)
      .filter(([name]) => state !== 'overwritten' || mergeUnit(table, name).policy !== 'merge')
      .map(([name, value]) => [name, encodeColumn(table, name, value)]),
  )
}

/** Columns of the record with what they must be now; those that only parts of are known of are left out. */
function expectedOf({ state, op }: Conflict, table: TableDefinition, sides: Sides): StoredRow {
  const { mine, base, theirs, row } = sides
  const isPart = state === 'merged' || state === 'superseded'
  const expected: Record<string, Stored> = {}
  for (const [name, value] of Object.entries(mine)) {
    if (mustColumn(table, name).derived) continue
    const { policy, columns } = mergeUnit(table, name)
    const isThreeWay =
      policy === 'counter' || policy === 'set' || policy === 'max' || policy === 'merge'
    if (isPart && (!Object.hasOwn(theirs, name) || (isThreeWay && policy !== 'merge'))) {
      // What did not lose stays as it now is; of a group that lost in part the whole is written again.
      if (columns.length === 1) expected[name] = row?.[name] ?? null
      continue
    }
    if (state === 'overwritten' && isThreeWay) continue
    expected[name] =
      isThreeWay && op === 'update' && Object.hasOwn(base, name)
        ? carry(policy, [base[name] ?? null, value, row?.[name] ?? null], true).value
        : value
  }
  // Counted up by the centre: no loss.
  if (isPart) for (const { onClash } of table.uniques) delete expected[columnOf(onClash)]
  return expected
}

const columnOf = (onClash: TableDefinition['uniques'][number]['onClash']): string =>
  onClash.kind === 'next-version' ? onClash.column : ''
