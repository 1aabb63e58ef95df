import { describe, expect, test } from 'vitest'
import { executionStatus, incidentStatus, sessionStatus } from '../../schema/enums.ts'
import {
  executionTransitions,
  incidentTransitions,
  isLegal,
  sessionTransitions,
  stateMachine,
} from '../../schema/transitions.ts'
import { allTables } from '../../schema/tables.ts'
import { mustColumn } from '../../schema/define.ts'

/** Every pair that is legal, apart from staying; all others are not. */
const legal = {
  execution: [
    'queued running, queued success, queued failed, queued timeout, queued cancelled',
    'running queued, running success, running failed, running timeout, running cancelled',
    'failed queued, timeout queued',
  ],
  incident: [
    'open acknowledged, open investigating, open resolved, open closed',
    'acknowledged investigating, acknowledged resolved, acknowledged closed',
    'investigating resolved, investigating closed',
    'resolved closed, resolved open, closed open',
  ],
  session: [
    'active idle, active terminated, active expired, idle active, idle terminated, idle expired',
  ],
}

describe.each([
  ['execution', executionTransitions, executionStatus.values],
  ['incident', incidentTransitions, incidentStatus.values],
  ['session', sessionTransitions, sessionStatus.values],
] as const)('of all pairs of an %s', (name, transitions, states) => {
  test('exactly the named ones are legal, and staying is', () => {
    const machine = stateMachine('status', transitions)
    const found = states.flatMap((from) =>
      states.filter((to) => from !== to && isLegal(machine, from, to)).map((to) => `${from} ${to}`),
    )
    expect(found.toSorted()).toEqual(legal[name].flatMap((line) => line.split(', ')).toSorted())
    for (const state of states) expect(isLegal(machine, state, state)).toBe(true)
  })
})

test('a state that nobody knows goes nowhere, not even by the name of an inherited member', () => {
  const machine = stateMachine('status', incidentTransitions)
  for (const from of ['gone', 'constructor', '__proto__'])
    expect(isLegal(machine, from, 'open')).toBe(false)
})

test('every state machine of the schema names all states of its column, and only those', () => {
  let machines = 0
  for (const table of allTables) {
    for (const { policy, columns } of table.groups) {
      if (typeof policy !== 'object') continue
      machines += 1
      expect(columns).toContain(policy.column)
      expect(Object.keys(policy.transitions).toSorted()).toEqual(
        mustColumn(table, policy.column).values?.toSorted(),
      )
    }
  }
  expect(machines).toBe(5)
})
