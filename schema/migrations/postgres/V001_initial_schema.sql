CREATE EXTENSION IF NOT EXISTS "uuid-ossp";

CREATE EXTENSION IF NOT EXISTS pgcrypto;

CREATE EXTENSION IF NOT EXISTS pg_trgm;

DO $$ BEGIN
  CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
EXCEPTION WHEN OTHERS THEN RAISE NOTICE 'pg_stat_statements is not available: %', SQLERRM;
END $$;

CREATE FUNCTION uuid_generate_v7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
  SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
    PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$;

CREATE TYPE user_role AS ENUM ('admin', 'developer', 'operator', 'viewer');

CREATE TYPE user_status AS ENUM ('active', 'inactive', 'suspended', 'pending');

CREATE TYPE session_status AS ENUM ('active', 'idle', 'terminated', 'expired');

CREATE TYPE workflow_status AS ENUM ('pending', 'running', 'completed', 'failed', 'cancelled', 'paused');

CREATE TYPE execution_status AS ENUM ('queued', 'running', 'success', 'failed', 'timeout', 'cancelled');

CREATE TYPE incident_severity AS ENUM ('critical', 'high', 'medium', 'low', 'info');

CREATE TYPE incident_status AS ENUM ('open', 'acknowledged', 'investigating', 'resolved', 'closed');

CREATE TYPE audit_action AS ENUM ('create', 'read', 'update', 'delete', 'execute', 'login', 'logout');

CREATE SCHEMA sync;

