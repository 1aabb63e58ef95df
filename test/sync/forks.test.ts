import { copyFileSync, existsSync, rmSync } from 'node:fs'
import fc from 'fast-check'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import { forkStore, markIntroduced } from '../../sync/client/fork-store.ts'
import { connect } from '../../sync/index.ts'
import {
  createUser,
  openAgent,
  startCentreOn,
  type Centre,
  type TestAgent,
  type TestUser,
} from '../support/centre.ts'
import { connectionOf, scratchFolder, type ScratchFolder } from '../support/store.ts'
import { insert, WireClient } from '../support/wire-client.ts'

let centre: Centre
let folder: ScratchFolder
let user: TestUser
const agentId = 'laptop'

beforeAll(async () => {
  centre = await startCentreOn('postgres')
  folder = scratchFolder()
})
afterAll(async () => {
  folder[Symbol.dispose]()
  await centre[Symbol.asyncDispose]()
})
beforeEach(async () => {
  user = await createUser(centre, { role: 'operator' })
})

/** A store of the one agent, on whatever file, that syncs when told. */
type Life = TestAgent & { readonly path: string }

async function open(path: string): Promise<Life> {
  return { path, ...(await openAgent(centre, user, { path, agentId })) }
}

test('a store that was introduced is not written to for it after each push', async () => {
  await using life = await open(newPath())
  life.db.conversations.create({ title: 'x' })
  await life.sync.now()
  const connection = connectionOf(life.db)
  const before = connection.get('SELECT total_changes() AS changes')
  markIntroduced(connection, clientOf(life))
  expect(connection.get('SELECT total_changes() AS changes')).toEqual(before)
})

const newPath = (): string => folder.file(`${newId()}.db`)

/** As a backup of the files does it, also while the store is open: the log that is not yet in the file goes along. */
function copyFiles(from: string, to: string): string {
  for (const suffix of ['', '-wal', '-shm']) rmSync(`${to}${suffix}`, { force: true })
  copyFileSync(from, to)
  if (existsSync(`${from}-wal`)) copyFileSync(`${from}-wal`, `${to}-wal`)
  return to
}

const clientOf = ({ db }: Life): string =>
  connectionOf(db).get<{ id: string }>('SELECT client_id AS id FROM sync_state')?.id ?? ''

const pendingIds = ({ db }: Life): string[] =>
  connectionOf(db)
    .all<{ id: string }>('SELECT id FROM sync_tx ORDER BY seq')
    .map(({ id }) => id)

/** One message and one cent, in one local transaction. */
function say({ db }: Life, conversation: string, content: string): string {
  return db.transaction(() => {
    const spent = db.conversations.find(conversation)?.total_cost_cents ?? 0
    db.conversations.update(conversation, { total_cost_cents: spent + 1 })
    return db.messages.create({
      conversation_id: conversation,
      role: 'user',
      content,
      tokens_used: 10,
    }).id
  })
}

/** One conversation that the centre has. */
async function begin({ db, sync }: Life): Promise<string> {
  const { id } = db.conversations.create({ title: 'common' })
  await sync.now()
  return id
}

async function mustAgree(...lives: readonly Life[]): Promise<void> {
  for (const { sync } of lives) await sync.now()
  for (const { sync, db } of lives) {
    const { local, central } = await sync.checksums()
    expect(local).toEqual(central)
    expect(sync.status().pending).toBe(0)
    expect(db.syncConflicts.list({ state: 'rejected' })).toEqual([])
  }
}

/** What the centre has of a conversation: texts, statistics, and the counter that every message adds one to. */
async function mustHold(conversation: string, contents: readonly string[]): Promise<void> {
  const messages = await centre.db
    .selectFrom('messages')
    .select('content')
    .where('conversation_id', '=', conversation)
    .execute()
  expect(messages.map(({ content }) => content).toSorted()).toEqual(contents.toSorted())
  const row = await centre.db
    .selectFrom('conversations')
    .select(['message_count', 'total_tokens', 'total_cost_cents'])
    .where('id', '=', conversation)
    .executeTakeFirstOrThrow()
  expect(row).toEqual({
    message_count: contents.length,
    total_tokens: contents.length * 10,
    total_cost_cents: contents.length,
  })
}

