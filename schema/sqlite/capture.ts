import type { TableDefinition } from '../define.ts'
import { agentColumns, columnWrite, mustColumn, references } from '../define.ts'
import { placeholdersOf } from '../values/placeholder.ts'
import { sqliteNow } from './expressions.ts'
import {
  isLoggedByReference,
  jsonObject,
  jsonValue,
  rowSize,
  sentColumns,
} from './logged-images.ts'

/**
 * Triggers of the embedded store, generated per table. They see every write on the connection, raw SQL included:
 *
 *   guard    what an agent may not write raises, stubs are read-only, a key never changes
 *   capture  first mutation of a row keeps its authoritative image in `sync_base`; each mutation goes to `sync_log`, an
 *            inserted row of some tables as a reference, which gets its image before the row changes
 *   derived  `updated_at` and the statistics of conversations
 *   vectors  the change sequence of vector caches; the only one that also runs while a batch is applied
 */
const notApplying = '(SELECT applying FROM sync_state) = 0'

/**
 * The first mutation of a local transaction opens it. On the log, so that the rows after it only look up one key, and
 * every table's capture stays one statement.
 */
export const openTransaction: string = trigger(
  'sync_log_open',
  'AFTER INSERT ON sync_log',
  'NOT EXISTS (SELECT 1 FROM sync_tx t WHERE t.seq = NEW.tx)',
  `INSERT INTO sync_tx (seq, id, clock, nonce, position, first_n)
    SELECT s.tx, lower(hex(randomblob(16))), max(s.clock + 1, CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
      s.nonce, s.position, NEW.n FROM sync_state s;`,
)

export function captureTriggers(table: TableDefinition): string[] {
  return [
    ...guards(table),
    ...(table.writeClass === 'pull' ? [] : captures(table)),
    ...derived(table),
    ...(table.name === 'embeddings' ? embeddingChanges : []),
    ...(table.name === 'memory_items' ? memoryChanges : []),
  ]
}

function trigger(name: string, on: string, when: string, body: string): string {
  return `CREATE TRIGGER ${name} ${on} WHEN ${when}\nBEGIN\n    ${body.trim()}\nEND`
}

const raise = (message: string): string => `SELECT RAISE(ABORT, 'agentdb: ${message}');`

function guards(table: TableDefinition): string[] {
  const t = table.name
  const isStub = `EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = OLD.id AND b.tbl = ${table.number})`
  const out = [
    trigger(
      `${t}_guard_key`,
      `BEFORE UPDATE OF id ON ${t}`,
      'OLD.id IS NOT NEW.id',
      raise(`${t}.id never changes`),
    ),
    trigger(
      `${t}_guard_stub_update`,
      `BEFORE UPDATE ON ${t}`,
      `${isStub} AND ${notApplying}`,
      raise(`this ${t} row is outside your scope`),
    ),
  ]
  const insertable = table.writeClass !== 'pull' && table.owner.kind !== 'self'
  const deletable = insertable && table.writeClass !== 'push-only'
  if (!insertable) {
    out.push(
      trigger(
        `${t}_guard_insert`,
        `BEFORE INSERT ON ${t}`,
        notApplying,
        raise(`${t} is read-only for agents`),
      ),
    )
  }
  if (!deletable) {
    out.push(
      trigger(
        `${t}_guard_delete`,
        `BEFORE DELETE ON ${t}`,
        notApplying,
        raise(`${t} rows cannot be deleted by agents`),
      ),
    )
  } else {
    out.push(
      trigger(
        `${t}_guard_stub_delete`,
        `BEFORE DELETE ON ${t}`,
        `${isStub} AND ${notApplying}`,
        raise(`this ${t} row is outside your scope`),
      ),
    )
  }
  const fixed = agentColumns(table).filter(
    (name) =>
      name !== 'id' && !mustColumn(table, name).derived && columnWrite(table, name) !== 'always',
  )
  if (fixed.length > 0) {
    const changed = fixed.map((name) => fixedChange(table, name)).join(' OR ')
    out.push(
      trigger(
        `${t}_guard_fixed`,
        `BEFORE UPDATE OF ${fixed.join(', ')} ON ${t}`,
        `(${changed}) AND ${notApplying}`,
        raise(`${t}: agents cannot change ${fixed.join(', ')}`),
      ),
    )
  }
  return out
}

/** A fixed column changed; but a foreign key that its parent's deletion sets to NULL may. */
function fixedChange(table: TableDefinition, name: string): string {
  const target = mustColumn(table, name).references
  const changed = `OLD.${name} IS NOT NEW.${name}`
  return target?.onDelete === 'set null' ? `(${changed} AND NEW.${name} IS NOT NULL)` : changed
}

const jsonOf = (table: TableDefinition, name: string, row: 'OLD' | 'NEW'): string =>
  `json_quote(${jsonValue(table, name, row)})`

const changed = (names: readonly string[]): string =>
  names.map((name) => `OLD.${name} IS NOT NEW.${name}`).join(' OR ')

