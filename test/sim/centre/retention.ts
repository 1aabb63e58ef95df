import { isVisibleIn, type BatchRow, type ModelDatabase } from './model-database.ts'

const MINUTE_MICROS = 60_000_000

/**
 * Drops what the log has from before a moment, as `server/sync/retention.ts`: the floor is committed first, then the log
 * goes, then the batches below are thinned to the last of each minute. Others read between any two of these.
 */
export async function pruneLog(
  database: ModelDatabase,
  before: number,
  pause: () => Promise<void>,
): Promise<void> {
  const floor = database.batches.findLast(({ at }) => at < before)
  if (floor === undefined || floor.position <= database.floor) return
  await database.transaction(async (transaction) => {
    await transaction.lock('floor', 'update')
    await pause()
    transaction.mustBeOpen()
    const former = database.floor
    database.drop(
      () => (database.floor = Math.max(former, floor.position)),
      () => (database.floor = former),
    )
  })
  await pause()
  const isBelow = isVisibleIn(floor.snapshot)
  const all = [...database.log]
  const fill = (log: typeof all): number => database.log.splice(0, Infinity, ...log).length
  database.drop(
    () => fill(all.filter(({ xid }) => !isBelow(xid))),
    () => fill(all),
  )
  await pause()
  const below = database.batches.filter(({ position }) => position < floor.position)
  const thinned = below.filter(({ isThinned }) => isThinned)
  database.drop(
    () => thin(below),
    () => below.forEach((batch) => (batch.isThinned = thinned.includes(batch))),
  )
}

function thin(below: readonly BatchRow[]): void {
  const last = new Map<string, BatchRow>()
  const minute = ({ nonce, at }: BatchRow): string => `${nonce} ${Math.floor(at / MINUTE_MICROS)}`
  for (const batch of below) last.set(minute(batch), batch)
  for (const batch of below) if (last.get(minute(batch)) !== batch) batch.isThinned = true
}
