CREATE TABLE sync_state (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  agent_id TEXT NOT NULL,
  client_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  provisional INTEGER NOT NULL DEFAULT 1,
  applying INTEGER NOT NULL DEFAULT 0,
  tx INTEGER NOT NULL DEFAULT 1,
  clock INTEGER NOT NULL DEFAULT 0,
  nonce TEXT,
  position INTEGER NOT NULL DEFAULT 0,
  cursor TEXT,
  page_cursor TEXT,
  acked_seq INTEGER NOT NULL DEFAULT 0,
  acked_id TEXT,
  durable_seq INTEGER NOT NULL DEFAULT 0,
  ancestor TEXT,
  introduced INTEGER NOT NULL DEFAULT 1,
  healing INTEGER NOT NULL DEFAULT 0,
  centre_schema INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE sync_tx (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL,
  clock INTEGER NOT NULL,
  nonce TEXT,
  position INTEGER NOT NULL,
  first_n INTEGER NOT NULL
) STRICT;

CREATE TABLE sync_log (
  n INTEGER PRIMARY KEY,
  tx INTEGER NOT NULL,
  tbl INTEGER NOT NULL,
  id TEXT NOT NULL,
  op TEXT NOT NULL CHECK (op IN ('insert', 'update', 'delete')),
  pushed INTEGER NOT NULL DEFAULT 1,
  blocked INTEGER NOT NULL DEFAULT 0,
  ref TEXT,
  size INTEGER,
  patch TEXT,
  before TEXT
) STRICT;

CREATE INDEX sync_log_id ON sync_log (id);

CREATE INDEX sync_log_ref ON sync_log (ref) WHERE ref IS NOT NULL;

CREATE TABLE sync_base (
  id TEXT NOT NULL,
  tbl INTEGER NOT NULL,
  image TEXT,
  PRIMARY KEY (id, tbl)
) STRICT, WITHOUT ROWID;

CREATE TABLE sync_stub (
  id TEXT NOT NULL,
  tbl INTEGER NOT NULL,
  PRIMARY KEY (id, tbl)
) STRICT, WITHOUT ROWID;

CREATE TABLE sync_placeholder (
  id TEXT NOT NULL,
  tbl INTEGER NOT NULL,
  columns TEXT NOT NULL,
  PRIMARY KEY (id, tbl)
) STRICT, WITHOUT ROWID;

CREATE TABLE sync_hydration (
  id TEXT NOT NULL,
  tbl INTEGER NOT NULL,
  PRIMARY KEY (id, tbl)
) STRICT, WITHOUT ROWID;

CREATE TABLE sync_conflicts (
  id TEXT PRIMARY KEY,
  at TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('rejected', 'dependency_failed', 'superseded', 'overwritten', 'merged', 'blocked')),
  tx INTEGER,
  tx_id TEXT,
  n INTEGER,
  table_name TEXT NOT NULL,
  row_id TEXT NOT NULL,
  op TEXT,
  reason TEXT,
  sqlstate TEXT,
  constraint_name TEXT,
  message TEXT,
  depends_on TEXT,
  mine TEXT,
  base TEXT,
  theirs TEXT,
  resolved TEXT CHECK (resolved IN ('retried', 'discarded', 'told'))
) STRICT;

CREATE INDEX sync_conflicts_row ON sync_conflicts (row_id);

CREATE INDEX sync_conflicts_tx ON sync_conflicts (tx_id) WHERE tx_id IS NOT NULL;

CREATE TABLE sync_ack (
  seq INTEGER PRIMARY KEY,
  nonce TEXT NOT NULL,
  position INTEGER NOT NULL
) STRICT;

CREATE TABLE sync_history (
  n INTEGER PRIMARY KEY,
  nonce TEXT NOT NULL,
  position INTEGER NOT NULL
) STRICT;

CREATE TABLE sync_kept_tx (
  n INTEGER PRIMARY KEY,
  seq INTEGER NOT NULL,
  id TEXT NOT NULL,
  clock INTEGER NOT NULL,
  nonce TEXT,
  position INTEGER NOT NULL,
  acked_nonce TEXT NOT NULL,
  acked_position INTEGER NOT NULL,
  acked_at INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX sync_kept_tx_id ON sync_kept_tx (id);

CREATE TABLE sync_kept_log (
  n INTEGER PRIMARY KEY,
  tx INTEGER NOT NULL,
  tbl INTEGER NOT NULL,
  id TEXT NOT NULL,
  op TEXT NOT NULL,
  patch TEXT,
  before TEXT,
  pushed INTEGER NOT NULL,
  ref TEXT
) STRICT;

CREATE INDEX sync_kept_log_tx ON sync_kept_log (tx);

CREATE TABLE sync_lost (
  id TEXT NOT NULL,
  tbl INTEGER NOT NULL,
  image TEXT NOT NULL,
  at TEXT NOT NULL,
  PRIMARY KEY (id, tbl)
) STRICT, WITHOUT ROWID;

CREATE TABLE embedding_changes (
  id TEXT PRIMARY KEY,
  seq INTEGER NOT NULL UNIQUE,
  gone INTEGER NOT NULL,
  stamp INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX embedding_changes_gone ON embedding_changes (seq) WHERE gone = 1;

CREATE TABLE memory_changes (
  id TEXT PRIMARY KEY,
  seq INTEGER NOT NULL UNIQUE,
  gone INTEGER NOT NULL,
  stamp INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX memory_changes_gone ON memory_changes (seq) WHERE gone = 1;

CREATE TABLE forgotten_changes (
  name TEXT PRIMARY KEY,
  seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE schema_migrations (
  version INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')),
  checksum TEXT NOT NULL CHECK (length(checksum) = 64),
  execution_time_ms INTEGER NOT NULL,
  success INTEGER NOT NULL DEFAULT 1 CHECK (success IN (0, 1))
) STRICT;

CREATE INDEX idx_schema_migrations_applied_at ON schema_migrations (applied_at DESC);

-- User accounts with authentication and authorization
CREATE TABLE users (
  id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 1, 8) || '-' || substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))) CONSTRAINT users_id_type CHECK (length(id) = 36 AND id = lower(id)),
  email TEXT NOT NULL CONSTRAINT users_email_type CHECK (length(email) <= 255),
  username TEXT NOT NULL CONSTRAINT users_username_type CHECK (length(username) <= 100),
  full_name TEXT CONSTRAINT users_full_name_type CHECK (length(full_name) <= 255),
  role TEXT NOT NULL DEFAULT 'developer' CONSTRAINT users_role_type CHECK (role IN ('admin', 'developer', 'operator', 'viewer')),
  status TEXT NOT NULL DEFAULT 'pending' CONSTRAINT users_status_type CHECK (status IN ('active', 'inactive', 'suspended', 'pending')),
  avatar_url TEXT,
  timezone TEXT DEFAULT 'UTC' CONSTRAINT users_timezone_type CHECK (length(timezone) <= 50),
  preferences TEXT DEFAULT '{}' CONSTRAINT users_preferences_type CHECK (json_valid(preferences)),
  mfa_enabled INTEGER DEFAULT 0 CONSTRAINT users_mfa_enabled_type CHECK (mfa_enabled IN (0, 1)),
  last_login_at TEXT CONSTRAINT users_last_login_at_type CHECK (last_login_at LIKE '____-__-__T__:__:__.______Z'),
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT users_created_at_type CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT users_updated_at_type CHECK (updated_at LIKE '____-__-__T__:__:__.______Z'),
  deleted_at TEXT CONSTRAINT users_deleted_at_type CHECK (deleted_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT chk_email_format CHECK (email LIKE '_%@_%.__%' AND email NOT GLOB '*[^A-Za-z0-9._%+@-]*'),
  CONSTRAINT chk_username_format CHECK (length(username) BETWEEN 3 AND 100 AND username NOT GLOB '*[^A-Za-z0-9_-]*')
) STRICT;

CREATE UNIQUE INDEX uq_users_email ON users (lower(email)) WHERE deleted_at IS NULL;

CREATE UNIQUE INDEX uq_users_username ON users (lower(username)) WHERE deleted_at IS NULL;

CREATE INDEX idx_users_email ON users (email) WHERE deleted_at IS NULL;

CREATE INDEX idx_users_username ON users (username) WHERE deleted_at IS NULL;

CREATE INDEX idx_users_role ON users (role) WHERE deleted_at IS NULL;

CREATE INDEX idx_users_status ON users (status) WHERE deleted_at IS NULL;

-- User sessions with authentication tokens and context
CREATE TABLE sessions (
  id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 1, 8) || '-' || substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))) CONSTRAINT sessions_id_type CHECK (length(id) = 36 AND id = lower(id)),
  user_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE CONSTRAINT sessions_user_id_type CHECK (length(user_id) = 36 AND user_id = lower(user_id)),
  status TEXT NOT NULL DEFAULT 'active' CONSTRAINT sessions_status_type CHECK (status IN ('active', 'idle', 'terminated', 'expired')),
  ip_address TEXT NOT NULL,
  user_agent TEXT,
  device_fingerprint TEXT CONSTRAINT sessions_device_fingerprint_type CHECK (length(device_fingerprint) <= 255),
  context TEXT DEFAULT '{}' CONSTRAINT sessions_context_type CHECK (json_valid(context)),
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT sessions_created_at_type CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  last_activity_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT sessions_last_activity_at_type CHECK (last_activity_at LIKE '____-__-__T__:__:__.______Z'),
  expires_at TEXT NOT NULL CONSTRAINT sessions_expires_at_type CHECK (expires_at LIKE '____-__-__T__:__:__.______Z'),
  terminated_at TEXT CONSTRAINT sessions_terminated_at_type CHECK (terminated_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT chk_expires_after_created CHECK (expires_at > created_at)
) STRICT;

CREATE INDEX idx_sessions_user_id ON sessions (user_id);

CREATE INDEX idx_sessions_status ON sessions (status);

CREATE INDEX idx_sessions_active ON sessions (status) WHERE status = 'active';

CREATE INDEX idx_sessions_expires ON sessions (expires_at) WHERE status IN ('active', 'idle');

CREATE INDEX idx_sessions_last_activity ON sessions (last_activity_at) WHERE status = 'active';

-- Conversation threads with context and metadata
CREATE TABLE conversations (
  id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 1, 8) || '-' || substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))) CONSTRAINT conversations_id_type CHECK (length(id) = 36 AND id = lower(id)),
  session_id TEXT REFERENCES sessions(id) ON DELETE SET NULL CONSTRAINT conversations_session_id_type CHECK (length(session_id) = 36 AND session_id = lower(session_id)),
  user_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE CONSTRAINT conversations_user_id_type CHECK (length(user_id) = 36 AND user_id = lower(user_id)),
  title TEXT CONSTRAINT conversations_title_type CHECK (length(title) <= 500),
  description TEXT,
  tags TEXT DEFAULT '[]' CONSTRAINT conversations_tags_type CHECK (json_type(tags) = 'array'),
  context_snapshot TEXT DEFAULT '{}' CONSTRAINT conversations_context_snapshot_type CHECK (json_valid(context_snapshot)),
  system_prompt TEXT,
  model_config TEXT DEFAULT '{}' CONSTRAINT conversations_model_config_type CHECK (json_valid(model_config)),
  message_count INTEGER DEFAULT 0 CONSTRAINT conversations_message_count_type CHECK (message_count BETWEEN -2147483648 AND 2147483647),
  total_tokens INTEGER DEFAULT 0 CONSTRAINT conversations_total_tokens_type CHECK (total_tokens BETWEEN -2147483648 AND 2147483647),
  total_cost_cents INTEGER DEFAULT 0 CONSTRAINT conversations_total_cost_cents_type CHECK (total_cost_cents BETWEEN -2147483648 AND 2147483647),
  started_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT conversations_started_at_type CHECK (started_at LIKE '____-__-__T__:__:__.______Z'),
  last_message_at TEXT CONSTRAINT conversations_last_message_at_type CHECK (last_message_at LIKE '____-__-__T__:__:__.______Z'),
  ended_at TEXT CONSTRAINT conversations_ended_at_type CHECK (ended_at LIKE '____-__-__T__:__:__.______Z'),
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT conversations_created_at_type CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT conversations_updated_at_type CHECK (updated_at LIKE '____-__-__T__:__:__.______Z'),
  archived_at TEXT CONSTRAINT conversations_archived_at_type CHECK (archived_at LIKE '____-__-__T__:__:__.______Z')
) STRICT;

CREATE INDEX idx_conversations_user_id ON conversations (user_id);

CREATE INDEX idx_conversations_session_id ON conversations (session_id);

CREATE INDEX idx_conversations_started_at ON conversations (started_at DESC);

CREATE INDEX idx_conversations_archived ON conversations (archived_at) WHERE archived_at IS NOT NULL;

-- Individual messages within conversations
CREATE TABLE messages (
  id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 1, 8) || '-' || substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))) CONSTRAINT messages_id_type CHECK (length(id) = 36 AND id = lower(id)),
  conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE CONSTRAINT messages_conversation_id_type CHECK (length(conversation_id) = 36 AND conversation_id = lower(conversation_id)),
  role TEXT NOT NULL CONSTRAINT messages_role_type CHECK (length(role) <= 20),
  content TEXT NOT NULL,
  content_type TEXT DEFAULT 'text' CONSTRAINT messages_content_type_type CHECK (length(content_type) <= 50),
  model TEXT CONSTRAINT messages_model_type CHECK (length(model) <= 100),
  tokens_used INTEGER DEFAULT 0 CONSTRAINT messages_tokens_used_type CHECK (tokens_used BETWEEN -2147483648 AND 2147483647),
  latency_ms INTEGER CONSTRAINT messages_latency_ms_type CHECK (latency_ms BETWEEN -2147483648 AND 2147483647),
  tool_calls TEXT CONSTRAINT messages_tool_calls_type CHECK (json_valid(tool_calls)),
  tool_results TEXT CONSTRAINT messages_tool_results_type CHECK (json_valid(tool_results)),
  parent_message_id TEXT REFERENCES messages(id) ON DELETE SET NULL CONSTRAINT messages_parent_message_id_type CHECK (length(parent_message_id) = 36 AND parent_message_id = lower(parent_message_id)),
  sequence_number INTEGER NOT NULL CONSTRAINT messages_sequence_number_type CHECK (sequence_number BETWEEN -2147483648 AND 2147483647),
  feedback_rating INTEGER CONSTRAINT messages_feedback_rating_type CHECK (feedback_rating BETWEEN -2147483648 AND 2147483647),
  feedback_comment TEXT,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT messages_created_at_type CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT chk_role CHECK (role IN ('user', 'assistant', 'system', 'tool')),
  CONSTRAINT messages_feedback_rating_check CHECK (feedback_rating BETWEEN 1 AND 5)
) STRICT;

CREATE INDEX idx_messages_conversation_id ON messages (conversation_id);

CREATE INDEX idx_messages_created_at ON messages (created_at DESC);

CREATE INDEX idx_messages_sequence ON messages (conversation_id, sequence_number);

CREATE INDEX idx_messages_role ON messages (role);

CREATE INDEX idx_messages_parent ON messages (parent_message_id) WHERE parent_message_id IS NOT NULL;

-- Workflow definitions and configurations
CREATE TABLE workflows (
  id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 1, 8) || '-' || substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))) CONSTRAINT workflows_id_type CHECK (length(id) = 36 AND id = lower(id)),
  user_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE CONSTRAINT workflows_user_id_type CHECK (length(user_id) = 36 AND user_id = lower(user_id)),
  name TEXT NOT NULL CONSTRAINT workflows_name_type CHECK (length(name) <= 255),
  description TEXT,
  version INTEGER NOT NULL DEFAULT 1 CONSTRAINT workflows_version_type CHECK (version BETWEEN -2147483648 AND 2147483647),
  definition TEXT NOT NULL CONSTRAINT workflows_definition_type CHECK (json_valid(definition)),
  parameters TEXT DEFAULT '{}' CONSTRAINT workflows_parameters_type CHECK (json_valid(parameters)),
  environment_vars TEXT DEFAULT '{}' CONSTRAINT workflows_environment_vars_type CHECK (json_valid(environment_vars)),
  triggers TEXT DEFAULT '[]' CONSTRAINT workflows_triggers_type CHECK (json_valid(triggers)),
  tags TEXT DEFAULT '[]' CONSTRAINT workflows_tags_type CHECK (json_type(tags) = 'array'),
  is_active INTEGER DEFAULT 1 CONSTRAINT workflows_is_active_type CHECK (is_active IN (0, 1)),
  is_template INTEGER DEFAULT 0 CONSTRAINT workflows_is_template_type CHECK (is_template IN (0, 1)),
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT workflows_created_at_type CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT workflows_updated_at_type CHECK (updated_at LIKE '____-__-__T__:__:__.______Z'),
  deleted_at TEXT CONSTRAINT workflows_deleted_at_type CHECK (deleted_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT uq_workflow_name_version UNIQUE (user_id, name, version)
) STRICT;

CREATE INDEX idx_workflows_user_id ON workflows (user_id);

CREATE INDEX idx_workflows_name ON workflows (name);

CREATE INDEX idx_workflows_active ON workflows (is_active) WHERE deleted_at IS NULL;

CREATE INDEX idx_workflows_template ON workflows (is_template) WHERE is_template = TRUE;

-- Individual workflow execution instances
CREATE TABLE workflow_executions (
  id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 1, 8) || '-' || substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))) CONSTRAINT workflow_executions_id_type CHECK (length(id) = 36 AND id = lower(id)),
  workflow_id TEXT NOT NULL REFERENCES workflows(id) ON DELETE CASCADE CONSTRAINT workflow_executions_workflow_id_type CHECK (length(workflow_id) = 36 AND workflow_id = lower(workflow_id)),
  user_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE CONSTRAINT workflow_executions_user_id_type CHECK (length(user_id) = 36 AND user_id = lower(user_id)),
  status TEXT NOT NULL DEFAULT 'queued' CONSTRAINT workflow_executions_status_type CHECK (status IN ('queued', 'running', 'success', 'failed', 'timeout', 'cancelled')),
  parameters TEXT DEFAULT '{}' CONSTRAINT workflow_executions_parameters_type CHECK (json_valid(parameters)),
  environment TEXT DEFAULT '{}' CONSTRAINT workflow_executions_environment_type CHECK (json_valid(environment)),
  trigger_type TEXT CONSTRAINT workflow_executions_trigger_type_type CHECK (length(trigger_type) <= 50),
  trigger_source TEXT CONSTRAINT workflow_executions_trigger_source_type CHECK (json_valid(trigger_source)),
  current_step TEXT CONSTRAINT workflow_executions_current_step_type CHECK (length(current_step) <= 255),
  completed_steps TEXT DEFAULT '[]' CONSTRAINT workflow_executions_completed_steps_type CHECK (json_type(completed_steps) = 'array'),
  failed_steps TEXT DEFAULT '[]' CONSTRAINT workflow_executions_failed_steps_type CHECK (json_type(failed_steps) = 'array'),
  outputs TEXT CONSTRAINT workflow_executions_outputs_type CHECK (json_valid(outputs)),
  error_message TEXT,
  error_stack TEXT,
  total_duration_ms INTEGER CONSTRAINT workflow_executions_total_duration_ms_type CHECK (total_duration_ms BETWEEN -2147483648 AND 2147483647),
  steps_executed INTEGER DEFAULT 0 CONSTRAINT workflow_executions_steps_executed_type CHECK (steps_executed BETWEEN -2147483648 AND 2147483647),
  queued_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT workflow_executions_queued_at_type CHECK (queued_at LIKE '____-__-__T__:__:__.______Z'),
  started_at TEXT CONSTRAINT workflow_executions_started_at_type CHECK (started_at LIKE '____-__-__T__:__:__.______Z'),
  completed_at TEXT CONSTRAINT workflow_executions_completed_at_type CHECK (completed_at LIKE '____-__-__T__:__:__.______Z'),
  cancelled_at TEXT CONSTRAINT workflow_executions_cancelled_at_type CHECK (cancelled_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT chk_execution_timing CHECK ((started_at IS NULL OR started_at >= queued_at) AND (completed_at IS NULL OR started_at IS NULL OR completed_at >= started_at))
) STRICT;

CREATE INDEX idx_workflow_executions_workflow_id ON workflow_executions (workflow_id);

CREATE INDEX idx_workflow_executions_user_id ON workflow_executions (user_id);

CREATE INDEX idx_workflow_executions_status ON workflow_executions (status);

CREATE INDEX idx_workflow_executions_queued_at ON workflow_executions (queued_at DESC);

CREATE INDEX idx_workflow_executions_trigger_type ON workflow_executions (trigger_type);

CREATE INDEX idx_workflow_executions_user_status_queued ON workflow_executions (user_id, status, queued_at DESC);

-- Individual step executions within workflows
CREATE TABLE step_executions (
  id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 1, 8) || '-' || substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))) CONSTRAINT step_executions_id_type CHECK (length(id) = 36 AND id = lower(id)),
  workflow_execution_id TEXT NOT NULL REFERENCES workflow_executions(id) ON DELETE CASCADE CONSTRAINT step_executions_workflow_execution_id_type CHECK (length(workflow_execution_id) = 36 AND workflow_execution_id = lower(workflow_execution_id)),
  step_id TEXT NOT NULL CONSTRAINT step_executions_step_id_type CHECK (length(step_id) <= 255),
  step_name TEXT NOT NULL CONSTRAINT step_executions_step_name_type CHECK (length(step_name) <= 255),
  step_type TEXT NOT NULL CONSTRAINT step_executions_step_type_type CHECK (length(step_type) <= 100),
  status TEXT NOT NULL DEFAULT 'queued' CONSTRAINT step_executions_status_type CHECK (status IN ('queued', 'running', 'success', 'failed', 'timeout', 'cancelled')),
  inputs TEXT CONSTRAINT step_executions_inputs_type CHECK (json_valid(inputs)),
  outputs TEXT CONSTRAINT step_executions_outputs_type CHECK (json_valid(outputs)),
  retry_count INTEGER DEFAULT 0 CONSTRAINT step_executions_retry_count_type CHECK (retry_count BETWEEN -2147483648 AND 2147483647),
  max_retries INTEGER DEFAULT 3 CONSTRAINT step_executions_max_retries_type CHECK (max_retries BETWEEN -2147483648 AND 2147483647),
  error_message TEXT,
  duration_ms INTEGER CONSTRAINT step_executions_duration_ms_type CHECK (duration_ms BETWEEN -2147483648 AND 2147483647),
  queued_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT step_executions_queued_at_type CHECK (queued_at LIKE '____-__-__T__:__:__.______Z'),
  started_at TEXT CONSTRAINT step_executions_started_at_type CHECK (started_at LIKE '____-__-__T__:__:__.______Z'),
  completed_at TEXT CONSTRAINT step_executions_completed_at_type CHECK (completed_at LIKE '____-__-__T__:__:__.______Z')
) STRICT;

CREATE INDEX idx_step_executions_workflow_execution ON step_executions (workflow_execution_id);

CREATE INDEX idx_step_executions_status ON step_executions (status);

CREATE INDEX idx_step_executions_step_id ON step_executions (step_id);

