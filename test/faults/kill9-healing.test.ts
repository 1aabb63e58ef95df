import { setTimeout as sleep } from 'node:timers/promises'
import { sql } from 'kysely'
import { expect, test, vi } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import { run } from '../../server/cli/run.ts'
import { Child } from '../support/child.ts'
import { createUser, openAgent, type TestAgent, type TestUser } from '../support/centre.ts'
import { RestorableCentre } from '../support/restorable-centre.ts'
import { scratchFolder } from '../support/store.ts'

const AGENTS = 3
const LOST_TRANSACTIONS = 300
const KILLS_MAX = 5
/** Longer than an agent takes to bring all of it back, while others do and the machine is busy. */
const KILL_AFTER_MS_MAX = 1500

interface Mortal {
  readonly path: string
  readonly agentId: string
  readonly token: string
  /** Whether it has begun to bring back what was lost, and whether all of it is there. */
  hasBegun: boolean
  isDone: boolean
}

/** A message and a cent, in one transaction: half of it, or twice of it, would show in the sums. */
function say({ db }: TestAgent, conversation: string, content: string): void {
  db.transaction(() => {
    const spent = db.conversations.find(conversation)?.total_cost_cents ?? 0
    db.conversations.update(conversation, { total_cost_cents: spent + 1 })
    db.messages.create({ conversation_id: conversation, role: 'user', content, tokens_used: 10 })
  })
}

/** What the centre has of each conversation: its statistics, and its messages by their texts. */
async function talks(centre: RestorableCentre): Promise<unknown[]> {
  const { rows } = await sql`
    SELECT c.id, c.title, c.message_count, c.total_tokens, c.total_cost_cents,
      (SELECT array_agg(m.content ORDER BY m.content) FROM messages m WHERE m.conversation_id = c.id) AS contents
    FROM conversations c ORDER BY c.id`.execute(centre.db)
  return rows
}

async function decideAll({ databaseUrl }: RestorableCentre): Promise<void> {
  const stdout = vi.spyOn(process.stdout, 'write').mockImplementation(() => true)
  try {
    expect(await run(['heal', '--all', '--database-url', databaseUrl, '--json'])).toBe(0)
  } finally {
    stdout.mockRestore()
  }
}

/** One life of an agent that heals, ended by kill -9; says whether that fell between its beginning and its end. */
async function lifeOf(
  agent: Mortal,
  { user, centre, from }: { user: TestUser; centre: RestorableCentre; from: string },
): Promise<boolean> {
  const args = [agent.path, user.id, agent.agentId, centre.url, agent.token]
  await using child = Child.start('child-healer.ts', args)
  await child.line((line) => line.startsWith(from) || line.startsWith('drained'))
  // The first to heal is killed at that moment, the others anywhere.
  if (from === 'opened') await sleep(Math.random() ** 2 * KILL_AFTER_MS_MAX)
  await child.kill()
  agent.hasBegun ||= child.lines.some((line) => line.startsWith('heals'))
  agent.isDone = child.lines.includes('drained 0')
  return agent.hasBegun && !agent.isDone
}

test('agents killed with -9 at any moment of healing bring everything back, once', async () => {
  await using centre = await RestorableCentre.start()
  using folder = scratchFolder()
  const user = await createUser(centre, { role: 'operator' })
  const agents: Mortal[] = []
  const open = ({ path, agentId }: Mortal): Promise<TestAgent> =>
    openAgent(centre, user, { path, agentId })
  const stores: { store: TestAgent; talk: string }[] = []
  for (let i = 0; i < AGENTS; i++) {
    const agentId = `mortal-${i}`
    const token = await centre.server.issueToken({ userId: user.id, agentId })
    const agent = {
      path: folder.file(`${newId()}.db`),
      agentId,
      token,
      hasBegun: false,
      isDone: false,
    }
    agents.push(agent)
    const store = await open(agent)
    const talk = store.db.conversations.create({ title: agentId }).id
    await store.sync.now()
    stores.push({ store, talk })
  }
  await centre.backup()
  for (const { store, talk } of stores) {
    await store.sync.now()
    for (let n = 0; n < LOST_TRANSACTIONS; n++) say(store, talk, `${n}`)
    await store.sync.now()
  }
  const before = await talks(centre)
  await centre.restore()
  expect(await talks(centre)).not.toEqual(before)
  for (const { store } of stores) {
    await expect(store.sync.now()).rejects.toMatchObject({ code: 'HEALING_PENDING' })
    await store.close()
  }
  await decideAll(centre)

  let killedMeanwhile = 0
  for (let kill = 0; kill < KILLS_MAX; kill++) {
    const lives = agents
      .filter(({ isDone }) => !isDone)
      .map((agent, i) =>
        lifeOf(agent, { user, centre, from: kill === 0 && i === 0 ? 'heals' : 'opened' }),
      )
    for (const fellMeanwhile of await Promise.all(lives)) if (fellMeanwhile) killedMeanwhile += 1
  }
  console.log(
    'KILLED',
    killedMeanwhile,
    agents.map((a) => a.isDone),
  )
  expect(killedMeanwhile).toBeGreaterThan(0)

  const survivors = await Promise.all(agents.map(open))
  try {
    for (const { sync } of [...survivors, ...survivors]) await sync.now()
    expect(await talks(centre)).toEqual(before)
    for (const { db, sync } of survivors) {
      const { local, central } = await sync.checksums()
      expect(local).toEqual(central)
      expect(sync.status()).toMatchObject({ pending: 0, parked: 0 })
      expect(db.syncConflicts.list()).toEqual([])
      expect(db.lostRows.list()).toEqual([])
    }
  } finally {
    for (const survivor of survivors) await survivor.close()
  }
}, 300_000)
