import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { AgentDB, Judgement, MemoryItemText } from '../../src/index.ts'
import { CONTENT_MAX, THOUGHTS_MAX, TITLE_MAX } from '../../src/memory/callbacks.ts'
import { errorOf, logOf, openStore, rejectionOf } from '../support/store.ts'

let db: AgentDB
let now: number
beforeEach(async () => {
  now = Date.parse('2026-01-01T00:00:00Z') * 1000
  db = await openStore({ clock: () => now })
})
afterEach(() => db.close())

const lesson = (title = 'Read every page'): MemoryItemText => ({
  title,
  description: 'For lists over several pages.',
  content: 'Go to the last page before you answer.',
})
const record = (query = 'Find my first order') =>
  db.memory.recordTrajectory({
    taskId: '7',
    query,
    steps: [{ think: 'open the list', action: 'click(7)' }],
  })
const never = (): never => {
  throw new Error('must not be asked')
}
/** What no type would let through, as a model may answer it. */
const hostile = <T>(value: unknown): T => value as T

describe('the loop', () => {
  test('a judged failure gives a lesson that is found for a task like it, and rendered', async () => {
    const { id } = record()
    await db.memory.judge(id, ({ query, steps }) => {
      expect([query, steps]).toEqual([
        'Find my first order',
        [{ think: 'open the list', action: 'click(7)' }],
      ])
      return { label: 'task-possible-bot-fail', thoughts: 'only page 1', confidence: 0.25 }
    })
    expect(db.memory.trajectories.find(id)).toMatchObject({
      outcome: 'failure',
      judge: {
        label: 'task-possible-bot-fail',
        thoughts: 'only page 1',
        confidence: 0.25,
        model: null,
      },
    })
    const made = await db.memory.distill(id, {
      success: never,
      failure: ({ judge }) => {
        expect(judge).toMatchObject({ thoughts: 'only page 1' })
        return [lesson()]
      },
    })
    const found = await db.memory.retrieve({ query: 'Find my latest order' })
    expect(found).toMatchObject([
      { id: made[0]?.id, polarity: 'failure', taskId: '7', trajectoryIds: [id], ...lesson() },
    ])
    expect(db.memory.render(found)).toMatch(/\n# Memory Item 1\n## Title Read every page\n/)
    expect(db.memory.render([])).toBe('')
  })

  test('successes and failures are asked for apart; the impossible counts as a failure', async () => {
    for (const [label, polarity] of [
      ['success', 'success'],
      ['failure', 'failure'],
      ['task-impossible', 'failure'],
    ] as const) {
      const { id } = record()
      await db.memory.judge(id, () => ({ label }))
      const [item] = await db.memory.distill(id, {
        success: () => [lesson('success')],
        failure: () => [lesson('failure')],
      })
      expect(item).toMatchObject({ polarity, title: polarity })
    }
  })

  test('a trajectory without an outcome is judged first', async () => {
    const { id } = record()
    const error = await rejectionOf(db.memory.distill(id, { success: never, failure: never }))
    expect(error).toMatchObject({ code: 'INVALID_OPTION' })
    expect(error.message).toContain('judge it first')
  })

  test('several attempts of one task give one record of at most five contrasts', async () => {
    const ids = [record(), record(), record()].map(({ id }) => id)
    const items = await db.memory.distillContrast(ids, (trajectories) => {
      expect(trajectories.map(({ id }) => id)).toEqual(ids)
      return Array.from({ length: 5 }, (_, i) => lesson(`contrast ${i}`))
    })
    expect(items).toHaveLength(5)
    expect(new Set(items.map(({ record_id }) => record_id)).size).toBe(1)
    for (const item of items)
      expect(item).toMatchObject({ polarity: 'contrast', trajectory_ids: ids })
    const other = record('Another task').id
    for (const wrong of [[...ids, other], [ids[0] ?? ''], [ids[0] ?? '', ids[0] ?? '']]) {
      const error = await rejectionOf(db.memory.distillContrast(wrong, never))
      expect(error.code).toBe('INVALID_OPTION')
    }
  })

  test('one distillation is one local transaction, so that its items reach the centre together', async () => {
    const { id } = record()
    await db.memory.judge(id, () => ({ label: 'success' }))
    await db.memory.distill(id, {
      success: () => [lesson('a'), lesson('b'), lesson('c')],
      failure: never,
    })
    const inserts = logOf(db, 'memory_items')
    expect(inserts).toHaveLength(3)
    expect(new Set(inserts.map(({ tx }) => tx)).size).toBe(1)
  })

  test('an item tells where it comes from, and whether it still is what was distilled', async () => {
    const { id } = record()
    await db.memory.judge(id, () => ({ label: 'success' }))
    const [item] = await db.memory.distill(id, { success: () => [lesson()], failure: never })
    const itemId = item?.id ?? ''
    await db.memory.judge(id, () => ({ label: 'failure' }))
    expect(db.memory.trace(itemId)).toMatchObject({
      provenance: 'intact',
      trajectories: [{ id }],
      missing: [],
    })
    db.memory.items.update(itemId, { content: 'Something else.' })
    expect(db.memory.trace(itemId).provenance).toBe('changed')
    db.memory.trajectories.delete(id)
    expect(db.memory.trace(itemId)).toMatchObject({ provenance: 'unknown', missing: [id] })
  })
})

describe('what a function gives is not trusted:', () => {
  const verdicts: readonly (readonly [string, unknown, string])[] = [
    ['a label of its own', { label: 'great' }, 'label "great"'],
    ['no label', {}, 'label undefined'],
    ['no object', 'success', 'not an object'],
    ['null', null, 'not an object'],
    ['confidence that is not finite', { label: 'success', confidence: Number.NaN }, 'confidence'],
    ['infinite confidence', { label: 'success', confidence: Infinity }, 'confidence'],
    ['confidence above 1', { label: 'success', confidence: 1.01 }, 'confidence 1.01'],
    ['confidence in words', { label: 'success', confidence: '0.5' }, 'confidence "0.5"'],
    [
      'thoughts without end',
      { label: 'success', thoughts: 'x'.repeat(THOUGHTS_MAX + 1) },
      '100001',
    ],
    ['thoughts with U+0000', { label: 'success', thoughts: 'a\0' }, 'U+0000'],
    ['thoughts that are a list', { label: 'success', thoughts: ['a'] }, 'thoughts'],
  ]
  test.each(verdicts)(
    'a verdict with %s leaves the trajectory as it was',
    async (_, given, says) => {
      const before = record()
      const error = await rejectionOf(db.memory.judge(before.id, () => hostile<Judgement>(given)))
      expect(error.code).toBe('CALLBACK_FAILED')
      expect(error.message).toContain(says)
      expect(db.memory.trajectories.find(before.id)).toEqual(before)
    },
  )

  const distillations: readonly (readonly [string, unknown, string])[] = [
    ['50 items', Array.from({ length: 50 }, () => lesson()), 'gave 50 items; most are 3'],
    ['4 items', Array.from({ length: 4 }, () => lesson()), 'gave 4 items'],
    [
      '4 items in Markdown',
      '# Memory Item 1\n## Title a\n## Description b\n## Content c\n'.repeat(4),
      'gave 4 items',
    ],
    ['a number', 7, 'gave 7'],
    ['nothing', undefined, 'gave undefined'],
    ['prose', 'I could not find anything useful.', 'no "# Memory Item"'],
    ['an item without a title', [{ ...lesson(), title: ' ' }], 'items[0].title without text'],
    ['an item of parts', [lesson(), 'text'], 'gave "text", not an object'],
    ['a huge title', [lesson('x'.repeat(TITLE_MAX + 1))], 'items[0].title of 501 characters'],
    [
      'a huge content',
      [{ ...lesson(), content: 'x'.repeat(CONTENT_MAX + 1) }],
      'items[0].content of 10001',
    ],
    ['Markdown without end', '# Memory Item 1\n'.repeat(100_000), 'most are 1000000'],
    ['a lone surrogate', [lesson('\uD800')], 'surrogate'],
  ]
  test.each(distillations)('a distillation of %s writes nothing', async (_, given, says) => {
    const { id } = record()
    const judged = await db.memory.judge(id, () => ({ label: 'success' }))
    const error = await rejectionOf(
      db.memory.distill(id, { success: () => hostile(given), failure: never }),
    )
    expect(error.code).toBe('CALLBACK_FAILED')
    expect(error.message).toContain(says)
    expect(db.memory.items.list()).toEqual([])
    expect(db.memory.trajectories.find(id)).toEqual(judged)
  })

  test('a distillation may be empty', async () => {
    const { id } = record()
    await db.memory.judge(id, () => ({ label: 'success' }))
    for (const given of [[], '', '  \n'])
      expect(await db.memory.distill(id, { success: () => given, failure: never })).toEqual([])
  })

  test('what it throws is the cause', async () => {
    const { id } = record()
    const cause = new Error('429 too many requests')
    const rejecting = (): Promise<never> => Promise.reject(cause)
    const judged = await rejectionOf(db.memory.judge(id, rejecting))
    expect(judged).toMatchObject({ code: 'CALLBACK_FAILED', cause })
    expect(judged.message).toContain('429')
    await db.memory.judge(id, () => ({ label: 'failure' }))
    const distilled = await rejectionOf(
      db.memory.distill(id, { success: never, failure: rejecting }),
    )
    expect(distilled).toMatchObject({ code: 'CALLBACK_FAILED', cause })
  })

  const embeddings: readonly (readonly [string, unknown])[] = [
    ['too few', [Float32Array.of(1, 2)]],
    ['of several dimensions', [Float32Array.of(1), Float32Array.of(1, 2)]],
    ['of plain numbers', [[1], [1]]],
    ['with NaN', [Float32Array.of(1), Float32Array.of(Number.NaN)]],
    ['of zeros', [Float32Array.of(1), Float32Array.of(0)]],
    ['none', null],
  ]
  test.each(embeddings)('vectors that are %s write nothing', async (_, given) => {
    await using own = await openStore({ embed: () => hostile(given) })
    const error = await rejectionOf(
      own.memory.append({ query: 'q', polarity: 'success', items: [lesson()] }),
    )
    expect(error.code).toBe('CALLBACK_FAILED')
    expect(own.memory.items.list()).toEqual([])
  })
})

describe('feedback', () => {
  test('counts what was retrieved, used, of help and of harm', async () => {
    const [item] = await db.memory.append({ query: 'q', polarity: 'success', items: [lesson()] })
    const itemId = item?.id ?? ''
    await db.memory.retrieve({ query: 'q' })
    await db.memory.retrieve({ query: 'q', count: false })
    now += 5_000_000
    db.memory.feedback({ itemId, used: true })
    db.memory.feedback({ itemId, helped: true })
    now -= 1_000_000
    db.memory.feedback({ itemId, hurt: true })
    expect(db.memory.items.find(itemId)).toMatchObject({
      retrieved_count: 1,
      used_count: 3,
      helped_count: 1,
      hurt_count: 1,
      last_used_at: '2026-01-01T00:00:05.000000Z',
    })
  })

  test('sends a count, not the item with its vectors', async () => {
    const [item] = await db.memory.append({ query: 'q', polarity: 'success', items: [lesson()] })
    db.memory.feedback({ itemId: item?.id ?? '', helped: true })
    const update = logOf(db, 'memory_items').find(({ op }) => op === 'update')
    expect(Object.keys(update?.patch ?? {}).toSorted()).toEqual([
      'helped_count',
      'last_used_at',
      'used_count',
    ])
  })

  test.each([
    [{}, 'give used, helped or hurt'],
    [{ helped: true, hurt: true }, 'not both'],
    [{ helped: true, used: false }, 'was used'],
    [{ helped: 1 }, 'helped must be true or false'],
    [{ liked: true }, 'no option "liked"'],
  ])('refuses %j', async (given, says) => {
    const [item] = await db.memory.append({ query: 'q', polarity: 'success', items: [lesson()] })
    const error = errorOf(() => db.memory.feedback(hostile({ itemId: item?.id, ...given })))
    expect(error.code).toBe('INVALID_OPTION')
    expect(error.message).toContain(says)
  })

  test('of an item that is not there is refused', () => {
    expect(errorOf(() => db.memory.feedback({ itemId: 'x', used: true })).code).toBe('NOT_FOUND')
    expect(errorOf(() => db.memory.restore('x')).code).toBe('NOT_FOUND')
    expect(errorOf(() => db.memory.trace('x')).code).toBe('NOT_FOUND')
  })
})

test('an edit of an item moves its words and vectors as one', async () => {
  const [item] = await db.memory.append({ query: 'q', polarity: 'success', items: [lesson()] })
  db.memory.items.update(item?.id ?? '', { content: 'Better words.' })
  const update = logOf(db, 'memory_items').find(({ op }) => op === 'update')
  expect(Object.keys(update?.patch ?? {}).toSorted()).toEqual([
    'content',
    'description',
    'dimension',
    'model',
    'query_vector',
    'source_query',
    'text_vector',
    'title',
  ])
})
