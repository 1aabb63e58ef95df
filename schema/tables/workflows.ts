import {
  boolean,
  defineTable,
  enumOf,
  integer,
  json,
  text,
  textArray,
  timestamp,
  uuid,
  varchar,
} from '../define.ts'
import { executionStatus } from '../enums.ts'
import { executionTransitions, stateMachine } from '../transitions.ts'

export const workflows = defineTable('workflows', {
  number: 5,
  comment: 'Workflow definitions and configurations',
  writeClass: 'row',
  owner: { kind: 'column', column: 'user_id' },
  columns: {
    id: uuid().notNull().defaultNewId(),
    user_id: uuid().notNull().actingUser().references('users', 'cascade').fixed(),
    name: varchar(255).notNull(),
    description: text(),
    version: integer().notNull().default(1),
    definition: json()
      .notNull()
      .comment('Workflow DAG: {steps: [{id, type, config, dependencies}]}'),
    parameters: json().default('{}').merges('merge').comment('Default parameters'),
    environment_vars: json().default('{}').merges('merge').comment('Environment variables'),
    triggers: json().default('[]').comment(`[{type: 'schedule|webhook|event', config}]`),
    tags: textArray().default('[]').merges('set'),
    is_active: boolean().default(true),
    is_template: boolean().default(false),
    created_at: timestamp().notNull().defaultNow().fixed(),
    updated_at: timestamp().notNull().defaultNow().derived(),
    deleted_at: timestamp(),
  },
  uniques: [
    {
      name: 'uq_workflow_name_version',
      columns: ['user_id', 'name', 'version'],
      onClash: { kind: 'next-version', column: 'version' },
    },
  ],
  indexes: [
    { name: 'idx_workflows_user_id', on: ['user_id'] },
    { name: 'idx_workflows_name', on: ['name'] },
    { name: 'idx_workflows_tags', on: ['tags'], using: 'gin' },
    { name: 'idx_workflows_active', on: ['is_active'], where: 'deleted_at IS NULL' },
    { name: 'idx_workflows_template', on: ['is_template'], where: 'is_template = TRUE' },
  ],
  groups: [{ name: 'definition', columns: ['definition', 'version'] }],
  softDelete: 'deleted_at',
})

export const workflowExecutions = defineTable('workflow_executions', {
  number: 6,
  comment: 'Individual workflow execution instances',
  writeClass: 'row',
  // Its runner goes on adding steps until it hears of the delete: refused for them, none would ever pass.
  staleDelete: 'record',
  owner: { kind: 'column', column: 'user_id' },
  columns: {
    id: uuid().notNull().defaultNewId(),
    workflow_id: uuid().notNull().references('workflows', 'cascade').fixed(),
    user_id: uuid().notNull().actingUser().references('users', 'cascade').fixed(),
    status: enumOf(executionStatus).notNull().default('queued'),
    parameters: json().default('{}').comment('Runtime parameters'),
    environment: json().default('{}').comment('Runtime environment'),
    trigger_type: varchar(50),
    trigger_source: json().comment('What triggered this execution'),
    current_step: varchar(255),
    completed_steps: textArray().default('[]').merges('set'),
    failed_steps: textArray().default('[]').merges('set'),
    outputs: json().comment('Final outputs of the workflow'),
    error_message: text(),
    error_stack: text(),
    total_duration_ms: integer(),
    steps_executed: integer().default(0).merges('counter'),
    queued_at: timestamp().notNull().defaultNow(),
    started_at: timestamp(),
    completed_at: timestamp(),
    cancelled_at: timestamp(),
  },
  checks: [
    {
      name: 'chk_execution_timing',
      postgres:
        '(started_at IS NULL OR started_at >= queued_at) AND (completed_at IS NULL OR started_at IS NULL OR completed_at >= started_at)',
      sqlite:
        '(started_at IS NULL OR started_at >= queued_at) AND (completed_at IS NULL OR started_at IS NULL OR completed_at >= started_at)',
    },
  ],
  indexes: [
    { name: 'idx_workflow_executions_workflow_id', on: ['workflow_id'] },
    { name: 'idx_workflow_executions_user_id', on: ['user_id'] },
    { name: 'idx_workflow_executions_status', on: ['status'] },
    { name: 'idx_workflow_executions_queued_at', on: ['queued_at DESC'] },
    { name: 'idx_workflow_executions_trigger_type', on: ['trigger_type'] },
    {
      name: 'idx_workflow_executions_user_status_queued',
      on: ['user_id', 'status', 'queued_at DESC'],
    },
  ],
  groups: [
    {
      name: 'status',
      columns: ['status', 'queued_at', 'started_at', 'completed_at', 'cancelled_at'],
      policy: stateMachine('status', executionTransitions),
    },
  ],
})

export const stepExecutions = defineTable('step_executions', {
  number: 7,
  comment: 'Individual step executions within workflows',
  writeClass: 'row',
  owner: { kind: 'parent', table: 'workflow_executions', column: 'workflow_execution_id' },
  columns: {
    id: uuid().notNull().defaultNewId(),
    workflow_execution_id: uuid().notNull().references('workflow_executions', 'cascade').fixed(),
    step_id: varchar(255).notNull(),
    step_name: varchar(255).notNull(),
    step_type: varchar(100).notNull(),
    status: enumOf(executionStatus).notNull().default('queued'),
    inputs: json().comment('Inputs of the step'),
    outputs: json().comment('Outputs of the step'),
    retry_count: integer().default(0).merges('max'),
    max_retries: integer().default(3),
    error_message: text(),
    duration_ms: integer(),
    queued_at: timestamp().notNull().defaultNow(),
    started_at: timestamp(),
    completed_at: timestamp(),
  },
  indexes: [
    { name: 'idx_step_executions_workflow_execution', on: ['workflow_execution_id'] },
    { name: 'idx_step_executions_status', on: ['status'] },
    { name: 'idx_step_executions_step_id', on: ['step_id'] },
  ],
  groups: [
    {
      name: 'status',
      columns: ['status', 'queued_at', 'started_at', 'completed_at'],
      policy: stateMachine('status', executionTransitions),
    },
  ],
})