CREATE TABLE sync.history (
  nonce uuid PRIMARY KEY,
  first_position bigint NOT NULL,
  started text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE sync.batch (
  position bigint PRIMARY KEY,
  snapshot pg_snapshot NOT NULL,
  nonce uuid NOT NULL REFERENCES sync.history(nonce),
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE sync.floor (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  position bigint NOT NULL
);

CREATE TABLE sync.log (
  seq bigint GENERATED ALWAYS AS IDENTITY,
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  at timestamptz NOT NULL DEFAULT now(),
  tbl smallint NOT NULL,
  id uuid NOT NULL,
  op text NOT NULL CHECK (op IN ('insert', 'update', 'delete')),
  image jsonb,
  keys_before text[],
  keys_after text[]
) PARTITION BY RANGE (at);

CREATE TABLE sync.log_default PARTITION OF sync.log DEFAULT;

CREATE INDEX log_xid ON sync.log (xid, seq);

CREATE TABLE sync.row_meta (
  tbl smallint NOT NULL,
  id uuid NOT NULL,
  keys text[] NOT NULL,
  keys_before text[],
  deleted boolean NOT NULL DEFAULT false,
  xid xid8 NOT NULL,
  clock bigint NOT NULL,
  writer uuid,
  cols jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (tbl, id)
);

CREATE TABLE sync.client (
  client_id uuid PRIMARY KEY,
  user_id uuid NOT NULL,
  agent_id text NOT NULL,
  seq bigint NOT NULL DEFAULT 0,
  tx_id text,
  acked_seq bigint NOT NULL DEFAULT 0,
  ancestor uuid,
  common_seq bigint,
  common_clock bigint,
  introduced boolean NOT NULL DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  seen_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX client_ancestor ON sync.client (ancestor) WHERE ancestor IS NOT NULL;

CREATE TABLE sync.applied (
  tx_id text PRIMARY KEY,
  client_id uuid NOT NULL,
  seq bigint NOT NULL,
  clock bigint NOT NULL,
  at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX applied_at ON sync.applied USING brin (at) WITH (autosummarize = on);

CREATE TABLE sync.repeated (
  client_id uuid NOT NULL,
  seq bigint NOT NULL,
  tx_id text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (client_id, seq)
);

CREATE TABLE sync.outcome (
  client_id uuid NOT NULL,
  seq bigint NOT NULL,
  n integer NOT NULL,
  kind text NOT NULL CHECK (kind IN ('merged', 'superseded', 'rejected', 'dependency_failed', 'parked')),
  detail jsonb NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (client_id, seq, n)
);

CREATE TABLE sync.rejected (
  client_id uuid NOT NULL,
  tbl smallint NOT NULL,
  id uuid NOT NULL,
  seq bigint NOT NULL,
  n integer NOT NULL,
  PRIMARY KEY (client_id, tbl, id)
);

CREATE TABLE sync.conflict (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now(),
  tbl smallint NOT NULL,
  row_id uuid NOT NULL,
  loser uuid,
  winner uuid,
  lost jsonb NOT NULL,
  kept jsonb NOT NULL
);

CREATE INDEX conflict_row ON sync.conflict (tbl, row_id);

CREATE INDEX client_user ON sync.client (user_id);

CREATE INDEX conflict_loser ON sync.conflict (loser) WHERE loser IS NOT NULL;

CREATE INDEX conflict_winner ON sync.conflict (winner) WHERE winner IS NOT NULL;

CREATE TABLE sync.fork (
  nonce uuid PRIMARY KEY,
  common_nonce uuid,
  common_position bigint NOT NULL,
  noticed_at timestamptz NOT NULL DEFAULT now(),
  decision text CHECK (decision IN ('all', 'after', 'none')),
  after_clock bigint,
  decided_at timestamptz,
  open_until timestamptz
);

CREATE TABLE sync.healed (
  client_id uuid PRIMARY KEY,
  fork uuid NOT NULL,
  user_id uuid NOT NULL,
  agent_id text NOT NULL,
  ancestor uuid NOT NULL,
  offered integer NOT NULL,
  withheld integer NOT NULL,
  at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE sync.parked (
  tx_id text PRIMARY KEY,
  client_id uuid NOT NULL,
  makes uuid[] NOT NULL,
  at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE sync.tombstone (
  tbl smallint NOT NULL,
  id uuid NOT NULL,
  user_id uuid NOT NULL,
  role text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tbl, id, user_id)
);

CREATE TABLE sync.vector_state (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  nonce uuid,
  position bigint NOT NULL DEFAULT 0,
  snapshot pg_snapshot,
  epoch bigint NOT NULL DEFAULT 0,
  applied_at timestamptz,
  holder uuid,
  held_until timestamptz,
  failures integer NOT NULL DEFAULT 0,
  error text,
  error_at timestamptz
);

INSERT INTO sync.vector_state DEFAULT VALUES;

CREATE TABLE sync.vector_collection (
  name text PRIMARY KEY,
  collection text NOT NULL,
  model text NOT NULL,
  dimension integer NOT NULL,
  generation integer NOT NULL,
  state text NOT NULL CHECK (state IN ('filling', 'live', 'retired', 'off')),
  is_default boolean NOT NULL DEFAULT false,
  rows_done bigint NOT NULL DEFAULT 0,
  rows_total bigint NOT NULL DEFAULT 0,
  marked bigint NOT NULL DEFAULT 0,
  requested_at timestamptz NOT NULL DEFAULT now(),
  live_at timestamptz
);

CREATE UNIQUE INDEX vector_collection_default ON sync.vector_collection (collection) WHERE is_default;

CREATE TABLE sync.vector_dead (
  name text NOT NULL REFERENCES sync.vector_collection(name) ON DELETE CASCADE,
  id uuid NOT NULL,
  reason text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (name, id)
);

CREATE TABLE sync.setting (
  name text PRIMARY KEY,
  value text NOT NULL
);

CREATE FUNCTION sync.writer() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('agentdb.client', true), '')::uuid $$;

CREATE FUNCTION sync.clock() RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::bigint $$;

CREATE FUNCTION sync.current_user_id() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('app.user_id', true), '')::uuid $$;

CREATE FUNCTION sync.current_user_role() RETURNS text LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('app.user_role', true), '') $$;

CREATE FUNCTION sync.require_read_committed() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'agentdb: write synced tables under READ COMMITTED, not %', upper(current_setting('transaction_isolation'))
      USING HINT = 'A log image must be read after the row is locked; an older snapshot would serve an older row last.', ERRCODE = 'invalid_transaction_state';
  END IF;
END $$;

CREATE FUNCTION sync.refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'agentdb: TRUNCATE of % would not reach the agents; use DELETE', TG_TABLE_NAME USING ERRCODE = 'feature_not_supported';
END $$;

CREATE FUNCTION sync.ensure_log_partitions(weeks_ahead integer DEFAULT 2) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  first_day date;
  partition_name text;
BEGIN
  FOR week IN 0..weeks_ahead LOOP
    first_day := (date_trunc('week', now() AT TIME ZONE 'UTC') + week * interval '1 week')::date;
    partition_name := 'log_' || to_char(first_day, 'IYYY_"w"IW');
    CONTINUE WHEN to_regclass('sync.' || partition_name) IS NOT NULL;
    -- A week that already has rows in the default partition stays there; retention reads both.
    CONTINUE WHEN EXISTS (SELECT 1 FROM sync.log_default d WHERE d.at >= first_day::timestamp AT TIME ZONE 'UTC' AND d.at < (first_day + 7)::timestamp AT TIME ZONE 'UTC');
    EXECUTE format('CREATE TABLE sync.%I PARTITION OF sync.log FOR VALUES FROM (%L) TO (%L)', partition_name,
      first_day::timestamp AT TIME ZONE 'UTC', (first_day + 7)::timestamp AT TIME ZONE 'UTC');
  END LOOP;
END $$;

DO $$ BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'llm_copilot_app') THEN CREATE ROLE llm_copilot_app NOLOGIN; END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- another database of the cluster made it just now
END $$;

GRANT llm_copilot_app TO CURRENT_USER;

GRANT USAGE ON SCHEMA public, sync TO llm_copilot_app;

GRANT EXECUTE ON FUNCTION sync.current_user_id(), sync.current_user_role() TO llm_copilot_app;

CREATE TABLE users (
  id uuid NOT NULL DEFAULT uuid_generate_v7(),
  email varchar(255) NOT NULL,
  username varchar(100) NOT NULL,
  full_name varchar(255),
  password_hash varchar(255) NOT NULL,
  role user_role NOT NULL DEFAULT 'developer',
  status user_status NOT NULL DEFAULT 'pending',
  avatar_url text,
  timezone varchar(50) DEFAULT 'UTC',
  preferences jsonb DEFAULT '{}',
  mfa_enabled boolean DEFAULT false,
  mfa_secret varchar(255),
  api_key_hash varchar(255),
  last_login_at timestamptz,
  last_login_ip inet,
  failed_login_attempts integer DEFAULT 0,
  locked_until timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  CONSTRAINT users_pkey PRIMARY KEY (id),
  CONSTRAINT chk_email_format CHECK (email ~ '^[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}$'),
  CONSTRAINT chk_username_format CHECK (username ~ '^[A-Za-z0-9_-]{3,100}$')
);

CREATE UNIQUE INDEX uq_users_email ON users (lower(email)) WHERE deleted_at IS NULL;

CREATE UNIQUE INDEX uq_users_username ON users (lower(username)) WHERE deleted_at IS NULL;

CREATE INDEX idx_users_email ON users (email) WHERE deleted_at IS NULL;

CREATE INDEX idx_users_username ON users (username) WHERE deleted_at IS NULL;

CREATE INDEX idx_users_role ON users (role) WHERE deleted_at IS NULL;

CREATE INDEX idx_users_status ON users (status) WHERE deleted_at IS NULL;

CREATE INDEX idx_users_api_key ON users (api_key_hash) WHERE api_key_hash IS NOT NULL;

COMMENT ON TABLE users IS 'User accounts with authentication and authorization';

COMMENT ON COLUMN users.preferences IS 'User-specific settings: {theme, notifications, default_project}';

CREATE TABLE sessions (
  id uuid NOT NULL DEFAULT uuid_generate_v7(),
  user_id uuid NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  token_hash varchar(255) NOT NULL,
  refresh_token_hash varchar(255),
  status session_status NOT NULL DEFAULT 'active',
  ip_address inet NOT NULL,
  user_agent text,
  device_fingerprint varchar(255),
  context jsonb DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now(),
  last_activity_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  terminated_at timestamptz,
  CONSTRAINT sessions_pkey PRIMARY KEY (id),
  CONSTRAINT uq_sessions_token_hash UNIQUE (token_hash),
  CONSTRAINT uq_sessions_refresh_token_hash UNIQUE (refresh_token_hash),
  CONSTRAINT chk_expires_after_created CHECK (expires_at > created_at)
);

CREATE INDEX idx_sessions_user_id ON sessions (user_id);

CREATE INDEX idx_sessions_token ON sessions (token_hash) WHERE status = 'active';

CREATE INDEX idx_sessions_status ON sessions (status);

CREATE INDEX idx_sessions_active ON sessions (status) WHERE status = 'active';

CREATE INDEX idx_sessions_expires ON sessions (expires_at) WHERE status IN ('active', 'idle');

CREATE INDEX idx_sessions_last_activity ON sessions (last_activity_at) WHERE status = 'active';

COMMENT ON TABLE sessions IS 'User sessions with authentication tokens and context';

COMMENT ON COLUMN sessions.context IS 'Session context: {workspace_id, project_id, current_task}';

CREATE TABLE conversations (
  id uuid NOT NULL DEFAULT uuid_generate_v7(),
  session_id uuid REFERENCES sessions(id) ON DELETE SET NULL,
  user_id uuid NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  title varchar(500),
  description text,
  tags text[] DEFAULT '{}',
  context_snapshot jsonb DEFAULT '{}',
  system_prompt text,
  model_config jsonb DEFAULT '{}',
  message_count integer DEFAULT 0,
  total_tokens integer DEFAULT 0,
  total_cost_cents integer DEFAULT 0,
  started_at timestamptz NOT NULL DEFAULT now(),
  last_message_at timestamptz,
  ended_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  archived_at timestamptz,
  CONSTRAINT conversations_pkey PRIMARY KEY (id)
);

CREATE INDEX idx_conversations_user_id ON conversations (user_id);

CREATE INDEX idx_conversations_session_id ON conversations (session_id);

CREATE INDEX idx_conversations_started_at ON conversations (started_at DESC);

CREATE INDEX idx_conversations_tags ON conversations USING gin (tags);

CREATE INDEX idx_conversations_archived ON conversations (archived_at) WHERE archived_at IS NOT NULL;

COMMENT ON TABLE conversations IS 'Conversation threads with context and metadata';

COMMENT ON COLUMN conversations.context_snapshot IS 'Context at the start of the conversation';

COMMENT ON COLUMN conversations.model_config IS 'LLM config: {model, temperature, max_tokens, top_p}';

CREATE TABLE messages (
  id uuid NOT NULL DEFAULT uuid_generate_v7(),
  conversation_id uuid NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
  role varchar(20) NOT NULL,
  content text NOT NULL,
  content_type varchar(50) DEFAULT 'text',
  model varchar(100),
  tokens_used integer DEFAULT 0,
  latency_ms integer,
  tool_calls jsonb,
  tool_results jsonb,
  parent_message_id uuid REFERENCES messages(id) ON DELETE SET NULL,
  sequence_number integer NOT NULL,
  feedback_rating integer,
  feedback_comment text,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT messages_pkey PRIMARY KEY (id),
  CONSTRAINT chk_role CHECK (role IN ('user', 'assistant', 'system', 'tool')),
  CONSTRAINT messages_feedback_rating_check CHECK (feedback_rating BETWEEN 1 AND 5)
);

CREATE INDEX idx_messages_conversation_id ON messages (conversation_id);

CREATE INDEX idx_messages_created_at ON messages (created_at DESC);

CREATE INDEX idx_messages_sequence ON messages (conversation_id, sequence_number);

CREATE INDEX idx_messages_role ON messages (role);

CREATE INDEX idx_messages_parent ON messages (parent_message_id) WHERE parent_message_id IS NOT NULL;

COMMENT ON TABLE messages IS 'Individual messages within conversations';

COMMENT ON COLUMN messages.tool_calls IS 'Tool calls: [{name, arguments, id}]';

COMMENT ON COLUMN messages.tool_results IS 'Tool results: [{tool_call_id, result, error}]';

CREATE TABLE workflows (
  id uuid NOT NULL DEFAULT uuid_generate_v7(),
  user_id uuid NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  name varchar(255) NOT NULL,
  description text,
  version integer NOT NULL DEFAULT 1,
  definition jsonb NOT NULL,
  parameters jsonb DEFAULT '{}',
  environment_vars jsonb DEFAULT '{}',
  triggers jsonb DEFAULT '[]',
  tags text[] DEFAULT '{}',
  is_active boolean DEFAULT true,
  is_template boolean DEFAULT false,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  deleted_at timestamptz,
  CONSTRAINT workflows_pkey PRIMARY KEY (id),
  CONSTRAINT uq_workflow_name_version UNIQUE (user_id, name, version)
);

CREATE INDEX idx_workflows_user_id ON workflows (user_id);

CREATE INDEX idx_workflows_name ON workflows (name);

CREATE INDEX idx_workflows_tags ON workflows USING gin (tags);

CREATE INDEX idx_workflows_active ON workflows (is_active) WHERE deleted_at IS NULL;

CREATE INDEX idx_workflows_template ON workflows (is_template) WHERE is_template = TRUE;

COMMENT ON TABLE workflows IS 'Workflow definitions and configurations';

COMMENT ON COLUMN workflows.definition IS 'Workflow DAG: {steps: [{id, type, config, dependencies}]}';

COMMENT ON COLUMN workflows.parameters IS 'Default parameters';

COMMENT ON COLUMN workflows.environment_vars IS 'Environment variables';

COMMENT ON COLUMN workflows.triggers IS '[{type: ''schedule|webhook|event'', config}]';

CREATE TABLE workflow_executions (
  id uuid NOT NULL DEFAULT uuid_generate_v7(),
  workflow_id uuid NOT NULL REFERENCES workflows(id) ON DELETE CASCADE,
  user_id uuid NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  status execution_status NOT NULL DEFAULT 'queued',
  parameters jsonb DEFAULT '{}',
  environment jsonb DEFAULT '{}',
  trigger_type varchar(50),
  trigger_source jsonb,
  current_step varchar(255),
  completed_steps text[] DEFAULT '{}',
  failed_steps text[] DEFAULT '{}',
  outputs jsonb,
  error_message text,
  error_stack text,
  total_duration_ms integer,
  steps_executed integer DEFAULT 0,
  queued_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  completed_at timestamptz,
  cancelled_at timestamptz,
  CONSTRAINT workflow_executions_pkey PRIMARY KEY (id),
  CONSTRAINT chk_execution_timing CHECK ((started_at IS NULL OR started_at >= queued_at) AND (completed_at IS NULL OR started_at IS NULL OR completed_at >= started_at))
);

CREATE INDEX idx_workflow_executions_workflow_id ON workflow_executions (workflow_id);

CREATE INDEX idx_workflow_executions_user_id ON workflow_executions (user_id);

CREATE INDEX idx_workflow_executions_status ON workflow_executions (status);

CREATE INDEX idx_workflow_executions_queued_at ON workflow_executions (queued_at DESC);

CREATE INDEX idx_workflow_executions_trigger_type ON workflow_executions (trigger_type);

CREATE INDEX idx_workflow_executions_user_status_queued ON workflow_executions (user_id, status, queued_at DESC);

COMMENT ON TABLE workflow_executions IS 'Individual workflow execution instances';

COMMENT ON COLUMN workflow_executions.parameters IS 'Runtime parameters';

COMMENT ON COLUMN workflow_executions.environment IS 'Runtime environment';

COMMENT ON COLUMN workflow_executions.trigger_source IS 'What triggered this execution';

COMMENT ON COLUMN workflow_executions.outputs IS 'Final outputs of the workflow';

CREATE TABLE step_executions (
  id uuid NOT NULL DEFAULT uuid_generate_v7(),
  workflow_execution_id uuid NOT NULL REFERENCES workflow_executions(id) ON DELETE CASCADE,
  step_id varchar(255) NOT NULL,
  step_name varchar(255) NOT NULL,
  step_type varchar(100) NOT NULL,
  status execution_status NOT NULL DEFAULT 'queued',
  inputs jsonb,
  outputs jsonb,
  retry_count integer DEFAULT 0,
  max_retries integer DEFAULT 3,
  error_message text,
  duration_ms integer,
  queued_at timestamptz NOT NULL DEFAULT now(),
  started_at timestamptz,
  completed_at timestamptz,
  CONSTRAINT step_executions_pkey PRIMARY KEY (id)
);

CREATE INDEX idx_step_executions_workflow_execution ON step_executions (workflow_execution_id);

CREATE INDEX idx_step_executions_status ON step_executions (status);

CREATE INDEX idx_step_executions_step_id ON step_executions (step_id);

COMMENT ON TABLE step_executions IS 'Individual step executions within workflows';

COMMENT ON COLUMN step_executions.inputs IS 'Inputs of the step';

COMMENT ON COLUMN step_executions.outputs IS 'Outputs of the step';

CREATE TABLE incidents (
  id uuid NOT NULL DEFAULT uuid_generate_v7(),
  title varchar(500) NOT NULL,
  description text,
  severity incident_severity NOT NULL,
  status incident_status NOT NULL DEFAULT 'open',
  source varchar(100) NOT NULL,
  detection_method varchar(100),
  affected_services text[] DEFAULT '{}',
  affected_users_count integer DEFAULT 0,
  blast_radius jsonb,
  assigned_to uuid REFERENCES users(id) ON DELETE SET NULL,
  assigned_team varchar(100),
  metadata jsonb DEFAULT '{}',
  related_incidents uuid[],
  root_cause text,
  resolution_notes text,
  remediation_steps text[],
  detected_at timestamptz NOT NULL DEFAULT now(),
  acknowledged_at timestamptz,
  resolved_at timestamptz,
  closed_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT incidents_pkey PRIMARY KEY (id),
  CONSTRAINT chk_incident_timing CHECK ((acknowledged_at IS NULL OR acknowledged_at >= detected_at) AND (resolved_at IS NULL OR resolved_at >= detected_at) AND (closed_at IS NULL OR closed_at >= coalesce(resolved_at, detected_at)))
);

CREATE INDEX idx_incidents_severity ON incidents (severity) WHERE status NOT IN ('resolved', 'closed');

CREATE INDEX idx_incidents_status ON incidents (status);

CREATE INDEX idx_incidents_detected_at ON incidents (detected_at DESC);

CREATE INDEX idx_incidents_assigned_to ON incidents (assigned_to) WHERE assigned_to IS NOT NULL;

CREATE INDEX idx_incidents_affected_services ON incidents USING gin (affected_services);

CREATE INDEX idx_incidents_related ON incidents USING gin (related_incidents);

COMMENT ON TABLE incidents IS 'Production incidents with detection and resolution tracking';

COMMENT ON COLUMN incidents.blast_radius IS '{regions: [], services: [], user_segments: []}';

COMMENT ON COLUMN incidents.metadata IS 'Alert data, metrics, logs';

CREATE TABLE runbooks (
  id uuid NOT NULL DEFAULT uuid_generate_v7(),
  name varchar(255) NOT NULL,
  description text,
  version integer NOT NULL DEFAULT 1,
  trigger_conditions jsonb,
  steps jsonb NOT NULL,
  is_automated boolean DEFAULT false,
  automation_config jsonb,
  tags text[] DEFAULT '{}',
  owner_id uuid REFERENCES users(id) ON DELETE SET NULL,
  execution_count integer DEFAULT 0,
  success_count integer DEFAULT 0,
  last_executed_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  archived_at timestamptz,
  CONSTRAINT runbooks_pkey PRIMARY KEY (id),
  CONSTRAINT runbooks_name_key UNIQUE (name)
);

CREATE INDEX idx_runbooks_name ON runbooks (name) WHERE archived_at IS NULL;

CREATE INDEX idx_runbooks_tags ON runbooks USING gin (tags);

CREATE INDEX idx_runbooks_automated ON runbooks (is_automated) WHERE is_automated = TRUE;

CREATE INDEX idx_runbooks_owner ON runbooks (owner_id) WHERE owner_id IS NOT NULL;

COMMENT ON TABLE runbooks IS 'Incident response runbooks and playbooks';

COMMENT ON COLUMN runbooks.trigger_conditions IS '{severity: [], services: [], patterns: []}';

COMMENT ON COLUMN runbooks.steps IS '[{step_num, title, action, automated, required_role}]';

COMMENT ON COLUMN runbooks.automation_config IS 'Configuration for automated execution';

CREATE TABLE runbook_executions (
  id uuid NOT NULL DEFAULT uuid_generate_v7(),
  runbook_id uuid NOT NULL REFERENCES runbooks(id) ON DELETE CASCADE,
  incident_id uuid REFERENCES incidents(id) ON DELETE SET NULL,
  executed_by uuid NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  status execution_status NOT NULL DEFAULT 'running',
  is_automated boolean DEFAULT false,
  current_step integer,
  completed_steps integer[] DEFAULT '{}',
  step_results jsonb DEFAULT '[]',
  success boolean,
  notes text,
  started_at timestamptz NOT NULL DEFAULT now(),
  completed_at timestamptz,
  CONSTRAINT runbook_executions_pkey PRIMARY KEY (id)
);

CREATE INDEX idx_runbook_executions_runbook ON runbook_executions (runbook_id);

CREATE INDEX idx_runbook_executions_incident ON runbook_executions (incident_id);

CREATE INDEX idx_runbook_executions_started_at ON runbook_executions (started_at DESC);

CREATE INDEX idx_runbook_executions_executed_by ON runbook_executions (executed_by);

COMMENT ON TABLE runbook_executions IS 'Runbook execution history and results';

COMMENT ON COLUMN runbook_executions.step_results IS '[{step_num, status, output, duration_ms}]';

CREATE TABLE audit_logs (
  id uuid NOT NULL DEFAULT uuid_generate_v7(),
  user_id uuid,
  session_id uuid,
  action audit_action NOT NULL,
  resource_type varchar(100) NOT NULL,
  resource_id uuid,
  description text,
  changes jsonb,
  metadata jsonb DEFAULT '{}',
  ip_address inet,
  user_agent text,
  success boolean NOT NULL DEFAULT true,
  error_message text,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT audit_logs_pkey PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);

CREATE INDEX idx_audit_logs_user_id ON audit_logs (user_id, created_at DESC);

CREATE INDEX idx_audit_logs_resource ON audit_logs (resource_type, resource_id, created_at DESC);

CREATE INDEX idx_audit_logs_action ON audit_logs (action, created_at DESC);

CREATE INDEX idx_audit_logs_created_at ON audit_logs (created_at DESC);

COMMENT ON TABLE audit_logs IS 'Comprehensive audit trail with 1-year retention (partitioned monthly)';

COMMENT ON COLUMN audit_logs.changes IS '{before: {}, after: {}} of an update';

COMMENT ON COLUMN audit_logs.metadata IS 'Request id and other context';

CREATE TABLE embeddings (
  id uuid NOT NULL DEFAULT uuid_generate_v7(),
  user_id uuid NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  collection varchar(64) NOT NULL,
  model varchar(100) NOT NULL,
  dimension integer NOT NULL,
  content_preview varchar(500),
  payload jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  content text,
  vector bytea NOT NULL,
  CONSTRAINT embeddings_pkey PRIMARY KEY (id),
  CONSTRAINT chk_embedding_collection CHECK (collection IN ('code_embeddings', 'documentation_embeddings', 'conversation_embeddings', 'incident_knowledge')),
  CONSTRAINT chk_embedding_dimension CHECK (dimension BETWEEN 1 AND 65535 AND octet_length(vector) = dimension * 4)
);

CREATE INDEX idx_embeddings_collection ON embeddings (collection, model);

CREATE INDEX idx_embeddings_user_id ON embeddings (user_id);

CREATE INDEX idx_embeddings_conversation ON embeddings (substr((payload ->> 'conversation_id'), 1, 36)) WHERE collection = 'conversation_embeddings';

COMMENT ON TABLE embeddings IS 'Vectors with their payload; the truth behind every vector index';

COMMENT ON COLUMN embeddings.payload IS 'Fields of the collection: path and language, title and section, conversation, incident';

COMMENT ON COLUMN embeddings.content IS 'What was embedded, whole: text search reads it';

CREATE TABLE memory_trajectories (
  id uuid NOT NULL DEFAULT uuid_generate_v7(),
  user_id uuid NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  task_id varchar(255) NOT NULL,
  template_id varchar(255),
  query text NOT NULL,
  model varchar(100),
  steps jsonb NOT NULL DEFAULT '[]',
  attempt_group uuid,
  outcome varchar(20) NOT NULL DEFAULT 'unknown',
  judge jsonb,
  expires_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT memory_trajectories_pkey PRIMARY KEY (id),
  CONSTRAINT chk_memory_outcome CHECK (outcome IN ('success', 'failure', 'impossible', 'unknown'))
);

CREATE INDEX idx_memory_trajectories_user_id ON memory_trajectories (user_id);

CREATE INDEX idx_memory_trajectories_task ON memory_trajectories (task_id);

CREATE INDEX idx_memory_trajectories_attempts ON memory_trajectories (attempt_group) WHERE attempt_group IS NOT NULL;

CREATE INDEX idx_memory_trajectories_expires ON memory_trajectories (expires_at) WHERE expires_at IS NOT NULL;

COMMENT ON TABLE memory_trajectories IS 'What agents did for their tasks, and how it was judged';

COMMENT ON COLUMN memory_trajectories.template_id IS 'Kind of task: many tasks differ in details only';

COMMENT ON COLUMN memory_trajectories.query IS 'The task in words';

COMMENT ON COLUMN memory_trajectories.model IS 'Model of the agent that acted';

COMMENT ON COLUMN memory_trajectories.steps IS '[{think, action}], or as the agent has them';

COMMENT ON COLUMN memory_trajectories.attempt_group IS 'Several attempts of one task, to be compared';

COMMENT ON COLUMN memory_trajectories.judge IS '{label, thoughts, model, confidence}';

CREATE TABLE memory_items (
  id uuid NOT NULL DEFAULT uuid_generate_v7(),
  user_id uuid NOT NULL REFERENCES users(id) ON DELETE CASCADE,
  record_id uuid NOT NULL,
  polarity varchar(20) NOT NULL,
  task_id varchar(255),
  template_id varchar(255),
  trajectory_ids uuid[] NOT NULL DEFAULT '{}',
  provenance_hash varchar(64),
  title varchar(500) NOT NULL,
  description text NOT NULL,
  content text NOT NULL,
  source_query text NOT NULL,
  model varchar(100) NOT NULL,
  dimension integer NOT NULL,
  query_vector bytea NOT NULL,
  text_vector bytea,
  retrieved_count integer NOT NULL DEFAULT 0,
  used_count integer NOT NULL DEFAULT 0,
  helped_count integer NOT NULL DEFAULT 0,
  hurt_count integer NOT NULL DEFAULT 0,
  last_used_at timestamptz,
  superseded_by uuid REFERENCES memory_items(id) ON DELETE SET NULL,
  contradicts uuid[] NOT NULL DEFAULT '{}',
  kept_apart uuid[] NOT NULL DEFAULT '{}',
  expires_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT memory_items_pkey PRIMARY KEY (id),
  CONSTRAINT chk_memory_polarity CHECK (polarity IN ('success', 'failure', 'contrast')),
  CONSTRAINT chk_memory_vectors CHECK (dimension BETWEEN 1 AND 65535 AND octet_length(query_vector) = dimension * 4 AND (text_vector IS NULL OR octet_length(text_vector) = dimension * 4))
);

CREATE INDEX idx_memory_items_user_id ON memory_items (user_id);

CREATE INDEX idx_memory_items_record ON memory_items (record_id);

CREATE INDEX idx_memory_items_superseded ON memory_items (superseded_by) WHERE superseded_by IS NOT NULL;

CREATE INDEX idx_memory_items_expires ON memory_items (expires_at) WHERE expires_at IS NOT NULL;

COMMENT ON TABLE memory_items IS 'Lessons distilled from trajectories, found by the embedding of their task';

COMMENT ON COLUMN memory_items.record_id IS 'Items of one distillation: found and shown together';

COMMENT ON COLUMN memory_items.trajectory_ids IS 'What it was distilled from';

COMMENT ON COLUMN memory_items.provenance_hash IS 'SHA-256 of those trajectories and of the first wording';

COMMENT ON COLUMN memory_items.description IS 'One sentence: when to use it, or when not';

COMMENT ON COLUMN memory_items.source_query IS 'The task in words: what query_vector embeds';

COMMENT ON COLUMN memory_items.model IS 'Model of both vectors';

COMMENT ON COLUMN memory_items.text_vector IS 'Embeds title, description and content';

COMMENT ON COLUMN memory_items.kept_apart IS 'Items that look alike and are not to be merged with it';

CREATE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at = now();
  RETURN NEW;
END $$;

CREATE FUNCTION update_conversation_stats() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  PERFORM 1 FROM conversations c WHERE c.id = ANY (ARRAY(SELECT DISTINCT m.conversation_id FROM changed m)) ORDER BY c.id FOR NO KEY UPDATE;
  UPDATE conversations c SET
    message_count = coalesce(c.message_count, 0) + TG_ARGV[0]::integer * s.messages,
    total_tokens = coalesce(c.total_tokens, 0) + TG_ARGV[0]::integer * s.tokens,
    last_message_at = CASE WHEN TG_OP = 'INSERT' THEN greatest(c.last_message_at, s.latest) ELSE c.last_message_at END
  FROM (SELECT m.conversation_id, count(*)::integer AS messages, coalesce(sum(m.tokens_used), 0)::integer AS tokens, max(m.created_at) AS latest
    FROM changed m GROUP BY m.conversation_id) s
  WHERE c.id = s.conversation_id;
  RETURN NULL;
END $$;

CREATE TRIGGER update_conversation_stats_on_message AFTER INSERT ON messages REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION update_conversation_stats('1');

CREATE TRIGGER update_conversation_stats_on_message_delete AFTER DELETE ON messages REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION update_conversation_stats('-1');

CREATE FUNCTION update_conversation_stats_of_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off SET enable_nestloop = off SET enable_mergejoin = off AS $$
DECLARE touched uuid[];
BEGIN
  touched := ARRAY(SELECT n.id FROM new_rows n JOIN old_rows o ON o.id = n.id WHERE (o.conversation_id, o.tokens_used) IS DISTINCT FROM (n.conversation_id, n.tokens_used));
  IF cardinality(touched) = 0 THEN RETURN NULL; END IF;
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true);
  PERFORM 1 FROM conversations c WHERE c.id = ANY (ARRAY(
      SELECT o.conversation_id FROM old_rows o WHERE o.id = ANY (touched) UNION SELECT n.conversation_id FROM new_rows n WHERE n.id = ANY (touched)))
    ORDER BY c.id FOR NO KEY UPDATE;
  UPDATE conversations c SET
    message_count = coalesce(c.message_count, 0) + s.messages,
    total_tokens = coalesce(c.total_tokens, 0) + s.tokens,
    last_message_at = greatest(c.last_message_at, s.latest)
  FROM (SELECT m.conversation_id, sum(m.messages)::integer AS messages, sum(m.tokens)::integer AS tokens, max(m.latest) AS latest
    FROM (SELECT o.conversation_id, -1 AS messages, -coalesce(o.tokens_used, 0) AS tokens, NULL::timestamptz AS latest FROM old_rows o WHERE o.id = ANY (touched)
      UNION ALL SELECT n.conversation_id, 1, coalesce(n.tokens_used, 0), n.created_at FROM new_rows n WHERE n.id = ANY (touched)) m
    GROUP BY m.conversation_id) s
  WHERE c.id = s.conversation_id;
  RETURN NULL;
