import type { StoredRow } from '../../schema/codec.ts'
import type { Connection } from '../../src/internal-for-sync.ts'

/** What pending messages add to the statistics of their conversation. */
export interface StatisticsDelta {
  readonly messages: number
  readonly tokens: number
  readonly lastMessageAt: string | null
}

/** Whether any mutation that is still in the log changes the statistics of a conversation. */
export const hasPendingStatistics = (connection: Connection, conversationId: string): boolean =>
  connection.get('SELECT 1 FROM sync_log WHERE ref = ? LIMIT 1', conversationId) !== undefined

/** What is pending of the statistics of a conversation; undefined where nothing is. Costs 2.5 µs a pending message. */
export function pendingStatistics(
  connection: Connection,
  conversationId: string,
): StatisticsDelta | undefined {
  const row = connection.get<{
    pending: number
    messages: number
    tokens: number
    latest: string | null
  }>(
    // A message that is gone at the centre, too, has left its statistics, and one that is there already, as a copy of this
    // store brought it, is in them: counting it here would count it twice.
    `SELECT count(*) AS pending,
      coalesce(sum(CASE WHEN op = 'insert' AND NOT is_there THEN 1 WHEN op = 'delete' AND NOT is_gone THEN -1 ELSE 0 END), 0) AS messages,
      coalesce(sum(CASE WHEN op = 'insert' AND NOT is_there THEN tokens WHEN op = 'delete' AND NOT is_gone THEN -(before ->> 'tokens_used') ELSE 0 END), 0) AS tokens,
      max(made_at) AS latest
    FROM (SELECT l.op, l.before, coalesce(m.tokens_used, l.patch ->> 'tokens_used') AS tokens,
        CASE l.op WHEN 'insert' THEN coalesce(m.created_at, l.patch ->> 'created_at') END AS made_at,
        b.image IS NOT NULL AS is_there,
        b.id IS NOT NULL AND b.image IS NULL
        AND NOT EXISTS (SELECT 1 FROM sync_log i WHERE i.id = l.id AND i.tbl = l.tbl AND i.op = 'insert' AND i.blocked = 0) AS is_gone
      FROM sync_log l LEFT JOIN sync_base b ON b.id = l.id AND b.tbl = l.tbl
        LEFT JOIN messages m ON l.op = 'insert' AND l.patch IS NULL AND m.id = l.id
      WHERE l.ref = ? AND l.blocked = 0)`,
    conversationId,
  )
  if (row === undefined || row.pending === 0) return undefined
  return { messages: row.messages, tokens: row.tokens, lastMessageAt: row.latest }
}

export function withStatistics(image: StoredRow, delta: StatisticsDelta | undefined): StoredRow {
  if (delta === undefined) return image
  const latest = [image['last_message_at'], delta.lastMessageAt].filter(
    (at) => typeof at === 'string',
  )
  return {
    ...image,
    message_count: Number(image['message_count'] ?? 0) + delta.messages,
    total_tokens: Number(image['total_tokens'] ?? 0) + delta.tokens,
    last_message_at: latest.toSorted().at(-1) ?? null,
  }
}
