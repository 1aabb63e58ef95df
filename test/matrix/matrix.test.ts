import { describe, expect, inject, test } from 'vitest'
import { seededRandom } from '../../bench/support/random.ts'
import { runCell } from './cell.ts'
import { Checker, type Observation, type View } from './history.ts'

const view = (numbers: Record<string, number>): View =>
  Object.fromEntries(Object.entries(numbers).map(([agent, n]) => [agent, { last: n, count: n }]))

const saw = (agent: string, numbers: Record<string, number>): Observation => ({
  kind: 'saw',
  agent,
  views: [view(numbers), view(numbers)],
})

const wrote = (agent: string, n: number, seen: Record<string, number>): Observation => ({
  kind: 'wrote',
  agent,
  n,
  depends: seen,
  views: [view(seen), view(seen)],
})

function judge(...history: Observation[]): readonly string[] {
  const checker = new Checker()
  for (const observation of history) checker.add(observation)
  return checker.violations
}

describe('the checker', () => {
  test('has nothing against a causal history', () => {
    const checker = new Checker()
    for (const observation of [
      wrote('a', 1, {}),
      wrote('b', 1, { a: 1 }),
      saw('a', { a: 1 }),
      saw('a', { a: 1, b: 1 }),
    ])
      checker.add(observation)
    const end = [view({ a: 1, b: 1 }), view({ a: 1, b: 1 })]
    checker.finish(
      new Map([
        ['a', end],
        ['b', end],
        ['the centre', end],
      ]),
    )
    expect(checker.violations).toEqual([])
  })

  test.each<[string, readonly string[]]>([
    [
      'part of a transaction',
      judge({ kind: 'saw', agent: 'a', views: [view({ b: 2 }), view({ b: 1 })] }),
    ],
    [
      'an effect without its cause',
      judge(wrote('a', 1, {}), wrote('b', 1, { a: 1 }), saw('c', { b: 1 })),
    ],
    [
      'a message twice, or a hole',
      judge({
        kind: 'saw',
        agent: 'a',
        views: [{ b: { last: 2, count: 3 } }, { b: { last: 2, count: 3 } }],
      }),
    ],
    ['a step back', judge(saw('a', { b: 2 }), saw('a', { b: 1 }))],
    [
      'an acknowledged commit that is gone after a kill',
      judge(wrote('a', 1, {}), wrote('a', 1, {})),
    ],
    ['a message that was refused', judge({ kind: 'outcome', agent: 'a', outcome: 'rejected' })],
  ])('finds %s', (_what, violations) => {
    expect(violations).toHaveLength(1)
  })

  test('finds ends that differ, and what was acknowledged and is nowhere', () => {
    const checker = new Checker()
    checker.add(wrote('a', 1, {}))
    checker.finish(
      new Map([
        ['a', [view({ a: 1 }), view({ a: 1 })]],
        ['b', [view({}), view({})]],
      ]),
    )
    expect(checker.violations).toEqual([
      `b ends with 0 of a's 1 acknowledged transactions`,
      `b ends with 0 of a's 1 acknowledged transactions`,
      '2 different ends',
    ])
  })
})

test.each(['partition', 'kill', 'pause', 'server'] as const)(
  'a small fleet under %s shows no error and converges',
  async (fault) => {
    const result = await runCell({
      postgresUrl: inject('postgresUrl'),
      agents: 3,
      rate: 15,
      fault,
      seconds: 5,
      random: seededRandom(7),
    })
    expect(result.violations).toEqual([])
    expect(result.transactions).toBeGreaterThan(10)
    expect(result.faults).toBeGreaterThan(0)
  },
  120_000,
)
