import { preview } from '../../schema/errors.ts'
import { microsOfTimestamp, timestampOfMicros } from '../../schema/values/timestamp.ts'
import { notStub } from '../repositories/list-query.ts'
import { memoryItems, memoryTrajectories } from '../../schema/tables/memory.ts'
import type { Connection } from '../sqlite/connection.ts'
import { mustBeKnown, numberOf, refuse, timeOf } from './options.ts'

const DAY_MS = 86_400_000

export interface PruneOptions {
  /** The time by which everything is judged. Default: now. */
  readonly at?: string | Date | undefined
  /** What was used within so many milliseconds stays, unless it has expired. Default: 30 days. */
  readonly keepUsedMs?: number | undefined
  /**
   * Most items of one template (of a task that has none: of one task; of an item without either: of one query). Those
   * with the least {@link usefulness} go first. Default: no limit.
   */
  readonly capPerTask?: number | undefined
  /** Deletes what nobody uses: items whose {@link usefulness} has fallen below `min`. Default: none. */
  readonly decay?: { readonly halfLifeMs: number; readonly min: number } | undefined
  /** Only says what would go. Default: false. */
  readonly dryRun?: boolean | undefined
}

/** `merged`: superseded by an item that goes. */
export type PruneReason = 'expired' | 'over-cap' | 'decayed' | 'merged'

export interface Pruned {
  readonly items: readonly { readonly id: string; readonly reason: PruneReason }[]
  readonly trajectories: readonly { readonly id: string; readonly reason: 'expired' }[]
}

/** What an item's worth is told by. */
export interface Usage {
  readonly created_at: string
  readonly last_used_at: string | null
  readonly used_count: number
  readonly helped_count: number
  readonly hurt_count: number
}

interface ItemRow extends Usage {
  readonly id: string
  readonly task: string
  readonly superseded_by: string | null
  readonly expires_at: string | null
}

const HALF_LIFE_MS = 30 * DAY_MS

/**
 * `1 + used + 2 helped - 2 hurt`, at least 0, halved with every half-life since the item was last used, or made.
 *
 *   new 1, after one half-life 0.5; followed twice and helped once 5; made, followed and hurt once 0
 */
export function usefulness(usage: Usage, at: string, halfLifeMs: number): number {
  const { used_count, helped_count, hurt_count, last_used_at, created_at } = usage
  const worth = Math.max(0, 1 + used_count + 2 * helped_count - 2 * hurt_count)
  const since = last_used_at !== null && last_used_at > created_at ? last_used_at : created_at
  const ageMs = Math.max(0, microsOfTimestamp(at) - microsOfTimestamp(since)) / 1000
  return worth * 2 ** (-ageMs / halfLifeMs)
}

/** Rows deleted in one local transaction: others must not wait long, and the centre takes a transaction whole. */
const SLICE = 2000

export function prune(connection: Connection, now: string, options: PruneOptions): Pruned {
  const limits = validated(now, options)
  const pruned = whatGoes(connection, limits)
  if (options.dryRun === true) return pruned
  // Each slice is chosen and deleted in one transaction: what was used meanwhile is seen to be used.
  let left = pruned
  const gone = { items: [] as Pruned['items'][number][], trajectories: [...pruned.trajectories] }
  while (left.items.length > 0) {
    left = connection.transaction(() => {
      const going = whatGoes(connection, limits).items
      const slice = going.slice(0, SLICE)
      for (const { id } of slice) connection.run('DELETE FROM memory_items WHERE id = ?', id)
      gone.items.push(...slice)
      return { items: going.slice(SLICE), trajectories: [] }
    })
  }
  for (let from = 0; from < gone.trajectories.length; from += SLICE) {
    connection.transaction(() => {
      for (const { id } of gone.trajectories.slice(from, from + SLICE))
        connection.run('DELETE FROM memory_trajectories WHERE id = ?', id)
    })
  }
  return gone
}

