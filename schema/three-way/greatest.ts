import type { Stored } from '../codec.ts'

/**
 * A value that only grows: of two changes of `before` the greater stands, null being the least. A change that nobody
 * else's came between stands as it is, so that a mistake can be put right.
 *
 *   before 1, mine 3, theirs 2  ->  3
 */
export function mergeGreatest(before: Stored, mine: Stored, theirs: Stored): Stored {
  if (theirs === before) return mine
  if (mine === before || mine === null) return theirs
  return theirs === null || mine > theirs ? mine : theirs
}
