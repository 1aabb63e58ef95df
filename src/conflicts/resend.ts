import {
  atColumn,
  checkStored,
  decodeValue,
  encodeColumn,
  type Stored,
} from '../../schema/codec.ts'
import { references, wholeGroups, type TableDefinition } from '../../schema/define.ts'
import { AgentDBError, preview } from '../../schema/errors.ts'
import { mergeUnit, type MergeUnit } from '../../schema/merge-policy.ts'
import { threeWayOf } from '../../schema/three-way/three-way.ts'
import { tableOfName } from '../../schema/tables.ts'
import type { Connection } from '../sqlite/connection.ts'
import { storedValues, type ConflictRow, type Values } from './conflict-record.ts'

/** What a retry needs of a repository, whatever its table. */
interface AnyRepository {
  find(id: string): object | undefined
  create(input: object): object
  update(id: string, patch: object): object
  delete(id: string): boolean
}

export type Repositories = Readonly<Record<string, AnyRepository>>

interface Resend {
  readonly connection: Connection
  readonly repository: AnyRepository
  readonly table: TableDefinition
  readonly record: ConflictRow
  /** Stored forms of what was written. */
  readonly mine: Readonly<Record<string, Stored>>
  readonly patch: Values
}

/** Writes what a record holds once more, through the table's repository: checked like any other write. */
export function resend(
  connection: Connection,
  repositories: Repositories,
  record: ConflictRow,
  patch: Values,
): Values | undefined {
  const table = tableOfName(record.table_name)
  const repository = repositories[record.table_name]
  if (table === undefined || repository === undefined)
    throw new AgentDBError('NOT_FOUND', `there is no table ${preview(record.table_name)} here`)
  if (typeof patch !== 'object' || patch === null)
    throw new AgentDBError('INVALID_VALUE', `the patch is not an object (got ${preview(patch)})`)
  const given = Object.fromEntries(Object.entries(patch).filter(([, value]) => value !== undefined))
  const mine = storedValues(table, record.mine) ?? {}
  const all: Resend = { connection, repository, table, record, mine, patch: given }
  if (isDelete(all)) return deleteAgain(all)
  return (didNotHappen(record) && record.op === 'insert' ? insertAgain : updateAgain)(all) as Values
}

/** An insert that was superseded had been taken once, by a centre that went back, and its row was deleted since. */
const didNotHappen = ({ state, op }: ConflictRow): boolean =>
  state === 'rejected' ||
  state === 'dependency_failed' ||
  (state === 'superseded' && op === 'insert')

/** Where rows are only marked as deleted, a delete was sent as an update of the mark. */
function isDelete({ record, table, mine }: Resend): boolean {
  if (record.op === 'delete') return true
  const mark = table.softDelete
  return mark !== undefined && Object.keys(mine).join() === mark && mine[mark] !== null
}

function deleteAgain({ repository, table, record, patch }: Resend): undefined {
  const [column] = Object.keys(patch)
  if (column !== undefined) {
    throw new AgentDBError(
      'INVALID_VALUE',
      `this conflict is a delete of ${table.name} ${record.row_id}: it takes no patch`,
      { table: table.name, column },
    )
  }
  repository.delete(record.row_id)
  return undefined
}

function insertAgain(all: Resend): object {
  const { repository, record, mine, patch } = all
  const values = { ...valuesOf(all, Object.keys(mine)), id: record.row_id, ...patch }
  if (!Object.hasOwn(patch, 'id')) mustBeFree(all)
  mustHaveParents(all, values)
  return repository.create(values)
}

function updateAgain(all: Resend): object {
  const { connection, repository, table, record } = all
  const values = { ...valuesOf(all, lostColumns(all), carriedOver), ...carriedPatch(all) }
  if (repository.find(record.row_id) === undefined) {
    const first = whatMakes(connection, table.name, record.row_id)
    if (first !== undefined) {
      throw new AgentDBError('NOT_FOUND', `${table.name} ${record.row_id} is not there: ${first}`, {
        table: table.name,
        column: 'id',
        value: record.row_id,
      })
    }
  }
  mustHaveParents(all, values)
  return repository.update(record.row_id, values)
}

/**
 * Columns of an update to write again. Of one that was merged, those that came out otherwise, with their whole groups:
 * what did apply may have been changed since. A version that the centre counted up is no loss of its group.
 */
function lostColumns({ table, record, mine }: Resend): string[] {
  const names = Object.keys(mine)
  if (record.state !== 'merged' && record.state !== 'superseded') return names
  const changed = Object.keys(storedValues(table, record.theirs) ?? {})
  const counted = table.uniques.flatMap(({ onClash }) =>
    onClash.kind === 'next-version' ? [onClash.column] : [],
  )
  const lost = wholeGroups(
    table,
    changed.filter((name) => !counted.includes(name)),
  )
  return names.filter(
    (name) => (lost.has(name) || changed.includes(name)) && !neverLoses(table, name),
  )
}

