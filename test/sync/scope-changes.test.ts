import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { UserRole, UserStatus } from '../../schema/enums.ts'
import { newId } from '../../schema/values/id.ts'
import type { Change } from '../../sync/client/apply-batch.ts'
import { Fleet, type TestAgent } from '../support/fleet.ts'

let fleet: Fleet
let annaId: string
let bertId: string
let anna: TestAgent
let bert: TestAgent

beforeAll(async () => {
  fleet = await Fleet.start()
})
afterAll(() => fleet[Symbol.asyncDispose]())
beforeEach(async () => {
  await fleet.clear()
  annaId = await fleet.addUser()
  bertId = await fleet.addUser()
  anna = await fleet.addAgent(annaId, 'anna')
  bert = await fleet.addAgent(bertId, 'bert')
})

async function mustEqualCentre(...agents: TestAgent[]): Promise<void> {
  for (const agent of agents) {
    const { local, central } = await agent.pull()
    expect(local).toEqual(central)
    expect(agent.connection.all('PRAGMA foreign_key_check')).toEqual([])
  }
}

/** What the batches that came since told the program, one list a batch. */
function changesOf(agent: TestAgent): string[][] {
  const batches: string[][] = []
  agent.engine.on('change', (changes) => batches.push(changes.map(brief).toSorted()))
  return batches
}

const brief = ({ op, table, id }: Change): string => `${op} ${table} ${id}`

const setRole = (userId: string, role: UserRole): Promise<unknown> =>
  fleet.sql('UPDATE users SET role = ? WHERE id = ?', role, userId)

const setStatus = (userId: string, status: UserStatus): Promise<unknown> =>
  fleet.sql('UPDATE users SET status = ? WHERE id = ?', status, userId)

const give = (conversation: string, to: string): Promise<unknown> =>
  fleet.sql('UPDATE conversations SET user_id = ? WHERE id = ?', to, conversation)

const queued = (agent: TestAgent): unknown[] => agent.connection.all('SELECT op, id FROM sync_log')

/** Everything visible but some rows, by table. */
function rowsBut(agent: TestAgent, left: ReadonlySet<string>): Record<string, unknown[]> {
  return Object.fromEntries(
    Object.entries(agent.visibleRows()).map(([table, rows]) => [
      table,
      rows.filter((row) => !left.has((row as { id: string }).id)),
    ]),
  )
}

interface Talk {
  readonly id: string
  readonly messages: readonly string[]
  readonly embedding: string
}

/** A conversation with three messages of two tokens each, and an embedding of it. */
async function talk(agent: TestAgent, title: string): Promise<Talk> {
  const { id } = agent.db.conversations.create({ title })
  const messages = ['one', 'two', 'three'].map(
    (content) =>
      agent.db.messages.create({ conversation_id: id, role: 'user', content, tokens_used: 2 }).id,
  )
  const embedding = await agent.db.embeddings.put({
    collection: 'conversation_embeddings',
    content: title,
    payload: { conversation_id: id },
  })
  return { id, messages, embedding: embedding.id }
}

const rowsOf = ({ id, messages, embedding }: Talk): string[] => [
  `conversations ${id}`,
  ...messages.map((message) => `messages ${message}`),
  `embeddings ${embedding}`,
]

