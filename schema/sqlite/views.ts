/** PG-025 to PG-027, in SQLite's words. Times are text; ages are seconds. */
export const views: readonly string[] = [
  `CREATE VIEW active_sessions AS
SELECT s.id, s.user_id, u.email, u.username, s.status, s.ip_address, s.created_at, s.last_activity_at, s.expires_at,
  unixepoch('subsec') - unixepoch(s.last_activity_at, 'subsec') AS idle_seconds
FROM sessions s JOIN users u ON s.user_id = u.id
WHERE s.status = 'active'
  AND s.expires_at > strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')
  AND u.deleted_at IS NULL`,
  `CREATE VIEW open_incidents_summary AS
SELECT severity, count(*) AS count, avg(unixepoch('subsec') - unixepoch(detected_at, 'subsec')) AS avg_age_seconds,
  max(detected_at) AS most_recent, min(detected_at) AS oldest
FROM incidents
WHERE status NOT IN ('resolved', 'closed') AND NOT EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = incidents.id AND b.tbl = 8)
GROUP BY severity`,
  `CREATE VIEW workflow_execution_stats AS
SELECT w.id AS workflow_id, w.name AS workflow_name, count(we.id) AS total_executions,
  count(CASE WHEN we.status = 'success' THEN 1 END) AS successful_executions,
  count(CASE WHEN we.status = 'failed' THEN 1 END) AS failed_executions,
  avg(we.total_duration_ms) AS avg_duration_ms, max(we.completed_at) AS last_execution
FROM workflows w LEFT JOIN workflow_executions we ON w.id = we.workflow_id
WHERE w.deleted_at IS NULL AND NOT EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = w.id AND b.tbl = 5)
GROUP BY w.id, w.name`,
]
