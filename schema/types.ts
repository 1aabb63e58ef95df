import type { ColumnType, Generated } from 'kysely'
import type { Column, Columns } from './define.ts'
import type { TableName, Tables } from './tables.ts'

/** Row, insert and patch types, inferred from the definitions. */
type ValueOf<C> = C extends Column<infer T, infer N> ? (N extends true ? T | null : T) : never
type IsServer<C> = C extends Column<unknown, boolean, boolean, infer S> ? S : never
type IsOptional<C> =
  C extends Column<unknown, infer N, infer D> ? (N extends true ? true : D) : never
type IsDerived<C> = C extends Column<unknown, boolean, boolean, boolean, infer D> ? D : never

type AgentNames<C extends Columns> = {
  [K in keyof C]: IsServer<C[K]> extends true ? never : K
}[keyof C]
type InsertNames<C extends Columns> = {
  [K in AgentNames<C>]: IsDerived<C[K]> extends true ? never : K
}[AgentNames<C>]
/** Columns that the repository fills with the store's user. */
type IsActingUser<C> = C extends { readonly $actingUser: true } ? true : false
type RequiredNames<C extends Columns> = {
  [K in InsertNames<C>]: true extends IsOptional<C[K]> | IsActingUser<C[K]> ? never : K
}[InsertNames<C>]

type Simplify<T> = { [K in keyof T]: T[K] }

/** A row as an agent reads it: database names, decoded values, no `serverOnly` columns. */
export type Row<N extends TableName> = {
  [K in AgentNames<Tables[N]['columns']>]: ValueOf<Tables[N]['columns'][K]>
}

/** What `create` takes: required columns, and any of those with a default. */
export type NewRow<N extends TableName> = Simplify<
  { [K in RequiredNames<Tables[N]['columns']>]: ValueOf<Tables[N]['columns'][K]> } & {
    [K in InsertNames<Tables[N]['columns']>]?: ValueOf<Tables[N]['columns'][K]> | undefined
  }
>

/** What `update` takes. */
export type Patch<N extends TableName> = {
  [K in InsertNames<Tables[N]['columns']>]?: ValueOf<Tables[N]['columns'][K]> | undefined
}

/** Columns that only the repository numbers: SQL has no default for them, on either side. */
type IsNextIn<C> = C extends { readonly $nextIn: true } ? true : false

type KyselyColumn<C> =
  IsNextIn<C> extends true
    ? ValueOf<C>
    : IsOptional<C> extends true
      ? ColumnType<ValueOf<C>, ValueOf<C> | undefined, ValueOf<C>>
      : ValueOf<C>

/** Kysely's view of the embedded store. */
export type AgentDatabase = {
  [N in TableName]: {
    [K in AgentNames<Tables[N]['columns']>]: KyselyColumn<Tables[N]['columns'][K]>
  }
}

/** Kysely's view of the centre: all columns. */
export type CentralDatabase = {
  [N in TableName]: {
    [K in keyof Tables[N]['columns']]: KyselyColumn<Tables[N]['columns'][K]>
  }
} & {
  active_sessions: ActiveSession
  open_incidents_summary: OpenIncidentsSummary
  workflow_execution_stats: WorkflowExecutionStats
  schema_migrations: SchemaMigration
}

export interface ActiveSession {
  id: string
  user_id: string
  email: string
  username: string
  status: string
  ip_address: string
  created_at: string
  last_activity_at: string
  expires_at: string
  idle_seconds: number
}

export interface OpenIncidentsSummary {
  severity: string
  count: number
  avg_age_seconds: number
  most_recent: string
  oldest: string
}

export interface WorkflowExecutionStats {
  workflow_id: string
  workflow_name: string
  total_executions: number
  successful_executions: number
  failed_executions: number
  avg_duration_ms: number | null
  last_execution: string | null
}

export interface SchemaMigration {
  version: number
  name: string
  applied_at: Generated<string>
  checksum: string
  execution_time_ms: number
  success: boolean
}
