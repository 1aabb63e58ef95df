import { sql } from 'kysely'
import { AgentDB, type Conflict, type Patch, type Row } from '../../src/index.ts'
import { internalsOf } from '../../src/internal-for-sync.ts'
import { connect, type Sync, type SyncStatus } from '../../sync/index.ts'
import { readCorpus, type Chunk, type CorpusPart } from './corpus.ts'
import { answer, notify } from './rpc.ts'

/** One agent of the demo, in a process of its own: a store, and at times a sync. */
export interface CommittedRow {
  readonly table: string
  readonly id: string
}

export interface Committed {
  readonly rows: readonly CommittedRow[]
  readonly mutations: number
}

export interface Found {
  readonly score: number
  readonly messageId: string
  readonly content: string | null
}

let store: AgentDB | undefined
let sync: Sync | undefined

function db(): AgentDB {
  if (store === undefined) throw new Error('the store is not open')
  return store
}

function connected(): Sync {
  if (sync === undefined) throw new Error('the agent is offline')
  return sync
}

/** Told only after the local commit: from here on, the row must never be lost. */
function committed(rows: readonly CommittedRow[], otherMutations = 0): void {
  notify('committed', { rows, mutations: rows.length + otherMutations } satisfies Committed)
}

const handlers = {
  async open(path: string, userId: string, agentId: string): Promise<void> {
    store = await AgentDB.open({ path, userId, agentId })
  },

  async identity(): Promise<{ clientId: string; position: number; transactions: number }> {
    const { rows } = await sql<{ client_id: string; position: number; tx: number }>`
      SELECT client_id, position, tx FROM sync_state`.execute(db().kysely)
    const [state] = rows
    // `tx` is the number of the next one.
    return {
      clientId: state?.client_id ?? '',
      position: state?.position ?? 0,
      transactions: (state?.tx ?? 1) - 1,
    }
  },

  /** Indexes texts as embeddings, a file a transaction. */
  async index(
    part: CorpusPart,
    chunksMax: number,
  ): Promise<{ chunks: number; files: number; packages: number }> {
    const { files, chunks, packages } = readCorpus(part, chunksMax)
    let done = 0
    for (const pieces of files) {
      const rows = await db().embeddings.putMany(pieces.map((chunk, i) => entryOf(part, chunk, i)))
      committed(rows.map(({ id }) => ({ table: 'embeddings', id })))
      done += pieces.length
      notify('progress', { done, total: chunks })
    }
    return { chunks, files: files.length, packages }
  },

  startConversation(title: string): string {
    const { id } = db().conversations.create({ title })
    committed([{ table: 'conversations', id }])
    return id
  },

  openIncident(title: string, severity: Row<'incidents'>['severity']): string {
    const { id } = db().incidents.create({ title, severity, source: 'demo' })
    committed([{ table: 'incidents', id }])
    return id
  },

  editIncident(id: string, patch: Patch<'incidents'>): void {
    db().incidents.update(id, patch)
    committed([], 1)
  },

  saveWorkflow(name: string, steps: readonly string[]): string {
    const { id } = db().workflows.create({
      name,
      definition: { steps: steps.map((step) => ({ id: step, type: 'shell' })) },
    })
    committed([{ table: 'workflows', id }])
    return id
  },

  /** A transaction that the centre must refuse as a whole: a developer may not delete incidents. */
  closeAsNoise(incidentId: string, conversationId: string): void {
    let id = ''
    db().transaction(() => {
      db().incidents.delete(incidentId)
      id = db().messages.create({
        conversation_id: conversationId,
        role: 'assistant',
        content: 'Closed the duplicate alert.',
      }).id
    })
    committed([{ table: 'messages', id }], 1)
  },

  /** Writes a message and makes it findable. */
  async say(conversationId: string, content: string): Promise<string> {
    const message = db().messages.create({ conversation_id: conversationId, role: 'user', content })
    const entry = await db().embeddings.put({
      collection: 'conversation_embeddings',
      content,
      payload: { conversation_id: conversationId, message_id: message.id, user_id: db().userId },
    })
    committed([
      { table: 'messages', id: message.id },
      { table: 'embeddings', id: entry.id },
    ])
    return message.id
  },

  async recall(text: string): Promise<Found | undefined> {
    const [best] = await db().search({ collection: 'conversation_embeddings', text, k: 1 })
    if (best === undefined) return undefined
    const { message_id: messageId } = best.payload as { message_id: string }
    return { score: best.score, messageId, content: db().messages.find(messageId)?.content ?? null }
  },

  /** The guide nearest to a question. */
  async consult(text: string): Promise<{ title: string; url: string; score: number } | undefined> {
    const [best] = await db().search({ collection: 'documentation_embeddings', text, k: 1 })
    if (best === undefined) return undefined
    const { title, url } = best.payload as { title: string; url: string }
    return { title, url, score: best.score }
  },

  connect(url: string, token: string): void {
    sync = connect(db(), { url, token, retryMinMs: 50, retryMaxMs: 250 })
    sync.on('outcome', (outcome) => notify('outcome', outcome))
    sync.on('status', (status) => notify('status', status))
  },

  async disconnect(): Promise<void> {
    await sync?.close()
    sync = undefined
  },

  status: (): SyncStatus => connected().status(),

  now: async (): Promise<void> => connected().now(),

  /** Resolves when everything local is acknowledged: by the engine's own timers, without being asked. */
  drained: async (): Promise<void> =>
    settled((done) => {
      const look = (): void => {
        if (connected().status().pending === 0) done()
      }
      const stop = connected().on('status', look)
      look()
      return stop
    }),

  /** Resolves when an incident has these values here. */
  seen: async (id: string, values: Partial<Row<'incidents'>>): Promise<void> =>
    settled((done) => {
      const look = (): void => {
        const row = db().incidents.find(id)
        const same = Object.entries(values).every(
          ([name, value]) => row !== undefined && row[name as keyof typeof row] === value,
        )
        if (same) done()
      }
      const stop = connected().on('change', look)
      look()
      return stop
    }),

  /** Kills this process with -9 inside the SQLite transaction that applies a batch, after so many embeddings. */
  dieWhileApplying(rows: number): void {
    const { connection } = internalsOf(db())
    const run = connection.run.bind(connection)
    let written = 0
    connection.run = (statement, ...parameters) => {
      const changes = run(statement, ...parameters)
      if (statement.startsWith('INSERT INTO embeddings')) written += 1
      if (written === rows) process.kill(process.pid, 'SIGKILL')
      return changes
    }
  },

  /** Ids of all rows of a table that are here. */
  async idsOf(table: string): Promise<string[]> {
    const { rows } = await sql<{ id: string }>`SELECT id FROM ${sql.table(table)}`.execute(
      db().kysely,
    )
    return rows.map(({ id }) => id)
  },

  async integrity(): Promise<string> {
    const { rows } = await sql<{ integrity_check: string }>`PRAGMA integrity_check`.execute(
      db().kysely,
    )
    return rows[0]?.integrity_check ?? ''
  },

  incident: (id: string) => db().incidents.find(id),

  workflows: (name: string) =>
    db().workflows.list({ where: { name }, orderBy: { version: 'asc' } }),

  conflicts: (): Conflict[] => db().syncConflicts.list(),

  checksums: async () => connected().checksums(),

  async close(): Promise<void> {
    await sync?.close()
    await store?.close()
  },
}

export type AgentHandlers = typeof handlers

/** A promise of an event, whose listener goes when it has happened. */
async function settled(listen: (done: () => void) => () => void): Promise<void> {
  let stop: (() => void) | undefined
  await new Promise<void>((done) => {
    stop = listen(done)
  })
  stop?.()
}

function entryOf(part: CorpusPart, { path, package: name, title, text }: Chunk, index: number) {
  const piece = `${path}#${index}`
  return part === 'documentation'
    ? {
        collection: 'documentation_embeddings' as const,
        content: text,
        payload: { title, section: name, url: path, piece },
      }
    : {
        collection: 'code_embeddings' as const,
        content: text,
        payload: { file_path: path, language: 'javascript', project_id: name, piece },
      }
}

answer(handlers)
