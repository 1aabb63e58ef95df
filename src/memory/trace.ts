import type { Repository } from '../repositories/repository.ts'
import { provenanceHash } from './provenance.ts'
import type { StoredMemoryItem, Trajectory } from './types.ts'

export interface MemoryTrace {
  readonly item: StoredMemoryItem
  /** What it was distilled from, as far as it is still here. */
  readonly trajectories: readonly Trajectory[]
  /** Ids of what it was distilled from and is not here any more. */
  readonly missing: readonly string[]
  /** Items that were merged into it, directly. */
  readonly supersedes: readonly StoredMemoryItem[]
  /**
   * `intact`: item and trajectories are as they were when it was made. `changed`: one of them is not. `unknown`: a
   * trajectory is gone, or there never was one.
   */
  readonly provenance: 'intact' | 'changed' | 'unknown'
}

export function traceItem(
  item: StoredMemoryItem,
  items: Repository<'memory_items'>,
  trajectories: Repository<'memory_trajectories'>,
): MemoryTrace {
  const ids = item.trajectory_ids.filter((id) => id !== null)
  const found = ids.flatMap((id) => trajectories.find(id) ?? [])
  const missing = ids.filter((id) => !found.some((trajectory) => trajectory.id === id))
  const isKnown = item.provenance_hash !== null && missing.length === 0
  return {
    item,
    trajectories: found,
    missing,
    supersedes: items.list({ where: { superseded_by: item.id } }),
    provenance: !isKnown
      ? 'unknown'
      : provenanceHash(item, found) === item.provenance_hash
        ? 'intact'
        : 'changed',
  }
}