async function ancestryOf(
  client: string,
): Promise<{ ancestor: string | null; common: number | null }> {
  const { rows } = await sql<{ ancestor: string | null; common: number | null }>`
    SELECT ancestor, common_seq AS common FROM sync.client WHERE client_id = ${client}`.execute(
    centre.db,
  )
  return rows[0] ?? { ancestor: null, common: null }
}

describe('a store whose file was copied', () => {
  test('goes on as a client of its own, and both keep all their work', async () => {
    await using original = await open(newPath())
    const conversation = await begin(original)
    await using clone = await open(copyFiles(original.path, newPath()))
    const before = clientOf(clone)
    expect(before).toBe(clientOf(original))
    say(original, conversation, 'of the original')
    say(clone, conversation, 'of the clone')
    const [id] = pendingIds(clone)
    const forks: unknown[] = []
    clone.sync.on('fork', (fork) => forks.push(fork))
    await original.sync.now()
    await clone.sync.now()

    expect(clientOf(original)).toBe(before)
    expect(clientOf(clone)).not.toBe(before)
    expect(forks).toEqual([clone.sync.status().lastFork])
    expect(clone.sync.status().lastFork).toMatchObject({
      from: before,
      to: clientOf(clone),
      pending: 1,
    })
    expect(original.sync.status().lastFork).toBeUndefined()
    expect(clone.outcomes.map(({ transactionId }) => transactionId)).toEqual([id, id])
    expect(await ancestryOf(clientOf(clone))).toEqual({ ancestor: before, common: 1 })
    await mustAgree(original, clone)
    await mustHold(conversation, ['of the original', 'of the clone'])
    // Both are ordinary clients from now on.
    say(original, conversation, 'later, of the original')
    say(clone, conversation, 'later, of the clone')
    await mustAgree(clone, original)
    expect(await ancestryOf(clientOf(clone))).toEqual({ ancestor: before, common: 1 })
  })

  test('with work that was pending then: each copy hears of it once, and it happens once', async () => {
    await using original = await open(newPath())
    const conversation = await begin(original)
    say(original, conversation, 'shared one')
    say(original, conversation, 'shared two')
    const shared = pendingIds(original)
    await using clone = await open(copyFiles(original.path, newPath()))
    say(original, conversation, 'of the original')
    say(clone, conversation, 'of the clone')
    const own = pendingIds(clone)
    await original.sync.now()
    await clone.sync.now()
    await mustAgree(original, clone)
    await mustHold(conversation, ['shared one', 'shared two', 'of the original', 'of the clone'])
    // Two mutations each.
    expect(clone.outcomes.map(({ transactionId }) => transactionId)).toEqual(
      own.flatMap((id) => [id, id]),
    )
    expect(own.slice(0, 2)).toEqual(shared)
    expect(new Set(clone.outcomes.map(({ kind }) => kind))).not.toContain('rejected')
    expect(await ancestryOf(clientOf(clone))).toEqual({ ancestor: clientOf(original), common: 3 })
  })

  test('that goes on under another name before anything was sent: what both had happens once, whoever brings it', async () => {
    await using original = await open(newPath())
    const conversation = await begin(original)
    say(original, conversation, 'shared one')
    say(original, conversation, 'shared two')
    await using clone = await open(copyFiles(original.path, newPath()))
    forkStore(connectionOf(clone.db), clientOf(clone), { at: '', reason: 'a test' })
    await clone.sync.now()
    say(original, conversation, 'of the original')
    await original.sync.now()
    await mustAgree(original, clone)
    await mustHold(conversation, ['shared one', 'shared two', 'of the original'])
    expect(new Set(original.outcomes.map(({ kind }) => kind))).toEqual(new Set(['applied']))
  })

  test('shows no shared row or count twice at any time on the way', async () => {
    await using original = await open(newPath())
    const conversation = await begin(original)
    say(original, conversation, 'shared')
    await using clone = await open(copyFiles(original.path, newPath()))
    say(original, conversation, 'of the original')
    await original.sync.now()
    say(clone, conversation, 'of the clone')
    const seen: unknown[] = []
    clone.sync.on('change', () => {
      const row = clone.db.conversations.find(conversation)
      seen.push([row?.message_count, row?.total_cost_cents])
    })
    await clone.sync.now()
    expect(seen.length).toBeGreaterThan(0)
    for (const counts of seen) expect(counts).toEqual([3, 3])
  })

  test('and copied again: each copy of a copy is a client of its own', async () => {
    await using original = await open(newPath())
    const conversation = await begin(original)
    say(original, conversation, 'in all three')
    await using clone = await open(copyFiles(original.path, newPath()))
    say(clone, conversation, 'in two')
    await using cloned = await open(copyFiles(clone.path, newPath()))
    await original.sync.now()
    say(original, conversation, 'one')
    say(clone, conversation, 'two')
    say(cloned, conversation, 'three')
    await original.sync.now()
    await clone.sync.now()
    await cloned.sync.now()
    // The first clone again, as it now is: with an ancestor of its own.
    await using late = await open(copyFiles(clone.path, newPath()))
    say(clone, conversation, 'four')
    say(late, conversation, 'five')
    await clone.sync.now()
    await late.sync.now()
    await mustAgree(original, clone, cloned, late)
    await mustHold(conversation, ['in all three', 'in two', 'one', 'two', 'three', 'four', 'five'])
    const clients = [original, clone, cloned, late].map(clientOf)
    expect(new Set(clients).size).toBe(4)
    expect((await ancestryOf(clientOf(late))).ancestor).toBe(clientOf(clone))
  })

  test('while it was still unknown that it had forked: its copy is told apart, too', async () => {
    await using original = await open(newPath())
    const conversation = await begin(original)
    const path = copyFiles(original.path, newPath())
    say(original, conversation, 'of the original')
    await original.sync.now()
    let from: string
    {
      await using clone = await open(path)
      from = clientOf(clone)
      say(clone, conversation, 'of the clone')
      // The centre goes away at the moment at which the store has forked.
      const connection = connectionOf(clone.db)
      clone.sync.on('fork', () => void clone.sync.close())
      await clone.sync.now().catch(() => undefined)
      expect(connection.get('SELECT introduced FROM sync_state')).toEqual({ introduced: 0 })
    }
    await using twin = await open(copyFiles(path, newPath()))
    await using clone = await open(path)
    expect(clientOf(twin)).toBe(clientOf(clone))
    say(twin, conversation, 'of the twin')
    say(clone, conversation, 'and more')
    await clone.sync.now()
    await twin.sync.now()
    expect(clientOf(twin)).not.toBe(clientOf(clone))
    await mustAgree(original, clone, twin)
    await mustHold(conversation, ['of the original', 'of the clone', 'and more', 'of the twin'])
    expect((await ancestryOf(clientOf(clone))).ancestor).toBe(from)
    expect((await ancestryOf(clientOf(twin))).ancestor).toBe(clientOf(clone))
  })

  test('only pulls: it takes no acknowledgement of its twin for its own', async () => {
    await using original = await open(newPath())
    const conversation = await begin(original)
    await using clone = await open(copyFiles(original.path, newPath()))
    say(original, conversation, 'of the original')
    await original.sync.now()
    const own = say(clone, conversation, 'of the clone')
    await clone.sync.checksums()
    expect(clientOf(clone)).not.toBe(clientOf(original))
    expect(clone.db.messages.find(own)?.content).toBe('of the clone')
    await mustAgree(original, clone)
    await mustHold(conversation, ['of the original', 'of the clone'])
  })

  test('while it lives on one stream: the copy forks under way and stays live', async () => {
    await using original = await open(newPath())
    const conversation = await begin(original)
    await using clone = await open(copyFiles(original.path, newPath()))
    await clone.sync.close()
    const token = await centre.server.issueToken({ userId: user.id, agentId })
    await using live = connect(clone.db, { url: centre.url, token, retryMinMs: 5 })
    const until = (fits: () => boolean): Promise<void> =>
      new Promise((done) => {
        const look = (): void => void (fits() && done())
        for (const event of ['status', 'change', 'fork'] as const) live.on(event, look)
        look()
      })
    await until(() => live.status().state === 'live')
    const before = clientOf(clone)
    const first = say(original, conversation, 'of the original')
    await original.sync.now()
    await until(() => clone.db.messages.find(first) !== undefined)
    expect(clientOf(clone)).not.toBe(before)
    const second = say(clone, conversation, 'of the clone')
    await until(() => live.status().pending === 0)
    await original.sync.now()
    expect(original.db.messages.find(second)?.content).toBe('of the clone')
    await mustHold(conversation, ['of the original', 'of the clone'])
  })

  test('while a push was under way: what it carried happens once, whoever brings it', async () => {
    await using original = await open(newPath())
    const conversation = await begin(original)
    for (let i = 0; i < 20; i++) say(original, conversation, `shared ${i}`)
    await using clone = await open(copyFiles(original.path, newPath()))
    say(clone, conversation, 'of the clone')
    say(original, conversation, 'of the original')
    await Promise.all([original.sync.now(), clone.sync.now()])
    // Two mutations each.
    expect([original, clone].map(({ outcomes }) => outcomes.length)).toEqual([43, 42])
    await mustAgree(original, clone)
    await mustHold(conversation, [
      ...Array.from({ length: 20 }, (_, i) => `shared ${i}`),
      'of the clone',
      'of the original',
    ])
  })
})