-- Production incidents with detection and resolution tracking
CREATE TABLE incidents (
  id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 1, 8) || '-' || substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))) CONSTRAINT incidents_id_type CHECK (length(id) = 36 AND id = lower(id)),
  title TEXT NOT NULL CONSTRAINT incidents_title_type CHECK (length(title) <= 500),
  description TEXT,
  severity TEXT NOT NULL CONSTRAINT incidents_severity_type CHECK (severity IN ('critical', 'high', 'medium', 'low', 'info')),
  status TEXT NOT NULL DEFAULT 'open' CONSTRAINT incidents_status_type CHECK (status IN ('open', 'acknowledged', 'investigating', 'resolved', 'closed')),
  source TEXT NOT NULL CONSTRAINT incidents_source_type CHECK (length(source) <= 100),
  detection_method TEXT CONSTRAINT incidents_detection_method_type CHECK (length(detection_method) <= 100),
  affected_services TEXT DEFAULT '[]' CONSTRAINT incidents_affected_services_type CHECK (json_type(affected_services) = 'array'),
  affected_users_count INTEGER DEFAULT 0 CONSTRAINT incidents_affected_users_count_type CHECK (affected_users_count BETWEEN -2147483648 AND 2147483647),
  blast_radius TEXT CONSTRAINT incidents_blast_radius_type CHECK (json_valid(blast_radius)),
  assigned_to TEXT REFERENCES users(id) ON DELETE SET NULL CONSTRAINT incidents_assigned_to_type CHECK (length(assigned_to) = 36 AND assigned_to = lower(assigned_to)),
  assigned_team TEXT CONSTRAINT incidents_assigned_team_type CHECK (length(assigned_team) <= 100),
  metadata TEXT DEFAULT '{}' CONSTRAINT incidents_metadata_type CHECK (json_valid(metadata)),
  related_incidents TEXT CONSTRAINT incidents_related_incidents_type CHECK (json_type(related_incidents) = 'array'),
  root_cause TEXT,
  resolution_notes TEXT,
  remediation_steps TEXT CONSTRAINT incidents_remediation_steps_type CHECK (json_type(remediation_steps) = 'array'),
  detected_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT incidents_detected_at_type CHECK (detected_at LIKE '____-__-__T__:__:__.______Z'),
  acknowledged_at TEXT CONSTRAINT incidents_acknowledged_at_type CHECK (acknowledged_at LIKE '____-__-__T__:__:__.______Z'),
  resolved_at TEXT CONSTRAINT incidents_resolved_at_type CHECK (resolved_at LIKE '____-__-__T__:__:__.______Z'),
  closed_at TEXT CONSTRAINT incidents_closed_at_type CHECK (closed_at LIKE '____-__-__T__:__:__.______Z'),
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT incidents_created_at_type CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT incidents_updated_at_type CHECK (updated_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT chk_incident_timing CHECK ((acknowledged_at IS NULL OR acknowledged_at >= detected_at) AND (resolved_at IS NULL OR resolved_at >= detected_at) AND (closed_at IS NULL OR closed_at >= coalesce(resolved_at, detected_at)))
) STRICT;

CREATE INDEX idx_incidents_severity ON incidents (severity) WHERE status NOT IN ('resolved', 'closed');

CREATE INDEX idx_incidents_status ON incidents (status);

CREATE INDEX idx_incidents_detected_at ON incidents (detected_at DESC);

CREATE INDEX idx_incidents_assigned_to ON incidents (assigned_to) WHERE assigned_to IS NOT NULL;

-- Incident response runbooks and playbooks
CREATE TABLE runbooks (
  id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 1, 8) || '-' || substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))) CONSTRAINT runbooks_id_type CHECK (length(id) = 36 AND id = lower(id)),
  name TEXT NOT NULL CONSTRAINT runbooks_name_type CHECK (length(name) <= 255),
  description TEXT,
  version INTEGER NOT NULL DEFAULT 1 CONSTRAINT runbooks_version_type CHECK (version BETWEEN -2147483648 AND 2147483647),
  trigger_conditions TEXT CONSTRAINT runbooks_trigger_conditions_type CHECK (json_valid(trigger_conditions)),
  steps TEXT NOT NULL CONSTRAINT runbooks_steps_type CHECK (json_valid(steps)),
  is_automated INTEGER DEFAULT 0 CONSTRAINT runbooks_is_automated_type CHECK (is_automated IN (0, 1)),
  automation_config TEXT CONSTRAINT runbooks_automation_config_type CHECK (json_valid(automation_config)),
  tags TEXT DEFAULT '[]' CONSTRAINT runbooks_tags_type CHECK (json_type(tags) = 'array'),
  owner_id TEXT REFERENCES users(id) ON DELETE SET NULL CONSTRAINT runbooks_owner_id_type CHECK (length(owner_id) = 36 AND owner_id = lower(owner_id)),
  execution_count INTEGER DEFAULT 0 CONSTRAINT runbooks_execution_count_type CHECK (execution_count BETWEEN -2147483648 AND 2147483647),
  success_count INTEGER DEFAULT 0 CONSTRAINT runbooks_success_count_type CHECK (success_count BETWEEN -2147483648 AND 2147483647),
  last_executed_at TEXT CONSTRAINT runbooks_last_executed_at_type CHECK (last_executed_at LIKE '____-__-__T__:__:__.______Z'),
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT runbooks_created_at_type CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT runbooks_updated_at_type CHECK (updated_at LIKE '____-__-__T__:__:__.______Z'),
  archived_at TEXT CONSTRAINT runbooks_archived_at_type CHECK (archived_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT runbooks_name_key UNIQUE (name)
) STRICT;

CREATE INDEX idx_runbooks_name ON runbooks (name) WHERE archived_at IS NULL;

CREATE INDEX idx_runbooks_automated ON runbooks (is_automated) WHERE is_automated = TRUE;

CREATE INDEX idx_runbooks_owner ON runbooks (owner_id) WHERE owner_id IS NOT NULL;

-- Runbook execution history and results
CREATE TABLE runbook_executions (
  id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 1, 8) || '-' || substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))) CONSTRAINT runbook_executions_id_type CHECK (length(id) = 36 AND id = lower(id)),
  runbook_id TEXT NOT NULL REFERENCES runbooks(id) ON DELETE CASCADE CONSTRAINT runbook_executions_runbook_id_type CHECK (length(runbook_id) = 36 AND runbook_id = lower(runbook_id)),
  incident_id TEXT REFERENCES incidents(id) ON DELETE SET NULL CONSTRAINT runbook_executions_incident_id_type CHECK (length(incident_id) = 36 AND incident_id = lower(incident_id)),
  executed_by TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE CONSTRAINT runbook_executions_executed_by_type CHECK (length(executed_by) = 36 AND executed_by = lower(executed_by)),
  status TEXT NOT NULL DEFAULT 'running' CONSTRAINT runbook_executions_status_type CHECK (status IN ('queued', 'running', 'success', 'failed', 'timeout', 'cancelled')),
  is_automated INTEGER DEFAULT 0 CONSTRAINT runbook_executions_is_automated_type CHECK (is_automated IN (0, 1)),
  current_step INTEGER CONSTRAINT runbook_executions_current_step_type CHECK (current_step BETWEEN -2147483648 AND 2147483647),
  completed_steps TEXT DEFAULT '[]' CONSTRAINT runbook_executions_completed_steps_type CHECK (json_type(completed_steps) = 'array'),
  step_results TEXT DEFAULT '[]' CONSTRAINT runbook_executions_step_results_type CHECK (json_valid(step_results)),
  success INTEGER CONSTRAINT runbook_executions_success_type CHECK (success IN (0, 1)),
  notes TEXT,
  started_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT runbook_executions_started_at_type CHECK (started_at LIKE '____-__-__T__:__:__.______Z'),
  completed_at TEXT CONSTRAINT runbook_executions_completed_at_type CHECK (completed_at LIKE '____-__-__T__:__:__.______Z')
) STRICT;

CREATE INDEX idx_runbook_executions_runbook ON runbook_executions (runbook_id);

CREATE INDEX idx_runbook_executions_incident ON runbook_executions (incident_id);

CREATE INDEX idx_runbook_executions_started_at ON runbook_executions (started_at DESC);

CREATE INDEX idx_runbook_executions_executed_by ON runbook_executions (executed_by);

-- Comprehensive audit trail with 1-year retention (partitioned monthly)
CREATE TABLE audit_logs (
  id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 1, 8) || '-' || substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))) CONSTRAINT audit_logs_id_type CHECK (length(id) = 36 AND id = lower(id)),
  user_id TEXT CONSTRAINT audit_logs_user_id_type CHECK (length(user_id) = 36 AND user_id = lower(user_id)),
  session_id TEXT CONSTRAINT audit_logs_session_id_type CHECK (length(session_id) = 36 AND session_id = lower(session_id)),
  action TEXT NOT NULL CONSTRAINT audit_logs_action_type CHECK (action IN ('create', 'read', 'update', 'delete', 'execute', 'login', 'logout')),
  resource_type TEXT NOT NULL CONSTRAINT audit_logs_resource_type_type CHECK (length(resource_type) <= 100),
  resource_id TEXT CONSTRAINT audit_logs_resource_id_type CHECK (length(resource_id) = 36 AND resource_id = lower(resource_id)),
  description TEXT,
  changes TEXT CONSTRAINT audit_logs_changes_type CHECK (json_valid(changes)),
  metadata TEXT DEFAULT '{}' CONSTRAINT audit_logs_metadata_type CHECK (json_valid(metadata)),
  ip_address TEXT,
  user_agent TEXT,
  success INTEGER NOT NULL DEFAULT 1 CONSTRAINT audit_logs_success_type CHECK (success IN (0, 1)),
  error_message TEXT,
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT audit_logs_created_at_type CHECK (created_at LIKE '____-__-__T__:__:__.______Z')
) STRICT;

CREATE INDEX idx_audit_logs_user_id ON audit_logs (user_id, created_at DESC);

CREATE INDEX idx_audit_logs_resource ON audit_logs (resource_type, resource_id, created_at DESC);

CREATE INDEX idx_audit_logs_action ON audit_logs (action, created_at DESC);

CREATE INDEX idx_audit_logs_created_at ON audit_logs (created_at DESC);

-- Vectors with their payload; the truth behind every vector index
CREATE TABLE embeddings (
  id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 1, 8) || '-' || substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))) CONSTRAINT embeddings_id_type CHECK (length(id) = 36 AND id = lower(id)),
  user_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE CONSTRAINT embeddings_user_id_type CHECK (length(user_id) = 36 AND user_id = lower(user_id)),
  collection TEXT NOT NULL CONSTRAINT embeddings_collection_type CHECK (length(collection) <= 64),
  model TEXT NOT NULL CONSTRAINT embeddings_model_type CHECK (length(model) <= 100),
  dimension INTEGER NOT NULL CONSTRAINT embeddings_dimension_type CHECK (dimension BETWEEN -2147483648 AND 2147483647),
  content_preview TEXT CONSTRAINT embeddings_content_preview_type CHECK (length(content_preview) <= 500),
  payload TEXT NOT NULL DEFAULT '{}' CONSTRAINT embeddings_payload_type CHECK (json_valid(payload)),
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT embeddings_created_at_type CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT embeddings_updated_at_type CHECK (updated_at LIKE '____-__-__T__:__:__.______Z'),
  content TEXT,
  vector BLOB NOT NULL,
  CONSTRAINT chk_embedding_collection CHECK (collection IN ('code_embeddings', 'documentation_embeddings', 'conversation_embeddings', 'incident_knowledge')),
  CONSTRAINT chk_embedding_dimension CHECK (dimension BETWEEN 1 AND 65535 AND length(vector) = dimension * 4)
) STRICT;

CREATE INDEX idx_embeddings_collection ON embeddings (collection, model);

CREATE INDEX idx_embeddings_user_id ON embeddings (user_id);

-- What agents did for their tasks, and how it was judged
CREATE TABLE memory_trajectories (
  id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 1, 8) || '-' || substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))) CONSTRAINT memory_trajectories_id_type CHECK (length(id) = 36 AND id = lower(id)),
  user_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE CONSTRAINT memory_trajectories_user_id_type CHECK (length(user_id) = 36 AND user_id = lower(user_id)),
  task_id TEXT NOT NULL CONSTRAINT memory_trajectories_task_id_type CHECK (length(task_id) <= 255),
  template_id TEXT CONSTRAINT memory_trajectories_template_id_type CHECK (length(template_id) <= 255),
  query TEXT NOT NULL,
  model TEXT CONSTRAINT memory_trajectories_model_type CHECK (length(model) <= 100),
  steps TEXT NOT NULL DEFAULT '[]' CONSTRAINT memory_trajectories_steps_type CHECK (json_valid(steps)),
  attempt_group TEXT CONSTRAINT memory_trajectories_attempt_group_type CHECK (length(attempt_group) = 36 AND attempt_group = lower(attempt_group)),
  outcome TEXT NOT NULL DEFAULT 'unknown' CONSTRAINT memory_trajectories_outcome_type CHECK (length(outcome) <= 20),
  judge TEXT CONSTRAINT memory_trajectories_judge_type CHECK (json_valid(judge)),
  expires_at TEXT CONSTRAINT memory_trajectories_expires_at_type CHECK (expires_at LIKE '____-__-__T__:__:__.______Z'),
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT memory_trajectories_created_at_type CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT memory_trajectories_updated_at_type CHECK (updated_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT chk_memory_outcome CHECK (outcome IN ('success', 'failure', 'impossible', 'unknown'))
) STRICT;

CREATE INDEX idx_memory_trajectories_user_id ON memory_trajectories (user_id);

CREATE INDEX idx_memory_trajectories_task ON memory_trajectories (task_id);

CREATE INDEX idx_memory_trajectories_attempts ON memory_trajectories (attempt_group) WHERE attempt_group IS NOT NULL;

CREATE INDEX idx_memory_trajectories_expires ON memory_trajectories (expires_at) WHERE expires_at IS NOT NULL;

-- Lessons distilled from trajectories, found by the embedding of their task
CREATE TABLE memory_items (
  id TEXT PRIMARY KEY NOT NULL DEFAULT (lower(substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 1, 8) || '-' || substr(printf('%012x', CAST(unixepoch('subsec') * 1000 AS INTEGER)), 9, 4) || '-7' || substr(hex(randomblob(2)), 2) || '-' || substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))) CONSTRAINT memory_items_id_type CHECK (length(id) = 36 AND id = lower(id)),
  user_id TEXT NOT NULL REFERENCES users(id) ON DELETE CASCADE CONSTRAINT memory_items_user_id_type CHECK (length(user_id) = 36 AND user_id = lower(user_id)),
  record_id TEXT NOT NULL CONSTRAINT memory_items_record_id_type CHECK (length(record_id) = 36 AND record_id = lower(record_id)),
  polarity TEXT NOT NULL CONSTRAINT memory_items_polarity_type CHECK (length(polarity) <= 20),
  task_id TEXT CONSTRAINT memory_items_task_id_type CHECK (length(task_id) <= 255),
  template_id TEXT CONSTRAINT memory_items_template_id_type CHECK (length(template_id) <= 255),
  trajectory_ids TEXT NOT NULL DEFAULT '[]' CONSTRAINT memory_items_trajectory_ids_type CHECK (json_type(trajectory_ids) = 'array'),
  provenance_hash TEXT CONSTRAINT memory_items_provenance_hash_type CHECK (length(provenance_hash) <= 64),
  title TEXT NOT NULL CONSTRAINT memory_items_title_type CHECK (length(title) <= 500),
  description TEXT NOT NULL,
  content TEXT NOT NULL,
  source_query TEXT NOT NULL,
  model TEXT NOT NULL CONSTRAINT memory_items_model_type CHECK (length(model) <= 100),
  dimension INTEGER NOT NULL CONSTRAINT memory_items_dimension_type CHECK (dimension BETWEEN -2147483648 AND 2147483647),
  query_vector BLOB NOT NULL,
  text_vector BLOB,
  retrieved_count INTEGER NOT NULL DEFAULT 0 CONSTRAINT memory_items_retrieved_count_type CHECK (retrieved_count BETWEEN -2147483648 AND 2147483647),
  used_count INTEGER NOT NULL DEFAULT 0 CONSTRAINT memory_items_used_count_type CHECK (used_count BETWEEN -2147483648 AND 2147483647),
  helped_count INTEGER NOT NULL DEFAULT 0 CONSTRAINT memory_items_helped_count_type CHECK (helped_count BETWEEN -2147483648 AND 2147483647),
  hurt_count INTEGER NOT NULL DEFAULT 0 CONSTRAINT memory_items_hurt_count_type CHECK (hurt_count BETWEEN -2147483648 AND 2147483647),
  last_used_at TEXT CONSTRAINT memory_items_last_used_at_type CHECK (last_used_at LIKE '____-__-__T__:__:__.______Z'),
  superseded_by TEXT REFERENCES memory_items(id) ON DELETE SET NULL CONSTRAINT memory_items_superseded_by_type CHECK (length(superseded_by) = 36 AND superseded_by = lower(superseded_by)),
  contradicts TEXT NOT NULL DEFAULT '[]' CONSTRAINT memory_items_contradicts_type CHECK (json_type(contradicts) = 'array'),
  kept_apart TEXT NOT NULL DEFAULT '[]' CONSTRAINT memory_items_kept_apart_type CHECK (json_type(kept_apart) = 'array'),
  expires_at TEXT CONSTRAINT memory_items_expires_at_type CHECK (expires_at LIKE '____-__-__T__:__:__.______Z'),
  created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT memory_items_created_at_type CHECK (created_at LIKE '____-__-__T__:__:__.______Z'),
  updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')) CONSTRAINT memory_items_updated_at_type CHECK (updated_at LIKE '____-__-__T__:__:__.______Z'),
  CONSTRAINT chk_memory_polarity CHECK (polarity IN ('success', 'failure', 'contrast')),
  CONSTRAINT chk_memory_vectors CHECK (dimension BETWEEN 1 AND 65535 AND length(query_vector) = dimension * 4 AND (text_vector IS NULL OR length(text_vector) = dimension * 4))
) STRICT;

CREATE INDEX idx_memory_items_user_id ON memory_items (user_id);

CREATE INDEX idx_memory_items_record ON memory_items (record_id);

CREATE INDEX idx_memory_items_superseded ON memory_items (superseded_by) WHERE superseded_by IS NOT NULL;

CREATE INDEX idx_memory_items_expires ON memory_items (expires_at) WHERE expires_at IS NOT NULL;

CREATE TRIGGER sync_log_open AFTER INSERT ON sync_log WHEN NOT EXISTS (SELECT 1 FROM sync_tx t WHERE t.seq = NEW.tx)
BEGIN
    INSERT INTO sync_tx (seq, id, clock, nonce, position, first_n)
    SELECT s.tx, lower(hex(randomblob(16))), max(s.clock + 1, CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
      s.nonce, s.position, NEW.n FROM sync_state s;
END;

CREATE TRIGGER users_guard_key BEFORE UPDATE OF id ON users WHEN OLD.id IS NOT NEW.id
BEGIN
    SELECT RAISE(ABORT, 'agentdb: users.id never changes');
END;

CREATE TRIGGER users_guard_stub_update BEFORE UPDATE ON users WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 1) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this users row is outside your scope');
END;

CREATE TRIGGER users_guard_insert BEFORE INSERT ON users WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: users is read-only for agents');
END;

CREATE TRIGGER users_guard_delete BEFORE DELETE ON users WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: users rows cannot be deleted by agents');
END;

CREATE TRIGGER users_guard_fixed BEFORE UPDATE OF email, username, role, status, mfa_enabled, last_login_at, created_at, deleted_at ON users WHEN (OLD.email IS NOT NEW.email OR OLD.username IS NOT NEW.username OR OLD.role IS NOT NEW.role OR OLD.status IS NOT NEW.status OR OLD.mfa_enabled IS NOT NEW.mfa_enabled OR OLD.last_login_at IS NOT NEW.last_login_at OR OLD.created_at IS NOT NEW.created_at OR OLD.deleted_at IS NOT NEW.deleted_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: users: agents cannot change email, username, role, status, mfa_enabled, last_login_at, created_at, deleted_at');
END;

CREATE TRIGGER users_capture_insert AFTER INSERT ON users WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 1, NEW.id, 'insert', json_object('id', NEW.id, 'email', NEW.email, 'username', NEW.username, 'full_name', NEW.full_name, 'role', NEW.role, 'status', NEW.status, 'avatar_url', NEW.avatar_url, 'timezone', NEW.timezone, 'preferences', NEW.preferences, 'mfa_enabled', NEW.mfa_enabled, 'last_login_at', NEW.last_login_at, 'created_at', NEW.created_at, 'deleted_at', NEW.deleted_at), NULL, 1, NULL);
END;

CREATE TRIGGER users_capture_base BEFORE UPDATE ON users WHEN (SELECT applying FROM sync_state) = 0 AND NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 1)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 1) AND (OLD.id IS NOT NEW.id OR OLD.email IS NOT NEW.email OR OLD.username IS NOT NEW.username OR OLD.full_name IS NOT NEW.full_name OR OLD.role IS NOT NEW.role OR OLD.status IS NOT NEW.status OR OLD.avatar_url IS NOT NEW.avatar_url OR OLD.timezone IS NOT NEW.timezone OR OLD.preferences IS NOT NEW.preferences OR OLD.mfa_enabled IS NOT NEW.mfa_enabled OR OLD.last_login_at IS NOT NEW.last_login_at OR OLD.created_at IS NOT NEW.created_at OR OLD.updated_at IS NOT NEW.updated_at OR OLD.deleted_at IS NOT NEW.deleted_at)
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 1, json_object('id', OLD.id, 'email', OLD.email, 'username', OLD.username, 'full_name', OLD.full_name, 'role', OLD.role, 'status', OLD.status, 'avatar_url', OLD.avatar_url, 'timezone', OLD.timezone, 'preferences', OLD.preferences, 'mfa_enabled', OLD.mfa_enabled, 'last_login_at', OLD.last_login_at, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at, 'deleted_at', OLD.deleted_at);
END;

CREATE TRIGGER users_capture_update AFTER UPDATE OF email, username, full_name, role, status, avatar_url, timezone, preferences, mfa_enabled, last_login_at, created_at, deleted_at ON users WHEN (OLD.email IS NOT NEW.email OR OLD.username IS NOT NEW.username OR OLD.full_name IS NOT NEW.full_name OR OLD.role IS NOT NEW.role OR OLD.status IS NOT NEW.status OR OLD.avatar_url IS NOT NEW.avatar_url OR OLD.timezone IS NOT NEW.timezone OR OLD.preferences IS NOT NEW.preferences OR OLD.mfa_enabled IS NOT NEW.mfa_enabled OR OLD.last_login_at IS NOT NEW.last_login_at OR OLD.created_at IS NOT NEW.created_at OR OLD.deleted_at IS NOT NEW.deleted_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 1, NEW.id, 'update', '{' || substr(CASE WHEN OLD.email IS NOT NEW.email THEN ',"email":' || json_quote(NEW.email) ELSE '' END
      || CASE WHEN OLD.username IS NOT NEW.username THEN ',"username":' || json_quote(NEW.username) ELSE '' END
      || CASE WHEN OLD.full_name IS NOT NEW.full_name THEN ',"full_name":' || json_quote(NEW.full_name) ELSE '' END
      || CASE WHEN OLD.role IS NOT NEW.role THEN ',"role":' || json_quote(NEW.role) ELSE '' END
      || CASE WHEN OLD.status IS NOT NEW.status THEN ',"status":' || json_quote(NEW.status) ELSE '' END
      || CASE WHEN OLD.avatar_url IS NOT NEW.avatar_url THEN ',"avatar_url":' || json_quote(NEW.avatar_url) ELSE '' END
      || CASE WHEN OLD.timezone IS NOT NEW.timezone THEN ',"timezone":' || json_quote(NEW.timezone) ELSE '' END
      || CASE WHEN OLD.preferences IS NOT NEW.preferences THEN ',"preferences":' || json_quote(NEW.preferences) ELSE '' END
      || CASE WHEN OLD.mfa_enabled IS NOT NEW.mfa_enabled THEN ',"mfa_enabled":' || json_quote(NEW.mfa_enabled) ELSE '' END
      || CASE WHEN OLD.last_login_at IS NOT NEW.last_login_at THEN ',"last_login_at":' || json_quote(NEW.last_login_at) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(NEW.created_at) ELSE '' END
      || CASE WHEN OLD.deleted_at IS NOT NEW.deleted_at THEN ',"deleted_at":' || json_quote(NEW.deleted_at) ELSE '' END, 2) || '}', '{' || substr(CASE WHEN OLD.email IS NOT NEW.email THEN ',"email":' || json_quote(OLD.email) ELSE '' END
      || CASE WHEN OLD.username IS NOT NEW.username THEN ',"username":' || json_quote(OLD.username) ELSE '' END
      || CASE WHEN OLD.full_name IS NOT NEW.full_name THEN ',"full_name":' || json_quote(OLD.full_name) ELSE '' END
      || CASE WHEN OLD.role IS NOT NEW.role THEN ',"role":' || json_quote(OLD.role) ELSE '' END
      || CASE WHEN OLD.status IS NOT NEW.status THEN ',"status":' || json_quote(OLD.status) ELSE '' END
      || CASE WHEN OLD.avatar_url IS NOT NEW.avatar_url THEN ',"avatar_url":' || json_quote(OLD.avatar_url) ELSE '' END
      || CASE WHEN OLD.timezone IS NOT NEW.timezone THEN ',"timezone":' || json_quote(OLD.timezone) ELSE '' END
      || CASE WHEN OLD.preferences IS NOT NEW.preferences THEN ',"preferences":' || json_quote(OLD.preferences) ELSE '' END
      || CASE WHEN OLD.mfa_enabled IS NOT NEW.mfa_enabled THEN ',"mfa_enabled":' || json_quote(OLD.mfa_enabled) ELSE '' END
      || CASE WHEN OLD.last_login_at IS NOT NEW.last_login_at THEN ',"last_login_at":' || json_quote(OLD.last_login_at) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(OLD.created_at) ELSE '' END
      || CASE WHEN OLD.deleted_at IS NOT NEW.deleted_at THEN ',"deleted_at":' || json_quote(OLD.deleted_at) ELSE '' END, 2) || '}', 1, NULL);
