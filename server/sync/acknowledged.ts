import type { Database } from '../postgres/database.ts'

/** Clients whose word is kept between two writes; of others it is heard again with their next pull. */
const NOTED_MAX = 100_000

/**
 * Up to where each client says that it has its acknowledgements. Kept in memory and written now and then: it only decides
 * what may be forgotten, and what is lost of it is told again with the client's next request.
 */
export class AcknowledgedSeqs {
  #noted = new Map<string, number>()

  note(clientId: string, seq: number): void {
    if (seq <= (this.#noted.get(clientId) ?? 0)) return
    if (this.#noted.size >= NOTED_MAX) this.#noted.clear()
    this.#noted.set(clientId, seq)
  }

  /** Rows that a push holds are passed over: nobody waits for this, and it waits for nobody. */
  async write(database: Database): Promise<void> {
    const noted = this.#noted
    if (noted.size === 0) return
    this.#noted = new Map()
    await database.query(
      `WITH told AS (SELECT u.id, u.seq FROM unnest($1::uuid[], $2::bigint[]) u(id, seq)),
      free AS (SELECT c.client_id FROM sync.client c JOIN told ON told.id = c.client_id WHERE c.acked_seq < told.seq FOR UPDATE OF c SKIP LOCKED)
      UPDATE sync.client c SET acked_seq = greatest(c.acked_seq, least(c.seq, told.seq))
      FROM told JOIN free ON free.client_id = told.id WHERE c.client_id = told.id`,
      [[...noted.keys()], [...noted.values()]],
    )
  }
}
