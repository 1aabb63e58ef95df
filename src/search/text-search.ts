import { setImmediate } from 'node:timers/promises'
import type { Connection, Parameters } from '../sqlite/connection.ts'
import { best, better } from './fusion.ts'
import type { Condition } from './payload-filter.ts'
import type { Highlight } from './search-options.ts'
import {
  insertInto,
  lastOfNext,
  lastRow,
  temporaryTable,
  TextIndexes,
  type Freshness,
} from './text-index.ts'
import { Pace } from './text-pace.ts'
import type { SourceDefinition, TextIndexDefinition } from './text-sources.ts'

/** A row that has words of the query. */
export interface TextHit {
  readonly id: string
  /** BM25, above 0; higher is better. Scores of two indexes do not compare. */
  readonly score: number
}

interface Found {
  readonly row: number
  readonly id: string
  readonly score: number
}

/** What has which words, among which rows. */
export interface TextRequest {
  readonly source: SourceDefinition
  readonly index: TextIndexDefinition
  /** In FTS5's language. */
  readonly expression: string
  readonly condition: Condition
  readonly limit: number
  /** Ids of embeddings whose score is wanted even where `limit` others are better. */
  readonly near: readonly string[]
}

/** Words in rows, by FTS5. */
export class TextSearch {
  readonly #connection: Connection
  readonly #indexes: TextIndexes
  readonly #pace = new Pace()
  #temporaryTables = 0

  constructor(connection: Connection) {
    this.#connection = connection
    this.#indexes = new TextIndexes(connection)
  }

  /** The best `limit` rows that fit, and whichever rows of `near` have words, too; best first. */
  async search(request: TextRequest): Promise<TextHit[]> {
    const { index } = request
    const run = async (): Promise<TextHit[]> =>
      this.#search(request, await this.#indexes.catchUp(index))
    try {
      return await run()
    } catch (error) {
      if (!isDamaged(error)) throw error
      this.#indexes.drop(index)
      return run()
    }
  }

