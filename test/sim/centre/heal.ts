import { commonPart } from '../../../server/sync/common-part.ts'
import type { HealRequest, HealResponse } from '../../../sync/protocol/messages.ts'
import type { Claims, HealDecision } from './centre.ts'
import type { ForkRow, ModelDatabase } from './model-database.ts'
import type { Principals } from './principals.ts'

/** What the centre tells stores that have seen more than it has, and what its operator says to it. */
export class ModelHeal {
  readonly #database: ModelDatabase
  readonly #principals: Principals

  constructor(database: ModelDatabase, principals: Principals) {
    this.#database = database
    this.#principals = principals
  }

  /** `refresh`: after a restart the first batch begins the new history. */
  async heal(
    claims: Claims,
    { clientId, histories }: HealRequest,
    refresh: () => Promise<void>,
  ): Promise<HealResponse> {
    this.#principals.load(claims)
    await this.#principals.bind(clientId, claims)
    await refresh()
    return this.#database.transaction(async (transaction) => {
      const { clients, forks, histories: known } = this.#database
      const seq = clients.read(clientId)?.seq ?? 0
      const common = commonPart(
        known.map(({ nonce, firstPosition: first }, i) => {
          const next = known[i + 1]
          return { nonce, first, end: next === undefined ? null : next.firstPosition - 1 }
        }),
        histories,
      )
      if (common === undefined)
        return { decision: 'not_needed', fork: null, nonce: null, position: 0, after: null, seq }
      const { fork, nonce, position, end } = common
      const noticed = { commonNonce: nonce, commonPosition: end, ...undecided }
      const row = forks.read(fork) ?? noticed
      if (row === noticed) transaction.write(forks, fork, noticed)
      const { decision, afterClock: after } = row
      return { decision: decision ?? 'waiting', fork, nonce, position, after, seq }
    })
  }

  decide(decision: HealDecision, after: number | null, windowMs: number): Promise<number> {
    return this.#change(
      (fork) => fork.decision === null,
      (now) => ({ decision, afterClock: after, openUntil: now + windowMs * 1000 }),
    )
  }

  async endWindow(): Promise<void> {
    await this.#change(
      (fork) => fork.decision !== null,
      (now) => ({ openUntil: now }),
    )
  }

  #change(
    isMeant: (fork: ForkRow) => boolean,
    changes: (now: number) => Partial<ForkRow>,
  ): Promise<number> {
    return this.#database.transaction(async (transaction) => {
      const { forks } = this.#database
      const meant = [...forks.entries()].filter(([, fork]) => isMeant(fork))
      for (const [nonce, fork] of meant)
        transaction.write(forks, nonce, { ...fork, ...changes(this.#database.clock()) })
      return meant.length
    })
  }
}

const undecided = { decision: null, afterClock: null, openUntil: null } as const
