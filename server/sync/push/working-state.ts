import type { StoredRow } from '../../../schema/codec.ts'
import { agentColumns, references, type TableDefinition } from '../../../schema/define.ts'
import { mustTable } from '../../../schema/tables.ts'
import type { Session } from '../../postgres/database.ts'
import { parseImage, storedFromImage } from '../../postgres/values.ts'
import type { ClientTransaction, Mutation } from './transaction.ts'

/** Last change of a column: transaction, hybrid clock, client. */
export type ColumnStamp = readonly [xid: string, clock: number, writer: string | null]

/** A row as the group sees it while it is decided. */
export interface WorkingRow {
  readonly table: TableDefinition
  readonly id: string
  readonly keys: readonly string[]
  readonly deleted: boolean
  /** Stored forms by column; undefined where only keys were read. */
  readonly image: StoredRow | undefined
  readonly stamps: Readonly<Record<string, ColumnStamp>>
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

  constructor(rows: Map<string, WorkingRow>, rejected: Map<string, string>) {
    this.#rows = rows
    this.#rejected = rejected
  }

  get(table: TableDefinition, id: string): WorkingRow | undefined {
    const key = keyOf(table, id)
    return this.#layer.get(key) ?? this.#rows.get(key)
  }

  set(row: WorkingRow): void {
    this.#layer.set(keyOf(row.table, row.id), row)
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

/** Reads everything that a group of transactions decides on, after its rows are locked. */
export async function loadWorkingState(
  session: Session,
  clientId: string,
  transactions: readonly ClientTransaction[],
): Promise<WorkingState> {
  const { meta, images } = wantedRows(transactions)
  const rows = new Map<string, WorkingRow>()
  await loadMeta(session, meta, rows)
  for (const [table, ids] of images) await loadImages(session, table, [...ids], rows)
  return new WorkingState(rows, await loadRejected(session, clientId, [...meta.values()]))
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
  cols: Record<string, ColumnStamp>
}

async function loadMeta(
  session: Session,
  wanted: ReadonlyMap<string, { table: TableDefinition; id: string }>,
  rows: Map<string, WorkingRow>,
): Promise<void> {
  const list = [...wanted.values()]
  const found = await session.query<MetaRow>(
    `SELECT m.tbl, m.id, m.keys, m.deleted, m.cols FROM unnest($1::smallint[], $2::uuid[]) w(tbl, id)
    JOIN sync.row_meta m ON m.tbl = w.tbl AND m.id = w.id`,
    [list.map(({ table }) => table.number), list.map(({ id }) => id)],
  )
  for (const { tbl, id, keys, deleted, cols } of found.rows) {
    const key = `${tbl}:${id}`
    const table = wanted.get(key)?.table
    if (table === undefined) continue
    rows.set(key, { table, id, keys, deleted, image: undefined, stamps: cols, inDatabase: true })
  }
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
    const { values } = storedFromImage(table, image, lossy)
    rows.set(keyOf(table, id), {
      ...known,
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