END;

CREATE TRIGGER users_capture_delete AFTER DELETE ON users WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 1, json_object('id', OLD.id, 'email', OLD.email, 'username', OLD.username, 'full_name', OLD.full_name, 'role', OLD.role, 'status', OLD.status, 'avatar_url', OLD.avatar_url, 'timezone', OLD.timezone, 'preferences', OLD.preferences, 'mfa_enabled', OLD.mfa_enabled, 'last_login_at', OLD.last_login_at, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at, 'deleted_at', OLD.deleted_at) WHERE NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 1)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 1);
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 1, OLD.id, 'delete', NULL, NULL, 1, NULL);
END;

CREATE TRIGGER update_users_updated_at AFTER UPDATE OF id, email, username, full_name, role, status, avatar_url, timezone, preferences, mfa_enabled, last_login_at, created_at, deleted_at ON users WHEN NEW.updated_at IS OLD.updated_at AND (SELECT applying FROM sync_state) = 0 AND NEW.updated_at IS NOT strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') AND (OLD.id IS NOT NEW.id OR OLD.email IS NOT NEW.email OR OLD.username IS NOT NEW.username OR OLD.full_name IS NOT NEW.full_name OR OLD.role IS NOT NEW.role OR OLD.status IS NOT NEW.status OR OLD.avatar_url IS NOT NEW.avatar_url OR OLD.timezone IS NOT NEW.timezone OR OLD.preferences IS NOT NEW.preferences OR OLD.mfa_enabled IS NOT NEW.mfa_enabled OR OLD.last_login_at IS NOT NEW.last_login_at OR OLD.created_at IS NOT NEW.created_at OR OLD.deleted_at IS NOT NEW.deleted_at)
BEGIN
    UPDATE users SET updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER sessions_guard_key BEFORE UPDATE OF id ON sessions WHEN OLD.id IS NOT NEW.id
BEGIN
    SELECT RAISE(ABORT, 'agentdb: sessions.id never changes');
END;

CREATE TRIGGER sessions_guard_stub_update BEFORE UPDATE ON sessions WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 2) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this sessions row is outside your scope');
END;

CREATE TRIGGER sessions_guard_insert BEFORE INSERT ON sessions WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: sessions is read-only for agents');
END;

CREATE TRIGGER sessions_guard_delete BEFORE DELETE ON sessions WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: sessions rows cannot be deleted by agents');
END;

CREATE TRIGGER sessions_guard_fixed BEFORE UPDATE OF user_id, status, ip_address, user_agent, device_fingerprint, context, created_at, last_activity_at, expires_at, terminated_at ON sessions WHEN (OLD.user_id IS NOT NEW.user_id OR OLD.status IS NOT NEW.status OR OLD.ip_address IS NOT NEW.ip_address OR OLD.user_agent IS NOT NEW.user_agent OR OLD.device_fingerprint IS NOT NEW.device_fingerprint OR OLD.context IS NOT NEW.context OR OLD.created_at IS NOT NEW.created_at OR OLD.last_activity_at IS NOT NEW.last_activity_at OR OLD.expires_at IS NOT NEW.expires_at OR OLD.terminated_at IS NOT NEW.terminated_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: sessions: agents cannot change user_id, status, ip_address, user_agent, device_fingerprint, context, created_at, last_activity_at, expires_at, terminated_at');
END;

CREATE TRIGGER conversations_guard_key BEFORE UPDATE OF id ON conversations WHEN OLD.id IS NOT NEW.id
BEGIN
    SELECT RAISE(ABORT, 'agentdb: conversations.id never changes');
END;

CREATE TRIGGER conversations_guard_stub_update BEFORE UPDATE ON conversations WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 3) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this conversations row is outside your scope');
END;

CREATE TRIGGER conversations_guard_stub_delete BEFORE DELETE ON conversations WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 3) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this conversations row is outside your scope');
END;

CREATE TRIGGER conversations_guard_fixed BEFORE UPDATE OF user_id, created_at ON conversations WHEN (OLD.user_id IS NOT NEW.user_id OR OLD.created_at IS NOT NEW.created_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: conversations: agents cannot change user_id, created_at');
END;

CREATE TRIGGER conversations_capture_insert AFTER INSERT ON conversations WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 3, NEW.id, 'insert', json_object('id', NEW.id, 'session_id', NEW.session_id, 'user_id', NEW.user_id, 'title', NEW.title, 'description', NEW.description, 'tags', NEW.tags, 'context_snapshot', NEW.context_snapshot, 'system_prompt', NEW.system_prompt, 'model_config', NEW.model_config, 'total_cost_cents', NEW.total_cost_cents, 'started_at', NEW.started_at, 'ended_at', NEW.ended_at, 'created_at', NEW.created_at, 'archived_at', NEW.archived_at), NULL, 1, NULL);
END;

CREATE TRIGGER conversations_capture_base BEFORE UPDATE ON conversations WHEN (SELECT applying FROM sync_state) = 0 AND NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 3)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 3) AND (OLD.id IS NOT NEW.id OR OLD.session_id IS NOT NEW.session_id OR OLD.user_id IS NOT NEW.user_id OR OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.tags IS NOT NEW.tags OR OLD.context_snapshot IS NOT NEW.context_snapshot OR OLD.system_prompt IS NOT NEW.system_prompt OR OLD.model_config IS NOT NEW.model_config OR OLD.message_count IS NOT NEW.message_count OR OLD.total_tokens IS NOT NEW.total_tokens OR OLD.total_cost_cents IS NOT NEW.total_cost_cents OR OLD.started_at IS NOT NEW.started_at OR OLD.last_message_at IS NOT NEW.last_message_at OR OLD.ended_at IS NOT NEW.ended_at OR OLD.created_at IS NOT NEW.created_at OR OLD.updated_at IS NOT NEW.updated_at OR OLD.archived_at IS NOT NEW.archived_at)
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 3, json_object('id', OLD.id, 'session_id', OLD.session_id, 'user_id', OLD.user_id, 'title', OLD.title, 'description', OLD.description, 'tags', OLD.tags, 'context_snapshot', OLD.context_snapshot, 'system_prompt', OLD.system_prompt, 'model_config', OLD.model_config, 'message_count', OLD.message_count, 'total_tokens', OLD.total_tokens, 'total_cost_cents', OLD.total_cost_cents, 'started_at', OLD.started_at, 'last_message_at', OLD.last_message_at, 'ended_at', OLD.ended_at, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at, 'archived_at', OLD.archived_at);
END;

CREATE TRIGGER conversations_capture_update AFTER UPDATE OF session_id, user_id, title, description, tags, context_snapshot, system_prompt, model_config, total_cost_cents, started_at, ended_at, created_at, archived_at ON conversations WHEN (OLD.session_id IS NOT NEW.session_id OR OLD.user_id IS NOT NEW.user_id OR OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.tags IS NOT NEW.tags OR OLD.context_snapshot IS NOT NEW.context_snapshot OR OLD.system_prompt IS NOT NEW.system_prompt OR OLD.model_config IS NOT NEW.model_config OR OLD.total_cost_cents IS NOT NEW.total_cost_cents OR OLD.started_at IS NOT NEW.started_at OR OLD.ended_at IS NOT NEW.ended_at OR OLD.created_at IS NOT NEW.created_at OR OLD.archived_at IS NOT NEW.archived_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 3, NEW.id, 'update', '{' || substr(CASE WHEN OLD.session_id IS NOT NEW.session_id THEN ',"session_id":' || json_quote(NEW.session_id) ELSE '' END
      || CASE WHEN OLD.user_id IS NOT NEW.user_id THEN ',"user_id":' || json_quote(NEW.user_id) ELSE '' END
      || CASE WHEN OLD.title IS NOT NEW.title THEN ',"title":' || json_quote(NEW.title) ELSE '' END
      || CASE WHEN OLD.description IS NOT NEW.description THEN ',"description":' || json_quote(NEW.description) ELSE '' END
      || CASE WHEN OLD.tags IS NOT NEW.tags THEN ',"tags":' || json_quote(NEW.tags) ELSE '' END
      || CASE WHEN OLD.context_snapshot IS NOT NEW.context_snapshot THEN ',"context_snapshot":' || json_quote(NEW.context_snapshot) ELSE '' END
      || CASE WHEN OLD.system_prompt IS NOT NEW.system_prompt THEN ',"system_prompt":' || json_quote(NEW.system_prompt) ELSE '' END
      || CASE WHEN OLD.model_config IS NOT NEW.model_config THEN ',"model_config":' || json_quote(NEW.model_config) ELSE '' END
      || CASE WHEN OLD.total_cost_cents IS NOT NEW.total_cost_cents THEN ',"total_cost_cents":' || json_quote(NEW.total_cost_cents) ELSE '' END
      || CASE WHEN OLD.started_at IS NOT NEW.started_at THEN ',"started_at":' || json_quote(NEW.started_at) ELSE '' END
      || CASE WHEN OLD.ended_at IS NOT NEW.ended_at THEN ',"ended_at":' || json_quote(NEW.ended_at) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(NEW.created_at) ELSE '' END
      || CASE WHEN OLD.archived_at IS NOT NEW.archived_at THEN ',"archived_at":' || json_quote(NEW.archived_at) ELSE '' END, 2) || '}', '{' || substr(CASE WHEN OLD.session_id IS NOT NEW.session_id THEN ',"session_id":' || json_quote(OLD.session_id) ELSE '' END
      || CASE WHEN OLD.user_id IS NOT NEW.user_id THEN ',"user_id":' || json_quote(OLD.user_id) ELSE '' END
      || CASE WHEN OLD.title IS NOT NEW.title THEN ',"title":' || json_quote(OLD.title) ELSE '' END
      || CASE WHEN OLD.description IS NOT NEW.description THEN ',"description":' || json_quote(OLD.description) ELSE '' END
      || CASE WHEN OLD.tags IS NOT NEW.tags THEN ',"tags":' || json_quote(OLD.tags) ELSE '' END
      || CASE WHEN OLD.context_snapshot IS NOT NEW.context_snapshot THEN ',"context_snapshot":' || json_quote(OLD.context_snapshot) ELSE '' END
      || CASE WHEN OLD.system_prompt IS NOT NEW.system_prompt THEN ',"system_prompt":' || json_quote(OLD.system_prompt) ELSE '' END
      || CASE WHEN OLD.model_config IS NOT NEW.model_config THEN ',"model_config":' || json_quote(OLD.model_config) ELSE '' END
      || CASE WHEN OLD.total_cost_cents IS NOT NEW.total_cost_cents THEN ',"total_cost_cents":' || json_quote(OLD.total_cost_cents) ELSE '' END
      || CASE WHEN OLD.started_at IS NOT NEW.started_at THEN ',"started_at":' || json_quote(OLD.started_at) ELSE '' END
      || CASE WHEN OLD.ended_at IS NOT NEW.ended_at THEN ',"ended_at":' || json_quote(OLD.ended_at) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(OLD.created_at) ELSE '' END
      || CASE WHEN OLD.archived_at IS NOT NEW.archived_at THEN ',"archived_at":' || json_quote(OLD.archived_at) ELSE '' END, 2) || '}', NOT ((NEW.session_id IS NULL AND OLD.session_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM sessions p WHERE p.id = OLD.session_id))), NULL);
END;

CREATE TRIGGER conversations_capture_delete AFTER DELETE ON conversations WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 3, json_object('id', OLD.id, 'session_id', OLD.session_id, 'user_id', OLD.user_id, 'title', OLD.title, 'description', OLD.description, 'tags', OLD.tags, 'context_snapshot', OLD.context_snapshot, 'system_prompt', OLD.system_prompt, 'model_config', OLD.model_config, 'message_count', OLD.message_count, 'total_tokens', OLD.total_tokens, 'total_cost_cents', OLD.total_cost_cents, 'started_at', OLD.started_at, 'last_message_at', OLD.last_message_at, 'ended_at', OLD.ended_at, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at, 'archived_at', OLD.archived_at) WHERE NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 3)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 3);
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 3, OLD.id, 'delete', NULL, NULL, NOT ((OLD.user_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM users p WHERE p.id = OLD.user_id))), NULL);
END;

CREATE TRIGGER update_conversations_updated_at AFTER UPDATE OF id, session_id, user_id, title, description, tags, context_snapshot, system_prompt, model_config, message_count, total_tokens, total_cost_cents, started_at, last_message_at, ended_at, created_at, archived_at ON conversations WHEN NEW.updated_at IS OLD.updated_at AND (SELECT applying FROM sync_state) = 0 AND NEW.updated_at IS NOT strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') AND (OLD.id IS NOT NEW.id OR OLD.session_id IS NOT NEW.session_id OR OLD.user_id IS NOT NEW.user_id OR OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.tags IS NOT NEW.tags OR OLD.context_snapshot IS NOT NEW.context_snapshot OR OLD.system_prompt IS NOT NEW.system_prompt OR OLD.model_config IS NOT NEW.model_config OR OLD.message_count IS NOT NEW.message_count OR OLD.total_tokens IS NOT NEW.total_tokens OR OLD.total_cost_cents IS NOT NEW.total_cost_cents OR OLD.started_at IS NOT NEW.started_at OR OLD.last_message_at IS NOT NEW.last_message_at OR OLD.ended_at IS NOT NEW.ended_at OR OLD.created_at IS NOT NEW.created_at OR OLD.archived_at IS NOT NEW.archived_at)
BEGIN
    UPDATE conversations SET updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER messages_guard_key BEFORE UPDATE OF id ON messages WHEN OLD.id IS NOT NEW.id
BEGIN
    SELECT RAISE(ABORT, 'agentdb: messages.id never changes');
END;

CREATE TRIGGER messages_guard_stub_update BEFORE UPDATE ON messages WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 4) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this messages row is outside your scope');
END;

CREATE TRIGGER messages_guard_stub_delete BEFORE DELETE ON messages WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 4) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this messages row is outside your scope');
END;

CREATE TRIGGER messages_guard_fixed BEFORE UPDATE OF conversation_id, role, content, content_type, model, tokens_used, latency_ms, tool_calls, tool_results, parent_message_id, sequence_number, created_at ON messages WHEN (OLD.conversation_id IS NOT NEW.conversation_id OR OLD.role IS NOT NEW.role OR OLD.content IS NOT NEW.content OR OLD.content_type IS NOT NEW.content_type OR OLD.model IS NOT NEW.model OR OLD.tokens_used IS NOT NEW.tokens_used OR OLD.latency_ms IS NOT NEW.latency_ms OR OLD.tool_calls IS NOT NEW.tool_calls OR OLD.tool_results IS NOT NEW.tool_results OR (OLD.parent_message_id IS NOT NEW.parent_message_id AND NEW.parent_message_id IS NOT NULL) OR OLD.sequence_number IS NOT NEW.sequence_number OR OLD.created_at IS NOT NEW.created_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: messages: agents cannot change conversation_id, role, content, content_type, model, tokens_used, latency_ms, tool_calls, tool_results, parent_message_id, sequence_number, created_at');
END;

CREATE TRIGGER messages_capture_insert AFTER INSERT ON messages WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, ref, size)
    VALUES ((SELECT tx FROM sync_state), 4, NEW.id, 'insert', NEW.conversation_id, 179 + octet_length(NEW.role) + octet_length(NEW.content) + ifnull(octet_length(NEW.content_type), 0) + ifnull(octet_length(NEW.model), 0) + ifnull(octet_length(NEW.tool_calls), 0) + ifnull(octet_length(NEW.tool_results), 0) + ifnull(octet_length(NEW.feedback_comment), 0));
END;

CREATE TRIGGER messages_capture_image_of_updated BEFORE UPDATE OF id, conversation_id, role, content, content_type, model, tokens_used, latency_ms, tool_calls, tool_results, parent_message_id, sequence_number, feedback_rating, feedback_comment, created_at ON messages WHEN EXISTS (SELECT 1 FROM sync_log WHERE id = OLD.id AND tbl = 4 AND op = 'insert' AND patch IS NULL)
BEGIN
    UPDATE sync_log SET patch = json_object('id', OLD.id, 'conversation_id', OLD.conversation_id, 'role', OLD.role, 'content', OLD.content, 'content_type', OLD.content_type, 'model', OLD.model, 'tokens_used', OLD.tokens_used, 'latency_ms', OLD.latency_ms, 'tool_calls', OLD.tool_calls, 'tool_results', OLD.tool_results, 'parent_message_id', OLD.parent_message_id, 'sequence_number', OLD.sequence_number, 'feedback_rating', OLD.feedback_rating, 'feedback_comment', OLD.feedback_comment, 'created_at', OLD.created_at) WHERE id = OLD.id AND tbl = 4 AND op = 'insert' AND patch IS NULL;
END;

CREATE TRIGGER messages_capture_image_of_deleted BEFORE DELETE ON messages WHEN EXISTS (SELECT 1 FROM sync_log WHERE id = OLD.id AND tbl = 4 AND op = 'insert' AND patch IS NULL)
BEGIN
    UPDATE sync_log SET patch = json_object('id', OLD.id, 'conversation_id', OLD.conversation_id, 'role', OLD.role, 'content', OLD.content, 'content_type', OLD.content_type, 'model', OLD.model, 'tokens_used', OLD.tokens_used, 'latency_ms', OLD.latency_ms, 'tool_calls', OLD.tool_calls, 'tool_results', OLD.tool_results, 'parent_message_id', OLD.parent_message_id, 'sequence_number', OLD.sequence_number, 'feedback_rating', OLD.feedback_rating, 'feedback_comment', OLD.feedback_comment, 'created_at', OLD.created_at) WHERE id = OLD.id AND tbl = 4 AND op = 'insert' AND patch IS NULL;
END;

CREATE TRIGGER messages_capture_base BEFORE UPDATE ON messages WHEN (SELECT applying FROM sync_state) = 0 AND NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 4)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 4) AND (OLD.id IS NOT NEW.id OR OLD.conversation_id IS NOT NEW.conversation_id OR OLD.role IS NOT NEW.role OR OLD.content IS NOT NEW.content OR OLD.content_type IS NOT NEW.content_type OR OLD.model IS NOT NEW.model OR OLD.tokens_used IS NOT NEW.tokens_used OR OLD.latency_ms IS NOT NEW.latency_ms OR OLD.tool_calls IS NOT NEW.tool_calls OR OLD.tool_results IS NOT NEW.tool_results OR OLD.parent_message_id IS NOT NEW.parent_message_id OR OLD.sequence_number IS NOT NEW.sequence_number OR OLD.feedback_rating IS NOT NEW.feedback_rating OR OLD.feedback_comment IS NOT NEW.feedback_comment OR OLD.created_at IS NOT NEW.created_at)
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 4, json_object('id', OLD.id, 'conversation_id', OLD.conversation_id, 'role', OLD.role, 'content', OLD.content, 'content_type', OLD.content_type, 'model', OLD.model, 'tokens_used', OLD.tokens_used, 'latency_ms', OLD.latency_ms, 'tool_calls', OLD.tool_calls, 'tool_results', OLD.tool_results, 'parent_message_id', OLD.parent_message_id, 'sequence_number', OLD.sequence_number, 'feedback_rating', OLD.feedback_rating, 'feedback_comment', OLD.feedback_comment, 'created_at', OLD.created_at);
END;

CREATE TRIGGER messages_capture_update AFTER UPDATE OF conversation_id, role, content, content_type, model, tokens_used, latency_ms, tool_calls, tool_results, parent_message_id, sequence_number, feedback_rating, feedback_comment, created_at ON messages WHEN (OLD.conversation_id IS NOT NEW.conversation_id OR OLD.role IS NOT NEW.role OR OLD.content IS NOT NEW.content OR OLD.content_type IS NOT NEW.content_type OR OLD.model IS NOT NEW.model OR OLD.tokens_used IS NOT NEW.tokens_used OR OLD.latency_ms IS NOT NEW.latency_ms OR OLD.tool_calls IS NOT NEW.tool_calls OR OLD.tool_results IS NOT NEW.tool_results OR OLD.parent_message_id IS NOT NEW.parent_message_id OR OLD.sequence_number IS NOT NEW.sequence_number OR OLD.feedback_rating IS NOT NEW.feedback_rating OR OLD.feedback_comment IS NOT NEW.feedback_comment OR OLD.created_at IS NOT NEW.created_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 4, NEW.id, 'update', '{' || substr(CASE WHEN OLD.conversation_id IS NOT NEW.conversation_id THEN ',"conversation_id":' || json_quote(NEW.conversation_id) ELSE '' END
      || CASE WHEN OLD.role IS NOT NEW.role THEN ',"role":' || json_quote(NEW.role) ELSE '' END
      || CASE WHEN OLD.content IS NOT NEW.content THEN ',"content":' || json_quote(NEW.content) ELSE '' END
      || CASE WHEN OLD.content_type IS NOT NEW.content_type THEN ',"content_type":' || json_quote(NEW.content_type) ELSE '' END
      || CASE WHEN OLD.model IS NOT NEW.model THEN ',"model":' || json_quote(NEW.model) ELSE '' END
      || CASE WHEN OLD.tokens_used IS NOT NEW.tokens_used THEN ',"tokens_used":' || json_quote(NEW.tokens_used) ELSE '' END
      || CASE WHEN OLD.latency_ms IS NOT NEW.latency_ms THEN ',"latency_ms":' || json_quote(NEW.latency_ms) ELSE '' END
      || CASE WHEN OLD.tool_calls IS NOT NEW.tool_calls THEN ',"tool_calls":' || json_quote(NEW.tool_calls) ELSE '' END
      || CASE WHEN OLD.tool_results IS NOT NEW.tool_results THEN ',"tool_results":' || json_quote(NEW.tool_results) ELSE '' END
      || CASE WHEN OLD.parent_message_id IS NOT NEW.parent_message_id THEN ',"parent_message_id":' || json_quote(NEW.parent_message_id) ELSE '' END
      || CASE WHEN OLD.sequence_number IS NOT NEW.sequence_number THEN ',"sequence_number":' || json_quote(NEW.sequence_number) ELSE '' END
      || CASE WHEN (OLD.feedback_rating IS NOT NEW.feedback_rating OR OLD.feedback_comment IS NOT NEW.feedback_comment) THEN ',"feedback_rating":' || json_quote(NEW.feedback_rating) ELSE '' END
      || CASE WHEN (OLD.feedback_rating IS NOT NEW.feedback_rating OR OLD.feedback_comment IS NOT NEW.feedback_comment) THEN ',"feedback_comment":' || json_quote(NEW.feedback_comment) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(NEW.created_at) ELSE '' END, 2) || '}', '{' || substr(CASE WHEN OLD.conversation_id IS NOT NEW.conversation_id THEN ',"conversation_id":' || json_quote(OLD.conversation_id) ELSE '' END
      || CASE WHEN OLD.role IS NOT NEW.role THEN ',"role":' || json_quote(OLD.role) ELSE '' END
      || CASE WHEN OLD.content IS NOT NEW.content THEN ',"content":' || json_quote(OLD.content) ELSE '' END
      || CASE WHEN OLD.content_type IS NOT NEW.content_type THEN ',"content_type":' || json_quote(OLD.content_type) ELSE '' END
      || CASE WHEN OLD.model IS NOT NEW.model THEN ',"model":' || json_quote(OLD.model) ELSE '' END
      || CASE WHEN OLD.tokens_used IS NOT NEW.tokens_used THEN ',"tokens_used":' || json_quote(OLD.tokens_used) ELSE '' END
      || CASE WHEN OLD.latency_ms IS NOT NEW.latency_ms THEN ',"latency_ms":' || json_quote(OLD.latency_ms) ELSE '' END
      || CASE WHEN OLD.tool_calls IS NOT NEW.tool_calls THEN ',"tool_calls":' || json_quote(OLD.tool_calls) ELSE '' END
      || CASE WHEN OLD.tool_results IS NOT NEW.tool_results THEN ',"tool_results":' || json_quote(OLD.tool_results) ELSE '' END
      || CASE WHEN OLD.parent_message_id IS NOT NEW.parent_message_id THEN ',"parent_message_id":' || json_quote(OLD.parent_message_id) ELSE '' END
      || CASE WHEN OLD.sequence_number IS NOT NEW.sequence_number THEN ',"sequence_number":' || json_quote(OLD.sequence_number) ELSE '' END
      || CASE WHEN (OLD.feedback_rating IS NOT NEW.feedback_rating OR OLD.feedback_comment IS NOT NEW.feedback_comment) THEN ',"feedback_rating":' || json_quote(OLD.feedback_rating) ELSE '' END
      || CASE WHEN (OLD.feedback_rating IS NOT NEW.feedback_rating OR OLD.feedback_comment IS NOT NEW.feedback_comment) THEN ',"feedback_comment":' || json_quote(OLD.feedback_comment) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(OLD.created_at) ELSE '' END, 2) || '}', NOT ((NEW.parent_message_id IS NULL AND OLD.parent_message_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM messages p WHERE p.id = OLD.parent_message_id))), NEW.conversation_id);
