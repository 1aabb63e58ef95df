/** What `sync/` needs of the store beyond its public face. Nothing else may import it. */
export { internalsOf } from './internals.ts'
export { Connection } from './sqlite/connection.ts'
export { insertText, ROWS_AT_ONCE } from './sqlite/insert-text.ts'
export { readIdentity, type Identity } from './sqlite/store-state.ts'
