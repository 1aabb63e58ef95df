import type { Stored } from '../codec.ts'

type Element = string | number | null

const elements = (stored: Stored): Element[] =>
  stored === null ? [] : (JSON.parse(String(stored)) as Element[])

/**
 * An array whose order and repetitions mean nothing: what was added is in, what was removed is out. What stays keeps the
 * order that it has, additions follow in theirs.
 *
 *   before [a, b], mine [b, c], theirs [a, b, d]  ->  [b, d, c]
 */
export function mergeSet(before: Stored, mine: Stored, theirs: Stored): Stored {
  if (theirs === before) return mine
  if (mine === before) return theirs
  const [had, has, now] = [elements(before), elements(mine), elements(theirs)]
  const [wasIn, isIn, stands] = [new Set(had), new Set(has), new Set(now)]
  const added = [...isIn].filter((element) => !wasIn.has(element) && !stands.has(element))
  const kept = now.filter((element) => isIn.has(element) || !wasIn.has(element))
  if (added.length + kept.length === 0) return mine === null || theirs === null ? null : '[]'
  return added.length === 0 && kept.length === now.length
    ? theirs
    : JSON.stringify([...kept, ...added])
}
