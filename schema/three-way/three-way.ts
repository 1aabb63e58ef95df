import type { Stored } from '../codec.ts'
import type { StateMachine, ValuePolicy } from '../define.ts'
import { mergeCounter } from './counter.ts'
import { mergeGreatest } from './greatest.ts'
import { mergeJson } from './json.ts'
import { mergeSet } from './set.ts'

/**
 * A change from `before` to `mine`, carried over to `theirs`: stored forms in, stored form out. Where nobody else changed
 * anything (`theirs` is `before`), it is `mine`.
 */
export type ThreeWay = (before: Stored, mine: Stored, theirs: Stored) => Stored

/** How a policy carries a change over to another value; of `merge`, with `mine` where both changed the same key. */
const threeWays: { readonly [P in ValuePolicy]?: ThreeWay } = {
  counter: mergeCounter,
  set: mergeSet,
  max: mergeGreatest,
  merge: (before, mine, theirs) => mergeJson(before, mine, theirs, 'mine').merged,
}

/** Undefined for policies that only choose between two values. */
export const threeWayOf = (policy: ValuePolicy | StateMachine): ThreeWay | undefined =>
  typeof policy === 'string' ? threeWays[policy] : undefined
