/**
 * PostgreSQL's `pg_snapshot` in text, `xmin:xmax:xip,...`: which transactions were committed when it was taken. Enough
 * to say, without asking the database, whether a committed change was visible at a position.
 *
 *   754:760:756,758   all below 754, and 755, 757, 759
 */
export interface Snapshot {
  readonly xmin: bigint
  readonly xmax: bigint
  readonly running: ReadonlySet<bigint>
}

export function parseSnapshot(text: string): Snapshot {
  const [xmin, xmax, running = ''] = text.split(':')
  if (xmin === undefined || xmax === undefined)
    throw new Error(`bug in AgentDB: not a snapshot: ${text}`)
  return {
    xmin: BigInt(xmin),
    xmax: BigInt(xmax),
    running: new Set(running === '' ? [] : running.split(',').map(BigInt)),
  }
}

/** Whether the changes of a committed transaction are visible in a snapshot. */
export function isVisible(xid: bigint, snapshot: Snapshot): boolean {
  if (xid < snapshot.xmin) return true
  return xid < snapshot.xmax && !snapshot.running.has(xid)
}