END $$;

CREATE TRIGGER update_conversation_stats_on_message_update AFTER UPDATE ON messages REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION update_conversation_stats_of_changed();

CREATE FUNCTION move_conversation_embeddings() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE along uuid[];
BEGIN
  along := ARRAY(SELECT e.id FROM embeddings e WHERE e.collection = 'conversation_embeddings'
    AND substr((e.payload ->> 'conversation_id'), 1, 36) = NEW.id::text AND e.user_id = OLD.user_id ORDER BY e.id FOR NO KEY UPDATE);
  IF cardinality(along) = 0 THEN RETURN NULL; END IF;
  UPDATE embeddings e SET user_id = NEW.user_id,
    payload = CASE WHEN e.payload ->> 'user_id' = OLD.user_id::text THEN jsonb_set(e.payload, '{user_id}', to_jsonb(NEW.user_id::text)) ELSE e.payload END
  WHERE e.id = ANY (along);
  RETURN NULL;
END $$;

CREATE TRIGGER move_conversation_embeddings AFTER UPDATE OF user_id ON conversations FOR EACH ROW
  WHEN (OLD.user_id IS DISTINCT FROM NEW.user_id) EXECUTE FUNCTION move_conversation_embeddings();

CREATE FUNCTION create_audit_log() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC' AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO audit_logs (user_id, action, resource_type, resource_id, changes)
    SELECT sync.current_user_id(), 'create', TG_TABLE_NAME, n.id, jsonb_build_object('after', to_jsonb(n) - ARRAY['password_hash', 'mfa_secret', 'api_key_hash', 'environment_vars']) FROM new_rows n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO audit_logs (user_id, action, resource_type, resource_id, changes)
    SELECT sync.current_user_id(), 'update', TG_TABLE_NAME, n.id,
      jsonb_build_object('before', to_jsonb(o) - ARRAY['password_hash', 'mfa_secret', 'api_key_hash', 'environment_vars'], 'after', to_jsonb(n) - ARRAY['password_hash', 'mfa_secret', 'api_key_hash', 'environment_vars'])
    FROM new_rows n JOIN old_rows o ON o.id = n.id;
  ELSE
    INSERT INTO audit_logs (user_id, action, resource_type, resource_id, changes)
    SELECT sync.current_user_id(), 'delete', TG_TABLE_NAME, o.id, jsonb_build_object('before', to_jsonb(o) - ARRAY['password_hash', 'mfa_secret', 'api_key_hash', 'environment_vars']) FROM old_rows o;
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER audit_users_insert AFTER INSERT ON users REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log();

CREATE TRIGGER audit_users_update AFTER UPDATE ON users REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log();

CREATE TRIGGER audit_users_delete AFTER DELETE ON users REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log();

CREATE TRIGGER audit_workflows_insert AFTER INSERT ON workflows REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log();

CREATE TRIGGER audit_workflows_update AFTER UPDATE ON workflows REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log();

CREATE TRIGGER audit_workflows_delete AFTER DELETE ON workflows REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log();

CREATE TRIGGER audit_incidents_insert AFTER INSERT ON incidents REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log();

CREATE TRIGGER audit_incidents_update AFTER UPDATE ON incidents REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log();

CREATE TRIGGER audit_incidents_delete AFTER DELETE ON incidents REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log();

CREATE TRIGGER audit_runbooks_insert AFTER INSERT ON runbooks REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log();

CREATE TRIGGER audit_runbooks_update AFTER UPDATE ON runbooks REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log();

CREATE TRIGGER audit_runbooks_delete AFTER DELETE ON runbooks REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log();

CREATE TABLE audit_logs_default PARTITION OF audit_logs DEFAULT;

CREATE SCHEMA audit_archive;

CREATE FUNCTION create_audit_logs_partition(partition_date date) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  first_day timestamptz := date_trunc('month', partition_date)::timestamp AT TIME ZONE 'UTC';
  next_day timestamptz := (date_trunc('month', partition_date) + interval '1 month')::timestamp AT TIME ZONE 'UTC';
  partition_name text := 'audit_logs_' || to_char(partition_date, 'YYYY_MM');
