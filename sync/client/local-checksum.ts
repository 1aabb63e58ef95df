import { createHash } from 'node:crypto'
import type { Stored, StoredRow } from '../../schema/codec.ts'
import { agentColumnsAt } from '../../schema/columns-at.ts'
import type { TableDefinition } from '../../schema/define.ts'
import { allTables } from '../../schema/tables.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import type { ChecksumResponse } from '../protocol/messages.ts'
import { checksumText } from '../protocol/table-checksum.ts'
import { decodeBase } from './image.ts'

/**
 * Checksums of what this store holds of the centre: authoritative rows, without stubs and without what is pending (I1).
 * Of a centre with an older schema `version` only what both know.
 */
export function localChecksum(connection: Connection, version = SCHEMA_VERSION): ChecksumResponse {
  const state = connection.get<{ position: number }>('SELECT position FROM sync_state')
  const tables: ChecksumResponse['tables'] = {}
  for (const table of allTables) {
    if (table.writeClass === 'push-only' || table.since > version) continue
    const rows = authoritativeRows(connection, table, version)
    const hash = createHash('sha256')
    const placeholders = placeholdersIn(connection, table, version)
    for (const values of rows)
      hash.update(checksumText(values, placeholders.get(String(values[0]))))
    tables[table.name] = { rows: rows.length, sha256: hash.digest('hex') }
  }
  return { position: state?.position ?? 0, tables }
}

/** Indexes of the columns that are placeholders, by row. */
function placeholdersIn(
  connection: Connection,
  table: TableDefinition,
  version: number,
): Map<string, number[]> {
  const names = agentColumnsAt(table, version)
  const marks = connection.all<{ id: string; columns: string }>(
    'SELECT id, columns FROM sync_placeholder WHERE tbl = ?',
    table.number,
  )
  return new Map(
    marks.map(({ id, columns }) => [
      id,
      (JSON.parse(columns) as string[]).map((name) => names.indexOf(name)),
    ]),
  )
}

function authoritativeRows(
  connection: Connection,
  table: TableDefinition,
  version: number,
): Stored[][] {
  const names = agentColumnsAt(table, version)
  const settled = connection.all<StoredRow>(
    `SELECT ${names.join(', ')} FROM ${table.name} t
    WHERE NOT EXISTS (SELECT 1 FROM sync_stub b WHERE b.id = t.id AND b.tbl = ${table.number})
      AND NOT EXISTS (SELECT 1 FROM sync_log l WHERE l.id = t.id AND l.tbl = ${table.number})
      AND NOT EXISTS (SELECT 1 FROM sync_base b WHERE b.id = t.id AND b.tbl = ${table.number})`,
  )
  const kept = connection
    .all<{ image: string }>(
      `SELECT image FROM sync_base WHERE tbl = ? AND image IS NOT NULL`,
      table.number,
    )
    .map(({ image }) => decodeBase(table, image))
  return [...settled, ...kept]
    .map((row) => names.map((name) => row[name] ?? null))
    .toSorted((a, b) => (String(a[0]) < String(b[0]) ? -1 : 1))
}
