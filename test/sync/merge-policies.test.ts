import { afterAll, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest'
import { newId } from '../../schema/values/id.ts'
import type { Conflict } from '../../src/index.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import { Fleet, type TestAgent } from '../support/fleet.ts'
import { errorOf } from '../support/store.ts'

/** Two agents of one user; each writes while it is offline, then both sync. */
let database: TestDatabase
let fleet: Fleet
let userId: string
let a: TestAgent
let b: TestAgent

beforeAll(async () => {
  database = await createDatabase(inject('postgresUrl'), 'merge')
  fleet = await Fleet.start({ databaseUrl: database.url })
})
afterAll(async () => {
  await fleet[Symbol.asyncDispose]()
  await database.drop()
})
beforeEach(async () => {
  await fleet.clear()
  userId = await fleet.addUser('admin')
  a = await fleet.addAgent(userId, 'a')
  b = await fleet.addAgent(userId, 'b')
})

async function everyoneSyncs(): Promise<void> {
  for (let round = 0; round < 2; round++) for (const agent of [a, b]) await agent.sync()
}

async function mustEqualCentre(): Promise<void> {
  for (const agent of [a, b]) {
    const { local, central } = await agent.pull()
    expect(local).toEqual(central)
    expect(agent.connection.all('SELECT * FROM sync_base')).toEqual([])
  }
}

const newIncident = (agent: TestAgent, values: Record<string, unknown> = {}) =>
  agent.db.incidents.create({ title: 'first', severity: 'low', source: 'x', ...values })

function newRun(agent: TestAgent): string {
  const { id } = agent.db.workflows.create({ name: `W ${newId()}`, definition: {} })
  return agent.db.workflowExecutions.create({ workflow_id: id }).id
}

const count = (agent: TestAgent, id: string): number | null | undefined =>
  agent.db.workflowExecutions.find(id)?.steps_executed

/** Runs `steps_executed + by` in an agent's own store. */
function add(agent: TestAgent, id: string, by: number): void {
  agent.db.workflowExecutions.update(id, { steps_executed: (count(agent, id) ?? 0) + by })
}

/** What the centre keeps of values of a row that lost. */
const records = (id: string): Promise<Record<string, unknown>[]> =>
  fleet.sql('SELECT lost, kept, loser, winner FROM sync.conflict WHERE row_id = ?', id)

/** Records that someone has to decide about. */
const open = (agent: TestAgent): Conflict[] => agent.db.syncConflicts.list()

/** Stands in a record for what no agent can hold. */
const UNKNOWN = '{"$agentdb":"value cannot be represented here"}'

describe('a counter', () => {
  test('adds what both counted offline, and leaves nobody anything to decide', async () => {
    const run = newRun(a)
    await everyoneSyncs()
    add(a, run, 2)
    add(a, run, 1)
    add(b, run, 5)
    await everyoneSyncs()
    expect([count(a, run), count(b, run)]).toEqual([8, 8])
    expect([...open(a), ...open(b)]).toEqual([])
    // B came second: its 5 came out as 8.
    expect(b.outcomes.at(-1)).toMatchObject({
      kind: 'merged',
      reason: 'combined',
      changed: { steps_executed: 8 },
    })
    await mustEqualCentre()
  })

  test('shows pending steps on top of what arrives, and the same once they are acknowledged', async () => {
    const run = newRun(a)
    await everyoneSyncs()
    add(a, run, 1)
    add(a, run, 2)
    add(b, run, 5)
    await b.sync()
    await a.pull()
    expect(count(a, run)).toBe(8)
    add(a, run, 1)
    expect(count(a, run)).toBe(9)
    await a.sync()
    expect(count(a, run)).toBe(9)
    expect(await fleet.sql('SELECT steps_executed FROM workflow_executions')).toEqual([
      { steps_executed: 9 },
    ])
    await everyoneSyncs()
    await mustEqualCentre()
  })

  test('adds to what SQL at the centre wrote', async () => {
    const run = newRun(a)
    await everyoneSyncs()
    add(a, run, 3)
    await fleet.sql('UPDATE workflow_executions SET steps_executed = 100')
    await everyoneSyncs()
    expect([count(a, run), count(b, run)]).toEqual([103, 103])
    await mustEqualCentre()
  })

  test.each(['lose', 'twice', 'die-after', 'die-before', 'refuse'] as const)(
    'counts once, whatever becomes of the push and its answer (%s)',
    async (fault) => {
      const run = newRun(a)
      await everyoneSyncs()
      add(a, run, 3)
      await a.sync([fault])
      add(a, run, 1)
      await a.repeatPush(-1)
      await everyoneSyncs()
      await a.repeatPush(-1)
      await everyoneSyncs()
      expect([count(a, run), count(b, run)]).toEqual([4, 4])
      expect(await fleet.sql('SELECT steps_executed FROM workflow_executions')).toEqual([
        { steps_executed: 4 },
      ])
      await mustEqualCentre()
    },
  )

  test('of a transaction that is rejected takes its difference back, and later ones stay', async () => {
    const run = newRun(a)
    a.db.runbooks.create({ name: 'taken', steps: [] })
    await everyoneSyncs()
    const conversation = b.db.conversations.create({ title: 'x' })
    await everyoneSyncs()
    await fleet.sql('DELETE FROM conversations')
    b.db.transaction(() => {
      add(b, run, 10)
      b.db.conversations.update(conversation.id, { title: 'gone' })
    })
    add(b, run, 1)
    expect(count(b, run)).toBe(11)
    await everyoneSyncs()
    expect([count(a, run), count(b, run)]).toEqual([1, 1])
    const refused = open(b).find(({ table }) => table === 'workflow_executions')
    expect(refused).toMatchObject({ state: 'dependency_failed', mine: { steps_executed: 10 } })
    // Tried again it is a difference still, not a value from then.
    b.db.syncConflicts.retry(refused?.id ?? '')
    await everyoneSyncs()
    expect([count(a, run), count(b, run)]).toEqual([11, 11])
    await mustEqualCentre()
  })

  test('that would leave the range of an integer is rejected by name, and the row stays', async () => {
    const run = newRun(a)
    await everyoneSyncs()
    add(a, run, 2_000_000_000)
    add(b, run, 2_000_000_000)
    await everyoneSyncs()
    expect([count(a, run), count(b, run)]).toEqual([2_000_000_000, 2_000_000_000])
    expect(open(b)).toMatchObject([
      { state: 'rejected', reason: 'out_of_range', sqlstate: '22003', rowId: run },
    ])
    await mustEqualCentre()
  })
})

describe('a set', () => {
  test('has the tags of both, without those that either took away', async () => {
    const { id } = a.db.conversations.create({ title: 'x', tags: ['old', 'kept'] })
    await everyoneSyncs()
    a.db.conversations.update(id, { tags: ['kept', 'a'] })
    b.db.conversations.update(id, { tags: ['old', 'kept', 'b', null] })
    await a.sync()
    await b.pull()
    expect(b.db.conversations.find(id)?.tags).toEqual(['kept', 'a', 'b', null])
    await everyoneSyncs()
    for (const agent of [a, b])
      expect(agent.db.conversations.find(id)?.tags).toEqual(['kept', 'a', 'b', null])
    expect([...open(a), ...open(b)]).toEqual([])
    await mustEqualCentre()
  })

  test('of ids and of numbers joins likewise', async () => {
    const { id } = newIncident(a)
    const runbook = a.db.runbooks.create({ name: 'r', steps: [] })
    const run = a.db.runbookExecutions.create({ runbook_id: runbook.id, completed_steps: [1] })
    await everyoneSyncs()
    const [x, y] = [newId(), newId()]
    a.db.incidents.update(id, { related_incidents: [x], affected_services: ['api'] })
    b.db.incidents.update(id, { related_incidents: [y], affected_services: ['db'] })
    a.db.runbookExecutions.update(run.id, { completed_steps: [1, 2] })
    b.db.runbookExecutions.update(run.id, { completed_steps: [1, 3] })
    await everyoneSyncs()
    expect(a.db.incidents.find(id)).toMatchObject({
      related_incidents: [x, y],
      affected_services: ['api', 'db'],
    })
    expect(b.db.runbookExecutions.find(run.id)?.completed_steps).toEqual([1, 2, 3])
    await mustEqualCentre()
  })
})

describe('JSON', () => {
  test('has the keys of both, however deep', async () => {
    const { id } = newIncident(a, { metadata: { alert: { id: 1 }, noise: true } })
    await everyoneSyncs()
    a.db.users.update(userId, { preferences: { theme: 'dark' } })
    b.db.users.update(userId, { preferences: { lang: 'de' } })
    a.db.incidents.update(id, { metadata: { alert: { id: 1, by: { a: [1] } }, noise: true } })
    b.db.incidents.update(id, { metadata: { alert: { id: 1, by: { b: [2] } } } })
    await everyoneSyncs()
    for (const { db } of [a, b]) {
      expect(db.users.find(userId)?.preferences).toEqual({ theme: 'dark', lang: 'de' })
      expect(db.incidents.find(id)?.metadata).toEqual({
        alert: { id: 1, by: { a: [1], b: [2] } },
      })
    }
    expect([...open(a), ...open(b)]).toEqual([])
    await mustEqualCentre()
  })

  test('of which both changed a key gives it to the later, and tells both sides of that key only', async () => {
    const { id } = newIncident(a, { metadata: { deep: { t: 1, u: 1 }, x: 1 } })
    await everyoneSyncs()
    a.db.incidents.update(id, { metadata: { deep: { t: 2, u: 1 }, x: 1, a: 1 } })
    later()
    b.db.incidents.update(id, { metadata: { deep: { t: 3, u: 1 }, x: 2 } })
    await b.sync()
    await a.sync()
    expect(a.db.incidents.find(id)?.metadata).toEqual({ deep: { t: 3, u: 1 }, x: 2, a: 1 })
    const [lost] = open(a)
    expect(lost).toMatchObject({ state: 'merged', reason: 'concurrent' })
    expect(await records(id)).toEqual([
      {
        lost: { metadata: '{"deep":{"t":2}}' },
        kept: { metadata: '{"deep":{"t":3}}' },
        loser: a.clientId,
        winner: b.clientId,
      },
    ])
    await b.sync()
    const [won] = open(b) as [Conflict]
    expect(won).toMatchObject({
      state: 'overwritten',
      mine: { metadata: { deep: { t: 3 } } },
      theirs: { metadata: { deep: { t: 2 } } },
    })
    // Brought back, it is that key which changes, and nothing beside it.
    b.db.incidents.update(id, { metadata: { deep: { t: 3, u: 9 }, x: 2, a: 1 } })
    b.db.syncConflicts.retry(won.id, won.theirs ?? {})
    expect(b.db.incidents.find(id)?.metadata).toEqual({ deep: { t: 2, u: 9 }, x: 2, a: 1 })
    await everyoneSyncs()
    a.db.incidents.update(id, { metadata: { deep: { t: 7, u: 9 }, x: 2, a: 1 } })
    a.db.syncConflicts.retry(lost?.id ?? '')
    expect(a.db.incidents.find(id)?.metadata).toEqual({ deep: { t: 2, u: 9 }, x: 2, a: 1 })
    await everyoneSyncs()
    await mustEqualCentre()
  })

  test.each([
    ['in one push', false],
    ['in two', true],
  ])(
    'keeps a key of another in sight of the clocks, through a merge that its writer had not seen, %s',
    async (_, isSplit) => {
      const { id } = newIncident(a, { metadata: { x: 0, y: 0 } })
      await everyoneSyncs()
      a.db.incidents.update(id, { metadata: { x: 1, y: 0 } })
      if (!isSplit) a.db.incidents.update(id, { metadata: { x: 1, y: 1 } })
      const clock = a.connection.get<{ clock: number }>('SELECT max(clock) AS clock FROM sync_tx')
      later()
      b.db.incidents.update(id, { metadata: { x: 0, y: 5 } })
      await b.sync()
      if (isSplit) {
        // Pushed, and nothing heard of it: the second is written without having seen B, by a clock before B's.
        await a.sync(['none', 'refuse'])
        a.db.incidents.update(id, { metadata: { x: 1, y: 1 } })
        a.connection.run('UPDATE sync_tx SET clock = ?', (clock?.clock ?? 0) + 1)
      }
      // The first of A merges and makes A the last writer; B's later y still wins over A's second.
      await a.sync()
      expect(a.db.incidents.find(id)?.metadata).toEqual({ x: 1, y: 5 })
      expect(await records(id)).toEqual([
        {
          lost: { metadata: '{"y":1}' },
          kept: { metadata: '{"y":5}' },
          loser: a.clientId,
          winner: b.clientId,
        },
      ])
      await everyoneSyncs()
      await mustEqualCentre()
    },
  )

  test('that the centre cannot tell an agent is not merged into, and its record says so', async () => {
    const { id } = newIncident(a)
    await everyoneSyncs()
    a.db.incidents.update(id, { metadata: { mine: 1 } })
    // Held down to when it comes, which is after the centre's.
    a.connection.run('UPDATE sync_tx SET clock = clock + 60000000')
    await fleet.sql(`UPDATE incidents SET metadata = '{"n": 9223372036854775807}'`)
    later()
    await a.sync()
    expect(await records(id)).toMatchObject([
      { lost: { metadata: UNKNOWN }, kept: { metadata: '{"mine":1}' }, winner: a.clientId },
    ])
    const [row] = await fleet.sql('SELECT metadata::text AS m FROM incidents')
    expect(row?.['m']).not.toContain('agentdb')
    await everyoneSyncs()
    await mustEqualCentre()
  })
})

test('a time that no agent can hold is marked in the record of the change that overwrote it', async () => {
  const { id } = a.db.conversations.create({ title: 'x' })
  await everyoneSyncs()
  await fleet.sql(`UPDATE conversations SET ended_at = 'infinity'`)
  later()
  a.db.conversations.update(id, { ended_at: '2030-01-01T00:00:00Z' })
  await a.sync()
  expect(open(a).find(({ state }) => state === 'overwritten')).toMatchObject({
    mine: { ended_at: '2030-01-01T00:00:00.000000Z' },
    theirs: { ended_at: UNKNOWN },
  })
})

test('a value that was refused does not stand in the way of the one that takes its place', async () => {
  const { id } = newIncident(a, { metadata: { x: 1 } })
  await everyoneSyncs()
  a.connection.transaction(() =>
    a.connection.run(
      `UPDATE incidents SET metadata = '{"n":9223372036854775807}' WHERE id = ?`,
      id,
    ),
  )
  a.db.incidents.update(id, { metadata: { n: '9223372036854775807' } })
  await everyoneSyncs()
  expect(a.outcomes.slice(-2).map(({ kind, reason }) => reason ?? kind)).toEqual([
    'invalid_value',
    'applied',
  ])
  expect(b.db.incidents.find(id)?.metadata).toEqual({ n: '9223372036854775807' })
  await mustEqualCentre()
})

describe('a value that only grows', () => {
  test('ends as the greater of both, whoever came last', async () => {
    const { id } = a.db.runbooks.create({ name: 'r', steps: [] })
    await everyoneSyncs()
    const [early, late] = ['2026-01-01T00:00:00.000000Z', '2026-02-01T00:00:00.000000Z']
    b.db.runbooks.update(id, { last_executed_at: late, execution_count: 1 })
    a.db.runbooks.update(id, { last_executed_at: early, execution_count: 1, success_count: 1 })
    await b.sync()
    await a.pull()
    expect(a.db.runbooks.find(id)?.last_executed_at).toBe(late)
    await everyoneSyncs()
    for (const agent of [a, b])
      expect(agent.db.runbooks.find(id)).toMatchObject({
        last_executed_at: late,
        execution_count: 2,
        success_count: 1,
      })
    expect([...open(a), ...open(b)]).toEqual([])
    await mustEqualCentre()
  })
})

describe('a state', () => {
  const at = (second: number): string => `2090-01-01T00:00:0${second}.000000Z`

  test('moves on from where another has brought it, with the times of both', async () => {
    const { id } = newIncident(a)
    await everyoneSyncs()
    b.db.incidents.update(id, { status: 'resolved', resolved_at: at(2) })
    later()
    a.db.incidents.update(id, { status: 'acknowledged', acknowledged_at: at(1) })
    await a.sync()
    await b.sync()
    await a.sync()
    for (const agent of [a, b])
      expect(agent.db.incidents.find(id)).toMatchObject({
        status: 'resolved',
        acknowledged_at: at(1),
        resolved_at: at(2),
      })
    expect(open(a)).toMatchObject([
      { state: 'overwritten', mine: { status: 'acknowledged' }, theirs: { status: 'resolved' } },
    ])
    await mustEqualCentre()
  })

  test('that is past is superseded, stays readable with its reason, and the rest of its write stands', async () => {
    const { id } = newIncident(a)
    await everyoneSyncs()
    b.db.incidents.update(id, { status: 'closed', closed_at: at(3) })
    later()
    a.db.incidents.update(id, {
      status: 'acknowledged',
      acknowledged_at: at(1),
      root_cause: 'found',
    })
    await b.sync()
    await a.sync()
    expect(a.db.incidents.find(id)).toMatchObject({
      status: 'closed',
      acknowledged_at: null,
      root_cause: 'found',
    })
    const [conflict] = open(a) as [Conflict]
    expect(conflict).toMatchObject({
      state: 'merged',
      reason: 'illegal_transition',
      message: 'incidents.status cannot go from closed to acknowledged',
      mine: { status: 'acknowledged', acknowledged_at: at(1), root_cause: 'found' },
      theirs: { status: 'closed', closed_at: at(3), acknowledged_at: null },
    })
    expect(errorOf(() => a.db.syncConflicts.retry(conflict.id))).toMatchObject({
      code: 'ILLEGAL_TRANSITION',
    })
    expect(open(a)).toHaveLength(1)
    await everyoneSyncs()
    await mustEqualCentre()
  })

  test('that no rule allows is refused at once by the store, and raw SQL hears it from the centre', async () => {
    const { id } = newIncident(a)
    const run = newRun(a)
    a.db.incidents.update(id, { status: 'closed', closed_at: at(3) })
    a.db.workflowExecutions.update(run, { status: 'success' })
    const pending = a.engine.status().pending
    expect(errorOf(() => a.db.incidents.update(id, { status: 'investigating' }))).toMatchObject({
      code: 'ILLEGAL_TRANSITION',
      column: 'status',
      message: 'incidents.status cannot go from closed to "investigating": next is open',
    })
    expect(errorOf(() => a.db.workflowExecutions.update(run, { status: 'running' }))).toMatchObject(
      {
        message: expect.stringContaining('it is final') as string,
      },
    )
    expect(a.engine.status().pending).toBe(pending)
    a.db.incidents.update(id, { status: 'open', closed_at: null })
    a.db.incidents.update(id, { status: 'closed', closed_at: at(3) })
    await everyoneSyncs()
    a.connection.transaction(() =>
      a.connection.run(`UPDATE incidents SET status = 'investigating' WHERE id = ?`, id),
    )
    await everyoneSyncs()
    expect(open(a)).toMatchObject([{ state: 'superseded', reason: 'illegal_transition' }])
    expect(a.db.incidents.find(id)?.status).toBe('closed')
    await mustEqualCentre()
  })
})

describe('a playbook', () => {
  test('that two edited at once keeps the first, and the second is rejected whole, with what stands', async () => {
    const { id } = a.db.runbooks.create({ name: 'deploy', steps: [{ n: 1 }] })
    await everyoneSyncs()
    a.db.runbooks.update(id, { steps: [{ n: 'a' }], version: 2 })
    later()
    b.db.transaction(() => {
      b.db.runbooks.update(id, { is_automated: true, description: 'b' })
      b.db.conversations.create({ title: 'with it' })
    })
    await a.sync()
    await b.sync()
    expect(b.db.runbooks.find(id)).toMatchObject({
      steps: [{ n: 'a' }],
      is_automated: false,
      description: null,
    })
    const conflict = open(b).find(({ table }) => table === 'runbooks') as Conflict
    expect(conflict).toMatchObject({
      state: 'rejected',
      reason: 'conflict',
      mine: { is_automated: true, description: 'b' },
      theirs: { id, steps: [{ n: 'a' }], version: 2 },
    })
    expect(open(b).find(({ table }) => table === 'conversations')?.state).toBe('dependency_failed')
    // Whoever has read both decides.
    b.db.syncConflicts.retry(conflict.id, { steps: [{ n: 'a' }, { n: 'b' }], version: 3 })
    await everyoneSyncs()
    expect(a.db.runbooks.find(id)).toMatchObject({
      steps: [{ n: 'a' }, { n: 'b' }],
      version: 3,
      is_automated: true,
      description: 'b',
    })
    await mustEqualCentre()
  })

  test('whose other columns another edited is no conflict', async () => {
    const { id } = a.db.runbooks.create({ name: 'deploy', steps: [] })
    await everyoneSyncs()
    a.db.runbooks.update(id, { description: 'a', execution_count: 1 })
    b.db.runbooks.update(id, { steps: [1], version: 2 })
    await everyoneSyncs()
    expect(a.db.runbooks.find(id)).toMatchObject({ description: 'a', steps: [1] })
    expect([...open(a), ...open(b)]).toEqual([])
    await mustEqualCentre()
  })
})

describe('a delete', () => {
  test('of a conversation that another wrote in meanwhile is rejected, and all of it comes back', async () => {
    const { id } = a.db.conversations.create({ title: 'x' })
    const say = (agent: TestAgent, content: string) =>
      agent.db.messages.create({ conversation_id: id, role: 'user', content })
    say(a, 'old')
    await everyoneSyncs()
    say(b, 'new')
    a.db.conversations.delete(id)
    expect(a.db.messages.list()).toEqual([])
    await b.sync()
    await a.sync()
    expect(open(a)).toMatchObject([
      { op: 'delete', state: 'rejected', reason: 'newer_children', base: { title: 'x' } },
    ])
    expect(a.db.conversations.find(id)).toMatchObject({ message_count: 2 })
    expect(a.db.messages.list().map(({ content }) => content)).toEqual(['old', 'new'])
    await mustEqualCentre()
    // Now it was seen.
    a.db.syncConflicts.retry(open(a)[0]?.id ?? '')
    await everyoneSyncs()
    expect(b.db.conversations.find(id)).toBeUndefined()
    expect(await fleet.sql('SELECT id FROM messages')).toEqual([])
    await mustEqualCentre()
  })

  test('takes along what its own writer put there last, and what it had seen', async () => {
    const { id } = a.db.conversations.create({ title: 'x' })
    await everyoneSyncs()
    b.db.messages.create({ conversation_id: id, role: 'user', content: 'seen' })
    await everyoneSyncs()
    a.db.messages.create({ conversation_id: id, role: 'user', content: 'own' })
    a.db.conversations.delete(id)
    await everyoneSyncs()
    expect(b.db.conversations.find(id)).toBeUndefined()
    expect([...open(a), ...open(b)]).toEqual([])
    await mustEqualCentre()
  })

  test('of a workflow is rejected for a step two levels below', async () => {
    const run = newRun(a)
    const flow = a.db.workflowExecutions.find(run)?.workflow_id ?? ''
    await everyoneSyncs()
    const step = { workflow_execution_id: run, step_id: 's', step_name: 's', step_type: 's' }
    const { id } = b.db.stepExecutions.create(step)
    await b.sync()
    a.connection.transaction(() => a.connection.run('DELETE FROM workflows WHERE id = ?', flow))
    await a.sync()
    expect(open(a)).toMatchObject([{ table: 'workflows', reason: 'newer_children' }])
    expect(a.db.stepExecutions.find(id)).toBeDefined()
    await mustEqualCentre()
  })

  test('of an execution wins over its runner, whose steps are kept on record', async () => {
    const run = newRun(a)
    const step = { workflow_execution_id: run, step_id: 's', step_name: 's', step_type: 's' }
    const old = a.db.stepExecutions.create(step)
    await everyoneSyncs()
    const made = b.db.stepExecutions.create({ ...step, step_id: 'new', outputs: { kept: 1 } })
    b.db.stepExecutions.update(old.id, { status: 'running', duration_ms: 7 })
    a.db.workflowExecutions.delete(run)
    await b.sync()
    await a.sync()
    await b.sync()
    expect(await fleet.sql('SELECT id FROM step_executions')).toEqual([])
    const kept = open(b).filter(({ state }) => state === 'overwritten')
    expect(new Map(kept.map(({ rowId, mine }) => [rowId, mine]))).toMatchObject(
      new Map([
        [made.id, expect.objectContaining({ step_id: 'new', outputs: { kept: 1 } }) as unknown],
        [old.id, { status: 'running', duration_ms: 7 }],
      ]),
    )
    await mustEqualCentre()
  })

  test('of a row that another changed meanwhile wins, and the value is kept on record', async () => {
    const { id } = newIncident(a)
    await everyoneSyncs()
    b.db.incidents.update(id, { root_cause: 'found' })
    a.db.incidents.delete(id)
    await b.sync()
    await a.sync()
    await b.sync()
    expect(b.db.incidents.find(id)).toBeUndefined()
    expect(open(b)).toMatchObject([
      { state: 'overwritten', rowId: id, mine: { root_cause: 'found' }, theirs: {} },
    ])
    await mustEqualCentre()
  })
})

describe('a clock', () => {
  test('that is years ahead wins once at most: what others write after it came stands', async () => {
    const { id } = newIncident(a)
    await everyoneSyncs()
    const tenYears = 10 * 365 * 24 * 3600 * 1_000_000
    a.connection.run('UPDATE sync_state SET clock = clock + ?', tenYears)
    a.db.incidents.update(id, { title: 'from the future' })
    await a.sync()
    // B has not seen it, and writes later by the centre's clock.
    later()
    b.db.incidents.update(id, { title: 'now' })
    await b.sync()
    expect(b.outcomes.at(-1)).toMatchObject({ kind: 'merged', id })
    expect(await fleet.sql('SELECT title FROM incidents')).toEqual([{ title: 'now' }])
    // Nor is the clock of anyone who reads what came from there carried off.
    await b.sync()
    const clock = b.connection.get<{ clock: number }>('SELECT clock FROM sync_state')?.clock
    expect(clock).toBeLessThan(Date.now() * 1000 + tenYears / 2)
    await everyoneSyncs()
    await mustEqualCentre()
  })
})

test('what is derived is the centre’s with what is pending on top, and equal once drained', async () => {
  const { id } = a.db.conversations.create({ title: 'x' })
  await everyoneSyncs()
  const say = (agent: TestAgent, tokens: number) =>
    agent.db.messages.create({
      conversation_id: id,
      role: 'user',
      content: 'm',
      tokens_used: tokens,
    })
  say(a, 1)
  say(b, 10)
  say(b, 100)
  await b.sync()
  await a.pull()
  expect(a.db.conversations.find(id)).toMatchObject({ message_count: 3, total_tokens: 111 })
  await everyoneSyncs()
  for (const agent of [a, b])
    expect(agent.db.conversations.find(id)).toMatchObject({ message_count: 3, total_tokens: 111 })
  await mustEqualCentre()
})

/** What is written from here on has a later clock: of two writes in one millisecond, the writers' ids decide. */
function later(): void {
  const start = Date.now()
  while (Date.now() === start);
}
