import type { StoredRow } from '../../../schema/codec.ts'
import type { TableDefinition } from '../../../schema/define.ts'
import type { Snapshot } from '../../../sync/merge/snapshot.ts'
import type { WireOutcome } from '../../../sync/protocol/messages.ts'
import type { Principal } from '../principal.ts'
import type { Ancestry } from './ancestry.ts'
import type { Missing, MissingRows } from './missing.ts'
import type { Versions } from './next-version.ts'
import type { ClientTransaction, Refusal } from './transaction.ts'
import type { ColumnChange, WorkingState } from './working-state.ts'

/** What a mutation does to the database, once it passed. */
export interface Write {
  readonly table: TableDefinition
  readonly op: 'insert' | 'update' | 'delete'
  readonly id: string
  readonly values: StoredRow
  readonly clock: number
  /** The mutation that wants it, by its place in its transaction. */
  readonly n: number
  /** Per column the changes of others that stay in its value, unseen by its writer. */
  readonly unseen?: Readonly<Record<string, readonly ColumnChange[]>> | undefined
}

/** A value that lost, to be kept for those who wrote and read it. */
export interface LostValue {
  readonly table: TableDefinition
  readonly id: string
  readonly loser: string | null
  readonly winner: string | null
  readonly lost: StoredRow
  readonly kept: StoredRow
  /** Columns of either side that only stand for a value which no agent can hold. */
  readonly placeholders?: { readonly lost: ReadonlySet<string>; readonly kept: ReadonlySet<string> }
}

export interface Decision {
  readonly writes: readonly Write[]
  /** Outcomes other than `applied`, which the watermark implies. */
  readonly outcomes: readonly WireOutcome[]
  readonly conflicts: readonly LostValue[]
  /** Rows whose insert did not happen. */
  readonly rejectedRows: readonly {
    readonly table: TableDefinition
    readonly id: string
    readonly n: number
  }[]
  /** Rows that were deleted before they were back. */
  readonly tombstones?: readonly Tombstone[]
}

interface Tombstone {
  readonly table: TableDefinition
  readonly id: string
}

export interface DecisionContext {
  readonly principal: Principal
  readonly clientId: string
  /** The clients that the client's store was before it forked. */
  readonly ancestry?: Ancestry
  readonly keys: ReadonlySet<string>
  readonly state: WorkingState
  readonly versions: Versions
  readonly snapshotOf: (transaction: ClientTransaction) => Snapshot | undefined
  /** What is known of rows that a centre which went back has not got back yet. */
  readonly missing?: MissingRows
  /** Of the transaction that is decided: what becomes of it if it needs a row that was never here. */
  readonly ifMissing?: Missing
  /** A refusal that only the database could find: transaction id to mutation. */
  readonly forced: ReadonlyMap<string, { readonly n: number; readonly refusal: Refusal }>
}

/** What one mutation comes to; without an outcome it is applied. */
export interface MutationDecision {
  readonly writes: readonly Omit<Write, 'n'>[]
  readonly conflicts: readonly LostValue[]
  readonly outcome: Omit<WireOutcome, 'seq' | 'n'> | undefined
  readonly tombstone?: Tombstone
}
