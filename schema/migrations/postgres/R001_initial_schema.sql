-- Takes V001 back: every table, row, function and type of ours. Run it in one transaction, by hand:
--   psql --single-transaction -v ON_ERROR_STOP=1 -f R001_initial_schema.sql
-- What V001 found or shares with other databases stays: the extensions, and the role llm_copilot_app of the cluster.
-- It refuses while audit_archive holds partitions: export them first.
DROP SCHEMA audit_archive;

DROP VIEW workflow_execution_stats, open_incidents_summary, active_sessions;

DROP TABLE
  memory_items, memory_trajectories, embeddings, audit_logs, runbook_executions, runbooks, incidents, step_executions,
  workflow_executions, workflows, messages, conversations, sessions, users, schema_migrations;

DROP FUNCTION drop_old_audit_logs_partitions(integer);

DROP FUNCTION create_audit_logs_partition(date);

DROP FUNCTION create_audit_log();

DROP FUNCTION move_conversation_embeddings();

DROP FUNCTION update_conversation_stats_of_changed();

DROP FUNCTION update_conversation_stats();

DROP FUNCTION update_updated_at_column();

DROP FUNCTION uuid_generate_v7();

DROP SCHEMA sync CASCADE;

DROP TYPE
  user_role, user_status, session_status, workflow_status, execution_status, incident_severity, incident_status,
  audit_action;

REVOKE USAGE ON SCHEMA public FROM llm_copilot_app;
