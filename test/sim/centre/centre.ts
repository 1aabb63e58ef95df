import type { StoredRow } from '../../../schema/codec.ts'
import type { TableName } from '../../../schema/tables.ts'
import type { PullParameters } from '../../../sync/client/transport.ts'

export type HealDecision = 'all' | 'after' | 'none'

export interface Claims {
  readonly userId: string
  readonly agentId: string
}

/** A pull, and the schema version of the agent that asks. */
export interface PullAt extends PullParameters {
  readonly schema: number
}

/** A statement of an operator at the centre. */
export type Statement =
  | { readonly op: 'insert'; readonly table: TableName; readonly row: StoredRow }
  | {
      readonly op: 'update'
      readonly table: TableName
      readonly id: string
      readonly values: StoredRow
    }
  | { readonly op: 'delete'; readonly table: TableName; readonly id: string }

/** A centre as the network and the workload see it. Messages are bytes; errors are `AgentDBError`s, as on the wire. */
export interface SimCentre extends AsyncDisposable {
  push(claims: Claims, bytes: Uint8Array, signal: AbortSignal): Promise<Uint8Array>
  pull(claims: Claims, parameters: PullAt, signal: AbortSignal): Promise<Uint8Array>
  introduce(claims: Claims, bytes: Uint8Array, signal: AbortSignal): Promise<Uint8Array>
  /** Batches one after another, over one connection. */
  live(claims: Claims, parameters: PullAt, signal: AbortSignal): AsyncGenerator<Uint8Array>
  /** What a store asks that has seen more than the centre has. */
  heal(claims: Claims, bytes: Uint8Array, signal: AbortSignal): Promise<Uint8Array>
  checksum(claims: Claims, schema: number, signal: AbortSignal): Promise<Uint8Array>
  /** SQL at the centre, past every agent: one transaction, rolled back at its end when asked. */
  execute(statements: readonly Statement[], rollBack: boolean): Promise<void>
  /** Rows of a table as they are committed now, stored forms, by id. */
  rows(table: TableName): Promise<readonly StoredRow[]>
  /** Drops the log but for the last so many milliseconds. */
  prune(keptMs: number): Promise<void>
  /** Whether it is of the newest version that a run knows, with all its servers. */
  readonly isUpgraded: boolean
  /** Brings it there step by step: the database with one server, then the other. */
  upgrade(): Promise<void>
  /** The database dies and comes back. */
  crash(): Promise<void>
  /** The database comes back as it was at an earlier commit. */
  goBack(commit: number): void
  /** What `agentdb heal` does: decides on all forks that wait for it; says on how many. */
  decide(decision: HealDecision, after: number | null, windowMs: number): Promise<number>
  /** What is not back by now never will be. */
  endWindow(): Promise<void>
}