BEGIN
  IF to_regclass('public.' || partition_name) IS NOT NULL THEN RETURN partition_name; END IF;
  LOCK TABLE audit_logs_default IN ACCESS EXCLUSIVE MODE;
  EXECUTE format('CREATE TABLE %I (LIKE audit_logs INCLUDING ALL)', partition_name);
  EXECUTE format('WITH moved AS (DELETE FROM audit_logs_default WHERE created_at >= %L AND created_at < %L RETURNING *) INSERT INTO %I SELECT * FROM moved', first_day, next_day, partition_name);
  EXECUTE format('ALTER TABLE audit_logs ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition_name, first_day, next_day);
  RETURN partition_name;
END $$;

CREATE FUNCTION drop_old_audit_logs_partitions(retention_months integer DEFAULT 12) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  part record;
  cutoff timestamptz := date_trunc('month', now() AT TIME ZONE 'UTC' - make_interval(months => retention_months)) AT TIME ZONE 'UTC';
BEGIN
  FOR part IN
    SELECT c.relname, (regexp_match(pg_get_expr(c.relpartbound, c.oid), $re$TO \('([^']+)'\)$re$))[1]::timestamptz AS upper_bound
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'public.audit_logs'::regclass AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
  LOOP
    CONTINUE WHEN part.upper_bound IS NULL OR part.upper_bound > cutoff;
    EXECUTE format('ALTER TABLE audit_logs DETACH PARTITION %I', part.relname);
    EXECUTE format('ALTER TABLE %I SET SCHEMA audit_archive', part.relname);
    RETURN NEXT part.relname;
  END LOOP;
END $$;

CREATE TRIGGER update_users_updated_at BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

CREATE TRIGGER update_conversations_updated_at BEFORE UPDATE ON conversations FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

CREATE TRIGGER update_workflows_updated_at BEFORE UPDATE ON workflows FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

CREATE TRIGGER update_incidents_updated_at BEFORE UPDATE ON incidents FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

CREATE TRIGGER update_runbooks_updated_at BEFORE UPDATE ON runbooks FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

CREATE TRIGGER update_embeddings_updated_at BEFORE UPDATE ON embeddings FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

CREATE TRIGGER update_memory_trajectories_updated_at BEFORE UPDATE ON memory_trajectories FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

CREATE TRIGGER update_memory_items_updated_at BEFORE UPDATE ON memory_items FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

CREATE VIEW active_sessions AS
SELECT s.id, s.user_id, u.email, u.username, s.status, s.ip_address, s.created_at, s.last_activity_at, s.expires_at,
  extract(epoch FROM (now() - s.last_activity_at))::double precision AS idle_seconds
FROM sessions s JOIN users u ON s.user_id = u.id
WHERE s.status = 'active' AND s.expires_at > now() AND u.deleted_at IS NULL;

CREATE VIEW open_incidents_summary AS
SELECT severity, count(*) AS count, avg(extract(epoch FROM (now() - detected_at)))::double precision AS avg_age_seconds,
  max(detected_at) AS most_recent, min(detected_at) AS oldest
FROM incidents WHERE status NOT IN ('resolved', 'closed') GROUP BY severity;

CREATE VIEW workflow_execution_stats AS
SELECT w.id AS workflow_id, w.name AS workflow_name, count(we.id) AS total_executions,
  count(*) FILTER (WHERE we.status = 'success') AS successful_executions,
  count(*) FILTER (WHERE we.status = 'failed') AS failed_executions,
  avg(we.total_duration_ms)::double precision AS avg_duration_ms, max(we.completed_at) AS last_execution
FROM workflows w LEFT JOIN workflow_executions we ON w.id = we.workflow_id
WHERE w.deleted_at IS NULL GROUP BY w.id, w.name;

CREATE FUNCTION sync.keys_of_users(row_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, sync, pg_temp AS $$
DECLARE found_keys text[];
BEGIN
  SELECT ARRAY['u:' || t.id::text, 'p'] INTO found_keys FROM users t WHERE t.id = row_id;
  IF found_keys IS NULL THEN RAISE EXCEPTION 'agentdb: no scope keys for users %', row_id USING ERRCODE = 'foreign_key_violation'; END IF;
  RETURN found_keys;
END $$;

CREATE FUNCTION sync.keys_of_sessions(row_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, sync, pg_temp AS $$
DECLARE found_keys text[];
BEGIN
  SELECT ARRAY['u:' || t.user_id::text] INTO found_keys FROM sessions t WHERE t.id = row_id;
  IF found_keys IS NULL THEN RAISE EXCEPTION 'agentdb: no scope keys for sessions %', row_id USING ERRCODE = 'foreign_key_violation'; END IF;
  RETURN found_keys;
END $$;

CREATE FUNCTION sync.keys_of_conversations(row_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, sync, pg_temp AS $$
DECLARE found_keys text[];
BEGIN
  SELECT ARRAY['u:' || t.user_id::text] INTO found_keys FROM conversations t WHERE t.id = row_id;
  IF found_keys IS NULL THEN RAISE EXCEPTION 'agentdb: no scope keys for conversations %', row_id USING ERRCODE = 'foreign_key_violation'; END IF;
  RETURN found_keys;
END $$;

CREATE FUNCTION sync.keys_of_messages(row_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, sync, pg_temp AS $$
DECLARE found_keys text[];
BEGIN
  SELECT coalesce((SELECT p.keys FROM sync.row_meta p WHERE p.tbl = 3 AND p.id = t.conversation_id), sync.keys_of_conversations(t.conversation_id)) INTO found_keys FROM messages t WHERE t.id = row_id;
  IF found_keys IS NULL THEN RAISE EXCEPTION 'agentdb: no scope keys for messages %', row_id USING ERRCODE = 'foreign_key_violation'; END IF;
  RETURN found_keys;
END $$;

CREATE FUNCTION sync.keys_of_workflows(row_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, sync, pg_temp AS $$
DECLARE found_keys text[];
BEGIN
  SELECT ARRAY['u:' || t.user_id::text] INTO found_keys FROM workflows t WHERE t.id = row_id;
  IF found_keys IS NULL THEN RAISE EXCEPTION 'agentdb: no scope keys for workflows %', row_id USING ERRCODE = 'foreign_key_violation'; END IF;
  RETURN found_keys;
END $$;

CREATE FUNCTION sync.keys_of_workflow_executions(row_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, sync, pg_temp AS $$
DECLARE found_keys text[];
BEGIN
  SELECT ARRAY['u:' || t.user_id::text] INTO found_keys FROM workflow_executions t WHERE t.id = row_id;
  IF found_keys IS NULL THEN RAISE EXCEPTION 'agentdb: no scope keys for workflow_executions %', row_id USING ERRCODE = 'foreign_key_violation'; END IF;
  RETURN found_keys;
END $$;

CREATE FUNCTION sync.keys_of_step_executions(row_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, sync, pg_temp AS $$
DECLARE found_keys text[];
BEGIN
  SELECT coalesce((SELECT p.keys FROM sync.row_meta p WHERE p.tbl = 6 AND p.id = t.workflow_execution_id), sync.keys_of_workflow_executions(t.workflow_execution_id)) INTO found_keys FROM step_executions t WHERE t.id = row_id;
  IF found_keys IS NULL THEN RAISE EXCEPTION 'agentdb: no scope keys for step_executions %', row_id USING ERRCODE = 'foreign_key_violation'; END IF;
  RETURN found_keys;
END $$;

CREATE FUNCTION sync.keys_of_incidents(row_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, sync, pg_temp AS $$
DECLARE found_keys text[];
BEGIN
  SELECT CASE WHEN t.assigned_to IS NULL THEN ARRAY['incidents'] ELSE ARRAY['incidents', 'u:' || t.assigned_to::text] END INTO found_keys FROM incidents t WHERE t.id = row_id;
  IF found_keys IS NULL THEN RAISE EXCEPTION 'agentdb: no scope keys for incidents %', row_id USING ERRCODE = 'foreign_key_violation'; END IF;
  RETURN found_keys;
END $$;

CREATE FUNCTION sync.keys_of_runbooks(row_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, sync, pg_temp AS $$
DECLARE found_keys text[];
BEGIN
  SELECT CASE WHEN t.owner_id IS NULL THEN ARRAY['runbooks'] ELSE ARRAY['runbooks', 'u:' || t.owner_id::text] END INTO found_keys FROM runbooks t WHERE t.id = row_id;
  IF found_keys IS NULL THEN RAISE EXCEPTION 'agentdb: no scope keys for runbooks %', row_id USING ERRCODE = 'foreign_key_violation'; END IF;
  RETURN found_keys;
END $$;

CREATE FUNCTION sync.keys_of_runbook_executions(row_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, sync, pg_temp AS $$
DECLARE found_keys text[];
BEGIN
  SELECT CASE WHEN t.executed_by IS NULL THEN ARRAY['incidents'] ELSE ARRAY['incidents', 'u:' || t.executed_by::text] END INTO found_keys FROM runbook_executions t WHERE t.id = row_id;
  IF found_keys IS NULL THEN RAISE EXCEPTION 'agentdb: no scope keys for runbook_executions %', row_id USING ERRCODE = 'foreign_key_violation'; END IF;
  RETURN found_keys;
END $$;

CREATE FUNCTION sync.keys_of_embeddings(row_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, sync, pg_temp AS $$
DECLARE found_keys text[];
BEGIN
  SELECT ARRAY['u:' || t.user_id::text] INTO found_keys FROM embeddings t WHERE t.id = row_id;
  IF found_keys IS NULL THEN RAISE EXCEPTION 'agentdb: no scope keys for embeddings %', row_id USING ERRCODE = 'foreign_key_violation'; END IF;
  RETURN found_keys;
END $$;

CREATE FUNCTION sync.keys_of_memory_trajectories(row_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, sync, pg_temp AS $$
DECLARE found_keys text[];
BEGIN
  SELECT ARRAY['u:' || t.user_id::text] INTO found_keys FROM memory_trajectories t WHERE t.id = row_id;
  IF found_keys IS NULL THEN RAISE EXCEPTION 'agentdb: no scope keys for memory_trajectories %', row_id USING ERRCODE = 'foreign_key_violation'; END IF;
  RETURN found_keys;
END $$;

CREATE FUNCTION sync.keys_of_memory_items(row_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, sync, pg_temp AS $$
DECLARE found_keys text[];
BEGIN
  SELECT ARRAY['u:' || t.user_id::text] INTO found_keys FROM memory_items t WHERE t.id = row_id;
  IF found_keys IS NULL THEN RAISE EXCEPTION 'agentdb: no scope keys for memory_items %', row_id USING ERRCODE = 'foreign_key_violation'; END IF;
  RETURN found_keys;
END $$;

CREATE FUNCTION sync.move_below_conversations(moved uuid[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE below uuid[];
BEGIN
  below := ARRAY(SELECT c.id FROM messages c WHERE c.conversation_id = ANY (moved) ORDER BY c.id);
  PERFORM 1 FROM sync.row_meta m WHERE m.tbl = 4 AND m.id = ANY (below) ORDER BY m.id FOR UPDATE;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer)
  SELECT 4, b.id, p.keys, p.keys_before, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM unnest(below) b(id)
  CROSS JOIN LATERAL (SELECT c.conversation_id AS parent FROM messages c WHERE c.id = b.id OFFSET 0) c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 3 AND own.id = c.parent OFFSET 0) p
  ORDER BY b.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = m.keys;
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 4, b.id, 'update', t.image, m.keys_before, m.keys
  FROM unnest(below) b(id)
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 4 AND own.id = b.id OFFSET 0) m
  CROSS JOIN LATERAL (SELECT to_jsonb(t) AS image FROM messages t WHERE t.id = b.id OFFSET 0) t
  ORDER BY b.id;
END $$;

CREATE FUNCTION sync.move_below_workflow_executions(moved uuid[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE below uuid[];
BEGIN
  below := ARRAY(SELECT c.id FROM step_executions c WHERE c.workflow_execution_id = ANY (moved) ORDER BY c.id);
  PERFORM 1 FROM sync.row_meta m WHERE m.tbl = 7 AND m.id = ANY (below) ORDER BY m.id FOR UPDATE;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer)
  SELECT 7, b.id, p.keys, p.keys_before, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM unnest(below) b(id)
  CROSS JOIN LATERAL (SELECT c.workflow_execution_id AS parent FROM step_executions c WHERE c.id = b.id OFFSET 0) c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 6 AND own.id = c.parent OFFSET 0) p
  ORDER BY b.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = m.keys;
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 7, b.id, 'update', t.image, m.keys_before, m.keys
  FROM unnest(below) b(id)
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 7 AND own.id = b.id OFFSET 0) m
  CROSS JOIN LATERAL (SELECT to_jsonb(t) AS image FROM step_executions t WHERE t.id = b.id OFFSET 0) t
  ORDER BY b.id;
END $$;

CREATE FUNCTION sync.capture_users_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, xid, clock, writer)
  SELECT 1, n.id, ARRAY['u:' || n.id::text, 'p'], pg_current_xact_id(), sync.clock(), sync.writer()
  FROM new_rows n ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = NULL, deleted = false,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 1, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'insert' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 1 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) - ARRAY['password_hash', 'mfa_secret', 'api_key_hash', 'last_login_ip', 'failed_login_attempts', 'locked_until'] AS image FROM users t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_users_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  IF EXISTS (SELECT 1 FROM old_rows o FULL JOIN new_rows n ON n.id = o.id WHERE n.id IS NULL OR o.id IS NULL) THEN
    RAISE EXCEPTION 'agentdb: users.id never changes; delete the row and insert another' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer, cols)
  SELECT 1, n.id, ARRAY['u:' || n.id::text, 'p'], ARRAY['u:' || o.id::text, 'p'], pg_current_xact_id(), sync.clock(), sync.writer(),
    jsonb_strip_nulls(jsonb_build_object(
      'email', CASE WHEN o.email IS DISTINCT FROM n.email THEN stamp.value END,
      'username', CASE WHEN o.username IS DISTINCT FROM n.username THEN stamp.value END,
      'full_name', CASE WHEN o.full_name IS DISTINCT FROM n.full_name THEN stamp.value END,
      'role', CASE WHEN o.role IS DISTINCT FROM n.role THEN stamp.value END,
      'status', CASE WHEN o.status IS DISTINCT FROM n.status THEN stamp.value END,
      'avatar_url', CASE WHEN o.avatar_url IS DISTINCT FROM n.avatar_url THEN stamp.value END,
      'timezone', CASE WHEN o.timezone IS DISTINCT FROM n.timezone THEN stamp.value END,
      'preferences', CASE WHEN o.preferences IS DISTINCT FROM n.preferences THEN stamp.value END,
      'mfa_enabled', CASE WHEN o.mfa_enabled IS DISTINCT FROM n.mfa_enabled THEN stamp.value END,
      'last_login_at', CASE WHEN o.last_login_at IS DISTINCT FROM n.last_login_at THEN stamp.value END,
      'created_at', CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN stamp.value END,
      'deleted_at', CASE WHEN o.deleted_at IS DISTINCT FROM n.deleted_at THEN stamp.value END))
  FROM new_rows n JOIN old_rows o ON o.id = n.id,
    (SELECT jsonb_build_array(pg_current_xact_id()::text, sync.clock(), sync.writer()) AS value) stamp
  ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = m.keys, cols = m.cols || excluded.cols;
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 1, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'update' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 1 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) - ARRAY['password_hash', 'mfa_secret', 'api_key_hash', 'last_login_ip', 'failed_login_attempts', 'locked_until'] AS image FROM users t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;

  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_users_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, deleted, xid, clock, writer)
  SELECT 1, o.id, k.keys, k.keys, true, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM old_rows o, LATERAL (SELECT coalesce((SELECT own.keys FROM sync.row_meta own WHERE own.tbl = 1 AND own.id = o.id), ARRAY['u:' || o.id::text, 'p']) AS keys) k
  ORDER BY o.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys_before = m.keys, deleted = true,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 1, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'delete' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM old_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 1 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) - ARRAY['password_hash', 'mfa_secret', 'api_key_hash', 'last_login_ip', 'failed_login_attempts', 'locked_until'] AS image FROM users t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE TRIGGER zz_sync_capture_insert AFTER INSERT ON users REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_users_insert();
ALTER TABLE users ENABLE ALWAYS TRIGGER zz_sync_capture_insert;

CREATE TRIGGER zz_sync_capture_update AFTER UPDATE ON users REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_users_update();
ALTER TABLE users ENABLE ALWAYS TRIGGER zz_sync_capture_update;

CREATE TRIGGER zz_sync_capture_delete AFTER DELETE ON users REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_users_delete();
ALTER TABLE users ENABLE ALWAYS TRIGGER zz_sync_capture_delete;

CREATE TRIGGER sync_refuse_truncate BEFORE TRUNCATE ON users FOR EACH STATEMENT EXECUTE FUNCTION sync.refuse_truncate();

ALTER TABLE users ENABLE ALWAYS TRIGGER sync_refuse_truncate;

CREATE FUNCTION sync.capture_sessions_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, xid, clock, writer)
  SELECT 2, n.id, ARRAY['u:' || n.user_id::text], pg_current_xact_id(), sync.clock(), sync.writer()
  FROM new_rows n ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = NULL, deleted = false,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 2, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'insert' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 2 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) - ARRAY['token_hash', 'refresh_token_hash'] AS image FROM sessions t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_sessions_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  IF EXISTS (SELECT 1 FROM old_rows o FULL JOIN new_rows n ON n.id = o.id WHERE n.id IS NULL OR o.id IS NULL) THEN
    RAISE EXCEPTION 'agentdb: sessions.id never changes; delete the row and insert another' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer, cols)
  SELECT 2, n.id, ARRAY['u:' || n.user_id::text], ARRAY['u:' || o.user_id::text], pg_current_xact_id(), sync.clock(), sync.writer(),
    jsonb_strip_nulls(jsonb_build_object(
      'user_id', CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN stamp.value END,
      'status', CASE WHEN o.status IS DISTINCT FROM n.status THEN stamp.value END,
      'ip_address', CASE WHEN o.ip_address IS DISTINCT FROM n.ip_address THEN stamp.value END,
      'user_agent', CASE WHEN o.user_agent IS DISTINCT FROM n.user_agent THEN stamp.value END,
      'device_fingerprint', CASE WHEN o.device_fingerprint IS DISTINCT FROM n.device_fingerprint THEN stamp.value END,
      'context', CASE WHEN o.context IS DISTINCT FROM n.context THEN stamp.value END,
      'created_at', CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN stamp.value END,
      'last_activity_at', CASE WHEN o.last_activity_at IS DISTINCT FROM n.last_activity_at THEN stamp.value END,
      'expires_at', CASE WHEN o.expires_at IS DISTINCT FROM n.expires_at THEN stamp.value END,
      'terminated_at', CASE WHEN o.terminated_at IS DISTINCT FROM n.terminated_at THEN stamp.value END))
  FROM new_rows n JOIN old_rows o ON o.id = n.id,
    (SELECT jsonb_build_array(pg_current_xact_id()::text, sync.clock(), sync.writer()) AS value) stamp
  ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = m.keys, cols = m.cols || excluded.cols;
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 2, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'update' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 2 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) - ARRAY['token_hash', 'refresh_token_hash'] AS image FROM sessions t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;

  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_sessions_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, deleted, xid, clock, writer)
  SELECT 2, o.id, k.keys, k.keys, true, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM old_rows o, LATERAL (SELECT coalesce((SELECT own.keys FROM sync.row_meta own WHERE own.tbl = 2 AND own.id = o.id), ARRAY['u:' || o.user_id::text]) AS keys) k
  ORDER BY o.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys_before = m.keys, deleted = true,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 2, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'delete' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM old_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 2 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) - ARRAY['token_hash', 'refresh_token_hash'] AS image FROM sessions t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE TRIGGER zz_sync_capture_insert AFTER INSERT ON sessions REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_sessions_insert();
ALTER TABLE sessions ENABLE ALWAYS TRIGGER zz_sync_capture_insert;

CREATE TRIGGER zz_sync_capture_update AFTER UPDATE ON sessions REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_sessions_update();
ALTER TABLE sessions ENABLE ALWAYS TRIGGER zz_sync_capture_update;

CREATE TRIGGER zz_sync_capture_delete AFTER DELETE ON sessions REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_sessions_delete();
ALTER TABLE sessions ENABLE ALWAYS TRIGGER zz_sync_capture_delete;

CREATE TRIGGER sync_refuse_truncate BEFORE TRUNCATE ON sessions FOR EACH STATEMENT EXECUTE FUNCTION sync.refuse_truncate();

ALTER TABLE sessions ENABLE ALWAYS TRIGGER sync_refuse_truncate;

CREATE FUNCTION sync.capture_conversations_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, xid, clock, writer)
  SELECT 3, n.id, ARRAY['u:' || n.user_id::text], pg_current_xact_id(), sync.clock(), sync.writer()
  FROM new_rows n ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = NULL, deleted = false,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 3, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'insert' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 3 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM conversations t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_conversations_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
DECLARE moved uuid[];
BEGIN
  PERFORM sync.require_read_committed();
  IF EXISTS (SELECT 1 FROM old_rows o FULL JOIN new_rows n ON n.id = o.id WHERE n.id IS NULL OR o.id IS NULL) THEN
    RAISE EXCEPTION 'agentdb: conversations.id never changes; delete the row and insert another' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  moved := ARRAY(SELECT n.id FROM new_rows n JOIN old_rows o ON o.id = n.id WHERE o.user_id IS DISTINCT FROM n.user_id ORDER BY n.id);
  IF cardinality(moved) > 0 THEN
    PERFORM 1 FROM sync.row_meta m WHERE m.tbl = 3 AND m.id = ANY (moved) ORDER BY m.id FOR UPDATE;
  END IF;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer, cols)
  SELECT 3, n.id, ARRAY['u:' || n.user_id::text], ARRAY['u:' || o.user_id::text], pg_current_xact_id(), sync.clock(), sync.writer(),
    jsonb_strip_nulls(jsonb_build_object(
      'session_id', CASE WHEN o.session_id IS DISTINCT FROM n.session_id THEN stamp.value END,
      'user_id', CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN stamp.value END,
      'title', CASE WHEN o.title IS DISTINCT FROM n.title THEN stamp.value END,
      'description', CASE WHEN o.description IS DISTINCT FROM n.description THEN stamp.value END,
      'tags', CASE WHEN o.tags IS DISTINCT FROM n.tags THEN stamp.value END,
      'context_snapshot', CASE WHEN o.context_snapshot IS DISTINCT FROM n.context_snapshot THEN stamp.value END,
      'system_prompt', CASE WHEN o.system_prompt IS DISTINCT FROM n.system_prompt THEN stamp.value END,
      'model_config', CASE WHEN o.model_config IS DISTINCT FROM n.model_config THEN stamp.value END,
      'total_cost_cents', CASE WHEN o.total_cost_cents IS DISTINCT FROM n.total_cost_cents THEN stamp.value END,
      'started_at', CASE WHEN o.started_at IS DISTINCT FROM n.started_at THEN stamp.value END,
      'ended_at', CASE WHEN o.ended_at IS DISTINCT FROM n.ended_at THEN stamp.value END,
      'created_at', CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN stamp.value END,
      'archived_at', CASE WHEN o.archived_at IS DISTINCT FROM n.archived_at THEN stamp.value END))
  FROM new_rows n JOIN old_rows o ON o.id = n.id,
    (SELECT jsonb_build_array(pg_current_xact_id()::text, sync.clock(), sync.writer()) AS value) stamp
  ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = m.keys, cols = m.cols || excluded.cols;
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 3, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'update' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 3 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM conversations t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  IF cardinality(moved) > 0 THEN PERFORM sync.move_below_conversations(moved); END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_conversations_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, deleted, xid, clock, writer)
  SELECT 3, o.id, k.keys, k.keys, true, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM old_rows o, LATERAL (SELECT coalesce((SELECT own.keys FROM sync.row_meta own WHERE own.tbl = 3 AND own.id = o.id), ARRAY['u:' || o.user_id::text]) AS keys) k
  ORDER BY o.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys_before = m.keys, deleted = true,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 3, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'delete' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM old_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 3 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM conversations t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE TRIGGER zz_sync_capture_insert AFTER INSERT ON conversations REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_conversations_insert();
ALTER TABLE conversations ENABLE ALWAYS TRIGGER zz_sync_capture_insert;

CREATE TRIGGER zz_sync_capture_update AFTER UPDATE ON conversations REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_conversations_update();
ALTER TABLE conversations ENABLE ALWAYS TRIGGER zz_sync_capture_update;

CREATE TRIGGER zz_sync_capture_delete AFTER DELETE ON conversations REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_conversations_delete();
ALTER TABLE conversations ENABLE ALWAYS TRIGGER zz_sync_capture_delete;

CREATE TRIGGER sync_refuse_truncate BEFORE TRUNCATE ON conversations FOR EACH STATEMENT EXECUTE FUNCTION sync.refuse_truncate();

ALTER TABLE conversations ENABLE ALWAYS TRIGGER sync_refuse_truncate;

CREATE FUNCTION sync.capture_messages_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  PERFORM 1 FROM sync.row_meta p WHERE p.tbl = 3
    AND p.id = ANY (ARRAY(SELECT DISTINCT n.conversation_id FROM new_rows n)) ORDER BY p.id FOR KEY SHARE;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, xid, clock, writer)
  SELECT 4, n.id, coalesce((SELECT p.keys FROM sync.row_meta p WHERE p.tbl = 3 AND p.id = n.conversation_id), sync.keys_of_conversations(n.conversation_id)), pg_current_xact_id(), sync.clock(), sync.writer()
  FROM new_rows n ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = NULL, deleted = false,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 4, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'insert' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 4 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM messages t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_messages_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
