import { createHash } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { AgentDBError } from '../../schema/errors.ts'
import type { Connection } from '../sqlite/connection.ts'
import { Pace } from './text-pace.ts'
import type { TextIndexDefinition } from './text-sources.ts'

/** How far an index is. What lies beyond is to be looked at directly. */
export interface Freshness {
  /** Rows up to this one are in the index, but for those that are noted as changed. */
  readonly upto: number
  readonly isFresh: boolean
}

/**
 * Full-text indexes of a store: a cache in its file that follows the rows by a watermark of its own.
 *
 *     rows of the table, by rowid:  ├──── indexed ────┤ upto ├── newer ──▶
 *     search_changed:                 ×     ×  rows of them that were changed or deleted since
 *
 * Rows get ever higher rowids, so what was inserted need not be noted by anyone: an insert costs nothing. Triggers note
 * what is changed or deleted, whoever does it, also while a batch of the centre is applied. A search first brings the
 * index up to date, in slices between which the event loop runs; while a program goes on writing, slices follow the
 * writer. An index is made at the first search that needs it: who never searches pays nothing.
 *
 * The index knows rows by rowid, which only SQLite's VACUUM and a migration may renumber. Both change `schema_version`,
 * and whatever changes that has the index made anew.
 */
export class TextIndexes {
  readonly #connection: Connection
  readonly #used = new Map<number, TextIndexDefinition>()
  readonly #pace = new Pace()
  #timer: NodeJS.Timeout | undefined
  #following = false

  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** Brings an index up to date; where the store cannot be written, says how far it is instead. */
  async catchUp(definition: TextIndexDefinition): Promise<Freshness> {
    // A transaction that this was called in may still be taken back, and the index with it; it is over by then.
    if (this.#connection.inTransaction) await setImmediate()
    this.#follow(definition)
    let target: number | undefined
    let attempts = 0
    for (;;) {
      try {
        this.#ensure(definition)
        target ??= lastRow(this.#connection, definition)
        while (!this.#slice(definition, target)) {
          attempts = 0
          await setImmediate()
        }
        return { upto: this.#upto(definition), isFresh: true }
      } catch (error) {
        if (!isHindrance(error)) throw error
        attempts += 1
        if (attempts < BUSY_ATTEMPTS_MAX && error.code === 'STORE_BUSY') await pause(BUSY_PAUSE_MS)
        else return { upto: this.#uptoIfValid(definition), isFresh: false }
      }
    }
  }

  /** Throws an index away; the next search makes it anew. */
  drop(definition: TextIndexDefinition): void {
    this.#connection.transaction(() => this.#remove(definition))
  }

  /** Goes on behind the writer, from the first search on. */
  #follow(definition: TextIndexDefinition): void {
    this.#used.set(definition.number, definition)
    if (this.#following) return
    this.#following = true
    const connection = this.#connection
    const later = (): void => {
      this.#timer ??= setTimeout(() => {
        this.#timer = undefined
        void this.#followOnce()
      }, FOLLOW_AFTER_MS).unref()
    }
    connection.onCommit(later)
    connection.onApplied(later)
    connection.onClose(() => clearTimeout(this.#timer))
  }

  async #followOnce(): Promise<void> {
    try {
      for (const definition of this.#used.values()) {
        if (!this.#isValid(definition)) continue
        const target = lastRow(this.#connection, definition)
        while (this.#connection.isOpen && !this.#slice(definition, target)) await setImmediate()
      }
    } catch {
      // Another process writes, the disk is full, the store was closed: the next search tells, or does it.
    }
  }

  /** One piece of work, in a transaction of its own. Says whether all up to `target` is done. */
  #slice(definition: TextIndexDefinition, target: number): boolean {
    const work = (rowsMax: number): boolean =>
      // What is stale goes first: a new row may have the rowid of one that is gone.
      !this.#indexChanged(definition, rowsMax) && this.#indexNew(definition, rowsMax) >= target
    return this.#pace.slice((rowsMax) =>
      this.#unhurried(() => this.#connection.transaction(() => work(rowsMax))),
    )
  }

  /** Takes in rows that were changed; says whether some are left. */
  #indexChanged(definition: TextIndexDefinition, rowsMax: number): boolean {
    const { number, name } = definition
    const connection = this.#connection
    const upto = this.#upto(definition)
    const rows = connection.all<{ row: number }>(
      'SELECT row FROM search_changed WHERE idx = ? LIMIT ?',
      number,
      rowsMax,
    )
    for (const { row } of rows) {
      connection.run(`DELETE FROM ${name} WHERE rowid = ?`, row)
      if (row <= upto)
        connection.run(`${insertInto(definition)} WHERE r.rowid = ? AND ${definition.where}`, row)
      connection.run('DELETE FROM search_changed WHERE idx = ? AND row = ?', number, row)
    }
    return rows.length === rowsMax
  }

  /** Takes in rows that are newer than the watermark; returns the new one. */
  #indexNew(definition: TextIndexDefinition, rowsMax: number): number {
    const connection = this.#connection
    const upto = this.#upto(definition)
    const last = lastOfNext(connection, definition, upto, rowsMax)
    if (last === undefined) return Number.POSITIVE_INFINITY
    connection.run(
      `${insertInto(definition)} WHERE r.rowid > ? AND r.rowid <= ? AND ${definition.where}`,
      upto,
      last,
    )
    connection.run('UPDATE search_index SET upto = ? WHERE idx = ?', last, definition.number)
    return last
  }

  /** Makes the index where there is none that holds. */
  #ensure(definition: TextIndexDefinition): void {
    if (this.#isValid(definition)) return
    const connection = this.#connection
    this.#unhurried(() =>
      connection.transaction(() => {
        for (const sql of sideTables) connection.exec(sql)
        const stale = connection.get(
          'SELECT 1 FROM search_index WHERE schema_version <> ?',
          this.#schemaVersion(),
        )
        // Whatever changed the schema may have renumbered the rows of every table.
        if (stale !== undefined) connection.run('UPDATE search_index SET schema_version = -1')
        this.#remove(definition)
        for (const sql of statementsOf(definition)) connection.exec(sql)
        connection.run(
          'INSERT INTO search_index (idx, definition, upto, schema_version) VALUES (?, ?, 0, 0)',
          definition.number,
          digestOf(definition),
        )
        connection.run(
          'UPDATE search_index SET schema_version = ? WHERE schema_version >= 0',
          this.#schemaVersion(),
        )
      }),
    )
  }

  #remove(definition: TextIndexDefinition): void {
    const { number, name } = definition
    for (const event of ['changed', 'deleted'])
      this.#connection.exec(`DROP TRIGGER IF EXISTS ${name}_${event}`)
    this.#connection.exec(`DROP TABLE IF EXISTS ${name}`)
    this.#connection.run('DELETE FROM search_index WHERE idx = ?', number)
    this.#connection.run('DELETE FROM search_changed WHERE idx = ?', number)
  }