describe('a conversation given to another user', () => {
  test('leaves one and arrives at the other with all that is of it, in one batch, and touches nothing else', async () => {
    const moved = await talk(anna, 'rollback of the payments release')
    const kept = await talk(anna, 'kept')
    const own = await talk(bert, 'own')
    const ofAnna = changesOf(anna)
    const ofBert = changesOf(bert)
    for (const agent of [anna, bert, anna]) await agent.sync()
    ofAnna.length = 0
    ofBert.length = 0
    const left = new Set([moved.id, ...moved.messages, moved.embedding])
    const before = [rowsBut(anna, left), rowsBut(bert, left)]

    await give(moved.id, bertId)
    await mustEqualCentre(anna, bert)

    expect(ofAnna).toEqual([
      rowsOf(moved)
        .map((row) => `delete ${row}`)
        .toSorted(),
    ])
    expect(ofBert).toEqual([
      rowsOf(moved)
        .map((row) => `insert ${row}`)
        .toSorted(),
    ])
    expect([rowsBut(anna, left), rowsBut(bert, left)]).toEqual(before)
    expect([queued(anna), queued(bert)]).toEqual([[], []])
    expect(bert.db.conversations.find(moved.id)).toMatchObject({
      user_id: bertId,
      message_count: 3,
      total_tokens: 6,
    })
    expect(anna.db.conversations.find(kept.id)).toMatchObject({ message_count: 3, total_tokens: 6 })
    expect(bert.db.conversations.find(own.id)).toMatchObject({ message_count: 3, total_tokens: 6 })
    const query = { collection: 'conversation_embeddings', text: 'payments release' } as const
    const found = async (agent: TestAgent): Promise<string[]> =>
      (await agent.db.search(query)).map(({ id }) => id)
    expect(await found(anna)).not.toContain(moved.embedding)
    expect(await found(bert)).toContain(moved.embedding)
  })

  test('goes there and back again, and who was away meanwhile sees nothing of it', async () => {
    const moved = await talk(anna, 'there and back')
    await anna.sync()
    await bert.sync()
    const ofAnna = changesOf(anna)
    const ofBert = changesOf(bert)
    await give(moved.id, bertId)
    await give(moved.id, annaId)
    await mustEqualCentre(anna, bert)
    expect(anna.db.messages.list({ where: { conversation_id: moved.id } })).toHaveLength(3)
    // Only `updated_at` of the conversation itself is another.
    expect(ofAnna).toEqual([expect.arrayContaining([`update conversations ${moved.id}`])])
    expect(ofBert).toEqual([])
  })

  test('fires no foreign-key action where it leaves: what refers to it keeps its reference', async () => {
    const moved = await talk(anna, 'moved')
    const kept = await talk(anna, 'kept')
    const [first] = moved.messages
    const answer = anna.db.messages.create({
      conversation_id: kept.id,
      role: 'user',
      content: 'answer to what leaves',
      parent_message_id: first,
    })
    await anna.sync()
    const ofAnna = changesOf(anna)
    await give(moved.id, bertId)
    await mustEqualCentre(anna)
    expect(anna.db.messages.find(answer.id)?.parent_message_id).toBe(first)
    expect(anna.db.messages.find(first ?? '')).toBeUndefined()
    expect(ofAnna.flat().filter((change) => change.includes(answer.id))).toEqual([])
    expect(queued(anna)).toEqual([])
  })

  test('leaves its messages with their reader when only one of them is put elsewhere', async () => {
    const source = await talk(anna, 'source')
    const target = await talk(bert, 'target')
    await anna.sync()
    await bert.sync()
    const [first] = source.messages
    await fleet.sql('UPDATE messages SET conversation_id = ? WHERE id = ?', target.id, first)
    await mustEqualCentre(anna, bert)
    expect(anna.db.messages.find(first ?? '')).toBeUndefined()
    expect(bert.db.messages.find(first ?? '')).toMatchObject({ conversation_id: target.id })
    expect(anna.db.conversations.find(source.id)).toMatchObject({
      message_count: 2,
      total_tokens: 4,
    })
    expect(bert.db.conversations.find(target.id)).toMatchObject({
      message_count: 4,
      total_tokens: 8,
    })
  })

  test('gives what was pending on it an outcome, which stays readable with what was written', async () => {
    const moved = await talk(anna, 'first')
    await anna.sync()
    const [first = '', second = ''] = moved.messages
    anna.db.conversations.update(moved.id, { title: 'mine' })
    anna.db.messages.update(first, { feedback_rating: 5 })
    anna.db.messages.delete(second)
    const late = anna.db.messages.create({
      conversation_id: moved.id,
      role: 'user',
      content: 'late',
    })
    const untouched = anna.db.incidents.create({ title: 'i', severity: 'low', source: 's' })
    await give(moved.id, bertId)

    // The rows leave first; what was written is still there to be read, and is still to be decided.
    await anna.pull()
    expect(anna.db.conversations.find(moved.id)).toBeUndefined()
    expect(anna.db.messages.list({ where: { conversation_id: moved.id } })).toEqual([])
    expect(
      anna.db.syncConflicts
        .list({ state: 'blocked' })
        .map(({ rowId }) => rowId)
        .toSorted(),
    ).toEqual([moved.id, first, late.id].toSorted())

    await anna.sync()
    await bert.sync()
    expect(anna.engine.status().pending).toBe(0)
    const rejected = anna.db.syncConflicts.list({ state: 'rejected' })
    expect(rejected.map(({ rowId, reason }) => `${rowId} ${reason}`).toSorted()).toEqual(
      [moved.id, first, second, late.id].map((id) => `${id} forbidden`).toSorted(),
    )
    const mine = new Map(rejected.map((record) => [record.rowId, record.mine]))
    expect(mine.get(moved.id)).toMatchObject({ title: 'mine' })
    expect(mine.get(first)).toMatchObject({ feedback_rating: 5 })
    expect(mine.get(late.id)).toMatchObject({ content: 'late' })
    expect(anna.db.syncConflicts.list({ state: 'blocked' })).toEqual([])
    expect(anna.outcomes.map(({ kind, id }) => [kind, id])).toContainEqual([
      'applied',
      untouched.id,
    ])
    await mustEqualCentre(anna, bert)
    expect(bert.db.conversations.find(moved.id)).toMatchObject({ title: 'first', message_count: 3 })
    expect(bert.db.messages.find(first)).toMatchObject({ feedback_rating: null })
  })

  test('is not brought back by what its old owner wrote before it heard of the move', async () => {
    const moved = await talk(anna, 'first')
    await anna.sync()
    await bert.sync()
    anna.db.messages.create({ conversation_id: moved.id, role: 'user', content: 'blind' })
    await give(moved.id, bertId)
    await anna.sync()
    expect(anna.outcomes.at(-1)).toMatchObject({ kind: 'rejected', reason: 'forbidden' })
    await mustEqualCentre(anna, bert)
    expect(anna.db.messages.list()).toEqual([])
    expect(bert.db.messages.list()).toHaveLength(3)
  })
})

