import type { StoredRow } from '../../../schema/codec.ts'
import type { TableDefinition, UniqueDefinition } from '../../../schema/define.ts'
import type { Session } from '../../postgres/database.ts'
import type { ClientTransaction, Mutation } from './transaction.ts'
import type { WorkingState } from './working-state.ts'

/** A unique key whose clash counts one of its columns up. */
type NextVersionRule = UniqueDefinition & { readonly onClash: { readonly kind: 'next-version' } }

/** Versions in use of the keys that a group touches; a key is the text of its columns without the version. */
export interface Versions {
  /** Largest version per key: of the database, and of what the group has taken since. */
  readonly largest: Map<string, number>
  /** Per key and version the row of the database that has it. */
  readonly holders: Map<string, string>
}

const nextVersionRule = (table: TableDefinition): NextVersionRule | undefined =>
  table.uniques.find((unique): unique is NextVersionRule => unique.onClash.kind === 'next-version')

/** Text of a unique key without the column that counts up. */
function versionKey(table: TableDefinition, rule: NextVersionRule, image: StoredRow): string {
  const columns = rule.columns.filter((column) => column !== rule.onClash.column)
  return JSON.stringify([table.number, ...columns.map((column) => image[column])])
}

/** Reads the versions in use of every unique key that counts up and that the group touches. */
export async function loadVersions(
  session: Session,
  transactions: readonly ClientTransaction[],
): Promise<Versions> {
  const versions: Versions = { largest: new Map(), holders: new Map() }
  for (const mutation of transactions.flatMap(({ mutations }) => mutations)) {
    if (mutation.table === undefined || mutation.refusal !== undefined || mutation.op === 'delete')
      continue
    const rule = nextVersionRule(mutation.table)
    if (rule === undefined || !rule.columns.some((column) => Object.hasOwn(mutation.patch, column)))
      continue
    await readVersions(session, mutation, rule, versions)
  }
  return versions
}

async function readVersions(
  session: Session,
  { table, id, patch }: Mutation,
  rule: NextVersionRule,
  { largest, holders }: Versions,
): Promise<void> {
  const columns = rule.columns.filter((column) => column !== rule.onClash.column)
  const same = columns
    .map(
      (column, i) =>
        `t.${column} = coalesce($${i + 2}, (SELECT own.${column}::text FROM ${table.name} own WHERE own.id = $1))${column.endsWith('_id') ? '::uuid' : ''}`,
    )
    .join(' AND ')
  const { rows } = await session.query<Record<string, string | number>>(
    `SELECT t.id, t.${rule.columns.join(', t.')} FROM ${table.name} t WHERE t.id <> $1 AND ${same}`,
    [id, ...columns.map((column) => patch[column] ?? null)],
  )
  for (const row of rows) {
    const key = versionKey(table, rule, row)
    const version = Number(row[rule.onClash.column])
    largest.set(key, Math.max(largest.get(key) ?? 0, version))
    holders.set(`${key}=${version}`, String(row['id']))
  }
}

/** Counts the version up where the key is taken; the id stays, so that children stay right. */
export function nextVersion(
  { versions, state }: { readonly versions: Versions; readonly state: WorkingState },
  { table, id, patch }: Pick<Mutation, 'table' | 'id' | 'patch'>,
  current: StoredRow = {},
): { values: StoredRow; changed: Record<string, unknown> | undefined } {
  const rule = nextVersionRule(table)
  const { columns } = rule ?? { columns: [] }
  if (rule === undefined || !columns.some((column) => Object.hasOwn(patch, column)))
    return { values: patch, changed: undefined }
  const image = { ...current, ...patch }
  const key = versionKey(table, rule, image)
  const counter = rule.onClash.column
  const wanted = Number(image[counter] ?? 1)
  const taken = [...state.rowsOf(table)].some(
    (row) =>
      row.id !== id &&
      row.image !== undefined &&
      versionKey(table, rule, row.image) === key &&
      Number(row.image[counter] ?? 1) === wanted,
  )
  const holder = versions.holders.get(`${key}=${wanted}`)
  const takenInDatabase =
    holder !== undefined &&
    // What the group itself has deleted holds nothing any more.
    state.get(table, holder)?.deleted !== true &&
    !(current[counter] === wanted && versionKey(table, rule, current) === key)
  const largest = versions.largest.get(key) ?? 0
  if (!taken && !takenInDatabase) {
    versions.largest.set(key, Math.max(largest, wanted))
    return { values: patch, changed: undefined }
  }
  versions.largest.set(key, largest + 1)
  return { values: { ...patch, [counter]: largest + 1 }, changed: { [counter]: largest + 1 } }
}
