import type { TableDefinition } from '../define.ts'
import { agentColumns, mustColumn } from '../define.ts'
import { profileKey } from '../role-access.ts'
import { allTables, mustTable } from '../tables.ts'

/**
 * Statement triggers that write `sync.row_meta` and `sync.log`, generated per table (`SYNC-DESIGN.md` 1).
 *
 * Order matters: ids and changed columns come from the transition tables; `row_meta` is upserted in ascending order of
 * id; only a later statement draws `seq` and reads each image from the table as it then is. An image taken from the
 * transition table would be served in the wrong order when one statement changes a row through another's trigger.
 */
/**
 * A trigger's plans are made once a connection, often while the tables are empty: without these settings it would go on
 * reading whole tables when they are large.
 */
const settings = `SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_nestloop = off SET enable_hashjoin = on SET enable_mergejoin = on`

/** From here on the statements probe tables by key; a plan frozen by a large first batch would scan them. */
const probeTables = `PERFORM set_config('enable_nestloop', 'on', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);`

export function captureStatements(table: TableDefinition): string[] {
  const t = table.name
  return [
    captureFunction(table, 'insert', insertBody(table)),
    captureFunction(table, 'update', updateBody(table)),
    captureFunction(table, 'delete', deleteBody(table)),
    captureTrigger(t, 'insert', 'NEW TABLE AS new_rows'),
    captureTrigger(t, 'update', 'OLD TABLE AS old_rows NEW TABLE AS new_rows'),
    captureTrigger(t, 'delete', 'OLD TABLE AS old_rows'),
    `CREATE TRIGGER sync_refuse_truncate BEFORE TRUNCATE ON ${t} FOR EACH STATEMENT EXECUTE FUNCTION sync.refuse_truncate()`,
    `ALTER TABLE ${t} ENABLE ALWAYS TRIGGER sync_refuse_truncate`,
  ]
}

function captureFunction(table: TableDefinition, op: string, body: string): string {
  return `CREATE FUNCTION sync.capture_${table.name}_${op}() RETURNS trigger LANGUAGE plpgsql ${settings} AS $$
${body.includes('moved :=') ? 'DECLARE moved uuid[];\n' : ''}BEGIN
  PERFORM sync.require_read_committed();
${body}
  RETURN NULL;
END $$`
}

/**
 * Triggers fire in order of name, these last: what the others change is locked before any `row_meta`, as a plain update
 * does. The statistics of a conversation would else deadlock with its move to another owner.
 */
function captureTrigger(table: string, op: string, referencing: string): string {
  const name = `zz_sync_capture_${op}`
  return `CREATE TRIGGER ${name} AFTER ${op.toUpperCase()} ON ${table} REFERENCING ${referencing}
  FOR EACH STATEMENT EXECUTE FUNCTION sync.capture_${table}_${op}();
ALTER TABLE ${table} ENABLE ALWAYS TRIGGER ${name}`
}

/** Scope keys of a row, as SQL over its alias; rows of a parent take the parent's. */
function keysOf(table: TableDefinition, row: string): string {
  const { owner } = table
  switch (owner.kind) {
    case 'self':
      return `ARRAY['u:' || ${row}.id::text, '${profileKey}']`
    case 'column':
      return `ARRAY['u:' || ${row}.${owner.column}::text]`
    case 'shared':
      return `CASE WHEN ${row}.${owner.column} IS NULL THEN ARRAY['${owner.key}'] ELSE ARRAY['${owner.key}', 'u:' || ${row}.${owner.column}::text] END`
    case 'parent': {
      const parent = mustTable(owner.table)
      return `coalesce((SELECT p.keys FROM sync.row_meta p WHERE p.tbl = ${parent.number} AND p.id = ${row}.${owner.column}), sync.keys_of_${parent.name}(${row}.${owner.column}))`
    }
  }
}

/** Computes the keys of a row whose entry is missing, from the row itself; raises where there is none. */
export function keysFunction(table: TableDefinition): string {
  return `CREATE FUNCTION sync.keys_of_${table.name}(row_id uuid) RETURNS text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, sync, pg_temp AS $$
DECLARE found_keys text[];
BEGIN
  SELECT ${keysOf(table, 't')} INTO found_keys FROM ${table.name} t WHERE t.id = row_id;
  IF found_keys IS NULL THEN RAISE EXCEPTION 'agentdb: no scope keys for ${table.name} %', row_id USING ERRCODE = 'foreign_key_violation'; END IF;
  RETURN found_keys;
END $$`
}

