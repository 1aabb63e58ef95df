import {
  defineTable,
  enumOf,
  integer,
  json,
  text,
  textArray,
  timestamp,
  uuid,
  uuidArray,
  varchar,
} from '../define.ts'
import { incidentSeverity, incidentStatus } from '../enums.ts'
import { stateMachine, incidentTransitions } from '../transitions.ts'

const timing = `(acknowledged_at IS NULL OR acknowledged_at >= detected_at) AND (resolved_at IS NULL OR resolved_at >= detected_at) AND (closed_at IS NULL OR closed_at >= coalesce(resolved_at, detected_at))`

export const incidents = defineTable('incidents', {
  number: 8,
  comment: 'Production incidents with detection and resolution tracking',
  writeClass: 'row',
  owner: { kind: 'shared', key: 'incidents', column: 'assigned_to', ownWritesOnly: false },
  columns: {
    id: uuid().notNull().defaultNewId(),
    title: varchar(500).notNull(),
    description: text(),
    severity: enumOf(incidentSeverity).notNull(),
    status: enumOf(incidentStatus).notNull().default('open'),
    source: varchar(100).notNull(),
    detection_method: varchar(100),
    affected_services: textArray().default('[]').merges('set'),
    affected_users_count: integer().default(0),
    blast_radius: json().comment('{regions: [], services: [], user_segments: []}'),
    assigned_to: uuid().references('users', 'set null'),
    assigned_team: varchar(100),
    metadata: json().default('{}').merges('merge').comment('Alert data, metrics, logs'),
    related_incidents: uuidArray().merges('set'),
    root_cause: text(),
    resolution_notes: text(),
    remediation_steps: textArray(),
    detected_at: timestamp().notNull().defaultNow(),
    acknowledged_at: timestamp(),
    resolved_at: timestamp(),
    closed_at: timestamp(),
    created_at: timestamp().notNull().defaultNow().fixed(),
    updated_at: timestamp().notNull().defaultNow().derived(),
  },
  checks: [{ name: 'chk_incident_timing', postgres: timing, sqlite: timing }],
  indexes: [
    {
      name: 'idx_incidents_severity',
      on: ['severity'],
      where: `status NOT IN ('resolved', 'closed')`,
    },
    { name: 'idx_incidents_status', on: ['status'] },
    { name: 'idx_incidents_detected_at', on: ['detected_at DESC'] },
    { name: 'idx_incidents_assigned_to', on: ['assigned_to'], where: 'assigned_to IS NOT NULL' },
    { name: 'idx_incidents_affected_services', on: ['affected_services'], using: 'gin' },
    { name: 'idx_incidents_related', on: ['related_incidents'], using: 'gin' },
  ],
  groups: [
    {
      name: 'status',
      columns: ['status', 'detected_at', 'acknowledged_at', 'resolved_at', 'closed_at'],
      policy: stateMachine('status', incidentTransitions),
    },
  ],
})
