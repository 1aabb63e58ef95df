import { defineTable, enumOf, inet, json, text, timestamp, uuid, varchar } from '../define.ts'
import { sessionStatus } from '../enums.ts'
import { sessionTransitions, stateMachine } from '../transitions.ts'

export const sessions = defineTable('sessions', {
  number: 2,
  comment: 'User sessions with authentication tokens and context',
  writeClass: 'pull',
  owner: { kind: 'column', column: 'user_id' },
  columns: {
    id: uuid().notNull().defaultNewId(),
    user_id: uuid().notNull().references('users', 'cascade'),
    token_hash: varchar(255).notNull().serverOnly(),
    refresh_token_hash: varchar(255).serverOnly(),
    status: enumOf(sessionStatus).notNull().default('active'),
    ip_address: inet().notNull(),
    user_agent: text(),
    device_fingerprint: varchar(255),
    context: json()
      .default('{}')
      .comment('Session context: {workspace_id, project_id, current_task}'),
    created_at: timestamp().notNull().defaultNow(),
    last_activity_at: timestamp().notNull().defaultNow(),
    expires_at: timestamp().notNull(),
    terminated_at: timestamp(),
  },
  checks: [
    {
      name: 'chk_expires_after_created',
      postgres: 'expires_at > created_at',
      sqlite: 'expires_at > created_at',
    },
  ],
  uniques: [
    { name: 'uq_sessions_token_hash', columns: ['token_hash'], onClash: { kind: 'reject' } },
    {
      name: 'uq_sessions_refresh_token_hash',
      columns: ['refresh_token_hash'],
      onClash: { kind: 'reject' },
    },
  ],
  indexes: [
    { name: 'idx_sessions_user_id', on: ['user_id'] },
    { name: 'idx_sessions_token', on: ['token_hash'], where: `status = 'active'` },
    { name: 'idx_sessions_status', on: ['status'] },
    { name: 'idx_sessions_active', on: ['status'], where: `status = 'active'` },
    { name: 'idx_sessions_expires', on: ['expires_at'], where: `status IN ('active', 'idle')` },
    { name: 'idx_sessions_last_activity', on: ['last_activity_at'], where: `status = 'active'` },
  ],
  groups: [
    {
      name: 'status',
      columns: ['status', 'terminated_at'],
      policy: stateMachine('status', sessionTransitions),
    },
  ],
})