/** What is added, joined or the greater anyway came out otherwise, and still nothing of it lost. */
const neverLoses = (table: TableDefinition, name: string): boolean =>
  ['counter', 'set', 'max'].some((policy) => policy === policyOf(table, name))

/** Undefined for a column that this version does not know; the repository refuses it by its name. */
const policyOf = (table: TableDefinition, name: string): MergeUnit['policy'] | undefined =>
  Object.hasOwn(table.columns, name) ? mergeUnit(table, name).policy : undefined

/** What a column of `mine` comes to on the row as it now is: a difference is made again, not a value that is over. */
function carriedOver({ table, record, mine, ...all }: Resend, name: string): Stored {
  const value = mine[name] ?? null
  const policy = policyOf(table, name)
  const threeWay = policy === undefined ? undefined : threeWayOf(policy)
  const isPart = record.state === 'overwritten'
  const base = storedValues(table, isPart ? record.theirs : record.base)
  if (threeWay === undefined || base === null || !Object.hasOwn(base, name)) return value
  if (isPart && policy !== 'merge') return value
  // Joined with another value, what is none of its column would pass for one.
  valueOf(table, name, value)
  const now = all.connection.get<{ value: Stored }>(
    `SELECT ${name} AS value FROM ${table.name} WHERE id = ?`,
    record.row_id,
  )
  return now === undefined ? value : threeWay(base[name] ?? null, value, now.value)
}

/** Of a JSON value that was overwritten a record has only what was contested; a patch of it stands in its place. */
function carriedPatch(all: Resend): Values {
  const { table, record, mine, patch } = all
  if (record.state !== 'overwritten') return patch
  const parts = Object.entries(patch).filter(
    ([name]) => Object.hasOwn(mine, name) && policyOf(table, name) === 'merge',
  )
  const carried = parts.map(([name, value]) => {
    const stored = encodeColumn(table, name, value)
    const swapped = { ...record, theirs: record.mine }
    const over = carriedOver({ ...all, mine: { [name]: stored }, record: swapped }, name)
    return [name, valueOf(table, name, over)] as const
  })
  return { ...patch, ...Object.fromEntries(carried) }
}

/** Values of columns of `mine` for which the patch has no other. */
function valuesOf(
  all: Resend,
  names: readonly string[],
  storedOf: (all: Resend, name: string) => Stored = ({ mine }, name) => mine[name] ?? null,
): Values {
  return Object.fromEntries(
    names
      .filter((name) => !Object.hasOwn(all.patch, name))
      .map((name) => [name, valueOf(all.table, name, storedOf(all, name))]),
  )
}

/** What raw SQL wrote need not be a value of its column; passed on as it is, it would become another one. */
function valueOf(table: TableDefinition, name: string, stored: Stored): unknown {
  const shape = table.columns[name]?.shape
  if (shape === undefined) return stored
  return decodeValue(
    shape,
    atColumn(table, name, stored, () => checkStored(shape, stored)),
  )
}

function mustBeFree({ connection, table, record }: Resend): void {
  const { name } = table
  const wasDeleted = record.reason === 'deleted' && record.constraint_name === null
  const isTaken =
    record.constraint_name === `${name}_pkey` ||
    connection.get(`SELECT 1 FROM ${name} WHERE id = ?`, record.row_id) !== undefined
  if (!wasDeleted && !isTaken) return
  const why = wasDeleted ? 'was deleted, and a deleted id never comes back' : 'exists already'
  throw new AgentDBError(
    'CONSTRAINT',
    `${name} ${record.row_id} ${why}: retry with a new id in the patch, or discard`,
    { table: name, column: 'id', value: record.row_id, constraint: `${name}_pkey` },
  )
}

/** The repository would say that the parent is missing; here, what to do about it is known. */
function mustHaveParents({ connection, table }: Resend, values: Values): void {
  for (const { column, target } of references(table)) {
    const parent = values[column]
    if (typeof parent !== 'string') continue
    if (connection.get(`SELECT 1 FROM ${target} WHERE id = ?`, parent) !== undefined) continue
    const first = whatMakes(connection, target, parent)
    if (first === undefined) continue
    throw new AgentDBError(
      'CONSTRAINT',
      `${table.name}.${column}: there is no ${target} row ${preview(parent)}: ${first}`,
      { table: table.name, column, value: parent, constraint: 'foreignkey' },
    )
  }
}

/** What has to come before, where the insert of a row that is not there is a conflict itself. */
function whatMakes(connection: Connection, table: string, rowId: string): string | undefined {
  const insert = connection.get<{ id: string; state: string }>(
    `SELECT id, state FROM sync_conflicts WHERE row_id = ? AND table_name = ? AND op = 'insert'
      AND state IN ('rejected', 'dependency_failed', 'blocked') AND resolved IS NULL ORDER BY at DESC LIMIT 1`,
    rowId,
    table,
  )
  if (insert === undefined) return undefined
  return insert.state === 'blocked'
    ? `its insert still waits for its outcome (conflict ${insert.id}); sync first`
    : `its insert was refused, too; retry conflict ${insert.id} first`
}
