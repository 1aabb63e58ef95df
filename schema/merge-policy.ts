import { mustColumn, type StateMachine, type TableDefinition, type ValuePolicy } from './define.ts'

/** Columns that merge as one, and how: a group, or a column alone. */
export interface MergeUnit {
  readonly columns: readonly string[]
  readonly policy: ValuePolicy | StateMachine
}

const known = new WeakMap<TableDefinition, ReadonlyMap<string, MergeUnit>>()

/** What a column merges with, and how. */
export function mergeUnit(table: TableDefinition, column: string): MergeUnit {
  let units = known.get(table)
  if (units === undefined) known.set(table, (units = unitsOf(table)))
  const unit = units.get(column)
  if (unit === undefined) throw new Error(`table ${table.name} has no column ${column}`)
  return unit
}

function unitsOf(table: TableDefinition): ReadonlyMap<string, MergeUnit> {
  const units = new Map<string, MergeUnit>()
  for (const name of Object.keys(table.columns))
    units.set(name, { columns: [name], policy: mustColumn(table, name).policy })
  for (const { columns, policy = 'lww' } of table.groups) {
    const unit: MergeUnit = { columns, policy }
    for (const name of columns) {
      if (mustColumn(table, name).policy !== 'lww')
        throw new Error(`${table.name}.${name} merges with its group, not on its own`)
      units.set(name, unit)
    }
  }
  return units
}

/** Whether merging a change of the column takes what its writer had before. */
export function needsBefore(table: TableDefinition, column: string): boolean {
  const { policy } = mergeUnit(table, column)
  return policy !== 'lww' && policy !== 'reject'
}
