import type { TableDefinition } from '../../schema/define.ts'
import { mustColumn } from '../../schema/define.ts'
import { mustTable, tableOfNumber, type TableName } from '../../schema/tables.ts'
import { Database, type Session } from '../../server/postgres/database.ts'
import { migrateCentre } from '../../server/postgres/migrator.ts'
import { readLog, type LogEntry } from '../../server/sync/log-entry.ts'
import { advance, latestBatch } from '../../server/sync/positions.ts'

/** Opens and migrates a centre's database without a server. */
export async function openCentralDatabase(url: string, connectionsMax = 10): Promise<Database> {
  const database = await Database.open({ url, folder: undefined, connectionsMax })
  await migrateCentre(database)
  return database
}

/** What a reader of the log believes the tables hold, by `table:id`; null is a row that was deleted. */
export type Replica = Map<string, unknown>

/** Reads the log from where it stands and applies it, in its order, to its replica. */
export interface LogReader {
  readonly replica: Replica
  /** One look at the log. */
  read(): Promise<void>
}

function apply(replica: Replica, { tbl, id, image }: LogEntry): void {
  const table = tableOfNumber(tbl)
  if (table === undefined) return
  replica.set(
    `${table.name}:${id}`,
    image === null ? null : normal(JSON.parse(image) as Record<string, unknown>),
  )
}

/** Same members in the same order, so that images compare by value. */
const normal = (image: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(image).toSorted(([a], [b]) => (a < b ? -1 : 1)))

/** The product's way: batches that hold a snapshot each. */
export class BatchReader implements LogReader {
  readonly replica: Replica = new Map()
  readonly #database: Database
  #snapshot: string | undefined

  constructor(database: Database) {
    this.#database = database
  }

  async read(): Promise<void> {
    await advance(this.#database, true)
    const head = await latestBatch(this.#database)
    if (head === undefined) throw new Error('advance made no first batch')
    if (this.#snapshot !== undefined) {
      const span = { from: this.#snapshot, to: head.snapshot }
      for (const entry of await readLog(this.#database, span)) apply(this.replica, entry)
    }
    this.#snapshot = head.snapshot
  }
}

/**
 * The oldest transaction that still runs, of this database only: PostgreSQL's own horizon is the cluster's, and a test
 * beside this one would hold it back.
 */
const UNDER_HORIZON = `l.xid < coalesce(
  (SELECT x.xid FROM pg_snapshot_xip(pg_current_snapshot()) AS x(xid)
    JOIN pg_stat_activity a ON a.backend_xid = x.xid::xid AND a.datname = current_database() ORDER BY x.xid LIMIT 1),
  pg_snapshot_xmax(pg_current_snapshot()))`

interface RawEntry {
  seq: number
  tbl: number
  id: string
  image: string | null
}

const readUnderHorizon = async (session: Session, after: number): Promise<RawEntry[]> => {
  const { rows } = await session.query<RawEntry>(
    `SELECT l.seq, l.tbl, l.id, l.image::text AS image FROM sync.log l
    WHERE l.seq > $1 AND ${UNDER_HORIZON} ORDER BY l.seq`,
    [after],
  )
  return rows
}

/** Wrong on purpose: a cursor over the sequence, under an xmin horizon. Loses rows. */
export class SequenceCursorReader implements LogReader {
  readonly replica: Replica = new Map()
  readonly #database: Database
  #last = 0

  constructor(database: Database) {
    this.#database = database
  }

  async read(): Promise<void> {
    for (const { seq, ...row } of await readUnderHorizon(this.#database, this.#last)) {
      apply(this.replica, { ...row, keysBefore: [], keysAfter: [] })
      this.#last = seq
    }
  }
}

/** Wrong on purpose: emits each entry once, as it falls under the horizon. Serves an older image last. */
export class HorizonSequencerReader implements LogReader {
  readonly replica: Replica = new Map()
  readonly #database: Database
  readonly #emitted = new Set<number>()

  constructor(database: Database) {
    this.#database = database
  }

  async read(): Promise<void> {
    for (const { seq, ...row } of await readUnderHorizon(this.#database, 0)) {
      if (this.#emitted.has(seq)) continue
      this.#emitted.add(seq)
      apply(this.replica, { ...row, keysBefore: [], keysAfter: [] })
    }
  }
}

const visibleColumns = (table: TableDefinition): string =>
  Object.keys(table.columns)
    .filter((name) => !mustColumn(table, name).serverOnly)
    .map((name) => `t.${name}`)
    .join(', ')

/** The tables as they are, in the form of a {@link Replica}. */
export async function readTables(session: Session, names: readonly TableName[]): Promise<Replica> {
  const replica: Replica = new Map()
  for (const name of names) {
    const { rows } = await session.query<{ id: string; image: string }>(
      `SELECT t.id, to_jsonb(r)::text AS image FROM ${name} t, LATERAL (SELECT ${visibleColumns(mustTable(name))}) r`,
    )
    for (const { id, image } of rows)
      replica.set(`${name}:${id}`, normal(JSON.parse(image) as Record<string, unknown>))
  }
  return replica
}

/** The tables and the snapshot under which they were read, in one look. */
export function snapshotOfTables(
  database: Database,
  names: readonly TableName[],
): Promise<{ snapshot: string; tables: Replica }> {
  return database.transaction(async (session) => {
    await session.query(`SET LOCAL timezone = 'UTC'`)
    const { rows } = await session.query<{ snapshot: string }>(
      'SELECT pg_current_snapshot()::text AS snapshot',
    )
    return { snapshot: rows[0]?.snapshot ?? '', tables: await readTables(session, names) }
  }, 'REPEATABLE READ READ ONLY')
}

export interface Divergence {
  readonly row: string
  readonly what: 'never served' | 'another image was served last' | 'served, but not there'
}

/** Where a replica is not what the tables hold. Rows that the replica saw deleted must be absent. */
export function divergence(replica: Replica, tables: Replica): Divergence[] {
  const found: Divergence[] = []
  for (const [row, image] of tables) {
    const seen = replica.get(row)
    if (seen === undefined) found.push({ row, what: 'never served' })
    else if (JSON.stringify(seen) !== JSON.stringify(image))
      found.push({ row, what: 'another image was served last' })
  }
  for (const [row, image] of replica) {
    if (image !== null && !tables.has(row)) found.push({ row, what: 'served, but not there' })
  }
  return found.toSorted((a, b) => (a.row < b.row ? -1 : 1))
}

/** Compares a reader's replica with the tables it was fed from. */
export async function divergenceOf(
  database: Database,
  reader: LogReader,
  names: readonly TableName[],
): Promise<Divergence[]> {
  const { tables } = await snapshotOfTables(database, names)
  return divergence(reader.replica, tables)
}

/** Wrong on purpose: has the capture of a table take its images from the transition table. */
export async function captureFromTransitionTable(
  database: Database,
  table: TableName,
): Promise<void> {
  for (const op of ['insert', 'update'] as const) {
    const { rows } = await database.query<{ source: string }>(
      `SELECT pg_get_functiondef($1::regproc) AS source`,
      [`sync.capture_${table}_${op}`],
    )
    const source = rows[0]?.source ?? ''
    const wrong = source.replaceAll(
      `FROM ${table} t WHERE t.id = c.id OFFSET 0`,
      'FROM new_rows t WHERE t.id = c.id OFFSET 0',
    )
    if (wrong === source) throw new Error(`capture of ${table} no longer reads its images so`)
    await database.query(wrong)
  }
}
