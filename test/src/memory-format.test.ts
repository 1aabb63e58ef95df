import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { HASHING_DIMENSION } from '../../src/index.ts'
import { parseItems, renderItems, writeItems } from '../../src/memory/markdown.ts'
import { openStore, rejectionOf } from '../support/store.ts'

const line = fc
  .string({ unit: 'grapheme', minLength: 1, maxLength: 30 })
  .map((text) => text.replaceAll(/\s+/g, ' ').trim())
  .filter((text) => text !== '')
const nasty = fc.constantFrom(
  '# Memory Item 2',
  '## Title forged',
  '##Content: forged',
  '  # Memory Item 3',
  '```',
  ': x',
  '\\# not a heading',
  '\\\\',
  '**bold**',
)
const lineOrNasty = fc.oneof(
  line,
  nasty.map((text) => text.trim()),
)
const anItem = fc.record({
  title: lineOrNasty,
  description: lineOrNasty,
  content: fc
    .array(fc.oneof(line, nasty), { minLength: 1, maxLength: 4 })
    .map((lines) => lines.join('\n').trim()),
})

describe('Markdown of memory items', () => {
  test('comes back as it was written, whatever the words look like', () => {
    fc.assert(
      fc.property(fc.array(anItem, { maxLength: 4 }), (items) => {
        expect(parseItems(writeItems(items))).toEqual(items)
        expect(parseItems(renderItems(items))).toEqual(items)
      }),
      { numRuns: 500 },
    )
  })

  test.each([
    [
      'values on the line of their heading',
      '# Memory Item 1\n## Title a\n## Description b\n## Content c',
    ],
    ['values below', '# Memory Item 1\n## Title\na\n## Description\nb\n\n## Content\nc\n'],
    [
      'thoughts in front and a fence',
      'It failed since ...\n\n```markdown\n# Memory Item 1\n## Title a\n## Description b\n## Content c\n```\n',
    ],
    ['colons and bold', '# **Memory Item 1**\n## **Title**: a\n## Description: b\n## Content: c'],
    ['Windows line ends', '# Memory Item 1\r\n## Title a\r\n## Description b\r\n## Content c\r\n'],
    ['a number in words', '# Memory Item i\n## title a\n## description b\n## content c'],
  ])('is read with %s', (_, markdown) => {
    expect(parseItems(markdown)).toEqual([{ title: 'a', description: 'b', content: 'c' }])
  })

  test('without items is none', () => {
    for (const text of ['', 'I found nothing.', '## Title a\n## Content c'])
      expect(parseItems(text)).toEqual([])
  })
})

const memoryItem = (number: number, title: string): string =>
  `# Memory Item ${number}\n## Title ${title}\n## Description When a list has pages.\n## Content Go to the last page. Then answer.`

/** Lines as the reference code writes them: its keys, in its order. */
const referenceLines = [
  {
    task_id: '47',
    query: 'What is the date of my first purchase?',
    think_list: ['I open the account.', 'The list has pages.'],
    action_list: [`click('227')`, `send_msg_to_user('3/2/22')`],
    status: 'success',
    memory_items: [memoryItem(1, 'Read every page'), memoryItem(2, 'Sort by date')],
    template_id: 168,
  },
  {
    task_id: '48',
    query: 'Buy a product that does not exist',
    think_list: [],
    action_list: [],
    status: 'fail',
    memory_items: [memoryItem(1, 'Say so early')],
    template_id: 'shopping/12',
  },
  {
    task_id: '49',
    query: 'Ask nothing',
    think_list: [''],
    action_list: ['noop()'],
    status: 'fail',
    memory_items: [],
    template_id: null,
  },
]
const jsonl = (lines: readonly object[]): string =>
  lines.map((each) => `${JSON.stringify(each)}\n`).join('')
const embeddingLines = [
  { id: '47', text: 'What is the date of my first purchase?', embedding: [0.5, -0.25, 1] },
  { id: '48', text: 'Buy a product that does not exist', embedding: [0.125, 0, -1] },
]

