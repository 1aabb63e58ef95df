-- Takes V001 back: every table and row of the store, what was never pushed included. Run it in one transaction, by hand:
--   sqlite3 agent.db 'BEGIN' '.read R001_initial_schema.sql' 'COMMIT'
-- Triggers and indexes go with their tables. With foreign keys on, DROP TABLE deletes the rows first: children before
-- parents, and capture silenced, so that nothing cascades into a table that is already gone.
UPDATE sync_state SET applying = 1;

DROP VIEW workflow_execution_stats;

DROP VIEW open_incidents_summary;

DROP VIEW active_sessions;

-- Full-text indexes, where a search has made them; their triggers go with their tables.
DROP TABLE IF EXISTS search_messages;

DROP TABLE IF EXISTS search_conversations;

DROP TABLE IF EXISTS search_incidents;

DROP TABLE IF EXISTS search_runbooks;

DROP TABLE IF EXISTS search_embeddings;

DROP TABLE IF EXISTS search_identifiers;

DROP TABLE IF EXISTS search_changed;

DROP TABLE IF EXISTS search_index;
DROP TABLE memory_items;

DROP TABLE memory_trajectories;

DROP TABLE embeddings;

DROP TABLE audit_logs;

DROP TABLE runbook_executions;

DROP TABLE runbooks;

DROP TABLE incidents;

DROP TABLE step_executions;

DROP TABLE workflow_executions;

DROP TABLE workflows;

DROP TABLE messages;

DROP TABLE conversations;

DROP TABLE sessions;

DROP TABLE users;

DROP TABLE embedding_changes;
DROP TABLE forgotten_changes;

DROP TABLE memory_changes;

DROP TABLE sync_ack;
DROP TABLE sync_hydration;
DROP TABLE sync_history;
DROP TABLE sync_kept_log;
DROP TABLE sync_kept_tx;
DROP TABLE sync_lost;

DROP TABLE sync_conflicts;

DROP TABLE sync_placeholder;

DROP TABLE sync_stub;

DROP TABLE sync_base;

DROP TABLE sync_log;

DROP TABLE sync_tx;

DROP TABLE sync_state;

DROP TABLE schema_migrations;
