import type { HealRequest } from '../../sync/protocol/messages.ts'

/** A history of the centre, in their order; `end` is its last position, null of the present one. */
export interface KnownHistory {
  readonly nonce: string
  readonly first: number
  readonly end: number | null
}

/** Where what a client has seen and the centre's past part. */
export interface CommonPart {
  /** The history that begins after the last common position. */
  readonly fork: string
  readonly nonce: string | null
  readonly position: number
  /** Last position of that history at the centre, whoever asks. */
  readonly end: number
}

/**
 * Where the history that a client has seen and the centre's part: after the last history that both know, at the last
 * position that both have of it. Undefined where they do not part.
 */
export function commonPart(
  histories: readonly KnownHistory[],
  seen: HealRequest['histories'],
): CommonPart | undefined {
  // A store that is still reading its scope for the first time has nothing to bring back: it begins again.
  if (seen.length === 0) return undefined
  const known = new Map(histories.map((history) => [history.nonce, history]))
  const last = seen.findLastIndex(({ nonce }) => known.has(nonce))
  const mine = seen[last]
  const ours = mine === undefined ? undefined : known.get(mine.nonce)
  if (mine === undefined || ours === undefined) {
    const [first] = histories
    return first === undefined
      ? undefined
      : { fork: first.nonce, nonce: null, position: 0, end: first.first - 1 }
  }
  const end = ours.end ?? Number.MAX_SAFE_INTEGER
  if (last === seen.length - 1 && mine.position <= end) return undefined
  const next = histories.find(({ first }) => first === end + 1) ?? ours
  return { fork: next.nonce, nonce: mine.nonce, position: Math.min(mine.position, end), end }
}
