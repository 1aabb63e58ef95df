import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'

const SEEDS = 30

async function simulate(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--import', 'tsx', 'test/sim/main.ts', '--skew', ...args],
    { maxBuffer: 64 * 1024 * 1024 },
  ).catch((error: unknown) => {
    // One that failed exits with 1 and says what it found.
    if (error instanceof Error && Reflect.get(error, 'code') === 1)
      return { stdout: String(Reflect.get(error, 'stdout')) }
    throw error
  })
  return stdout
}

describe.concurrent('where agents and centre of two versions meet, and are upgraded', () => {
  test(`no invariant is broken in ${SEEDS} runs`, { timeout: 900_000 }, async () => {
    const { seeds, commits, failures } = JSON.parse(
      await simulate('--seeds', String(SEEDS), '--json'),
    ) as { seeds: number; commits: number; failures: unknown[] }
    expect(failures).toEqual([])
    expect(seeds).toBe(SEEDS)
    // Runs in which nothing happens would pass, too.
    expect(commits).toBeGreaterThan(100 * SEEDS)
  })

  test('a seed is the same run in every process', { timeout: 900_000 }, async () => {
    const [first, again] = await Promise.all([
      simulate('--seed', '4', '--steps', '60'),
      simulate('--seed', '4', '--steps', '60'),
    ])
    expect(first).toContain('is of version 1')
    expect(first).toContain('is upgraded')
    const hash = (text: string): string | undefined => /hash is (\w+)/.exec(text)?.[1]
    expect(hash(first)).toMatch(/^\w{64}$/)
    expect(hash(again)).toBe(hash(first))
  })
})
