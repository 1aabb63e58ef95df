import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { GRAPH_K_MAX, plan, type GraphState, type PlanInput } from '../../../src/search/planner.ts'

const graph = (state: Partial<GraphState> = {}): GraphState => ({
  behind: 0,
  efFor: (k) => Math.max(64, 2 * k),
  ...state,
})

const query = (input: Partial<PlanInput> = {}): PlanInput => ({
  count: 100_000,
  dimension: 1536,
  k: 10,
  recall: 0.99,
  graph: graph(),
  ...input,
})

describe('the plan', () => {
  test.each<[string, Partial<PlanInput>, string, RegExp]>([
    ['many vectors', {}, 'hnsw', /99 % of the nearest 10 with ef = 64/],
    ['few vectors', { count: 1000 }, 'exact', /costs less than any walk/],
    ['no vectors', { count: 0 }, 'exact', /wants all 0 rows/],
    ['no graph', { graph: undefined }, 'exact', /there is no graph/],
    ['a recall of 1', { recall: 1 }, 'exact', /recall of 1/],
    ['a selective filter', { matching: 100 }, 'filtered exact', /0\.1 %/],
    ['a filter that leaves nothing', { matching: 0 }, 'filtered exact', /leaves nothing/],
    ['a filter that leaves most', { matching: 90_000 }, 'hnsw', /pass the filter/],
    ['a filter that leaves all', { matching: 100_000 }, 'hnsw', /100000 of 100000/],
    ['more neighbours than rows', { count: 50, k: 50 }, 'exact', /wants all 50 rows/],
    [
      'a graph far behind',
      { graph: graph({ behind: 90_000 }) },
      'exact',
      /costs less than any walk/,
    ],
    ['a graph not measured', { graph: graph({ efFor: () => 'not yet' }) }, 'exact', /not yet/],
    [
      'a graph that needs a huge ef',
      { graph: graph({ efFor: () => 100_000 }) },
      'exact',
      /costs less than the graph/,
    ],
  ])('for %s', (_, input, method, reason) => {
    const made = plan(query(input))
    expect(made.method).toBe(method)
    expect(made.reason).toMatch(reason)
  })

  test('asks the graph for more where a filter or changes take some away', () => {
    const plain = plan(query()).graph
    expect(plain).toEqual({ k: 10, ef: 64 })
    expect(plan(query({ graph: graph({ behind: 3 }) })).graph?.k).toBe(13)
    expect(plan(query({ matching: 50_000 })).graph).toEqual({ k: 30, ef: 64 })
  })

  test('of any counts is the cheapest of its ways, and possible', () => {
    const counts = fc.integer({ min: 0, max: 2_000_000 })
    fc.assert(
      fc.property(
        fc.record({
          count: counts,
          dimension: fc.integer({ min: 1, max: 65_535 }),
          k: fc.integer({ min: 1, max: 1000 }),
          recall: fc.double({ min: 0, max: 1, noNaN: true }),
          share: fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
          behind: counts,
          hasGraph: fc.boolean(),
        }),
        ({ share, behind, hasGraph, ...rest }) => {
          const matching = share === null ? undefined : Math.floor(share * rest.count)
          const input = { ...rest, matching, graph: hasGraph ? graph({ behind }) : undefined }
          const made = plan(input)
          expect(made.estimatedUs).toBe(
            Math.min(...made.alternatives.map(({ estimatedUs }) => estimatedUs)),
          )
          expect(made.method === 'exact').toBe(made.method !== 'hnsw' && matching === undefined)
          expect(made.graph !== undefined).toBe(made.method === 'hnsw')
          if (made.graph === undefined) return
          expect(hasGraph).toBe(true)
          expect(made.graph.k).toBeGreaterThanOrEqual(input.k)
          expect(made.graph.k).toBeLessThanOrEqual(GRAPH_K_MAX)
          expect(input.k).toBeLessThan(matching ?? input.count)
        },
      ),
      { numRuns: 500 },
    )
  })

  test('gets no cheaper with more vectors, dimensions, matching rows or changes', () => {
    const cost = (input: Partial<PlanInput>): number => plan(query(input)).estimatedUs
    for (const g of [undefined, graph()]) {
      expect(cost({ count: 2_000, graph: g })).toBeGreaterThan(cost({ count: 1_000, graph: g }))
      expect(cost({ dimension: 768, graph: g })).toBeLessThan(cost({ graph: g }))
      expect(cost({ matching: 10, graph: g })).toBeLessThan(cost({ matching: 1_000, graph: g }))
    }
    expect(cost({ graph: graph({ behind: 1_000 }) })).toBeGreaterThan(cost({}))
  })
})
