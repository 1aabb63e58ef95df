import type { StoredRow } from '../../../schema/codec.ts'
import { agentColumns, references, type TableDefinition } from '../../../schema/define.ts'
import { mustTable, referencesTo } from '../../../schema/tables.ts'
import type { Session } from '../../postgres/database.ts'
import { parseImage, storedFromImage } from '../../postgres/values.ts'
import type { ClientTransaction, Mutation } from './transaction.ts'

/** A change: transaction, hybrid clock, client. */
export type ColumnChange = readonly [xid: string, clock: number, writer: string | null]

/** Last change of a column, and those of others that stay in its value without its writer having seen them. */
export type ColumnStamp = readonly [...change: ColumnChange, unseen?: readonly ColumnChange[]]

/** A row as the group sees it while it is decided. */
export interface WorkingRow {
  readonly table: TableDefinition
  readonly id: string
  readonly keys: readonly string[]
  readonly deleted: boolean
  /** Stored forms by column; undefined where only keys were read. */
  readonly image: StoredRow | undefined
  readonly stamps: Readonly<Record<string, ColumnStamp>>
  /** Columns of the image that only stand for a value which no agent can hold. */
  readonly placeholders?: ReadonlySet<string>
  /** Who made it, and when; where that was read. */
  readonly made?: ColumnChange
  /** Whether the database has it, as opposed to this group having made it. */
  readonly inDatabase: boolean
}

const keyOf = (table: TableDefinition, id: string): string => `${table.number}:${id}`

/**
 * What a group of transactions reads and changes. Each transaction works in a layer of its own, which is kept when all
 * of its mutations pass and thrown away when one does not.
 */
export class WorkingState {
  readonly #rows: Map<string, WorkingRow>
  readonly #layer = new Map<string, WorkingRow>()
  /** Rows whose insert was rejected, and by which mutation: what depends on them is named after it. */
  readonly #rejected: Map<string, string>
  /** By each row that is to be deleted those that would go along, as far as they may have changed lately. */
  readonly #descendants: ReadonlyMap<string, readonly WorkingRow[]>

  constructor(
    rows: Map<string, WorkingRow>,
    rejected: Map<string, string>,
    descendants: ReadonlyMap<string, readonly WorkingRow[]> = new Map(),
  ) {
    this.#rows = rows
    this.#rejected = rejected
    this.#descendants = descendants
  }

  get(table: TableDefinition, id: string): WorkingRow | undefined {
    const key = keyOf(table, id)
    return this.#layer.get(key) ?? this.#rows.get(key)
  }

  set(row: WorkingRow): void {
    this.#layer.set(keyOf(row.table, row.id), row)
  }

  /** Rows that go with a row when it is deleted, as far as someone may have changed them lately. */
  descendantsOf({ table, id }: WorkingRow): WorkingRow[] {
    const rows = this.#descendants.get(keyOf(table, id)) ?? []
    return rows.map((row) => this.get(row.table, row.id) ?? row).filter(({ deleted }) => !deleted)
  }

