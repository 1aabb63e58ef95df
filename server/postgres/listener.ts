import { Client } from 'pg'

/** How long to wait before a broken connection is made again; meanwhile polling finds what is new. */
const RECONNECT_MS = 1000

/** A connection that listens to one channel for as long as the server runs. */
export class Listener {
  readonly #url: string
  readonly #channel: string
  readonly #onNotice: (payload: string) => void
  #client: Client | undefined
  #timer: NodeJS.Timeout | undefined
  #closed = false

  constructor(url: string, channel: string, onNotice: (payload: string) => void) {
    this.#url = url
    this.#channel = channel
    this.#onNotice = onNotice
    this.#connect()
  }

  #connect(): void {
    const client = new Client({
      connectionString: this.#url,
      application_name: 'llm_copilot_agent_listen',
      keepAlive: true,
    })
    this.#client = client
    client.on('notification', ({ payload = '' }) => this.#onNotice(payload))
    client.on('error', () => this.#again(client))
    client.on('end', () => this.#again(client))
    void client
      .connect()
      .then(() => client.query(`LISTEN ${client.escapeIdentifier(this.#channel)}`))
      .catch(() => this.#again(client))
  }

  #again(client: Client): void {
    if (this.#closed || this.#client !== client) return
    this.#client = undefined
    void client.end().catch(() => undefined)
    this.#timer = setTimeout(() => this.#connect(), RECONNECT_MS)
    this.#timer.unref()
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#timer)
    await this.#client?.end().catch(() => undefined)
  }
}
