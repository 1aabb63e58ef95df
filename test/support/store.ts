import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { loggedMutations } from '../../schema/sqlite/logged-images.ts'
import type { AgentDBError } from '../../schema/errors.ts'
import { mustTable, tableOfNumber, type TableName } from '../../schema/tables.ts'
import { AgentDB, type OpenOptions } from '../../src/agent-db.ts'
import { internalsOf } from '../../src/internals.ts'
import type { Connection } from '../../src/sqlite/connection.ts'

/** A folder that is gone at the end of the test. */
export interface ScratchFolder extends Disposable {
  readonly path: string
  file(name: string): string
}

export function scratchFolder(): ScratchFolder {
  const path = mkdtempSync(join(tmpdir(), 'agentdb-test-'))
  return {
    path,
    file: (name) => join(path, name),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  }
}

/** A store in memory. */
export const openStore = (options: Partial<OpenOptions> = {}): Promise<AgentDB> =>
  AgentDB.open({ path: ':memory:', ...options })

export const connectionOf = (db: AgentDB): Connection => internalsOf(db).connection

/** A mutation as the triggers filed it. */
export interface Logged {
  readonly tx: number
  readonly table: string
  readonly id: string
  readonly op: 'insert' | 'update' | 'delete'
  readonly patch: Readonly<Record<string, unknown>> | null
  readonly before: Readonly<Record<string, unknown>> | null
  readonly pushed: boolean
}

interface RawLog {
  tx: number
  tbl: number
  id: string
  op: Logged['op']
  patch: string | null
  before: string | null
  pushed: number
}

const parse = (text: string | null): Logged['patch'] =>
  text === null ? null : (JSON.parse(text) as Logged['patch'])

/** The outbox, in order; of one table if asked. */
export function logOf(db: AgentDB, table?: TableName): Logged[] {
  return connectionOf(db)
    .all<RawLog>(`SELECT tx, tbl, id, op, patch, before, pushed FROM ${loggedMutations} ORDER BY n`)
    .map(({ tx, tbl, id, op, patch, before, pushed }) => ({
      tx,
      table: tableOfNumber(tbl)?.name ?? `table ${tbl}`,
      id,
      op,
      patch: parse(patch),
      before: parse(before),
      pushed: pushed === 1,
    }))
    .filter((logged) => table === undefined || logged.table === table)
}

/** The authoritative image that is kept of a row with pending mutations. */
export function baseOf(
  db: AgentDB,
  table: TableName,
  id: string,
): Readonly<Record<string, unknown>> | null | undefined {
  const row = connectionOf(db).get<{ image: string | null }>(
    'SELECT image FROM sync_base WHERE id = ? AND tbl = ?',
    id,
    mustTable(table).number,
  )
  return row === undefined ? undefined : parse(row.image)
}

/** As if a batch of the centre had acknowledged all that was written so far. */
export function acknowledgeAll(db: AgentDB): void {
  connectionOf(db).applying(() => {
    connectionOf(db).exec('DELETE FROM sync_log; DELETE FROM sync_tx; DELETE FROM sync_base')
  })
}

/** Runs raw SQL on the store's own connection, uncaptured: as a batch of the centre does. */
export function asCentre(db: AgentDB, sql: string, ...values: (string | number | null)[]): void {
  connectionOf(db).applying(() => connectionOf(db).run(sql, ...values))
}

/** What `run` throws, which must be one of ours. */
export function errorOf(run: () => unknown): AgentDBError {
  try {
    run()
  } catch (error) {
    return mustBeOurs(error)
  }
  throw new Error('nothing was thrown')
}

/** What a promise rejects with, which must be one of ours. */
export async function rejectionOf(promise: Promise<unknown>): Promise<AgentDBError> {
  try {
    await promise
  } catch (error) {
    return mustBeOurs(error)
  }
  throw new Error('nothing was thrown')
}

function mustBeOurs(error: unknown): AgentDBError {
  if (error instanceof Error && error.name === 'AgentDBError') return error as AgentDBError
  throw new Error(`not an AgentDBError: ${String(error)}`, { cause: error })
}
