import { defineEnum } from './define.ts'

/** The eight enums of the domain (PG-004). `workflow_status` is kept for the seeds' sake; no table uses it yet. */
export const userRole = defineEnum('user_role', ['admin', 'developer', 'operator', 'viewer'])
export const userStatus = defineEnum('user_status', ['active', 'inactive', 'suspended', 'pending'])
export const sessionStatus = defineEnum('session_status', [
  'active',
  'idle',
  'terminated',
  'expired',
])
export const workflowStatus = defineEnum('workflow_status', [
  'pending',
  'running',
  'completed',
  'failed',
  'cancelled',
  'paused',
])
export const executionStatus = defineEnum('execution_status', [
  'queued',
  'running',
  'success',
  'failed',
  'timeout',
  'cancelled',
])
export const incidentSeverity = defineEnum('incident_severity', [
  'critical',
  'high',
  'medium',
  'low',
  'info',
])
export const incidentStatus = defineEnum('incident_status', [
  'open',
  'acknowledged',
  'investigating',
  'resolved',
  'closed',
])
export const auditAction = defineEnum('audit_action', [
  'create',
  'read',
  'update',
  'delete',
  'execute',
  'login',
  'logout',
])

export const enums = [
  userRole,
  userStatus,
  sessionStatus,
  workflowStatus,
  executionStatus,
  incidentSeverity,
  incidentStatus,
  auditAction,
] as const

export type UserRole = (typeof userRole.values)[number]
export type UserStatus = (typeof userStatus.values)[number]
export type SessionStatus = (typeof sessionStatus.values)[number]
export type ExecutionStatus = (typeof executionStatus.values)[number]
export type IncidentStatus = (typeof incidentStatus.values)[number]
