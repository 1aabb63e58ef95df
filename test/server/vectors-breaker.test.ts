import { beforeEach, describe, expect, test } from 'vitest'
import { Backoff } from '../../server/vectors/backoff.ts'
import { Breaker } from '../../server/vectors/breaker.ts'

const bounds = { minMs: 100, maxMs: 30_000 }

describe('the waits between tries', () => {
  const waits = (random: number): number[] => {
    const backoff = new Backoff({ ...bounds, random: () => random })
    return Array.from({ length: 12 }, () => backoff.failed())
  }

  test('lie below a bound that doubles from the least to the most', () => {
    expect(waits(1)).toEqual([
      100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000, 30_000,
    ])
  })

  test('are never nothing, however the dice fall', () => {
    expect(new Set(waits(0))).toEqual(new Set([50]))
  })

  test('begin anew after a success', () => {
    const backoff = new Backoff({ ...bounds, random: () => 1 })
    expect([backoff.failed(), backoff.failed(), backoff.failures]).toEqual([100, 200, 2])
    backoff.succeeded()
    expect([backoff.failures, backoff.failed()]).toEqual([0, 100])
  })
})

describe('the circuit breaker', () => {
  let now: number
  let breaker: Breaker
  const fail = (times: number): void => {
    for (let i = 0; i < times; i++) breaker.failed()
  }

  beforeEach(() => {
    now = 0
    breaker = new Breaker({ ...bounds, random: () => 1, now: () => now })
  })

  test('allows every call until three have failed in a row', () => {
    fail(2)
    breaker.succeeded()
    fail(2)
    expect([breaker.state, breaker.allows(), breaker.allows()]).toEqual(['closed', true, true])
    fail(1)
    expect([breaker.state, breaker.allows()]).toEqual(['open', false])
  })

  test('allows one call when its time is over, and no other until that one has ended', () => {
    fail(3)
    now = 399
    expect([breaker.state, breaker.allows()]).toEqual(['open', false])
    now = 400
    expect([breaker.state, breaker.allows(), breaker.allows()]).toEqual(['half-open', true, false])
  })

  test('closes when the one call succeeds', () => {
    fail(3)
    now = 400
    breaker.allows()
    breaker.succeeded()
    expect([breaker.state, breaker.failures]).toEqual(['closed', 0])
    expect([breaker.allows(), breaker.allows()]).toEqual([true, true])
  })

  test('opens for longer when the one call fails, and then allows one again', () => {
    fail(3)
    now = 400
    breaker.allows()
    breaker.failed()
    now = 1199
    expect([breaker.state, breaker.allows()]).toEqual(['open', false])
    now = 1200
    expect([breaker.allows(), breaker.allows()]).toEqual([true, false])
  })
})