DECLARE moved uuid[];
BEGIN
  PERFORM sync.require_read_committed();
  IF EXISTS (SELECT 1 FROM old_rows o FULL JOIN new_rows n ON n.id = o.id WHERE n.id IS NULL OR o.id IS NULL) THEN
    RAISE EXCEPTION 'agentdb: messages.id never changes; delete the row and insert another' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  moved := ARRAY(SELECT n.id FROM new_rows n JOIN old_rows o ON o.id = n.id WHERE o.conversation_id IS DISTINCT FROM n.conversation_id ORDER BY n.id);
  IF cardinality(moved) > 0 THEN
    PERFORM 1 FROM sync.row_meta p WHERE p.tbl = 3 AND p.id = ANY (ARRAY(
      SELECT n.conversation_id FROM new_rows n WHERE n.id = ANY (moved) UNION SELECT o.conversation_id FROM old_rows o WHERE o.id = ANY (moved)))
    ORDER BY p.id FOR KEY SHARE;
  END IF;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer, cols)
  SELECT 4, n.id, coalesce((SELECT p.keys FROM sync.row_meta p WHERE p.tbl = 3 AND p.id = n.conversation_id), sync.keys_of_conversations(n.conversation_id)), coalesce((SELECT p.keys FROM sync.row_meta p WHERE p.tbl = 3 AND p.id = o.conversation_id), sync.keys_of_conversations(o.conversation_id)), pg_current_xact_id(), sync.clock(), sync.writer(),
    jsonb_strip_nulls(jsonb_build_object(
      'conversation_id', CASE WHEN o.conversation_id IS DISTINCT FROM n.conversation_id THEN stamp.value END,
      'role', CASE WHEN o.role IS DISTINCT FROM n.role THEN stamp.value END,
      'content', CASE WHEN o.content IS DISTINCT FROM n.content THEN stamp.value END,
      'content_type', CASE WHEN o.content_type IS DISTINCT FROM n.content_type THEN stamp.value END,
      'model', CASE WHEN o.model IS DISTINCT FROM n.model THEN stamp.value END,
      'tokens_used', CASE WHEN o.tokens_used IS DISTINCT FROM n.tokens_used THEN stamp.value END,
      'latency_ms', CASE WHEN o.latency_ms IS DISTINCT FROM n.latency_ms THEN stamp.value END,
      'tool_calls', CASE WHEN o.tool_calls IS DISTINCT FROM n.tool_calls THEN stamp.value END,
      'tool_results', CASE WHEN o.tool_results IS DISTINCT FROM n.tool_results THEN stamp.value END,
      'parent_message_id', CASE WHEN o.parent_message_id IS DISTINCT FROM n.parent_message_id THEN stamp.value END,
      'sequence_number', CASE WHEN o.sequence_number IS DISTINCT FROM n.sequence_number THEN stamp.value END,
      'feedback_rating', CASE WHEN o.feedback_rating IS DISTINCT FROM n.feedback_rating THEN stamp.value END,
      'feedback_comment', CASE WHEN o.feedback_comment IS DISTINCT FROM n.feedback_comment THEN stamp.value END,
      'created_at', CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN stamp.value END))
  FROM new_rows n JOIN old_rows o ON o.id = n.id,
    (SELECT jsonb_build_array(pg_current_xact_id()::text, sync.clock(), sync.writer()) AS value) stamp
  ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = CASE WHEN excluded.cols ? 'conversation_id' THEN excluded.keys ELSE m.keys END, keys_before = m.keys, cols = m.cols || excluded.cols;
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 4, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'update' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 4 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM messages t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;

  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_messages_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, deleted, xid, clock, writer)
  SELECT 4, o.id, k.keys, k.keys, true, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM old_rows o, LATERAL (SELECT coalesce((SELECT own.keys FROM sync.row_meta own WHERE own.tbl = 4 AND own.id = o.id), coalesce((SELECT p.keys FROM sync.row_meta p WHERE p.tbl = 3 AND p.id = o.conversation_id), sync.keys_of_conversations(o.conversation_id))) AS keys) k
  ORDER BY o.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys_before = m.keys, deleted = true,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 4, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'delete' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM old_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 4 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM messages t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE TRIGGER zz_sync_capture_insert AFTER INSERT ON messages REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_messages_insert();
ALTER TABLE messages ENABLE ALWAYS TRIGGER zz_sync_capture_insert;

CREATE TRIGGER zz_sync_capture_update AFTER UPDATE ON messages REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_messages_update();
ALTER TABLE messages ENABLE ALWAYS TRIGGER zz_sync_capture_update;

CREATE TRIGGER zz_sync_capture_delete AFTER DELETE ON messages REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_messages_delete();
ALTER TABLE messages ENABLE ALWAYS TRIGGER zz_sync_capture_delete;

CREATE TRIGGER sync_refuse_truncate BEFORE TRUNCATE ON messages FOR EACH STATEMENT EXECUTE FUNCTION sync.refuse_truncate();

ALTER TABLE messages ENABLE ALWAYS TRIGGER sync_refuse_truncate;

CREATE FUNCTION sync.capture_workflows_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, xid, clock, writer)
  SELECT 5, n.id, ARRAY['u:' || n.user_id::text], pg_current_xact_id(), sync.clock(), sync.writer()
  FROM new_rows n ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = NULL, deleted = false,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 5, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'insert' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 5 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM workflows t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_workflows_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  IF EXISTS (SELECT 1 FROM old_rows o FULL JOIN new_rows n ON n.id = o.id WHERE n.id IS NULL OR o.id IS NULL) THEN
    RAISE EXCEPTION 'agentdb: workflows.id never changes; delete the row and insert another' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer, cols)
  SELECT 5, n.id, ARRAY['u:' || n.user_id::text], ARRAY['u:' || o.user_id::text], pg_current_xact_id(), sync.clock(), sync.writer(),
    jsonb_strip_nulls(jsonb_build_object(
      'user_id', CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN stamp.value END,
      'name', CASE WHEN o.name IS DISTINCT FROM n.name THEN stamp.value END,
      'description', CASE WHEN o.description IS DISTINCT FROM n.description THEN stamp.value END,
      'version', CASE WHEN o.version IS DISTINCT FROM n.version THEN stamp.value END,
      'definition', CASE WHEN o.definition IS DISTINCT FROM n.definition THEN stamp.value END,
      'parameters', CASE WHEN o.parameters IS DISTINCT FROM n.parameters THEN stamp.value END,
      'environment_vars', CASE WHEN o.environment_vars IS DISTINCT FROM n.environment_vars THEN stamp.value END,
      'triggers', CASE WHEN o.triggers IS DISTINCT FROM n.triggers THEN stamp.value END,
      'tags', CASE WHEN o.tags IS DISTINCT FROM n.tags THEN stamp.value END,
      'is_active', CASE WHEN o.is_active IS DISTINCT FROM n.is_active THEN stamp.value END,
      'is_template', CASE WHEN o.is_template IS DISTINCT FROM n.is_template THEN stamp.value END,
      'created_at', CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN stamp.value END,
      'deleted_at', CASE WHEN o.deleted_at IS DISTINCT FROM n.deleted_at THEN stamp.value END))
  FROM new_rows n JOIN old_rows o ON o.id = n.id,
    (SELECT jsonb_build_array(pg_current_xact_id()::text, sync.clock(), sync.writer()) AS value) stamp
  ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = m.keys, cols = m.cols || excluded.cols;
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 5, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'update' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 5 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM workflows t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;

  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_workflows_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, deleted, xid, clock, writer)
  SELECT 5, o.id, k.keys, k.keys, true, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM old_rows o, LATERAL (SELECT coalesce((SELECT own.keys FROM sync.row_meta own WHERE own.tbl = 5 AND own.id = o.id), ARRAY['u:' || o.user_id::text]) AS keys) k
  ORDER BY o.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys_before = m.keys, deleted = true,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 5, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'delete' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM old_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 5 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM workflows t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE TRIGGER zz_sync_capture_insert AFTER INSERT ON workflows REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_workflows_insert();
ALTER TABLE workflows ENABLE ALWAYS TRIGGER zz_sync_capture_insert;

CREATE TRIGGER zz_sync_capture_update AFTER UPDATE ON workflows REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_workflows_update();
ALTER TABLE workflows ENABLE ALWAYS TRIGGER zz_sync_capture_update;

CREATE TRIGGER zz_sync_capture_delete AFTER DELETE ON workflows REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_workflows_delete();
ALTER TABLE workflows ENABLE ALWAYS TRIGGER zz_sync_capture_delete;

CREATE TRIGGER sync_refuse_truncate BEFORE TRUNCATE ON workflows FOR EACH STATEMENT EXECUTE FUNCTION sync.refuse_truncate();

ALTER TABLE workflows ENABLE ALWAYS TRIGGER sync_refuse_truncate;

CREATE FUNCTION sync.capture_workflow_executions_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, xid, clock, writer)
  SELECT 6, n.id, ARRAY['u:' || n.user_id::text], pg_current_xact_id(), sync.clock(), sync.writer()
  FROM new_rows n ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = NULL, deleted = false,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 6, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'insert' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 6 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM workflow_executions t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_workflow_executions_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
DECLARE moved uuid[];
BEGIN
  PERFORM sync.require_read_committed();
  IF EXISTS (SELECT 1 FROM old_rows o FULL JOIN new_rows n ON n.id = o.id WHERE n.id IS NULL OR o.id IS NULL) THEN
    RAISE EXCEPTION 'agentdb: workflow_executions.id never changes; delete the row and insert another' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  moved := ARRAY(SELECT n.id FROM new_rows n JOIN old_rows o ON o.id = n.id WHERE o.user_id IS DISTINCT FROM n.user_id ORDER BY n.id);
  IF cardinality(moved) > 0 THEN
    PERFORM 1 FROM sync.row_meta m WHERE m.tbl = 6 AND m.id = ANY (moved) ORDER BY m.id FOR UPDATE;
  END IF;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer, cols)
  SELECT 6, n.id, ARRAY['u:' || n.user_id::text], ARRAY['u:' || o.user_id::text], pg_current_xact_id(), sync.clock(), sync.writer(),
    jsonb_strip_nulls(jsonb_build_object(
      'workflow_id', CASE WHEN o.workflow_id IS DISTINCT FROM n.workflow_id THEN stamp.value END,
      'user_id', CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN stamp.value END,
      'status', CASE WHEN o.status IS DISTINCT FROM n.status THEN stamp.value END,
      'parameters', CASE WHEN o.parameters IS DISTINCT FROM n.parameters THEN stamp.value END,
      'environment', CASE WHEN o.environment IS DISTINCT FROM n.environment THEN stamp.value END,
      'trigger_type', CASE WHEN o.trigger_type IS DISTINCT FROM n.trigger_type THEN stamp.value END,
      'trigger_source', CASE WHEN o.trigger_source IS DISTINCT FROM n.trigger_source THEN stamp.value END,
      'current_step', CASE WHEN o.current_step IS DISTINCT FROM n.current_step THEN stamp.value END,
      'completed_steps', CASE WHEN o.completed_steps IS DISTINCT FROM n.completed_steps THEN stamp.value END,
      'failed_steps', CASE WHEN o.failed_steps IS DISTINCT FROM n.failed_steps THEN stamp.value END,
      'outputs', CASE WHEN o.outputs IS DISTINCT FROM n.outputs THEN stamp.value END,
      'error_message', CASE WHEN o.error_message IS DISTINCT FROM n.error_message THEN stamp.value END,
      'error_stack', CASE WHEN o.error_stack IS DISTINCT FROM n.error_stack THEN stamp.value END,
      'total_duration_ms', CASE WHEN o.total_duration_ms IS DISTINCT FROM n.total_duration_ms THEN stamp.value END,
      'steps_executed', CASE WHEN o.steps_executed IS DISTINCT FROM n.steps_executed THEN stamp.value END,
      'queued_at', CASE WHEN o.queued_at IS DISTINCT FROM n.queued_at THEN stamp.value END,
      'started_at', CASE WHEN o.started_at IS DISTINCT FROM n.started_at THEN stamp.value END,
      'completed_at', CASE WHEN o.completed_at IS DISTINCT FROM n.completed_at THEN stamp.value END,
      'cancelled_at', CASE WHEN o.cancelled_at IS DISTINCT FROM n.cancelled_at THEN stamp.value END))
  FROM new_rows n JOIN old_rows o ON o.id = n.id,
    (SELECT jsonb_build_array(pg_current_xact_id()::text, sync.clock(), sync.writer()) AS value) stamp
  ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = m.keys, cols = m.cols || excluded.cols;
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 6, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'update' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 6 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM workflow_executions t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  IF cardinality(moved) > 0 THEN PERFORM sync.move_below_workflow_executions(moved); END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_workflow_executions_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, deleted, xid, clock, writer)
  SELECT 6, o.id, k.keys, k.keys, true, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM old_rows o, LATERAL (SELECT coalesce((SELECT own.keys FROM sync.row_meta own WHERE own.tbl = 6 AND own.id = o.id), ARRAY['u:' || o.user_id::text]) AS keys) k
  ORDER BY o.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys_before = m.keys, deleted = true,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 6, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'delete' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM old_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 6 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM workflow_executions t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE TRIGGER zz_sync_capture_insert AFTER INSERT ON workflow_executions REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_workflow_executions_insert();
ALTER TABLE workflow_executions ENABLE ALWAYS TRIGGER zz_sync_capture_insert;

CREATE TRIGGER zz_sync_capture_update AFTER UPDATE ON workflow_executions REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_workflow_executions_update();
ALTER TABLE workflow_executions ENABLE ALWAYS TRIGGER zz_sync_capture_update;

CREATE TRIGGER zz_sync_capture_delete AFTER DELETE ON workflow_executions REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_workflow_executions_delete();
ALTER TABLE workflow_executions ENABLE ALWAYS TRIGGER zz_sync_capture_delete;

CREATE TRIGGER sync_refuse_truncate BEFORE TRUNCATE ON workflow_executions FOR EACH STATEMENT EXECUTE FUNCTION sync.refuse_truncate();

ALTER TABLE workflow_executions ENABLE ALWAYS TRIGGER sync_refuse_truncate;

CREATE FUNCTION sync.capture_step_executions_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  PERFORM 1 FROM sync.row_meta p WHERE p.tbl = 6
    AND p.id = ANY (ARRAY(SELECT DISTINCT n.workflow_execution_id FROM new_rows n)) ORDER BY p.id FOR KEY SHARE;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, xid, clock, writer)
  SELECT 7, n.id, coalesce((SELECT p.keys FROM sync.row_meta p WHERE p.tbl = 6 AND p.id = n.workflow_execution_id), sync.keys_of_workflow_executions(n.workflow_execution_id)), pg_current_xact_id(), sync.clock(), sync.writer()
  FROM new_rows n ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = NULL, deleted = false,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 7, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'insert' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 7 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM step_executions t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_step_executions_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
DECLARE moved uuid[];
BEGIN
  PERFORM sync.require_read_committed();
  IF EXISTS (SELECT 1 FROM old_rows o FULL JOIN new_rows n ON n.id = o.id WHERE n.id IS NULL OR o.id IS NULL) THEN
    RAISE EXCEPTION 'agentdb: step_executions.id never changes; delete the row and insert another' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  moved := ARRAY(SELECT n.id FROM new_rows n JOIN old_rows o ON o.id = n.id WHERE o.workflow_execution_id IS DISTINCT FROM n.workflow_execution_id ORDER BY n.id);
  IF cardinality(moved) > 0 THEN
    PERFORM 1 FROM sync.row_meta p WHERE p.tbl = 6 AND p.id = ANY (ARRAY(
      SELECT n.workflow_execution_id FROM new_rows n WHERE n.id = ANY (moved) UNION SELECT o.workflow_execution_id FROM old_rows o WHERE o.id = ANY (moved)))
    ORDER BY p.id FOR KEY SHARE;
  END IF;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer, cols)
  SELECT 7, n.id, coalesce((SELECT p.keys FROM sync.row_meta p WHERE p.tbl = 6 AND p.id = n.workflow_execution_id), sync.keys_of_workflow_executions(n.workflow_execution_id)), coalesce((SELECT p.keys FROM sync.row_meta p WHERE p.tbl = 6 AND p.id = o.workflow_execution_id), sync.keys_of_workflow_executions(o.workflow_execution_id)), pg_current_xact_id(), sync.clock(), sync.writer(),
    jsonb_strip_nulls(jsonb_build_object(
      'workflow_execution_id', CASE WHEN o.workflow_execution_id IS DISTINCT FROM n.workflow_execution_id THEN stamp.value END,
      'step_id', CASE WHEN o.step_id IS DISTINCT FROM n.step_id THEN stamp.value END,
      'step_name', CASE WHEN o.step_name IS DISTINCT FROM n.step_name THEN stamp.value END,
      'step_type', CASE WHEN o.step_type IS DISTINCT FROM n.step_type THEN stamp.value END,
      'status', CASE WHEN o.status IS DISTINCT FROM n.status THEN stamp.value END,
      'inputs', CASE WHEN o.inputs IS DISTINCT FROM n.inputs THEN stamp.value END,
      'outputs', CASE WHEN o.outputs IS DISTINCT FROM n.outputs THEN stamp.value END,
      'retry_count', CASE WHEN o.retry_count IS DISTINCT FROM n.retry_count THEN stamp.value END,
      'max_retries', CASE WHEN o.max_retries IS DISTINCT FROM n.max_retries THEN stamp.value END,
      'error_message', CASE WHEN o.error_message IS DISTINCT FROM n.error_message THEN stamp.value END,
      'duration_ms', CASE WHEN o.duration_ms IS DISTINCT FROM n.duration_ms THEN stamp.value END,
      'queued_at', CASE WHEN o.queued_at IS DISTINCT FROM n.queued_at THEN stamp.value END,
      'started_at', CASE WHEN o.started_at IS DISTINCT FROM n.started_at THEN stamp.value END,
      'completed_at', CASE WHEN o.completed_at IS DISTINCT FROM n.completed_at THEN stamp.value END))
  FROM new_rows n JOIN old_rows o ON o.id = n.id,
    (SELECT jsonb_build_array(pg_current_xact_id()::text, sync.clock(), sync.writer()) AS value) stamp
  ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = CASE WHEN excluded.cols ? 'workflow_execution_id' THEN excluded.keys ELSE m.keys END, keys_before = m.keys, cols = m.cols || excluded.cols;
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 7, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'update' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 7 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM step_executions t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;

  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_step_executions_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, deleted, xid, clock, writer)
  SELECT 7, o.id, k.keys, k.keys, true, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM old_rows o, LATERAL (SELECT coalesce((SELECT own.keys FROM sync.row_meta own WHERE own.tbl = 7 AND own.id = o.id), coalesce((SELECT p.keys FROM sync.row_meta p WHERE p.tbl = 6 AND p.id = o.workflow_execution_id), sync.keys_of_workflow_executions(o.workflow_execution_id))) AS keys) k
  ORDER BY o.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys_before = m.keys, deleted = true,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 7, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'delete' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM old_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 7 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM step_executions t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE TRIGGER zz_sync_capture_insert AFTER INSERT ON step_executions REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_step_executions_insert();
