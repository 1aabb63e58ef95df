import { expect, test, vi } from 'vitest'
import type { AgentDB } from '../../src/index.ts'
import { run } from '../../server/cli/run.ts'
import { createUser, openAgent } from '../support/centre.ts'
import { RestorableCentre } from '../support/restorable-centre.ts'

const lesson = { title: 'Read every page', description: 'For lists.', content: 'Go to the end.' }

test('a centre that lost an item and its counts gets both back, each count once', async () => {
  await using centre = await RestorableCentre.start()
  const user = await createUser(centre)
  await using laptop = await openAgent(centre, user)
  await using desktop = await openAgent(centre, user)
  const sync = async (): Promise<void> => {
    for (const agent of [laptop, desktop, laptop, desktop]) await agent.sync.now()
  }
  await sync()
  await centre.backup()

  const input = { query: 'Find my first order', polarity: 'success', items: [lesson] } as const
  const [made] = await laptop.db.memory.append(input)
  const itemId = made?.id ?? ''
  await sync()
  for (const { db } of [laptop, desktop, desktop]) db.memory.feedback({ itemId, helped: true })
  await sync()
  const counts = ({ memory }: AgentDB): unknown => {
    const { used_count, helped_count, title } = memory.items.find(itemId) ?? {}
    return { used_count, helped_count, title }
  }
  const before = { used_count: 3, helped_count: 3, title: lesson.title }
  expect(counts(laptop.db)).toEqual(before)

  await centre.restore()
  for (const agent of [laptop, desktop])
    await expect(agent.sync.now()).rejects.toMatchObject({ code: 'HEALING_PENDING' })
  const stdout = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
  const healed = await run(['heal', '--all', '--database-url', centre.databaseUrl, '--json'])
  stdout.mockRestore()
  expect(healed).toBe(0)
  await sync()
  for (const { db } of [laptop, desktop]) {
    expect(counts(db)).toEqual(before)
    expect(await db.memory.retrieve({ query: input.query, count: false })).toMatchObject([lesson])
  }
})
