import { valueBeforeAdded, type Stored, type StoredRow } from '../../schema/codec.ts'
import { agentColumns, mustColumn, type TableDefinition } from '../../schema/define.ts'
import { loggedMutations } from '../../schema/sqlite/logged-images.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import { overlay } from '../merge/overlay.ts'
import { decodeImage } from './image.ts'

/** A mutation of the outbox. */
export interface PendingMutation {
  readonly n: number
  readonly tx: number
  readonly op: 'insert' | 'update' | 'delete'
  readonly patch: StoredRow
  /** What the columns of an update were before it. */
  readonly before: StoredRow
  readonly blocked: boolean
}

interface LogRow {
  n: number
  tx: number
  op: PendingMutation['op']
  patch: string | null
  before: string | null
  blocked: number
}

/** Pending mutations of a row, in order. */
export function pendingOf(
  connection: Connection,
  table: TableDefinition,
  id: string,
): PendingMutation[] {
  return connection
    .all<LogRow>(
      `SELECT n, tx, op, patch, before, blocked FROM ${loggedMutations} WHERE id = ? AND tbl = ? ORDER BY n`,
      id,
      table.number,
    )
    .map(({ n, tx, op, patch, before, blocked }) => ({
      n,
      tx,
      op,
      patch: patch === null ? {} : decodeImage(table, patch),
      before: before === null ? {} : decodeImage(table, before),
      blocked: blocked === 1,
    }))
}

/**
 * What a row looks like to the program: its authoritative image with the pending mutations on top, in order. Null where
 * there is none.
 */
export function visibleRow(
  table: TableDefinition,
  base: StoredRow | null,
  pending: readonly PendingMutation[],
  current: StoredRow | undefined,
): StoredRow | null {
  let image: StoredRow | null = base
  for (const { op, patch, before, blocked } of pending) {
    if (blocked) continue
    if (op === 'delete') image = null
    else if (image !== null) image = overlay(table, image, patch, op === 'update' ? before : {})
    else if (op === 'insert') image = { ...freshDerived(table, patch), ...patch }
  }
  if (image === null || pending.length === 0) return image
  return withLocalUpdatedAt(table, image, current)
}

/** Derived columns, and those that came later, of a row that only this store has yet. */
function freshDerived(table: TableDefinition, patch: StoredRow): StoredRow {
  const row: Record<string, Stored> = {}
  for (const name of agentColumns(table)) {
    if (Object.hasOwn(patch, name)) continue
    const shape = mustColumn(table, name)
    if (shape.default?.kind === 'literal') row[name] = valueBeforeAdded(shape)
    else if (shape.nullable && shape.default === undefined) row[name] = null
    else row[name] = shape.kind === 'timestamp' ? (patch['created_at'] ?? null) : 0
  }
  return row
}

/** A pending change is a local one: `updated_at` stays where the local trigger put it. */
function withLocalUpdatedAt(
  table: TableDefinition,
  image: StoredRow,
  current: StoredRow | undefined,
): StoredRow {
  if (!Object.hasOwn(table.columns, 'updated_at')) return image
  const local = current?.['updated_at']
  const theirs = image['updated_at'] ?? null
  const later =
    typeof local === 'string' && (typeof theirs !== 'string' || local > theirs) ? local : theirs
  return { ...image, updated_at: later }
}
