import type { Clock } from '../schema/values/timestamp.ts'
import type { Connection } from './sqlite/connection.ts'

/** What the sync engine needs of a store and nobody else gets. */
export interface StoreInternals {
  readonly connection: Connection
  readonly clock: Clock
}

const registry = new WeakMap<object, StoreInternals>()

export function registerInternals(db: object, internals: StoreInternals): void {
  registry.set(db, internals)
}

export function internalsOf(db: object): StoreInternals {
  const internals = registry.get(db)
  if (internals === undefined) throw new TypeError('give an AgentDB that AgentDB.open made')
  return internals
}