/** Incidents: one of nobody, one of Anna; a runbook; runs of it by both, of the incident of nobody. */
interface Duty {
  readonly open: string
  readonly mine: string
  readonly runbook: string
  readonly myRun: string
  readonly othersRun: string
}

async function duty(): Promise<Duty> {
  const { db } = bert
  const open = db.incidents.create({ title: 'open', severity: 'high', source: 's' }).id
  await bert.sync()
  const mine = db.incidents.create({
    title: 'mine',
    severity: 'low',
    source: 's',
  }).id
  const runbook = db.runbooks.create({ name: `r-${newId()}`, steps: [] }).id
  const othersRun = db.runbookExecutions.create({ runbook_id: runbook, incident_id: open }).id
  await bert.sync()
  await fleet.sql('UPDATE incidents SET assigned_to = ? WHERE id = ?', annaId, mine)
  await anna.sync()
  const myRun = anna.db.runbookExecutions.create({ runbook_id: runbook, incident_id: open }).id
  await anna.sync()
  await bert.sync()
  return { open, mine, runbook, myRun, othersRun }
}

describe('a role', () => {
  test('that is lowered takes away what it no longer reads, in one batch, and touches nothing else', async () => {
    const { open, mine, runbook, myRun, othersRun } = await duty()
    const ofAnna = changesOf(anna)
    const left = new Set([open, othersRun, annaId])
    const before = rowsBut(anna, left)

    await setRole(annaId, 'viewer')
    await mustEqualCentre(anna)

    expect(ofAnna).toEqual([
      [
        `delete incidents ${open}`,
        `delete runbook_executions ${othersRun}`,
        `update users ${annaId}`,
      ],
    ])
    expect(rowsBut(anna, left)).toEqual(before)
    expect(anna.db.incidents.list().map(({ id }) => id)).toEqual([mine])
    expect(anna.db.runbooks.find(runbook)).toBeDefined()
    // Its own run stays, and still says of which incident it was.
    expect(anna.db.runbookExecutions.list()).toMatchObject([{ id: myRun, incident_id: open }])
    expect(queued(anna)).toEqual([])
  })

  test('that is raised brings what it may read, in one batch, and touches nothing else', async () => {
    const { open, othersRun } = await duty()
    await setRole(annaId, 'viewer')
    await anna.sync()
    const ofAnna = changesOf(anna)
    const before = rowsBut(anna, new Set([annaId]))
    await setRole(annaId, 'operator')
    await mustEqualCentre(anna)
    expect(ofAnna).toEqual([
      [
        `insert incidents ${open}`,
        `insert runbook_executions ${othersRun}`,
        `update users ${annaId}`,
      ],
    ])
    expect(rowsBut(anna, new Set([open, othersRun, annaId]))).toEqual(before)
  })

  test('that moves more than a batch should hold is read page by page, of the tables concerned alone', async () => {
    const { open, mine, myRun } = await duty()
    await talk(anna, 'not concerned')
    await anna.sync()
    await fleet.sql(`INSERT INTO incidents (title, severity, source)
      SELECT 'one of many', 'low', 's' FROM generate_series(1, 11000)`)
    await anna.sync()
    const pending = anna.db.incidents.update(open, { title: 'pending' }).id
    const pages: (string | number | boolean)[][] = []
    anna.engine.on('progress', ({ reason, rows, total, done }) =>
      pages.push([reason, rows, total, done]),
    )
    const ofAnna = changesOf(anna)
    await setRole(annaId, 'viewer')
    await mustEqualCentre(anna)
    expect(anna.db.incidents.list().map(({ id }) => id)).toEqual([mine])
    expect(anna.db.runbookExecutions.list()).toMatchObject([{ id: myRun, incident_id: open }])
    await anna.sync()
    expect(anna.outcomes.at(-1)).toMatchObject({ id: pending, reason: 'forbidden' })

    await setRole(annaId, 'operator')
    await mustEqualCentre(anna)
    expect(pages.length).toBeGreaterThan(2)
    expect(pages.map(([reason]) => reason)).toEqual(pages.map(() => 'role_changed'))
    const touched = new Set(ofAnna.flat().map((change) => change.split(' ')[1]))
    expect(touched).toEqual(new Set(['incidents', 'runbook_executions', 'users']))
    expect(anna.db.conversations.list()).toHaveLength(1)
  })

  test('that reads the same as before changes the user’s row alone', async () => {
    await duty()
    const ofAnna = changesOf(anna)
    await setRole(annaId, 'admin')
    await mustEqualCentre(anna)
    expect(ofAnna).toEqual([[`update users ${annaId}`]])
  })

  test('that changes while rows change tells of each row once, as it then is', async () => {
    const { open, mine, othersRun } = await duty()
    const made = newId()
    const insert = `INSERT INTO incidents (id, title, severity, source) VALUES (?, 't', 'low', 's')`
    await fleet.sql(insert, made)
    await fleet.sql(`UPDATE incidents SET title = 'before' WHERE id = ?`, open)
    await setRole(annaId, 'viewer')
    await fleet.sql('UPDATE incidents SET assigned_to = ? WHERE id = ?', annaId, open)
    await fleet.sql('UPDATE incidents SET assigned_to = NULL WHERE id = ?', mine)
    await mustEqualCentre(anna)
    expect(anna.db.incidents.list()).toMatchObject([{ id: open, title: 'before' }])
    await fleet.sql('DELETE FROM runbook_executions WHERE id = ?', othersRun)
    await setRole(annaId, 'developer')
    await fleet.sql(`UPDATE incidents SET title = 'after' WHERE id = ?`, made)
    await mustEqualCentre(anna)
    expect(
      anna.db.incidents
        .list()
        .map(({ id }) => id)
        .toSorted(),
    ).toEqual([open, mine, made].toSorted())
    expect(anna.db.incidents.find(made)?.title).toBe('after')
  })

  test('that is lowered gives what was pending on rows that leave an outcome', async () => {
    const { open, mine } = await duty()
    anna.db.incidents.update(open, { title: 'edited' })
    anna.db.incidents.update(mine, { title: 'edited' })
    await setRole(annaId, 'viewer')
    await anna.pull()
    expect(anna.db.incidents.find(open)).toBeUndefined()
    await anna.sync()
    expect(
      anna.db.syncConflicts
        .list({ state: 'rejected' })
        .map(
          ({ rowId, reason, mine: written }) => `${rowId} ${reason} ${String(written?.['title'])}`,
        )
        .toSorted(),
    ).toEqual([open, mine].map((id) => `${id} forbidden edited`).toSorted())
    await mustEqualCentre(anna)
    expect(anna.db.incidents.list()).toMatchObject([{ id: mine, title: 'mine' }])
  })

  test('that changes while an agent is connected moves the rows at once, both ways', async () => {
    const { open, othersRun } = await duty()
    const nextWith = (text: string): Promise<string[]> =>
      new Promise((done) => {
        const stop = anna.engine.on('change', (changes) => {
          const told = changes.map(brief).toSorted()
          if (!told.includes(text)) return
          stop()
          done(told)
        })
      })
    anna.engine.start()
    await becomes(anna, 'live')
    const gone = nextWith(`delete incidents ${open}`)
    await setRole(annaId, 'viewer')
    expect(await gone).toEqual([
      `delete incidents ${open}`,
      `delete runbook_executions ${othersRun}`,
      `update users ${annaId}`,
    ])
    const back = nextWith(`insert incidents ${open}`)
    await setRole(annaId, 'developer')
    expect(await back).toEqual([
      `insert incidents ${open}`,
      `insert runbook_executions ${othersRun}`,
      `update users ${annaId}`,
    ])
  })
})

