import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { encodeVector } from '../../schema/values/vector.ts'
import { AgentDB } from '../../src/index.ts'
import { HALF_MAX, roundedToHalf } from '../../src/vector/half-precision.ts'
import { halvesOf } from '../../sync/protocol/half-float.ts'
import { openStore, rejectionOf } from '../support/store.ts'

const component = fc.float({ noNaN: true, noDefaultInfinity: true, min: -65_000, max: 65_000 })

describe('a vector in half precision', () => {
  test('goes over the wire in half the bytes: every component is a 16-bit float', () => {
    fc.assert(
      fc.property(
        fc.float32Array({ minLength: 1, maxLength: 32, noNaN: true, max: 65_000, min: -65_000 }),
        (vector) => {
          const rounded = roundedToHalf(vector)
          expect(rounded && halvesOf(encodeVector(rounded))).toBeDefined()
        },
      ),
    )
  })

  test('is off by at most half a unit of the last place', () => {
    fc.assert(
      fc.property(component, (value) => {
        const [rounded = Number.NaN] = roundedToHalf(Float32Array.of(value)) ?? []
        const unit = Math.max(2 ** (Math.floor(Math.log2(Math.abs(value))) - 10), 2 ** -24)
        expect(Math.abs(rounded - value)).toBeLessThanOrEqual(unit / 2)
      }),
    )
  })

  test('of what is one already is the same', () => {
    const halves = Float32Array.of(0, 1, -0.5, 2 ** -24, 2 ** -14, HALF_MAX, 0.333251953125)
    expect(roundedToHalf(halves)).toEqual(halves)
  })

  test('is kept where the collection says so, and only there', async () => {
    await using db = await openStore({ halfPrecision: ['code_embeddings'] })
    const vector = Float32Array.of(0.1, 1 / 3, -0.7)
    const code = await db.embeddings.put({ collection: 'code_embeddings', vector })
    const text = await db.embeddings.put({ collection: 'documentation_embeddings', vector })
    expect(code.vector).toEqual(roundedToHalf(vector))
    expect(text.vector).toEqual(vector)
  })

  test('refuses what no 16-bit float holds', async () => {
    await using db = await openStore({ halfPrecision: ['code_embeddings'] })
    const error = await rejectionOf(
      db.embeddings.put({ collection: 'code_embeddings', vector: Float32Array.of(70_000) }),
    )
    expect(error).toMatchObject({ code: 'INVALID_VALUE', column: 'vector' })
    expect(db.embeddings.list()).toEqual([])
  })

  test('names the collection that is none', async () => {
    const error = await rejectionOf(
      AgentDB.open({ path: ':memory:', halfPrecision: ['code' as 'code_embeddings'] }),
    )
    expect(error).toMatchObject({
      code: 'INVALID_OPTION',
      message: expect.stringContaining('"code"'),
    })
  })
})
