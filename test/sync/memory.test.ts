import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { hashingEmbedder, type MemoryItemText, type StoredMemoryItem } from '../../src/index.ts'
import { newId } from '../../schema/values/id.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import { Fleet, type TestAgent } from '../support/fleet.ts'

let database: TestDatabase
let fleet: Fleet
let userId: string
let a: TestAgent
let b: TestAgent

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'), 'memory')
  fleet = await Fleet.start({ databaseUrl: database.url })
  userId = await fleet.addUser()
  a = await fleet.addAgent(userId)
  b = await fleet.addAgent(userId)
})
afterAll(async () => {
  await fleet[Symbol.asyncDispose]()
  await database.drop()
})

const lesson = (title: string, content = 'Go to the last page.'): MemoryItemText => ({
  title,
  description: 'For lists.',
  content,
})

async function append(agent: TestAgent, query: string, title = query): Promise<StoredMemoryItem> {
  const items = [lesson(title)]
  const [item] = await agent.db.memory.append({ query, polarity: 'success', items })
  if (item === undefined) throw new Error('nothing was appended')
  return item
}

const titles = async ({ db }: TestAgent, query: string): Promise<string[]> =>
  (await db.memory.retrieve({ query, count: false, minScore: 0.99 })).map(({ title }) => title)

const itemOf = ({ db }: TestAgent, id: string): StoredMemoryItem => {
  const item = db.memory.items.find(id)
  if (item === undefined) throw new Error(`${id} is not there`)
  return item
}

/** Everyone pushes and hears of everyone; what they then hold is what the centre says. */
async function settle(): Promise<void> {
  for (const agent of [a, b, a, b]) await agent.sync()
  for (const agent of [a, b]) {
    const { local, central } = await agent.pull()
    expect(local).toEqual(central)
  }
  expect(a.visibleRows()['memory_items']).toEqual(b.visibleRows()['memory_items'])
}

const conflictsOf = ({ db }: TestAgent, id: string) => db.syncConflicts.list({ row: id })

