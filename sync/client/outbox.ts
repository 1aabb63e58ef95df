import type { Stored, StoredRow } from '../../schema/codec.ts'
import type { TableDefinition } from '../../schema/define.ts'
import { needsBefore } from '../../schema/merge-policy.ts'
import { loggedMutations } from '../../schema/sqlite/logged-images.ts'
import { tableOfNumber } from '../../schema/tables.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import { readIdentity, type Connection } from '../../src/internal-for-sync.ts'
import { beforeColumn } from '../protocol/before-columns.ts'
import type { PushRequest, PushTransaction, Shape } from '../protocol/messages.ts'
import { decodeImage } from './image.ts'
import { centreSchema, holdNewer, patchFor } from './newer-schema.ts'
import { logUpTo } from './log-part.ts'
import { PARKED_FROM } from './parked.ts'
import { ancestorToTell } from './fork-store.ts'

/** Most mutations and characters of patches in one push; a transaction that is larger goes alone. */
const PUSH_MUTATIONS_WANTED = 500
const PUSH_TRANSACTIONS_WANTED = 500
const PUSH_LENGTH_WANTED = 4 * 1024 * 1024

interface TransactionRow {
  seq: number
  id: string
  clock: number
  nonce: string | null
  position: number
}

interface MutationRow {
  tx: number
  tbl: number
  id: string
  op: 'insert' | 'update' | 'delete'
  patch: string | null
  before: string | null
}

export interface Pending {
  readonly transactions: number
  /** When the oldest was committed, microseconds since 1970 of the store's hybrid clock. */
  readonly oldestClock: number | undefined
  readonly lastSeq: number
}

/** Reads the outbox; nothing leaves it before a batch acknowledges it. */
export class Outbox {
  readonly #connection: Connection

  constructor(connection: Connection) {
    this.#connection = connection
  }

  pending(): Pending {
    const row = this.#connection.get<{ count: number; oldest: number | null; last: number | null }>(
      'SELECT count(*) AS count, min(clock) AS oldest, max(seq) FILTER (WHERE seq < ?) AS last FROM sync_tx',
      PARKED_FROM,
    )
    return {
      transactions: row?.count ?? 0,
      oldestClock: row?.oldest ?? undefined,
      lastSeq: row?.last ?? 0,
    }
  }

  /**
   * The next push from a transaction on, or undefined when there is nothing. What it holds is flushed to disk before:
   * the centre must never know what a power cut can take back.
   */
  nextPush(fromSeq: number): PushRequest | undefined {
    const centre = Math.min(centreSchema(this.#connection), SCHEMA_VERSION)
    const below = fromSeq + PUSH_TRANSACTIONS_WANTED
    if (centre < SCHEMA_VERSION) holdNewer(this.#connection, centre, { from: fromSeq, below })
    const rows = this.#connection.all<TransactionRow>(
      'SELECT seq, id, clock, nonce, position FROM sync_tx WHERE seq >= ? AND seq < ? ORDER BY seq LIMIT ?',
      fromSeq,
      PARKED_FROM,
      PUSH_TRANSACTIONS_WANTED,
    )
    const [first] = rows
    if (first === undefined) return undefined
    this.#flush(rows.at(-1)?.seq ?? first.seq)
    const mutations = this.#mutations(rows)
    const shapes = new Shapes()
    const transactions = rows
      .slice(0, mutations.size)
      .map((row) => wireTransaction(row, mutations.get(row.seq) ?? [], shapes, centre))
    return {
      clientId: readIdentity(this.#connection).clientId,
      schema: SCHEMA_VERSION,
      previous: this.#before(first.seq),
      ...(ancestorToTell(this.#connection) === undefined ? {} : { introduced: true }),
      shapes: shapes.list,
      transactions,
    }
  }

  #before(seq: number): PushRequest['previous'] {
    if (seq <= 1) return null
    const row = this.#connection.get<{ id: string | null }>(
      `SELECT coalesce((SELECT id FROM sync_tx WHERE seq = ?), (SELECT acked_id FROM sync_state WHERE acked_seq = ?)) AS id`,
      seq - 1,
      seq - 1,
    )
    return row?.id == null ? null : { seq: seq - 1, id: row.id }
  }

  /**
   * The mutations of as many of these transactions as one push holds, of the first in any case. They lie in the log in the
   * order of the queue, and are read in one go: a statement for each transaction would cost more than all they hold.
   */
  #mutations(rows: readonly TransactionRow[]): Map<number, MutationRow[]> {
    const own = new Map<number, MutationRow[]>()
    const first = rows[0]?.seq ?? 0
    const { seq: last, belowN } = logUpTo(this.#connection, rows.at(-1)?.seq ?? 0)
    const logged = this.#connection
      .prepare(
        `SELECT l.tx, l.tbl, l.id, l.op, l.patch, l.before FROM ${loggedMutations} l
        WHERE l.n >= (SELECT first_n FROM sync_tx WHERE seq = ?)
          AND l.n < ? AND l.tx BETWEEN ? AND ? AND l.pushed = 1 ORDER BY l.n`,
      )
      .iterate(first, belowN, first, last) as IterableIterator<MutationRow>
    let read = 0
    let length = 0
    for (const mutation of logged) {
      read += 1
      length += mutation.patch?.length ?? 0
      const isFull = read > PUSH_MUTATIONS_WANTED || length > PUSH_LENGTH_WANTED
      // The one that does not fit any more waits, whole.
      if (isFull && mutation.tx !== first) return wholeBefore(rows, own, mutation.tx)
      const siblings = own.get(mutation.tx)
      if (siblings === undefined) own.set(mutation.tx, [mutation])
      else siblings.push(mutation)
    }
    return wholeBefore(rows, own, Number.MAX_SAFE_INTEGER)
  }

  #flush(upToSeq: number): void {
    const durable = this.#connection.get<{ durable_seq: number }>(
      'SELECT durable_seq FROM sync_state',
    )
    if ((durable?.durable_seq ?? 0) < upToSeq) this.#connection.flush()
  }
}