ALTER TABLE step_executions ENABLE ALWAYS TRIGGER zz_sync_capture_insert;

CREATE TRIGGER zz_sync_capture_update AFTER UPDATE ON step_executions REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_step_executions_update();
ALTER TABLE step_executions ENABLE ALWAYS TRIGGER zz_sync_capture_update;

CREATE TRIGGER zz_sync_capture_delete AFTER DELETE ON step_executions REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_step_executions_delete();
ALTER TABLE step_executions ENABLE ALWAYS TRIGGER zz_sync_capture_delete;

CREATE TRIGGER sync_refuse_truncate BEFORE TRUNCATE ON step_executions FOR EACH STATEMENT EXECUTE FUNCTION sync.refuse_truncate();

ALTER TABLE step_executions ENABLE ALWAYS TRIGGER sync_refuse_truncate;

CREATE FUNCTION sync.capture_incidents_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, xid, clock, writer)
  SELECT 8, n.id, CASE WHEN n.assigned_to IS NULL THEN ARRAY['incidents'] ELSE ARRAY['incidents', 'u:' || n.assigned_to::text] END, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM new_rows n ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = NULL, deleted = false,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 8, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'insert' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 8 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM incidents t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_incidents_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  IF EXISTS (SELECT 1 FROM old_rows o FULL JOIN new_rows n ON n.id = o.id WHERE n.id IS NULL OR o.id IS NULL) THEN
    RAISE EXCEPTION 'agentdb: incidents.id never changes; delete the row and insert another' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer, cols)
  SELECT 8, n.id, CASE WHEN n.assigned_to IS NULL THEN ARRAY['incidents'] ELSE ARRAY['incidents', 'u:' || n.assigned_to::text] END, CASE WHEN o.assigned_to IS NULL THEN ARRAY['incidents'] ELSE ARRAY['incidents', 'u:' || o.assigned_to::text] END, pg_current_xact_id(), sync.clock(), sync.writer(),
    jsonb_strip_nulls(jsonb_build_object(
      'title', CASE WHEN o.title IS DISTINCT FROM n.title THEN stamp.value END,
      'description', CASE WHEN o.description IS DISTINCT FROM n.description THEN stamp.value END,
      'severity', CASE WHEN o.severity IS DISTINCT FROM n.severity THEN stamp.value END,
      'status', CASE WHEN o.status IS DISTINCT FROM n.status THEN stamp.value END,
      'source', CASE WHEN o.source IS DISTINCT FROM n.source THEN stamp.value END,
      'detection_method', CASE WHEN o.detection_method IS DISTINCT FROM n.detection_method THEN stamp.value END,
      'affected_services', CASE WHEN o.affected_services IS DISTINCT FROM n.affected_services THEN stamp.value END,
      'affected_users_count', CASE WHEN o.affected_users_count IS DISTINCT FROM n.affected_users_count THEN stamp.value END,
      'blast_radius', CASE WHEN o.blast_radius IS DISTINCT FROM n.blast_radius THEN stamp.value END,
      'assigned_to', CASE WHEN o.assigned_to IS DISTINCT FROM n.assigned_to THEN stamp.value END,
      'assigned_team', CASE WHEN o.assigned_team IS DISTINCT FROM n.assigned_team THEN stamp.value END,
      'metadata', CASE WHEN o.metadata IS DISTINCT FROM n.metadata THEN stamp.value END,
      'related_incidents', CASE WHEN o.related_incidents IS DISTINCT FROM n.related_incidents THEN stamp.value END,
      'root_cause', CASE WHEN o.root_cause IS DISTINCT FROM n.root_cause THEN stamp.value END,
      'resolution_notes', CASE WHEN o.resolution_notes IS DISTINCT FROM n.resolution_notes THEN stamp.value END,
      'remediation_steps', CASE WHEN o.remediation_steps IS DISTINCT FROM n.remediation_steps THEN stamp.value END,
      'detected_at', CASE WHEN o.detected_at IS DISTINCT FROM n.detected_at THEN stamp.value END,
      'acknowledged_at', CASE WHEN o.acknowledged_at IS DISTINCT FROM n.acknowledged_at THEN stamp.value END,
      'resolved_at', CASE WHEN o.resolved_at IS DISTINCT FROM n.resolved_at THEN stamp.value END,
      'closed_at', CASE WHEN o.closed_at IS DISTINCT FROM n.closed_at THEN stamp.value END,
      'created_at', CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN stamp.value END))
  FROM new_rows n JOIN old_rows o ON o.id = n.id,
    (SELECT jsonb_build_array(pg_current_xact_id()::text, sync.clock(), sync.writer()) AS value) stamp
  ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = m.keys, cols = m.cols || excluded.cols;
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 8, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'update' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 8 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM incidents t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;

  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_incidents_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, deleted, xid, clock, writer)
  SELECT 8, o.id, k.keys, k.keys, true, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM old_rows o, LATERAL (SELECT coalesce((SELECT own.keys FROM sync.row_meta own WHERE own.tbl = 8 AND own.id = o.id), CASE WHEN o.assigned_to IS NULL THEN ARRAY['incidents'] ELSE ARRAY['incidents', 'u:' || o.assigned_to::text] END) AS keys) k
  ORDER BY o.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys_before = m.keys, deleted = true,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 8, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'delete' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM old_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 8 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM incidents t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE TRIGGER zz_sync_capture_insert AFTER INSERT ON incidents REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_incidents_insert();
ALTER TABLE incidents ENABLE ALWAYS TRIGGER zz_sync_capture_insert;

CREATE TRIGGER zz_sync_capture_update AFTER UPDATE ON incidents REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_incidents_update();
ALTER TABLE incidents ENABLE ALWAYS TRIGGER zz_sync_capture_update;

CREATE TRIGGER zz_sync_capture_delete AFTER DELETE ON incidents REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_incidents_delete();
ALTER TABLE incidents ENABLE ALWAYS TRIGGER zz_sync_capture_delete;

CREATE TRIGGER sync_refuse_truncate BEFORE TRUNCATE ON incidents FOR EACH STATEMENT EXECUTE FUNCTION sync.refuse_truncate();

ALTER TABLE incidents ENABLE ALWAYS TRIGGER sync_refuse_truncate;

CREATE FUNCTION sync.capture_runbooks_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, xid, clock, writer)
  SELECT 9, n.id, CASE WHEN n.owner_id IS NULL THEN ARRAY['runbooks'] ELSE ARRAY['runbooks', 'u:' || n.owner_id::text] END, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM new_rows n ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = NULL, deleted = false,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 9, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'insert' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 9 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM runbooks t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_runbooks_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  IF EXISTS (SELECT 1 FROM old_rows o FULL JOIN new_rows n ON n.id = o.id WHERE n.id IS NULL OR o.id IS NULL) THEN
    RAISE EXCEPTION 'agentdb: runbooks.id never changes; delete the row and insert another' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer, cols)
  SELECT 9, n.id, CASE WHEN n.owner_id IS NULL THEN ARRAY['runbooks'] ELSE ARRAY['runbooks', 'u:' || n.owner_id::text] END, CASE WHEN o.owner_id IS NULL THEN ARRAY['runbooks'] ELSE ARRAY['runbooks', 'u:' || o.owner_id::text] END, pg_current_xact_id(), sync.clock(), sync.writer(),
    jsonb_strip_nulls(jsonb_build_object(
      'name', CASE WHEN o.name IS DISTINCT FROM n.name THEN stamp.value END,
      'description', CASE WHEN o.description IS DISTINCT FROM n.description THEN stamp.value END,
      'version', CASE WHEN o.version IS DISTINCT FROM n.version THEN stamp.value END,
      'trigger_conditions', CASE WHEN o.trigger_conditions IS DISTINCT FROM n.trigger_conditions THEN stamp.value END,
      'steps', CASE WHEN o.steps IS DISTINCT FROM n.steps THEN stamp.value END,
      'is_automated', CASE WHEN o.is_automated IS DISTINCT FROM n.is_automated THEN stamp.value END,
      'automation_config', CASE WHEN o.automation_config IS DISTINCT FROM n.automation_config THEN stamp.value END,
      'tags', CASE WHEN o.tags IS DISTINCT FROM n.tags THEN stamp.value END,
      'owner_id', CASE WHEN o.owner_id IS DISTINCT FROM n.owner_id THEN stamp.value END,
      'execution_count', CASE WHEN o.execution_count IS DISTINCT FROM n.execution_count THEN stamp.value END,
      'success_count', CASE WHEN o.success_count IS DISTINCT FROM n.success_count THEN stamp.value END,
      'last_executed_at', CASE WHEN o.last_executed_at IS DISTINCT FROM n.last_executed_at THEN stamp.value END,
      'created_at', CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN stamp.value END,
      'archived_at', CASE WHEN o.archived_at IS DISTINCT FROM n.archived_at THEN stamp.value END))
  FROM new_rows n JOIN old_rows o ON o.id = n.id,
    (SELECT jsonb_build_array(pg_current_xact_id()::text, sync.clock(), sync.writer()) AS value) stamp
  ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = m.keys, cols = m.cols || excluded.cols;
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 9, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'update' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 9 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM runbooks t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;

  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_runbooks_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, deleted, xid, clock, writer)
  SELECT 9, o.id, k.keys, k.keys, true, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM old_rows o, LATERAL (SELECT coalesce((SELECT own.keys FROM sync.row_meta own WHERE own.tbl = 9 AND own.id = o.id), CASE WHEN o.owner_id IS NULL THEN ARRAY['runbooks'] ELSE ARRAY['runbooks', 'u:' || o.owner_id::text] END) AS keys) k
  ORDER BY o.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys_before = m.keys, deleted = true,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 9, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'delete' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM old_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 9 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM runbooks t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE TRIGGER zz_sync_capture_insert AFTER INSERT ON runbooks REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_runbooks_insert();
ALTER TABLE runbooks ENABLE ALWAYS TRIGGER zz_sync_capture_insert;

CREATE TRIGGER zz_sync_capture_update AFTER UPDATE ON runbooks REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_runbooks_update();
ALTER TABLE runbooks ENABLE ALWAYS TRIGGER zz_sync_capture_update;

CREATE TRIGGER zz_sync_capture_delete AFTER DELETE ON runbooks REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_runbooks_delete();
ALTER TABLE runbooks ENABLE ALWAYS TRIGGER zz_sync_capture_delete;

CREATE TRIGGER sync_refuse_truncate BEFORE TRUNCATE ON runbooks FOR EACH STATEMENT EXECUTE FUNCTION sync.refuse_truncate();

ALTER TABLE runbooks ENABLE ALWAYS TRIGGER sync_refuse_truncate;

CREATE FUNCTION sync.capture_runbook_executions_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, xid, clock, writer)
  SELECT 10, n.id, CASE WHEN n.executed_by IS NULL THEN ARRAY['incidents'] ELSE ARRAY['incidents', 'u:' || n.executed_by::text] END, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM new_rows n ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = NULL, deleted = false,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 10, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'insert' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 10 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM runbook_executions t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_runbook_executions_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  IF EXISTS (SELECT 1 FROM old_rows o FULL JOIN new_rows n ON n.id = o.id WHERE n.id IS NULL OR o.id IS NULL) THEN
    RAISE EXCEPTION 'agentdb: runbook_executions.id never changes; delete the row and insert another' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer, cols)
  SELECT 10, n.id, CASE WHEN n.executed_by IS NULL THEN ARRAY['incidents'] ELSE ARRAY['incidents', 'u:' || n.executed_by::text] END, CASE WHEN o.executed_by IS NULL THEN ARRAY['incidents'] ELSE ARRAY['incidents', 'u:' || o.executed_by::text] END, pg_current_xact_id(), sync.clock(), sync.writer(),
    jsonb_strip_nulls(jsonb_build_object(
      'runbook_id', CASE WHEN o.runbook_id IS DISTINCT FROM n.runbook_id THEN stamp.value END,
      'incident_id', CASE WHEN o.incident_id IS DISTINCT FROM n.incident_id THEN stamp.value END,
      'executed_by', CASE WHEN o.executed_by IS DISTINCT FROM n.executed_by THEN stamp.value END,
      'status', CASE WHEN o.status IS DISTINCT FROM n.status THEN stamp.value END,
      'is_automated', CASE WHEN o.is_automated IS DISTINCT FROM n.is_automated THEN stamp.value END,
      'current_step', CASE WHEN o.current_step IS DISTINCT FROM n.current_step THEN stamp.value END,
      'completed_steps', CASE WHEN o.completed_steps IS DISTINCT FROM n.completed_steps THEN stamp.value END,
      'step_results', CASE WHEN o.step_results IS DISTINCT FROM n.step_results THEN stamp.value END,
      'success', CASE WHEN o.success IS DISTINCT FROM n.success THEN stamp.value END,
      'notes', CASE WHEN o.notes IS DISTINCT FROM n.notes THEN stamp.value END,
      'started_at', CASE WHEN o.started_at IS DISTINCT FROM n.started_at THEN stamp.value END,
      'completed_at', CASE WHEN o.completed_at IS DISTINCT FROM n.completed_at THEN stamp.value END))
  FROM new_rows n JOIN old_rows o ON o.id = n.id,
    (SELECT jsonb_build_array(pg_current_xact_id()::text, sync.clock(), sync.writer()) AS value) stamp
  ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = m.keys, cols = m.cols || excluded.cols;
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 10, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'update' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 10 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM runbook_executions t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;

  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_runbook_executions_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, deleted, xid, clock, writer)
  SELECT 10, o.id, k.keys, k.keys, true, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM old_rows o, LATERAL (SELECT coalesce((SELECT own.keys FROM sync.row_meta own WHERE own.tbl = 10 AND own.id = o.id), CASE WHEN o.executed_by IS NULL THEN ARRAY['incidents'] ELSE ARRAY['incidents', 'u:' || o.executed_by::text] END) AS keys) k
  ORDER BY o.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys_before = m.keys, deleted = true,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 10, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'delete' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM old_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 10 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM runbook_executions t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE TRIGGER zz_sync_capture_insert AFTER INSERT ON runbook_executions REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_runbook_executions_insert();
ALTER TABLE runbook_executions ENABLE ALWAYS TRIGGER zz_sync_capture_insert;

CREATE TRIGGER zz_sync_capture_update AFTER UPDATE ON runbook_executions REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_runbook_executions_update();
ALTER TABLE runbook_executions ENABLE ALWAYS TRIGGER zz_sync_capture_update;

CREATE TRIGGER zz_sync_capture_delete AFTER DELETE ON runbook_executions REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_runbook_executions_delete();
ALTER TABLE runbook_executions ENABLE ALWAYS TRIGGER zz_sync_capture_delete;

CREATE TRIGGER sync_refuse_truncate BEFORE TRUNCATE ON runbook_executions FOR EACH STATEMENT EXECUTE FUNCTION sync.refuse_truncate();

ALTER TABLE runbook_executions ENABLE ALWAYS TRIGGER sync_refuse_truncate;

