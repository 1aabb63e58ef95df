import { AgentDBError } from '../../schema/errors.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import type { PullResponse } from '../protocol/messages.ts'
import { noteHistory } from './kept.ts'
import { releaseHeld } from './newer-schema.ts'
import { holdsAny } from './parked.ts'

interface State {
  readonly acked_seq: number
  readonly acked_id: string | null
  readonly healing: number
}

export function readState(connection: Connection): State {
  const state = connection.get<State>('SELECT acked_seq, acked_id, healing FROM sync_state')
  if (state !== undefined) return state
  throw new AgentDBError('STORE_CORRUPT', 'the store has lost its identity (sync_state is empty)')
}

/** Whether the store reads its scope anew after the centre went back. */
export const isHealing = (connection: Connection): boolean => readState(connection).healing === 1

/** Where the store stands once a batch is in; in the middle of a whole scope, only which page comes next. */
export function savePosition(connection: Connection, batch: PullResponse): void {
  const { nonce, position, cursor, clock, page, schema: version = SCHEMA_VERSION } = batch
  const { healing } = readState(connection)
  if (page?.last === false) {
    connection.run('UPDATE sync_state SET page_cursor = ?, centre_schema = ?', cursor, version)
    return
  }
  noteHistory(connection, nonce)
  connection.run(
    'UPDATE sync_state SET nonce = ?, position = ?, cursor = ?, page_cursor = NULL, clock = max(clock, ?), provisional = 0, healing = ?, centre_schema = ?',
    nonce,
    position,
    cursor,
    clock,
    page === null ? healing : 0,
    version,
  )
  // What waited for the centre's upgrade goes on.
  if (version >= SCHEMA_VERSION && holdsAny(connection)) releaseHeld(connection)
}
