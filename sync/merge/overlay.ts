import type { Stored, StoredRow } from '../../schema/codec.ts'
import type { StateMachine, TableDefinition } from '../../schema/define.ts'
import { mergeUnit } from '../../schema/merge-policy.ts'
import { threeWayOf, type ThreeWay } from '../../schema/three-way/three-way.ts'
import { isLegal } from '../../schema/transitions.ts'
import { ValueProblem } from '../../schema/values/canonical-json.ts'
import { changedColumns } from './merge-update.ts'

/**
 * A row with a pending update on top of it, as the program sees it: by the rules of `merge-update.ts`, as if nothing in it
 * could lose. What is acknowledged then stands as it was shown, unless its outcome says otherwise.
 */
export function overlay(
  table: TableDefinition,
  row: StoredRow,
  patch: StoredRow,
  before: StoredRow,
): StoredRow {
  const over: Record<string, Stored> = {}
  for (const [column, mine] of Object.entries(patch)) {
    const { policy, columns } = mergeUnit(table, column)
    const threeWay = threeWayOf(policy)
    if (threeWay !== undefined && Object.hasOwn(before, column))
      over[column] = carryOver(threeWay, before[column] ?? null, mine, row[column] ?? null)
    else if (
      typeof policy === 'string' ||
      !movesOn(policy, row, patch) ||
      changedColumns(patch, before, columns).includes(column)
    )
      over[column] = mine
  }
  return { ...row, ...over }
}

/** What raw SQL wrote need not be a value of its column: it is shown as it is until the centre refuses it. */
function carryOver(threeWay: ThreeWay, before: Stored, mine: Stored, theirs: Stored): Stored {
  try {
    return threeWay(before, mine, theirs)
  } catch (error) {
    if (error instanceof ValueProblem) return mine
    throw error
  }
}

/** Whether a change of state is legal from what stands now; one that is not stays in sight whole, until it is refused. */
const movesOn = (machine: StateMachine, row: StoredRow, patch: StoredRow): boolean =>
  isLegal(machine, String(row[machine.column]), String(patch[machine.column]))