describe('a store whose file was put back', () => {
  test('sends its new work, though the centre has other work under its numbers', async () => {
    const life = await open(newPath())
    const conversation = await begin(life)
    const backup = copyFiles(life.path, newPath())
    say(life, conversation, 'after the backup')
    say(life, conversation, 'and more')
    await life.sync.now()
    const before = clientOf(life)
    await life[Symbol.asyncDispose]()
    await using restored = await open(copyFiles(backup, life.path))
    const ids = [say(restored, conversation, 'after the restore')]
    await restored.sync.now()
    expect(clientOf(restored)).not.toBe(before)
    expect(restored.db.messages.find(ids[0] ?? '')?.content).toBe('after the restore')
    await mustAgree(restored)
    await mustHold(conversation, ['after the backup', 'and more', 'after the restore'])
  })

  test('with work that the centre has long applied: it happens once, and ends in one outcome', async () => {
    const life = await open(newPath())
    const conversation = await begin(life)
    say(life, conversation, 'pending at the backup')
    const backup = copyFiles(life.path, newPath())
    const [id] = pendingIds(life)
    await life.sync.now()
    say(life, conversation, 'after the backup')
    await life.sync.now()
    await life[Symbol.asyncDispose]()
    await using restored = await open(copyFiles(backup, life.path))
    await restored.sync.now()
    expect(restored.outcomes.map(({ kind, transactionId }) => [kind, transactionId])).toEqual([
      ['applied', id],
      ['applied', id],
    ])
    await mustAgree(restored)
    await mustHold(conversation, ['pending at the backup', 'after the backup'])
  })

  test('with work that the centre has long refused: it hears so again, and what depends on it is told why', async () => {
    await using other = await open(newPath())
    other.db.runbooks.create({ name: 'deploy', version: 1, steps: [] })
    await other.sync.now()
    const life = await open(newPath())
    const runbook = life.db.runbooks.create({ name: 'deploy', version: 1, steps: [] }).id
    const backup = copyFiles(life.path, newPath())
    await life.sync.now()
    expect(life.outcomes).toMatchObject([{ kind: 'rejected', reason: 'unique' }])
    life.db.conversations.create({ title: 'after the backup' })
    await life.sync.now()
    await life[Symbol.asyncDispose]()
    await using restored = await open(copyFiles(backup, life.path))
    restored.db.runbookExecutions.create({ runbook_id: runbook })
    await restored.sync.now()
    expect(restored.outcomes).toMatchObject([
      { kind: 'rejected', reason: 'unique', transaction: 1 },
      { kind: 'dependency_failed', dependsOn: '1.0', transaction: 2 },
    ])
    expect(restored.db.runbooks.find(runbook)).toBeUndefined()
    const { local, central } = await restored.sync.checksums()
    expect(local).toEqual(central)
  })

  test('as it was when it was last flushed is what a power cut leaves: it goes on under its own name', async () => {
    const life = await open(newPath())
    const conversation = await begin(life)
    say(life, conversation, 'sent')
    // What is sent was flushed before; what is written after may be lost with the power.
    connectionOf(life.db).flush()
    const flushed = copyFiles(life.path, newPath())
    await life.sync.now()
    const before = clientOf(life)
    say(life, conversation, 'lost with the power')
    await life[Symbol.asyncDispose]()
    await using again = await open(copyFiles(flushed, life.path))
    say(again, conversation, 'written instead')
    await mustAgree(again)
    expect(clientOf(again)).toBe(before)
    expect(again.sync.status().lastFork).toBeUndefined()
    await mustHold(conversation, ['sent', 'written instead'])
  })
})