function captures(table: TableDefinition): string[] {
  const t = table.name
  const all = agentColumns(table)
  const sent = sentColumns(table)
  const patched = sent.filter((name) => name !== 'id')
  const firstMutation = `NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = OLD.id AND b.tbl = ${table.number})
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = OLD.id AND l.tbl = ${table.number})`
  const keepBase = `INSERT INTO sync_base (id, tbl, image)
    SELECT OLD.id, ${table.number}, ${jsonObject(table, all, 'OLD')}`
  const ref = t === 'messages' ? 'conversation_id' : undefined
  const refOf = (row: 'OLD' | 'NEW'): string => (ref === undefined ? 'NULL' : `${row}.${ref}`)
  const log = (
    op: string,
    row: 'OLD' | 'NEW',
    patch: string,
    before: string,
    pushed: string,
  ): string =>
    `INSERT INTO sync_log (tx, tbl, id, op, patch, before, pushed, ref)
    VALUES ((SELECT tx FROM sync_state), ${table.number}, ${row}.id, '${op}', ${patch}, ${before}, ${pushed}, ${refOf(row)});`
  const patch = (row: 'OLD' | 'NEW'): string => patchExpression(table, patched, row)
  return [
    trigger(
      `${t}_capture_insert`,
      `AFTER INSERT ON ${t}`,
      notApplying,
      isLoggedByReference(table)
        ? `INSERT INTO sync_log (tx, tbl, id, op, ref, size)
    VALUES ((SELECT tx FROM sync_state), ${table.number}, NEW.id, 'insert', ${refOf('NEW')}, ${rowSize(table, 'NEW')});`
        : log('insert', 'NEW', jsonObject(table, sent, 'NEW'), 'NULL', '1'),
    ),
    ...(isLoggedByReference(table) ? keepInsertedImage(table) : []),
    ...(table.writeClass === 'push-only'
      ? []
      : [
          // Before: after it, the trigger of `updated_at` may come first, and its OLD is the new row.
          trigger(
            `${t}_capture_base`,
            `BEFORE UPDATE ON ${t}`,
            `${notApplying} AND ${firstMutation} AND (${changed(all)})`,
            `${keepBase};`,
          ),
          trigger(
            `${t}_capture_update`,
            // The statistics of a conversation change with each message; no column of theirs is sent.
            `AFTER UPDATE OF ${patched.join(', ')} ON ${t}`,
            `(${changed(patched)}) AND ${notApplying}`,
            log('update', 'NEW', patch('NEW'), patch('OLD'), foreignKeyAction(table, 'update')),
          ),
          trigger(
            `${t}_capture_delete`,
            `AFTER DELETE ON ${t}`,
            notApplying,
            `${keepBase} WHERE ${firstMutation};\n    ${log('delete', 'OLD', 'NULL', deletedImage(t), foreignKeyAction(table, 'delete'))}`,
          ),
        ]),
  ]
}

/**
 * A row that is logged by reference is about to be another, or gone: from here on the log has the image itself. Also while
 * a batch is applied, since that, too, takes pending rows away.
 */
function keepInsertedImage(table: TableDefinition): string[] {
  const t = table.name
  const sent = sentColumns(table)
  const isReference = `id = OLD.id AND tbl = ${table.number} AND op = 'insert' AND patch IS NULL`
  const keep = `UPDATE sync_log SET patch = ${jsonObject(table, sent, 'OLD')} WHERE ${isReference};`
  const when = `EXISTS (SELECT 1 FROM sync_log WHERE ${isReference})`
  return [
    trigger(
      `${t}_capture_image_of_updated`,
      `BEFORE UPDATE OF ${sent.join(', ')} ON ${t}`,
      when,
      keep,
    ),
    trigger(`${t}_capture_image_of_deleted`, `BEFORE DELETE ON ${t}`, when, keep),
  ]
}

/** A deleted message's tokens are needed to take them off the statistics of its conversation. */
const deletedImage = (table: string): string =>
  table === 'messages' ? `json_object('tokens_used', OLD.tokens_used)` : 'NULL'

/** JSON object of the changed columns only, whole groups at a time, without placeholders that a group would take along. */
function patchExpression(
  table: TableDefinition,
  names: readonly string[],
  row: 'OLD' | 'NEW',
): string {
  const parts = names.map((name) => {
    const group = table.groups.find(({ columns }) => columns.includes(name))
    const together = group === undefined ? [name] : group.columns
    const isSent =
      group === undefined
        ? changed(together)
        : [`(${changed(together)})`, ...unlessPlaceholder(table, name)].join(' AND NOT ')
    return `CASE WHEN ${isSent} THEN ',"${name}":' || ${jsonOf(table, name, row)} ELSE '' END`
  })
  return `'{' || substr(${parts.join('\n      || ')}, 2) || '}'`
}

/** Whether an unchanged column only stands for what the centre has: sent along, it would take the true value's place. */
function unlessPlaceholder(table: TableDefinition, name: string): string[] {
  const forms = placeholdersOf(mustColumn(table, name).kind)
  if (forms !== 'any' && forms.length === 0) return []
  const looksLikeOne =
    forms === 'any' ? '' : `AND (${forms.map((form) => `NEW.${name} IS '${form}'`).join(' OR ')}) `
  return [
    `(OLD.${name} IS NEW.${name} ${looksLikeOne}AND EXISTS (SELECT 1 FROM sync_placeholder p
        WHERE p.id = NEW.id AND p.tbl = ${table.number} AND instr(p.columns, '"${name}"') > 0))`,
  ]
}

