/**
 * `@llm-copilot/agentdb/server`: the central side.
 *
 * @module
 */
export type { Claims, TokenOptions } from './auth/tokens.ts'
export { serve } from './serve.ts'
export type { ServeOptions, SyncServer } from './serve.ts'
export { addUser } from './users.ts'
export type { CentralUser, NewUser } from './users.ts'
export type { VectorModel, VectorOptions } from './vectors/settings.ts'
