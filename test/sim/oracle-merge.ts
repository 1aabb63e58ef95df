import type { Stored, StoredRow } from '../../schema/codec.ts'
import { type StateMachine, type TableDefinition, type ValuePolicy } from '../../schema/define.ts'
import { must } from './checks/violation.ts'
import type { PushNote } from './centre/push.ts'
import { carry } from './three-way.ts'

type Mutation = PushNote['transactions'][number]['mutations'][number]
export type KnownMutation = Extract<Mutation, { readonly table: TableDefinition }>

/** Who wrote something, by the number of the commit. */
export interface Change {
  readonly commit: number
  readonly clock: number
  readonly writer: string | null
}

/** A value that lost, as its conflict record tells. */
export interface Lost {
  readonly id: string
  readonly loser: string | null
  readonly winner: string | null
  readonly lost: Readonly<Record<string, unknown>>
  readonly kept: Readonly<Record<string, unknown>>
}

/** An update that is being merged. */
export interface Merging {
  readonly id: string
  readonly clientId: string
  readonly clock: number
  readonly mutation: KnownMutation
  readonly current: StoredRow
  readonly unseen: (column: string) => Change[]
  readonly written: Record<string, Stored>
  /** Where records of what lost go. */
  readonly losses: Lost[]
  hasLost: boolean
}

const mineOf = ({ clock, clientId }: Merging): Change => ({ commit: 0, clock, writer: clientId })

export const same = (a: Stored | undefined, b: Stored | undefined): boolean =>
  a instanceof Uint8Array && b instanceof Uint8Array
    ? Buffer.compare(a, b) === 0
    : (a ?? null) === (b ?? null)

export const told = (value: Stored | undefined): unknown =>
  value instanceof Uint8Array ? Buffer.from(value).toString('hex') : (value ?? null)

/** One group, or a column alone, as the schema says. */
export function mergeUnit(
  merging: Merging,
  columns: readonly string[],
  policy: ValuePolicy | StateMachine,
): void {
  const { current, mutation, unseen } = merging
  const { patch, before } = mutation
  const [column = ''] = columns
  const differing = columns.filter((each) => !same(current[each], patch[each]))
  const rival = columns.flatMap(unseen).toSorted(byAge).at(-1)
  if (typeof policy === 'object') return moveState(merging, columns, policy, rival)
  if (policy === 'reject') {
    must(
      differing.length === 0 || rival === undefined,
      'oracle',
      () => `${mutation.table.name} ${mutation.id}: two changes of ${columns.join()} were merged`,
    )
    return take(merging, rival, differing)
  }
  if (policy === 'lww' || !Object.hasOwn(before, column))
    return laterWins(merging, rival, differing)
  const mineWins = rival === undefined || byAge(mineOf(merging), rival) > 0
  const sides = [before[column] ?? null, patch[column] ?? null, current[column] ?? null] as const
  const { value, mine, theirs } = carry(policy, sides, mineWins)
  if (!same(value, current[column])) merging.written[column] = value
  if (rival === undefined || (mine === undefined && theirs === undefined)) return
  const [mineLost, theirsLost] = [{ [column]: mine ?? null }, { [column]: theirs ?? null }]
  if (mineWins) lose(merging, rival.writer, merging.clientId, [column], theirsLost, mineLost)
  else {
    merging.hasLost = true
    lose(merging, merging.clientId, rival.writer, [column], mineLost, theirsLost)
  }
}

/** The later clock, then the greater client. */
function laterWins(
  merging: Merging,
  rival: Change | undefined,
  differing: readonly string[],
): void {
  if (differing.length === 0) return
  if (rival === undefined || byAge(mineOf(merging), rival) > 0)
    return take(merging, rival, differing)
  const { clientId, mutation, current } = merging
  merging.hasLost = true
  lose(merging, clientId, rival.writer, differing, mutation.patch, current)
}

function take(merging: Merging, rival: Change | undefined, differing: readonly string[]): void {
  const { clientId, mutation, current, unseen, written } = merging
  for (const column of differing) written[column] = mutation.patch[column] ?? null
  const theirs = differing.filter((column) => unseen(column).length > 0)
  if (rival !== undefined && theirs.length > 0)
    lose(merging, rival.writer, clientId, theirs, current, mutation.patch)
}

/** A legal step is taken, whatever the clocks say; another one loses the group. */
function moveState(
  merging: Merging,
  columns: readonly string[],
  { column, transitions }: StateMachine,
  rival: Change | undefined,
): void {
  const { clientId, mutation, current } = merging
  const { patch, before } = mutation
  const differing = columns.filter((each) => !same(current[each], patch[each]))
  const changed = differing.filter(
    (each) => !Object.hasOwn(before, each) || !same(before[each], patch[each]),
  )
  if (!changed.includes(column)) return laterWins(merging, rival, changed)
  const next = transitions[String(current[column])] ?? []
  if (next.includes(String(patch[column]))) return take(merging, rival, changed)
  merging.hasLost = true
  lose(merging, clientId, rival?.writer ?? null, differing, patch, current)
}

function lose(
  { id, losses }: Merging,
  loser: string | null,
  winner: string | null,
  columns: readonly string[],
  lost: StoredRow,
  kept: StoredRow,
): void {
  const pick = (row: StoredRow): Record<string, unknown> =>
    Object.fromEntries(columns.map((column) => [column, told(row[column])]))
  losses.push({ id, loser, winner, lost: pick(lost), kept: pick(kept) })
}

/** Older first; SQL at the centre counts as the latest of equals. */
function byAge(a: Change, b: Change): number {
  if (a.clock !== b.clock) return a.clock - b.clock
  if (a.writer === b.writer) return 0
  if (a.writer === null) return 1
  if (b.writer === null) return -1
  return a.writer < b.writer ? -1 : 1
}

/** Columns that stand or fall together. */
export function groupsOf(table: TableDefinition, columns: readonly string[]): string[][] {
  const groups = new Map<string, string[]>()
  for (const column of columns) {
    const name = table.groups.find((group) => group.columns.includes(column))?.name
    const key = name === undefined ? `column ${column}` : `group ${name}`
    groups.set(key, [...(groups.get(key) ?? []), column])
  }
  return [...groups.values()]
}