END;

CREATE TRIGGER messages_capture_delete AFTER DELETE ON messages WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 4, json_object('id', OLD.id, 'conversation_id', OLD.conversation_id, 'role', OLD.role, 'content', OLD.content, 'content_type', OLD.content_type, 'model', OLD.model, 'tokens_used', OLD.tokens_used, 'latency_ms', OLD.latency_ms, 'tool_calls', OLD.tool_calls, 'tool_results', OLD.tool_results, 'parent_message_id', OLD.parent_message_id, 'sequence_number', OLD.sequence_number, 'feedback_rating', OLD.feedback_rating, 'feedback_comment', OLD.feedback_comment, 'created_at', OLD.created_at) WHERE NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 4)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 4);
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 4, OLD.id, 'delete', NULL, json_object('tokens_used', OLD.tokens_used), NOT ((OLD.conversation_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM conversations p WHERE p.id = OLD.conversation_id))), OLD.conversation_id);
END;

CREATE TRIGGER update_conversation_stats_on_message AFTER INSERT ON messages WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    UPDATE conversations SET
      message_count = coalesce(message_count, 0) + 1,
      total_tokens = coalesce(total_tokens, 0) + coalesce(NEW.tokens_used, 0),
      last_message_at = max(coalesce(last_message_at, NEW.created_at), NEW.created_at),
      updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
    WHERE id = NEW.conversation_id;
END;

CREATE TRIGGER update_conversation_stats_on_message_delete AFTER DELETE ON messages WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    UPDATE conversations SET
      message_count = coalesce(message_count, 0) - 1,
      total_tokens = coalesce(total_tokens, 0) - coalesce(OLD.tokens_used, 0),
      updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
    WHERE id = OLD.conversation_id;
END;

CREATE TRIGGER workflows_guard_key BEFORE UPDATE OF id ON workflows WHEN OLD.id IS NOT NEW.id
BEGIN
    SELECT RAISE(ABORT, 'agentdb: workflows.id never changes');
END;

CREATE TRIGGER workflows_guard_stub_update BEFORE UPDATE ON workflows WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 5) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this workflows row is outside your scope');
END;

CREATE TRIGGER workflows_guard_stub_delete BEFORE DELETE ON workflows WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 5) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this workflows row is outside your scope');
END;

CREATE TRIGGER workflows_guard_fixed BEFORE UPDATE OF user_id, created_at ON workflows WHEN (OLD.user_id IS NOT NEW.user_id OR OLD.created_at IS NOT NEW.created_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: workflows: agents cannot change user_id, created_at');
END;

CREATE TRIGGER workflows_capture_insert AFTER INSERT ON workflows WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 5, NEW.id, 'insert', json_object('id', NEW.id, 'user_id', NEW.user_id, 'name', NEW.name, 'description', NEW.description, 'version', NEW.version, 'definition', NEW.definition, 'parameters', NEW.parameters, 'environment_vars', NEW.environment_vars, 'triggers', NEW.triggers, 'tags', NEW.tags, 'is_active', NEW.is_active, 'is_template', NEW.is_template, 'created_at', NEW.created_at, 'deleted_at', NEW.deleted_at), NULL, 1, NULL);
END;

CREATE TRIGGER workflows_capture_base BEFORE UPDATE ON workflows WHEN (SELECT applying FROM sync_state) = 0 AND NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 5)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 5) AND (OLD.id IS NOT NEW.id OR OLD.user_id IS NOT NEW.user_id OR OLD.name IS NOT NEW.name OR OLD.description IS NOT NEW.description OR OLD.version IS NOT NEW.version OR OLD.definition IS NOT NEW.definition OR OLD.parameters IS NOT NEW.parameters OR OLD.environment_vars IS NOT NEW.environment_vars OR OLD.triggers IS NOT NEW.triggers OR OLD.tags IS NOT NEW.tags OR OLD.is_active IS NOT NEW.is_active OR OLD.is_template IS NOT NEW.is_template OR OLD.created_at IS NOT NEW.created_at OR OLD.updated_at IS NOT NEW.updated_at OR OLD.deleted_at IS NOT NEW.deleted_at)
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 5, json_object('id', OLD.id, 'user_id', OLD.user_id, 'name', OLD.name, 'description', OLD.description, 'version', OLD.version, 'definition', OLD.definition, 'parameters', OLD.parameters, 'environment_vars', OLD.environment_vars, 'triggers', OLD.triggers, 'tags', OLD.tags, 'is_active', OLD.is_active, 'is_template', OLD.is_template, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at, 'deleted_at', OLD.deleted_at);
END;

CREATE TRIGGER workflows_capture_update AFTER UPDATE OF user_id, name, description, version, definition, parameters, environment_vars, triggers, tags, is_active, is_template, created_at, deleted_at ON workflows WHEN (OLD.user_id IS NOT NEW.user_id OR OLD.name IS NOT NEW.name OR OLD.description IS NOT NEW.description OR OLD.version IS NOT NEW.version OR OLD.definition IS NOT NEW.definition OR OLD.parameters IS NOT NEW.parameters OR OLD.environment_vars IS NOT NEW.environment_vars OR OLD.triggers IS NOT NEW.triggers OR OLD.tags IS NOT NEW.tags OR OLD.is_active IS NOT NEW.is_active OR OLD.is_template IS NOT NEW.is_template OR OLD.created_at IS NOT NEW.created_at OR OLD.deleted_at IS NOT NEW.deleted_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 5, NEW.id, 'update', '{' || substr(CASE WHEN OLD.user_id IS NOT NEW.user_id THEN ',"user_id":' || json_quote(NEW.user_id) ELSE '' END
      || CASE WHEN OLD.name IS NOT NEW.name THEN ',"name":' || json_quote(NEW.name) ELSE '' END
      || CASE WHEN OLD.description IS NOT NEW.description THEN ',"description":' || json_quote(NEW.description) ELSE '' END
      || CASE WHEN (OLD.definition IS NOT NEW.definition OR OLD.version IS NOT NEW.version) THEN ',"version":' || json_quote(NEW.version) ELSE '' END
      || CASE WHEN (OLD.definition IS NOT NEW.definition OR OLD.version IS NOT NEW.version) AND NOT (OLD.definition IS NEW.definition AND (NEW.definition IS '{"$agentdb":"value cannot be represented here"}') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 5 AND instr(p.columns, '"definition"') > 0)) THEN ',"definition":' || json_quote(NEW.definition) ELSE '' END
      || CASE WHEN OLD.parameters IS NOT NEW.parameters THEN ',"parameters":' || json_quote(NEW.parameters) ELSE '' END
      || CASE WHEN OLD.environment_vars IS NOT NEW.environment_vars THEN ',"environment_vars":' || json_quote(NEW.environment_vars) ELSE '' END
      || CASE WHEN OLD.triggers IS NOT NEW.triggers THEN ',"triggers":' || json_quote(NEW.triggers) ELSE '' END
      || CASE WHEN OLD.tags IS NOT NEW.tags THEN ',"tags":' || json_quote(NEW.tags) ELSE '' END
      || CASE WHEN OLD.is_active IS NOT NEW.is_active THEN ',"is_active":' || json_quote(NEW.is_active) ELSE '' END
      || CASE WHEN OLD.is_template IS NOT NEW.is_template THEN ',"is_template":' || json_quote(NEW.is_template) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(NEW.created_at) ELSE '' END
      || CASE WHEN OLD.deleted_at IS NOT NEW.deleted_at THEN ',"deleted_at":' || json_quote(NEW.deleted_at) ELSE '' END, 2) || '}', '{' || substr(CASE WHEN OLD.user_id IS NOT NEW.user_id THEN ',"user_id":' || json_quote(OLD.user_id) ELSE '' END
      || CASE WHEN OLD.name IS NOT NEW.name THEN ',"name":' || json_quote(OLD.name) ELSE '' END
      || CASE WHEN OLD.description IS NOT NEW.description THEN ',"description":' || json_quote(OLD.description) ELSE '' END
      || CASE WHEN (OLD.definition IS NOT NEW.definition OR OLD.version IS NOT NEW.version) THEN ',"version":' || json_quote(OLD.version) ELSE '' END
      || CASE WHEN (OLD.definition IS NOT NEW.definition OR OLD.version IS NOT NEW.version) AND NOT (OLD.definition IS NEW.definition AND (NEW.definition IS '{"$agentdb":"value cannot be represented here"}') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 5 AND instr(p.columns, '"definition"') > 0)) THEN ',"definition":' || json_quote(OLD.definition) ELSE '' END
      || CASE WHEN OLD.parameters IS NOT NEW.parameters THEN ',"parameters":' || json_quote(OLD.parameters) ELSE '' END
      || CASE WHEN OLD.environment_vars IS NOT NEW.environment_vars THEN ',"environment_vars":' || json_quote(OLD.environment_vars) ELSE '' END
      || CASE WHEN OLD.triggers IS NOT NEW.triggers THEN ',"triggers":' || json_quote(OLD.triggers) ELSE '' END
      || CASE WHEN OLD.tags IS NOT NEW.tags THEN ',"tags":' || json_quote(OLD.tags) ELSE '' END
      || CASE WHEN OLD.is_active IS NOT NEW.is_active THEN ',"is_active":' || json_quote(OLD.is_active) ELSE '' END
      || CASE WHEN OLD.is_template IS NOT NEW.is_template THEN ',"is_template":' || json_quote(OLD.is_template) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(OLD.created_at) ELSE '' END
      || CASE WHEN OLD.deleted_at IS NOT NEW.deleted_at THEN ',"deleted_at":' || json_quote(OLD.deleted_at) ELSE '' END, 2) || '}', 1, NULL);
END;

CREATE TRIGGER workflows_capture_delete AFTER DELETE ON workflows WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 5, json_object('id', OLD.id, 'user_id', OLD.user_id, 'name', OLD.name, 'description', OLD.description, 'version', OLD.version, 'definition', OLD.definition, 'parameters', OLD.parameters, 'environment_vars', OLD.environment_vars, 'triggers', OLD.triggers, 'tags', OLD.tags, 'is_active', OLD.is_active, 'is_template', OLD.is_template, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at, 'deleted_at', OLD.deleted_at) WHERE NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 5)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 5);
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 5, OLD.id, 'delete', NULL, NULL, NOT ((OLD.user_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM users p WHERE p.id = OLD.user_id))), NULL);
END;

CREATE TRIGGER update_workflows_updated_at AFTER UPDATE OF id, user_id, name, description, version, definition, parameters, environment_vars, triggers, tags, is_active, is_template, created_at, deleted_at ON workflows WHEN NEW.updated_at IS OLD.updated_at AND (SELECT applying FROM sync_state) = 0 AND NEW.updated_at IS NOT strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') AND (OLD.id IS NOT NEW.id OR OLD.user_id IS NOT NEW.user_id OR OLD.name IS NOT NEW.name OR OLD.description IS NOT NEW.description OR OLD.version IS NOT NEW.version OR OLD.definition IS NOT NEW.definition OR OLD.parameters IS NOT NEW.parameters OR OLD.environment_vars IS NOT NEW.environment_vars OR OLD.triggers IS NOT NEW.triggers OR OLD.tags IS NOT NEW.tags OR OLD.is_active IS NOT NEW.is_active OR OLD.is_template IS NOT NEW.is_template OR OLD.created_at IS NOT NEW.created_at OR OLD.deleted_at IS NOT NEW.deleted_at)
BEGIN
    UPDATE workflows SET updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER workflow_executions_guard_key BEFORE UPDATE OF id ON workflow_executions WHEN OLD.id IS NOT NEW.id
BEGIN
    SELECT RAISE(ABORT, 'agentdb: workflow_executions.id never changes');
END;

CREATE TRIGGER workflow_executions_guard_stub_update BEFORE UPDATE ON workflow_executions WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 6) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this workflow_executions row is outside your scope');
END;

CREATE TRIGGER workflow_executions_guard_stub_delete BEFORE DELETE ON workflow_executions WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 6) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this workflow_executions row is outside your scope');
END;

CREATE TRIGGER workflow_executions_guard_fixed BEFORE UPDATE OF workflow_id, user_id ON workflow_executions WHEN (OLD.workflow_id IS NOT NEW.workflow_id OR OLD.user_id IS NOT NEW.user_id) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: workflow_executions: agents cannot change workflow_id, user_id');
END;

CREATE TRIGGER workflow_executions_capture_insert AFTER INSERT ON workflow_executions WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 6, NEW.id, 'insert', json_object('id', NEW.id, 'workflow_id', NEW.workflow_id, 'user_id', NEW.user_id, 'status', NEW.status, 'parameters', NEW.parameters, 'environment', NEW.environment, 'trigger_type', NEW.trigger_type, 'trigger_source', NEW.trigger_source, 'current_step', NEW.current_step, 'completed_steps', NEW.completed_steps, 'failed_steps', NEW.failed_steps, 'outputs', NEW.outputs, 'error_message', NEW.error_message, 'error_stack', NEW.error_stack, 'total_duration_ms', NEW.total_duration_ms, 'steps_executed', NEW.steps_executed, 'queued_at', NEW.queued_at, 'started_at', NEW.started_at, 'completed_at', NEW.completed_at, 'cancelled_at', NEW.cancelled_at), NULL, 1, NULL);
END;

CREATE TRIGGER workflow_executions_capture_base BEFORE UPDATE ON workflow_executions WHEN (SELECT applying FROM sync_state) = 0 AND NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 6)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 6) AND (OLD.id IS NOT NEW.id OR OLD.workflow_id IS NOT NEW.workflow_id OR OLD.user_id IS NOT NEW.user_id OR OLD.status IS NOT NEW.status OR OLD.parameters IS NOT NEW.parameters OR OLD.environment IS NOT NEW.environment OR OLD.trigger_type IS NOT NEW.trigger_type OR OLD.trigger_source IS NOT NEW.trigger_source OR OLD.current_step IS NOT NEW.current_step OR OLD.completed_steps IS NOT NEW.completed_steps OR OLD.failed_steps IS NOT NEW.failed_steps OR OLD.outputs IS NOT NEW.outputs OR OLD.error_message IS NOT NEW.error_message OR OLD.error_stack IS NOT NEW.error_stack OR OLD.total_duration_ms IS NOT NEW.total_duration_ms OR OLD.steps_executed IS NOT NEW.steps_executed OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at OR OLD.cancelled_at IS NOT NEW.cancelled_at)
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 6, json_object('id', OLD.id, 'workflow_id', OLD.workflow_id, 'user_id', OLD.user_id, 'status', OLD.status, 'parameters', OLD.parameters, 'environment', OLD.environment, 'trigger_type', OLD.trigger_type, 'trigger_source', OLD.trigger_source, 'current_step', OLD.current_step, 'completed_steps', OLD.completed_steps, 'failed_steps', OLD.failed_steps, 'outputs', OLD.outputs, 'error_message', OLD.error_message, 'error_stack', OLD.error_stack, 'total_duration_ms', OLD.total_duration_ms, 'steps_executed', OLD.steps_executed, 'queued_at', OLD.queued_at, 'started_at', OLD.started_at, 'completed_at', OLD.completed_at, 'cancelled_at', OLD.cancelled_at);
END;

CREATE TRIGGER workflow_executions_capture_update AFTER UPDATE OF workflow_id, user_id, status, parameters, environment, trigger_type, trigger_source, current_step, completed_steps, failed_steps, outputs, error_message, error_stack, total_duration_ms, steps_executed, queued_at, started_at, completed_at, cancelled_at ON workflow_executions WHEN (OLD.workflow_id IS NOT NEW.workflow_id OR OLD.user_id IS NOT NEW.user_id OR OLD.status IS NOT NEW.status OR OLD.parameters IS NOT NEW.parameters OR OLD.environment IS NOT NEW.environment OR OLD.trigger_type IS NOT NEW.trigger_type OR OLD.trigger_source IS NOT NEW.trigger_source OR OLD.current_step IS NOT NEW.current_step OR OLD.completed_steps IS NOT NEW.completed_steps OR OLD.failed_steps IS NOT NEW.failed_steps OR OLD.outputs IS NOT NEW.outputs OR OLD.error_message IS NOT NEW.error_message OR OLD.error_stack IS NOT NEW.error_stack OR OLD.total_duration_ms IS NOT NEW.total_duration_ms OR OLD.steps_executed IS NOT NEW.steps_executed OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at OR OLD.cancelled_at IS NOT NEW.cancelled_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 6, NEW.id, 'update', '{' || substr(CASE WHEN OLD.workflow_id IS NOT NEW.workflow_id THEN ',"workflow_id":' || json_quote(NEW.workflow_id) ELSE '' END
      || CASE WHEN OLD.user_id IS NOT NEW.user_id THEN ',"user_id":' || json_quote(NEW.user_id) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at OR OLD.cancelled_at IS NOT NEW.cancelled_at) THEN ',"status":' || json_quote(NEW.status) ELSE '' END
      || CASE WHEN OLD.parameters IS NOT NEW.parameters THEN ',"parameters":' || json_quote(NEW.parameters) ELSE '' END
      || CASE WHEN OLD.environment IS NOT NEW.environment THEN ',"environment":' || json_quote(NEW.environment) ELSE '' END
      || CASE WHEN OLD.trigger_type IS NOT NEW.trigger_type THEN ',"trigger_type":' || json_quote(NEW.trigger_type) ELSE '' END
      || CASE WHEN OLD.trigger_source IS NOT NEW.trigger_source THEN ',"trigger_source":' || json_quote(NEW.trigger_source) ELSE '' END
      || CASE WHEN OLD.current_step IS NOT NEW.current_step THEN ',"current_step":' || json_quote(NEW.current_step) ELSE '' END
      || CASE WHEN OLD.completed_steps IS NOT NEW.completed_steps THEN ',"completed_steps":' || json_quote(NEW.completed_steps) ELSE '' END
      || CASE WHEN OLD.failed_steps IS NOT NEW.failed_steps THEN ',"failed_steps":' || json_quote(NEW.failed_steps) ELSE '' END
      || CASE WHEN OLD.outputs IS NOT NEW.outputs THEN ',"outputs":' || json_quote(NEW.outputs) ELSE '' END
      || CASE WHEN OLD.error_message IS NOT NEW.error_message THEN ',"error_message":' || json_quote(NEW.error_message) ELSE '' END
      || CASE WHEN OLD.error_stack IS NOT NEW.error_stack THEN ',"error_stack":' || json_quote(NEW.error_stack) ELSE '' END
      || CASE WHEN OLD.total_duration_ms IS NOT NEW.total_duration_ms THEN ',"total_duration_ms":' || json_quote(NEW.total_duration_ms) ELSE '' END
      || CASE WHEN OLD.steps_executed IS NOT NEW.steps_executed THEN ',"steps_executed":' || json_quote(NEW.steps_executed) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at OR OLD.cancelled_at IS NOT NEW.cancelled_at) AND NOT (OLD.queued_at IS NEW.queued_at AND (NEW.queued_at IS '0001-01-01T00:00:00.000000Z' OR NEW.queued_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 6 AND instr(p.columns, '"queued_at"') > 0)) THEN ',"queued_at":' || json_quote(NEW.queued_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at OR OLD.cancelled_at IS NOT NEW.cancelled_at) AND NOT (OLD.started_at IS NEW.started_at AND (NEW.started_at IS '0001-01-01T00:00:00.000000Z' OR NEW.started_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 6 AND instr(p.columns, '"started_at"') > 0)) THEN ',"started_at":' || json_quote(NEW.started_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at OR OLD.cancelled_at IS NOT NEW.cancelled_at) AND NOT (OLD.completed_at IS NEW.completed_at AND (NEW.completed_at IS '0001-01-01T00:00:00.000000Z' OR NEW.completed_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 6 AND instr(p.columns, '"completed_at"') > 0)) THEN ',"completed_at":' || json_quote(NEW.completed_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at OR OLD.cancelled_at IS NOT NEW.cancelled_at) AND NOT (OLD.cancelled_at IS NEW.cancelled_at AND (NEW.cancelled_at IS '0001-01-01T00:00:00.000000Z' OR NEW.cancelled_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 6 AND instr(p.columns, '"cancelled_at"') > 0)) THEN ',"cancelled_at":' || json_quote(NEW.cancelled_at) ELSE '' END, 2) || '}', '{' || substr(CASE WHEN OLD.workflow_id IS NOT NEW.workflow_id THEN ',"workflow_id":' || json_quote(OLD.workflow_id) ELSE '' END
      || CASE WHEN OLD.user_id IS NOT NEW.user_id THEN ',"user_id":' || json_quote(OLD.user_id) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at OR OLD.cancelled_at IS NOT NEW.cancelled_at) THEN ',"status":' || json_quote(OLD.status) ELSE '' END
      || CASE WHEN OLD.parameters IS NOT NEW.parameters THEN ',"parameters":' || json_quote(OLD.parameters) ELSE '' END
      || CASE WHEN OLD.environment IS NOT NEW.environment THEN ',"environment":' || json_quote(OLD.environment) ELSE '' END
      || CASE WHEN OLD.trigger_type IS NOT NEW.trigger_type THEN ',"trigger_type":' || json_quote(OLD.trigger_type) ELSE '' END
      || CASE WHEN OLD.trigger_source IS NOT NEW.trigger_source THEN ',"trigger_source":' || json_quote(OLD.trigger_source) ELSE '' END
      || CASE WHEN OLD.current_step IS NOT NEW.current_step THEN ',"current_step":' || json_quote(OLD.current_step) ELSE '' END
      || CASE WHEN OLD.completed_steps IS NOT NEW.completed_steps THEN ',"completed_steps":' || json_quote(OLD.completed_steps) ELSE '' END
      || CASE WHEN OLD.failed_steps IS NOT NEW.failed_steps THEN ',"failed_steps":' || json_quote(OLD.failed_steps) ELSE '' END
      || CASE WHEN OLD.outputs IS NOT NEW.outputs THEN ',"outputs":' || json_quote(OLD.outputs) ELSE '' END
      || CASE WHEN OLD.error_message IS NOT NEW.error_message THEN ',"error_message":' || json_quote(OLD.error_message) ELSE '' END
      || CASE WHEN OLD.error_stack IS NOT NEW.error_stack THEN ',"error_stack":' || json_quote(OLD.error_stack) ELSE '' END
      || CASE WHEN OLD.total_duration_ms IS NOT NEW.total_duration_ms THEN ',"total_duration_ms":' || json_quote(OLD.total_duration_ms) ELSE '' END
      || CASE WHEN OLD.steps_executed IS NOT NEW.steps_executed THEN ',"steps_executed":' || json_quote(OLD.steps_executed) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at OR OLD.cancelled_at IS NOT NEW.cancelled_at) AND NOT (OLD.queued_at IS NEW.queued_at AND (NEW.queued_at IS '0001-01-01T00:00:00.000000Z' OR NEW.queued_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 6 AND instr(p.columns, '"queued_at"') > 0)) THEN ',"queued_at":' || json_quote(OLD.queued_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at OR OLD.cancelled_at IS NOT NEW.cancelled_at) AND NOT (OLD.started_at IS NEW.started_at AND (NEW.started_at IS '0001-01-01T00:00:00.000000Z' OR NEW.started_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 6 AND instr(p.columns, '"started_at"') > 0)) THEN ',"started_at":' || json_quote(OLD.started_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at OR OLD.cancelled_at IS NOT NEW.cancelled_at) AND NOT (OLD.completed_at IS NEW.completed_at AND (NEW.completed_at IS '0001-01-01T00:00:00.000000Z' OR NEW.completed_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 6 AND instr(p.columns, '"completed_at"') > 0)) THEN ',"completed_at":' || json_quote(OLD.completed_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at OR OLD.cancelled_at IS NOT NEW.cancelled_at) AND NOT (OLD.cancelled_at IS NEW.cancelled_at AND (NEW.cancelled_at IS '0001-01-01T00:00:00.000000Z' OR NEW.cancelled_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 6 AND instr(p.columns, '"cancelled_at"') > 0)) THEN ',"cancelled_at":' || json_quote(OLD.cancelled_at) ELSE '' END, 2) || '}', 1, NULL);
