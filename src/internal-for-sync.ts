/** What `sync/` needs of the store beyond its public face. Nothing else may import it. */
export { internalsOf } from './internals.ts'
export { Connection } from './sqlite/connection.ts'
export { readIdentity, type Identity } from './sqlite/store-state.ts'