  async #search(
    { source, condition, ...request }: TextRequest,
    { isFresh, upto }: Freshness,
  ): Promise<TextHit[]> {
    const conditions = [condition.sql, source.where, this.#withoutStubs(source)].filter(
      (sql) => sql !== '1',
    )
    const where = conditions.length === 0 ? '1' : conditions.join(' AND ')
    const query = { ...request, where, parameters: condition.parameters }
    if (isFresh) return merged(this.#find(query, query.index.name, '1'), [], query)
    // One reading: what is taken into the index meanwhile is found once.
    const { indexed, newer } = this.#connection.reading(() => ({
      indexed: this.#findIndexed(query, upto),
      newer: this.#newer(query.index, upto),
    }))
    return merged(indexed, await this.#findNewer(query, newer), query)
  }

  /** Stubs stand for rows outside the scope: no program sees them. */
  #withoutStubs({ tableNumber }: SourceDefinition): string {
    const has = this.#connection.get('SELECT 1 FROM sync_stub WHERE tbl = ? LIMIT 1', tableNumber)
    return has === undefined
      ? '1'
      : `NOT EXISTS (SELECT 1 FROM sync_stub s WHERE s.id = e.id AND s.tbl = ${tableNumber})`
  }

  #find(
    { index, expression, where, parameters, limit, near }: TextQuery,
    name: string,
    rows: string,
  ): Found[] {
    const bm25 = `bm25(${[name, ...index.fields.map(({ weight }) => weight)].join(', ')})`
    // Without a condition only the best are looked up in the table; ORDER BY bm25() beats ORDER BY rank. With one, the near
    // rows come first, told by rowid, which is compared faster than an id.
    return where === '1'
      ? this.#connection.all<Found>(
          `SELECT e.rowid AS row, e.id, -f.score AS score
          FROM (SELECT f.rowid AS row, ${bm25} AS score FROM ${name} f WHERE ${name} MATCH ? AND ${rows} ORDER BY score LIMIT ?) f
          JOIN ${index.table} e ON e.rowid = f.row ORDER BY f.score, e.id`,
          expression,
          limit,
        )
      : this.#connection.all<Found>(
          `SELECT e.rowid AS row, e.id, -${bm25} AS score FROM ${name} f CROSS JOIN ${index.table} e ON e.rowid = f.rowid
          WHERE ${name} MATCH ? AND ${rows} AND ${where}
          ORDER BY f.rowid IN (SELECT n.rowid FROM json_each(?) j JOIN ${index.table} n ON n.id = j.value) DESC, score DESC, e.id
          LIMIT ?`,
          expression,
          ...parameters,
          JSON.stringify(near),
          limit + near.length,
        )
  }

  #findIndexed(query: TextQuery, upto: number): Found[] {
    if (upto === 0) return []
    const { name, number } = query.index
    const changed = `SELECT row FROM search_changed WHERE idx = ${number}`
    return this.#find(query, name, `f.rowid <= ${upto} AND f.rowid NOT IN (${changed})`)
  }

  /** What the index does not have, or has as it was. */
  #newer(index: TextIndexDefinition, upto: number): Newer {
    const last = lastRow(this.#connection, index)
    if (upto === 0) return { changed: [], upto, last }
    const rows = this.#connection.all<{ row: number }>(
      'SELECT row FROM search_changed WHERE idx = ? AND row <= ?',
      index.number,
      upto,
    )
    return { changed: rows.map(({ row }) => row), upto, last }
  }

  /** What is newer than the index, in an index of its own. */
  async #findNewer(query: TextQuery, newer: Newer): Promise<Found[]> {
    const { index } = query
    const connection = this.#connection
    // Another search may be on its way between two slices.
    const name = `${index.name}_newer${++this.#temporaryTables}`
    connection.exec(temporaryTable(name, index, false))
    try {
      await this.#fill(name, index, newer)
      return this.#find(query, name, '1')
    } finally {
      if (connection.isOpen) connection.exec(`DROP TABLE temp.${name}`)
    }
  }

  /** In slices, as the index itself is made: there may be as many rows as the table has. */
  async #fill(name: string, index: TextIndexDefinition, { changed, upto, last }: Newer) {
    const connection = this.#connection
    const insert = `${insertInto(index, `temp.${name}`)} WHERE ${index.where}`
    for (let done = 0; done < changed.length; await setImmediate()) {
      done += this.#pace.slice((rowsMax) => {
        const rows = changed.slice(done, done + rowsMax)
        const these = 'r.rowid IN (SELECT value FROM json_each(?))'
        connection.run(`${insert} AND ${these}`, JSON.stringify(rows))
        return rows.length
      })
    }
    for (let taken = upto; taken < last; await setImmediate()) {
      taken = this.#pace.slice((rowsMax) => {
        const to = lastOfNext(connection, index, taken, rowsMax) ?? last
        connection.run(`${insert} AND r.rowid > ? AND r.rowid <= ?`, taken, to)
        return to
      })
    }
  }

  /** The words around what matched, of rows that were found; rows without a match are left out. */
  highlight(
    index: TextIndexDefinition,
    expression: string,
    ids: readonly string[],
    { before, after, words }: Highlight,
  ): Map<string, string> {
    const name = `${index.name}_shown`
    const connection = this.#connection
    connection.exec(temporaryTable(name, index, true))
    try {
      connection.run(
        `${insertInto(index, `temp.${name}`)} WHERE r.id IN (SELECT value FROM json_each(?))`,
        JSON.stringify(ids),
      )
      const rows = connection.all<{ id: string; shown: string }>(
        `SELECT e.id, snippet(${name}, -1, ?, ?, '…', ?) AS shown FROM temp.${name} f
        JOIN ${index.table} e ON e.rowid = f.rowid WHERE ${name} MATCH ?`,
        before,
        after,
        words,
        expression,
      )
      return new Map(rows.map(({ id, shown }) => [id, shown]))
    } finally {
      connection.exec(`DROP TABLE temp.${name}`)
    }
  }
}

/** A request as SQL. */
interface TextQuery extends Omit<TextRequest, 'source' | 'condition'> {
  readonly where: string
  readonly parameters: Parameters
}

/** Rows that an index up to `upto` does not have as they are: some of its own, and all behind it. */
interface Newer {
  readonly changed: readonly number[]
  readonly upto: number
  readonly last: number
}

/** Scores of two indexes do not compare: the newer rows begin where the others do. */
function merged(
  indexed: readonly Found[],
  newer: readonly Found[],
  { limit, near }: TextQuery,
): TextHit[] {
  const scale = (best(indexed) || 1) / (best(newer) || 1)
  const isNear = new Set(near)
  return [...newer.map(({ id, score }) => ({ id, score: score * scale })), ...indexed]
    .toSorted(better)
    .filter(({ id }, place) => place < limit || isNear.has(id))
}

/** Where more is damaged than the index, making it anew fails, too, and says so. */
const isDamaged = (error: unknown): boolean => {
  const { code } = error as { code?: unknown }
  return code === 'STORE_CORRUPT' || String(code).startsWith('SQLITE_CORRUPT')
}
