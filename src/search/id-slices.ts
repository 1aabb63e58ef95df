import { setImmediate } from 'node:timers/promises'
import type { Connection } from '../sqlite/connection.ts'

/** Rows that are read before others get their turn. */
const SLICE_ROWS = 500

/** Ids after the first, up to the last. */
export type IdSlice = readonly [after: string, last: string]

/** All embeddings in order of their ids, slice after slice; between two of them others get their turn. */
export async function* idSlices(connection: Connection): AsyncGenerator<IdSlice> {
  for (let after = ''; ;) {
    const [found] = connection.all<{ id: string | null }>(
      'SELECT max(id) AS id FROM (SELECT id FROM embeddings WHERE id > ? ORDER BY id LIMIT ?)',
      after,
      SLICE_ROWS,
    )
    const last = found?.id ?? undefined
    if (last === undefined) return
    yield [after, last]
    after = last
    await setImmediate()
  }
}