END;

CREATE TRIGGER workflow_executions_capture_delete AFTER DELETE ON workflow_executions WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 6, json_object('id', OLD.id, 'workflow_id', OLD.workflow_id, 'user_id', OLD.user_id, 'status', OLD.status, 'parameters', OLD.parameters, 'environment', OLD.environment, 'trigger_type', OLD.trigger_type, 'trigger_source', OLD.trigger_source, 'current_step', OLD.current_step, 'completed_steps', OLD.completed_steps, 'failed_steps', OLD.failed_steps, 'outputs', OLD.outputs, 'error_message', OLD.error_message, 'error_stack', OLD.error_stack, 'total_duration_ms', OLD.total_duration_ms, 'steps_executed', OLD.steps_executed, 'queued_at', OLD.queued_at, 'started_at', OLD.started_at, 'completed_at', OLD.completed_at, 'cancelled_at', OLD.cancelled_at) WHERE NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 6)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 6);
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 6, OLD.id, 'delete', NULL, NULL, NOT ((OLD.workflow_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM workflows p WHERE p.id = OLD.workflow_id)) OR (OLD.user_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM users p WHERE p.id = OLD.user_id))), NULL);
END;

CREATE TRIGGER step_executions_guard_key BEFORE UPDATE OF id ON step_executions WHEN OLD.id IS NOT NEW.id
BEGIN
    SELECT RAISE(ABORT, 'agentdb: step_executions.id never changes');
END;

CREATE TRIGGER step_executions_guard_stub_update BEFORE UPDATE ON step_executions WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 7) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this step_executions row is outside your scope');
END;

CREATE TRIGGER step_executions_guard_stub_delete BEFORE DELETE ON step_executions WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 7) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this step_executions row is outside your scope');
END;

CREATE TRIGGER step_executions_guard_fixed BEFORE UPDATE OF workflow_execution_id ON step_executions WHEN (OLD.workflow_execution_id IS NOT NEW.workflow_execution_id) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: step_executions: agents cannot change workflow_execution_id');
END;

CREATE TRIGGER step_executions_capture_insert AFTER INSERT ON step_executions WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 7, NEW.id, 'insert', json_object('id', NEW.id, 'workflow_execution_id', NEW.workflow_execution_id, 'step_id', NEW.step_id, 'step_name', NEW.step_name, 'step_type', NEW.step_type, 'status', NEW.status, 'inputs', NEW.inputs, 'outputs', NEW.outputs, 'retry_count', NEW.retry_count, 'max_retries', NEW.max_retries, 'error_message', NEW.error_message, 'duration_ms', NEW.duration_ms, 'queued_at', NEW.queued_at, 'started_at', NEW.started_at, 'completed_at', NEW.completed_at), NULL, 1, NULL);
END;

CREATE TRIGGER step_executions_capture_base BEFORE UPDATE ON step_executions WHEN (SELECT applying FROM sync_state) = 0 AND NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 7)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 7) AND (OLD.id IS NOT NEW.id OR OLD.workflow_execution_id IS NOT NEW.workflow_execution_id OR OLD.step_id IS NOT NEW.step_id OR OLD.step_name IS NOT NEW.step_name OR OLD.step_type IS NOT NEW.step_type OR OLD.status IS NOT NEW.status OR OLD.inputs IS NOT NEW.inputs OR OLD.outputs IS NOT NEW.outputs OR OLD.retry_count IS NOT NEW.retry_count OR OLD.max_retries IS NOT NEW.max_retries OR OLD.error_message IS NOT NEW.error_message OR OLD.duration_ms IS NOT NEW.duration_ms OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at)
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 7, json_object('id', OLD.id, 'workflow_execution_id', OLD.workflow_execution_id, 'step_id', OLD.step_id, 'step_name', OLD.step_name, 'step_type', OLD.step_type, 'status', OLD.status, 'inputs', OLD.inputs, 'outputs', OLD.outputs, 'retry_count', OLD.retry_count, 'max_retries', OLD.max_retries, 'error_message', OLD.error_message, 'duration_ms', OLD.duration_ms, 'queued_at', OLD.queued_at, 'started_at', OLD.started_at, 'completed_at', OLD.completed_at);
END;

CREATE TRIGGER step_executions_capture_update AFTER UPDATE OF workflow_execution_id, step_id, step_name, step_type, status, inputs, outputs, retry_count, max_retries, error_message, duration_ms, queued_at, started_at, completed_at ON step_executions WHEN (OLD.workflow_execution_id IS NOT NEW.workflow_execution_id OR OLD.step_id IS NOT NEW.step_id OR OLD.step_name IS NOT NEW.step_name OR OLD.step_type IS NOT NEW.step_type OR OLD.status IS NOT NEW.status OR OLD.inputs IS NOT NEW.inputs OR OLD.outputs IS NOT NEW.outputs OR OLD.retry_count IS NOT NEW.retry_count OR OLD.max_retries IS NOT NEW.max_retries OR OLD.error_message IS NOT NEW.error_message OR OLD.duration_ms IS NOT NEW.duration_ms OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 7, NEW.id, 'update', '{' || substr(CASE WHEN OLD.workflow_execution_id IS NOT NEW.workflow_execution_id THEN ',"workflow_execution_id":' || json_quote(NEW.workflow_execution_id) ELSE '' END
      || CASE WHEN OLD.step_id IS NOT NEW.step_id THEN ',"step_id":' || json_quote(NEW.step_id) ELSE '' END
      || CASE WHEN OLD.step_name IS NOT NEW.step_name THEN ',"step_name":' || json_quote(NEW.step_name) ELSE '' END
      || CASE WHEN OLD.step_type IS NOT NEW.step_type THEN ',"step_type":' || json_quote(NEW.step_type) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) THEN ',"status":' || json_quote(NEW.status) ELSE '' END
      || CASE WHEN OLD.inputs IS NOT NEW.inputs THEN ',"inputs":' || json_quote(NEW.inputs) ELSE '' END
      || CASE WHEN OLD.outputs IS NOT NEW.outputs THEN ',"outputs":' || json_quote(NEW.outputs) ELSE '' END
      || CASE WHEN OLD.retry_count IS NOT NEW.retry_count THEN ',"retry_count":' || json_quote(NEW.retry_count) ELSE '' END
      || CASE WHEN OLD.max_retries IS NOT NEW.max_retries THEN ',"max_retries":' || json_quote(NEW.max_retries) ELSE '' END
      || CASE WHEN OLD.error_message IS NOT NEW.error_message THEN ',"error_message":' || json_quote(NEW.error_message) ELSE '' END
      || CASE WHEN OLD.duration_ms IS NOT NEW.duration_ms THEN ',"duration_ms":' || json_quote(NEW.duration_ms) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) AND NOT (OLD.queued_at IS NEW.queued_at AND (NEW.queued_at IS '0001-01-01T00:00:00.000000Z' OR NEW.queued_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 7 AND instr(p.columns, '"queued_at"') > 0)) THEN ',"queued_at":' || json_quote(NEW.queued_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) AND NOT (OLD.started_at IS NEW.started_at AND (NEW.started_at IS '0001-01-01T00:00:00.000000Z' OR NEW.started_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 7 AND instr(p.columns, '"started_at"') > 0)) THEN ',"started_at":' || json_quote(NEW.started_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) AND NOT (OLD.completed_at IS NEW.completed_at AND (NEW.completed_at IS '0001-01-01T00:00:00.000000Z' OR NEW.completed_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 7 AND instr(p.columns, '"completed_at"') > 0)) THEN ',"completed_at":' || json_quote(NEW.completed_at) ELSE '' END, 2) || '}', '{' || substr(CASE WHEN OLD.workflow_execution_id IS NOT NEW.workflow_execution_id THEN ',"workflow_execution_id":' || json_quote(OLD.workflow_execution_id) ELSE '' END
      || CASE WHEN OLD.step_id IS NOT NEW.step_id THEN ',"step_id":' || json_quote(OLD.step_id) ELSE '' END
      || CASE WHEN OLD.step_name IS NOT NEW.step_name THEN ',"step_name":' || json_quote(OLD.step_name) ELSE '' END
      || CASE WHEN OLD.step_type IS NOT NEW.step_type THEN ',"step_type":' || json_quote(OLD.step_type) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) THEN ',"status":' || json_quote(OLD.status) ELSE '' END
      || CASE WHEN OLD.inputs IS NOT NEW.inputs THEN ',"inputs":' || json_quote(OLD.inputs) ELSE '' END
      || CASE WHEN OLD.outputs IS NOT NEW.outputs THEN ',"outputs":' || json_quote(OLD.outputs) ELSE '' END
      || CASE WHEN OLD.retry_count IS NOT NEW.retry_count THEN ',"retry_count":' || json_quote(OLD.retry_count) ELSE '' END
      || CASE WHEN OLD.max_retries IS NOT NEW.max_retries THEN ',"max_retries":' || json_quote(OLD.max_retries) ELSE '' END
      || CASE WHEN OLD.error_message IS NOT NEW.error_message THEN ',"error_message":' || json_quote(OLD.error_message) ELSE '' END
      || CASE WHEN OLD.duration_ms IS NOT NEW.duration_ms THEN ',"duration_ms":' || json_quote(OLD.duration_ms) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) AND NOT (OLD.queued_at IS NEW.queued_at AND (NEW.queued_at IS '0001-01-01T00:00:00.000000Z' OR NEW.queued_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 7 AND instr(p.columns, '"queued_at"') > 0)) THEN ',"queued_at":' || json_quote(OLD.queued_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) AND NOT (OLD.started_at IS NEW.started_at AND (NEW.started_at IS '0001-01-01T00:00:00.000000Z' OR NEW.started_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 7 AND instr(p.columns, '"started_at"') > 0)) THEN ',"started_at":' || json_quote(OLD.started_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.queued_at IS NOT NEW.queued_at OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) AND NOT (OLD.completed_at IS NEW.completed_at AND (NEW.completed_at IS '0001-01-01T00:00:00.000000Z' OR NEW.completed_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 7 AND instr(p.columns, '"completed_at"') > 0)) THEN ',"completed_at":' || json_quote(OLD.completed_at) ELSE '' END, 2) || '}', 1, NULL);
END;

CREATE TRIGGER step_executions_capture_delete AFTER DELETE ON step_executions WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 7, json_object('id', OLD.id, 'workflow_execution_id', OLD.workflow_execution_id, 'step_id', OLD.step_id, 'step_name', OLD.step_name, 'step_type', OLD.step_type, 'status', OLD.status, 'inputs', OLD.inputs, 'outputs', OLD.outputs, 'retry_count', OLD.retry_count, 'max_retries', OLD.max_retries, 'error_message', OLD.error_message, 'duration_ms', OLD.duration_ms, 'queued_at', OLD.queued_at, 'started_at', OLD.started_at, 'completed_at', OLD.completed_at) WHERE NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 7)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 7);
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 7, OLD.id, 'delete', NULL, NULL, NOT ((OLD.workflow_execution_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM workflow_executions p WHERE p.id = OLD.workflow_execution_id))), NULL);
END;

CREATE TRIGGER incidents_guard_key BEFORE UPDATE OF id ON incidents WHEN OLD.id IS NOT NEW.id
BEGIN
    SELECT RAISE(ABORT, 'agentdb: incidents.id never changes');
END;

CREATE TRIGGER incidents_guard_stub_update BEFORE UPDATE ON incidents WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 8) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this incidents row is outside your scope');
END;

CREATE TRIGGER incidents_guard_stub_delete BEFORE DELETE ON incidents WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 8) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this incidents row is outside your scope');
END;

CREATE TRIGGER incidents_guard_fixed BEFORE UPDATE OF created_at ON incidents WHEN (OLD.created_at IS NOT NEW.created_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: incidents: agents cannot change created_at');
END;

CREATE TRIGGER incidents_capture_insert AFTER INSERT ON incidents WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 8, NEW.id, 'insert', json_object('id', NEW.id, 'title', NEW.title, 'description', NEW.description, 'severity', NEW.severity, 'status', NEW.status, 'source', NEW.source, 'detection_method', NEW.detection_method, 'affected_services', NEW.affected_services, 'affected_users_count', NEW.affected_users_count, 'blast_radius', NEW.blast_radius, 'assigned_to', NEW.assigned_to, 'assigned_team', NEW.assigned_team, 'metadata', NEW.metadata, 'related_incidents', NEW.related_incidents, 'root_cause', NEW.root_cause, 'resolution_notes', NEW.resolution_notes, 'remediation_steps', NEW.remediation_steps, 'detected_at', NEW.detected_at, 'acknowledged_at', NEW.acknowledged_at, 'resolved_at', NEW.resolved_at, 'closed_at', NEW.closed_at, 'created_at', NEW.created_at), NULL, 1, NULL);
END;

CREATE TRIGGER incidents_capture_base BEFORE UPDATE ON incidents WHEN (SELECT applying FROM sync_state) = 0 AND NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 8)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 8) AND (OLD.id IS NOT NEW.id OR OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.severity IS NOT NEW.severity OR OLD.status IS NOT NEW.status OR OLD.source IS NOT NEW.source OR OLD.detection_method IS NOT NEW.detection_method OR OLD.affected_services IS NOT NEW.affected_services OR OLD.affected_users_count IS NOT NEW.affected_users_count OR OLD.blast_radius IS NOT NEW.blast_radius OR OLD.assigned_to IS NOT NEW.assigned_to OR OLD.assigned_team IS NOT NEW.assigned_team OR OLD.metadata IS NOT NEW.metadata OR OLD.related_incidents IS NOT NEW.related_incidents OR OLD.root_cause IS NOT NEW.root_cause OR OLD.resolution_notes IS NOT NEW.resolution_notes OR OLD.remediation_steps IS NOT NEW.remediation_steps OR OLD.detected_at IS NOT NEW.detected_at OR OLD.acknowledged_at IS NOT NEW.acknowledged_at OR OLD.resolved_at IS NOT NEW.resolved_at OR OLD.closed_at IS NOT NEW.closed_at OR OLD.created_at IS NOT NEW.created_at OR OLD.updated_at IS NOT NEW.updated_at)
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 8, json_object('id', OLD.id, 'title', OLD.title, 'description', OLD.description, 'severity', OLD.severity, 'status', OLD.status, 'source', OLD.source, 'detection_method', OLD.detection_method, 'affected_services', OLD.affected_services, 'affected_users_count', OLD.affected_users_count, 'blast_radius', OLD.blast_radius, 'assigned_to', OLD.assigned_to, 'assigned_team', OLD.assigned_team, 'metadata', OLD.metadata, 'related_incidents', OLD.related_incidents, 'root_cause', OLD.root_cause, 'resolution_notes', OLD.resolution_notes, 'remediation_steps', OLD.remediation_steps, 'detected_at', OLD.detected_at, 'acknowledged_at', OLD.acknowledged_at, 'resolved_at', OLD.resolved_at, 'closed_at', OLD.closed_at, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at);
END;

CREATE TRIGGER incidents_capture_update AFTER UPDATE OF title, description, severity, status, source, detection_method, affected_services, affected_users_count, blast_radius, assigned_to, assigned_team, metadata, related_incidents, root_cause, resolution_notes, remediation_steps, detected_at, acknowledged_at, resolved_at, closed_at, created_at ON incidents WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.severity IS NOT NEW.severity OR OLD.status IS NOT NEW.status OR OLD.source IS NOT NEW.source OR OLD.detection_method IS NOT NEW.detection_method OR OLD.affected_services IS NOT NEW.affected_services OR OLD.affected_users_count IS NOT NEW.affected_users_count OR OLD.blast_radius IS NOT NEW.blast_radius OR OLD.assigned_to IS NOT NEW.assigned_to OR OLD.assigned_team IS NOT NEW.assigned_team OR OLD.metadata IS NOT NEW.metadata OR OLD.related_incidents IS NOT NEW.related_incidents OR OLD.root_cause IS NOT NEW.root_cause OR OLD.resolution_notes IS NOT NEW.resolution_notes OR OLD.remediation_steps IS NOT NEW.remediation_steps OR OLD.detected_at IS NOT NEW.detected_at OR OLD.acknowledged_at IS NOT NEW.acknowledged_at OR OLD.resolved_at IS NOT NEW.resolved_at OR OLD.closed_at IS NOT NEW.closed_at OR OLD.created_at IS NOT NEW.created_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 8, NEW.id, 'update', '{' || substr(CASE WHEN OLD.title IS NOT NEW.title THEN ',"title":' || json_quote(NEW.title) ELSE '' END
      || CASE WHEN OLD.description IS NOT NEW.description THEN ',"description":' || json_quote(NEW.description) ELSE '' END
      || CASE WHEN OLD.severity IS NOT NEW.severity THEN ',"severity":' || json_quote(NEW.severity) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.detected_at IS NOT NEW.detected_at OR OLD.acknowledged_at IS NOT NEW.acknowledged_at OR OLD.resolved_at IS NOT NEW.resolved_at OR OLD.closed_at IS NOT NEW.closed_at) THEN ',"status":' || json_quote(NEW.status) ELSE '' END
      || CASE WHEN OLD.source IS NOT NEW.source THEN ',"source":' || json_quote(NEW.source) ELSE '' END
      || CASE WHEN OLD.detection_method IS NOT NEW.detection_method THEN ',"detection_method":' || json_quote(NEW.detection_method) ELSE '' END
      || CASE WHEN OLD.affected_services IS NOT NEW.affected_services THEN ',"affected_services":' || json_quote(NEW.affected_services) ELSE '' END
      || CASE WHEN OLD.affected_users_count IS NOT NEW.affected_users_count THEN ',"affected_users_count":' || json_quote(NEW.affected_users_count) ELSE '' END
      || CASE WHEN OLD.blast_radius IS NOT NEW.blast_radius THEN ',"blast_radius":' || json_quote(NEW.blast_radius) ELSE '' END
      || CASE WHEN OLD.assigned_to IS NOT NEW.assigned_to THEN ',"assigned_to":' || json_quote(NEW.assigned_to) ELSE '' END
      || CASE WHEN OLD.assigned_team IS NOT NEW.assigned_team THEN ',"assigned_team":' || json_quote(NEW.assigned_team) ELSE '' END
      || CASE WHEN OLD.metadata IS NOT NEW.metadata THEN ',"metadata":' || json_quote(NEW.metadata) ELSE '' END
      || CASE WHEN OLD.related_incidents IS NOT NEW.related_incidents THEN ',"related_incidents":' || json_quote(NEW.related_incidents) ELSE '' END
      || CASE WHEN OLD.root_cause IS NOT NEW.root_cause THEN ',"root_cause":' || json_quote(NEW.root_cause) ELSE '' END
      || CASE WHEN OLD.resolution_notes IS NOT NEW.resolution_notes THEN ',"resolution_notes":' || json_quote(NEW.resolution_notes) ELSE '' END
      || CASE WHEN OLD.remediation_steps IS NOT NEW.remediation_steps THEN ',"remediation_steps":' || json_quote(NEW.remediation_steps) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.detected_at IS NOT NEW.detected_at OR OLD.acknowledged_at IS NOT NEW.acknowledged_at OR OLD.resolved_at IS NOT NEW.resolved_at OR OLD.closed_at IS NOT NEW.closed_at) AND NOT (OLD.detected_at IS NEW.detected_at AND (NEW.detected_at IS '0001-01-01T00:00:00.000000Z' OR NEW.detected_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 8 AND instr(p.columns, '"detected_at"') > 0)) THEN ',"detected_at":' || json_quote(NEW.detected_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.detected_at IS NOT NEW.detected_at OR OLD.acknowledged_at IS NOT NEW.acknowledged_at OR OLD.resolved_at IS NOT NEW.resolved_at OR OLD.closed_at IS NOT NEW.closed_at) AND NOT (OLD.acknowledged_at IS NEW.acknowledged_at AND (NEW.acknowledged_at IS '0001-01-01T00:00:00.000000Z' OR NEW.acknowledged_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 8 AND instr(p.columns, '"acknowledged_at"') > 0)) THEN ',"acknowledged_at":' || json_quote(NEW.acknowledged_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.detected_at IS NOT NEW.detected_at OR OLD.acknowledged_at IS NOT NEW.acknowledged_at OR OLD.resolved_at IS NOT NEW.resolved_at OR OLD.closed_at IS NOT NEW.closed_at) AND NOT (OLD.resolved_at IS NEW.resolved_at AND (NEW.resolved_at IS '0001-01-01T00:00:00.000000Z' OR NEW.resolved_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 8 AND instr(p.columns, '"resolved_at"') > 0)) THEN ',"resolved_at":' || json_quote(NEW.resolved_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.detected_at IS NOT NEW.detected_at OR OLD.acknowledged_at IS NOT NEW.acknowledged_at OR OLD.resolved_at IS NOT NEW.resolved_at OR OLD.closed_at IS NOT NEW.closed_at) AND NOT (OLD.closed_at IS NEW.closed_at AND (NEW.closed_at IS '0001-01-01T00:00:00.000000Z' OR NEW.closed_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 8 AND instr(p.columns, '"closed_at"') > 0)) THEN ',"closed_at":' || json_quote(NEW.closed_at) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(NEW.created_at) ELSE '' END, 2) || '}', '{' || substr(CASE WHEN OLD.title IS NOT NEW.title THEN ',"title":' || json_quote(OLD.title) ELSE '' END
      || CASE WHEN OLD.description IS NOT NEW.description THEN ',"description":' || json_quote(OLD.description) ELSE '' END
      || CASE WHEN OLD.severity IS NOT NEW.severity THEN ',"severity":' || json_quote(OLD.severity) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.detected_at IS NOT NEW.detected_at OR OLD.acknowledged_at IS NOT NEW.acknowledged_at OR OLD.resolved_at IS NOT NEW.resolved_at OR OLD.closed_at IS NOT NEW.closed_at) THEN ',"status":' || json_quote(OLD.status) ELSE '' END
      || CASE WHEN OLD.source IS NOT NEW.source THEN ',"source":' || json_quote(OLD.source) ELSE '' END
      || CASE WHEN OLD.detection_method IS NOT NEW.detection_method THEN ',"detection_method":' || json_quote(OLD.detection_method) ELSE '' END
      || CASE WHEN OLD.affected_services IS NOT NEW.affected_services THEN ',"affected_services":' || json_quote(OLD.affected_services) ELSE '' END
      || CASE WHEN OLD.affected_users_count IS NOT NEW.affected_users_count THEN ',"affected_users_count":' || json_quote(OLD.affected_users_count) ELSE '' END
      || CASE WHEN OLD.blast_radius IS NOT NEW.blast_radius THEN ',"blast_radius":' || json_quote(OLD.blast_radius) ELSE '' END
      || CASE WHEN OLD.assigned_to IS NOT NEW.assigned_to THEN ',"assigned_to":' || json_quote(OLD.assigned_to) ELSE '' END
      || CASE WHEN OLD.assigned_team IS NOT NEW.assigned_team THEN ',"assigned_team":' || json_quote(OLD.assigned_team) ELSE '' END
      || CASE WHEN OLD.metadata IS NOT NEW.metadata THEN ',"metadata":' || json_quote(OLD.metadata) ELSE '' END
      || CASE WHEN OLD.related_incidents IS NOT NEW.related_incidents THEN ',"related_incidents":' || json_quote(OLD.related_incidents) ELSE '' END
      || CASE WHEN OLD.root_cause IS NOT NEW.root_cause THEN ',"root_cause":' || json_quote(OLD.root_cause) ELSE '' END
      || CASE WHEN OLD.resolution_notes IS NOT NEW.resolution_notes THEN ',"resolution_notes":' || json_quote(OLD.resolution_notes) ELSE '' END
      || CASE WHEN OLD.remediation_steps IS NOT NEW.remediation_steps THEN ',"remediation_steps":' || json_quote(OLD.remediation_steps) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.detected_at IS NOT NEW.detected_at OR OLD.acknowledged_at IS NOT NEW.acknowledged_at OR OLD.resolved_at IS NOT NEW.resolved_at OR OLD.closed_at IS NOT NEW.closed_at) AND NOT (OLD.detected_at IS NEW.detected_at AND (NEW.detected_at IS '0001-01-01T00:00:00.000000Z' OR NEW.detected_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 8 AND instr(p.columns, '"detected_at"') > 0)) THEN ',"detected_at":' || json_quote(OLD.detected_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.detected_at IS NOT NEW.detected_at OR OLD.acknowledged_at IS NOT NEW.acknowledged_at OR OLD.resolved_at IS NOT NEW.resolved_at OR OLD.closed_at IS NOT NEW.closed_at) AND NOT (OLD.acknowledged_at IS NEW.acknowledged_at AND (NEW.acknowledged_at IS '0001-01-01T00:00:00.000000Z' OR NEW.acknowledged_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 8 AND instr(p.columns, '"acknowledged_at"') > 0)) THEN ',"acknowledged_at":' || json_quote(OLD.acknowledged_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.detected_at IS NOT NEW.detected_at OR OLD.acknowledged_at IS NOT NEW.acknowledged_at OR OLD.resolved_at IS NOT NEW.resolved_at OR OLD.closed_at IS NOT NEW.closed_at) AND NOT (OLD.resolved_at IS NEW.resolved_at AND (NEW.resolved_at IS '0001-01-01T00:00:00.000000Z' OR NEW.resolved_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 8 AND instr(p.columns, '"resolved_at"') > 0)) THEN ',"resolved_at":' || json_quote(OLD.resolved_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.detected_at IS NOT NEW.detected_at OR OLD.acknowledged_at IS NOT NEW.acknowledged_at OR OLD.resolved_at IS NOT NEW.resolved_at OR OLD.closed_at IS NOT NEW.closed_at) AND NOT (OLD.closed_at IS NEW.closed_at AND (NEW.closed_at IS '0001-01-01T00:00:00.000000Z' OR NEW.closed_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 8 AND instr(p.columns, '"closed_at"') > 0)) THEN ',"closed_at":' || json_quote(OLD.closed_at) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(OLD.created_at) ELSE '' END, 2) || '}', NOT ((NEW.assigned_to IS NULL AND OLD.assigned_to IS NOT NULL AND NOT EXISTS (SELECT 1 FROM users p WHERE p.id = OLD.assigned_to))), NULL);