  #isValid(definition: TextIndexDefinition): boolean {
    const connection = this.#connection
    const has = connection.get(`SELECT 1 FROM sqlite_master WHERE name = 'search_index'`)
    if (has === undefined) return false
    const row = connection.get<{ definition: string; schema_version: number }>(
      'SELECT definition, schema_version FROM search_index WHERE idx = ?',
      definition.number,
    )
    return row?.schema_version === this.#schemaVersion() && row.definition === digestOf(definition)
  }

  #uptoIfValid(definition: TextIndexDefinition): number {
    return this.#isValid(definition) ? this.#upto(definition) : 0
  }

  #upto({ number }: TextIndexDefinition): number {
    const sql = 'SELECT upto FROM search_index WHERE idx = ?'
    return this.#connection.get<{ upto: number }>(sql, number)?.upto ?? 0
  }

  #schemaVersion(): number {
    return Number(this.#connection.pragma('schema_version'))
  }

  /**
   * A cache waits for nobody and fsyncs nothing: it does not hold up the event loop while another process writes, and
   * what a power cut takes of it is made again.
   */
  #unhurried<T>(work: () => T): T {
    const connection = this.#connection
    const timeout = Number(connection.pragma('busy_timeout'))
    const synchronous = String(connection.pragma('synchronous'))
    try {
      connection.pragma('busy_timeout = 0')
      connection.pragma('synchronous = NORMAL')
      return work()
    } finally {
      if (connection.isOpen) {
        connection.pragma(`busy_timeout = ${timeout}`)
        connection.pragma(`synchronous = ${synchronous}`)
      }
    }
  }
}

