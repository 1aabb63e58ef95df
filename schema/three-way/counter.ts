import type { Stored } from '../codec.ts'

/**
 * A counter that was `before`, became `mine`, and is now `theirs`: what was added is added. Null counts as 0, until
 * nobody else changed it: then it is what was written.
 *
 *   before 5, mine 8, theirs 10  ->  13
 *
 * The sum may lie outside the range of an integer; whoever writes it checks that.
 */
export function mergeCounter(before: Stored, mine: Stored, theirs: Stored): Stored {
  if (theirs === before) return mine
  const difference = Number(mine) - Number(before)
  return difference === 0 ? theirs : Number(theirs) + difference
}