END;

CREATE TRIGGER incidents_capture_delete AFTER DELETE ON incidents WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 8, json_object('id', OLD.id, 'title', OLD.title, 'description', OLD.description, 'severity', OLD.severity, 'status', OLD.status, 'source', OLD.source, 'detection_method', OLD.detection_method, 'affected_services', OLD.affected_services, 'affected_users_count', OLD.affected_users_count, 'blast_radius', OLD.blast_radius, 'assigned_to', OLD.assigned_to, 'assigned_team', OLD.assigned_team, 'metadata', OLD.metadata, 'related_incidents', OLD.related_incidents, 'root_cause', OLD.root_cause, 'resolution_notes', OLD.resolution_notes, 'remediation_steps', OLD.remediation_steps, 'detected_at', OLD.detected_at, 'acknowledged_at', OLD.acknowledged_at, 'resolved_at', OLD.resolved_at, 'closed_at', OLD.closed_at, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at) WHERE NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 8)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 8);
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 8, OLD.id, 'delete', NULL, NULL, 1, NULL);
END;

CREATE TRIGGER update_incidents_updated_at AFTER UPDATE OF id, title, description, severity, status, source, detection_method, affected_services, affected_users_count, blast_radius, assigned_to, assigned_team, metadata, related_incidents, root_cause, resolution_notes, remediation_steps, detected_at, acknowledged_at, resolved_at, closed_at, created_at ON incidents WHEN NEW.updated_at IS OLD.updated_at AND (SELECT applying FROM sync_state) = 0 AND NEW.updated_at IS NOT strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') AND (OLD.id IS NOT NEW.id OR OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.severity IS NOT NEW.severity OR OLD.status IS NOT NEW.status OR OLD.source IS NOT NEW.source OR OLD.detection_method IS NOT NEW.detection_method OR OLD.affected_services IS NOT NEW.affected_services OR OLD.affected_users_count IS NOT NEW.affected_users_count OR OLD.blast_radius IS NOT NEW.blast_radius OR OLD.assigned_to IS NOT NEW.assigned_to OR OLD.assigned_team IS NOT NEW.assigned_team OR OLD.metadata IS NOT NEW.metadata OR OLD.related_incidents IS NOT NEW.related_incidents OR OLD.root_cause IS NOT NEW.root_cause OR OLD.resolution_notes IS NOT NEW.resolution_notes OR OLD.remediation_steps IS NOT NEW.remediation_steps OR OLD.detected_at IS NOT NEW.detected_at OR OLD.acknowledged_at IS NOT NEW.acknowledged_at OR OLD.resolved_at IS NOT NEW.resolved_at OR OLD.closed_at IS NOT NEW.closed_at OR OLD.created_at IS NOT NEW.created_at)
BEGIN
    UPDATE incidents SET updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER runbooks_guard_key BEFORE UPDATE OF id ON runbooks WHEN OLD.id IS NOT NEW.id
BEGIN
    SELECT RAISE(ABORT, 'agentdb: runbooks.id never changes');
END;

CREATE TRIGGER runbooks_guard_stub_update BEFORE UPDATE ON runbooks WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 9) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this runbooks row is outside your scope');
END;

CREATE TRIGGER runbooks_guard_stub_delete BEFORE DELETE ON runbooks WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 9) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this runbooks row is outside your scope');
END;

CREATE TRIGGER runbooks_guard_fixed BEFORE UPDATE OF created_at ON runbooks WHEN (OLD.created_at IS NOT NEW.created_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: runbooks: agents cannot change created_at');
END;

CREATE TRIGGER runbooks_capture_insert AFTER INSERT ON runbooks WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 9, NEW.id, 'insert', json_object('id', NEW.id, 'name', NEW.name, 'description', NEW.description, 'version', NEW.version, 'trigger_conditions', NEW.trigger_conditions, 'steps', NEW.steps, 'is_automated', NEW.is_automated, 'automation_config', NEW.automation_config, 'tags', NEW.tags, 'owner_id', NEW.owner_id, 'execution_count', NEW.execution_count, 'success_count', NEW.success_count, 'last_executed_at', NEW.last_executed_at, 'created_at', NEW.created_at, 'archived_at', NEW.archived_at), NULL, 1, NULL);
END;

CREATE TRIGGER runbooks_capture_base BEFORE UPDATE ON runbooks WHEN (SELECT applying FROM sync_state) = 0 AND NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 9)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 9) AND (OLD.id IS NOT NEW.id OR OLD.name IS NOT NEW.name OR OLD.description IS NOT NEW.description OR OLD.version IS NOT NEW.version OR OLD.trigger_conditions IS NOT NEW.trigger_conditions OR OLD.steps IS NOT NEW.steps OR OLD.is_automated IS NOT NEW.is_automated OR OLD.automation_config IS NOT NEW.automation_config OR OLD.tags IS NOT NEW.tags OR OLD.owner_id IS NOT NEW.owner_id OR OLD.execution_count IS NOT NEW.execution_count OR OLD.success_count IS NOT NEW.success_count OR OLD.last_executed_at IS NOT NEW.last_executed_at OR OLD.created_at IS NOT NEW.created_at OR OLD.updated_at IS NOT NEW.updated_at OR OLD.archived_at IS NOT NEW.archived_at)
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 9, json_object('id', OLD.id, 'name', OLD.name, 'description', OLD.description, 'version', OLD.version, 'trigger_conditions', OLD.trigger_conditions, 'steps', OLD.steps, 'is_automated', OLD.is_automated, 'automation_config', OLD.automation_config, 'tags', OLD.tags, 'owner_id', OLD.owner_id, 'execution_count', OLD.execution_count, 'success_count', OLD.success_count, 'last_executed_at', OLD.last_executed_at, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at, 'archived_at', OLD.archived_at);
END;

CREATE TRIGGER runbooks_capture_update AFTER UPDATE OF name, description, version, trigger_conditions, steps, is_automated, automation_config, tags, owner_id, execution_count, success_count, last_executed_at, created_at, archived_at ON runbooks WHEN (OLD.name IS NOT NEW.name OR OLD.description IS NOT NEW.description OR OLD.version IS NOT NEW.version OR OLD.trigger_conditions IS NOT NEW.trigger_conditions OR OLD.steps IS NOT NEW.steps OR OLD.is_automated IS NOT NEW.is_automated OR OLD.automation_config IS NOT NEW.automation_config OR OLD.tags IS NOT NEW.tags OR OLD.owner_id IS NOT NEW.owner_id OR OLD.execution_count IS NOT NEW.execution_count OR OLD.success_count IS NOT NEW.success_count OR OLD.last_executed_at IS NOT NEW.last_executed_at OR OLD.created_at IS NOT NEW.created_at OR OLD.archived_at IS NOT NEW.archived_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 9, NEW.id, 'update', '{' || substr(CASE WHEN OLD.name IS NOT NEW.name THEN ',"name":' || json_quote(NEW.name) ELSE '' END
      || CASE WHEN OLD.description IS NOT NEW.description THEN ',"description":' || json_quote(NEW.description) ELSE '' END
      || CASE WHEN (OLD.steps IS NOT NEW.steps OR OLD.version IS NOT NEW.version OR OLD.automation_config IS NOT NEW.automation_config OR OLD.is_automated IS NOT NEW.is_automated) THEN ',"version":' || json_quote(NEW.version) ELSE '' END
      || CASE WHEN OLD.trigger_conditions IS NOT NEW.trigger_conditions THEN ',"trigger_conditions":' || json_quote(NEW.trigger_conditions) ELSE '' END
      || CASE WHEN (OLD.steps IS NOT NEW.steps OR OLD.version IS NOT NEW.version OR OLD.automation_config IS NOT NEW.automation_config OR OLD.is_automated IS NOT NEW.is_automated) AND NOT (OLD.steps IS NEW.steps AND (NEW.steps IS '{"$agentdb":"value cannot be represented here"}') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 9 AND instr(p.columns, '"steps"') > 0)) THEN ',"steps":' || json_quote(NEW.steps) ELSE '' END
      || CASE WHEN (OLD.steps IS NOT NEW.steps OR OLD.version IS NOT NEW.version OR OLD.automation_config IS NOT NEW.automation_config OR OLD.is_automated IS NOT NEW.is_automated) THEN ',"is_automated":' || json_quote(NEW.is_automated) ELSE '' END
      || CASE WHEN (OLD.steps IS NOT NEW.steps OR OLD.version IS NOT NEW.version OR OLD.automation_config IS NOT NEW.automation_config OR OLD.is_automated IS NOT NEW.is_automated) AND NOT (OLD.automation_config IS NEW.automation_config AND (NEW.automation_config IS '{"$agentdb":"value cannot be represented here"}') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 9 AND instr(p.columns, '"automation_config"') > 0)) THEN ',"automation_config":' || json_quote(NEW.automation_config) ELSE '' END
      || CASE WHEN OLD.tags IS NOT NEW.tags THEN ',"tags":' || json_quote(NEW.tags) ELSE '' END
      || CASE WHEN OLD.owner_id IS NOT NEW.owner_id THEN ',"owner_id":' || json_quote(NEW.owner_id) ELSE '' END
      || CASE WHEN OLD.execution_count IS NOT NEW.execution_count THEN ',"execution_count":' || json_quote(NEW.execution_count) ELSE '' END
      || CASE WHEN OLD.success_count IS NOT NEW.success_count THEN ',"success_count":' || json_quote(NEW.success_count) ELSE '' END
      || CASE WHEN OLD.last_executed_at IS NOT NEW.last_executed_at THEN ',"last_executed_at":' || json_quote(NEW.last_executed_at) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(NEW.created_at) ELSE '' END
      || CASE WHEN OLD.archived_at IS NOT NEW.archived_at THEN ',"archived_at":' || json_quote(NEW.archived_at) ELSE '' END, 2) || '}', '{' || substr(CASE WHEN OLD.name IS NOT NEW.name THEN ',"name":' || json_quote(OLD.name) ELSE '' END
      || CASE WHEN OLD.description IS NOT NEW.description THEN ',"description":' || json_quote(OLD.description) ELSE '' END
      || CASE WHEN (OLD.steps IS NOT NEW.steps OR OLD.version IS NOT NEW.version OR OLD.automation_config IS NOT NEW.automation_config OR OLD.is_automated IS NOT NEW.is_automated) THEN ',"version":' || json_quote(OLD.version) ELSE '' END
      || CASE WHEN OLD.trigger_conditions IS NOT NEW.trigger_conditions THEN ',"trigger_conditions":' || json_quote(OLD.trigger_conditions) ELSE '' END
      || CASE WHEN (OLD.steps IS NOT NEW.steps OR OLD.version IS NOT NEW.version OR OLD.automation_config IS NOT NEW.automation_config OR OLD.is_automated IS NOT NEW.is_automated) AND NOT (OLD.steps IS NEW.steps AND (NEW.steps IS '{"$agentdb":"value cannot be represented here"}') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 9 AND instr(p.columns, '"steps"') > 0)) THEN ',"steps":' || json_quote(OLD.steps) ELSE '' END
      || CASE WHEN (OLD.steps IS NOT NEW.steps OR OLD.version IS NOT NEW.version OR OLD.automation_config IS NOT NEW.automation_config OR OLD.is_automated IS NOT NEW.is_automated) THEN ',"is_automated":' || json_quote(OLD.is_automated) ELSE '' END
      || CASE WHEN (OLD.steps IS NOT NEW.steps OR OLD.version IS NOT NEW.version OR OLD.automation_config IS NOT NEW.automation_config OR OLD.is_automated IS NOT NEW.is_automated) AND NOT (OLD.automation_config IS NEW.automation_config AND (NEW.automation_config IS '{"$agentdb":"value cannot be represented here"}') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 9 AND instr(p.columns, '"automation_config"') > 0)) THEN ',"automation_config":' || json_quote(OLD.automation_config) ELSE '' END
      || CASE WHEN OLD.tags IS NOT NEW.tags THEN ',"tags":' || json_quote(OLD.tags) ELSE '' END
      || CASE WHEN OLD.owner_id IS NOT NEW.owner_id THEN ',"owner_id":' || json_quote(OLD.owner_id) ELSE '' END
      || CASE WHEN OLD.execution_count IS NOT NEW.execution_count THEN ',"execution_count":' || json_quote(OLD.execution_count) ELSE '' END
      || CASE WHEN OLD.success_count IS NOT NEW.success_count THEN ',"success_count":' || json_quote(OLD.success_count) ELSE '' END
      || CASE WHEN OLD.last_executed_at IS NOT NEW.last_executed_at THEN ',"last_executed_at":' || json_quote(OLD.last_executed_at) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(OLD.created_at) ELSE '' END
      || CASE WHEN OLD.archived_at IS NOT NEW.archived_at THEN ',"archived_at":' || json_quote(OLD.archived_at) ELSE '' END, 2) || '}', NOT ((NEW.owner_id IS NULL AND OLD.owner_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM users p WHERE p.id = OLD.owner_id))), NULL);
END;

CREATE TRIGGER runbooks_capture_delete AFTER DELETE ON runbooks WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 9, json_object('id', OLD.id, 'name', OLD.name, 'description', OLD.description, 'version', OLD.version, 'trigger_conditions', OLD.trigger_conditions, 'steps', OLD.steps, 'is_automated', OLD.is_automated, 'automation_config', OLD.automation_config, 'tags', OLD.tags, 'owner_id', OLD.owner_id, 'execution_count', OLD.execution_count, 'success_count', OLD.success_count, 'last_executed_at', OLD.last_executed_at, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at, 'archived_at', OLD.archived_at) WHERE NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 9)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 9);
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 9, OLD.id, 'delete', NULL, NULL, 1, NULL);
END;

CREATE TRIGGER update_runbooks_updated_at AFTER UPDATE OF id, name, description, version, trigger_conditions, steps, is_automated, automation_config, tags, owner_id, execution_count, success_count, last_executed_at, created_at, archived_at ON runbooks WHEN NEW.updated_at IS OLD.updated_at AND (SELECT applying FROM sync_state) = 0 AND NEW.updated_at IS NOT strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') AND (OLD.id IS NOT NEW.id OR OLD.name IS NOT NEW.name OR OLD.description IS NOT NEW.description OR OLD.version IS NOT NEW.version OR OLD.trigger_conditions IS NOT NEW.trigger_conditions OR OLD.steps IS NOT NEW.steps OR OLD.is_automated IS NOT NEW.is_automated OR OLD.automation_config IS NOT NEW.automation_config OR OLD.tags IS NOT NEW.tags OR OLD.owner_id IS NOT NEW.owner_id OR OLD.execution_count IS NOT NEW.execution_count OR OLD.success_count IS NOT NEW.success_count OR OLD.last_executed_at IS NOT NEW.last_executed_at OR OLD.created_at IS NOT NEW.created_at OR OLD.archived_at IS NOT NEW.archived_at)
BEGIN
    UPDATE runbooks SET updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER runbook_executions_guard_key BEFORE UPDATE OF id ON runbook_executions WHEN OLD.id IS NOT NEW.id
BEGIN
    SELECT RAISE(ABORT, 'agentdb: runbook_executions.id never changes');
END;

CREATE TRIGGER runbook_executions_guard_stub_update BEFORE UPDATE ON runbook_executions WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 10) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this runbook_executions row is outside your scope');
END;

CREATE TRIGGER runbook_executions_guard_stub_delete BEFORE DELETE ON runbook_executions WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 10) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this runbook_executions row is outside your scope');
END;

CREATE TRIGGER runbook_executions_guard_fixed BEFORE UPDATE OF runbook_id, executed_by ON runbook_executions WHEN (OLD.runbook_id IS NOT NEW.runbook_id OR OLD.executed_by IS NOT NEW.executed_by) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: runbook_executions: agents cannot change runbook_id, executed_by');
END;

CREATE TRIGGER runbook_executions_capture_insert AFTER INSERT ON runbook_executions WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 10, NEW.id, 'insert', json_object('id', NEW.id, 'runbook_id', NEW.runbook_id, 'incident_id', NEW.incident_id, 'executed_by', NEW.executed_by, 'status', NEW.status, 'is_automated', NEW.is_automated, 'current_step', NEW.current_step, 'completed_steps', NEW.completed_steps, 'step_results', NEW.step_results, 'success', NEW.success, 'notes', NEW.notes, 'started_at', NEW.started_at, 'completed_at', NEW.completed_at), NULL, 1, NULL);
END;

CREATE TRIGGER runbook_executions_capture_base BEFORE UPDATE ON runbook_executions WHEN (SELECT applying FROM sync_state) = 0 AND NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 10)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 10) AND (OLD.id IS NOT NEW.id OR OLD.runbook_id IS NOT NEW.runbook_id OR OLD.incident_id IS NOT NEW.incident_id OR OLD.executed_by IS NOT NEW.executed_by OR OLD.status IS NOT NEW.status OR OLD.is_automated IS NOT NEW.is_automated OR OLD.current_step IS NOT NEW.current_step OR OLD.completed_steps IS NOT NEW.completed_steps OR OLD.step_results IS NOT NEW.step_results OR OLD.success IS NOT NEW.success OR OLD.notes IS NOT NEW.notes OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at)
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 10, json_object('id', OLD.id, 'runbook_id', OLD.runbook_id, 'incident_id', OLD.incident_id, 'executed_by', OLD.executed_by, 'status', OLD.status, 'is_automated', OLD.is_automated, 'current_step', OLD.current_step, 'completed_steps', OLD.completed_steps, 'step_results', OLD.step_results, 'success', OLD.success, 'notes', OLD.notes, 'started_at', OLD.started_at, 'completed_at', OLD.completed_at);
END;

CREATE TRIGGER runbook_executions_capture_update AFTER UPDATE OF runbook_id, incident_id, executed_by, status, is_automated, current_step, completed_steps, step_results, success, notes, started_at, completed_at ON runbook_executions WHEN (OLD.runbook_id IS NOT NEW.runbook_id OR OLD.incident_id IS NOT NEW.incident_id OR OLD.executed_by IS NOT NEW.executed_by OR OLD.status IS NOT NEW.status OR OLD.is_automated IS NOT NEW.is_automated OR OLD.current_step IS NOT NEW.current_step OR OLD.completed_steps IS NOT NEW.completed_steps OR OLD.step_results IS NOT NEW.step_results OR OLD.success IS NOT NEW.success OR OLD.notes IS NOT NEW.notes OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 10, NEW.id, 'update', '{' || substr(CASE WHEN OLD.runbook_id IS NOT NEW.runbook_id THEN ',"runbook_id":' || json_quote(NEW.runbook_id) ELSE '' END
      || CASE WHEN OLD.incident_id IS NOT NEW.incident_id THEN ',"incident_id":' || json_quote(NEW.incident_id) ELSE '' END
      || CASE WHEN OLD.executed_by IS NOT NEW.executed_by THEN ',"executed_by":' || json_quote(NEW.executed_by) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.success IS NOT NEW.success OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) THEN ',"status":' || json_quote(NEW.status) ELSE '' END
      || CASE WHEN OLD.is_automated IS NOT NEW.is_automated THEN ',"is_automated":' || json_quote(NEW.is_automated) ELSE '' END
      || CASE WHEN OLD.current_step IS NOT NEW.current_step THEN ',"current_step":' || json_quote(NEW.current_step) ELSE '' END
      || CASE WHEN OLD.completed_steps IS NOT NEW.completed_steps THEN ',"completed_steps":' || json_quote(NEW.completed_steps) ELSE '' END
      || CASE WHEN OLD.step_results IS NOT NEW.step_results THEN ',"step_results":' || json_quote(NEW.step_results) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.success IS NOT NEW.success OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) THEN ',"success":' || json_quote(NEW.success) ELSE '' END
      || CASE WHEN OLD.notes IS NOT NEW.notes THEN ',"notes":' || json_quote(NEW.notes) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.success IS NOT NEW.success OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) AND NOT (OLD.started_at IS NEW.started_at AND (NEW.started_at IS '0001-01-01T00:00:00.000000Z' OR NEW.started_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 10 AND instr(p.columns, '"started_at"') > 0)) THEN ',"started_at":' || json_quote(NEW.started_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.success IS NOT NEW.success OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) AND NOT (OLD.completed_at IS NEW.completed_at AND (NEW.completed_at IS '0001-01-01T00:00:00.000000Z' OR NEW.completed_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 10 AND instr(p.columns, '"completed_at"') > 0)) THEN ',"completed_at":' || json_quote(NEW.completed_at) ELSE '' END, 2) || '}', '{' || substr(CASE WHEN OLD.runbook_id IS NOT NEW.runbook_id THEN ',"runbook_id":' || json_quote(OLD.runbook_id) ELSE '' END
      || CASE WHEN OLD.incident_id IS NOT NEW.incident_id THEN ',"incident_id":' || json_quote(OLD.incident_id) ELSE '' END
      || CASE WHEN OLD.executed_by IS NOT NEW.executed_by THEN ',"executed_by":' || json_quote(OLD.executed_by) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.success IS NOT NEW.success OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) THEN ',"status":' || json_quote(OLD.status) ELSE '' END
      || CASE WHEN OLD.is_automated IS NOT NEW.is_automated THEN ',"is_automated":' || json_quote(OLD.is_automated) ELSE '' END
      || CASE WHEN OLD.current_step IS NOT NEW.current_step THEN ',"current_step":' || json_quote(OLD.current_step) ELSE '' END
      || CASE WHEN OLD.completed_steps IS NOT NEW.completed_steps THEN ',"completed_steps":' || json_quote(OLD.completed_steps) ELSE '' END
      || CASE WHEN OLD.step_results IS NOT NEW.step_results THEN ',"step_results":' || json_quote(OLD.step_results) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.success IS NOT NEW.success OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) THEN ',"success":' || json_quote(OLD.success) ELSE '' END
      || CASE WHEN OLD.notes IS NOT NEW.notes THEN ',"notes":' || json_quote(OLD.notes) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.success IS NOT NEW.success OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) AND NOT (OLD.started_at IS NEW.started_at AND (NEW.started_at IS '0001-01-01T00:00:00.000000Z' OR NEW.started_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 10 AND instr(p.columns, '"started_at"') > 0)) THEN ',"started_at":' || json_quote(OLD.started_at) ELSE '' END
      || CASE WHEN (OLD.status IS NOT NEW.status OR OLD.success IS NOT NEW.success OR OLD.started_at IS NOT NEW.started_at OR OLD.completed_at IS NOT NEW.completed_at) AND NOT (OLD.completed_at IS NEW.completed_at AND (NEW.completed_at IS '0001-01-01T00:00:00.000000Z' OR NEW.completed_at IS '9999-12-31T23:59:59.999999Z') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 10 AND instr(p.columns, '"completed_at"') > 0)) THEN ',"completed_at":' || json_quote(OLD.completed_at) ELSE '' END, 2) || '}', NOT ((NEW.incident_id IS NULL AND OLD.incident_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM incidents p WHERE p.id = OLD.incident_id))), NULL);
