/** Who wrote a value, and when by the hybrid logical clock. A write at the centre itself has no client. */
export interface Written {
  readonly clock: number
  readonly writer: string | null
}

/**
 * Order of two writes, so that every order of arrival ends the same: the later clock, of equal ones a write at the centre,
 * then the greater client id.
 */
export function compareWritten(a: Written, b: Written): number {
  if (a.clock !== b.clock) return a.clock - b.clock
  if (a.writer === b.writer) return 0
  if (a.writer === null) return 1
  if (b.writer === null) return -1
  return a.writer < b.writer ? -1 : 1
}

/** Whether a write wins over a concurrent one, by `lww`. */
export const isLater = (mine: Written, rival: Written): boolean => compareWritten(mine, rival) > 0
