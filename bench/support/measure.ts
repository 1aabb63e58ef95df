import { setImmediate } from 'node:timers/promises'

export interface Contender {
  /** One timed operation; `n` counts its calls. Untimed work belongs outside. */
  run(n: number): unknown
}

export interface Schedule {
  readonly rounds: number
  /** Calls of each contender in a round. */
  readonly each: number
  /** Rounds that are run first and not counted. */
  readonly warmup: number
}

/**
 * Times contenders in turn, round by round, the order rotating, so that whatever else the machine does hits all of them
 * alike. Returns milliseconds per call, a list a contender.
 */
export async function interleave(
  contenders: readonly Contender[],
  { rounds, each, warmup }: Schedule,
): Promise<number[][]> {
  const samples = contenders.map((): number[] => [])
  for (let round = 0; round < warmup + rounds; round++) {
    for (let turn = 0; turn < contenders.length; turn++) {
      const which = (round + turn) % contenders.length
      const taken = samples[which]
      const contender = contenders[which]
      if (taken === undefined || contender === undefined) continue
      for (let i = 0; i < each; i++) {
        const startedAt = performance.now()
        const result = contender.run(round * each + i)
        if (result instanceof Promise) await result
        const ms = performance.now() - startedAt
        if (round >= warmup) taken.push(ms)
      }
    }
    await setImmediate()
  }
  return samples
}
