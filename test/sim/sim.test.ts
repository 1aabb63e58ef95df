import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { runSeed } from './simulation.ts'

/** Seeds of each process: together about three minutes on two cores. The number is fixed, so that no luck decides. */
const SEEDS = 500

interface Summary {
  readonly seeds: number
  readonly commits: number
  readonly failures: readonly {
    readonly invariant: string
    readonly message: string
    readonly replay: string
  }[]
}

/** Always the same seeds: a change that breaks something fails at once, and one that does not never fails by luck. */
describe.concurrent('no invariant is broken', () => {
  test.each([1, 1 + SEEDS])(
    `in ${SEEDS} runs from seed %i on`,
    { timeout: 3_600_000 },
    async (from) => {
      const { seeds, commits, failures } = await simulate(from, SEEDS)
      // The last lines of its trace are one command away.
      expect(failures).toEqual([])
      expect(seeds).toBe(SEEDS)
      // Runs in which nothing happens would pass, too.
      expect(commits).toBeGreaterThan(100 * SEEDS)
    },
  )
})

/** In a process of its own; one that failed exits with 1 and says what it found. */
async function simulate(from: number, seeds: number): Promise<Summary> {
  const args = ['--from', String(from), '--seeds', String(seeds), '--json']
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--import', 'tsx', 'test/sim/main.ts', ...args],
    { maxBuffer: 64 * 1024 * 1024 },
  ).catch((error: unknown) => {
    if (error instanceof Error && Reflect.get(error, 'code') === 1)
      return { stdout: String(Reflect.get(error, 'stdout')) }
    throw error
  })
  return JSON.parse(stdout) as Summary
}

describe('a seed', () => {
  test('is the same run each time, also after others', async () => {
    const [first] = [await runSeed({ seed: 7, steps: 60 })]
    await runSeed({ seed: 8, steps: 20 })
    const again = await runSeed({ seed: 7, steps: 60 })
    expect(again.trace).toEqual(first.trace)
    expect(again.digest).toBe(first.digest)
    const other = await runSeed({ seed: 9, steps: 60 })
    expect(other.digest).not.toBe(first.digest)
  })

  test('is the same run in every process', async () => {
    const { digest } = await runSeed({ seed: 5, steps: 60 })
    const { stdout } = await promisify(execFile)(
      process.execPath,
      ['--import', 'tsx', 'test/sim/main.ts', '--seed', '5', '--steps', '60'],
      { maxBuffer: 16 * 1024 * 1024 },
    )
    expect(stdout).toContain(`the trace's hash is ${digest}`)
  })
})

describe('the command', () => {
  const run = (...args: string[]): Promise<{ stdout: string; stderr: string }> =>
    promisify(execFile)(process.execPath, ['--import', 'tsx', 'test/sim/main.ts', ...args])

  test('tells machines what it did in one line', async () => {
    const { stdout } = await run('--from', '3', '--seeds', '2', '--steps', '10', '--json')
    expect(JSON.parse(stdout)).toMatchObject({ seeds: 2, failures: [] })
  })

  test('refuses what it does not understand, and says where help is', async () => {
    const refused = await run('--seeds', 'many').catch((error: unknown) => error)
    expect(refused).toMatchObject({ code: 2, stderr: expect.stringContaining('--help') as unknown })
  })
})
