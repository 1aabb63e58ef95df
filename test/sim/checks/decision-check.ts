import type { Connection } from '../../../src/internal-for-sync.ts'
import type { Decided } from '../decisions.ts'
import { must } from './violation.ts'

interface Known {
  readonly how: Decided['how']
  /** The transaction that it came with; undefined where nothing else was written. */
  readonly txId: string | undefined
}

const resolvedOf = (connection: Connection, id: string): string | null | undefined =>
  connection.get<{ resolved: string | null }>(
    'SELECT resolved FROM sync_conflicts WHERE id = ?',
    id,
  )?.resolved

/** What was decided of an agent's conflicts: it stays decided, and what a retry writes commits with it or not at all. */
export class Decisions {
  readonly #known = new Map<string, Known>()
  #inDoubt: readonly Decided[] = []

  made(decided: readonly Decided[], txId: string | undefined): void {
    for (const { id, how } of decided) this.#known.set(id, { how, txId })
  }

  /** The process died at the commit, on one side of it or the other. */
  inDoubt(decided: readonly Decided[]): void {
    this.#inDoubt = decided
  }

  /** After a death: the records tell whether it committed, and the queue must say the same. */
  onStart(connection: Connection, added: readonly string[], name: string): void {
    const decided = this.#inDoubt
    this.#inDoubt = []
    if (decided.length === 0) return
    const [txId] = added
    const done = decided.filter(({ id, how }) => resolvedOf(connection, id) === how)
    const isWhole = done.length === decided.length || (done.length === 0 && txId === undefined)
    must(
      isWhole,
      'conflict',
      () =>
        `${name}: of ${decided.length} decisions ${done.length} outlived a crash, with the transaction ${txId}`,
    )
    this.made(done, txId)
  }

  /** After a power cut: what a retry wrote is gone exactly if its record is open again. */
  forgetLost(connection: Connection, lost: ReadonlyMap<string, unknown>, name: string): void {
    for (const [id, { how, txId }] of this.#known) {
      const isOpen = resolvedOf(connection, id) !== how
      must(
        txId === undefined || isOpen === lost.has(txId),
        'conflict',
        () => `${name}: conflict ${id} is ${isOpen ? 'open' : how}, and ${txId} is not`,
      )
      if (isOpen) this.#known.delete(id)
    }
  }

  copyFrom(other: Decisions): void {
    for (const [id, each] of other.#known) this.#known.set(id, each)
  }

  /** Neither a batch nor reading the whole scope again opens what was decided, and its outcome can be asked for on. */
  check(connection: Connection, name: string): void {
    if (this.#known.size === 0) return
    const rows = connection.all<{ id: string; resolved: string | null }>(
      'SELECT id, resolved FROM sync_conflicts WHERE resolved IS NOT NULL',
    )
    const resolved = new Map(rows.map((row) => [row.id, row.resolved]))
    for (const [id, { how }] of this.#known)
      must(
        resolved.get(id) === how,
        'conflict',
        () => `${name}: conflict ${id} was ${how}, and is ${resolved.get(id) ?? 'open or gone'}`,
      )
  }
}
