import {
  boolean,
  defineTable,
  enumOf,
  integer,
  integerArray,
  json,
  text,
  textArray,
  timestamp,
  uuid,
  varchar,
} from '../define.ts'
import { executionStatus } from '../enums.ts'
import { executionTransitions, stateMachine } from '../transitions.ts'

export const runbooks = defineTable('runbooks', {
  number: 9,
  comment: 'Incident response runbooks and playbooks',
  writeClass: 'row',
  owner: { kind: 'shared', key: 'runbooks', column: 'owner_id', ownWritesOnly: false },
  columns: {
    id: uuid().notNull().defaultNewId(),
    name: varchar(255).notNull(),
    description: text(),
    version: integer().notNull().default(1),
    trigger_conditions: json().comment('{severity: [], services: [], patterns: []}'),
    steps: json().notNull().comment('[{step_num, title, action, automated, required_role}]'),
    is_automated: boolean().default(false),
    automation_config: json().comment('Configuration for automated execution'),
    tags: textArray().default('[]').merges('set'),
    owner_id: uuid().references('users', 'set null'),
    execution_count: integer().default(0).merges('counter'),
    success_count: integer().default(0).merges('counter'),
    last_executed_at: timestamp().merges('max'),
    created_at: timestamp().notNull().defaultNow().fixed(),
    updated_at: timestamp().notNull().defaultNow().derived(),
    archived_at: timestamp(),
  },
  uniques: [{ name: 'runbooks_name_key', columns: ['name'], onClash: { kind: 'reject' } }],
  indexes: [
    { name: 'idx_runbooks_name', on: ['name'], where: 'archived_at IS NULL' },
    { name: 'idx_runbooks_tags', on: ['tags'], using: 'gin' },
    { name: 'idx_runbooks_automated', on: ['is_automated'], where: 'is_automated = TRUE' },
    { name: 'idx_runbooks_owner', on: ['owner_id'], where: 'owner_id IS NOT NULL' },
  ],
  groups: [
    {
      name: 'definition',
      columns: ['steps', 'version', 'automation_config', 'is_automated'],
      // A playbook of which the later half of two edits won would be run by someone in a hurry.
      policy: 'reject',
    },
  ],
})

export const runbookExecutions = defineTable('runbook_executions', {
  number: 10,
  comment: 'Runbook execution history and results',
  writeClass: 'row',
  owner: { kind: 'shared', key: 'incidents', column: 'executed_by', ownWritesOnly: true },
  columns: {
    id: uuid().notNull().defaultNewId(),
    runbook_id: uuid().notNull().references('runbooks', 'cascade').fixed(),
    incident_id: uuid().references('incidents', 'set null'),
    executed_by: uuid().notNull().actingUser().references('users', 'cascade').fixed(),
    status: enumOf(executionStatus).notNull().default('running'),
    is_automated: boolean().default(false),
    current_step: integer(),
    completed_steps: integerArray().default('[]').merges('set'),
    step_results: json().default('[]').comment('[{step_num, status, output, duration_ms}]'),
    success: boolean(),
    notes: text(),
    started_at: timestamp().notNull().defaultNow(),
    completed_at: timestamp(),
  },
  indexes: [
    { name: 'idx_runbook_executions_runbook', on: ['runbook_id'] },
    { name: 'idx_runbook_executions_incident', on: ['incident_id'] },
    { name: 'idx_runbook_executions_started_at', on: ['started_at DESC'] },
    { name: 'idx_runbook_executions_executed_by', on: ['executed_by'] },
  ],
  groups: [
    {
      name: 'status',
      columns: ['status', 'success', 'started_at', 'completed_at'],
      policy: stateMachine('status', executionTransitions),
    },
  ],
})