END;

CREATE TRIGGER runbook_executions_capture_delete AFTER DELETE ON runbook_executions WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 10, json_object('id', OLD.id, 'runbook_id', OLD.runbook_id, 'incident_id', OLD.incident_id, 'executed_by', OLD.executed_by, 'status', OLD.status, 'is_automated', OLD.is_automated, 'current_step', OLD.current_step, 'completed_steps', OLD.completed_steps, 'step_results', OLD.step_results, 'success', OLD.success, 'notes', OLD.notes, 'started_at', OLD.started_at, 'completed_at', OLD.completed_at) WHERE NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 10)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 10);
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 10, OLD.id, 'delete', NULL, NULL, NOT ((OLD.runbook_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM runbooks p WHERE p.id = OLD.runbook_id)) OR (OLD.executed_by IS NOT NULL AND NOT EXISTS (SELECT 1 FROM users p WHERE p.id = OLD.executed_by))), NULL);
END;

CREATE TRIGGER audit_logs_guard_key BEFORE UPDATE OF id ON audit_logs WHEN OLD.id IS NOT NEW.id
BEGIN
    SELECT RAISE(ABORT, 'agentdb: audit_logs.id never changes');
END;

CREATE TRIGGER audit_logs_guard_stub_update BEFORE UPDATE ON audit_logs WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 11) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this audit_logs row is outside your scope');
END;

CREATE TRIGGER audit_logs_guard_delete BEFORE DELETE ON audit_logs WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: audit_logs rows cannot be deleted by agents');
END;

CREATE TRIGGER audit_logs_guard_fixed BEFORE UPDATE OF user_id, session_id, action, resource_type, resource_id, description, changes, metadata, ip_address, user_agent, success, error_message, created_at ON audit_logs WHEN (OLD.user_id IS NOT NEW.user_id OR OLD.session_id IS NOT NEW.session_id OR OLD.action IS NOT NEW.action OR OLD.resource_type IS NOT NEW.resource_type OR OLD.resource_id IS NOT NEW.resource_id OR OLD.description IS NOT NEW.description OR OLD.changes IS NOT NEW.changes OR OLD.metadata IS NOT NEW.metadata OR OLD.ip_address IS NOT NEW.ip_address OR OLD.user_agent IS NOT NEW.user_agent OR OLD.success IS NOT NEW.success OR OLD.error_message IS NOT NEW.error_message OR OLD.created_at IS NOT NEW.created_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: audit_logs: agents cannot change user_id, session_id, action, resource_type, resource_id, description, changes, metadata, ip_address, user_agent, success, error_message, created_at');
END;

CREATE TRIGGER audit_logs_capture_insert AFTER INSERT ON audit_logs WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, ref, size)
    VALUES ((SELECT tx FROM sync_state), 11, NEW.id, 'insert', NULL, 172 + octet_length(NEW.action) + octet_length(NEW.resource_type) + ifnull(octet_length(NEW.description), 0) + ifnull(octet_length(NEW.changes), 0) + ifnull(octet_length(NEW.metadata), 0) + ifnull(octet_length(NEW.ip_address), 0) + ifnull(octet_length(NEW.user_agent), 0) + ifnull(octet_length(NEW.error_message), 0));
END;

CREATE TRIGGER audit_logs_capture_image_of_updated BEFORE UPDATE OF id, user_id, session_id, action, resource_type, resource_id, description, changes, metadata, ip_address, user_agent, success, error_message, created_at ON audit_logs WHEN EXISTS (SELECT 1 FROM sync_log WHERE id = OLD.id AND tbl = 11 AND op = 'insert' AND patch IS NULL)
BEGIN
    UPDATE sync_log SET patch = json_object('id', OLD.id, 'user_id', OLD.user_id, 'session_id', OLD.session_id, 'action', OLD.action, 'resource_type', OLD.resource_type, 'resource_id', OLD.resource_id, 'description', OLD.description, 'changes', OLD.changes, 'metadata', OLD.metadata, 'ip_address', OLD.ip_address, 'user_agent', OLD.user_agent, 'success', OLD.success, 'error_message', OLD.error_message, 'created_at', OLD.created_at) WHERE id = OLD.id AND tbl = 11 AND op = 'insert' AND patch IS NULL;
END;

CREATE TRIGGER audit_logs_capture_image_of_deleted BEFORE DELETE ON audit_logs WHEN EXISTS (SELECT 1 FROM sync_log WHERE id = OLD.id AND tbl = 11 AND op = 'insert' AND patch IS NULL)
BEGIN
    UPDATE sync_log SET patch = json_object('id', OLD.id, 'user_id', OLD.user_id, 'session_id', OLD.session_id, 'action', OLD.action, 'resource_type', OLD.resource_type, 'resource_id', OLD.resource_id, 'description', OLD.description, 'changes', OLD.changes, 'metadata', OLD.metadata, 'ip_address', OLD.ip_address, 'user_agent', OLD.user_agent, 'success', OLD.success, 'error_message', OLD.error_message, 'created_at', OLD.created_at) WHERE id = OLD.id AND tbl = 11 AND op = 'insert' AND patch IS NULL;
END;

CREATE TRIGGER embeddings_guard_key BEFORE UPDATE OF id ON embeddings WHEN OLD.id IS NOT NEW.id
BEGIN
    SELECT RAISE(ABORT, 'agentdb: embeddings.id never changes');
END;

CREATE TRIGGER embeddings_guard_stub_update BEFORE UPDATE ON embeddings WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 12) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this embeddings row is outside your scope');
END;

CREATE TRIGGER embeddings_guard_stub_delete BEFORE DELETE ON embeddings WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 12) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this embeddings row is outside your scope');
END;

CREATE TRIGGER embeddings_guard_fixed BEFORE UPDATE OF user_id, collection, created_at ON embeddings WHEN (OLD.user_id IS NOT NEW.user_id OR OLD.collection IS NOT NEW.collection OR OLD.created_at IS NOT NEW.created_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: embeddings: agents cannot change user_id, collection, created_at');
END;

CREATE TRIGGER embeddings_capture_insert AFTER INSERT ON embeddings WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, ref, size)
    VALUES ((SELECT tx FROM sync_state), 12, NEW.id, 'insert', NULL, 110 + octet_length(NEW.collection) + octet_length(NEW.model) + ifnull(octet_length(NEW.content_preview), 0) + octet_length(NEW.payload) + ifnull(octet_length(NEW.content), 0) + octet_length(NEW.vector));
END;

CREATE TRIGGER embeddings_capture_image_of_updated BEFORE UPDATE OF id, user_id, collection, model, dimension, content_preview, payload, created_at, content, vector ON embeddings WHEN EXISTS (SELECT 1 FROM sync_log WHERE id = OLD.id AND tbl = 12 AND op = 'insert' AND patch IS NULL)
BEGIN
    UPDATE sync_log SET patch = json_object('id', OLD.id, 'user_id', OLD.user_id, 'collection', OLD.collection, 'model', OLD.model, 'dimension', OLD.dimension, 'content_preview', OLD.content_preview, 'payload', OLD.payload, 'created_at', OLD.created_at, 'content', OLD.content, 'vector', hex(OLD.vector)) WHERE id = OLD.id AND tbl = 12 AND op = 'insert' AND patch IS NULL;
END;

CREATE TRIGGER embeddings_capture_image_of_deleted BEFORE DELETE ON embeddings WHEN EXISTS (SELECT 1 FROM sync_log WHERE id = OLD.id AND tbl = 12 AND op = 'insert' AND patch IS NULL)
BEGIN
    UPDATE sync_log SET patch = json_object('id', OLD.id, 'user_id', OLD.user_id, 'collection', OLD.collection, 'model', OLD.model, 'dimension', OLD.dimension, 'content_preview', OLD.content_preview, 'payload', OLD.payload, 'created_at', OLD.created_at, 'content', OLD.content, 'vector', hex(OLD.vector)) WHERE id = OLD.id AND tbl = 12 AND op = 'insert' AND patch IS NULL;
END;

CREATE TRIGGER embeddings_capture_base BEFORE UPDATE ON embeddings WHEN (SELECT applying FROM sync_state) = 0 AND NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 12)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 12) AND (OLD.id IS NOT NEW.id OR OLD.user_id IS NOT NEW.user_id OR OLD.collection IS NOT NEW.collection OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.content_preview IS NOT NEW.content_preview OR OLD.payload IS NOT NEW.payload OR OLD.created_at IS NOT NEW.created_at OR OLD.updated_at IS NOT NEW.updated_at OR OLD.content IS NOT NEW.content OR OLD.vector IS NOT NEW.vector)
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 12, json_object('id', OLD.id, 'user_id', OLD.user_id, 'collection', OLD.collection, 'model', OLD.model, 'dimension', OLD.dimension, 'content_preview', OLD.content_preview, 'payload', OLD.payload, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at, 'content', OLD.content, 'vector', hex(OLD.vector));
END;

CREATE TRIGGER embeddings_capture_update AFTER UPDATE OF user_id, collection, model, dimension, content_preview, payload, created_at, content, vector ON embeddings WHEN (OLD.user_id IS NOT NEW.user_id OR OLD.collection IS NOT NEW.collection OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.content_preview IS NOT NEW.content_preview OR OLD.payload IS NOT NEW.payload OR OLD.created_at IS NOT NEW.created_at OR OLD.content IS NOT NEW.content OR OLD.vector IS NOT NEW.vector) AND (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 12, NEW.id, 'update', '{' || substr(CASE WHEN OLD.user_id IS NOT NEW.user_id THEN ',"user_id":' || json_quote(NEW.user_id) ELSE '' END
      || CASE WHEN OLD.collection IS NOT NEW.collection THEN ',"collection":' || json_quote(NEW.collection) ELSE '' END
      || CASE WHEN (OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.vector IS NOT NEW.vector OR OLD.content_preview IS NOT NEW.content_preview OR OLD.content IS NOT NEW.content OR OLD.payload IS NOT NEW.payload) THEN ',"model":' || json_quote(NEW.model) ELSE '' END
      || CASE WHEN (OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.vector IS NOT NEW.vector OR OLD.content_preview IS NOT NEW.content_preview OR OLD.content IS NOT NEW.content OR OLD.payload IS NOT NEW.payload) THEN ',"dimension":' || json_quote(NEW.dimension) ELSE '' END
      || CASE WHEN (OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.vector IS NOT NEW.vector OR OLD.content_preview IS NOT NEW.content_preview OR OLD.content IS NOT NEW.content OR OLD.payload IS NOT NEW.payload) THEN ',"content_preview":' || json_quote(NEW.content_preview) ELSE '' END
      || CASE WHEN (OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.vector IS NOT NEW.vector OR OLD.content_preview IS NOT NEW.content_preview OR OLD.content IS NOT NEW.content OR OLD.payload IS NOT NEW.payload) AND NOT (OLD.payload IS NEW.payload AND (NEW.payload IS '{"$agentdb":"value cannot be represented here"}') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 12 AND instr(p.columns, '"payload"') > 0)) THEN ',"payload":' || json_quote(NEW.payload) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(NEW.created_at) ELSE '' END
      || CASE WHEN (OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.vector IS NOT NEW.vector OR OLD.content_preview IS NOT NEW.content_preview OR OLD.content IS NOT NEW.content OR OLD.payload IS NOT NEW.payload) THEN ',"content":' || json_quote(NEW.content) ELSE '' END
      || CASE WHEN (OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.vector IS NOT NEW.vector OR OLD.content_preview IS NOT NEW.content_preview OR OLD.content IS NOT NEW.content OR OLD.payload IS NOT NEW.payload) AND NOT (OLD.vector IS NEW.vector AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 12 AND instr(p.columns, '"vector"') > 0)) THEN ',"vector":' || json_quote(hex(NEW.vector)) ELSE '' END, 2) || '}', '{' || substr(CASE WHEN OLD.user_id IS NOT NEW.user_id THEN ',"user_id":' || json_quote(OLD.user_id) ELSE '' END
      || CASE WHEN OLD.collection IS NOT NEW.collection THEN ',"collection":' || json_quote(OLD.collection) ELSE '' END
      || CASE WHEN (OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.vector IS NOT NEW.vector OR OLD.content_preview IS NOT NEW.content_preview OR OLD.content IS NOT NEW.content OR OLD.payload IS NOT NEW.payload) THEN ',"model":' || json_quote(OLD.model) ELSE '' END
      || CASE WHEN (OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.vector IS NOT NEW.vector OR OLD.content_preview IS NOT NEW.content_preview OR OLD.content IS NOT NEW.content OR OLD.payload IS NOT NEW.payload) THEN ',"dimension":' || json_quote(OLD.dimension) ELSE '' END
      || CASE WHEN (OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.vector IS NOT NEW.vector OR OLD.content_preview IS NOT NEW.content_preview OR OLD.content IS NOT NEW.content OR OLD.payload IS NOT NEW.payload) THEN ',"content_preview":' || json_quote(OLD.content_preview) ELSE '' END
      || CASE WHEN (OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.vector IS NOT NEW.vector OR OLD.content_preview IS NOT NEW.content_preview OR OLD.content IS NOT NEW.content OR OLD.payload IS NOT NEW.payload) AND NOT (OLD.payload IS NEW.payload AND (NEW.payload IS '{"$agentdb":"value cannot be represented here"}') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 12 AND instr(p.columns, '"payload"') > 0)) THEN ',"payload":' || json_quote(OLD.payload) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(OLD.created_at) ELSE '' END
      || CASE WHEN (OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.vector IS NOT NEW.vector OR OLD.content_preview IS NOT NEW.content_preview OR OLD.content IS NOT NEW.content OR OLD.payload IS NOT NEW.payload) THEN ',"content":' || json_quote(OLD.content) ELSE '' END
      || CASE WHEN (OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.vector IS NOT NEW.vector OR OLD.content_preview IS NOT NEW.content_preview OR OLD.content IS NOT NEW.content OR OLD.payload IS NOT NEW.payload) AND NOT (OLD.vector IS NEW.vector AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 12 AND instr(p.columns, '"vector"') > 0)) THEN ',"vector":' || json_quote(hex(OLD.vector)) ELSE '' END, 2) || '}', 1, NULL);
END;

CREATE TRIGGER embeddings_capture_delete AFTER DELETE ON embeddings WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 12, json_object('id', OLD.id, 'user_id', OLD.user_id, 'collection', OLD.collection, 'model', OLD.model, 'dimension', OLD.dimension, 'content_preview', OLD.content_preview, 'payload', OLD.payload, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at, 'content', OLD.content, 'vector', hex(OLD.vector)) WHERE NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 12)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 12);
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 12, OLD.id, 'delete', NULL, NULL, NOT ((OLD.user_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM users p WHERE p.id = OLD.user_id))), NULL);
END;

CREATE TRIGGER update_embeddings_updated_at AFTER UPDATE OF id, user_id, collection, model, dimension, content_preview, payload, created_at, content, vector ON embeddings WHEN NEW.updated_at IS OLD.updated_at AND (SELECT applying FROM sync_state) = 0 AND NEW.updated_at IS NOT strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') AND (OLD.id IS NOT NEW.id OR OLD.user_id IS NOT NEW.user_id OR OLD.collection IS NOT NEW.collection OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.content_preview IS NOT NEW.content_preview OR OLD.payload IS NOT NEW.payload OR OLD.created_at IS NOT NEW.created_at OR OLD.content IS NOT NEW.content OR OLD.vector IS NOT NEW.vector)
BEGIN
    UPDATE embeddings SET updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER embeddings_change_insert AFTER INSERT ON embeddings WHEN 1
BEGIN
    INSERT INTO embedding_changes (id, seq, gone, stamp) VALUES (NEW.id, (SELECT coalesce(max(seq), 0) + 1 FROM embedding_changes), 0, random() & 9007199254740991)
    ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, gone = excluded.gone, stamp = excluded.stamp;
END;

CREATE TRIGGER embeddings_change_update AFTER UPDATE ON embeddings WHEN OLD.vector IS NOT NEW.vector OR OLD.payload IS NOT NEW.payload OR OLD.collection IS NOT NEW.collection OR OLD.model IS NOT NEW.model OR OLD.user_id IS NOT NEW.user_id OR OLD.created_at IS NOT NEW.created_at
BEGIN
    INSERT INTO embedding_changes (id, seq, gone, stamp) VALUES (NEW.id, (SELECT coalesce(max(seq), 0) + 1 FROM embedding_changes), 0, random() & 9007199254740991)
    ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, gone = excluded.gone, stamp = excluded.stamp;
END;

CREATE TRIGGER embeddings_change_delete AFTER DELETE ON embeddings WHEN 1
BEGIN
    INSERT INTO embedding_changes (id, seq, gone, stamp) VALUES (OLD.id, (SELECT coalesce(max(seq), 0) + 1 FROM embedding_changes), 1, random() & 9007199254740991)
    ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, gone = excluded.gone, stamp = excluded.stamp;
    INSERT INTO forgotten_changes (name, seq)
    SELECT 'embedding_changes', max(o.seq) FROM (SELECT c.seq FROM embedding_changes c
      WHERE c.gone = 1 AND c.seq < (SELECT max(seq) FROM embedding_changes) - 100000 ORDER BY c.seq LIMIT 2) o
    WHERE true HAVING max(o.seq) IS NOT NULL
    ON CONFLICT (name) DO UPDATE SET seq = excluded.seq;
    DELETE FROM embedding_changes WHERE gone = 1 AND seq <= (SELECT f.seq FROM forgotten_changes f WHERE f.name = 'embedding_changes');
END;

CREATE TRIGGER memory_trajectories_guard_key BEFORE UPDATE OF id ON memory_trajectories WHEN OLD.id IS NOT NEW.id
BEGIN
    SELECT RAISE(ABORT, 'agentdb: memory_trajectories.id never changes');
END;

CREATE TRIGGER memory_trajectories_guard_stub_update BEFORE UPDATE ON memory_trajectories WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 13) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this memory_trajectories row is outside your scope');
END;

CREATE TRIGGER memory_trajectories_guard_stub_delete BEFORE DELETE ON memory_trajectories WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 13) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this memory_trajectories row is outside your scope');
END;

CREATE TRIGGER memory_trajectories_guard_fixed BEFORE UPDATE OF user_id, task_id, template_id, query, model, steps, attempt_group, created_at ON memory_trajectories WHEN (OLD.user_id IS NOT NEW.user_id OR OLD.task_id IS NOT NEW.task_id OR OLD.template_id IS NOT NEW.template_id OR OLD.query IS NOT NEW.query OR OLD.model IS NOT NEW.model OR OLD.steps IS NOT NEW.steps OR OLD.attempt_group IS NOT NEW.attempt_group OR OLD.created_at IS NOT NEW.created_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: memory_trajectories: agents cannot change user_id, task_id, template_id, query, model, steps, attempt_group, created_at');
END;

CREATE TRIGGER memory_trajectories_capture_insert AFTER INSERT ON memory_trajectories WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, ref, size)
    VALUES ((SELECT tx FROM sync_state), 13, NEW.id, 'insert', NULL, 162 + octet_length(NEW.task_id) + ifnull(octet_length(NEW.template_id), 0) + octet_length(NEW.query) + ifnull(octet_length(NEW.model), 0) + octet_length(NEW.steps) + octet_length(NEW.outcome) + ifnull(octet_length(NEW.judge), 0));
END;

CREATE TRIGGER memory_trajectories_capture_image_of_updated BEFORE UPDATE OF id, user_id, task_id, template_id, query, model, steps, attempt_group, outcome, judge, expires_at, created_at ON memory_trajectories WHEN EXISTS (SELECT 1 FROM sync_log WHERE id = OLD.id AND tbl = 13 AND op = 'insert' AND patch IS NULL)
BEGIN
    UPDATE sync_log SET patch = json_object('id', OLD.id, 'user_id', OLD.user_id, 'task_id', OLD.task_id, 'template_id', OLD.template_id, 'query', OLD.query, 'model', OLD.model, 'steps', OLD.steps, 'attempt_group', OLD.attempt_group, 'outcome', OLD.outcome, 'judge', OLD.judge, 'expires_at', OLD.expires_at, 'created_at', OLD.created_at) WHERE id = OLD.id AND tbl = 13 AND op = 'insert' AND patch IS NULL;
END;

CREATE TRIGGER memory_trajectories_capture_image_of_deleted BEFORE DELETE ON memory_trajectories WHEN EXISTS (SELECT 1 FROM sync_log WHERE id = OLD.id AND tbl = 13 AND op = 'insert' AND patch IS NULL)
BEGIN
    UPDATE sync_log SET patch = json_object('id', OLD.id, 'user_id', OLD.user_id, 'task_id', OLD.task_id, 'template_id', OLD.template_id, 'query', OLD.query, 'model', OLD.model, 'steps', OLD.steps, 'attempt_group', OLD.attempt_group, 'outcome', OLD.outcome, 'judge', OLD.judge, 'expires_at', OLD.expires_at, 'created_at', OLD.created_at) WHERE id = OLD.id AND tbl = 13 AND op = 'insert' AND patch IS NULL;
END;

CREATE TRIGGER memory_trajectories_capture_base BEFORE UPDATE ON memory_trajectories WHEN (SELECT applying FROM sync_state) = 0 AND NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 13)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 13) AND (OLD.id IS NOT NEW.id OR OLD.user_id IS NOT NEW.user_id OR OLD.task_id IS NOT NEW.task_id OR OLD.template_id IS NOT NEW.template_id OR OLD.query IS NOT NEW.query OR OLD.model IS NOT NEW.model OR OLD.steps IS NOT NEW.steps OR OLD.attempt_group IS NOT NEW.attempt_group OR OLD.outcome IS NOT NEW.outcome OR OLD.judge IS NOT NEW.judge OR OLD.expires_at IS NOT NEW.expires_at OR OLD.created_at IS NOT NEW.created_at OR OLD.updated_at IS NOT NEW.updated_at)
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 13, json_object('id', OLD.id, 'user_id', OLD.user_id, 'task_id', OLD.task_id, 'template_id', OLD.template_id, 'query', OLD.query, 'model', OLD.model, 'steps', OLD.steps, 'attempt_group', OLD.attempt_group, 'outcome', OLD.outcome, 'judge', OLD.judge, 'expires_at', OLD.expires_at, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at);
END;

