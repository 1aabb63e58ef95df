import { AgentDBError } from '../../schema/errors.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import { readIdentity } from '../../src/internal-for-sync.ts'
import type { HealResponse } from '../protocol/messages.ts'
import { forkStore, type Fork } from './fork-store.ts'
import { healStore, lostSince, type Healed } from './heal-store.ts'
import { keepsOfOtherHistories, seenHistories } from './kept.ts'
import { RetryLaterError, type Transport } from './transport.ts'

/** How long a store waits before it asks again whether someone has decided. */
const DECISION_RETRY_MS = 5000
/** Histories that are named when asking; older ones have nothing left that is kept. */
const HISTORIES_MAX = 1000

export interface HealerOptions {
  readonly connection: Connection
  readonly transport: Pick<Transport, 'heal'>
  readonly signal: AbortSignal
  /** Now, for people. */
  readonly at: string
}

export interface HealerResult {
  readonly healed: Healed | undefined
  readonly fork: Fork | undefined
}

/**
 * The centre has less than this store has seen: asks what was decided, and does it.
 *
 * @throws AgentDBError `HEALING_PENDING` as long as nobody has decided
 */
export async function heal({
  connection,
  transport,
  signal,
  at,
}: HealerOptions): Promise<HealerResult> {
  const { clientId } = readIdentity(connection)
  const plan = await askForPlan(connection, transport, signal)
  const { decision } = plan
  if (decision === 'waiting') {
    throw new RetryLaterError(
      'HEALING_PENDING',
      `the centre was restored to an earlier point (position ${plan.position}): its operator decides what agents bring back, with agentdb heal --all | --after TIME | --none; local work goes on`,
      DECISION_RETRY_MS,
    )
  }
  if (decision === 'not_needed') {
    const reason = 'the centre does not know all of this store’s numbers any more'
    const fork = forkStore(connection, clientId, { at, reason })
    // Pages may be of what was lost; what is whole is of a position that the centre still has.
    connection.applying(() =>
      connection.run(
        'UPDATE sync_state SET cursor = NULL, page_cursor = NULL WHERE page_cursor IS NOT NULL',
      ),
    )
    return { healed: undefined, fork }
  }
  return (
    healStore(connection, clientId, { ...plan, decision }, at) ?? {
      healed: undefined,
      fork: undefined,
    }
  )
}

/**
 * Before a store reads its scope from the beginning: whether the centre went back to before what it has kept. With no
 * cursor nobody else would notice.
 *
 * @throws AgentDBError `FORKED` if so
 */
export async function mustHaveAllThatIsKept(
  connection: Connection,
  transport: HealerOptions['transport'],
  nonce: string,
  signal: AbortSignal,
): Promise<void> {
  if (!keepsOfOtherHistories(connection, nonce)) return
  const plan = await askForPlan(connection, transport, signal)
  if (plan.decision !== 'not_needed')
    throw new AgentDBError('FORKED', 'the centre went back to before what this store has kept')
}

/** A batch that was under way may come while the centre is asked: then the answer is for a store that has seen less. */
async function askForPlan(
  connection: Connection,
  transport: HealerOptions['transport'],
  signal: AbortSignal,
): Promise<HealResponse> {
  const { clientId } = readIdentity(connection)
  for (;;) {
    const histories = seenHistories(connection).slice(-HISTORIES_MAX)
    let plan = await transport.heal({ clientId, histories }, signal)
    if (plan.decision === 'waiting') {
      const since = lostSince(connection, plan)
      plan = await transport.heal({ clientId, histories, lostSince: since }, signal)
    }
    const now = seenHistories(connection).slice(-HISTORIES_MAX)
    if (JSON.stringify(now) === JSON.stringify(histories)) return plan
  }
}