const imageOf = (table: TableDefinition): string => {
  const hidden = Object.keys(table.columns).filter((name) => mustColumn(table, name).serverOnly)
  return hidden.length === 0
    ? 'to_jsonb(t)'
    : `to_jsonb(t) - ARRAY[${hidden.map((name) => `'${name}'`).join(', ')}]`
}

function lockParents(table: TableDefinition): string {
  const { owner } = table
  if (owner.kind !== 'parent') return ''
  const parent = mustTable(owner.table)
  return `  PERFORM 1 FROM sync.row_meta p WHERE p.tbl = ${parent.number}
    AND p.id = ANY (ARRAY(SELECT DISTINCT n.${owner.column} FROM new_rows n)) ORDER BY p.id FOR KEY SHARE;\n`
}

/** OFFSET 0 keeps each look-up one by key: joined freely, all of a table's `row_meta` is read for every row. */
function writeLog(table: TableDefinition, rows: 'new_rows' | 'old_rows', op: string): string {
  return `  ${probeTables}
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT ${table.number}, c.id, CASE WHEN t.image IS NULL THEN 'delete' ELSE '${op}' END,
    t.image, m.keys_before, CASE WHEN t.image IS NULL THEN NULL ELSE m.keys END
  FROM ${rows} c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = ${table.number} AND own.id = c.id OFFSET 0) m
  LEFT JOIN LATERAL (SELECT ${imageOf(table)} AS image FROM ${table.name} t WHERE t.id = c.id OFFSET 0) t ON true
  ORDER BY c.id;`
}

function insertBody(table: TableDefinition): string {
  return `${lockParents(table)}  INSERT INTO sync.row_meta AS m (tbl, id, keys, xid, clock, writer)
  SELECT ${table.number}, n.id, ${keysOf(table, 'n')}, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM new_rows n ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = NULL, deleted = false,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
${writeLog(table, 'new_rows', 'insert')}`
}

function updateBody(table: TableDefinition): string {
  const stamped = agentColumns(table).filter(
    (name) => name !== 'id' && !mustColumn(table, name).derived,
  )
  const stamps = stamped
    .map((name) => `'${name}', CASE WHEN o.${name} IS DISTINCT FROM n.${name} THEN stamp.value END`)
    .join(',\n      ')
  return `  IF EXISTS (SELECT 1 FROM old_rows o FULL JOIN new_rows n ON n.id = o.id WHERE n.id IS NULL OR o.id IS NULL) THEN
    RAISE EXCEPTION 'agentdb: ${table.name}.id never changes; delete the row and insert another' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
${lockMoved(table)}  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer, cols)
  SELECT ${table.number}, n.id, ${keysOf(table, 'n')}, ${keysOf(table, 'o')}, pg_current_xact_id(), sync.clock(), sync.writer(),
    jsonb_strip_nulls(jsonb_build_object(
      ${stamps}))
  FROM new_rows n JOIN old_rows o ON o.id = n.id,
    (SELECT jsonb_build_array(pg_current_xact_id()::text, sync.clock(), sync.writer()) AS value) stamp
  ORDER BY n.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = ${keysAfterUpdate(table)}, keys_before = m.keys, cols = m.cols || excluded.cols;
${writeLog(table, 'new_rows', 'update')}
${movesBelow(table) ? `  IF cardinality(moved) > 0 THEN PERFORM sync.move_below_${table.name}(moved); END IF;` : ''}`
}

/** Tables whose rows belong to whom a row of this one belongs to. */
const tablesBelow = (table: TableDefinition): TableDefinition[] =>
  allTables.filter(({ owner }) => owner.kind === 'parent' && owner.table === table.name)

const movesBelow = (table: TableDefinition): boolean => tablesBelow(table).length > 0

/**
 * Keys that were read through a parent may be old by the time the row's entry is locked: then its parent moved, and the
 * entry has the new ones.
 */
function keysAfterUpdate({ owner }: TableDefinition): string {
  if (owner.kind !== 'parent') return 'excluded.keys'
  return `CASE WHEN excluded.cols ? '${owner.column}' THEN excluded.keys ELSE m.keys END`
}

/**
 * Where the owner changes, the entry is taken FOR UPDATE: whoever inserts a child holds it FOR KEY SHARE, and so either
 * is done, and its row moves along, or waits and reads the new keys. A row that changes its parent is a child of both.
 */
