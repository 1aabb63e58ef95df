/**
 * The side tables of sync in the embedded store. No domain table has a column for sync.
 *
 * - `sync_state`: who this store is and up to where it has seen the centre; `applying` silences the triggers while a
 *   batch is applied, `tx` is the number of the local transaction that is open or comes next
 *   (`ancestor`: the client that this store was before it forked; `introduced`: whether the centre knows;
 *   `healing`: the scope is read again because the centre went back;
 *   `centre_schema`: the schema version that the centre told last, 0 before the first batch)
 * - `sync_tx`, `sync_log`: the outbox; a transaction and the mutations it made, captured by triggers (`patch` is NULL where
 *   an inserted row is its own image, which has `size` bytes; `ref`: the conversation whose statistics it changes)
 * - `sync_base`: the authoritative image of each row that has pending mutations
 * - `sync_stub`: rows that only stand in for what a reference points at outside the scope
 * - `sync_placeholder`: columns (JSON array, in order of definition) whose authoritative value cannot be held here
 * - `sync_hydration`: rows that no page of the whole scope has brought yet; `page_cursor` says where it goes on
 * - `sync_conflicts`: what was rejected, displaced or overwritten, with both sides. One that someone retried or discarded,
 *   or that an outcome already tells, stays as `resolved`, without its values: the centre may send it again, and its
 *   transaction may be asked for
 * - `sync_ack`: the batches that acknowledged local transactions, the latest of them: up to which number, at which position
 * - `sync_history`: histories of the centre that came before the present one, and the last position seen of each
 * - `sync_kept_tx`, `sync_kept_log`: transactions that the centre took, for as long as it may yet lose them; the patch of
 *   an inserted row that never changes is left out, since the row is there
 * - `sync_lost`: rows that are not here any more because the centre has lost them, until they come back
 * - `embedding_changes`, `memory_changes`: the change sequences that vector caches of `embeddings` and `memory_items`
 *   follow; they run while a batch is applied, too. `stamp` is random, 53 bits: a store that was put back to an earlier
 *   copy gives numbers again, but no stamp
 * - `forgotten_changes`: up to which number of each of those sequences rows that are gone are not in it any more
 */
export const syncTables: readonly string[] = [
  `CREATE TABLE sync_state (
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
) STRICT`,
  `CREATE TABLE sync_tx (
  seq INTEGER PRIMARY KEY,
  id TEXT NOT NULL,
  clock INTEGER NOT NULL,
  nonce TEXT,
  position INTEGER NOT NULL,
  first_n INTEGER NOT NULL
) STRICT`,
  `CREATE TABLE sync_log (
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
) STRICT`,
  `CREATE INDEX sync_log_id ON sync_log (id)`,
  `CREATE INDEX sync_log_ref ON sync_log (ref) WHERE ref IS NOT NULL`,
  `CREATE TABLE sync_base (
  id TEXT NOT NULL,
  tbl INTEGER NOT NULL,
  image TEXT,
  PRIMARY KEY (id, tbl)
) STRICT, WITHOUT ROWID`,
  `CREATE TABLE sync_stub (
  id TEXT NOT NULL,
  tbl INTEGER NOT NULL,
  PRIMARY KEY (id, tbl)
) STRICT, WITHOUT ROWID`,
  `CREATE TABLE sync_placeholder (
  id TEXT NOT NULL,
  tbl INTEGER NOT NULL,
  columns TEXT NOT NULL,
  PRIMARY KEY (id, tbl)
) STRICT, WITHOUT ROWID`,
  `CREATE TABLE sync_hydration (
  id TEXT NOT NULL,
  tbl INTEGER NOT NULL,
  PRIMARY KEY (id, tbl)
) STRICT, WITHOUT ROWID`,
  `CREATE TABLE sync_conflicts (
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
) STRICT`,
  `CREATE INDEX sync_conflicts_row ON sync_conflicts (row_id)`,
  `CREATE INDEX sync_conflicts_tx ON sync_conflicts (tx_id) WHERE tx_id IS NOT NULL`,
  `CREATE TABLE sync_ack (
  seq INTEGER PRIMARY KEY,
  nonce TEXT NOT NULL,
  position INTEGER NOT NULL
) STRICT`,
  `CREATE TABLE sync_history (
  n INTEGER PRIMARY KEY,
  nonce TEXT NOT NULL,
  position INTEGER NOT NULL
) STRICT`,
  `CREATE TABLE sync_kept_tx (
  n INTEGER PRIMARY KEY,
  seq INTEGER NOT NULL,
  id TEXT NOT NULL,
  clock INTEGER NOT NULL,
  nonce TEXT,
  position INTEGER NOT NULL,
  acked_nonce TEXT NOT NULL,
  acked_position INTEGER NOT NULL,
  acked_at INTEGER NOT NULL
) STRICT`,
  `CREATE UNIQUE INDEX sync_kept_tx_id ON sync_kept_tx (id)`,
  `CREATE TABLE sync_kept_log (
  n INTEGER PRIMARY KEY,
  tx INTEGER NOT NULL,
  tbl INTEGER NOT NULL,
  id TEXT NOT NULL,
  op TEXT NOT NULL,
  patch TEXT,
  before TEXT,
  pushed INTEGER NOT NULL,
  ref TEXT
) STRICT`,
  `CREATE INDEX sync_kept_log_tx ON sync_kept_log (tx)`,
  `CREATE TABLE sync_lost (
  id TEXT NOT NULL,
  tbl INTEGER NOT NULL,
  image TEXT NOT NULL,
  at TEXT NOT NULL,
  PRIMARY KEY (id, tbl)
) STRICT, WITHOUT ROWID`,
  `CREATE TABLE embedding_changes (
  id TEXT PRIMARY KEY,
  seq INTEGER NOT NULL UNIQUE,
  gone INTEGER NOT NULL,
  stamp INTEGER NOT NULL
) STRICT, WITHOUT ROWID`,
  `CREATE INDEX embedding_changes_gone ON embedding_changes (seq) WHERE gone = 1`,
  `CREATE TABLE memory_changes (
  id TEXT PRIMARY KEY,
  seq INTEGER NOT NULL UNIQUE,
  gone INTEGER NOT NULL,
  stamp INTEGER NOT NULL
) STRICT, WITHOUT ROWID`,
  `CREATE INDEX memory_changes_gone ON memory_changes (seq) WHERE gone = 1`,
  `CREATE TABLE forgotten_changes (
  name TEXT PRIMARY KEY,
  seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID`,
  `CREATE TABLE schema_migrations (
  version INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  applied_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')),
  checksum TEXT NOT NULL CHECK (length(checksum) = 64),
  execution_time_ms INTEGER NOT NULL,
  success INTEGER NOT NULL DEFAULT 1 CHECK (success IN (0, 1))
) STRICT`,
  `CREATE INDEX idx_schema_migrations_applied_at ON schema_migrations (applied_at DESC)`,
]
