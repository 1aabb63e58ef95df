import * as fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { loggedMutations } from '../../schema/sqlite/logged-images.ts'
import type { Stored } from '../../schema/codec.ts'
import { references } from '../../schema/define.ts'
import { needsBefore } from '../../schema/merge-policy.ts'
import { allTables, mustTable, tableOfNumber } from '../../schema/tables.ts'
import { decodeImage } from '../../sync/client/image.ts'
import { createDatabase, type TestDatabase } from '../support/databases.ts'
import { Fleet, type TestAgent } from '../support/fleet.ts'
import { programs, runStep, type Step } from '../support/program.ts'

/**
 * Whatever agents and the centre do, and whatever the network and the processes do meanwhile: once healed, everyone
 * holds the same, and every local commit came to exactly one end.
 *
 * A failure prints a seed and a path; `CONVERGENCE_SEED=... CONVERGENCE_PATH=...` runs it alone,
 * `CONVERGENCE_RUNS=...` runs more of them.
 */
const seed = Number(process.env['CONVERGENCE_SEED'] ?? Date.now() % 2 ** 31)
const path = process.env['CONVERGENCE_PATH']
const runs = (usual: number): number => Number(process.env['CONVERGENCE_RUNS'] ?? usual)

/** Runs a program on fresh users and agents, checking after each step, and heals at the end. */
async function run(fleet: Fleet, steps: readonly Step[]): Promise<void> {
  await fleet.clear()
  const users = [await fleet.addUser('developer'), await fleet.addUser('viewer')]
  const [first = '', second = ''] = users
  const agents = [
    await fleet.addAgent(first),
    await fleet.addAgent(first),
    await fleet.addAgent(second),
  ]
  for (const [i, step] of steps.entries()) {
    const place = `after step ${i} (${step.kind})`
    await runStep(fleet, agents, users, step)
    const agent = agents[step.agent]
    if (step.kind === 'pull' && agent !== undefined) await mustEqualCentre(agent, place)
    for (const each of agents) mustHold(each, place)
  }
  await heal(agents)
  for (const agent of agents) {
    mustHold(agent, 'at the end')
    await mustHaveConverged(fleet, agent)
  }
  const [a, b] = agents
  expect(a?.visibleRows(), 'agents of one user show the same').toEqual(b?.visibleRows())
  await mustCount(fleet)
}

/** Everyone pushes, then everyone pulls what the others pushed. */
async function heal(agents: readonly TestAgent[]): Promise<void> {
  for (let round = 0; round < 2; round++) {
    for (const agent of agents) expect(await agent.sync(), `${agent.name} drains`).toBe(true)
  }
}

/** What holds at every moment: foreign keys (I12), and that local work shows or says why not (I3). */
function mustHold(agent: TestAgent, place: string): void {
  const { connection, name } = agent
  expect(connection.all('PRAGMA foreign_key_check'), `${name}: foreign keys ${place}`).toEqual([])
  for (const [key, { table, id, op, patch }] of pendingRows(agent)) {
    // A row that others still refer to stays as a stub, which is hidden.
    const row = connection.get<Record<string, Stored>>(
      `SELECT * FROM ${table} t WHERE id = ? AND NOT EXISTS (SELECT 1 FROM sync_stub s WHERE s.id = t.id AND s.tbl = ?)`,
      id,
      mustTable(table).number,
    )
    expect(row ?? 'gone', `${name}: pending ${op} of ${key} shows ${place}`).toEqual(
      op === 'delete' ? 'gone' : expect.objectContaining(patch),
    )
  }
  const hidden = connection.all<{ tx: number; id: string }>(
    `SELECT l.tx, l.id FROM sync_log l WHERE l.blocked = 1 AND NOT EXISTS
      (SELECT 1 FROM sync_conflicts c WHERE c.state = 'blocked' AND c.tx = l.tx AND c.row_id = l.id)`,
  )
  expect(hidden, `${name}: what is hidden is in sync_conflicts ${place}`).toEqual([])
  const statistics = connection.all(
    `SELECT c.id FROM conversations c WHERE NOT EXISTS (SELECT 1 FROM sync_stub s WHERE s.id = c.id)
      AND c.message_count IS NOT (SELECT count(*) FROM messages m WHERE m.conversation_id = c.id)`,
  )
  expect(statistics, `${name}: message_count is the number of messages ${place}`).toEqual([])
}

