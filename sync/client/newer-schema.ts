import { valueBeforeAdded, type Stored, type StoredRow } from '../../schema/codec.ts'
import { mustColumn, references, type TableDefinition } from '../../schema/define.ts'
import { loggedMutations } from '../../schema/sqlite/logged-images.ts'
import { mustTable, tableOfNumber } from '../../schema/tables.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import { sameStored } from '../merge/merge-update.ts'
import { decodeImage } from './image.ts'
import { HELD_FROM, hold, PARKED_FROM, unpark } from './parked.ts'

/**
 * An agent that was upgraded before its centre: what the centre does not know yet waits here, and all that needs it.
 * Everything else goes on.
 */
interface LoggedMutation {
  readonly n: number
  readonly tx: number
  readonly tbl: number
  readonly id: string
  readonly op: 'insert' | 'update' | 'delete'
  readonly patch: string | null
  readonly before: string | null
  readonly pushed: number
}

/** The schema version of the centre, as the last batch told it; ours where none has. */
export function centreSchema(connection: Connection): number {
  const row = connection.get<{ schema: number }>('SELECT centre_schema AS schema FROM sync_state')
  return row === undefined || row.schema === 0 ? SCHEMA_VERSION : row.schema
}

/** A server of the centre says that it is older than the last batch told; false where that was known. */
export function noteCentreIsBehind(connection: Connection): boolean {
  if (centreSchema(connection) < SCHEMA_VERSION) return false
  connection.transaction(() =>
    connection.run('UPDATE sync_state SET centre_schema = ?', SCHEMA_VERSION - 1),
  )
  return true
}

/**
 * What a centre of a version takes of a patch; undefined where it cannot take it. A column that it does not know may be
 * left out where it has the value that it would have anyway, once it is there.
 */
export function patchFor(
  version: number,
  table: TableDefinition,
  op: 'insert' | 'update' | 'delete',
  { patch, before }: { readonly patch: StoredRow; readonly before: StoredRow },
): StoredRow | undefined {
  if (table.since > version) return undefined
  const known: Record<string, Stored> = {}
  for (const [name, value] of Object.entries(patch)) {
    const shape = mustColumn(table, name)
    if (shape.since <= version) {
      if (typeof value === 'string' && (shape.valuesSince?.[value] ?? 1) > version) return undefined
      known[name] = value
    } else {
      const anyway = op === 'insert' ? valueBeforeAdded(shape) : before[name]
      if (anyway === undefined || !sameStored(value, anyway)) return undefined
    }
  }
  return known
}

/**
 * Takes what an older centre cannot take out of a span of the queue, with what depends on it. An empty transaction takes
 * the place of each: numbers are contiguous.
 */
export function holdNewer(
  connection: Connection,
  version: number,
  { from, below }: { readonly from: number; readonly below: number },
): void {
  const queued = byTransaction(connection, from, Math.min(below, PARKED_FROM))
  const waiting = [...byTransaction(connection, HELD_FROM, Number.MAX_SAFE_INTEGER).values()]
  const held = new HeldRows()
  const seqs: number[] = []
  for (const [seq, mutations] of queued) {
    // What came before those that wait does not wait for them: it may have been sent already.
    while (firstOf(waiting[0]) < firstOf(mutations)) held.add(waiting.shift() ?? [])
    if (!held.blocks(mutations) && mutations.every((mutation) => isKnown(version, mutation)))
      continue
    held.add(mutations)
    seqs.push(seq)
  }
  if (seqs.length > 0) connection.applying(() => hold(connection, seqs))
}

/** Transactions of a queue that are looked at in one go. */
const RELEASED_AT_ONCE = 500

/**
 * Puts what is held back to the end of the queue, as where the centre knows all of ours by now. What came after it, needs
 * it and was not sent yet was not held so far: it follows, lest the later of two changes of a row comes first. A store that
 * becomes another client sends all anew: of its queue may follow, too, what comes after what is parked (`PARKED_FROM`).
 */
