import { allTables, tableOfNumber } from '../../schema/tables.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import type { PullResponse } from '../protocol/messages.ts'
import type { RowRef } from './row-ref.ts'

/**
 * Reading the whole scope, page by page. `sync_hydration` holds what the store had when it began and no page has brought
 * yet; what is left with the last page is not there any more. A new store has nothing, and pays nothing. Only `tables` are
 * read where they are given; a centre of an older schema `version` tells nothing of those that it does not know.
 */
export function expectRows(
  connection: Connection,
  version: number,
  tables?: readonly number[],
): void {
  connection.run('DELETE FROM sync_hydration')
  for (const { name, number, writeClass, since } of allTables) {
    if (writeClass === 'push-only' || since > version) continue
    if (tables?.includes(number) === false) continue
    connection.run(
      `INSERT INTO sync_hydration (id, tbl)
      SELECT t.id, ${number} FROM ${name} t WHERE NOT EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = t.id AND b.tbl = ${number})
      UNION SELECT id, tbl FROM sync_base WHERE tbl = ${number}`,
    )
  }
}

/** Whether a row was here before and no page has brought it yet. */
export const isAwaited = (connection: Connection, { table, id }: RowRef): boolean =>
  connection.get('SELECT 1 FROM sync_hydration WHERE id = ? AND tbl = ?', id, table.number) !==
  undefined

/** Crosses off what a page brought; with the last, returns what never came. */
export function cameOf(
  connection: Connection,
  came: Iterable<RowRef>,
  isLast: boolean,
): readonly RowRef[] {
  if (connection.get('SELECT 1 FROM sync_hydration LIMIT 1') === undefined) return []
  for (const { table, id } of came)
    connection.run('DELETE FROM sync_hydration WHERE id = ? AND tbl = ?', id, table.number)
  if (!isLast) return []
  const left = connection.all<{ id: string; tbl: number }>('SELECT id, tbl FROM sync_hydration')
  connection.run('DELETE FROM sync_hydration')
  return left.flatMap(({ id, tbl }) => {
    const table = tableOfNumber(tbl)
    return table === undefined ? [] : [{ table, id }]
  })
}

/** How long the event loop may wait on a slice, in milliseconds. */
const SLICE_MS = 10
const SLICE_ROWS_FIRST = 100
const SLICE_ROWS_MAX = 5000

/**
 * Cuts a page into slices that are applied one by one, so that the program is not held up by a first sync. All but the
 * last leave the store where it was: interrupted, the page is read again.
 */
export class Slices {
  #rows = SLICE_ROWS_FIRST

  async apply(
    page: PullResponse,
    asked: string | undefined,
    applySlice: (slice: PullResponse) => void,
  ): Promise<void> {
    const { page: mark, rows } = page
    if (mark === null) return applySlice(page)
    let at = 0
    while (rows.length - at > this.#rows) {
      const startedAt = performance.now()
      const taken = rows.slice(at, at + this.#rows)
      applySlice({
        ...page,
        // Where the store asked from, so that the page comes again if this ends here; empty is the beginning.
        cursor: asked ?? '',
        page: { ...mark, first: mark.first && at === 0, last: false },
        rows: taken,
        gone: [],
        watermark: null,
        outcomes: [],
        conflicts: [],
      })
      at += taken.length
      this.#adapt(performance.now() - startedAt)
      await new Promise((done) => setImmediate(done))
    }
    applySlice({ ...page, page: { ...mark, first: mark.first && at === 0 }, rows: rows.slice(at) })
  }

  /** Aims at two thirds of the time: rows differ in size. */
  #adapt(tookMs: number): void {
    const factor = Math.min(2, Math.max(0.25, (SLICE_MS * 2) / 3 / Math.max(tookMs, 0.1)))
    this.#rows = Math.max(1, Math.min(SLICE_ROWS_MAX, Math.round(this.#rows * factor)))
  }
}
