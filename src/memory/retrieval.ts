import type { Polarity } from '../../schema/tables/memory.ts'
import type { Connection } from '../sqlite/connection.ts'
import type { Candidate, MemoryIndex } from './memory-index.ts'
import type { RetrievedItem } from './types.ts'

export interface Probe {
  readonly model: string
  readonly vector: Float32Array
  readonly polarity: Polarity | undefined
  readonly by: 'task' | 'text'
  readonly k: number
  readonly maxItems: number
  readonly minScore: number
  /** What has expired by then is not there. */
  readonly at: string
}

interface ItemRow {
  readonly id: string
  readonly record_id: string
  readonly polarity: Polarity
  readonly title: string
  readonly description: string
  readonly content: string
  readonly source_query: string
  readonly task_id: string | null
  readonly trajectory_ids: string
  readonly contradicts: string
  readonly used_count: number
  readonly helped_count: number
  readonly hurt_count: number
}

/** Items that are there for retrieval, of one record. */
const itemsOfRecord = `SELECT id, record_id, polarity, title, description, content, source_query, task_id,
    trajectory_ids, contradicts, used_count, helped_count, hurt_count
  FROM memory_items
  WHERE record_id = ? AND model = ? AND dimension = ? AND superseded_by IS NULL
    AND (expires_at IS NULL OR expires_at > ?) AND (? IS NULL OR polarity = ?)
  ORDER BY created_at, id`

/** How many candidates are asked for beyond what is wanted: some may have expired. */
const SPARE = 8

/**
 * The items of the nearest records; inside `reading`. A record is as near as the nearest of its items that may be shown; what has expired
 * lies in the index as well, so more candidates are taken until there are enough. The items of a record have one task,
 * and words of their own: by text the nearest of them come first, whichever record they are of.
 */
export function nearestItems(
  connection: Connection,
  index: MemoryIndex,
  probe: Probe,
): RetrievedItem[] {
  index.follow()
  for (let wanted = probe.k + SPARE; ; wanted *= 4) {
    const candidates = index.nearest(probe, probe.vector, wanted)
    const records = recordsOf(connection, index, candidates, probe)
    if (records.length < probe.k && candidates.length === wanted) continue
    const items = records.flat()
    const inOrder = probe.by === 'text' ? items.toSorted((a, b) => b.score - a.score) : items
    return inOrder.slice(0, probe.maxItems)
  }
}

function recordsOf(
  connection: Connection,
  index: MemoryIndex,
  candidates: readonly Candidate[],
  probe: Probe,
): RetrievedItem[][] {
  const seen = new Set<string>()
  const records: RetrievedItem[][] = []
  const { model, vector, at, polarity = null } = probe
  for (const { recordId, itemIds, score } of candidates) {
    if (records.length === probe.k || score < probe.minScore) break
    if (seen.has(recordId)) continue
    const rows = connection.all<ItemRow>(
      itemsOfRecord,
      recordId,
      model,
      vector.length,
      at,
      polarity,
      polarity,
    )
    if (!rows.some(({ id }) => itemIds.has(id))) continue
    seen.add(recordId)
    records.push(
      probe.by === 'task'
        ? rows.map((row) => retrieved(row, score))
        : scoredByText(rows, index, probe),
    )
  }
  return records
}

/** Those that are near enough; without a vector of its words an item is not. */
function scoredByText(
  rows: readonly ItemRow[],
  index: MemoryIndex,
  { vector, minScore }: Probe,
): RetrievedItem[] {
  return rows.flatMap((row) => {
    const score = index.scoreOf(row.id, vector)
    return score === undefined || score < minScore ? [] : [retrieved(row, score)]
  })
}

const retrieved = (row: ItemRow, score: number): RetrievedItem => ({
  id: row.id,
  recordId: row.record_id,
  score,
  polarity: row.polarity,
  title: row.title,
  description: row.description,
  content: row.content,
  sourceQuery: row.source_query,
  taskId: row.task_id,
  trajectoryIds: JSON.parse(row.trajectory_ids) as (string | null)[],
  contradicts: JSON.parse(row.contradicts) as (string | null)[],
  used: row.used_count,
  helped: row.helped_count,
  hurt: row.hurt_count,
})
