import type { StoredRow } from '../../../schema/codec.ts'
import { agentColumnsAt } from '../../../schema/columns-at.ts'
import type { TableDefinition } from '../../../schema/define.ts'
import { equal } from './equal.ts'
import { must } from './violation.ts'

interface Written {
  readonly table: TableDefinition
  readonly op: 'insert' | 'update' | 'delete'
  readonly id: string
  readonly patch: StoredRow
}

/** The upcast of `test/support/next-build.ts` in other words: what an older agent's insert says of columns that came since. */
const upcastOf = ({ table, op, patch }: Written): StoredRow =>
  table.name === 'incidents' && op === 'insert'
    ? { origin: patch['source'] === 'pager' ? 'person' : 'machine' }
    : {}

/** An older agent writes what its version knows and leaves the rest alone; only an upcast of the centre adds to that. */
export function mustBeOfVersion(schema: number, centre: number, written: Written): void {
  const { table, op, id, patch } = written
  const known = agentColumnsAt(table, schema)
  const later = Object.keys(patch).filter((column) => !known.includes(column))
  const added = schema < centre ? upcastOf(written) : {}
  const columns = new Set([...later, ...Object.keys(added)])
  for (const column of columns)
    must(
      Object.hasOwn(added, column) && equal(patch[column], added[column]),
      'skew',
      () =>
        `the ${op} of ${table.name} ${id} by an agent of version ${schema} sets ${column} to ${String(patch[column])}; it must be ${String(added[column])}`,
    )
}