/** Of each transaction before one; of some there is nothing to send. */
const wholeBefore = (
  rows: readonly TransactionRow[],
  mutations: ReadonlyMap<number, MutationRow[]>,
  end: number,
): Map<number, MutationRow[]> =>
  new Map(rows.filter(({ seq }) => seq < end).map(({ seq }) => [seq, mutations.get(seq) ?? []]))

function wireTransaction(
  row: TransactionRow,
  mutations: readonly MutationRow[],
  shapes: Shapes,
  centre: number,
): PushTransaction {
  return {
    seq: row.seq,
    id: row.id,
    clock: row.clock,
    base: { nonce: row.nonce, position: row.position },
    mutations: mutations.map((mutation): PushTransaction['mutations'][number] => {
      const { tbl, id, op } = mutation
      const table = tableOfNumber(tbl)
      const values = table === undefined ? {} : wireValues(table, mutation, centre)
      const columns = Object.keys(values)
      return [
        shapes.of(table, tbl, columns),
        op,
        id,
        columns.map((name): Stored => values[name] ?? null),
      ]
    }),
  }
}

/** The patch as a centre of a version takes it, and what those columns were before whose policy asks for it. */
function wireValues(table: TableDefinition, mutation: MutationRow, centre: number): StoredRow {
  const { op } = mutation
  const patch = mutation.patch === null ? {} : decodeImage(table, mutation.patch)
  const before = mutation.before === null ? {} : decodeImage(table, mutation.before)
  const values =
    centre < SCHEMA_VERSION ? (patchFor(centre, table, op, { patch, before }) ?? patch) : patch
  if (op !== 'update') return values
  const earlier = Object.entries(before).filter(
    ([name]) => Object.hasOwn(values, name) && needsBefore(table, name),
  )
  return { ...values, ...Object.fromEntries(earlier.map(([name, v]) => [beforeColumn(name), v])) }
}

/** Names the columns of each kind of mutation once a message. */
class Shapes {
  readonly list: Shape[] = []
  readonly #indexes = new Map<string, number>()

  of(table: TableDefinition | undefined, number: number, columns: string[]): number {
    const key = `${table?.number ?? number}:${columns.join(',')}`
    let index = this.#indexes.get(key)
    if (index === undefined) {
      index = this.list.push({ table: number, columns }) - 1
      this.#indexes.set(key, index)
    }
    return index
  }
}
