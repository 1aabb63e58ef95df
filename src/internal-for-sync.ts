/** What `sync/` needs of the store beyond its public face. Nothing else may import it. */
export { internalsOf, type StoreInternals } from './internals.ts'
export { Connection } from './sqlite/connection.ts'
export { fromSqlite } from './sqlite/errors.ts'
export { readIdentity, type Identity } from './sqlite/store-state.ts'
