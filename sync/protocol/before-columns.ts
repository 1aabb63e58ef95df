/**
 * Some columns of an update take, to be merged, what they were before it. That travels as a column of its own:
 *
 *   { columns: ['total_cost_cents', 'before:total_cost_cents'] }   [8, 5]
 */
const PREFIX = 'before:'

/** Name of the column that carries what another was before. */
export const beforeColumn = (column: string): string => `${PREFIX}${column}`

/** The column whose earlier value a column of the wire carries; undefined where it carries a value of its own. */
export const columnBefore = (name: string): string | undefined =>
  name.startsWith(PREFIX) ? name.slice(PREFIX.length) : undefined
