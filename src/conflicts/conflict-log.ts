import { AgentDBError, preview } from '../../schema/errors.ts'
import { tableNames } from '../../schema/tables.ts'
import type { Connection } from '../sqlite/connection.ts'
import {
  conflictStates,
  toConflict,
  type Conflict,
  type ConflictRow,
  type ConflictState,
  type Values,
} from './conflict-record.ts'
import { resend, type Repositories } from './resend.ts'

export interface ConflictListOptions {
  readonly state?: ConflictState | undefined
  readonly table?: string | undefined
  /** Id of the row. */
  readonly row?: string | undefined
  /** Most records to return. Default: all. */
  readonly limit?: number | undefined
  /** The last record of the page before. */
  readonly after?: Pick<Conflict, 'at' | 'id'> | undefined
}

/**
 * What sync could not simply apply, with both sides, for a person to decide: {@link ConflictLog.retry} it, changed or as
 * it was, or {@link ConflictLog.discard} it. Nothing leaves it otherwise.
 *
 * @example
 * for (const { id, table, mine, theirs, reason } of db.syncConflicts.list({ state: 'rejected' }))
 *   console.log(id, table, reason, { mine, theirs })
 */
export class ConflictLog {
  readonly #connection: Connection
  readonly #repositories: Repositories

  constructor(connection: Connection, repositories: Repositories) {
    this.#connection = connection
    this.#repositories = repositories
  }

  /**
   * Newest first.
   *
   * @example
   * let page = db.syncConflicts.list({ table: 'incidents', limit: 20 })
   * while (page.length > 0) page = db.syncConflicts.list({ table: 'incidents', limit: 20, after: page.at(-1) })
   *
   * @throws AgentDBError `INVALID_OPTION`
   */
  list(options: ConflictListOptions = {}): Conflict[] {
    validate(options)
    const { state, table, row, limit, after } = options
    const conditions = ['resolved IS NULL']
    const parameters: (string | number)[] = []
    for (const [column, value] of [
      ['state', state],
      ['table_name', table],
      ['row_id', row],
    ] as const) {
      if (value === undefined) continue
      conditions.push(`${column} = ?`)
      parameters.push(value)
    }
    if (after !== undefined) {
      conditions.push('(at, id) < (?, ?)')
      parameters.push(after.at, after.id)
    }
    if (limit !== undefined) parameters.push(limit)
    const sql = `SELECT * FROM sync_conflicts WHERE ${conditions.join(' AND ')} ORDER BY at DESC, id DESC${limit === undefined ? '' : ' LIMIT ?'}`
    return this.#connection.all<ConflictRow>(sql, ...parameters).map(toConflict)
  }

  get(id: string): Conflict | undefined {
    const record = this.#read(id)
    return record === undefined ? undefined : toConflict(record)
  }

  /**
   * Sends `mine` again, in a new local transaction or in the one that is open, and removes the record with it. What it
   * writes stands on the row as it now is, so that it is no longer concurrent:
   *
   * - an update writes the columns of the record, of a `superseded` or `merged` one those that lost, if any
   * - an insert makes the row again under its id; give `patch.id` where the centre refused the id itself
   * - a delete deletes
   * - of an `overwritten` one, `mine` is this store's value, whichever lost: `retry(id, theirs)` brings back the other
   *
   * `patch` adds columns and takes the place of those in the record. Returns the row; of a delete undefined. The
   * transaction may be refused again, which makes a new record: ask `tx.accepted`.
   *
   * @example
   * const [conflict] = db.syncConflicts.list({ state: 'rejected', table: 'runbooks' })
   * if (conflict?.reason === 'unique') db.syncConflicts.retry(conflict.id, { name: 'deploy (eu-west)' })
   *
   * @throws AgentDBError `NOT_FOUND`, `CONFLICT_PENDING`, and what the repositories throw: `CONSTRAINT`, `INVALID_VALUE`,
   *   `READ_ONLY_COLUMN`, `UNKNOWN_COLUMN`
   */
  retry(id: string, patch: Values = {}): Values | undefined {
    return this.#connection.transaction(() => {
      const row = resend(this.#connection, this.#repositories, this.#mustBeOpen(id), patch)
      this.#resolve(id, 'retried')
      return row
    })
  }

  /**
   * Removes a record: what stands at the centre is right.
   *
   * @example
   * for (const { id } of db.syncConflicts.list({ state: 'overwritten' })) db.syncConflicts.discard(id)
   *
   * @throws AgentDBError `NOT_FOUND`, `CONFLICT_PENDING`
   */
  discard(id: string): void {
    this.#connection.transaction(() => {
      this.#mustBeOpen(id)
      this.#resolve(id, 'discarded')
    })
  }

  #read(id: string): ConflictRow | undefined {
    return this.#connection.get<ConflictRow>(
      'SELECT * FROM sync_conflicts WHERE id = ? AND resolved IS NULL',
      id,
    )
  }

  #mustBeOpen(id: string): ConflictRow {
    const record = this.#read(id)
    if (record === undefined)
      throw new AgentDBError('NOT_FOUND', `there is no conflict ${preview(id)}`, { value: id })
    if (record.state === 'blocked') {
      throw new AgentDBError(
        'CONFLICT_PENDING',
        `${record.table_name} ${record.row_id}: this write is hidden (${record.message}), but still on its way; sync, and decide when its outcome is here`,
        { table: record.table_name },
      )
    }
    return record
  }

  /** Only the outcome is kept: the centre may send the record again, and `tx.accepted` may be asked later. */
  #resolve(id: string, how: 'retried' | 'discarded'): void {
    this.#connection.run(
      'UPDATE sync_conflicts SET resolved = ?, mine = NULL, base = NULL, theirs = NULL WHERE id = ?',
      how,
      id,
    )
  }
}

const optionNames = ['state', 'table', 'row', 'limit', 'after']

function refuse(message: string): never {
  throw new AgentDBError('INVALID_OPTION', `syncConflicts.list: ${message}`)
}

function validate({ state, table, limit, ...rest }: ConflictListOptions): void {
  for (const name of Object.keys(rest)) {
    if (!optionNames.includes(name))
      refuse(`there is no option ${preview(name)}; there are ${optionNames.join(', ')}`)
  }
  if (state !== undefined && !conflictStates.includes(state))
    refuse(`there is no state ${preview(state)}; there are ${conflictStates.join(', ')}`)
  if (table !== undefined && !(tableNames as readonly string[]).includes(table))
    refuse(`there is no table ${preview(table)}; there are ${tableNames.join(', ')}`)
  if (limit !== undefined && !(Number.isSafeInteger(limit) && limit >= 1))
    refuse(`limit must be a whole number from 1, got ${preview(limit)}`)
}
