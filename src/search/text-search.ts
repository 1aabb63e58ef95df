import type { Connection, Parameters } from '../sqlite/connection.ts'
import type { Condition } from './payload-filter.ts'
import type { Highlight } from './search-options.ts'
import { selectTexts, temporaryTable, TextIndexes, type Freshness } from './text-index.ts'
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

/** Words in rows, by FTS5. */
export class TextSearch {
  readonly #connection: Connection
  readonly #indexes: TextIndexes

  constructor(connection: Connection) {
    this.#connection = connection
    this.#indexes = new TextIndexes(connection)
  }

  /** The best `limit` rows of a source for an expression of FTS5, among those that fit the condition. */
  async search(
    source: SourceDefinition,
    index: TextIndexDefinition,
    expression: string,
    condition: Condition,
    limit: number,
  ): Promise<TextHit[]> {
    const run = async (): Promise<TextHit[]> => {
      const freshness = await this.#indexes.catchUp(index)
      return this.#search(source, index, expression, condition, limit, freshness)
    }
    try {
      return await run()
    } catch (error) {
      if (!isDamaged(error)) throw error
      this.#indexes.drop(index)
      return run()
    }
  }

  #search(
    source: SourceDefinition,
    index: TextIndexDefinition,
    expression: string,
    condition: Condition,
    limit: number,
    freshness: Freshness,
  ): TextHit[] {
    const conditions = [condition.sql, source.where, this.#withoutStubs(source)].filter(
      (sql) => sql !== '1',
    )
    const where = conditions.length === 0 ? '1' : conditions.join(' AND ')
    const query = { index, expression, where, parameters: condition.parameters, limit }
    if (freshness.isFresh) return this.#find(query, index.name, '1')
    const indexed =
      freshness.upto === 0
        ? []
        : this.#find(
            query,
            index.name,
            `f.rowid <= ${freshness.upto} AND f.rowid NOT IN (SELECT row FROM search_changed WHERE idx = ${index.number})`,
          )
    return merged(indexed, this.#findNewer(query, freshness.upto), limit)
  }

  /** Stubs stand for rows outside the scope: no program sees them. */
  #withoutStubs({ tableNumber }: SourceDefinition): string {
    const has = this.#connection.get('SELECT 1 FROM sync_stub WHERE tbl = ? LIMIT 1', tableNumber)
    return has === undefined
      ? '1'
      : `NOT EXISTS (SELECT 1 FROM sync_stub s WHERE s.id = e.id AND s.tbl = ${tableNumber})`
  }

  #find(
    { index, expression, where, parameters, limit }: TextQuery,
    name: string,
    rows: string,
  ): Found[] {
    const bm25 = `bm25(${[name, ...index.fields.map(({ weight }) => weight)].join(', ')})`
    // Without a condition only the best are looked up in the table; ORDER BY bm25() beats ORDER BY rank.
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
          WHERE ${name} MATCH ? AND ${rows} AND ${where} ORDER BY score DESC, e.id LIMIT ?`,
          expression,
          ...parameters,
          limit,
        )
  }

  /** What the index does not have yet, in an index of its own. */
  #findNewer(query: TextQuery, upto: number): Found[] {
    const { index } = query
    const name = `${index.name}_newer`
    const connection = this.#connection
    connection.exec(temporaryTable(name, index, false))
    try {
      const changed =
        upto === 0
          ? ''
          : ` OR r.rowid IN (SELECT row FROM search_changed WHERE idx = ${index.number})`
      const columns = index.fields.map((field) => field.name).join(', ')
      connection.run(
        `INSERT INTO temp.${name} (rowid, ${columns}) ${selectTexts(index)} WHERE (r.rowid > ?${changed}) AND ${index.where}`,
        upto,
      )
      return this.#find(query, name, '1')
    } finally {
      connection.exec(`DROP TABLE temp.${name}`)
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
      const columns = index.fields.map((field) => field.name).join(', ')
      connection.run(
        `INSERT INTO temp.${name} (rowid, ${columns}) ${selectTexts(index)} WHERE r.id IN (SELECT value FROM json_each(?))`,
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

interface TextQuery {
  readonly index: TextIndexDefinition
  readonly expression: string
  readonly where: string
  readonly parameters: Parameters
  readonly limit: number
}

/** Scores of two indexes do not compare: the newer rows begin where the others do. */
function merged(indexed: readonly Found[], newer: readonly Found[], limit: number): TextHit[] {
  const best = indexed[0]?.score ?? 1
  const scale = best / Math.max(newer[0]?.score ?? 1, Number.MIN_VALUE)
  return [...newer.map(({ id, score }) => ({ id, score: score * scale })), ...indexed]
    .toSorted((a, b) => b.score - a.score || (a.id < b.id ? -1 : 1))
    .slice(0, limit)
}

/** Where more is damaged than the index, making it anew fails, too, and says so. */
const isDamaged = (error: unknown): boolean => {
  const { code } = error as { code?: unknown }
  return code === 'STORE_CORRUPT' || String(code).startsWith('SQLITE_CORRUPT')
}
