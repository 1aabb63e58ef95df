import type { VectorSet } from '../support/vector-set.ts'
import { isMissing, requirePeer, type Missing, type PeerPlaces } from './missing.ts'
import { ONE_IN, type OneIn, type StorePeer } from './store-peer.ts'

/** The parts of the packages that are used: their own types are there only where they are installed. */
interface LanceDB {
  connect(folder: string): Promise<Connection>
  readonly Index: {
    hnswSq(options: {
      distanceType: 'cosine'
      numPartitions: number
      m: number
      efConstruction: number
    }): unknown
    btree(): unknown
  }
}

interface Connection {
  createTable(name: string, data: unknown): Promise<Table>
  openTable(name: string): Promise<Table>
  close(): void
}

interface Table {
  add(data: unknown): Promise<unknown>
  delete(where: string): Promise<unknown>
  createIndex(column: string, options: { config: unknown }): Promise<void>
  vectorSearch(vector: Float32Array): VectorQuery
  close(): void
}

interface VectorQuery {
  distanceType(type: 'cosine'): VectorQuery
  nprobes(count: number): VectorQuery
  ef(ef: number): VectorQuery
  refineFactor(factor: number): VectorQuery
  where(predicate: string): VectorQuery
  select(columns: string[]): VectorQuery
  limit(k: number): VectorQuery
  toArrow(): Promise<{ getChild(name: string): Iterable<number> | null }>
}

interface Arrow {
  readonly Float32: new () => object
  readonly Field: new (name: string, type: object, nullable: boolean) => object
  readonly FixedSizeList: new (length: number, child: object) => object
  readonly Table: new (columns: Record<string, unknown>) => unknown
  readonly makeData: (properties: object) => unknown
  readonly makeVector: (data: unknown) => unknown
}

/** Rows of one call of `add`: each makes a file. */
const PUT_ROWS = 25_000
/** Below that many it has no use for a graph. */
const INDEX_ROWS_MIN = 1000
const EFS = [64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048]
/** The graph holds 8-bit vectors; that many times `k` are compared again in float32. */
const REFINE = 4

/** LanceDB: files in columns, an HNSW graph of 8-bit vectors, ordered indexes of the columns to filter on. */
export async function openLanceDB(
  folder: string,
  places?: PeerPlaces,
): Promise<StorePeer | Missing> {
  const lance = requirePeer<LanceDB>('@lancedb/lancedb', places)
  if (isMissing(lance)) return lance
  const arrow = requirePeer<Arrow>('apache-arrow', places)
  if (isMissing(arrow)) return arrow
  return new LanceStore(lance, arrow, folder, await lance.connect(folder))
}

class LanceStore implements StorePeer {
  readonly name = 'LanceDB'
  readonly #lance: LanceDB
  readonly #arrow: Arrow
  readonly #folder: string
  readonly #connection: Connection
  #table: Table | undefined
  #hasGraph = false
  #ef = EFS[0] as number

  constructor(lance: LanceDB, arrow: Arrow, folder: string, connection: Connection) {
    this.#lance = lance
    this.#arrow = arrow
    this.#folder = folder
    this.#connection = connection
  }

  get how(): string {
    return this.#hasGraph
      ? `HNSW of 8-bit vectors, ef ${this.#ef}, ${REFINE}k compared again; its threads are all processors`
      : 'exact, float32'
  }

  async fill(vectors: VectorSet): Promise<void> {
    const { count, dimension } = vectors
    for (let from = 0; from < count; from += PUT_ROWS) {
      const rows = Math.min(PUT_ROWS, count - from)
      const matrix = vectors.matrix.subarray(from * dimension, (from + rows) * dimension)
      const data = this.#rows(from, rows, matrix)
      if (this.#table === undefined) this.#table = await this.#connection.createTable('items', data)
      else await this.#table.add(data)
    }
    if (count < INDEX_ROWS_MIN) return
    const { Index } = this.#lance
    await this.#open.createIndex('vector', {
      config: Index.hnswSq({
        distanceType: 'cosine',
        numPartitions: 1,
        m: 16,
        efConstruction: 100,
      }),
    })
    for (const each of ONE_IN)
      await this.#open.createIndex(`one_in_${each}`, { config: Index.btree() })
    this.#hasGraph = true
  }

  async tune(recall: () => Promise<number>, wanted: number): Promise<void> {
    if (!this.#hasGraph) return
    for (const ef of EFS) {
      this.#ef = ef
      if ((await recall()) >= wanted) return
    }
  }

  search(vector: Float32Array, k: number, oneIn?: OneIn): Promise<number[]> {
    return this.#nearest(this.#open, vector, k, oneIn)
  }

  async put(row: number, vector: Float32Array): Promise<void> {
    await this.#open.add(this.#rows(row, 1, vector))
  }

  async delete(row: number): Promise<void> {
    await this.#open.delete(`row = ${row}`)
  }

  async reopen(vector: Float32Array, k: number): Promise<number> {
    const startedAt = performance.now()
    const connection = await this.#lance.connect(this.#folder)
    const table = await connection.openTable('items')
    await this.#nearest(table, vector, k)
    const ms = performance.now() - startedAt
    table.close()
    connection.close()
    return ms
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#table?.close()
    this.#connection.close()
  }

  get #open(): Table {
    if (this.#table === undefined) throw new Error('fill comes first')
    return this.#table
  }

  async #nearest(table: Table, vector: Float32Array, k: number, oneIn?: OneIn): Promise<number[]> {
    let query = table
      .vectorSearch(vector)
      .distanceType('cosine')
      .select(['row', '_distance'])
      .limit(k)
    if (this.#hasGraph) query = query.nprobes(1).ef(this.#ef).refineFactor(REFINE)
    if (oneIn !== undefined) query = query.where(`one_in_${oneIn} = 0`)
    const found = await query.toArrow()
    return [...(found.getChild('row') ?? [])]
  }

  /** Columns without a copy for each row. */
  #rows(from: number, count: number, matrix: Float32Array): unknown {
    const { Field, FixedSizeList, Float32, Table, makeData, makeVector } = this.#arrow
    const dimension = matrix.length / count
    const float32 = new Float32()
    const child = makeData({ type: float32, length: matrix.length, nullCount: 0, data: matrix })
    const type = new FixedSizeList(dimension, new Field('item', float32, true))
    const numbers = (value: (row: number) => number): unknown =>
      makeVector(Int32Array.from({ length: count }, (_, i) => value(from + i)))
    return new Table({
      row: numbers((row) => row),
      ...Object.fromEntries(ONE_IN.map((each) => [`one_in_${each}`, numbers((row) => row % each)])),
      vector: makeVector(makeData({ type, length: count, nullCount: 0, child })),
    })
  }
}