CREATE FUNCTION sync.capture_embeddings_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, xid, clock, writer)
  SELECT 12, n.id, ARRAY['u:' || n.user_id::text], pg_current_xact_id(), sync.clock(), sync.writer()
  FROM new_rows n ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = NULL, deleted = false,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 12, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'insert' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 12 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM embeddings t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_embeddings_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  IF EXISTS (SELECT 1 FROM old_rows o FULL JOIN new_rows n ON n.id = o.id WHERE n.id IS NULL OR o.id IS NULL) THEN
    RAISE EXCEPTION 'agentdb: embeddings.id never changes; delete the row and insert another' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer, cols)
  SELECT 12, n.id, ARRAY['u:' || n.user_id::text], ARRAY['u:' || o.user_id::text], pg_current_xact_id(), sync.clock(), sync.writer(),
    jsonb_strip_nulls(jsonb_build_object(
      'user_id', CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN stamp.value END,
      'collection', CASE WHEN o.collection IS DISTINCT FROM n.collection THEN stamp.value END,
      'model', CASE WHEN o.model IS DISTINCT FROM n.model THEN stamp.value END,
      'dimension', CASE WHEN o.dimension IS DISTINCT FROM n.dimension THEN stamp.value END,
      'content_preview', CASE WHEN o.content_preview IS DISTINCT FROM n.content_preview THEN stamp.value END,
      'payload', CASE WHEN o.payload IS DISTINCT FROM n.payload THEN stamp.value END,
      'created_at', CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN stamp.value END,
      'content', CASE WHEN o.content IS DISTINCT FROM n.content THEN stamp.value END,
      'vector', CASE WHEN o.vector IS DISTINCT FROM n.vector THEN stamp.value END))
  FROM new_rows n JOIN old_rows o ON o.id = n.id,
    (SELECT jsonb_build_array(pg_current_xact_id()::text, sync.clock(), sync.writer()) AS value) stamp
  ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = m.keys, cols = m.cols || excluded.cols;
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 12, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'update' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 12 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM embeddings t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;

  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_embeddings_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, deleted, xid, clock, writer)
  SELECT 12, o.id, k.keys, k.keys, true, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM old_rows o, LATERAL (SELECT coalesce((SELECT own.keys FROM sync.row_meta own WHERE own.tbl = 12 AND own.id = o.id), ARRAY['u:' || o.user_id::text]) AS keys) k
  ORDER BY o.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys_before = m.keys, deleted = true,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 12, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'delete' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM old_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 12 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM embeddings t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE TRIGGER zz_sync_capture_insert AFTER INSERT ON embeddings REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_embeddings_insert();
ALTER TABLE embeddings ENABLE ALWAYS TRIGGER zz_sync_capture_insert;

CREATE TRIGGER zz_sync_capture_update AFTER UPDATE ON embeddings REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_embeddings_update();
ALTER TABLE embeddings ENABLE ALWAYS TRIGGER zz_sync_capture_update;

CREATE TRIGGER zz_sync_capture_delete AFTER DELETE ON embeddings REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_embeddings_delete();
ALTER TABLE embeddings ENABLE ALWAYS TRIGGER zz_sync_capture_delete;

CREATE TRIGGER sync_refuse_truncate BEFORE TRUNCATE ON embeddings FOR EACH STATEMENT EXECUTE FUNCTION sync.refuse_truncate();

ALTER TABLE embeddings ENABLE ALWAYS TRIGGER sync_refuse_truncate;

CREATE FUNCTION sync.capture_memory_trajectories_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, xid, clock, writer)
  SELECT 13, n.id, ARRAY['u:' || n.user_id::text], pg_current_xact_id(), sync.clock(), sync.writer()
  FROM new_rows n ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = NULL, deleted = false,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 13, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'insert' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 13 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM memory_trajectories t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_memory_trajectories_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  IF EXISTS (SELECT 1 FROM old_rows o FULL JOIN new_rows n ON n.id = o.id WHERE n.id IS NULL OR o.id IS NULL) THEN
    RAISE EXCEPTION 'agentdb: memory_trajectories.id never changes; delete the row and insert another' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer, cols)
  SELECT 13, n.id, ARRAY['u:' || n.user_id::text], ARRAY['u:' || o.user_id::text], pg_current_xact_id(), sync.clock(), sync.writer(),
    jsonb_strip_nulls(jsonb_build_object(
      'user_id', CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN stamp.value END,
      'task_id', CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN stamp.value END,
      'template_id', CASE WHEN o.template_id IS DISTINCT FROM n.template_id THEN stamp.value END,
      'query', CASE WHEN o.query IS DISTINCT FROM n.query THEN stamp.value END,
      'model', CASE WHEN o.model IS DISTINCT FROM n.model THEN stamp.value END,
      'steps', CASE WHEN o.steps IS DISTINCT FROM n.steps THEN stamp.value END,
      'attempt_group', CASE WHEN o.attempt_group IS DISTINCT FROM n.attempt_group THEN stamp.value END,
      'outcome', CASE WHEN o.outcome IS DISTINCT FROM n.outcome THEN stamp.value END,
      'judge', CASE WHEN o.judge IS DISTINCT FROM n.judge THEN stamp.value END,
      'expires_at', CASE WHEN o.expires_at IS DISTINCT FROM n.expires_at THEN stamp.value END,
      'created_at', CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN stamp.value END))
  FROM new_rows n JOIN old_rows o ON o.id = n.id,
    (SELECT jsonb_build_array(pg_current_xact_id()::text, sync.clock(), sync.writer()) AS value) stamp
  ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = m.keys, cols = m.cols || excluded.cols;
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 13, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'update' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 13 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM memory_trajectories t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;

  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_memory_trajectories_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, deleted, xid, clock, writer)
  SELECT 13, o.id, k.keys, k.keys, true, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM old_rows o, LATERAL (SELECT coalesce((SELECT own.keys FROM sync.row_meta own WHERE own.tbl = 13 AND own.id = o.id), ARRAY['u:' || o.user_id::text]) AS keys) k
  ORDER BY o.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys_before = m.keys, deleted = true,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 13, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'delete' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM old_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 13 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM memory_trajectories t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE TRIGGER zz_sync_capture_insert AFTER INSERT ON memory_trajectories REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_memory_trajectories_insert();
ALTER TABLE memory_trajectories ENABLE ALWAYS TRIGGER zz_sync_capture_insert;

CREATE TRIGGER zz_sync_capture_update AFTER UPDATE ON memory_trajectories REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_memory_trajectories_update();
ALTER TABLE memory_trajectories ENABLE ALWAYS TRIGGER zz_sync_capture_update;

CREATE TRIGGER zz_sync_capture_delete AFTER DELETE ON memory_trajectories REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_memory_trajectories_delete();
ALTER TABLE memory_trajectories ENABLE ALWAYS TRIGGER zz_sync_capture_delete;

CREATE TRIGGER sync_refuse_truncate BEFORE TRUNCATE ON memory_trajectories FOR EACH STATEMENT EXECUTE FUNCTION sync.refuse_truncate();

ALTER TABLE memory_trajectories ENABLE ALWAYS TRIGGER sync_refuse_truncate;

CREATE FUNCTION sync.capture_memory_items_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, xid, clock, writer)
  SELECT 14, n.id, ARRAY['u:' || n.user_id::text], pg_current_xact_id(), sync.clock(), sync.writer()
  FROM new_rows n ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = NULL, deleted = false,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 14, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'insert' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 14 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM memory_items t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_memory_items_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  IF EXISTS (SELECT 1 FROM old_rows o FULL JOIN new_rows n ON n.id = o.id WHERE n.id IS NULL OR o.id IS NULL) THEN
    RAISE EXCEPTION 'agentdb: memory_items.id never changes; delete the row and insert another' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer, cols)
  SELECT 14, n.id, ARRAY['u:' || n.user_id::text], ARRAY['u:' || o.user_id::text], pg_current_xact_id(), sync.clock(), sync.writer(),
    jsonb_strip_nulls(jsonb_build_object(
      'user_id', CASE WHEN o.user_id IS DISTINCT FROM n.user_id THEN stamp.value END,
      'record_id', CASE WHEN o.record_id IS DISTINCT FROM n.record_id THEN stamp.value END,
      'polarity', CASE WHEN o.polarity IS DISTINCT FROM n.polarity THEN stamp.value END,
      'task_id', CASE WHEN o.task_id IS DISTINCT FROM n.task_id THEN stamp.value END,
      'template_id', CASE WHEN o.template_id IS DISTINCT FROM n.template_id THEN stamp.value END,
      'trajectory_ids', CASE WHEN o.trajectory_ids IS DISTINCT FROM n.trajectory_ids THEN stamp.value END,
      'provenance_hash', CASE WHEN o.provenance_hash IS DISTINCT FROM n.provenance_hash THEN stamp.value END,
      'title', CASE WHEN o.title IS DISTINCT FROM n.title THEN stamp.value END,
      'description', CASE WHEN o.description IS DISTINCT FROM n.description THEN stamp.value END,
      'content', CASE WHEN o.content IS DISTINCT FROM n.content THEN stamp.value END,
      'source_query', CASE WHEN o.source_query IS DISTINCT FROM n.source_query THEN stamp.value END,
      'model', CASE WHEN o.model IS DISTINCT FROM n.model THEN stamp.value END,
      'dimension', CASE WHEN o.dimension IS DISTINCT FROM n.dimension THEN stamp.value END,
      'query_vector', CASE WHEN o.query_vector IS DISTINCT FROM n.query_vector THEN stamp.value END,
      'text_vector', CASE WHEN o.text_vector IS DISTINCT FROM n.text_vector THEN stamp.value END,
      'retrieved_count', CASE WHEN o.retrieved_count IS DISTINCT FROM n.retrieved_count THEN stamp.value END,
      'used_count', CASE WHEN o.used_count IS DISTINCT FROM n.used_count THEN stamp.value END,
      'helped_count', CASE WHEN o.helped_count IS DISTINCT FROM n.helped_count THEN stamp.value END,
      'hurt_count', CASE WHEN o.hurt_count IS DISTINCT FROM n.hurt_count THEN stamp.value END,
      'last_used_at', CASE WHEN o.last_used_at IS DISTINCT FROM n.last_used_at THEN stamp.value END,
      'superseded_by', CASE WHEN o.superseded_by IS DISTINCT FROM n.superseded_by THEN stamp.value END,
      'contradicts', CASE WHEN o.contradicts IS DISTINCT FROM n.contradicts THEN stamp.value END,
      'kept_apart', CASE WHEN o.kept_apart IS DISTINCT FROM n.kept_apart THEN stamp.value END,
      'expires_at', CASE WHEN o.expires_at IS DISTINCT FROM n.expires_at THEN stamp.value END,
      'created_at', CASE WHEN o.created_at IS DISTINCT FROM n.created_at THEN stamp.value END))
  FROM new_rows n JOIN old_rows o ON o.id = n.id,
    (SELECT jsonb_build_array(pg_current_xact_id()::text, sync.clock(), sync.writer()) AS value) stamp
  ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = m.keys, cols = m.cols || excluded.cols;
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 14, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'update' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM new_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 14 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM memory_items t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;

  RETURN NULL;
END $$;

CREATE FUNCTION sync.capture_memory_items_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on AS $$
BEGIN
  PERFORM sync.require_read_committed();
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, deleted, xid, clock, writer)
  SELECT 14, o.id, k.keys, k.keys, true, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM old_rows o, LATERAL (SELECT coalesce((SELECT own.keys FROM sync.row_meta own WHERE own.tbl = 14 AND own.id = o.id), ARRAY['u:' || o.user_id::text]) AS keys) k
  ORDER BY o.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys_before = m.keys, deleted = true,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
  PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT 14, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE 'delete' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM old_rows c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = 14 AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT to_jsonb(t) AS image FROM memory_items t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;
  RETURN NULL;
END $$;

CREATE TRIGGER zz_sync_capture_insert AFTER INSERT ON memory_items REFERENCING NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_memory_items_insert();
ALTER TABLE memory_items ENABLE ALWAYS TRIGGER zz_sync_capture_insert;

CREATE TRIGGER zz_sync_capture_update AFTER UPDATE ON memory_items REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_memory_items_update();
ALTER TABLE memory_items ENABLE ALWAYS TRIGGER zz_sync_capture_update;

CREATE TRIGGER zz_sync_capture_delete AFTER DELETE ON memory_items REFERENCING OLD TABLE AS old_rows
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_memory_items_delete();
ALTER TABLE memory_items ENABLE ALWAYS TRIGGER zz_sync_capture_delete;

CREATE TRIGGER sync_refuse_truncate BEFORE TRUNCATE ON memory_items FOR EACH STATEMENT EXECUTE FUNCTION sync.refuse_truncate();

ALTER TABLE memory_items ENABLE ALWAYS TRIGGER sync_refuse_truncate;

REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA sync FROM PUBLIC;

ALTER TABLE users ENABLE ROW LEVEL SECURITY;

GRANT SELECT (id, email, username, full_name, role, status, avatar_url, timezone, preferences, mfa_enabled, last_login_at, created_at, updated_at, deleted_at) ON users TO llm_copilot_app;

CREATE POLICY users_select ON users FOR SELECT TO llm_copilot_app USING (users.id = sync.current_user_id());

GRANT UPDATE (full_name, avatar_url, timezone, preferences) ON users TO llm_copilot_app;

CREATE POLICY users_update ON users FOR UPDATE TO llm_copilot_app USING (users.id = sync.current_user_id()) WITH CHECK (users.id = sync.current_user_id());

ALTER TABLE sessions ENABLE ROW LEVEL SECURITY;

GRANT SELECT (id, user_id, status, ip_address, user_agent, device_fingerprint, context, created_at, last_activity_at, expires_at, terminated_at) ON sessions TO llm_copilot_app;

CREATE POLICY sessions_select ON sessions FOR SELECT TO llm_copilot_app USING (sessions.user_id = sync.current_user_id());

ALTER TABLE conversations ENABLE ROW LEVEL SECURITY;

GRANT SELECT (id, session_id, user_id, title, description, tags, context_snapshot, system_prompt, model_config, message_count, total_tokens, total_cost_cents, started_at, last_message_at, ended_at, created_at, updated_at, archived_at) ON conversations TO llm_copilot_app;

CREATE POLICY conversations_select ON conversations FOR SELECT TO llm_copilot_app USING (conversations.user_id = sync.current_user_id());

GRANT INSERT (id, session_id, user_id, title, description, tags, context_snapshot, system_prompt, model_config, total_cost_cents, started_at, ended_at, created_at, archived_at) ON conversations TO llm_copilot_app;

CREATE POLICY conversations_insert ON conversations FOR INSERT TO llm_copilot_app WITH CHECK (conversations.user_id = sync.current_user_id());

GRANT UPDATE (session_id, title, description, tags, context_snapshot, system_prompt, model_config, total_cost_cents, started_at, ended_at, archived_at) ON conversations TO llm_copilot_app;

CREATE POLICY conversations_update ON conversations FOR UPDATE TO llm_copilot_app USING (conversations.user_id = sync.current_user_id()) WITH CHECK (conversations.user_id = sync.current_user_id());

GRANT DELETE ON conversations TO llm_copilot_app;

CREATE POLICY conversations_delete ON conversations FOR DELETE TO llm_copilot_app USING (conversations.user_id = sync.current_user_id());

ALTER TABLE messages ENABLE ROW LEVEL SECURITY;

GRANT SELECT (id, conversation_id, role, content, content_type, model, tokens_used, latency_ms, tool_calls, tool_results, parent_message_id, sequence_number, feedback_rating, feedback_comment, created_at) ON messages TO llm_copilot_app;

CREATE POLICY messages_select ON messages FOR SELECT TO llm_copilot_app USING (EXISTS (SELECT 1 FROM conversations messages_conversations WHERE messages_conversations.id = messages.conversation_id AND messages_conversations.user_id = sync.current_user_id()));

GRANT INSERT (id, conversation_id, role, content, content_type, model, tokens_used, latency_ms, tool_calls, tool_results, parent_message_id, sequence_number, feedback_rating, feedback_comment, created_at) ON messages TO llm_copilot_app;

CREATE POLICY messages_insert ON messages FOR INSERT TO llm_copilot_app WITH CHECK (EXISTS (SELECT 1 FROM conversations messages_conversations WHERE messages_conversations.id = messages.conversation_id AND messages_conversations.user_id = sync.current_user_id()));

GRANT UPDATE (feedback_rating, feedback_comment) ON messages TO llm_copilot_app;

CREATE POLICY messages_update ON messages FOR UPDATE TO llm_copilot_app USING (EXISTS (SELECT 1 FROM conversations messages_conversations WHERE messages_conversations.id = messages.conversation_id AND messages_conversations.user_id = sync.current_user_id())) WITH CHECK (EXISTS (SELECT 1 FROM conversations messages_conversations WHERE messages_conversations.id = messages.conversation_id AND messages_conversations.user_id = sync.current_user_id()));

GRANT DELETE ON messages TO llm_copilot_app;

