import type { SimAgent } from '../agent.ts'
import type { ModelDatabase } from '../centre/model-database.ts'
import type { VirtualTime } from '../virtual-time.ts'
import { must, Violation } from './violation.ts'

/** What must hold once everything was healed and has come to rest (I13, I9, I7). */
export async function checkEnd(
  agents: readonly SimAgent[],
  model: ModelDatabase,
  time: VirtualTime,
): Promise<void> {
  for (const agent of agents) {
    if (agent.isForked) continue
    await checkChecksums(agent, time)
    checkQueues(agent)
    checkOutcomes(agent, model)
    checkConflicts(agent, model)
  }
  checkTwins(agents)
}

/** What the product itself compares: its checksums agree with those of the centre (I1). */
async function checkChecksums(agent: SimAgent, time: VirtualTime): Promise<void> {
  let done = false
  let failed = 'no answer'
  let sums: Awaited<ReturnType<typeof agent.engine.checksums>> | undefined
  const ask = async (): Promise<void> => {
    try {
      sums = await agent.engine.checksums()
    } catch (error) {
      failed = String(error)
    }
    done = true
  }
  void ask()
  await time.advanceUntil(() => done, 120_000)
  if (sums === undefined) throw new Violation('I13', `${agent.name} gets no checksums: ${failed}`)
  const { local, central } = sums
  must(
    JSON.stringify(local.tables) === JSON.stringify(central.tables),
    'I1',
    () => `${agent.name}: checksums differ: ${JSON.stringify({ local, central })}`,
  )
}

function checkQueues({ name, connection }: SimAgent): void {
  for (const table of ['sync_log', 'sync_tx', 'sync_base']) {
    const rows = connection.all(`SELECT * FROM ${table}`)
    must(rows.length === 0, 'I13', () => `${name}: ${table} still has ${JSON.stringify(rows)}`)
  }
  const blocked = connection.all(`SELECT * FROM sync_conflicts WHERE state = 'blocked'`)
  must(blocked.length === 0, 'I13', () => `${name}: blocked: ${JSON.stringify(blocked)}`)
}

/** Every mutation of every local commit came to one outcome; all but `applied` are kept with their reason (I9). */
function checkOutcomes(agent: SimAgent, model: ModelDatabase): void {
  const { name, commits, outcomes, connection } = agent
  const told = new Map<string, string[]>()
  for (const { transactionId, n, kind } of outcomes)
    told.set(`${transactionId}.${n}`, [...(told.get(`${transactionId}.${n}`) ?? []), kind])
  for (const { id, seq, mutations } of commits.values()) {
    const effect = model.applied.read(id)
    must(
      effect !== undefined,
      'I7',
      () => `${name}: transaction ${seq} never took effect at the centre`,
    )
    const pushed = mutations.filter((mutation) => mutation.pushed === 1)
    for (const n of pushed.keys()) {
      const central =
        model.outcomes.read(`${effect?.clientId}:${effect?.seq}.${n}`)?.outcome.kind ?? 'applied'
      const heard = told.get(`${id}.${n}`) ?? []
      must(
        heard.length === 1 || (heard.length === 0 && agent.hasMissedOutcomes),
        'I9',
        () => `${name}: mutation ${seq}.${n} has the outcomes [${heard.join(', ')}]`,
      )
      must(
        heard.every((kind) => kind === central),
        'I9',
        () =>
          `${name}: mutation ${seq}.${n} is told ${heard.join(', ')}; the centre said ${central}`,
      )
      const kept = connection.all<{ state: string }>(
        'SELECT state FROM sync_conflicts WHERE tx_id = ? AND n = ?',
        id,
        n,
      )
      must(
        kept.length === (central === 'applied' ? 0 : 1),
        'I9',
        () => `${name}: mutation ${seq}.${n} was ${central}; kept are ${JSON.stringify(kept)}`,
      )
    }
  }
}

/** Both sides of a value that lost have its record (I8): each agent of the users whose agents wrote it. */
function checkConflicts({ name, userId, connection }: SimAgent, model: ModelDatabase): void {
  const kept = new Set(
    connection.all<{ id: string }>('SELECT id FROM sync_conflicts').map(({ id }) => id),
  )
  const isOwn = (client: string | null): boolean =>
    client !== null && model.clients.read(client)?.userId === userId
  for (const [, { id, table, rowId, loser, winner }] of model.conflicts.entries())
    must(
      kept.has(id) || !(isOwn(loser) || isOwn(winner)),
      'I8',
      () => `${name} was never told that a value of ${table} ${rowId} lost (${id})`,
    )
}

/** Agents of one user show the same. */
function checkTwins(agents: readonly SimAgent[]): void {
  const shown = new Map<string, { name: string; rows: string }>()
  for (const agent of agents) {
    if (agent.isForked) continue
    const { db } = agent
    const rows = JSON.stringify([
      db.users.list({ includeDeleted: true }),
      db.sessions.list(),
      db.conversations.list(),
      db.messages.list(),
      db.workflows.list({ includeDeleted: true }),
      db.workflowExecutions.list(),
      db.stepExecutions.list(),
      db.incidents.list(),
      db.runbooks.list(),
      db.runbookExecutions.list(),
    ])
    const other = shown.get(agent.userId)
    must(
      other === undefined || other.rows === rows,
      'I13',
      () => `${agent.name} and ${other?.name} show different rows:\n${rows}\n${other?.rows}`,
    )
    shown.set(agent.userId, { name: agent.name, rows })
  }
}