function whatGoes(connection: Connection, limits: Limits): Pruned {
  const items = connection.all<ItemRow>(
    `SELECT id, coalesce('template ' || template_id, 'task ' || task_id, 'query ' || source_query) AS task,
      superseded_by, expires_at, created_at, last_used_at, used_count, helped_count, hurt_count
    FROM memory_items t WHERE ${notStub(memoryItems)} ORDER BY created_at DESC, id DESC`,
  )
  const trajectories = connection.all<{ id: string }>(
    `SELECT id FROM memory_trajectories t WHERE expires_at <= ? AND ${notStub(memoryTrajectories)} ORDER BY id`,
    limits.at,
  )
  const going = goingItems(items, limits)
  return {
    // Newest first: what was merged goes before what it was merged into, and never comes back in between.
    items: items.flatMap(({ id }) => {
      const reason = going.get(id)
      return reason === undefined ? [] : [{ id, reason }]
    }),
    trajectories: trajectories.map(({ id }) => ({ id, reason: 'expired' })),
  }
}

interface Limits {
  readonly at: string
  readonly usedSince: string
  readonly cap: number
  readonly halfLifeMs: number
  readonly min: number
}

function validated(now: string, options: PruneOptions): Limits {
  const call = 'prune'
  mustBeKnown(call, options, ['at', 'keepUsedMs', 'capPerTask', 'decay', 'dryRun'])
  const { at: given, decay } = options
  const at = given === undefined ? now : timeOf(call, 'at', given)
  if (decay !== undefined) mustBeKnown(call, decay, ['halfLifeMs', 'min'])
  if (decay !== undefined && (decay.halfLifeMs === undefined || decay.min === undefined))
    refuse(call, `decay needs halfLifeMs and min, got ${preview(decay)}`)
  const long = { min: 0, max: 100 * 365 * DAY_MS }
  const keepUsedMs = numberOf(call, 'keepUsedMs', options.keepUsedMs, {
    ...long,
    default: 30 * DAY_MS,
  })
  const most = Number.MAX_SAFE_INTEGER
  return {
    at,
    usedSince: before(at, keepUsedMs),
    cap: numberOf(call, 'capPerTask', options.capPerTask, {
      default: most,
      min: 1,
      max: most,
      whole: true,
    }),
    halfLifeMs: numberOf(call, 'decay.halfLifeMs', decay?.halfLifeMs, {
      ...long,
      min: 1,
      default: HALF_LIFE_MS,
    }),
    min: numberOf(call, 'decay.min', decay?.min, { default: 0, min: 0, max: 1e9 }),
  }
}

const before = (at: string, ms: number): string =>
  timestampOfMicros(Math.max(0, microsOfTimestamp(at) - Math.floor(ms * 1000)))

function goingItems(items: readonly ItemRow[], limits: Limits): Map<string, PruneReason> {
  const { at, usedSince, cap, halfLifeMs, min } = limits
  const going = new Map<string, PruneReason>()
  const worth = new Map(items.map((item) => [item.id, usefulness(item, at, halfLifeMs)]))
  const isKept = ({ last_used_at }: ItemRow): boolean =>
    last_used_at !== null && last_used_at >= usedSince
  for (const item of items) {
    if (item.expires_at !== null && item.expires_at <= at) going.set(item.id, 'expired')
    else if (!isKept(item) && (worth.get(item.id) ?? 0) < min) going.set(item.id, 'decayed')
  }
  const staying = items.filter(({ id, superseded_by }) => superseded_by === null && !going.has(id))
  for (const group of groupsOf(staying)) {
    const byWorth = group.toSorted((a, b) => (worth.get(b.id) ?? 0) - (worth.get(a.id) ?? 0))
    for (const item of byWorth.slice(cap)) if (!isKept(item)) going.set(item.id, 'over-cap')
  }
  takeMergedAlong(items, going, isKept)
  return going
}

function groupsOf(items: readonly ItemRow[]): ItemRow[][] {
  const groups = new Map<string, ItemRow[]>()
  for (const item of items) {
    const group = groups.get(item.task)
    if (group === undefined) groups.set(item.task, [item])
    else group.push(item)
  }
  return [...groups.values()]
}

/** Left behind, what an item superseded would come back as a lesson of its own. */
function takeMergedAlong(
  items: readonly ItemRow[],
  going: Map<string, PruneReason>,
  isKept: (item: ItemRow) => boolean,
): void {
  for (let found = -1; found !== 0;) {
    found = 0
    for (const item of items) {
      const { id, superseded_by: by } = item
      if (by === null || !going.has(by) || going.has(id) || isKept(item)) continue
      going.set(id, 'merged')
      found += 1
    }
  }
}
