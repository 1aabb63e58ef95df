import type { ColumnKind } from '../define.ts'
import { TIMESTAMP_MAX, TIMESTAMP_MIN } from './timestamp.ts'

/**
 * What stands in an agent's row for a value that only the centre can hold. The column is named beside the row (the
 * wire, `sync_placeholder`), since all but the first might be real values:
 *
 *   JSON with a number beyond a double, or too deep    {"$agentdb":"value cannot be represented here"}
 *   'infinity', BC, years beyond 9999                  the first or last moment there is
 *   arrays of arrays                                   []
 *   a vector with NaN or an infinity                   zeros, as many
 *   an address in a form of its own                    0.0.0.0
 *
 * It is equal on every agent, satisfies the order of times, and is never sent back.
 */
export const PLACEHOLDER_JSON = '{"$agentdb":"value cannot be represented here"}'
export const PLACEHOLDER_ARRAY = '[]'
export const PLACEHOLDER_INET = '0.0.0.0'

/** Stored forms that a kind's placeholder can have; `any` where it has no fixed one, none where all values can be held. */
export function placeholdersOf(kind: ColumnKind): readonly string[] | 'any' {
  switch (kind) {
    case 'json':
      return [PLACEHOLDER_JSON]
    case 'timestamp':
      return [TIMESTAMP_MIN, TIMESTAMP_MAX]
    case 'text[]':
    case 'integer[]':
    case 'uuid[]':
      return [PLACEHOLDER_ARRAY]
    case 'inet':
      return [PLACEHOLDER_INET]
    case 'vector':
      return 'any'
    default:
      return []
  }
}