describe('what the ancestor wrote', () => {
  test('before the fork counts as the store’s own; what its twin wrote after it is concurrent', async () => {
    await using original = await open(newPath())
    const early = original.db.conversations.create({ title: 'a' }).id
    const late = original.db.conversations.create({ title: 'a' }).id
    await original.sync.now()
    original.db.conversations.update(early, { title: 'shared' })
    const path = copyFiles(original.path, newPath())
    original.db.conversations.update(late, { title: 'of the original' })
    await original.sync.now()
    await using clone = await open(path)
    clone.db.conversations.update(early, { title: 'of the clone' })
    clone.db.conversations.update(late, { title: 'of the clone' })
    await clone.sync.now()
    expect(clone.outcomes.map(({ transaction, id, kind }) => [transaction, id, kind])).toEqual([
      [1, early, 'applied'],
      [2, early, 'applied'],
      [3, late, 'merged'],
    ])
    const overwritten = clone.db.syncConflicts.list({ state: 'overwritten' })
    expect(overwritten).toMatchObject([{ rowId: late, theirs: { title: 'of the original' } }])
    await mustAgree(original, clone)
  })

  test('may be claimed only by a store of the same user and agent', async () => {
    await using life = await open(newPath())
    await begin(life)
    const stranger = await createUser(centre)
    const claims = [
      // Not refused, since its own name may have been taken; but not noted either.
      { by: { userId: stranger.id, agentId }, answer: [200, { seq: 0 }] },
      { by: { userId: user.id, agentId: 'another' }, answer: [403, { code: 'FORBIDDEN' }] },
    ]
    for (const { by, answer } of claims) {
      const token = await centre.server.issueToken(by)
      const claim = { clientId: newId(), ancestor: { clientId: clientOf(life), seq: 1, id: null } }
      const response = await fetch(new URL('/sync/v1/introduce', centre.url), {
        method: 'POST',
        headers: {
          authorization: `Bearer ${token}`,
          accept: 'application/json',
          'content-type': 'application/json',
        },
        body: JSON.stringify(claim),
      })
      expect([response.status, await response.json()]).toMatchObject(answer)
      expect((await ancestryOf(claim.clientId)).ancestor).toBeNull()
    }
  })

  test('cannot be claimed any more once the client has sent something', async () => {
    await using life = await open(newPath())
    await begin(life)
    const token = await centre.server.issueToken({ userId: user.id, agentId })
    const wire = new WireClient(centre.url, token)
    await wire.push([[insert('conversations', { id: newId(), user_id: user.id, title: 't' })]])
    await fetch(new URL('/sync/v1/introduce', centre.url), {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: JSON.stringify({
        clientId: wire.clientId,
        ancestor: { clientId: clientOf(life), seq: 1, id: null },
      }),
    })
    expect((await ancestryOf(wire.clientId)).ancestor).toBeNull()
  })
})

