import type { TableDefinition } from './define.ts'
import { auditLogs } from './tables/audit-logs.ts'
import { conversations } from './tables/conversations.ts'
import { embeddings } from './tables/embeddings.ts'
import { incidents } from './tables/incidents.ts'
import { memoryItems, memoryTrajectories } from './tables/memory.ts'
import { messages } from './tables/messages.ts'
import { runbookExecutions, runbooks } from './tables/runbooks.ts'
import { sessions } from './tables/sessions.ts'
import { users } from './tables/users.ts'
import { stepExecutions, workflowExecutions, workflows } from './tables/workflows.ts'

/** Every table of the domain, parents before children. */
export const tables = {
  users,
  sessions,
  conversations,
  messages,
  workflows,
  workflow_executions: workflowExecutions,
  step_executions: stepExecutions,
  incidents,
  runbooks,
  runbook_executions: runbookExecutions,
  audit_logs: auditLogs,
  embeddings,
  memory_trajectories: memoryTrajectories,
  memory_items: memoryItems,
} as const

export type Tables = typeof tables
export type TableName = keyof Tables

export const tableNames = Object.keys(tables) as TableName[]

/** All definitions as one list of the general type, parents before children. */
export const allTables: readonly TableDefinition[] = Object.values(tables)

const byNumber = new Map(allTables.map((table) => [table.number, table]))
const byName = new Map(allTables.map((table) => [table.name, table]))

/** The table of a number in the sync log, if there is one. */
export const tableOfNumber = (number: number): TableDefinition | undefined => byNumber.get(number)

/** The table of a name that comes from outside, if there is one. */
export const tableOfName = (name: string): TableDefinition | undefined => byName.get(name)

/** Definition of a table that must exist. */
export function mustTable(name: string): TableDefinition {
  const table = byName.get(name)
  if (table === undefined) throw new Error(`there is no table ${name}`)
  return table
}

/** Every foreign key that points at a table: who would be left hanging when one of its rows goes. */
export const referencesTo: ReadonlyMap<
  string,
  readonly { table: TableDefinition; column: string; onDelete: 'cascade' | 'set null' }[]
> = new Map(
  allTables.map((target) => [
    target.name,
    allTables.flatMap((table) =>
      Object.entries(table.columns).flatMap(([column, { shape }]) =>
        shape.references?.table === target.name
          ? [{ table, column, onDelete: shape.references.onDelete }]
          : [],
      ),
    ),
  ]),
)
