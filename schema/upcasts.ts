import type { Stored } from './codec.ts'

/** A mutation as an agent of an older schema version sent it: values by column, in stored form. */
export interface OlderMutation {
  readonly table: string
  readonly op: 'insert' | 'update' | 'delete'
  readonly id: string
  /** Names as on the wire; what a column was before is under `before:` and its name. */
  readonly values: Readonly<Record<string, Stored>>
}

/** Makes mutations of the version before `to` those of version `to`. */
export interface Upcast {
  readonly to: number
  /** The values as an agent of version `to` would have sent them. */
  values(mutation: OlderMutation): Readonly<Record<string, Stored>>
}

/**
 * What defaults cannot do for older agents, in ascending order of `to`. None is needed for a column that is nullable or
 * whose default is right; one is where its value follows from others.
 *
 * @example
 * { to: 2, values: ({ table, op, values }) => table === 'incidents' && op === 'insert'
 *     ? { ...values, origin: values['source'] === 'pager' ? 'person' : 'machine' } : values }
 */
export const upcasts: readonly Upcast[] = []

/** Whether mutations of a version are changed by any upcast. */
export const needsUpcast = (version: number): boolean => upcasts.some(({ to }) => to > version)

/** Values of a mutation of an older version as our version has them. */
export function upcast(version: number, mutation: OlderMutation): OlderMutation['values'] {
  let { values } = mutation
  for (const step of upcasts) if (step.to > version) values = step.values({ ...mutation, values })
  return values
}
