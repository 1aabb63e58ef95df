import { setTimeout } from 'node:timers/promises'
import { AgentDB } from '../../src/index.ts'
import { ONE_IN, type OneIn, type StorePeer } from '../peers/store-peer.ts'
import type { VectorSet } from './vector-set.ts'

const collection = 'documentation_embeddings'
const PUT_ROWS = 500

/** AgentDB as those that it is compared with: a file, the default settings, filters on the payload. */
export class AgentDBStore implements StorePeer {
  readonly name = 'AgentDB'
  readonly #db: AgentDB
  readonly #ids: string[] = []
  #how = ''

  private constructor(db: AgentDB) {
    this.#db = db
  }

  static async open(path: string): Promise<AgentDBStore> {
    return new AgentDBStore(await AgentDB.open({ path }))
  }

  /** As the planner chose it when the store had settled. */
  get how(): string {
    return this.#how
  }

  /** Ends when the rows are stored. */
  async fill(vectors: VectorSet): Promise<void> {
    for (let from = 0; from < vectors.count; from += PUT_ROWS) {
      const rows = await this.#db.embeddings.putMany(
        Array.from({ length: Math.min(PUT_ROWS, vectors.count - from) }, (_, i) =>
          input(from + i, vectors.row(from + i)),
        ),
      )
      for (const { id } of rows) this.#ids.push(id)
    }
  }

  /** Asks until its graph, where it has one, has everything and its recall is known. */
  async settle(probes: VectorSet, k: number): Promise<void> {
    for (let n = 0; ; n++) {
      const { plans } = await this.#db.search({
        collection,
        vector: probes.row(n % probes.count),
        k,
        explain: true,
      })
      const [plan] = plans
      if (plan === undefined) throw new Error('a search without a plan')
      this.#how = `${plan.method}${plan.ef === null ? '' : `, ef ${plan.ef}`}`
      if (!this.#isBuilding() && !/(being|is) (measured|read or written)/.test(plan.reason)) return
      do await setTimeout(20)
      while (this.#isBuilding())
    }
  }

  async search(vector: Float32Array, k: number, oneIn?: OneIn): Promise<number[]> {
    const filter = oneIn === undefined ? undefined : { [`one_in_${oneIn}`]: 0 }
    const found = await this.#db.search({ collection, vector, k, filter })
    return found.map(({ payload }) => (payload as { row: number }).row)
  }

  async put(row: number, vector: Float32Array): Promise<void> {
    const { id } = await this.#db.embeddings.put(input(row, vector))
    this.#ids[row] = id
  }

  delete(row: number): void {
    const id = this.#ids[row]
    if (id === undefined || !this.#db.embeddings.delete(id)) throw new Error(`no row ${row}`)
  }

  async reopen(vector: Float32Array, k: number): Promise<number> {
    const startedAt = performance.now()
    await using db = await AgentDB.open({ path: this.#db.path })
    await db.search({ collection, vector, k })
    return performance.now() - startedAt
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#db.close()
  }

  #isBuilding(): boolean {
    return this.#db
      .vectorGraphs()
      .some(({ state, behind }) => state === 'building' || (state === 'ready' && behind > 0))
  }
}

const input = (row: number, vector: Float32Array) =>
  ({
    collection,
    vector,
    model: 'bench',
    payload: {
      row,
      ...Object.fromEntries(ONE_IN.map((each) => [`one_in_${each}`, row % each])),
    },
  }) as const
