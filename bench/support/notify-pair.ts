import { Client } from 'pg'

/** The least that PostgreSQL itself needs to tell one connection of another's commit. */
export class NotifyPair implements AsyncDisposable {
  readonly #writer: Client
  readonly #listener: Client

  private constructor(writer: Client, listener: Client) {
    this.#writer = writer
    this.#listener = listener
  }

  static async open(url: string): Promise<NotifyPair> {
    const writer = new Client({ connectionString: url })
    const listener = new Client({ connectionString: url })
    await Promise.all([writer.connect(), listener.connect()])
    await writer.query('CREATE TABLE bench_note (n integer PRIMARY KEY)')
    await listener.query('LISTEN bench_note')
    return new NotifyPair(writer, listener)
  }

  async seenAfter(n: number): Promise<number> {
    const heard = new Promise<void>((resolve) => {
      this.#listener.once('notification', () => resolve())
    })
    const startedAt = performance.now()
    await this.#writer.query(
      `WITH made AS (INSERT INTO bench_note VALUES (${n}) RETURNING n) SELECT pg_notify('bench_note', n::text) FROM made`,
    )
    await heard
    return performance.now() - startedAt
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.#writer.end(), this.#listener.end()])
  }
}
