import type { Stored, StoredRow } from '../../../schema/codec.ts'
import { agentColumns, mustColumn, type TableDefinition } from '../../../schema/define.ts'
import { PLACEHOLDER_JSON } from '../../../schema/values/placeholder.ts'

/** Stored form as it stands in outcomes and conflicts: bytes as hex. */
const jsonStored = (value: Stored): string | number | null =>
  value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value

/**
 * A row for an outcome or a conflict, as its columns stand. Whatever the column, a value that no agent can hold is the
 * marked one: what stands for it in a row might pass for real here, and be written back.
 */
export const jsonRow = (
  table: TableDefinition,
  row: StoredRow,
  placeholders: ReadonlySet<string> = new Set(),
): Record<string, unknown> =>
  Object.fromEntries(
    agentColumns(table)
      .filter((name) => Object.hasOwn(row, name) && !mustColumn(table, name).serverOnly)
      .map((name) => [
        name,
        placeholders.has(name) ? PLACEHOLDER_JSON : jsonStored(row[name] ?? null),
      ]),
  )
