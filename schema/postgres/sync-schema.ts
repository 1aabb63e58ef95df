import { appRole } from './access.ts'

/**
 * Schema `sync` of the centre: everything that replication needs, beside the domain, never in it.
 *
 * - `log`: one entry a row and statement, with the image as it then was and the scope keys before and after
 * - `batch`: positions; each holds the snapshot that decides which log entries lie below it
 * - `floor`: the position below which the log is gone
 * - `history`: one row per life of the server process, so that a centre that went back is noticed
 * - `row_meta`: keys, tombstone and per-column stamps of every row that ever was
 * - `setting`: the key that signs tokens and cursors, unless one is given
 * - `client`, `applied`, `outcome`, `rejected`, `conflict`: what each agent's pushes came to
 * - `fork`: times that the history went back, and what was decided; `healed`: which client brought what back since;
 *   `parked`: transactions that wait for rows which are not back yet; `tombstone`: deletes that came before their row
 * - `repeated`: numbers under which a store that forked sent again what its ancestor's client had sent
 * - `vector_state`: up to where Qdrant follows the log, and which server does it; `vector_collection`: what Qdrant holds of
 *   which model; `vector_dead`: rows that it refuses for good
 */
export const syncSchema: readonly string[] = [
  `CREATE SCHEMA sync`,
  `CREATE TABLE sync.history (
  nonce uuid PRIMARY KEY,
  first_position bigint NOT NULL,
  started text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
)`,
  `CREATE TABLE sync.batch (
  position bigint PRIMARY KEY,
  snapshot pg_snapshot NOT NULL,
  nonce uuid NOT NULL REFERENCES sync.history(nonce),
  at timestamptz NOT NULL DEFAULT clock_timestamp()
)`,
  `CREATE TABLE sync.floor (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  position bigint NOT NULL
)`,
  `CREATE TABLE sync.log (
  seq bigint GENERATED ALWAYS AS IDENTITY,
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  at timestamptz NOT NULL DEFAULT now(),
  tbl smallint NOT NULL,
  id uuid NOT NULL,
  op text NOT NULL CHECK (op IN ('insert', 'update', 'delete')),
  image jsonb,
  keys_before text[],
  keys_after text[]
) PARTITION BY RANGE (at)`,
  `CREATE TABLE sync.log_default PARTITION OF sync.log DEFAULT`,
  `CREATE INDEX log_xid ON sync.log (xid, seq)`,
  `CREATE TABLE sync.row_meta (
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
)`,
  `CREATE TABLE sync.client (
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
)`,
  `CREATE INDEX client_ancestor ON sync.client (ancestor) WHERE ancestor IS NOT NULL`,
  `CREATE TABLE sync.applied (
  tx_id text PRIMARY KEY,
  client_id uuid NOT NULL,
  seq bigint NOT NULL,
  clock bigint NOT NULL,
  at timestamptz NOT NULL DEFAULT now()
)`,
  // Rows come in about this order: a few pages of index tell which are old.
  `CREATE INDEX applied_at ON sync.applied USING brin (at) WITH (autosummarize = on)`,
  `CREATE TABLE sync.repeated (
  client_id uuid NOT NULL,
  seq bigint NOT NULL,
  tx_id text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (client_id, seq)
)`,
  `CREATE TABLE sync.outcome (
  client_id uuid NOT NULL,
  seq bigint NOT NULL,
  n integer NOT NULL,
  kind text NOT NULL CHECK (kind IN ('merged', 'superseded', 'rejected', 'dependency_failed', 'parked')),
  detail jsonb NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (client_id, seq, n)
)`,
  `CREATE TABLE sync.rejected (
  client_id uuid NOT NULL,
  tbl smallint NOT NULL,
  id uuid NOT NULL,
  seq bigint NOT NULL,
  n integer NOT NULL,
  PRIMARY KEY (client_id, tbl, id)
)`,
  `CREATE TABLE sync.conflict (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now(),
  tbl smallint NOT NULL,
  row_id uuid NOT NULL,
  loser uuid,
  winner uuid,
  lost jsonb NOT NULL,
  kept jsonb NOT NULL
)`,
  `CREATE INDEX conflict_row ON sync.conflict (tbl, row_id)`,
  // A store that reads its whole scope asks for those of its user's clients: the log may not go back so far.
  `CREATE INDEX client_user ON sync.client (user_id)`,
  `CREATE INDEX conflict_loser ON sync.conflict (loser) WHERE loser IS NOT NULL`,
  `CREATE INDEX conflict_winner ON sync.conflict (winner) WHERE winner IS NOT NULL`,
  `CREATE TABLE sync.fork (
  nonce uuid PRIMARY KEY,
  common_nonce uuid,
  common_position bigint NOT NULL,
  noticed_at timestamptz NOT NULL DEFAULT now(),
  decision text CHECK (decision IN ('all', 'after', 'none')),
  after_clock bigint,
  decided_at timestamptz,
  open_until timestamptz
)`,
  `CREATE TABLE sync.healed (
  client_id uuid PRIMARY KEY,
  fork uuid NOT NULL,
  user_id uuid NOT NULL,
  agent_id text NOT NULL,
  ancestor uuid NOT NULL,
  offered integer NOT NULL,
  withheld integer NOT NULL,
  at timestamptz NOT NULL DEFAULT now()
)`,
  `CREATE TABLE sync.parked (
  tx_id text PRIMARY KEY,
  client_id uuid NOT NULL,
  makes uuid[] NOT NULL,
  at timestamptz NOT NULL DEFAULT now()
)`,
  `CREATE TABLE sync.tombstone (
  tbl smallint NOT NULL,
  id uuid NOT NULL,
  user_id uuid NOT NULL,
  role text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tbl, id, user_id)
)`,
  `CREATE TABLE sync.vector_state (
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
)`,
  `INSERT INTO sync.vector_state DEFAULT VALUES`,
  `CREATE TABLE sync.vector_collection (
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
)`,
  `CREATE UNIQUE INDEX vector_collection_default ON sync.vector_collection (collection) WHERE is_default`,
  `CREATE TABLE sync.vector_dead (
  name text NOT NULL REFERENCES sync.vector_collection(name) ON DELETE CASCADE,
  id uuid NOT NULL,
  reason text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (name, id)
)`,
  `CREATE TABLE sync.setting (
  name text PRIMARY KEY,
  value text NOT NULL
)`,
  `CREATE FUNCTION sync.writer() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('agentdb.client', true), '')::uuid $$`,
  `CREATE FUNCTION sync.clock() RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT (extract(epoch FROM statement_timestamp()) * 1000000)::bigint $$`,
  `CREATE FUNCTION sync.current_user_id() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('app.user_id', true), '')::uuid $$`,
  `CREATE FUNCTION sync.current_user_role() RETURNS text LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('app.user_role', true), '') $$`,
  `CREATE FUNCTION sync.require_read_committed() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'agentdb: write synced tables under READ COMMITTED, not %', upper(current_setting('transaction_isolation'))
      USING HINT = 'A log image must be read after the row is locked; an older snapshot would serve an older row last.', ERRCODE = 'invalid_transaction_state';
  END IF;
END $$`,
  `CREATE FUNCTION sync.refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'agentdb: TRUNCATE of % would not reach the agents; use DELETE', TG_TABLE_NAME USING ERRCODE = 'feature_not_supported';
END $$`,
  `CREATE FUNCTION sync.ensure_log_partitions(weeks_ahead integer DEFAULT 2) RETURNS void LANGUAGE plpgsql AS $$
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
END $$`,
  `DO $$ BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '${appRole}') THEN CREATE ROLE ${appRole} NOLOGIN; END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; -- another database of the cluster made it just now
END $$`,
  `GRANT ${appRole} TO CURRENT_USER`,
  `GRANT USAGE ON SCHEMA public, sync TO ${appRole}`,
  `GRANT EXECUTE ON FUNCTION sync.current_user_id(), sync.current_user_role() TO ${appRole}`,
]
