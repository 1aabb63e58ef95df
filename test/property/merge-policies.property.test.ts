import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Fleet, type Fault } from '../support/fleet.ts'

/**
 * Whatever the order of arrival, the faults of the wire and the deaths of agents: a counter ends as the sum of what
 * everyone counted, a set as what was added and not removed, a growing value as the greatest. `MERGE_SEED=...` runs a
 * failure again.
 */
const seed = Number(process.env['MERGE_SEED'] ?? Date.now() % 2 ** 31)

let fleet: Fleet
beforeAll(async () => {
  fleet = await Fleet.start()
})
afterAll(() => fleet[Symbol.asyncDispose]())

const faults: readonly Fault[] = ['none', 'refuse', 'lose', 'twice', 'die-before', 'die-after']
const agent = fc.nat(2)
const step = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('write'),
      agent,
      by: fc.integer({ min: -3, max: 9 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('sync'),
      agent,
      plan: fc.array(fc.constantFrom(...faults), { maxLength: 4 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constantFrom('pull', 'repeat', 'restart'), agent }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('centre'),
      agent,
      by: fc.integer({ min: 1, max: 9 }),
    }),
  },
)
type Step = { kind: string; agent: number; by?: number; plan?: Fault[] }

const time = (n: number): string => `2030-01-01T00:00:${String(n).padStart(2, '0')}.000000Z`

test('counts, sets and greatest values end as everything that was written to them', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array<Step>(step as fc.Arbitrary<Step>, { maxLength: 25 }),
      async (steps) => {
        await fleet.clear()
        const userId = await fleet.addUser('admin')
        const agents = [0, 1, 2].map(() => fleet.addAgent(userId))
        const [first, ...others] = await Promise.all(agents)
        if (first === undefined) return
        const { id } = first.db.runbooks.create({ name: 'r', steps: [] })
        await first.sync()
        for (const other of others) await other.sync()
        const all = [first, ...others]
        const wrote = { sum: 0, tags: new Set<string>(), latest: 0 }
        for (const [i, { kind, agent: which, by = 0, plan = [] }] of steps.entries()) {
          const one = all[which] ?? first
          if (kind === 'write') {
            const row = one.db.runbooks.find(id)
            one.db.runbooks.update(id, {
              execution_count: (row?.execution_count ?? 0) + by,
              tags: [...(row?.tags ?? []), `t${i}`],
              last_executed_at:
                row?.last_executed_at == null || row.last_executed_at < time(i)
                  ? time(i)
                  : row.last_executed_at,
            })
            wrote.sum += by
            wrote.tags.add(`t${i}`)
            wrote.latest = i
          } else if (kind === 'sync') await one.sync(plan)
          else if (kind === 'pull') await one.pull()
          else if (kind === 'repeat') await one.repeatPush(-1 - (i % 3))
          else if (kind === 'restart') await one.restart()
          else {
            await fleet.sql('UPDATE runbooks SET execution_count = execution_count + ?', by)
            wrote.sum += by
          }
        }
        for (let round = 0; round < 2; round++) for (const one of all) await one.sync()
        for (const one of all) {
          const row = one.db.runbooks.find(id)
          expect(row?.execution_count).toBe(wrote.sum)
          expect(new Set(row?.tags)).toEqual(wrote.tags)
          expect(row?.tags).toHaveLength(wrote.tags.size)
          expect(row?.last_executed_at).toBe(wrote.tags.size === 0 ? null : time(wrote.latest))
          expect(one.db.syncConflicts.list()).toEqual([])
        }
      },
    ),
    { numRuns: 25, seed },
  )
}, 600_000)
