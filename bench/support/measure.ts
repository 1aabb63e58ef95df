import { setImmediate } from 'node:timers/promises'
import type { Ratio } from '../report/row.ts'
import { median } from '../report/statistics.ts'

export interface Contender {
  /** One timed operation; `n` counts its calls. Untimed work belongs outside. */
  run(n: number): unknown
}

/** One in a process of its own, which times its calls itself: the way there and back is not counted. */
export interface RemoteContender {
  /** Makes the calls `from`, `from + 1` and so on; resolves with the milliseconds of each. */
  round(from: number, count: number): Promise<readonly number[]>
}

export interface Schedule {
  readonly rounds: number
  /** Calls of each contender in a round. */
  readonly each: number
  /** Rounds that are run first and not counted. */
  readonly warmup: number
}

/** What one contender took. */
export interface Timing {
  /** Milliseconds of each call. */
  readonly ms: number[]
  /**
   * Processor time of all of them, in milliseconds: what the neighbours of a busy machine do not change. NaN of a
   * contender that ran elsewhere.
   */
  cpuMs: number
}

/**
 * Times contenders in turn, round by round, the order rotating, so that whatever else the machine does hits all of them
 * alike.
 */
export async function interleave<const C extends readonly (Contender | RemoteContender)[]>(
  contenders: C,
  { rounds, each, warmup }: Schedule,
): Promise<{ [K in keyof C]: Timing }> {
  const timings = contenders.map((): Timing => ({ ms: [], cpuMs: 0 }))
  for (let round = 0; round < warmup + rounds; round++) {
    for (let turn = 0; turn < contenders.length; turn++) {
      const which = (round + turn) % contenders.length
      const timing = timings[which]
      const contender = contenders[which]
      if (timing === undefined || contender === undefined) continue
      const before = process.cpuUsage()
      const isRemote = 'round' in contender
      const ms = isRemote
        ? await contender.round(round * each, each)
        : await timeCalls(contender, round * each, each)
      const { user, system } = process.cpuUsage(before)
      if (round < warmup) continue
      timing.ms.push(...ms)
      timing.cpuMs += isRemote ? Number.NaN : (user + system) / 1000
    }
    await setImmediate()
  }
  return timings as { [K in keyof C]: Timing }
}

async function timeCalls(contender: Contender, from: number, count: number): Promise<number[]> {
  const ms: number[] = []
  for (let n = from; n < from + count; n++) {
    const startedAt = performance.now()
    const result = contender.run(n)
    if (result instanceof Promise) await result
    ms.push(performance.now() - startedAt)
  }
  return ms
}

/** Ratio of the medians, and of processor time beside it where both ran in this process. */
export function ratioOf(ours: Timing, theirs: Timing, against: string): Ratio {
  const value = median(ours.ms) / median(theirs.ms)
  const cpu = ours.cpuMs / theirs.cpuMs
  return Number.isNaN(cpu) ? { value, against } : { value, cpu, against }
}
