import type { Stored } from '../codec.ts'
import type { Json } from '../define.ts'
import { canonicalJson } from '../values/canonical-json.ts'
import { PLACEHOLDER_JSON } from '../values/placeholder.ts'

type JsonObject = Readonly<Record<string, Json>>

export interface JsonMerge {
  readonly merged: Stored
  /** Where both changed the same, and not to the same: the contested members on their paths, as each side has them. */
  readonly contested: { readonly mine: Stored; readonly theirs: Stored } | undefined
}

/**
 * JSON objects, key by key, however deep; anything else, arrays included, is a leaf. A leaf that only one side changed
 * is as that side has it; one that both did goes to `winner`.
 *
 *   before {a: 1, b: {c: 1}}, mine {a: 2, b: {c: 1}}, theirs {a: 1, b: {c: 3}}  ->  {a: 2, b: {c: 3}}
 */
export function mergeJson(
  before: Stored,
  mine: Stored,
  theirs: Stored,
  winner: 'mine' | 'theirs',
): JsonMerge {
  if (theirs === before) return { merged: mine, contested: undefined }
  if (mine === before || mine === theirs) return { merged: theirs, contested: undefined }
  const sides = { before: parse(before), mine: parse(mine), theirs: parse(theirs) }
  if (!isObject(sides.mine) || !isObject(sides.theirs))
    return { merged: winner === 'mine' ? mine : theirs, contested: { mine, theirs } }
  const { merged, contested } = mergeObjects(
    isObject(sides.before) ? sides.before : {},
    sides.mine,
    sides.theirs,
    winner,
  )
  return {
    merged: canonicalJson(merged),
    contested: contested && {
      mine: canonicalJson(contested.mine),
      theirs: canonicalJson(contested.theirs),
    },
  }
}

interface ObjectMerge {
  readonly merged: JsonObject
  readonly contested: { readonly mine: JsonObject; readonly theirs: JsonObject } | undefined
}

type Entry = readonly [key: string, value: Json]

function mergeObjects(
  before: JsonObject,
  mine: JsonObject,
  theirs: JsonObject,
  winner: 'mine' | 'theirs',
): ObjectMerge {
  const merged: Entry[] = []
  const contested: { mine: Entry[]; theirs: Entry[] } = { mine: [], theirs: [] }
  const put = (to: Entry[], key: string, value: Json | undefined): void => {
    if (value !== undefined) to.push([key, value])
  }
  for (const key of new Set([...Object.keys(theirs), ...Object.keys(mine)])) {
    const [was, is, stands] = [member(before, key), member(mine, key), member(theirs, key)]
    if (isSame(is, was) || isSame(is, stands)) put(merged, key, stands)
    else if (isSame(stands, was)) put(merged, key, is)
    else if (isObject(is) && isObject(stands)) {
      const below = mergeObjects(isObject(was) ? was : {}, is, stands, winner)
      put(merged, key, below.merged)
      put(contested.mine, key, below.contested?.mine)
      put(contested.theirs, key, below.contested?.theirs)
    } else {
      put(merged, key, winner === 'mine' ? is : stands)
      put(contested.mine, key, is)
      put(contested.theirs, key, stands)
    }
  }
  const isContested = contested.mine.length + contested.theirs.length > 0
  return {
    merged: Object.fromEntries(merged),
    contested: isContested
      ? { mine: Object.fromEntries(contested.mine), theirs: Object.fromEntries(contested.theirs) }
      : undefined,
  }
}

/** A placeholder stands for a value that is not known here: it has no keys of its own. */
const parse = (stored: Stored): Json =>
  stored === null || stored === PLACEHOLDER_JSON ? null : (JSON.parse(String(stored)) as Json)

const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const member = (object: JsonObject, key: string): Json | undefined =>
  Object.hasOwn(object, key) ? object[key] : undefined

const isSame = (a: Json | undefined, b: Json | undefined): boolean =>
  a === b || (a !== undefined && b !== undefined && canonicalJson(a) === canonicalJson(b))