interface PendingRow {
  table: string
  id: string
  op: string
  patch: Record<string, Stored>
}

/** What the pending mutations of each row come to, taken together. */
function pendingRows({ connection }: TestAgent): Map<string, PendingRow> {
  const rows = new Map<string, PendingRow>()
  const log = connection.all<{ tbl: number; id: string; op: string; patch: string | null }>(
    `SELECT tbl, id, op, patch FROM ${loggedMutations} WHERE blocked = 0 ORDER BY n`,
  )
  for (const { tbl, id, op, patch } of log) {
    const table = tableOfNumber(tbl)
    if (table === undefined) throw new Error(`there is no table ${tbl}`)
    const before = op === 'insert' ? {} : (rows.get(`${tbl}:${id}`)?.patch ?? {})
    const more = patch === null ? {} : { ...decodeImage(table, patch) }
    // What is carried over to what arrives shows as that, not as it was written.
    if (op === 'update')
      for (const column of Object.keys(more))
        if (needsBefore(table, column)) {
          delete more[column]
          delete before[column]
        }
    rows.set(`${tbl}:${id}`, { table: table.name, id, op, patch: { ...before, ...more } })
  }
  return rows
}

/** I1: what came of the centre, whatever is pending on top. */
async function mustEqualCentre(agent: TestAgent, place: string): Promise<void> {
  const { local, central } = await agent.pull()
  expect(local.tables, `${agent.name}: equal to the centre (I1) ${place}`).toEqual(central.tables)
}

async function mustHaveConverged(fleet: Fleet, agent: TestAgent): Promise<void> {
  const { connection, name } = agent
  await mustEqualCentre(agent, 'at the end')
  for (const table of ['sync_log', 'sync_tx', 'sync_base'])
    expect(connection.all(`SELECT * FROM ${table}`), `${name}: ${table} is empty`).toEqual([])
  expect(agent.db.syncConflicts.list({ state: 'blocked' }), `${name}: nothing blocked`).toEqual([])
  mustNeedItsStubs(agent)
  mustHaveOneOutcomeEach(agent)
  await mustHaveTakenEffectOnce(fleet, agent)
}

/** A stub stands in for what a row refers to; one that nobody refers to is left over. */
function mustNeedItsStubs({ connection, name }: TestAgent): void {
  const needed = new Set(
    allTables.flatMap((table) =>
      references(table).flatMap(({ column, target }) =>
        connection
          .all<{ id: string }>(`SELECT DISTINCT ${column} AS id FROM ${table.name}`)
          .map(({ id }) => `${mustTable(target).number}:${id}`),
      ),
    ),
  )
  const stubs = connection.all<{ tbl: number; id: string }>('SELECT tbl, id FROM sync_stub')
  expect(
    stubs.filter(({ tbl, id }) => !needed.has(`${tbl}:${id}`)),
    `${name}: every stub is referred to`,
  ).toEqual([])
}

/** I9: each mutation of each local commit came to one outcome; all but `applied` are kept with their reason. */
function mustHaveOneOutcomeEach(agent: TestAgent): void {
  const { name, outcomes, commits } = agent
  const expected = [...commits.values()].flatMap(({ id, mutations }) =>
    Array.from({ length: mutations }, (_, n) => `${id}.${n}`),
  )
  const told = outcomes.map(({ transactionId, n }) => `${transactionId}.${n}`)
  expect(told.toSorted(), `${name}: one outcome for each mutation (I9)`).toEqual(
    expected.toSorted(),
  )
  const kept = new Set(
    agent.db.syncConflicts
      .list()
      .map(({ transactionId, rowId, state }) => `${transactionId} ${rowId} ${state}`),
  )
  const lost = outcomes.filter(
    ({ kind, reason, transactionId, id }) =>
      kind !== 'applied' && reason !== 'combined' && !kept.has(`${transactionId} ${id} ${kind}`),
  )
  expect(lost, `${name}: what did not simply apply stays readable`).toEqual([])
}

