import { createHash } from 'node:crypto'
import { allTables } from '../../schema/tables.ts'
import type { ChecksumResponse } from '../../sync/protocol/messages.ts'
import { checksumText } from '../../sync/protocol/table-checksum.ts'
import { SCHEMA_VERSION } from '../../schema/version.ts'
import type { Database } from '../postgres/database.ts'
import { readScope } from './hydrate.ts'
import { keysOf, loadPrincipal } from './principal.ts'
import { PullBuilder } from './pull-response.ts'

/** No client: what concerns one client alone is in no checksum. */
const NO_CLIENT = '00000000-0000-0000-0000-000000000000'

/**
 * Checksums of what a user's agents of a schema version must hold at the head, table by table (I1). Reads the whole
 * scope.
 */
export async function checksum(
  database: Database,
  claims: { userId: string; agentId: string },
  version: number,
): Promise<ChecksumResponse> {
  const schema = Math.min(version, SCHEMA_VERSION)
  const principal = await loadPrincipal(database, claims)
  const keys = keysOf(principal, NO_CLIENT)
  const builder = new PullBuilder({ userId: principal.userId, clientId: NO_CLIENT, keys, schema })
  const { position } = await readScope(database, builder, {
    principal,
    clientId: NO_CLIENT,
    keys,
    ackedSeq: 0,
    schema,
  })
  const { shapes, rows } = builder.build()
  const tables: ChecksumResponse['tables'] = {}
  for (const table of allTables) {
    if (table.writeClass === 'push-only' || table.since > schema) continue
    const own = rows.filter(([shape]) => shapes[shape]?.table === table.number)
    const hash = createHash('sha256')
    for (const [, values, placeholders] of own.toSorted(([, a], [, b]) =>
      String(a[0]) < String(b[0]) ? -1 : 1,
    ))
      hash.update(checksumText(values, placeholders))
    tables[table.name] = { rows: own.length, sha256: hash.digest('hex') }
  }
  return { position, ...(version === SCHEMA_VERSION ? {} : { schema: SCHEMA_VERSION }), tables }
}
