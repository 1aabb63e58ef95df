import { agentColumnsAt } from '../../../schema/columns-at.ts'
import { mustTable, tableOfNumber, type TableName } from '../../../schema/tables.ts'
import type { SimAgent } from '../agent.ts'
import type { ModelDatabase } from '../centre/model-database.ts'
import type { VirtualTime } from '../virtual-time.ts'
import { must, Violation } from './violation.ts'

/** Outcomes of which nothing takes effect. */
export const refusals: ReadonlySet<string> = new Set(['rejected', 'dependency_failed'])

/** What must hold once everything was healed and has come to rest (I13, I9, I7). */
export async function checkEnd(
  agents: readonly SimAgent[],
  model: ModelDatabase,
  time: VirtualTime,
  lost: LostPart,
): Promise<void> {
  for (const agent of agents) {
    if (agent.isForked) continue
    await checkChecksums(agent, time)
    checkQueues(agent)
    checkOutcomes(agent, model, lost)
    checkConflicts(agent, model)
    checkLostRows(agent)
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
function checkOutcomes(agent: SimAgent, model: ModelDatabase, lost: LostPart): void {
  const { name, commits, outcomes, connection, requeued } = agent
  const withheld = withheldBy(agent)
  const told = new Map<string, string[]>()
  for (const { transactionId, n, kind } of outcomes)
    told.set(`${transactionId}.${n}`, [...(told.get(`${transactionId}.${n}`) ?? []), kind])
  for (const { id, seq, mutations } of commits.values()) {
    const effect = model.applied.read(id)
    if (withheld.has(id)) continue
    const heardOf = mutations.flatMap((_, n) => told.get(`${id}.${n}`) ?? [])
    // The centre may have gone back twice, and have refused it in the line of which this store has heard only.
    const isHeldForTaken = heardOf.length > 0 && !heardOf.some((kind) => refusals.has(kind))
    if (effect === undefined && lost.refused(id) && !isHeldForTaken) continue
    // Nothing was left of it to be sent again; where a copy of the store had it still, it was decided there.
    const isSentAgain = effect !== undefined && requeued.has(id)
    if (lost.had(id) && !isSentAgain && isGone(agent, mutations)) continue
    must(
      effect !== undefined,
      lost.had(id) ? 'I16' : 'I7',
      () => `${name}: transaction ${seq} (${id}) never took effect at the centre`,
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
        heard.every((kind) => kind === central) || lost.refused(id),
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
        // What became of it in a history that was lost is kept, too. What was refused there a late message may have brought
        // once more.
        kept.length === (central === 'applied' ? 0 : 1) || requeued.has(id) || lost.refused(id),
        'I9',
        () => `${name}: mutation ${seq}.${n} was ${central}; kept are ${JSON.stringify(kept)}`,
      )
    }
  }
}

/**
 * Both sides of a value that lost have its record (I8): each agent of the users whose agents wrote it, unless it is only
 * about what the agent's version does not know.
 */
function checkConflicts({ name, userId, connection, build }: SimAgent, model: ModelDatabase): void {
  const kept = new Set(
    connection.all<{ id: string }>('SELECT id FROM sync_conflicts').map(({ id }) => id),
  )
  const isOwn = (client: string | null): boolean =>
    client !== null && model.clients.read(client)?.userId === userId
  for (const [
    ,
    { id, table, rowId, loser, winner, lost, kept: stays },
  ] of model.conflicts.entries()) {
    const known = agentColumnsAt(mustTable(table), build.version)
    const isKnown = Object.keys({ ...lost, ...stays }).some((column) => known.includes(column))
    must(
      kept.has(id) || !isKnown || !(isOwn(loser) || isOwn(winner)),
      'I8',
      () => `${name} was never told that a value of ${table} ${rowId} lost (${id})`,
    )
  }
}

/** What the centre had taken and lost when it went back. */
export interface LostPart {
  had(transactionId: string): boolean
  /** Refused in one of the lines that were lost: who heard that has nothing to send again. */
  refused(transactionId: string): boolean
}

/** Transactions that were not sent again, as the operator decided. */
const withheldBy = ({ connection }: SimAgent): ReadonlySet<string> =>
  new Set(
    connection
      .all<{ id: string }>(
        `SELECT tx_id AS id FROM sync_conflicts WHERE reason = 'centre_restored'`,
      )
      .map(({ id }) => id),
  )

/** A transaction has nothing to bring back that only made rows which its store does not have any more. */
const isGone = (
  { connection }: SimAgent,
  mutations: readonly { readonly tbl: number; readonly id: string; readonly op: string }[],
): boolean =>
  mutations.every(({ tbl, id, op }) => {
    const table = tableOfNumber(tbl)
    return (
      op === 'insert' &&
      table?.writeClass === 'append' &&
      connection.get(`SELECT 1 FROM ${table.name} WHERE id = ?`, id) === undefined
    )
  })

/** What is set aside, since the centre lost it, is not here as well. */
function checkLostRows({ name, connection }: SimAgent): void {
  for (const { tbl, id } of connection.all<{ tbl: number; id: string }>(
    'SELECT tbl, id FROM sync_lost',
  )) {
    const table = tableOfNumber(tbl)
    const isHere =
      connection.get(
        `SELECT 1 FROM ${table?.name} t WHERE id = ? AND NOT EXISTS (SELECT 1 FROM sync_stub s WHERE s.id = t.id AND s.tbl = ?)`,
        id,
        tbl,
      ) !== undefined
    must(!isHere, 'I16', () => `${name}: ${table?.name} ${id} is here, and set aside as lost`)
  }
}

/** Agents of one user show the same, as far as all of them know it. */
function checkTwins(agents: readonly SimAgent[]): void {
  const oldest = Math.min(...agents.map(({ build }) => build.version))
  const known = (name: TableName, rows: readonly object[]): object[] => {
    const { columns } = mustTable(name)
    return rows.map((row) =>
      Object.fromEntries(
        Object.entries(row).filter(([column]) => (columns[column]?.shape.since ?? 1) <= oldest),
      ),
    )
  }
  const shown = new Map<string, { name: string; rows: string }>()
  for (const agent of agents) {
    if (agent.isForked) continue
    const { db } = agent
    const rows = JSON.stringify([
      known('users', db.users.list({ includeDeleted: true })),
      known('sessions', db.sessions.list()),
      known('conversations', db.conversations.list()),
      known('messages', db.messages.list()),
      known('workflows', db.workflows.list({ includeDeleted: true })),
      known('workflow_executions', db.workflowExecutions.list()),
      known('step_executions', db.stepExecutions.list()),
      known('incidents', db.incidents.list()),
      known('runbooks', db.runbooks.list()),
      known('runbook_executions', db.runbookExecutions.list()),
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