/** I7 and I5: the centre applied each transaction once, in the client's order; inserts are there, rejected ones not. */
async function mustHaveTakenEffectOnce(fleet: Fleet, agent: TestAgent): Promise<void> {
  const { name, outcomes, commits, clientId } = agent
  const applied = await fleet.sql(
    'SELECT tx_id, seq, xmin::text::bigint AS xid FROM sync.applied WHERE client_id = ? ORDER BY seq',
    clientId,
  )
  const inOrder = [...commits.values()].toSorted((a, b) => a.seq - b.seq)
  expect(
    applied.map(({ tx_id: id }) => id),
    `${name}: each transaction once, in order (I7)`,
  ).toEqual(inOrder.map(({ id }) => id))
  const xids = applied.map(({ xid }) => Number(xid))
  expect(xids, `${name}: commits in the client's order (I5)`).toEqual(
    xids.toSorted((a, b) => a - b),
  )
  const inserts = outcomes.filter(({ op, table }) => op === 'insert' && table !== 'audit_logs')
  const known = await fleet.sql(
    'SELECT id FROM sync.row_meta WHERE id = ANY(?::uuid[])',
    inserts.map(({ id }) => id),
  )
  const there = new Set(known.map(({ id }) => id))
  // Made and deleted in one server transaction never was, and leaves nothing.
  const deleted = new Set(outcomes.filter(({ op }) => op === 'delete').map(({ id }) => id))
  const wrong = inserts.filter(({ id, kind }) =>
    kind === 'applied' || kind === 'merged' ? !there.has(id) && !deleted.has(id) : there.has(id),
  )
  expect(wrong, `${name}: accepted inserts happened, rejected ones did not`).toEqual([])
  const audits = outcomes.filter(({ table, kind }) => table === 'audit_logs' && kind === 'applied')
  const recorded = await fleet.sql(
    'SELECT id FROM audit_logs WHERE id = ANY(?::uuid[])',
    audits.map(({ id }) => id),
  )
  expect(recorded.length, `${name}: each audit row once`).toBe(audits.length)
}

/** A counter that was counted twice, or not at all, shows here. */
async function mustCount(fleet: Fleet): Promise<void> {
  const wrong = await fleet.sql(
    `SELECT c.id, c.message_count, c.total_tokens, s.* FROM conversations c,
      LATERAL (SELECT count(*) AS messages, coalesce(sum(m.tokens_used), 0) AS tokens FROM messages m WHERE m.conversation_id = c.id) s
    WHERE (c.message_count, c.total_tokens) IS DISTINCT FROM (s.messages, s.tokens)`,
  )
  expect(wrong, 'statistics are those of the rows').toEqual([])
}

function converges(open: () => Promise<Fleet>, usual: number, length: number): void {
  let fleet: Fleet

  beforeAll(async () => {
    fleet = await open()
  })
  afterAll(() => fleet[Symbol.asyncDispose]())

  test('a conversation that is deleted here stays hidden when a message of the centre comes for it', async () => {
    const step = { agent: 1, a: 0, b: 0, plan: [] } as const
    const program = run(fleet, [
      { ...step, kind: 'centralConversation' },
      { ...step, kind: 'sync' },
      { ...step, kind: 'deleteConversation' },
      { ...step, kind: 'centralMessage' },
      { ...step, kind: 'pull' },
    ])
    await expect(program).resolves.toBeUndefined()
  })

  test('any program of writes, faults and crashes ends with all sides equal', async () => {
    let ran = 0
    await fc.assert(
      fc.asyncProperty(programs(length), async (steps) => {
        await run(fleet, steps)
        ran += 1
      }),
      { numRuns: runs(usual), seed, ...(path === undefined ? {} : { path }) },
    )
    expect(ran).toBeGreaterThan(0)
  }, 600_000)
}

describe('on PGlite', () => {
  converges(() => Fleet.start(), 50, 40)
})

describe('on PostgreSQL', () => {
  let database: TestDatabase
  afterAll(() => database.drop())
  converges(
    async () => {
      database = await createDatabase(inject('postgresUrl'), 'convergence')
      return Fleet.start({ databaseUrl: database.url })
    },
    30,
    40,
  )
})
