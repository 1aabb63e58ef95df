import type { TableDefinition } from '../../schema/define.ts'

/** A row of the store, by its name. */
export interface RowRef {
  readonly table: TableDefinition
  readonly id: string
}

export const keyOf = ({ table, id }: RowRef): string => `${table.number}:${id}`
