import { embeddedConversation } from '../tables/embeddings.ts'

/** Functions and triggers of the domain at the centre: ids, `updated_at`, statistics, audit. */
export const idFunction = `CREATE FUNCTION uuid_generate_v7() RETURNS uuid LANGUAGE sql VOLATILE PARALLEL SAFE AS $$
  SELECT encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
    PLACING substring(int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3) FROM 1 FOR 6), 52, 1), 53, 1), 'hex')::uuid
$$`

export const domainFunctions: readonly string[] = [
  `CREATE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at = now();
  RETURN NEW;
END $$`,
  // Statement-level and in order of id: the seeds' row trigger took 3.6 times the time and deadlocked (research/centre.md).
  `CREATE FUNCTION update_conversation_stats() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
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
END $$`,
  `CREATE TRIGGER update_conversation_stats_on_message AFTER INSERT ON messages REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION update_conversation_stats('1')`,
  `CREATE TRIGGER update_conversation_stats_on_message_delete AFTER DELETE ON messages REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION update_conversation_stats('-1')`,
  // Agents never do it; an operator may move messages, or put a count of tokens right.
  `CREATE FUNCTION update_conversation_stats_of_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
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
END $$`,
  `CREATE TRIGGER update_conversation_stats_on_message_update AFTER UPDATE ON messages REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
  FOR EACH STATEMENT EXECUTE FUNCTION update_conversation_stats_of_changed()`,
  // docs/decisions/0007: a conversation takes the embeddings that its owner made of it along.
  `CREATE FUNCTION move_conversation_embeddings() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
SET enable_seqscan = off AS $$
DECLARE along uuid[];
BEGIN
  along := ARRAY(SELECT e.id FROM embeddings e WHERE e.collection = 'conversation_embeddings'
    AND ${embeddedConversation('e.payload')} = NEW.id::text AND e.user_id = OLD.user_id ORDER BY e.id FOR NO KEY UPDATE);
  IF cardinality(along) = 0 THEN RETURN NULL; END IF;
  UPDATE embeddings e SET user_id = NEW.user_id,
    payload = CASE WHEN e.payload ->> 'user_id' = OLD.user_id::text THEN jsonb_set(e.payload, '{user_id}', to_jsonb(NEW.user_id::text)) ELSE e.payload END
  WHERE e.id = ANY (along);
  RETURN NULL;
END $$`,
  `CREATE TRIGGER move_conversation_embeddings AFTER UPDATE OF user_id ON conversations FOR EACH ROW
  WHEN (OLD.user_id IS DISTINCT FROM NEW.user_id) EXECUTE FUNCTION move_conversation_embeddings()`,
  ...auditFunctions(),
]

/** AU-008 with E-01 put right: the actor comes from the transaction, secrets are left out, ids are the row's own. */
function auditFunctions(): string[] {
  const redacted = `ARRAY['password_hash', 'mfa_secret', 'api_key_hash', 'environment_vars']`
  return [
    `CREATE FUNCTION create_audit_log() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC' AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO audit_logs (user_id, action, resource_type, resource_id, changes)
    SELECT sync.current_user_id(), 'create', TG_TABLE_NAME, n.id, jsonb_build_object('after', to_jsonb(n) - ${redacted}) FROM new_rows n;
  ELSIF TG_OP = 'UPDATE' THEN
    INSERT INTO audit_logs (user_id, action, resource_type, resource_id, changes)
    SELECT sync.current_user_id(), 'update', TG_TABLE_NAME, n.id,
      jsonb_build_object('before', to_jsonb(o) - ${redacted}, 'after', to_jsonb(n) - ${redacted})
    FROM new_rows n JOIN old_rows o ON o.id = n.id;
  ELSE
    INSERT INTO audit_logs (user_id, action, resource_type, resource_id, changes)
    SELECT sync.current_user_id(), 'delete', TG_TABLE_NAME, o.id, jsonb_build_object('before', to_jsonb(o) - ${redacted}) FROM old_rows o;
  END IF;
  RETURN NULL;
END $$`,
    ...['users', 'workflows', 'incidents', 'runbooks'].flatMap((table) => [
      `CREATE TRIGGER audit_${table}_insert AFTER INSERT ON ${table} REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log()`,
      `CREATE TRIGGER audit_${table}_update AFTER UPDATE ON ${table} REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log()`,
      `CREATE TRIGGER audit_${table}_delete AFTER DELETE ON ${table} REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION create_audit_log()`,
    ]),
    `CREATE TABLE audit_logs_default PARTITION OF audit_logs DEFAULT`,
    `CREATE SCHEMA audit_archive`,
    // E-03: rows of that month that already lie in the default partition move over first.
    `CREATE FUNCTION create_audit_logs_partition(partition_date date) RETURNS text LANGUAGE plpgsql AS $$
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
END $$`,
    // E-03: bounds are read from the catalogue, names are not parsed; what leaves is kept in audit_archive until it is exported.
    `CREATE FUNCTION drop_old_audit_logs_partitions(retention_months integer DEFAULT 12) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
  part record;
  cutoff timestamptz := date_trunc('month', now() AT TIME ZONE 'UTC' - make_interval(months => retention_months)) AT TIME ZONE 'UTC';
BEGIN
  FOR part IN
    SELECT c.relname, (regexp_match(pg_get_expr(c.relpartbound, c.oid), $re$TO \\('([^']+)'\\)$re$))[1]::timestamptz AS upper_bound
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'public.audit_logs'::regclass AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'
  LOOP
    CONTINUE WHEN part.upper_bound IS NULL OR part.upper_bound > cutoff;
    EXECUTE format('ALTER TABLE audit_logs DETACH PARTITION %I', part.relname);
    EXECUTE format('ALTER TABLE %I SET SCHEMA audit_archive', part.relname);
    RETURN NEXT part.relname;
  END LOOP;
END $$`,
  ]
}

/** PG-025 to PG-027. */
export const domainViews: readonly string[] = [
  `CREATE VIEW active_sessions AS
SELECT s.id, s.user_id, u.email, u.username, s.status, s.ip_address, s.created_at, s.last_activity_at, s.expires_at,
  extract(epoch FROM (now() - s.last_activity_at))::double precision AS idle_seconds
FROM sessions s JOIN users u ON s.user_id = u.id
WHERE s.status = 'active' AND s.expires_at > now() AND u.deleted_at IS NULL`,
  `CREATE VIEW open_incidents_summary AS
SELECT severity, count(*) AS count, avg(extract(epoch FROM (now() - detected_at)))::double precision AS avg_age_seconds,
  max(detected_at) AS most_recent, min(detected_at) AS oldest
FROM incidents WHERE status NOT IN ('resolved', 'closed') GROUP BY severity`,
  `CREATE VIEW workflow_execution_stats AS
SELECT w.id AS workflow_id, w.name AS workflow_name, count(we.id) AS total_executions,
  count(*) FILTER (WHERE we.status = 'success') AS successful_executions,
  count(*) FILTER (WHERE we.status = 'failed') AS failed_executions,
  avg(we.total_duration_ms)::double precision AS avg_duration_ms, max(we.completed_at) AS last_execution
FROM workflows w LEFT JOIN workflow_executions we ON w.id = we.workflow_id
WHERE w.deleted_at IS NULL GROUP BY w.id, w.name`,
]
