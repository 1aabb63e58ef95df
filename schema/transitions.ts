import type { StateMachine, Transitions } from './define.ts'
import type { ExecutionStatus, IncidentStatus, SessionStatus } from './enums.ts'

/**
 * Which state may follow which. An agent that was offline writes a state that it thought came next; where others have
 * gone on meanwhile, these tables say whether it still may.
 *
 * A state may be skipped: who was offline often reports only the end. None goes a step back: it would take back what
 * someone else has done since. What starts over goes through its first state, which nobody writes by accident.
 */

/**
 *   queued ⇄ running ─▶ success | cancelled            (final)
 *      ▲        └─────▶ failed | timeout ─┐
 *      └──────────── tried again ─────────┘
 *
 * A worker may give back what it runs. A retry starts as `queued`: a late `running` of the attempt that failed must not
 * bring it to life again.
 */
export const executionTransitions: Transitions<ExecutionStatus> = {
  queued: ['running', 'success', 'failed', 'timeout', 'cancelled'],
  running: ['queued', 'success', 'failed', 'timeout', 'cancelled'],
  failed: ['queued'],
  timeout: ['queued'],
  success: [],
  cancelled: [],
}

/**
 *   open ─▶ acknowledged ─▶ investigating ─▶ resolved ─▶ closed
 *     ▲                                          │          │
 *     └──────────────── reopened ────────────────┴──────────┘
 *
 * An incident is reopened as `open`: a late `acknowledged` of someone who was offline must not reopen it.
 */
export const incidentTransitions: Transitions<IncidentStatus> = {
  open: ['acknowledged', 'investigating', 'resolved', 'closed'],
  acknowledged: ['investigating', 'resolved', 'closed'],
  investigating: ['resolved', 'closed'],
  resolved: ['closed', 'open'],
  closed: ['open'],
}

/** A session that has ended stays so: its tokens are gone. */
export const sessionTransitions: Transitions<SessionStatus> = {
  active: ['idle', 'terminated', 'expired'],
  idle: ['active', 'terminated', 'expired'],
  terminated: [],
  expired: [],
}

export const stateMachine = (column: string, transitions: Transitions): StateMachine => ({
  kind: 'state_machine',
  column,
  transitions,
})

/** Whether a state may follow another, or is the same. A state that the table does not name goes nowhere. */
export const isLegal = ({ transitions }: StateMachine, from: string, to: string): boolean =>
  from === to || (Object.hasOwn(transitions, from) && transitions[from]?.includes(to) === true)