  keepLayer(): void {
    for (const [key, row] of this.#layer) this.#rows.set(key, row)
    this.#layer.clear()
  }

  dropLayer(): void {
    this.#layer.clear()
  }

  rejectedBy(table: TableDefinition, id: string): string | undefined {
    return this.#rejected.get(keyOf(table, id))
  }

  reject(table: TableDefinition, id: string, by: string): void {
    this.#rejected.set(keyOf(table, id), by)
  }

  /** The live rows of the group's view; for unique keys. */
  *rowsOf(table: TableDefinition): Iterable<WorkingRow> {
    for (const [key, row] of this.#rows) {
      if (row.table === table && !row.deleted && !this.#layer.has(key)) yield row
    }
    for (const row of this.#layer.values()) if (row.table === table && !row.deleted) yield row
  }
}

/**
 * Reads everything that a group of transactions decides on, after its rows are locked. All its writers had seen what was
 * committed before the transaction `seenBelow`.
 */
export async function loadWorkingState(
  session: Session,
  clientId: string,
  transactions: readonly ClientTransaction[],
  seenBelow: string,
): Promise<WorkingState> {
  const { meta, images } = wantedRows(transactions)
  const rows = new Map<string, WorkingRow>()
  await loadMeta(session, meta, rows)
  for (const [table, ids] of images) await loadImages(session, table, [...ids], rows)
  return new WorkingState(
    rows,
    await loadRejected(session, clientId, [...meta.values()]),
    await loadDescendants(session, transactions, seenBelow),
  )
}

function wantedRows(transactions: readonly ClientTransaction[]): {
  meta: Map<string, { table: TableDefinition; id: string }>
  images: Map<TableDefinition, Set<string>>
} {
  const meta = new Map<string, { table: TableDefinition; id: string }>()
  const images = new Map<TableDefinition, Set<string>>()
  for (const mutation of transactions.flatMap(({ mutations }) => mutations)) {
    if (mutation.table === undefined || mutation.refusal !== undefined) continue
    const { table, id, op } = mutation
    meta.set(keyOf(table, id), { table, id })
    for (const { target, id: parent } of referencedRows(mutation)) {
      meta.set(keyOf(target, parent), { table: target, id: parent })
    }
    if (op === 'insert') continue
    const ids = images.get(table) ?? new Set()
    images.set(table, ids.add(id))
  }
  return { meta, images }
}

/** Rows that a mutation's patch points at. */
export function referencedRows({
  table,
  patch,
}: Mutation): { column: string; target: TableDefinition; id: string }[] {
  return references(table).flatMap(({ column, target }) => {
    const id = patch[column]
    return typeof id === 'string' ? [{ column, target: mustTable(target), id }] : []
  })
}

interface MetaRow {
  tbl: number
  id: string
  keys: string[]
  deleted: boolean
  xid: string
  clock: number
  writer: string | null
  cols: Record<string, ColumnStamp>
}

async function loadMeta(
  session: Session,
  wanted: ReadonlyMap<string, { table: TableDefinition; id: string }>,
  rows: Map<string, WorkingRow>,
): Promise<void> {
  const list = [...wanted.values()]
  const found = await session.query<MetaRow>(
    `SELECT ${metaColumns} FROM unnest($1::smallint[], $2::uuid[]) w(tbl, id)
    JOIN sync.row_meta m ON m.tbl = w.tbl AND m.id = w.id`,
    [list.map(({ table }) => table.number), list.map(({ id }) => id)],
  )
  for (const meta of found.rows) {
    const key = `${meta.tbl}:${meta.id}`
    const table = wanted.get(key)?.table
    if (table !== undefined) rows.set(key, rowOf(table, meta))
  }
}

const metaColumns = 'm.tbl, m.id, m.keys, m.deleted, m.xid::text AS xid, m.clock, m.writer, m.cols'

const rowOf = (table: TableDefinition, meta: MetaRow): WorkingRow => ({
  table,
  id: meta.id,
  keys: meta.keys,
  deleted: meta.deleted,
  image: undefined,
  stamps: meta.cols,
  made: [meta.xid, meta.clock, meta.writer],
  inDatabase: true,
})

/** By each row that is to be deleted the rows below it that were made or changed lately. */
async function loadDescendants(
  session: Session,
  transactions: readonly ClientTransaction[],
  seenBelow: string,
): Promise<Map<string, WorkingRow[]>> {
  const descendants = new Map<string, WorkingRow[]>()
  for (const { table, op, id, refusal } of transactions.flatMap(({ mutations }) => mutations)) {
    if (table === undefined || op !== 'delete' || refusal !== undefined) continue
    const key = keyOf(table, id)
    if (!descendants.has(key))
      descendants.set(key, await newerBelow(session, table, [id], seenBelow))
  }
  return descendants
}

async function newerBelow(
  session: Session,
  parent: TableDefinition,
  ids: readonly string[],
  seenBelow: string,
): Promise<WorkingRow[]> {
  const found: WorkingRow[] = []
  for (const { table, column, onDelete } of referencesTo.get(parent.name) ?? []) {
    if (onDelete !== 'cascade') continue
    const newer = await session.query<MetaRow>(
      `SELECT ${metaColumns} FROM ${table.name} t JOIN sync.row_meta m ON m.tbl = ${table.number} AND m.id = t.id
      WHERE t.${column} = ANY($1::uuid[]) AND (m.xid >= $2::xid8
        OR EXISTS (SELECT 1 FROM jsonb_each(m.cols) c WHERE (c.value ->> 0)::xid8 >= $2::xid8)) ORDER BY m.id`,
      [ids, seenBelow],
    )
    const rows = new Map(newer.rows.map((meta) => [keyOf(table, meta.id), rowOf(table, meta)]))
    await loadImages(
      session,
      table,
      newer.rows.map(({ id }) => id),
      rows,
    )
    found.push(...rows.values())
    if (!(referencesTo.get(table.name) ?? []).some((below) => below.onDelete === 'cascade'))
      continue
    const children = await session.query<{ id: string }>(
      `SELECT id FROM ${table.name} WHERE ${column} = ANY($1::uuid[])`,
      [ids],
    )
    const below = children.rows.map(({ id }) => id)
    if (below.length > 0) found.push(...(await newerBelow(session, table, below, seenBelow)))
  }
  return found
}

async function loadImages(
  session: Session,
  table: TableDefinition,
  ids: readonly string[],
  rows: Map<string, WorkingRow>,
): Promise<void> {
  const names = agentColumns(table)
  const { rows: found } = await session.query<{ id: string; image: string }>(
    `SELECT t.id, row_to_json(r)::text AS image FROM ${table.name} t, LATERAL (SELECT ${names.map((name) => `t.${name}`).join(', ')}) r WHERE t.id = ANY($1::uuid[])`,
    [ids],
  )
  for (const { id, image: text } of found) {
    const known = rows.get(keyOf(table, id))
    if (known === undefined) continue
    const { image, lossy } = parseImage(text)
    // A placeholder that comes back as it went differs in nothing, and so is never written.
    const { values, placeholders = [] } = storedFromImage(table, image, lossy)
    rows.set(keyOf(table, id), {
      ...known,
      placeholders: new Set(placeholders.map((i) => names[i] ?? '')),
      image: Object.fromEntries(names.map((name, i) => [name, values[i] ?? null])),
    })
  }
}

async function loadRejected(
  session: Session,
  clientId: string,
  wanted: readonly { table: TableDefinition; id: string }[],
): Promise<Map<string, string>> {
  const { rows } = await session.query<{ tbl: number; id: string; seq: number; n: number }>(
    `SELECT r.tbl, r.id, r.seq, r.n FROM unnest($2::smallint[], $3::uuid[]) w(tbl, id)
    JOIN sync.rejected r ON r.client_id = $1 AND r.tbl = w.tbl AND r.id = w.id`,
    [clientId, wanted.map(({ table }) => table.number), wanted.map(({ id }) => id)],
  )
  return new Map(rows.map(({ tbl, id, seq, n }) => [`${tbl}:${id}`, `${seq}.${n}`]))
}
