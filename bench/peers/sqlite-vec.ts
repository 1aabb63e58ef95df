import Database from 'better-sqlite3'
import type { VectorSet } from '../support/vector-set.ts'
import { isMissing, requirePeer, type Missing, type PeerPlaces } from './missing.ts'
import { ONE_IN, type OneIn, type StorePeer } from './store-peer.ts'

/** The part of the package that is used: its own types are there only where it is installed. */
interface SqliteVec {
  load(database: Database.Database): void
}

const PUT_ROWS = 500
const columns = ONE_IN.map((each) => `one_in_${each}`)

/** sqlite-vec: a virtual table of vectors with metadata columns, always scanned. */
export function openSqliteVec(file: string, places?: PeerPlaces): StorePeer | Missing {
  const vec = requirePeer<SqliteVec>('sqlite-vec', places)
  return isMissing(vec) ? vec : new SqliteVecStore(vec, file)
}

class SqliteVecStore implements StorePeer {
  readonly name = 'sqlite-vec'
  readonly how = 'exact, float32'
  readonly #vec: SqliteVec
  readonly #file: string
  readonly #database: Database.Database
  readonly #statements = new Map<string, Database.Statement<unknown[], number>>()

  constructor(vec: SqliteVec, file: string) {
    this.#vec = vec
    this.#file = file
    this.#database = this.#open()
  }

  async fill(vectors: VectorSet): Promise<void> {
    this.#database.exec(
      `CREATE VIRTUAL TABLE items USING vec0(
        vector float[${vectors.dimension}] distance_metric=cosine,
        ${columns.map((column) => `${column} integer`).join(', ')})`,
    )
    for (let from = 0; from < vectors.count; from += PUT_ROWS) {
      this.#database.exec('BEGIN')
      for (let row = from; row < Math.min(from + PUT_ROWS, vectors.count); row++)
        this.put(row, vectors.row(row))
      this.#database.exec('COMMIT')
    }
  }

  search(vector: Float32Array, k: number, oneIn?: OneIn): number[] {
    return this.#nearest(this.#database, oneIn).all(blob(vector), k)
  }

  put(row: number, vector: Float32Array): void {
    this.#prepared(
      `INSERT INTO items (rowid, vector, ${columns.join(', ')}) VALUES (?, ?, ${columns.map(() => '?').join(', ')})`,
    ).run(BigInt(row), blob(vector), ...ONE_IN.map((each) => BigInt(row % each)))
  }

  delete(row: number): void {
    this.#prepared('DELETE FROM items WHERE rowid = ?').run(BigInt(row))
  }

  async reopen(vector: Float32Array, k: number): Promise<number> {
    const startedAt = performance.now()
    const database = this.#open()
    prepareNearest(database, undefined).all(blob(vector), k)
    const ms = performance.now() - startedAt
    database.close()
    return ms
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#database.close()
  }

  /** With the settings of an AgentDB store. */
  #open(): Database.Database {
    const database = new Database(this.#file)
    for (const setting of ['journal_mode = WAL', 'synchronous = normal', 'cache_size = -32000'])
      database.pragma(setting)
    this.#vec.load(database)
    return database
  }

  #nearest(
    database: Database.Database,
    oneIn: OneIn | undefined,
  ): Database.Statement<unknown[], number> {
    const key = `nearest ${oneIn}`
    const known = this.#statements.get(key) ?? prepareNearest(database, oneIn)
    this.#statements.set(key, known)
    return known
  }

  #prepared(sql: string): Database.Statement<unknown[], number> {
    const known = this.#statements.get(sql) ?? this.#database.prepare<unknown[], number>(sql)
    this.#statements.set(sql, known)
    return known
  }
}

const prepareNearest = (
  database: Database.Database,
  oneIn: OneIn | undefined,
): Database.Statement<unknown[], number> =>
  database
    .prepare<unknown[], number>(
      `SELECT rowid FROM items WHERE vector MATCH ? AND k = ?${oneIn === undefined ? '' : ` AND one_in_${oneIn} = 0`}`,
    )
    .pluck()

const blob = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength)
