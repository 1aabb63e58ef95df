import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, realpathSync, renameSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { PGlite } from '@electric-sql/pglite'
import { pg_trgm } from '@electric-sql/pglite/contrib/pg_trgm'
import { pgcrypto } from '@electric-sql/pglite/contrib/pgcrypto'
import { uuid_ossp } from '@electric-sql/pglite/contrib/uuid_ossp'
import { createPgConfig } from '@electric-sql/pglite/node-postgres'
import type { PoolConfig } from 'pg'
import { AgentDBError } from '../../schema/errors.ts'

/**
 * PostgreSQL in this process (PGlite), for a centre without configuration. Its commits survive the death of the
 * process, not a power cut: it never calls fsync. It has one session, no checkpointer and no autovacuum.
 */
export interface EmbeddedPostgres {
  readonly poolConfig: PoolConfig
  close(): Promise<void>
}

const extensions = { uuid_ossp, pgcrypto, pg_trgm }

/** Opens the database of a folder, making it when there is none; in memory without one. */
export async function openEmbedded(folder: string | undefined): Promise<EmbeddedPostgres> {
  if (folder === undefined) {
    const database = await PGlite.create({ extensions })
    return embedded(database, async () => undefined)
  }
  const path = resolve(folder)
  mkdirSync(dirname(path), { recursive: true })
  const lock = await lockFolder(path)
  try {
    if (!existsSync(join(path, 'PG_VERSION'))) await initialize(path)
    const database = await PGlite.create({ dataDir: path, extensions })
    return embedded(database, () => lock.release())
  } catch (error) {
    await lock.release()
    throw error
  }
}

/** Made beside and moved into place: a process killed half-way would leave a folder that never opens again. */
async function initialize(path: string): Promise<void> {
  const making = join(dirname(path), `.${basename(path)}.new-${process.pid}`)
  rmSync(making, { recursive: true, force: true })
  const database = await PGlite.create({ dataDir: making, extensions })
  await database.close()
  rmSync(path, { recursive: true, force: true })
  renameSync(making, path)
}

function embedded(database: PGlite, release: () => Promise<void>): EmbeddedPostgres {
  // PGlite has no checkpointer: without one the write-ahead log grows for ever.
  const upkeep = setInterval(
    () => void database.exec('CHECKPOINT').catch(() => undefined),
    CHECKPOINT_MS,
  )
  upkeep.unref()
  return {
    // One session, whatever the pool would like.
    poolConfig: Object.assign(createPgConfig(database), { max: 1 }),
    async close() {
      clearInterval(upkeep)
      if (!database.closed) await database.close()
      await release()
    },
  }
}

const CHECKPOINT_MS = 5 * 60_000

/**
 * Two processes on one folder corrupt it silently, and PGlite takes no lock. A listening socket is one: the kernel
 * frees it when the process dies. Abstract on Linux; elsewhere a socket file, which is taken over when nobody answers.
 */
async function lockFolder(path: string): Promise<{ release(): Promise<void> }> {
  const parent = realpathSync(dirname(path))
  const digest = createHash('sha256')
    .update(join(parent, basename(path)))
    .digest('hex')
    .slice(0, 32)
  const abstract = process.platform === 'linux'
  const address = abstract ? `\0agentdb-${digest}` : join(tmpdir(), `agentdb-${digest}.sock`)
  const server = createServer((socket) => socket.destroy())
  server.unref()
  if (!(await listens(server, address))) {
    throw new AgentDBError(
      'DATABASE_IN_USE',
      `another process has ${path} open; PGlite serves one at a time (for more, use PostgreSQL: DATABASE_URL)`,
    )
  }
  return { release: () => new Promise((done) => server.close(() => done())) }
}

function listens(server: Server, address: string): Promise<boolean> {
  return new Promise((done, fail) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EADDRINUSE') done(false)
      else fail(error)
    })
    server.listen(address, () => done(true))
  })
}