describe('memories of two agents of one user', () => {
  test('what one has learned the other finds, and what is deleted neither', async () => {
    const { db } = a
    const { id } = db.memory.recordTrajectory({
      taskId: 'order-1',
      query: 'Find my first order',
      steps: [{ think: 'The list has pages.', action: 'click(7)' }],
      model: 'agent-1',
      templateId: 'orders',
    })
    await db.memory.judge(id, () => ({ label: 'failure', thoughts: 'one page', confidence: 0.5 }))
    const items = await db.memory.distill(id, {
      success: () => [],
      failure: () => [lesson('Read all pages'), lesson('Sort first')],
    })
    expect(await titles(b, 'Find my first order')).toEqual([])
    await settle()
    expect(b.db.memory.trajectories.find(id)).toEqual(db.memory.trajectories.find(id))
    expect(await titles(b, 'Find my first order')).toEqual(['Read all pages', 'Sort first'])
    expect(b.db.memory.trace(items[0]?.id ?? '').provenance).toBe('intact')

    b.db.memory.items.delete(items[0]?.id ?? '')
    await settle()
    expect(await titles(a, 'Find my first order')).toEqual(['Sort first'])
    await fleet.sql('DELETE FROM memory_items WHERE id = ?', items[1]?.id)
    await settle()
    for (const agent of [a, b]) expect(await titles(agent, 'Find my first order')).toEqual([])
  })

  test('another user’s agent holds none of it, whatever its role', async () => {
    const item = await append(a, 'a private lesson')
    a.db.memory.recordTrajectory({ taskId: 't', query: 'a private task', steps: [] })
    await settle()
    for (const role of ['admin', 'viewer'] as const) {
      const stranger = await fleet.addAgent(await fleet.addUser(role))
      await stranger.sync()
      expect(stranger.db.memory.items.list()).toEqual([])
      expect(stranger.db.memory.trajectories.list()).toEqual([])
      expect(await titles(stranger, 'a private lesson')).toEqual([])
    }
    expect(await titles(b, 'a private lesson')).toEqual([item.title])
  })

  test('counts add up, in whatever order the agents count and sync', async () => {
    const step = fc.record({
      who: fc.constantFrom<0 | 1>(0, 1),
      does: fc.constantFrom('used', 'helped', 'hurt', 'retrieve', 'sync'),
    })
    let run = 0
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 16 }), async (steps) => {
        const query = `count in run ${++run}`
        const { id } = await append(a, query)
        await settle()
        const counts = { retrieved_count: 0, used_count: 0, helped_count: 0, hurt_count: 0 }
        for (const { who, does } of steps) {
          const agent = who === 0 ? a : b
          if (does === 'sync') await agent.sync()
          else if (does === 'retrieve') {
            await agent.db.memory.retrieve({ query, minScore: 0.99 })
            counts.retrieved_count += 1
          } else {
            agent.db.memory.feedback({ itemId: id, [does]: true })
            counts.used_count += 1
            if (does !== 'used') counts[`${does}_count`] += 1
          }
        }
        const lastUse = [a, b].map((agent) => itemOf(agent, id).last_used_at ?? '')
        await settle()
        for (const agent of [a, b]) {
          expect(itemOf(agent, id)).toMatchObject(counts)
          expect(itemOf(agent, id).last_used_at ?? '').toBe(lastUse.toSorted().at(-1))
          expect(conflictsOf(agent, id)).toEqual([])
        }
      }),
      { numRuns: 12 },
    )
  })

  test('an item whose words have no vector, or have it no more, arrives as it is', async () => {
    const has = await append(a, 'has a vector, then none')
    const never = a.db.memory.items.create({
      ...lesson('never had one'),
      record_id: newId(),
      polarity: 'success',
      source_query: has.source_query,
      model: has.model,
      dimension: has.dimension,
      query_vector: has.query_vector,
    })
    await settle()
    a.db.memory.items.update(has.id, { text_vector: null })
    await settle()
    for (const agent of [a, b])
      for (const { id } of [never, has]) expect(itemOf(agent, id).text_vector).toBeNull()
  })

  test('of two edits one wins whole, words and vectors, and the other is on record', async () => {
    const { id } = await append(a, 'edited by both')
    await settle()
    for (const [agent, title] of [
      [a, 'words of a'],
      [b, 'words of b'],
    ] as const) {
      const [vector] = await hashingEmbedder.embed([title])
      agent.db.memory.items.update(id, { title, text_vector: vector })
    }
    // A count of the loser is not lost with its words.
    a.db.memory.feedback({ itemId: id, helped: true })
    b.db.memory.feedback({ itemId: id, helped: true })
    await settle()
    const item = itemOf(a, id)
    const [vector] = await hashingEmbedder.embed([item.title])
    expect(item.text_vector).toEqual(vector)
    expect(item.helped_count).toBe(2)
    const lost = item.title === 'words of a' ? 'words of b' : 'words of a'
    for (const agent of [a, b]) {
      const records = agent.db.syncConflicts.list({ row: id, state: 'overwritten' })
      const own = agent === a ? 'words of a' : 'words of b'
      const other = own === lost ? item.title : lost
      expect(records).toMatchObject([{ mine: { title: own }, theirs: { title: other } }])
    }
  })

  test('of two verdicts one wins whole, with its reasons', async () => {
    const { id } = a.db.memory.recordTrajectory({ taskId: 't', query: 'judged twice', steps: [] })
    await settle()
    await a.db.memory.judge(id, () => ({ label: 'success', thoughts: 'success' }))
    await b.db.memory.judge(id, () => ({ label: 'failure', thoughts: 'failure' }))
    await settle()
    const trajectory = a.db.memory.trajectories.find(id)
    expect(b.db.memory.trajectories.find(id)).toEqual(trajectory)
    expect(trajectory?.judge).toMatchObject({ thoughts: trajectory?.outcome })
    expect([a, b].flatMap((agent) => conflictsOf(agent, id)).length).toBeGreaterThan(0)
  })

  test('both consolidate at once, and one item of each lesson stays', async () => {
    await a.db.memory.consolidate()
    await settle()
    const same = 'the same lesson, learned three times'
    const learned = [await append(a, same), await append(b, same), await append(a, same)]
    // Each has seen two of the three.
    await a.sync()
    await b.sync()
    expect((await a.db.memory.consolidate()).merged).not.toEqual([])
    expect((await b.db.memory.consolidate()).merged).not.toEqual([])
    await settle()
    await a.db.memory.consolidate()
    await settle()
    const rows = learned.map(({ id }) => itemOf(b, id))
    expect(rows.filter(({ superseded_by: by }) => by === null)).toHaveLength(1)
    for (const agent of [a, b])
      expect(await agent.db.memory.retrieve({ query: same, k: 9, minScore: 0.99 })).toHaveLength(1)
    const merged = rows.find(({ superseded_by: by }) => by !== null)
    b.db.memory.restore(merged?.id ?? '')
    await settle()
    expect(await a.db.memory.consolidate()).toEqual({ merged: [], linked: [] })
    expect(
      await a.db.memory.retrieve({ query: same, k: 9, minScore: 0.99, count: false }),
    ).toHaveLength(2)
  })

  test('a lesson is not lost where one merges it into what the other deletes', async () => {
    const older = await append(a, 'merged into what goes')
    const newer = await append(a, 'merged into what goes')
    await settle()
    expect((await a.db.memory.consolidate()).merged).toEqual([{ id: newer.id, into: older.id }])
    b.db.memory.items.delete(older.id)
    await b.sync()
    await settle()
    for (const agent of [a, b]) {
      expect(itemOf(agent, newer.id).superseded_by).toBeNull()
      expect(await titles(agent, 'merged into what goes')).toEqual([newer.title])
    }
  })

  test('what both add to a set of links is there', async () => {
    const { id } = await append(a, 'linked by both')
    await settle()
    const [x, y] = [await append(a, 'x'), await append(b, 'y')]
    a.db.memory.items.update(id, { contradicts: [x.id] })
    b.db.memory.items.update(id, { contradicts: [y.id] })
    await settle()
    expect(new Set(itemOf(a, id).contradicts)).toEqual(new Set([x.id, y.id]))
  })

  test('what one prunes is gone, although the other still counts on it', async () => {
    const { id } = await append(a, 'pruned here')
    await settle()
    a.db.memory.items.update(id, { expires_at: '2026-01-01T00:00:00.000000Z' })
    expect(await titles(a, 'pruned here')).toEqual([])
    expect(a.db.memory.prune().items).toContainEqual({ id, reason: 'expired' })
    b.db.memory.feedback({ itemId: id, used: true })
    await settle()
    for (const agent of [a, b]) expect(agent.db.memory.items.find(id)).toBeUndefined()
  })
})