function lockMoved(table: TableDefinition): string {
  const { owner } = table
  if (owner.kind === 'self' || (owner.kind !== 'parent' && !movesBelow(table))) return ''
  const { column } = owner
  const locks = [
    ...(owner.kind === 'parent'
      ? [
          `PERFORM 1 FROM sync.row_meta p WHERE p.tbl = ${mustTable(owner.table).number} AND p.id = ANY (ARRAY(
      SELECT n.${column} FROM new_rows n WHERE n.id = ANY (moved) UNION SELECT o.${column} FROM old_rows o WHERE o.id = ANY (moved)))
    ORDER BY p.id FOR KEY SHARE;`,
        ]
      : []),
    ...(movesBelow(table)
      ? [
          `PERFORM 1 FROM sync.row_meta m WHERE m.tbl = ${table.number} AND m.id = ANY (moved) ORDER BY m.id FOR UPDATE;`,
        ]
      : []),
  ]
  return `  moved := ARRAY(SELECT n.id FROM new_rows n JOIN old_rows o ON o.id = n.id WHERE o.${column} IS DISTINCT FROM n.${column} ORDER BY n.id);
  IF cardinality(moved) > 0 THEN
    ${locks.join('\n    ')}
  END IF;\n`
}

/**
 * Gives everything below rows that changed their owner the new keys, and logs it with the keys before and after: the
 * clients of the old owner remove it, those of the new one get it. The rows themselves do not change. A handful of
 * statements a level, whatever the number of rows. What goes elsewhere meanwhile is locked first, then looked up again.
 */
export function moveFunction(table: TableDefinition): string[] {
  if (!movesBelow(table)) return []
  return [
    `CREATE FUNCTION sync.move_below_${table.name}(moved uuid[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, sync, pg_temp SET timezone = 'UTC'
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE below uuid[];
BEGIN
${tablesBelow(table)
  .map((child) => moveLevel(table, child))
  .join('\n')}
END $$`,
  ]
}

function moveLevel(parent: TableDefinition, child: TableDefinition): string {
  const { owner } = child
  if (owner.kind !== 'parent') throw new Error(`bug in AgentDB: ${child.name} has no parent`)
  return `  below := ARRAY(SELECT c.id FROM ${child.name} c WHERE c.${owner.column} = ANY (moved) ORDER BY c.id);
  PERFORM 1 FROM sync.row_meta m WHERE m.tbl = ${child.number} AND m.id = ANY (below) ORDER BY m.id FOR UPDATE;
  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, xid, clock, writer)
  SELECT ${child.number}, b.id, p.keys, p.keys_before, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM unnest(below) b(id)
  CROSS JOIN LATERAL (SELECT c.${owner.column} AS parent FROM ${child.name} c WHERE c.id = b.id OFFSET 0) c
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = ${parent.number} AND own.id = c.parent OFFSET 0) p
  ORDER BY b.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys = excluded.keys, keys_before = m.keys;
  INSERT INTO sync.log (tbl, id, op, image, keys_before, keys_after)
  SELECT ${child.number}, b.id, 'update', t.image, m.keys_before, m.keys
  FROM unnest(below) b(id)
  CROSS JOIN LATERAL (SELECT own.keys, own.keys_before FROM sync.row_meta own WHERE own.tbl = ${child.number} AND own.id = b.id OFFSET 0) m
  CROSS JOIN LATERAL (SELECT ${imageOf(child)} AS image FROM ${child.name} t WHERE t.id = b.id OFFSET 0) t
  ORDER BY b.id;${movesBelow(child) ? `\n  PERFORM sync.move_below_${child.name}(below);` : ''}`
}

function deleteBody(table: TableDefinition): string {
  return `  INSERT INTO sync.row_meta AS m (tbl, id, keys, keys_before, deleted, xid, clock, writer)
  SELECT ${table.number}, o.id, k.keys, k.keys, true, pg_current_xact_id(), sync.clock(), sync.writer()
  FROM old_rows o, LATERAL (SELECT coalesce((SELECT own.keys FROM sync.row_meta own WHERE own.tbl = ${table.number} AND own.id = o.id), ${keysOf(table, 'o')}) AS keys) k
  ORDER BY o.id
  ON CONFLICT (tbl, id) DO UPDATE SET keys_before = m.keys, deleted = true,
    xid = excluded.xid, clock = excluded.clock, writer = excluded.writer, cols = '{}';
${writeLog(table, 'old_rows', 'delete')}`
}
