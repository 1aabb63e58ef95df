import type { Connection } from '../../src/internal-for-sync.ts'
import { PARKED_FROM } from './parked.ts'

/**
 * What the log holds of the transactions up to a number: rows with `tx <= seq AND n < belowN`. Mutations lie in the order
 * of the queue, so that the rest of a long queue need not be looked at; in between may lie what is parked.
 */
export interface LogPart {
  readonly seq: number
  readonly belowN: number
}

export function logUpTo(connection: Connection, seq: number): LogPart {
  const next = connection.get<{ first_n: number }>(
    'SELECT first_n FROM sync_tx WHERE seq > ? AND seq < ? ORDER BY seq LIMIT 1',
    seq,
    PARKED_FROM,
  )
  return { seq, belowN: next?.first_n ?? Number.MAX_SAFE_INTEGER }
}