/** Resolves once the sync of an agent is in a state. */
function becomes(agent: TestAgent, state: string): Promise<void> {
  return new Promise((done) => {
    if (agent.engine.status().state === state) return done()
    const stop = agent.engine.on('status', (status) => {
      if (status.state !== state) return
      stop()
      done()
    })
  })
}

describe('an incident reassigned by an agent', () => {
  test('arrives at a viewer who gets it and leaves one who loses it, with what was pending', async () => {
    await setRole(bertId, 'viewer')
    await bert.sync()
    const { id } = anna.db.incidents.create({ title: 't', severity: 'low', source: 's' })
    await anna.sync()
    await mustEqualCentre(bert)
    expect(bert.db.incidents.list()).toEqual([])
    anna.db.incidents.update(id, { assigned_to: bertId })
    await anna.sync()
    await mustEqualCentre(anna, bert)
    expect(bert.db.incidents.list()).toMatchObject([{ id }])

    bert.db.incidents.update(id, { title: 'edited' })
    anna.db.incidents.update(id, { assigned_to: null })
    await anna.sync()
    await bert.sync()
    expect(bert.db.incidents.list()).toEqual([])
    expect(bert.db.syncConflicts.list()).toMatchObject([
      { rowId: id, state: 'rejected', reason: 'forbidden', mine: { title: 'edited' } },
    ])
    await mustEqualCentre(anna, bert)
    expect(anna.db.incidents.find(id)?.title).toBe('t')
  })

  test('away from itself is lost to it when its role no longer reads the others', async () => {
    const { id } = anna.db.incidents.create({
      title: 't',
      severity: 'low',
      source: 's',
      assigned_to: annaId,
    })
    await anna.sync()
    await bert.sync()
    anna.db.incidents.update(id, { assigned_to: bertId })
    await anna.sync()
    await setRole(annaId, 'viewer')
    await mustEqualCentre(anna)
    expect(anna.db.incidents.list()).toEqual([])
  })

  test('stays where it is when its role was lowered before the push came', async () => {
    const { id } = anna.db.incidents.create({
      title: 't',
      severity: 'low',
      source: 's',
      assigned_to: annaId,
    })
    await anna.sync()
    await bert.sync()
    anna.db.incidents.update(id, { assigned_to: bertId })
    await setRole(annaId, 'viewer')
    await anna.sync()
    expect(anna.outcomes.at(-1)).toMatchObject({ kind: 'rejected', reason: 'forbidden', id })
    await mustEqualCentre(anna)
    expect(anna.db.incidents.list()).toMatchObject([{ id, assigned_to: annaId }])
  })
})

