import { createHash } from 'node:crypto'
import { canonicalJson } from '../../schema/values/canonical-json.ts'
import type { MemoryItemText, TrajectorySource } from './types.ts'

/** What an item was made of: its trajectories as they were, and its first wording. Verdicts may change, steps may not. */
export function provenanceHash(
  item: MemoryItemText,
  trajectories: readonly TrajectorySource[],
): string {
  const { title, description, content } = item
  const sources = trajectories
    .map(({ id, task_id, query, steps }) => ({ id, task_id, query, steps }))
    .toSorted((a, b) => (a.id < b.id ? -1 : 1))
  const text = canonicalJson({ item: { title, description, content }, trajectories: sources })
  return createHash('sha256').update(text).digest('hex')
}
