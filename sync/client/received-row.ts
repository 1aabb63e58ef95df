import { checkStored, type Stored, type StoredRow } from '../../schema/codec.ts'
import {
  agentColumns,
  mustColumn,
  type ColumnShape,
  type TableDefinition,
} from '../../schema/define.ts'
import { AgentDBError } from '../../schema/errors.ts'
import { tableOfNumber } from '../../schema/tables.ts'
import { ValueProblem } from '../../schema/values/canonical-json.ts'

/**
 * Reads rows of one shape; undefined for a table that this agent does not know. What an agent cannot hold is the
 * centre's to mark; a row that is malformed comes from a broken centre, and throws `PROTOCOL`. A centre of an older schema
 * `version` lacks columns, one of a newer may send more and values of an enum that came later.
 */
export function rowReader(
  number: number,
  columns: readonly string[],
  version: number,
): (values: readonly Stored[]) => { table: TableDefinition; row: StoredRow } | undefined {
  const table = tableOfNumber(number)
  if (table === undefined) return () => undefined
  const own = agentColumns(table)
  for (const name of own) {
    const { nullable, since } = mustColumn(table, name)
    if (!nullable && since <= version && !columns.includes(name))
      throw malformed(table, name, 'is missing')
  }
  const known = columns.map((name) =>
    own.includes(name) ? { name, shape: mustColumn(table, name) } : undefined,
  )
  return (values) => {
    const row: Record<string, Stored> = {}
    for (let i = 0; i < known.length; i++) {
      const column = known[i]
      if (column === undefined) continue
      const { name, shape } = column
      row[name] = received(table, name, shape, values[i] ?? null)
    }
    return { table, row }
  }
}

/** Longest name that PostgreSQL gives a value. */
const ENUM_LENGTH_MAX = 63

/** A value as it came. Texts and JSON are the centre's own: only what they are is looked at. */
function received(table: TableDefinition, name: string, shape: ColumnShape, value: Stored): Stored {
  if (value === null) {
    if (!shape.nullable) throw malformed(table, name, 'is null')
    return null
  }
  switch (shape.kind) {
    case 'text':
    case 'json':
      if (typeof value !== 'string') throw malformed(table, name, 'is no text')
      return value
    case 'enum':
      if (typeof value !== 'string' || value.length > ENUM_LENGTH_MAX)
        throw malformed(table, name, 'is no value of an enum')
      return value
    case 'integer':
    case 'boolean':
      if (!Number.isSafeInteger(value)) throw malformed(table, name, 'is no integer')
      return value
    default:
      return checked(table, name, shape, value)
  }
}

function checked(table: TableDefinition, name: string, shape: ColumnShape, value: Stored): Stored {
  try {
    return checkStored(shape, value)
  } catch (error) {
    if (error instanceof ValueProblem) throw malformed(table, name, error.message)
    throw error
  }
}

const malformed = (table: TableDefinition, column: string, problem: string): AgentDBError =>
  new AgentDBError('PROTOCOL', `the centre sent a ${table.name}.${column} that ${problem}`, {
    table: table.name,
    column,
  })