CREATE TRIGGER memory_trajectories_capture_update AFTER UPDATE OF user_id, task_id, template_id, query, model, steps, attempt_group, outcome, judge, expires_at, created_at ON memory_trajectories WHEN (OLD.user_id IS NOT NEW.user_id OR OLD.task_id IS NOT NEW.task_id OR OLD.template_id IS NOT NEW.template_id OR OLD.query IS NOT NEW.query OR OLD.model IS NOT NEW.model OR OLD.steps IS NOT NEW.steps OR OLD.attempt_group IS NOT NEW.attempt_group OR OLD.outcome IS NOT NEW.outcome OR OLD.judge IS NOT NEW.judge OR OLD.expires_at IS NOT NEW.expires_at OR OLD.created_at IS NOT NEW.created_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 13, NEW.id, 'update', '{' || substr(CASE WHEN OLD.user_id IS NOT NEW.user_id THEN ',"user_id":' || json_quote(NEW.user_id) ELSE '' END
      || CASE WHEN OLD.task_id IS NOT NEW.task_id THEN ',"task_id":' || json_quote(NEW.task_id) ELSE '' END
      || CASE WHEN OLD.template_id IS NOT NEW.template_id THEN ',"template_id":' || json_quote(NEW.template_id) ELSE '' END
      || CASE WHEN OLD.query IS NOT NEW.query THEN ',"query":' || json_quote(NEW.query) ELSE '' END
      || CASE WHEN OLD.model IS NOT NEW.model THEN ',"model":' || json_quote(NEW.model) ELSE '' END
      || CASE WHEN OLD.steps IS NOT NEW.steps THEN ',"steps":' || json_quote(NEW.steps) ELSE '' END
      || CASE WHEN OLD.attempt_group IS NOT NEW.attempt_group THEN ',"attempt_group":' || json_quote(NEW.attempt_group) ELSE '' END
      || CASE WHEN (OLD.outcome IS NOT NEW.outcome OR OLD.judge IS NOT NEW.judge) THEN ',"outcome":' || json_quote(NEW.outcome) ELSE '' END
      || CASE WHEN (OLD.outcome IS NOT NEW.outcome OR OLD.judge IS NOT NEW.judge) AND NOT (OLD.judge IS NEW.judge AND (NEW.judge IS '{"$agentdb":"value cannot be represented here"}') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 13 AND instr(p.columns, '"judge"') > 0)) THEN ',"judge":' || json_quote(NEW.judge) ELSE '' END
      || CASE WHEN OLD.expires_at IS NOT NEW.expires_at THEN ',"expires_at":' || json_quote(NEW.expires_at) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(NEW.created_at) ELSE '' END, 2) || '}', '{' || substr(CASE WHEN OLD.user_id IS NOT NEW.user_id THEN ',"user_id":' || json_quote(OLD.user_id) ELSE '' END
      || CASE WHEN OLD.task_id IS NOT NEW.task_id THEN ',"task_id":' || json_quote(OLD.task_id) ELSE '' END
      || CASE WHEN OLD.template_id IS NOT NEW.template_id THEN ',"template_id":' || json_quote(OLD.template_id) ELSE '' END
      || CASE WHEN OLD.query IS NOT NEW.query THEN ',"query":' || json_quote(OLD.query) ELSE '' END
      || CASE WHEN OLD.model IS NOT NEW.model THEN ',"model":' || json_quote(OLD.model) ELSE '' END
      || CASE WHEN OLD.steps IS NOT NEW.steps THEN ',"steps":' || json_quote(OLD.steps) ELSE '' END
      || CASE WHEN OLD.attempt_group IS NOT NEW.attempt_group THEN ',"attempt_group":' || json_quote(OLD.attempt_group) ELSE '' END
      || CASE WHEN (OLD.outcome IS NOT NEW.outcome OR OLD.judge IS NOT NEW.judge) THEN ',"outcome":' || json_quote(OLD.outcome) ELSE '' END
      || CASE WHEN (OLD.outcome IS NOT NEW.outcome OR OLD.judge IS NOT NEW.judge) AND NOT (OLD.judge IS NEW.judge AND (NEW.judge IS '{"$agentdb":"value cannot be represented here"}') AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 13 AND instr(p.columns, '"judge"') > 0)) THEN ',"judge":' || json_quote(OLD.judge) ELSE '' END
      || CASE WHEN OLD.expires_at IS NOT NEW.expires_at THEN ',"expires_at":' || json_quote(OLD.expires_at) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(OLD.created_at) ELSE '' END, 2) || '}', 1, NULL);
END;

CREATE TRIGGER memory_trajectories_capture_delete AFTER DELETE ON memory_trajectories WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 13, json_object('id', OLD.id, 'user_id', OLD.user_id, 'task_id', OLD.task_id, 'template_id', OLD.template_id, 'query', OLD.query, 'model', OLD.model, 'steps', OLD.steps, 'attempt_group', OLD.attempt_group, 'outcome', OLD.outcome, 'judge', OLD.judge, 'expires_at', OLD.expires_at, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at) WHERE NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 13)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 13);
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 13, OLD.id, 'delete', NULL, NULL, NOT ((OLD.user_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM users p WHERE p.id = OLD.user_id))), NULL);
END;

CREATE TRIGGER update_memory_trajectories_updated_at AFTER UPDATE OF id, user_id, task_id, template_id, query, model, steps, attempt_group, outcome, judge, expires_at, created_at ON memory_trajectories WHEN NEW.updated_at IS OLD.updated_at AND (SELECT applying FROM sync_state) = 0 AND NEW.updated_at IS NOT strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') AND (OLD.id IS NOT NEW.id OR OLD.user_id IS NOT NEW.user_id OR OLD.task_id IS NOT NEW.task_id OR OLD.template_id IS NOT NEW.template_id OR OLD.query IS NOT NEW.query OR OLD.model IS NOT NEW.model OR OLD.steps IS NOT NEW.steps OR OLD.attempt_group IS NOT NEW.attempt_group OR OLD.outcome IS NOT NEW.outcome OR OLD.judge IS NOT NEW.judge OR OLD.expires_at IS NOT NEW.expires_at OR OLD.created_at IS NOT NEW.created_at)
BEGIN
    UPDATE memory_trajectories SET updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER memory_items_guard_key BEFORE UPDATE OF id ON memory_items WHEN OLD.id IS NOT NEW.id
BEGIN
    SELECT RAISE(ABORT, 'agentdb: memory_items.id never changes');
END;

CREATE TRIGGER memory_items_guard_stub_update BEFORE UPDATE ON memory_items WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 14) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this memory_items row is outside your scope');
END;

CREATE TRIGGER memory_items_guard_stub_delete BEFORE DELETE ON memory_items WHEN EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = 14) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: this memory_items row is outside your scope');
END;

CREATE TRIGGER memory_items_guard_fixed BEFORE UPDATE OF user_id, record_id, polarity, task_id, template_id, trajectory_ids, provenance_hash, created_at ON memory_items WHEN (OLD.user_id IS NOT NEW.user_id OR OLD.record_id IS NOT NEW.record_id OR OLD.polarity IS NOT NEW.polarity OR OLD.task_id IS NOT NEW.task_id OR OLD.template_id IS NOT NEW.template_id OR OLD.trajectory_ids IS NOT NEW.trajectory_ids OR OLD.provenance_hash IS NOT NEW.provenance_hash OR OLD.created_at IS NOT NEW.created_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    SELECT RAISE(ABORT, 'agentdb: memory_items: agents cannot change user_id, record_id, polarity, task_id, template_id, trajectory_ids, provenance_hash, created_at');
END;

CREATE TRIGGER memory_items_capture_insert AFTER INSERT ON memory_items WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 14, NEW.id, 'insert', json_object('id', NEW.id, 'user_id', NEW.user_id, 'record_id', NEW.record_id, 'polarity', NEW.polarity, 'task_id', NEW.task_id, 'template_id', NEW.template_id, 'trajectory_ids', NEW.trajectory_ids, 'provenance_hash', NEW.provenance_hash, 'title', NEW.title, 'description', NEW.description, 'content', NEW.content, 'source_query', NEW.source_query, 'model', NEW.model, 'dimension', NEW.dimension, 'query_vector', hex(NEW.query_vector), 'text_vector', iif(NEW.text_vector IS NULL, NULL, hex(NEW.text_vector)), 'retrieved_count', NEW.retrieved_count, 'used_count', NEW.used_count, 'helped_count', NEW.helped_count, 'hurt_count', NEW.hurt_count, 'last_used_at', NEW.last_used_at, 'superseded_by', NEW.superseded_by, 'contradicts', NEW.contradicts, 'kept_apart', NEW.kept_apart, 'expires_at', NEW.expires_at, 'created_at', NEW.created_at), NULL, 1, NULL);
END;

CREATE TRIGGER memory_items_capture_base BEFORE UPDATE ON memory_items WHEN (SELECT applying FROM sync_state) = 0 AND NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 14)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 14) AND (OLD.id IS NOT NEW.id OR OLD.user_id IS NOT NEW.user_id OR OLD.record_id IS NOT NEW.record_id OR OLD.polarity IS NOT NEW.polarity OR OLD.task_id IS NOT NEW.task_id OR OLD.template_id IS NOT NEW.template_id OR OLD.trajectory_ids IS NOT NEW.trajectory_ids OR OLD.provenance_hash IS NOT NEW.provenance_hash OR OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector OR OLD.retrieved_count IS NOT NEW.retrieved_count OR OLD.used_count IS NOT NEW.used_count OR OLD.helped_count IS NOT NEW.helped_count OR OLD.hurt_count IS NOT NEW.hurt_count OR OLD.last_used_at IS NOT NEW.last_used_at OR OLD.superseded_by IS NOT NEW.superseded_by OR OLD.contradicts IS NOT NEW.contradicts OR OLD.kept_apart IS NOT NEW.kept_apart OR OLD.expires_at IS NOT NEW.expires_at OR OLD.created_at IS NOT NEW.created_at OR OLD.updated_at IS NOT NEW.updated_at)
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 14, json_object('id', OLD.id, 'user_id', OLD.user_id, 'record_id', OLD.record_id, 'polarity', OLD.polarity, 'task_id', OLD.task_id, 'template_id', OLD.template_id, 'trajectory_ids', OLD.trajectory_ids, 'provenance_hash', OLD.provenance_hash, 'title', OLD.title, 'description', OLD.description, 'content', OLD.content, 'source_query', OLD.source_query, 'model', OLD.model, 'dimension', OLD.dimension, 'query_vector', hex(OLD.query_vector), 'text_vector', iif(OLD.text_vector IS NULL, NULL, hex(OLD.text_vector)), 'retrieved_count', OLD.retrieved_count, 'used_count', OLD.used_count, 'helped_count', OLD.helped_count, 'hurt_count', OLD.hurt_count, 'last_used_at', OLD.last_used_at, 'superseded_by', OLD.superseded_by, 'contradicts', OLD.contradicts, 'kept_apart', OLD.kept_apart, 'expires_at', OLD.expires_at, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at);
END;

CREATE TRIGGER memory_items_capture_update AFTER UPDATE OF user_id, record_id, polarity, task_id, template_id, trajectory_ids, provenance_hash, title, description, content, source_query, model, dimension, query_vector, text_vector, retrieved_count, used_count, helped_count, hurt_count, last_used_at, superseded_by, contradicts, kept_apart, expires_at, created_at ON memory_items WHEN (OLD.user_id IS NOT NEW.user_id OR OLD.record_id IS NOT NEW.record_id OR OLD.polarity IS NOT NEW.polarity OR OLD.task_id IS NOT NEW.task_id OR OLD.template_id IS NOT NEW.template_id OR OLD.trajectory_ids IS NOT NEW.trajectory_ids OR OLD.provenance_hash IS NOT NEW.provenance_hash OR OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector OR OLD.retrieved_count IS NOT NEW.retrieved_count OR OLD.used_count IS NOT NEW.used_count OR OLD.helped_count IS NOT NEW.helped_count OR OLD.hurt_count IS NOT NEW.hurt_count OR OLD.last_used_at IS NOT NEW.last_used_at OR OLD.superseded_by IS NOT NEW.superseded_by OR OLD.contradicts IS NOT NEW.contradicts OR OLD.kept_apart IS NOT NEW.kept_apart OR OLD.expires_at IS NOT NEW.expires_at OR OLD.created_at IS NOT NEW.created_at) AND (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 14, NEW.id, 'update', '{' || substr(CASE WHEN OLD.user_id IS NOT NEW.user_id THEN ',"user_id":' || json_quote(NEW.user_id) ELSE '' END
      || CASE WHEN OLD.record_id IS NOT NEW.record_id THEN ',"record_id":' || json_quote(NEW.record_id) ELSE '' END
      || CASE WHEN OLD.polarity IS NOT NEW.polarity THEN ',"polarity":' || json_quote(NEW.polarity) ELSE '' END
      || CASE WHEN OLD.task_id IS NOT NEW.task_id THEN ',"task_id":' || json_quote(NEW.task_id) ELSE '' END
      || CASE WHEN OLD.template_id IS NOT NEW.template_id THEN ',"template_id":' || json_quote(NEW.template_id) ELSE '' END
      || CASE WHEN OLD.trajectory_ids IS NOT NEW.trajectory_ids THEN ',"trajectory_ids":' || json_quote(NEW.trajectory_ids) ELSE '' END
      || CASE WHEN OLD.provenance_hash IS NOT NEW.provenance_hash THEN ',"provenance_hash":' || json_quote(NEW.provenance_hash) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) THEN ',"title":' || json_quote(NEW.title) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) THEN ',"description":' || json_quote(NEW.description) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) THEN ',"content":' || json_quote(NEW.content) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) THEN ',"source_query":' || json_quote(NEW.source_query) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) THEN ',"model":' || json_quote(NEW.model) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) THEN ',"dimension":' || json_quote(NEW.dimension) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) AND NOT (OLD.query_vector IS NEW.query_vector AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 14 AND instr(p.columns, '"query_vector"') > 0)) THEN ',"query_vector":' || json_quote(hex(NEW.query_vector)) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) AND NOT (OLD.text_vector IS NEW.text_vector AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 14 AND instr(p.columns, '"text_vector"') > 0)) THEN ',"text_vector":' || json_quote(iif(NEW.text_vector IS NULL, NULL, hex(NEW.text_vector))) ELSE '' END
      || CASE WHEN OLD.retrieved_count IS NOT NEW.retrieved_count THEN ',"retrieved_count":' || json_quote(NEW.retrieved_count) ELSE '' END
      || CASE WHEN OLD.used_count IS NOT NEW.used_count THEN ',"used_count":' || json_quote(NEW.used_count) ELSE '' END
      || CASE WHEN OLD.helped_count IS NOT NEW.helped_count THEN ',"helped_count":' || json_quote(NEW.helped_count) ELSE '' END
      || CASE WHEN OLD.hurt_count IS NOT NEW.hurt_count THEN ',"hurt_count":' || json_quote(NEW.hurt_count) ELSE '' END
      || CASE WHEN OLD.last_used_at IS NOT NEW.last_used_at THEN ',"last_used_at":' || json_quote(NEW.last_used_at) ELSE '' END
      || CASE WHEN OLD.superseded_by IS NOT NEW.superseded_by THEN ',"superseded_by":' || json_quote(NEW.superseded_by) ELSE '' END
      || CASE WHEN OLD.contradicts IS NOT NEW.contradicts THEN ',"contradicts":' || json_quote(NEW.contradicts) ELSE '' END
      || CASE WHEN OLD.kept_apart IS NOT NEW.kept_apart THEN ',"kept_apart":' || json_quote(NEW.kept_apart) ELSE '' END
      || CASE WHEN OLD.expires_at IS NOT NEW.expires_at THEN ',"expires_at":' || json_quote(NEW.expires_at) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(NEW.created_at) ELSE '' END, 2) || '}', '{' || substr(CASE WHEN OLD.user_id IS NOT NEW.user_id THEN ',"user_id":' || json_quote(OLD.user_id) ELSE '' END
      || CASE WHEN OLD.record_id IS NOT NEW.record_id THEN ',"record_id":' || json_quote(OLD.record_id) ELSE '' END
      || CASE WHEN OLD.polarity IS NOT NEW.polarity THEN ',"polarity":' || json_quote(OLD.polarity) ELSE '' END
      || CASE WHEN OLD.task_id IS NOT NEW.task_id THEN ',"task_id":' || json_quote(OLD.task_id) ELSE '' END
      || CASE WHEN OLD.template_id IS NOT NEW.template_id THEN ',"template_id":' || json_quote(OLD.template_id) ELSE '' END
      || CASE WHEN OLD.trajectory_ids IS NOT NEW.trajectory_ids THEN ',"trajectory_ids":' || json_quote(OLD.trajectory_ids) ELSE '' END
      || CASE WHEN OLD.provenance_hash IS NOT NEW.provenance_hash THEN ',"provenance_hash":' || json_quote(OLD.provenance_hash) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) THEN ',"title":' || json_quote(OLD.title) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) THEN ',"description":' || json_quote(OLD.description) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) THEN ',"content":' || json_quote(OLD.content) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) THEN ',"source_query":' || json_quote(OLD.source_query) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) THEN ',"model":' || json_quote(OLD.model) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) THEN ',"dimension":' || json_quote(OLD.dimension) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) AND NOT (OLD.query_vector IS NEW.query_vector AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 14 AND instr(p.columns, '"query_vector"') > 0)) THEN ',"query_vector":' || json_quote(hex(OLD.query_vector)) ELSE '' END
      || CASE WHEN (OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector) AND NOT (OLD.text_vector IS NEW.text_vector AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = 14 AND instr(p.columns, '"text_vector"') > 0)) THEN ',"text_vector":' || json_quote(iif(OLD.text_vector IS NULL, NULL, hex(OLD.text_vector))) ELSE '' END
      || CASE WHEN OLD.retrieved_count IS NOT NEW.retrieved_count THEN ',"retrieved_count":' || json_quote(OLD.retrieved_count) ELSE '' END
      || CASE WHEN OLD.used_count IS NOT NEW.used_count THEN ',"used_count":' || json_quote(OLD.used_count) ELSE '' END
      || CASE WHEN OLD.helped_count IS NOT NEW.helped_count THEN ',"helped_count":' || json_quote(OLD.helped_count) ELSE '' END
      || CASE WHEN OLD.hurt_count IS NOT NEW.hurt_count THEN ',"hurt_count":' || json_quote(OLD.hurt_count) ELSE '' END
      || CASE WHEN OLD.last_used_at IS NOT NEW.last_used_at THEN ',"last_used_at":' || json_quote(OLD.last_used_at) ELSE '' END
      || CASE WHEN OLD.superseded_by IS NOT NEW.superseded_by THEN ',"superseded_by":' || json_quote(OLD.superseded_by) ELSE '' END
      || CASE WHEN OLD.contradicts IS NOT NEW.contradicts THEN ',"contradicts":' || json_quote(OLD.contradicts) ELSE '' END
      || CASE WHEN OLD.kept_apart IS NOT NEW.kept_apart THEN ',"kept_apart":' || json_quote(OLD.kept_apart) ELSE '' END
      || CASE WHEN OLD.expires_at IS NOT NEW.expires_at THEN ',"expires_at":' || json_quote(OLD.expires_at) ELSE '' END
      || CASE WHEN OLD.created_at IS NOT NEW.created_at THEN ',"created_at":' || json_quote(OLD.created_at) ELSE '' END, 2) || '}', NOT ((NEW.superseded_by IS NULL AND OLD.superseded_by IS NOT NULL AND NOT EXISTS (SELECT 1 FROM memory_items p WHERE p.id = OLD.superseded_by))), NULL);
END;

CREATE TRIGGER memory_items_capture_delete AFTER DELETE ON memory_items WHEN (SELECT applying FROM sync_state) = 0
BEGIN
    INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, 14, json_object('id', OLD.id, 'user_id', OLD.user_id, 'record_id', OLD.record_id, 'polarity', OLD.polarity, 'task_id', OLD.task_id, 'template_id', OLD.template_id, 'trajectory_ids', OLD.trajectory_ids, 'provenance_hash', OLD.provenance_hash, 'title', OLD.title, 'description', OLD.description, 'content', OLD.content, 'source_query', OLD.source_query, 'model', OLD.model, 'dimension', OLD.dimension, 'query_vector', hex(OLD.query_vector), 'text_vector', iif(OLD.text_vector IS NULL, NULL, hex(OLD.text_vector)), 'retrieved_count', OLD.retrieved_count, 'used_count', OLD.used_count, 'helped_count', OLD.helped_count, 'hurt_count', OLD.hurt_count, 'last_used_at', OLD.last_used_at, 'superseded_by', OLD.superseded_by, 'contradicts', OLD.contradicts, 'kept_apart', OLD.kept_apart, 'expires_at', OLD.expires_at, 'created_at', OLD.created_at, 'updated_at', OLD.updated_at) WHERE NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = 14)
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = 14);
    INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), 14, OLD.id, 'delete', NULL, NULL, NOT ((OLD.user_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM users p WHERE p.id = OLD.user_id))), NULL);
END;

CREATE TRIGGER update_memory_items_updated_at AFTER UPDATE OF id, user_id, record_id, polarity, task_id, template_id, trajectory_ids, provenance_hash, title, description, content, source_query, model, dimension, query_vector, text_vector, retrieved_count, used_count, helped_count, hurt_count, last_used_at, superseded_by, contradicts, kept_apart, expires_at, created_at ON memory_items WHEN NEW.updated_at IS OLD.updated_at AND (SELECT applying FROM sync_state) = 0 AND NEW.updated_at IS NOT strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') AND (OLD.id IS NOT NEW.id OR OLD.user_id IS NOT NEW.user_id OR OLD.record_id IS NOT NEW.record_id OR OLD.polarity IS NOT NEW.polarity OR OLD.task_id IS NOT NEW.task_id OR OLD.template_id IS NOT NEW.template_id OR OLD.trajectory_ids IS NOT NEW.trajectory_ids OR OLD.provenance_hash IS NOT NEW.provenance_hash OR OLD.title IS NOT NEW.title OR OLD.description IS NOT NEW.description OR OLD.content IS NOT NEW.content OR OLD.source_query IS NOT NEW.source_query OR OLD.model IS NOT NEW.model OR OLD.dimension IS NOT NEW.dimension OR OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector OR OLD.retrieved_count IS NOT NEW.retrieved_count OR OLD.used_count IS NOT NEW.used_count OR OLD.helped_count IS NOT NEW.helped_count OR OLD.hurt_count IS NOT NEW.hurt_count OR OLD.last_used_at IS NOT NEW.last_used_at OR OLD.superseded_by IS NOT NEW.superseded_by OR OLD.contradicts IS NOT NEW.contradicts OR OLD.kept_apart IS NOT NEW.kept_apart OR OLD.expires_at IS NOT NEW.expires_at OR OLD.created_at IS NOT NEW.created_at)
BEGIN
    UPDATE memory_items SET updated_at = strftime('%Y-%m-%dT%H:%M:%f000Z', 'now') WHERE id = NEW.id;
END;

CREATE TRIGGER memory_items_change_insert AFTER INSERT ON memory_items WHEN 1
BEGIN
    INSERT INTO memory_changes (id, seq, gone, stamp) VALUES (NEW.id, (SELECT coalesce(max(seq), 0) + 1 FROM memory_changes), 0, random() & 9007199254740991)
    ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, gone = excluded.gone, stamp = excluded.stamp;
END;

CREATE TRIGGER memory_items_change_update AFTER UPDATE ON memory_items WHEN OLD.query_vector IS NOT NEW.query_vector OR OLD.text_vector IS NOT NEW.text_vector OR OLD.model IS NOT NEW.model OR OLD.superseded_by IS NOT NEW.superseded_by
BEGIN
    INSERT INTO memory_changes (id, seq, gone, stamp) VALUES (NEW.id, (SELECT coalesce(max(seq), 0) + 1 FROM memory_changes), 0, random() & 9007199254740991)
    ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, gone = excluded.gone, stamp = excluded.stamp;
END;

CREATE TRIGGER memory_items_change_delete AFTER DELETE ON memory_items WHEN 1
BEGIN
    INSERT INTO memory_changes (id, seq, gone, stamp) VALUES (OLD.id, (SELECT coalesce(max(seq), 0) + 1 FROM memory_changes), 1, random() & 9007199254740991)
    ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, gone = excluded.gone, stamp = excluded.stamp;
    INSERT INTO forgotten_changes (name, seq)
    SELECT 'memory_changes', max(o.seq) FROM (SELECT c.seq FROM memory_changes c
      WHERE c.gone = 1 AND c.seq < (SELECT max(seq) FROM memory_changes) - 100000 ORDER BY c.seq LIMIT 2) o
    WHERE true HAVING max(o.seq) IS NOT NULL
    ON CONFLICT (name) DO UPDATE SET seq = excluded.seq;
    DELETE FROM memory_changes WHERE gone = 1 AND seq <= (SELECT f.seq FROM forgotten_changes f WHERE f.name = 'memory_changes');
END;

CREATE VIEW active_sessions AS
SELECT s.id, s.user_id, u.email, u.username, s.status, s.ip_address, s.created_at, s.last_activity_at, s.expires_at,
  unixepoch('subsec') - unixepoch(s.last_activity_at, 'subsec') AS idle_seconds
FROM sessions s JOIN users u ON s.user_id = u.id
WHERE s.status = 'active'
  AND s.expires_at > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
  AND u.deleted_at IS NULL;

CREATE VIEW open_incidents_summary AS
SELECT severity, count(*) AS count, avg(unixepoch('subsec') - unixepoch(detected_at, 'subsec')) AS avg_age_seconds,
  max(detected_at) AS most_recent, min(detected_at) AS oldest
FROM incidents
WHERE status NOT IN ('resolved', 'closed') AND NOT EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = incidents.id AND b.tbl = 8)
GROUP BY severity;

CREATE VIEW workflow_execution_stats AS
SELECT w.id AS workflow_id, w.name AS workflow_name, count(we.id) AS total_executions,
  count(CASE WHEN we.status = 'success' THEN 1 END) AS successful_executions,
  count(CASE WHEN we.status = 'failed' THEN 1 END) AS failed_executions,
  avg(we.total_duration_ms) AS avg_duration_ms, max(we.completed_at) AS last_execution
FROM workflows w LEFT JOIN workflow_executions we ON w.id = we.workflow_id
WHERE w.deleted_at IS NULL AND NOT EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = w.id AND b.tbl = 5)
GROUP BY w.id, w.name;
