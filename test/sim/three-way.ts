import type { Stored } from '../../schema/codec.ts'

/**
 * How a change from `before` to `mine` is carried over to `theirs`: the rules of `schema/define.ts` once more, for the
 * oracle. Stored forms in, stored forms out.
 */
export type Carried = { readonly value: Stored; readonly mine?: Stored; readonly theirs?: Stored }

const list = (stored: Stored): unknown[] =>
  stored === null ? [] : (JSON.parse(String(stored)) as unknown[])

const text = (value: unknown): string =>
  JSON.stringify(value, (_key, member: unknown) =>
    typeof member === 'object' && member !== null && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : member,
  )

export function carry(
  policy: 'counter' | 'set' | 'max' | 'merge',
  [before, mine, theirs]: readonly [Stored, Stored, Stored],
  mineWins: boolean,
): Carried {
  if (before === theirs) return { value: mine }
  if (policy === 'counter') return { value: counted(before, mine, theirs) }
  if (before === mine) return { value: theirs }
  if (policy === 'max') return { value: greater(mine, theirs) }
  return policy === 'set'
    ? { value: united(before, mine, theirs) }
    : joined(before, mine, theirs, mineWins)
}

function counted(before: Stored, mine: Stored, theirs: Stored): Stored {
  const added = Number(mine) - Number(before)
  return added === 0 ? theirs : Number(theirs) + added
}

function greater(mine: Stored, theirs: Stored): Stored {
  if (mine === null || theirs === null) return mine ?? theirs
  return mine > theirs ? mine : theirs
}

function united(before: Stored, mine: Stored, theirs: Stored): Stored {
  const [had, has, now] = [list(before), list(mine), list(theirs)]
  const out = now.filter((each) => has.includes(each) || !had.includes(each))
  const isUntouched = out.length === now.length
  for (const each of has)
    if (!had.includes(each) && !now.includes(each) && !out.includes(each)) out.push(each)
  if (isUntouched && out.length === now.length) return theirs
  if (out.length === 0) return mine === null || theirs === null ? null : '[]'
  return JSON.stringify(out)
}

type Members = Readonly<Record<string, unknown>>
const isMembers = (value: unknown): value is Members =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** JSON objects key by key; where both changed a key, one wins and both are told. */
function joined(before: Stored, mine: Stored, theirs: Stored, mineWins: boolean): Carried {
  if (mine === theirs) return { value: theirs }
  const [was, is, stands] = [before, mine, theirs].map((stored) =>
    stored === null ? null : (JSON.parse(String(stored)) as unknown),
  )
  if (!isMembers(is) || !isMembers(stands)) return { value: mineWins ? mine : theirs, mine, theirs }
  const lost: [Record<string, unknown>, Record<string, unknown>] = [{}, {}]
  const value = text(joinMembers(isMembers(was) ? was : {}, is, stands, mineWins, lost))
  const isContested = Object.keys(lost[0]).length + Object.keys(lost[1]).length > 0
  return isContested ? { value, mine: text(lost[0]), theirs: text(lost[1]) } : { value }
}

function joinMembers(
  was: Members,
  is: Members,
  stands: Members,
  mineWins: boolean,
  [mine, theirs]: [Record<string, unknown>, Record<string, unknown>],
): Members {
  const out: Record<string, unknown> = {}
  for (const key of new Set([...Object.keys(is), ...Object.keys(stands)])) {
    const [a, b, c] = [text(was[key]), text(is[key]), text(stands[key])]
    let chosen: unknown
    if (a === b || b === c) chosen = stands[key]
    else if (a === c) chosen = is[key]
    else if (isMembers(is[key]) && isMembers(stands[key])) {
      const below: [Record<string, unknown>, Record<string, unknown>] = [{}, {}]
      const old = was[key]
      chosen = joinMembers(isMembers(old) ? old : {}, is[key], stands[key], mineWins, below)
      if (Object.keys(below[0]).length + Object.keys(below[1]).length > 0)
        [mine[key], theirs[key]] = below
    } else {
      chosen = mineWins ? is[key] : stands[key]
      if (is[key] !== undefined) mine[key] = is[key]
      if (stands[key] !== undefined) theirs[key] = stands[key]
    }
    if (chosen !== undefined) out[key] = chosen
  }
  return out
}