/** How long after a commit the index follows. */
const FOLLOW_AFTER_MS = 100
/** Attempts in a row that find the store locked; beyond, what is newer is searched directly. */
const BUSY_ATTEMPTS_MAX = 20
const BUSY_PAUSE_MS = 10

const pause = (ms: number): Promise<void> =>
  new Promise((done) => {
    setTimeout(done, ms)
  })

const isHindrance = (error: unknown): error is AgentDBError =>
  error instanceof AgentDBError && ['STORE_BUSY', 'STORE_FULL'].includes(error.code)

const sideTables: readonly string[] = [
  `CREATE TABLE IF NOT EXISTS search_index (
  idx INTEGER PRIMARY KEY,
  definition TEXT NOT NULL,
  upto INTEGER NOT NULL,
  schema_version INTEGER NOT NULL
) STRICT`,
  `CREATE TABLE IF NOT EXISTS search_changed (
  idx INTEGER NOT NULL,
  row INTEGER NOT NULL,
  PRIMARY KEY (idx, row)
) STRICT, WITHOUT ROWID`,
]

/** The highest rowid of the table. */
export const lastRow = (connection: Connection, { table }: TextIndexDefinition): number =>
  connection.get<{ last: number }>(`SELECT coalesce(max(rowid), 0) AS last FROM ${table}`)?.last ??
  0

/** The last of the next so many rows behind one; undefined where there is none. */
export const lastOfNext = (
  connection: Connection,
  { table }: TextIndexDefinition,
  after: number,
  rowsMax: number,
): number | undefined =>
  connection.get<{ last: number | null }>(
    `SELECT max(row) AS last FROM (SELECT rowid AS row FROM ${table} WHERE rowid > ? ORDER BY rowid LIMIT ?)`,
    after,
    rowsMax,
  )?.last ?? undefined

const columnsOf = ({ fields }: TextIndexDefinition): string =>
  fields.map(({ name }) => name).join(', ')

/** Rows `r` of the table as texts of the index. */
const selectTexts = ({ table, fields }: TextIndexDefinition): string =>
  `SELECT r.rowid, ${fields.map(({ sql }) => sql).join(', ')} FROM ${table} r`

/** Takes rows `r` of the table into the index, or into a table like it. */
export const insertInto = (definition: TextIndexDefinition, name = definition.name): string =>
  `INSERT INTO ${name} (rowid, ${columnsOf(definition)}) ${selectTexts(definition)}`

/** A full-text table like that of the index, in memory. With `keeps`, it can show what matched. */
export const temporaryTable = (
  name: string,
  definition: TextIndexDefinition,
  keeps: boolean,
): string =>
  `CREATE VIRTUAL TABLE temp.${name} USING fts5(${columnsOf(definition)}, tokenize = '${definition.tokenize}'${keeps ? '' : `, content = ''`})`

function statementsOf(definition: TextIndexDefinition): string[] {
  const { number, name, table, watched, tokenize } = definition
  const note = (row: 'OLD' | 'NEW'): string =>
    `INSERT INTO search_changed (idx, row) SELECT idx, ${row}.rowid FROM search_index
    WHERE idx = ${number} AND upto >= ${row}.rowid ON CONFLICT DO NOTHING;`
  // Where the last rows go, what is inserted next gets rowids that the index is beyond.
  const lower = `UPDATE search_index SET upto = min(upto, (SELECT coalesce(max(rowid), 0) FROM ${table})) WHERE idx = ${number};`
  const changed = watched.map((column) => `OLD.${column} IS NOT NEW.${column}`).join(' OR ')
  return [
    `CREATE VIRTUAL TABLE ${name} USING fts5(${columnsOf(definition)}, tokenize = '${tokenize}', content = '', contentless_delete = 1)`,
    `CREATE TRIGGER ${name}_changed AFTER UPDATE OF ${watched.join(', ')} ON ${table} WHEN ${changed}
BEGIN
    ${note('NEW')}
END`,
    `CREATE TRIGGER ${name}_deleted AFTER DELETE ON ${table}
BEGIN
    ${note('OLD')}
    ${lower}
END`,
  ]
}

/** An index made by another version of this program is made anew. */
const digestOf = (definition: TextIndexDefinition): string =>
  createHash('sha256')
    .update(
      [...sideTables, ...statementsOf(definition), insertInto(definition), definition.where].join(
        '\n',
      ),
    )
    .digest('hex')
