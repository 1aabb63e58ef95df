import { createHash } from 'node:crypto'
import { allTables } from '../../../schema/tables.ts'
import type { ChecksumResponse, PullResponse } from '../../../sync/protocol/messages.ts'
import { checksumText } from '../../../sync/protocol/table-checksum.ts'

/** The centre's side of the checksums: of the rows of a whole scope. */
export function tableChecksums(
  { shapes, rows }: Pick<PullResponse, 'shapes' | 'rows'>,
  schema: number,
): ChecksumResponse['tables'] {
  const tables: ChecksumResponse['tables'] = {}
  for (const table of allTables) {
    if (table.writeClass === 'push-only' || table.since > schema) continue
    const own = rows
      .filter(([shape]) => shapes[shape]?.table === table.number)
      .map(([, values]) => values)
      .toSorted((a, b) => (String(a[0]) < String(b[0]) ? -1 : 1))
    const hash = createHash('sha256')
    for (const values of own) hash.update(checksumText(values))
    tables[table.name] = { rows: own.length, sha256: hash.digest('hex') }
  }
  return tables
}