/**
 * 1 for a write of the user's, 0 for one that a foreign key makes because the parent is gone. The latter is never
 * pushed: the centre does its own.
 */
function foreignKeyAction(table: TableDefinition, op: 'update' | 'delete'): string {
  const onDelete = op === 'delete' ? 'cascade' : 'set null'
  const conditions = references(table)
    .filter((reference) => reference.onDelete === onDelete)
    .map(({ column, target }) => {
      const orphaned = `OLD.${column} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ${target} p WHERE p.id = OLD.${column})`
      return op === 'delete' ? `(${orphaned})` : `(NEW.${column} IS NULL AND ${orphaned})`
    })
  return conditions.length === 0 ? '1' : `NOT (${conditions.join(' OR ')})`
}

function derived(table: TableDefinition): string[] {
  const t = table.name
  const out: string[] = []
  if (Object.hasOwn(table.columns, 'updated_at')) {
    const watched = agentColumns(table).filter((name) => name !== 'updated_at')
    out.push(
      trigger(
        `update_${t}_updated_at`,
        `AFTER UPDATE OF ${watched.join(', ')} ON ${t}`,
        `NEW.updated_at IS OLD.updated_at AND ${notApplying} AND NEW.updated_at IS NOT ${sqliteNow} AND (${changed(watched)})`,
        `UPDATE ${t} SET updated_at = ${sqliteNow} WHERE id = NEW.id;`,
      ),
    )
  }
  if (t === 'messages') out.push(...conversationStatistics)
  return out
}

const conversationStatistics: readonly string[] = [
  trigger(
    'update_conversation_stats_on_message',
    'AFTER INSERT ON messages',
    notApplying,
    `UPDATE conversations SET
      message_count = coalesce(message_count, 0) + 1,
      total_tokens = coalesce(total_tokens, 0) + coalesce(NEW.tokens_used, 0),
      last_message_at = max(coalesce(last_message_at, NEW.created_at), NEW.created_at),
      updated_at = ${sqliteNow}
    WHERE id = NEW.conversation_id;`,
  ),
  trigger(
    'update_conversation_stats_on_message_delete',
    'AFTER DELETE ON messages',
    notApplying,
    `UPDATE conversations SET
      message_count = coalesce(message_count, 0) - 1,
      total_tokens = coalesce(total_tokens, 0) - coalesce(OLD.tokens_used, 0),
      updated_at = ${sqliteNow}
    WHERE id = OLD.conversation_id;`,
  ),
]

/** As many bits as JavaScript counts exactly. */
const newStamp = `random() & ${Number.MAX_SAFE_INTEGER}`

/**
 * By how many numbers a row that is gone stays in its sequence: for whoever follows more slowly, it is as if it had
 * never followed. Two go with each that comes, so that there are never more than that many.
 */
const GONE_KEPT = 100_000

/** Notes each change of a row in the sequence that its caches follow. */
function changeNotes(table: string, watched: readonly string[], notes: string): string[] {
  const next = `(SELECT coalesce(max(seq), 0) + 1 FROM ${notes})`
  const note = (row: 'OLD' | 'NEW', gone: 0 | 1): string =>
    `INSERT INTO ${notes} (id, seq, gone, stamp) VALUES (${row}.id, ${next}, ${gone}, ${newStamp})
    ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, gone = excluded.gone, stamp = excluded.stamp;`
  const forget = `INSERT INTO forgotten_changes (name, seq)
    SELECT '${notes}', max(o.seq) FROM (SELECT c.seq FROM ${notes} c
      WHERE c.gone = 1 AND c.seq < (SELECT max(seq) FROM ${notes}) - ${GONE_KEPT} ORDER BY c.seq LIMIT 2) o
    WHERE true HAVING max(o.seq) IS NOT NULL
    ON CONFLICT (name) DO UPDATE SET seq = excluded.seq;
    DELETE FROM ${notes} WHERE gone = 1 AND seq <= (SELECT f.seq FROM forgotten_changes f WHERE f.name = '${notes}');`
  return [
    trigger(`${table}_change_insert`, `AFTER INSERT ON ${table}`, '1', note('NEW', 0)),
    trigger(`${table}_change_update`, `AFTER UPDATE ON ${table}`, changed(watched), note('NEW', 0)),
    trigger(
      `${table}_change_delete`,
      `AFTER DELETE ON ${table}`,
      '1',
      `${note('OLD', 1)}\n    ${forget}`,
    ),
  ]
}

const embeddingChanges = changeNotes(
  'embeddings',
  ['vector', 'payload', 'collection', 'model', 'user_id', 'created_at'],
  'embedding_changes',
)

/** Counters change with every retrieval; none of them moves an item. */
const memoryChanges = changeNotes(
  'memory_items',
  ['query_vector', 'text_vector', 'model', 'superseded_by'],
  'memory_changes',
)