export function releaseHeld(connection: Connection, waitsFrom = HELD_FROM): void {
  const rows = new HeldRows()
  const held = [...byTransaction(connection, waitsFrom, Number.MAX_SAFE_INTEGER).values()].toSorted(
    (a, b) => firstOf(a) - firstOf(b),
  )
  const queue = connection.get<{ first: number | null; last: number | null }>(
    'SELECT min(seq) AS first, max(seq) AS last FROM sync_tx WHERE seq < ?',
    PARKED_FROM,
  )
  const last = held.length === 0 ? 0 : (queue?.last ?? 0)
  for (let from = queue?.first ?? 1; from <= last; from += RELEASED_AT_ONCE) {
    const below = Math.min(from + RELEASED_AT_ONCE, PARKED_FROM)
    const seqs: number[] = []
    for (const [seq, mutations] of byTransaction(connection, from, below)) {
      // The log has them in the order in which they were committed.
      while (firstOf(held[0]) < firstOf(mutations)) rows.add(held.shift() ?? [])
      if (!rows.blocks(mutations)) continue
      rows.add(mutations)
      seqs.push(seq)
    }
    hold(connection, seqs)
  }
  unpark(connection)
}

const firstOf = (mutations: readonly LoggedMutation[] | undefined): number =>
  mutations?.[0]?.n ?? Number.POSITIVE_INFINITY

function byTransaction(
  connection: Connection,
  from: number,
  below: number,
): Map<number, LoggedMutation[]> {
  const out = new Map<number, LoggedMutation[]>()
  for (const mutation of connection.all<LoggedMutation>(
    `SELECT n, tx, tbl, id, op, patch, before, pushed FROM ${loggedMutations} WHERE tx >= ? AND tx < ? ORDER BY tx, n`,
    from,
    below,
  )) {
    const own = out.get(mutation.tx)
    if (own === undefined) out.set(mutation.tx, [mutation])
    else own.push(mutation)
  }
  return out
}

function isKnown(version: number, { tbl, op, patch, before, pushed }: LoggedMutation): boolean {
  const table = tableOfNumber(tbl)
  if (pushed === 0 || table === undefined) return true
  const values = {
    patch: patch === null ? {} : decodeImage(table, patch),
    before: before === null ? {} : decodeImage(table, before),
  }
  return patchFor(version, table, op, values) !== undefined
}

const keyOf = (table: number, id: string): string => `${table}:${id}`

/** What transactions that wait have to do with, so that what comes after them waits, too, where it must. */
class HeldRows {
  readonly #touched = new Set<string>()
  readonly #made = new Set<string>()
  readonly #needed = new Set<string>()
  /** Tables in which they take or free a unique key. */
  readonly #keys = new Set<number>()

  add(mutations: readonly LoggedMutation[]): void {
    for (const mutation of mutations) {
      const { tbl, id, op } = mutation
      this.#touched.add(keyOf(tbl, id))
      if (op === 'insert') this.#made.add(keyOf(tbl, id))
      for (const parent of parentsOf(mutation)) this.#needed.add(parent)
      if (setsUniqueKey(mutation)) this.#keys.add(tbl)
    }
  }

  blocks(mutations: readonly LoggedMutation[]): boolean {
    return mutations.some(
      (mutation) =>
        this.#touched.has(keyOf(mutation.tbl, mutation.id)) ||
        (mutation.op === 'delete' && this.#needed.has(keyOf(mutation.tbl, mutation.id))) ||
        parentsOf(mutation).some((parent) => this.#made.has(parent)) ||
        (this.#keys.has(mutation.tbl) && setsUniqueKey(mutation)),
    )
  }
}

/** Rows that a mutation's patch points at. */
function parentsOf({ tbl, patch }: LoggedMutation): string[] {
  const table = tableOfNumber(tbl)
  if (table === undefined || patch === null) return []
  const values = decodeImage(table, patch)
  return references(table).flatMap(({ column, target }) => {
    const id = values[column]
    return typeof id === 'string' ? [keyOf(mustTable(target).number, id)] : []
  })
}

function setsUniqueKey({ tbl, op, patch }: LoggedMutation): boolean {
  const table = tableOfNumber(tbl)
  if (table === undefined || table.uniques.length === 0) return false
  if (op === 'delete' || patch === null) return true
  const values = decodeImage(table, patch)
  return table.uniques.some(({ columns }) => columns.some((name) => Object.hasOwn(values, name)))
}