/** A step of a program over the files of one agent: numbers choose among what there is. */
type Step =
  | { readonly do: 'write' | 'sync' | 'copy' | 'backup' | 'restart'; readonly store: number }
  | { readonly do: 'restore'; readonly store: number; readonly backup: number }

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant('write' as const), store: fc.nat(3) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('sync' as const), store: fc.nat(3) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom('copy' as const, 'backup' as const, 'restart' as const),
      store: fc.nat(3),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('restore' as const),
      store: fc.nat(3),
      backup: fc.nat(5),
    }),
  },
)

/** Stores of one agent, copied and put back as a program says. */
class Lives implements AsyncDisposable {
  readonly lives: Life[] = []
  readonly backups: string[] = []
  #writes = 0

  at(index: number): Life {
    const life = this.lives[index % this.lives.length]
    if (life === undefined) throw new Error('there is no store')
    return life
  }

  async run(steps: readonly Step[], conversation: string): Promise<void> {
    for (const one of steps) {
      const life = this.at(one.store)
      if (one.do === 'write') say(life, conversation, `m${++this.#writes}`)
      if (one.do === 'sync') await life.sync.now()
      if (one.do === 'backup') this.backups.push(copyFiles(life.path, newPath()))
      if (one.do === 'copy' && this.lives.length < 4)
        this.lives.push(await open(copyFiles(life.path, newPath())))
      if (one.do === 'restart') await this.#reopen(life)
      if (one.do === 'restore') await this.#reopen(life, this.backups[one.backup])
    }
  }