describe('an account that is suspended', () => {
  test('can neither push nor pull, keeps its queue and rows, and goes on when it is active again', async () => {
    const { id } = anna.db.conversations.create({ title: 'before' })
    await anna.sync()
    anna.db.conversations.update(id, { title: 'while suspended' })
    await setStatus(annaId, 'suspended')
    await expect(anna.sync()).rejects.toMatchObject({ code: 'FORBIDDEN' })
    await expect(anna.pull()).rejects.toMatchObject({ code: 'FORBIDDEN' })
    expect(anna.engine.status()).toMatchObject({
      pending: 1,
      lastError: { code: 'FORBIDDEN', message: expect.stringContaining('suspended') as string },
    })
    expect(anna.db.conversations.find(id)?.title).toBe('while suspended')
    expect(await fleet.sql('SELECT title FROM conversations')).toEqual([{ title: 'before' }])

    await setStatus(annaId, 'active')
    await anna.sync()
    expect(anna.outcomes.at(-1)).toMatchObject({ kind: 'applied', id })
    await mustEqualCentre(anna)
    expect(anna.db.conversations.find(id)?.title).toBe('while suspended')
  })

  test('is told while it is connected, and goes on by itself', async () => {
    const { id } = anna.db.conversations.create({ title: 'before' })
    await anna.sync()
    anna.engine.start()
    await becomes(anna, 'live')
    const refused = new Promise<string | undefined>((done) => {
      anna.engine.on('status', ({ lastError }) => {
        if (lastError?.code === 'FORBIDDEN') done(lastError.message)
      })
    })
    await setStatus(annaId, 'suspended')
    expect(await refused).toContain('suspended')
    anna.db.conversations.update(id, { title: 'kept' })
    const settled = new Promise<void>((done) => {
      anna.engine.on('outcome', (outcome) => {
        if (outcome.id === id && outcome.kind === 'applied') done()
      })
    })
    await setStatus(annaId, 'active')
    await settled
    expect(await fleet.sql('SELECT title FROM conversations')).toEqual([{ title: 'kept' }])
  })
})