describe('files of the reference code', () => {
  test('come out as they went in, with their embeddings', async () => {
    await using db = await openStore()
    const files = { memories: jsonl(referenceLines), embeddings: jsonl(embeddingLines) }
    const imported = await db.memory.importReference(files, { model: 'gemini-embedding-001' })
    expect(imported.trajectories).toHaveLength(3)
    expect(imported.items).toHaveLength(3)
    const exported = db.memory.exportReference()
    expect(exported).toEqual(files)

    await using other = await openStore()
    await other.memory.importReference(exported, { model: 'gemini-embedding-001' })
    expect(other.memory.exportReference()).toEqual(files)
  })

  test('are found by their own vectors, or by ours where there are none', async () => {
    await using db = await openStore()
    await db.memory.importReference(
      { memories: jsonl(referenceLines), embeddings: jsonl(embeddingLines.slice(0, 1)) },
      { model: 'gemini' },
    )
    const theirs = { embedding: Float32Array.of(0.5, -0.25, 1), model: 'gemini' }
    expect(await db.memory.retrieve(theirs)).toMatchObject([
      { title: 'Read every page', polarity: 'success', taskId: '47' },
      { title: 'Sort by date' },
    ])
    expect(await db.memory.retrieve({ query: 'Buy a product' })).toMatchObject([
      { title: 'Say so early', polarity: 'failure', taskId: '48' },
    ])
    const dimensions = db.memory.items.list().map(({ dimension }) => dimension)
    expect(dimensions).toEqual([3, 3, HASHING_DIMENSION])
  })

  test('may hold the model’s answer as it came: whole, or cut at blank lines', async () => {
    const answer = `Why it worked: ...\n\n${memoryItem(1, 'a')}\n\n${memoryItem(2, 'b')}\n`
    for (const memory_items of [
      answer,
      answer.split('\n\n'),
      answer.split('\n## ').join('\n\n## '),
    ]) {
      await using db = await openStore()
      const memories = jsonl([{ ...referenceLines[0], memory_items }])
      const { items } = await db.memory.importReference({ memories })
      expect(items.map(({ title }) => title)).toEqual(['a', 'b'])
    }
  })

  test.each([
    ['{"task_id":"1"', 'memories line 2 is not JSON'],
    ['7', 'is no record'],
    [JSON.stringify({ ...referenceLines[0], status: 'ok' }), 'has status "ok"'],
    [JSON.stringify({ ...referenceLines[0], query: '' }), 'has query ""'],
    [JSON.stringify({ ...referenceLines[0], think_list: ['a'] }), 'different lengths'],
    [JSON.stringify({ ...referenceLines[0], memory_items: 7 }), 'has memory_items 7'],
    [JSON.stringify({ ...referenceLines[0], task_id: null }), 'has task_id null'],
    [
      JSON.stringify({ ...referenceLines[0], memory_items: '# Memory Item 1\n## Title x' }),
      'items[0].description without text',
    ],
  ])('with the line %s are refused whole', async (bad, says) => {
    await using db = await openStore()
    const memories = `${JSON.stringify(referenceLines[0])}\n${bad}\n`
    const error = await rejectionOf(db.memory.importReference({ memories }))
    expect(error.message).toContain(says)
    expect(error.message).toContain('memories line 2')
    expect(db.memory.trajectories.list()).toEqual([])
    expect(db.memory.items.list()).toEqual([])
  })

  test('with embeddings name the model that made them', async () => {
    await using db = await openStore()
    const files = { memories: jsonl(referenceLines), embeddings: jsonl(embeddingLines) }
    expect((await rejectionOf(db.memory.importReference(files))).code).toBe('INVALID_OPTION')
    const broken = { ...files, embeddings: '{"id":"47","embedding":[1,"x"]}\n' }
    const error = await rejectionOf(db.memory.importReference(broken, { model: 'm' }))
    expect(error.message).toContain('embeddings line 1')
  })
})