  async #reopen(life: Life, backup?: string): Promise<void> {
    await life[Symbol.asyncDispose]()
    if (backup !== undefined) copyFiles(backup, life.path)
    this.lives[this.lives.indexOf(life)] = await open(life.path)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const life of this.lives) await life[Symbol.asyncDispose]()
  }
}

test('whatever is copied and put back when, stores end equal, and each transaction has happened once', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 8, maxLength: 30 }), async (steps) => {
      user = await createUser(centre)
      await using all = new Lives()
      const life = await open(newPath())
      const conversation = await begin(life)
      all.lives.push(life)
      await all.run(steps, conversation)
      const expected = new Set(
        all.lives.flatMap(({ db }) => db.messages.list().map(({ content }) => content)),
      )
      for (const one of all.lives) await one.sync.now()
      await mustAgree(...all.lives)
      const held = all
        .at(0)
        .db.messages.list()
        .map(({ content }) => content)
      // Nothing that a store had at the end is missing; what else there is, a store had sent before it was put back.
      for (const content of expected) expect(held).toContain(content)
      await mustHold(conversation, held)
    }),
    { numRuns: 30, endOnFailure: true },
  )
}, 180_000)

test('a value that it lost under a former name is shown as its own, after any number of forks', async () => {
  await using life = await open(newPath())
  const conversation = await begin(life)
  await using other = await openAgent(centre, user)
  await other.sync.now()
  life.db.conversations.update(conversation, { title: 'mine' })
  await life.sync.now()
  // Written later, without having seen it: it wins.
  other.db.conversations.update(conversation, { title: 'theirs' })
  await other.sync.now()
  for (const reason of ['once', 'twice'])
    forkStore(connectionOf(life.db), clientOf(life), { at: '', reason })
  await life.sync.now()
  expect(life.db.syncConflicts.list()).toMatchObject([
    { state: 'overwritten', mine: { title: 'mine' }, theirs: { title: 'theirs' } },
  ])
  expect(other.db.syncConflicts.list({ state: 'overwritten' })).toMatchObject([
    { mine: { title: 'theirs' }, theirs: { title: 'mine' } },
  ])
})

describe('a store whose client id another user has taken before it', () => {
  /** How it meets the centre first. */
  const ways: Record<string, (life: Life) => Promise<void>> = {
    push: ({ sync }) => sync.now(),
    pull: async ({ sync }) => void (await sync.checksums()),
    'push and pull at once': async ({ db, sync }) => {
      await sync.close()
      const token = await centre.server.issueToken({ userId: user.id, agentId })
      await using live = connect(db, { url: centre.url, token, retryMinMs: 5 })
      await new Promise<void>((done) => {
        live.on('status', ({ state, pending }) => {
          if (state === 'live' && pending === 0) done()
        })
      })
    },
  }

  test.each(Object.entries(ways))('takes another and loses nothing: %s', async (_way, meet) => {
    const path = newPath()
    const life = await open(path)
    const { id } = life.db.conversations.create({ title: 'mine' })
    say(life, id, 'written before')
    const taken = clientOf(life)
    const thief = await createUser(centre)
    const token = await centre.server.issueToken({ userId: thief.id, agentId })
    const wire = new WireClient(centre.url, token, taken)
    const loot = { id: newId(), user_id: thief.id, title: 'of the thief' }
    await wire.push([[insert('conversations', loot)]])

    await meet(life)
    await life[Symbol.asyncDispose]()
    await using again = await open(path)
    await mustAgree(again)
    expect(clientOf(again)).not.toBe(taken)
    await mustHold(id, ['written before'])
    expect(again.db.conversations.list().map(({ title }) => title)).toEqual(['mine'])
    // Nor has the thief got anything by it.
    const pull = await wire.pull()
    expect(JSON.stringify(pull)).not.toContain(id)
    expect(pull.watermark).toEqual(wire.last)
  })
})
