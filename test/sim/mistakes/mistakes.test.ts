import { describe, expect, test } from 'vitest'
import {
  decisionMistakes,
  givingMistakes,
  retentionMistakes,
  transactionMistakes,
} from './centre.ts'
import {
  applyMistakes,
  captureMistakes,
  decisionOfConflictMistakes,
  engineMistakes,
} from './engine.ts'
import { healingMistakes } from './healing.ts'
import { plant } from './plant.ts'
import { skewMistakes } from './skew.ts'

const mistakes = [
  ...engineMistakes,
  ...applyMistakes,
  ...captureMistakes,
  ...decisionOfConflictMistakes,
  ...decisionMistakes,
  ...givingMistakes,
  ...retentionMistakes,
  ...transactionMistakes,
  ...healingMistakes,
  ...skewMistakes,
]

/** A checker that finds nothing shows nothing: each of these was made, or nearly made, once. */
describe.concurrent('the simulator finds', () => {
  test.each(mistakes)('$name', { timeout: 300_000 }, async (mistake) => {
    const { failure, seeds } = await plant(mistake)
    if (failure === undefined) throw new Error(`it is not found within ${seeds} seeds`)
    // A mistake that only breaks the simulator itself shows nothing of its checks.
    expect(failure).not.toMatchObject({ invariant: 'simulator' })
  })
})