CREATE POLICY messages_delete ON messages FOR DELETE TO llm_copilot_app USING (EXISTS (SELECT 1 FROM conversations messages_conversations WHERE messages_conversations.id = messages.conversation_id AND messages_conversations.user_id = sync.current_user_id()));

ALTER TABLE workflows ENABLE ROW LEVEL SECURITY;

GRANT SELECT (id, user_id, name, description, version, definition, parameters, environment_vars, triggers, tags, is_active, is_template, created_at, updated_at, deleted_at) ON workflows TO llm_copilot_app;

CREATE POLICY workflows_select ON workflows FOR SELECT TO llm_copilot_app USING (workflows.user_id = sync.current_user_id());

GRANT INSERT (id, user_id, name, description, version, definition, parameters, environment_vars, triggers, tags, is_active, is_template, created_at, deleted_at) ON workflows TO llm_copilot_app;

CREATE POLICY workflows_insert ON workflows FOR INSERT TO llm_copilot_app WITH CHECK (workflows.user_id = sync.current_user_id());

GRANT UPDATE (name, description, version, definition, parameters, environment_vars, triggers, tags, is_active, is_template, deleted_at) ON workflows TO llm_copilot_app;

CREATE POLICY workflows_update ON workflows FOR UPDATE TO llm_copilot_app USING (workflows.user_id = sync.current_user_id()) WITH CHECK (workflows.user_id = sync.current_user_id());

GRANT DELETE ON workflows TO llm_copilot_app;

CREATE POLICY workflows_delete ON workflows FOR DELETE TO llm_copilot_app USING (workflows.user_id = sync.current_user_id());

ALTER TABLE workflow_executions ENABLE ROW LEVEL SECURITY;

GRANT SELECT (id, workflow_id, user_id, status, parameters, environment, trigger_type, trigger_source, current_step, completed_steps, failed_steps, outputs, error_message, error_stack, total_duration_ms, steps_executed, queued_at, started_at, completed_at, cancelled_at) ON workflow_executions TO llm_copilot_app;

CREATE POLICY workflow_executions_select ON workflow_executions FOR SELECT TO llm_copilot_app USING (workflow_executions.user_id = sync.current_user_id());

GRANT INSERT (id, workflow_id, user_id, status, parameters, environment, trigger_type, trigger_source, current_step, completed_steps, failed_steps, outputs, error_message, error_stack, total_duration_ms, steps_executed, queued_at, started_at, completed_at, cancelled_at) ON workflow_executions TO llm_copilot_app;

CREATE POLICY workflow_executions_insert ON workflow_executions FOR INSERT TO llm_copilot_app WITH CHECK (workflow_executions.user_id = sync.current_user_id());

GRANT UPDATE (status, parameters, environment, trigger_type, trigger_source, current_step, completed_steps, failed_steps, outputs, error_message, error_stack, total_duration_ms, steps_executed, queued_at, started_at, completed_at, cancelled_at) ON workflow_executions TO llm_copilot_app;

CREATE POLICY workflow_executions_update ON workflow_executions FOR UPDATE TO llm_copilot_app USING (workflow_executions.user_id = sync.current_user_id()) WITH CHECK (workflow_executions.user_id = sync.current_user_id());

GRANT DELETE ON workflow_executions TO llm_copilot_app;

CREATE POLICY workflow_executions_delete ON workflow_executions FOR DELETE TO llm_copilot_app USING (workflow_executions.user_id = sync.current_user_id());

ALTER TABLE step_executions ENABLE ROW LEVEL SECURITY;

GRANT SELECT (id, workflow_execution_id, step_id, step_name, step_type, status, inputs, outputs, retry_count, max_retries, error_message, duration_ms, queued_at, started_at, completed_at) ON step_executions TO llm_copilot_app;

CREATE POLICY step_executions_select ON step_executions FOR SELECT TO llm_copilot_app USING (EXISTS (SELECT 1 FROM workflow_executions step_executions_workflow_executions WHERE step_executions_workflow_executions.id = step_executions.workflow_execution_id AND step_executions_workflow_executions.user_id = sync.current_user_id()));

GRANT INSERT (id, workflow_execution_id, step_id, step_name, step_type, status, inputs, outputs, retry_count, max_retries, error_message, duration_ms, queued_at, started_at, completed_at) ON step_executions TO llm_copilot_app;

CREATE POLICY step_executions_insert ON step_executions FOR INSERT TO llm_copilot_app WITH CHECK (EXISTS (SELECT 1 FROM workflow_executions step_executions_workflow_executions WHERE step_executions_workflow_executions.id = step_executions.workflow_execution_id AND step_executions_workflow_executions.user_id = sync.current_user_id()));

GRANT UPDATE (step_id, step_name, step_type, status, inputs, outputs, retry_count, max_retries, error_message, duration_ms, queued_at, started_at, completed_at) ON step_executions TO llm_copilot_app;

CREATE POLICY step_executions_update ON step_executions FOR UPDATE TO llm_copilot_app USING (EXISTS (SELECT 1 FROM workflow_executions step_executions_workflow_executions WHERE step_executions_workflow_executions.id = step_executions.workflow_execution_id AND step_executions_workflow_executions.user_id = sync.current_user_id())) WITH CHECK (EXISTS (SELECT 1 FROM workflow_executions step_executions_workflow_executions WHERE step_executions_workflow_executions.id = step_executions.workflow_execution_id AND step_executions_workflow_executions.user_id = sync.current_user_id()));

GRANT DELETE ON step_executions TO llm_copilot_app;

CREATE POLICY step_executions_delete ON step_executions FOR DELETE TO llm_copilot_app USING (EXISTS (SELECT 1 FROM workflow_executions step_executions_workflow_executions WHERE step_executions_workflow_executions.id = step_executions.workflow_execution_id AND step_executions_workflow_executions.user_id = sync.current_user_id()));

ALTER TABLE incidents ENABLE ROW LEVEL SECURITY;

GRANT SELECT (id, title, description, severity, status, source, detection_method, affected_services, affected_users_count, blast_radius, assigned_to, assigned_team, metadata, related_incidents, root_cause, resolution_notes, remediation_steps, detected_at, acknowledged_at, resolved_at, closed_at, created_at, updated_at) ON incidents TO llm_copilot_app;

CREATE POLICY incidents_select ON incidents FOR SELECT TO llm_copilot_app USING (sync.current_user_role() IN ('admin', 'operator', 'developer') OR incidents.assigned_to = sync.current_user_id());

GRANT INSERT (id, title, description, severity, status, source, detection_method, affected_services, affected_users_count, blast_radius, assigned_to, assigned_team, metadata, related_incidents, root_cause, resolution_notes, remediation_steps, detected_at, acknowledged_at, resolved_at, closed_at, created_at) ON incidents TO llm_copilot_app;

CREATE POLICY incidents_insert ON incidents FOR INSERT TO llm_copilot_app WITH CHECK (sync.current_user_role() IN ('admin', 'operator', 'developer'));

GRANT UPDATE (title, description, severity, status, source, detection_method, affected_services, affected_users_count, blast_radius, assigned_to, assigned_team, metadata, related_incidents, root_cause, resolution_notes, remediation_steps, detected_at, acknowledged_at, resolved_at, closed_at) ON incidents TO llm_copilot_app;

CREATE POLICY incidents_update ON incidents FOR UPDATE TO llm_copilot_app USING (sync.current_user_role() IN ('admin', 'operator', 'developer')) WITH CHECK (sync.current_user_role() IN ('admin', 'operator', 'developer'));

GRANT DELETE ON incidents TO llm_copilot_app;

CREATE POLICY incidents_delete ON incidents FOR DELETE TO llm_copilot_app USING (sync.current_user_role() IN ('admin', 'operator'));

ALTER TABLE runbooks ENABLE ROW LEVEL SECURITY;

GRANT SELECT (id, name, description, version, trigger_conditions, steps, is_automated, automation_config, tags, owner_id, execution_count, success_count, last_executed_at, created_at, updated_at, archived_at) ON runbooks TO llm_copilot_app;

CREATE POLICY runbooks_select ON runbooks FOR SELECT TO llm_copilot_app USING (sync.current_user_role() IN ('admin', 'operator', 'developer', 'viewer') OR runbooks.owner_id = sync.current_user_id());

GRANT INSERT (id, name, description, version, trigger_conditions, steps, is_automated, automation_config, tags, owner_id, execution_count, success_count, last_executed_at, created_at, archived_at) ON runbooks TO llm_copilot_app;

CREATE POLICY runbooks_insert ON runbooks FOR INSERT TO llm_copilot_app WITH CHECK (sync.current_user_role() IN ('admin', 'operator', 'developer'));

GRANT UPDATE (name, description, version, trigger_conditions, steps, is_automated, automation_config, tags, owner_id, execution_count, success_count, last_executed_at, archived_at) ON runbooks TO llm_copilot_app;

CREATE POLICY runbooks_update ON runbooks FOR UPDATE TO llm_copilot_app USING (sync.current_user_role() IN ('admin', 'operator', 'developer')) WITH CHECK (sync.current_user_role() IN ('admin', 'operator', 'developer'));

GRANT DELETE ON runbooks TO llm_copilot_app;

CREATE POLICY runbooks_delete ON runbooks FOR DELETE TO llm_copilot_app USING (sync.current_user_role() IN ('admin'));

ALTER TABLE runbook_executions ENABLE ROW LEVEL SECURITY;

GRANT SELECT (id, runbook_id, incident_id, executed_by, status, is_automated, current_step, completed_steps, step_results, success, notes, started_at, completed_at) ON runbook_executions TO llm_copilot_app;

CREATE POLICY runbook_executions_select ON runbook_executions FOR SELECT TO llm_copilot_app USING (sync.current_user_role() IN ('admin', 'operator', 'developer') OR runbook_executions.executed_by = sync.current_user_id());

GRANT INSERT (id, runbook_id, incident_id, executed_by, status, is_automated, current_step, completed_steps, step_results, success, notes, started_at, completed_at) ON runbook_executions TO llm_copilot_app;

CREATE POLICY runbook_executions_insert ON runbook_executions FOR INSERT TO llm_copilot_app WITH CHECK (sync.current_user_role() IN ('admin', 'operator', 'developer') AND runbook_executions.executed_by = sync.current_user_id());

GRANT UPDATE (incident_id, status, is_automated, current_step, completed_steps, step_results, success, notes, started_at, completed_at) ON runbook_executions TO llm_copilot_app;

CREATE POLICY runbook_executions_update ON runbook_executions FOR UPDATE TO llm_copilot_app USING (sync.current_user_role() IN ('admin', 'operator', 'developer') AND runbook_executions.executed_by = sync.current_user_id()) WITH CHECK (sync.current_user_role() IN ('admin', 'operator', 'developer') AND runbook_executions.executed_by = sync.current_user_id());

GRANT DELETE ON runbook_executions TO llm_copilot_app;

CREATE POLICY runbook_executions_delete ON runbook_executions FOR DELETE TO llm_copilot_app USING (sync.current_user_role() IN ('admin', 'operator') AND runbook_executions.executed_by = sync.current_user_id());

ALTER TABLE audit_logs ENABLE ROW LEVEL SECURITY;

GRANT INSERT (id, user_id, session_id, action, resource_type, resource_id, description, changes, metadata, ip_address, user_agent, success, error_message, created_at) ON audit_logs TO llm_copilot_app;

CREATE POLICY audit_logs_insert ON audit_logs FOR INSERT TO llm_copilot_app WITH CHECK (audit_logs.user_id = sync.current_user_id());

ALTER TABLE embeddings ENABLE ROW LEVEL SECURITY;

GRANT SELECT (id, user_id, collection, model, dimension, content_preview, payload, created_at, updated_at, content, vector) ON embeddings TO llm_copilot_app;

CREATE POLICY embeddings_select ON embeddings FOR SELECT TO llm_copilot_app USING (embeddings.user_id = sync.current_user_id());

GRANT INSERT (id, user_id, collection, model, dimension, content_preview, payload, created_at, content, vector) ON embeddings TO llm_copilot_app;

CREATE POLICY embeddings_insert ON embeddings FOR INSERT TO llm_copilot_app WITH CHECK (embeddings.user_id = sync.current_user_id());

GRANT UPDATE (model, dimension, content_preview, payload, content, vector) ON embeddings TO llm_copilot_app;

CREATE POLICY embeddings_update ON embeddings FOR UPDATE TO llm_copilot_app USING (embeddings.user_id = sync.current_user_id()) WITH CHECK (embeddings.user_id = sync.current_user_id());

GRANT DELETE ON embeddings TO llm_copilot_app;

CREATE POLICY embeddings_delete ON embeddings FOR DELETE TO llm_copilot_app USING (embeddings.user_id = sync.current_user_id());

ALTER TABLE memory_trajectories ENABLE ROW LEVEL SECURITY;

GRANT SELECT (id, user_id, task_id, template_id, query, model, steps, attempt_group, outcome, judge, expires_at, created_at, updated_at) ON memory_trajectories TO llm_copilot_app;

CREATE POLICY memory_trajectories_select ON memory_trajectories FOR SELECT TO llm_copilot_app USING (memory_trajectories.user_id = sync.current_user_id());

GRANT INSERT (id, user_id, task_id, template_id, query, model, steps, attempt_group, outcome, judge, expires_at, created_at) ON memory_trajectories TO llm_copilot_app;

CREATE POLICY memory_trajectories_insert ON memory_trajectories FOR INSERT TO llm_copilot_app WITH CHECK (memory_trajectories.user_id = sync.current_user_id());

GRANT UPDATE (outcome, judge, expires_at) ON memory_trajectories TO llm_copilot_app;

CREATE POLICY memory_trajectories_update ON memory_trajectories FOR UPDATE TO llm_copilot_app USING (memory_trajectories.user_id = sync.current_user_id()) WITH CHECK (memory_trajectories.user_id = sync.current_user_id());

GRANT DELETE ON memory_trajectories TO llm_copilot_app;

CREATE POLICY memory_trajectories_delete ON memory_trajectories FOR DELETE TO llm_copilot_app USING (memory_trajectories.user_id = sync.current_user_id());

ALTER TABLE memory_items ENABLE ROW LEVEL SECURITY;

GRANT SELECT (id, user_id, record_id, polarity, task_id, template_id, trajectory_ids, provenance_hash, title, description, content, source_query, model, dimension, query_vector, text_vector, retrieved_count, used_count, helped_count, hurt_count, last_used_at, superseded_by, contradicts, kept_apart, expires_at, created_at, updated_at) ON memory_items TO llm_copilot_app;

CREATE POLICY memory_items_select ON memory_items FOR SELECT TO llm_copilot_app USING (memory_items.user_id = sync.current_user_id());

GRANT INSERT (id, user_id, record_id, polarity, task_id, template_id, trajectory_ids, provenance_hash, title, description, content, source_query, model, dimension, query_vector, text_vector, retrieved_count, used_count, helped_count, hurt_count, last_used_at, superseded_by, contradicts, kept_apart, expires_at, created_at) ON memory_items TO llm_copilot_app;

CREATE POLICY memory_items_insert ON memory_items FOR INSERT TO llm_copilot_app WITH CHECK (memory_items.user_id = sync.current_user_id());

GRANT UPDATE (title, description, content, source_query, model, dimension, query_vector, text_vector, retrieved_count, used_count, helped_count, hurt_count, last_used_at, superseded_by, contradicts, kept_apart, expires_at) ON memory_items TO llm_copilot_app;

CREATE POLICY memory_items_update ON memory_items FOR UPDATE TO llm_copilot_app USING (memory_items.user_id = sync.current_user_id()) WITH CHECK (memory_items.user_id = sync.current_user_id());

GRANT DELETE ON memory_items TO llm_copilot_app;

CREATE POLICY memory_items_delete ON memory_items FOR DELETE TO llm_copilot_app USING (memory_items.user_id = sync.current_user_id());

CREATE TABLE IF NOT EXISTS schema_migrations (
  version bigint PRIMARY KEY,
  name varchar(255) NOT NULL,
  applied_at timestamptz NOT NULL DEFAULT now(),
  checksum varchar(64) NOT NULL,
  execution_time_ms integer NOT NULL,
  success boolean NOT NULL DEFAULT true
);

CREATE INDEX IF NOT EXISTS idx_schema_migrations_applied_at ON schema_migrations (applied_at DESC);

ANALYZE users;

ANALYZE sessions;

ANALYZE conversations;

ANALYZE messages;

ANALYZE workflows;

ANALYZE workflow_executions;

ANALYZE step_executions;

ANALYZE incidents;

ANALYZE runbooks;

ANALYZE runbook_executions;

ANALYZE audit_logs;

ANALYZE embeddings;

ANALYZE memory_trajectories;

ANALYZE memory_items;
