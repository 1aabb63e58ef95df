import type { Stamp } from '../../../sync/merge/merge-update.ts'
import { compareWritten } from '../../../sync/merge/clock.ts'
import { isVisible, type Snapshot } from '../../../sync/merge/snapshot.ts'
import { isOwn, type Ancestry } from './ancestry.ts'
import type { DecisionContext } from './decision.ts'
import type { ClientTransaction } from './transaction.ts'
import type { ColumnChange, WorkingRow } from './working-state.ts'

const noAncestors: Ancestry = new Map()

/** Which changes the writer of a transaction had not seen when it wrote, and had not made. */
export class Concurrency {
  readonly #context: DecisionContext
  readonly #snapshot: Snapshot | undefined

  constructor(context: DecisionContext, transaction: ClientTransaction) {
    this.#context = context
    this.#snapshot = context.snapshotOf(transaction)
  }

  isConcurrent([xid, clock, writer]: ColumnChange): boolean {
    const { clientId, ancestry = noAncestors } = this.#context
    if (isOwn({ clientId, ancestry }, writer, clock)) return false
    return this.#snapshot === undefined || !isVisible(BigInt(xid), this.#snapshot)
  }

  /** Changes that are in a column's value and that the writer had not seen. */
  unseen(row: WorkingRow, column: string): ColumnChange[] {
    const stamp = row.stamps[column]
    if (stamp === undefined) return []
    const [xid, clock, writer, others = []] = stamp
    return [[xid, clock, writer] as const, ...others].filter((change) => this.isConcurrent(change))
  }

  /** Last change of each column; of several concurrent ones the latest. */
  stamps(row: WorkingRow): Map<string, Stamp> {
    return new Map(
      Object.entries(row.stamps).map(([column, [, clock, writer]]) => {
        const rivals = this.unseen(row, column).map(([, theirClock, theirs]) => ({
          concurrent: true,
          clock: theirClock,
          writer: theirs,
        }))
        const latest = rivals.toSorted(compareWritten).at(-1)
        return [column, latest ?? { concurrent: false, clock, writer }]
      }),
    )
  }
}
