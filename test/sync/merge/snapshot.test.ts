import fc from 'fast-check'
import { expect, inject, test } from 'vitest'
import pg from 'pg'
import { isVisible, parseSnapshot } from '../../../sync/merge/snapshot.ts'

test('visibility in a snapshot is what PostgreSQL says it is', async () => {
  const client = new pg.Client(inject('postgresUrl'))
  await client.connect()
  const snapshots = fc.sample(
    fc.tuple(
      fc.integer({ min: 3, max: 40 }),
      fc.uniqueArray(fc.integer({ min: 0, max: 30 }), { maxLength: 6 }),
    ),
    50,
  )
  try {
    for (const [xmin, offsets] of snapshots) {
      const running = offsets.map((offset) => xmin + offset).toSorted((a, b) => a - b)
      const lowest = running[0] ?? xmin
      const text = `${lowest}:${xmin + 31}:${running.join(',')}`
      const xids = Array.from({ length: 80 }, (_, xid) => xid + 1)
      const { rows } = await client.query<{ xid: string; visible: boolean }>(
        'SELECT x AS xid, pg_visible_in_snapshot(x::xid8, $2::pg_snapshot) AS visible FROM unnest($1::text[]) x',
        [xids, text],
      )
      const snapshot = parseSnapshot(text)
      for (const { xid, visible } of rows) {
        expect(`${text} ${xid} ${isVisible(BigInt(xid), snapshot)}`).toBe(
          `${text} ${xid} ${visible}`,
        )
      }
    }
  } finally {
    await client.end()
  }
})
