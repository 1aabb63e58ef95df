import { subscribe } from 'node:diagnostics_channel'
import type { IncomingMessage } from 'node:http'
import { sql } from 'kysely'
import {
  addUser,
  serve,
  type NewUser,
  type SyncServer,
  type TokenOptions,
} from '../../server/index.ts'
import { answer, notify } from './rpc.ts'

/** The sync server of the demo, in a process of its own. */
export interface Start {
  readonly port: number
  readonly databaseUrl?: string
  readonly dataFolder?: string
}

let running: SyncServer | undefined

function server(): SyncServer {
  if (running === undefined) throw new Error('the server has not been started')
  return running
}

const handlers = {
  async start(options: Start): Promise<{ url: string; database: string; version: string }> {
    running = await serve(options)
    const { rows } = await sql<{ version: string }>`
      SELECT current_setting('server_version') AS version`.execute(running.db)
    return { url: running.url, database: running.database, version: rows[0]?.version ?? '' }
  },

  addUser: async (user: NewUser) => addUser(server().db, user),

  token: async (options: TokenOptions) => server().issueToken(options),

  /** Tells of each push, once its body is here and its transaction is about to begin. */
  announcePushes(): void {
    let count = 0
    subscribe('http.server.request.start', (message) => {
      const { request } = message as { request: IncomingMessage }
      if (request.url?.startsWith('/sync/v1/push') !== true) return
      count += 1
      const nth = count
      request.once('end', () => notify('push', nth))
    })
  },

  /** Up to which of its transactions the centre has a client's work, and how many it has applied. */
  async watermark(clientId: string): Promise<{ seq: number; applied: number; distinct: number }> {
    const { rows } = await sql<{ seq: number; applied: number; distinct: number }>`
      SELECT c.seq, (SELECT count(*) FROM sync.applied a WHERE a.client_id = c.client_id) AS applied,
        (SELECT count(DISTINCT a.seq) FROM sync.applied a WHERE a.client_id = c.client_id) AS distinct
      FROM sync.client c WHERE c.client_id = ${clientId}`.execute(server().db)
    return rows[0] ?? { seq: 0, applied: 0, distinct: 0 }
  },

  /** Direct SQL, past every agent. */
  async resolveBySql(incidentId: string, notes: string): Promise<void> {
    await sql`UPDATE incidents SET resolution_notes = ${notes} WHERE id = ${incidentId}`.execute(
      server().db,
    )
  },

  async incident(id: string): Promise<Readonly<Record<string, unknown>> | undefined> {
    return server().db.selectFrom('incidents').selectAll().where('id', '=', id).executeTakeFirst()
  },

  /** Ids of all rows of a table. */
  async idsOf(table: string): Promise<string[]> {
    const { rows } = await sql<{ id: string }>`SELECT id FROM ${sql.table(table)}`.execute(
      server().db,
    )
    return rows.map(({ id }) => id)
  },

  /** Indexed pieces at the centre, and how many different ones. */
  async pieces(): Promise<{ rows: number; distinct: number }> {
    const { rows } = await sql<{ rows: number; distinct: number }>`
      SELECT count(*) AS rows, count(DISTINCT payload ->> 'piece') AS distinct FROM embeddings
      WHERE payload ? 'piece'`.execute(server().db)
    return rows[0] ?? { rows: 0, distinct: 0 }
  },

  async close(): Promise<void> {
    await running?.close()
  },
}

export type ServerHandlers = typeof handlers

answer(handlers)
