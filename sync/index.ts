/**
 * `@llm-copilot/agentdb/sync`: connects a store to the centre.
 *
 * @module
 */
export type { Change } from './client/apply-batch.ts'
export { connect } from './client/connect.ts'
export type { ConnectOptions, Sync } from './client/connect.ts'
export type { Fork } from './client/fork-store.ts'
export type { Healed } from './client/heal-store.ts'
export type { Outcome } from './client/outcome-log.ts'
export type { Progress } from './client/puller.ts'
export type { SyncEvents, SyncState, SyncStatus } from './client/sync-engine.ts'
export type { ChecksumResponse, OutcomeKind } from './protocol/messages.ts'
