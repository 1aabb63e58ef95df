import {
  boolean,
  defineTable,
  enumOf,
  inet,
  json,
  text,
  timestamp,
  uuid,
  varchar,
} from '../define.ts'
import { auditAction } from '../enums.ts'

/** No foreign keys: a SET NULL would rewrite history (E-02). */
export const auditLogs = defineTable('audit_logs', {
  number: 11,
  comment: 'Comprehensive audit trail with 1-year retention (partitioned monthly)',
  writeClass: 'push-only',
  owner: { kind: 'column', column: 'user_id' },
  columns: {
    id: uuid().notNull().defaultNewId(),
    user_id: uuid().actingUser(),
    session_id: uuid(),
    action: enumOf(auditAction).notNull(),
    resource_type: varchar(100).notNull(),
    resource_id: uuid(),
    description: text(),
    changes: json().comment('{before: {}, after: {}} of an update'),
    metadata: json().default('{}').comment('Request id and other context'),
    ip_address: inet(),
    user_agent: text(),
    success: boolean().notNull().default(true),
    error_message: text(),
    created_at: timestamp().notNull().defaultNow(),
  },
  indexes: [
    { name: 'idx_audit_logs_user_id', on: ['user_id', 'created_at DESC'] },
    { name: 'idx_audit_logs_resource', on: ['resource_type', 'resource_id', 'created_at DESC'] },
    { name: 'idx_audit_logs_action', on: ['action', 'created_at DESC'] },
    { name: 'idx_audit_logs_created_at', on: ['created_at DESC'] },
  ],
  partitionedBy: 'created_at',
})
