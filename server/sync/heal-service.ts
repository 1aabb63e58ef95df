import type { HealRequest, HealResponse } from '../../sync/protocol/messages.ts'
import type { Claims } from '../auth/tokens.ts'
import type { Database } from '../postgres/database.ts'
import { askForDecision, findCommonPart } from './heal.ts'
import type { LogTail } from './log-tail.ts'
import { loadPrincipal, type ClientBindings } from './principal.ts'
import { readWatermark } from './push/watermark.ts'

/** Tells stores that have seen more than the centre has, after it went back, what to do. */
export class HealService {
  readonly #database: Database
  readonly #tail: LogTail
  readonly #bindings: ClientBindings
  readonly #healAutomatically: boolean

  constructor(
    database: Database,
    tail: LogTail,
    bindings: ClientBindings,
    healAutomatically: boolean,
  ) {
    this.#database = database
    this.#tail = tail
    this.#bindings = bindings
    this.#healAutomatically = healAutomatically
  }

  async heal(claims: Claims, request: HealRequest): Promise<HealResponse> {
    const principal = await loadPrincipal(this.#database, claims)
    await this.#bindings.bind(this.#database, request.clientId, principal)
    // After a restart the first batch begins the new history.
    await this.#tail.refresh()
    return this.#database.transaction(async (session) => {
      const { seq } = await readWatermark(session, request.clientId, '')
      const common = await findCommonPart(session, request.histories)
      if (common === undefined)
        return { decision: 'not_needed', fork: null, nonce: null, position: 0, after: null, seq }
      const { lostSince } = request
      return {
        ...(await askForDecision(session, common, lostSince, this.#healAutomatically)),
        seq,
      }
    })
  }
}
