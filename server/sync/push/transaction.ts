import { checkStored, type Stored, type StoredRow } from '../../../schema/codec.ts'
import { columnWrite, mustColumn, type TableDefinition } from '../../../schema/define.ts'
import { AgentDBError } from '../../../schema/errors.ts'
import { tableOfNumber } from '../../../schema/tables.ts'
import { needsUpcast, upcast } from '../../../schema/upcasts.ts'
import { ValueProblem } from '../../../schema/values/canonical-json.ts'
import { timestampOfMicros } from '../../../schema/values/timestamp.ts'
import { SCHEMA_VERSION } from '../../../schema/version.ts'
import { columnBefore } from '../../../sync/protocol/before-columns.ts'
import type { Base, PushRequest, PushTransaction, Shape } from '../../../sync/protocol/messages.ts'

/** Why a mutation is refused; becomes its outcome. */
export interface Refusal {
  readonly reason: string
  readonly message: string
  readonly sqlstate?: string | undefined
  readonly constraint?: string | undefined
}

export interface Mutation {
  readonly table: TableDefinition
  readonly op: 'insert' | 'update' | 'delete'
  readonly id: string
  /** Checked, canonical stored forms. Empty for a delete. */
  readonly patch: StoredRow
  /** What columns of an update were before it, as its writer saw them; checked likewise. */
  readonly before: StoredRow
  /** What is wrong with it whatever the state of the centre, if anything. */
  readonly refusal: Refusal | undefined
}

/** A local transaction of a client, as it is applied: whole or not at all. */
export interface ClientTransaction {
  readonly seq: number
  readonly id: string
  readonly clock: number
  /** The clock as its writer had it, which may be ahead of ours. */
  readonly claimedClock: number
  readonly base: Base
  readonly mutations: readonly (Mutation | UnknownMutation)[]
  /** What in it came with a later schema version than ours, in words; undefined where nothing did. */
  readonly later?: string | undefined
}

/** A mutation of a table that this server does not know. */
export interface UnknownMutation {
  readonly table: undefined
  readonly op: Mutation['op']
  readonly id: string
  readonly refusal: Refusal
}

/** Reads the transactions of a push. Clocks ahead of ours are held down to now, so that a wrong one cannot win for ever. */
export function readTransactions(request: PushRequest, nowMicros: number): ClientTransaction[] {
  return request.transactions.map((transaction) => {
    const { schema, shapes } = request
    const reading: Reading = { nowMicros, schema, shapes, later: undefined }
    return {
      seq: transaction.seq,
      id: transaction.id,
      clock: Math.min(transaction.clock, nowMicros),
      claimedClock: transaction.clock,
      base: transaction.base,
      mutations: transaction.mutations.map((mutation) => readMutation(mutation, reading)),
      later: schema > SCHEMA_VERSION ? reading.later : undefined,
    }
  })
}

/**
 * Refuses a push, as a whole and for now, where it holds what came with a later version than ours: rejected, it would be
 * lost. An agent that knows our version does not send it; one that has just met a newer server of the centre may.
 */
export function mustBeKnown(transactions: readonly ClientTransaction[]): void {
  const unknown = transactions.find(({ later }) => later !== undefined)
  if (unknown === undefined) return
  throw new AgentDBError(
    'SCHEMA_BEHIND',
    `this server has schema version ${SCHEMA_VERSION}, and the agent sends what came later (${unknown.later}): upgrade this server`,
  )
}

/** What is read with what. */
interface Reading {
  readonly nowMicros: number
  /** The agent's version of the schema. */
  readonly schema: number
  readonly shapes: readonly Shape[]
  /** The first thing that we do not know, and a newer version may. */
  later: string | undefined
}

function readMutation(
  [shapeIndex, op, id, values]: PushTransaction['mutations'][number],
  reading: Reading,
): Mutation | UnknownMutation {
  const { shapes, schema, nowMicros } = reading
  const shape = shapes[shapeIndex]
  const table = shape === undefined ? undefined : tableOfNumber(shape.table)
  if (shape === undefined || table === undefined) {
    const message = `there is no table ${shape?.table ?? '?'} here`
    reading.later ??= message
    return { table: undefined, op, id, refusal: { reason: 'unknown_table', message } }
  }
  if (op === 'delete') return { table, op, id, patch: {}, before: {}, refusal: undefined }
  const patch: Record<string, Stored> = {}
  const before: Record<string, Stored> = {}
  const read: Omit<Mutation, 'refusal'> = { table, op, id, patch, before }
  const sent = shape.columns.map((name, i): [string, Stored] => [name, values[i] ?? null])
  for (const [name, value] of needsUpcast(schema) ? upcasted(schema, read, sent) : sent) {
    const column = columnBefore(name)
    if (column !== undefined) {
      // What no column can hold was refused, or will be; the value that takes its place then merges without it.
      readValue(table, op, column, value, before)
      continue
    }
    const refusal = readValue(table, op, name, value, patch)
    if (refusal === undefined) continue
    const isEnum = refusal.reason === 'invalid_value' && mustColumn(table, name).kind === 'enum'
    if (isEnum || refusal.reason === 'unknown_column') reading.later ??= refusal.message
    return { ...read, refusal }
  }
  if (op === 'insert' && patch['id'] !== id) {
    const message = `${table.name}.id differs from the row's id`
    return { ...read, refusal: { reason: 'invalid_value', message } }
  }
  if (table.writeClass === 'push-only') clampCreatedAt(patch, nowMicros)
  return { ...read, refusal: undefined }
}

const upcasted = (
  schema: number,
  { table, op, id }: { table: TableDefinition; op: Mutation['op']; id: string },
  sent: readonly [string, Stored][],
): [string, Stored][] =>
  Object.entries(upcast(schema, { table: table.name, op, id, values: Object.fromEntries(sent) }))

function readValue(
  table: TableDefinition,
  op: 'insert' | 'update',
  column: string,
  value: Stored | undefined,
  patch: Record<string, Stored>,
): Refusal | undefined {
  if (!Object.hasOwn(table.columns, column)) {
    return { reason: 'unknown_column', message: `${table.name} has no column ${column} here` }
  }
  const write = columnWrite(table, column)
  if (write === 'never' || (op === 'update' && write !== 'always')) {
    return { reason: 'forbidden', message: `agents do not write ${table.name}.${column}` }
  }
  try {
    patch[column] = checkStored(mustColumn(table, column), value ?? null)
    return undefined
  } catch (error) {
    if (!(error instanceof ValueProblem)) throw error
    return { reason: 'invalid_value', message: `${table.name}.${column} ${error.message}` }
  }
}

/** One row dated next year would break the making of partitions; the claim is kept beside it. */
function clampCreatedAt(patch: Record<string, Stored>, nowMicros: number): void {
  const now = timestampOfMicros(nowMicros)
  const claimed = patch['created_at']
  if (typeof claimed !== 'string' || claimed <= now) return
  const metadata =
    typeof patch['metadata'] === 'string' ? (JSON.parse(patch['metadata']) as unknown) : {}
  if (typeof metadata === 'object' && metadata !== null && !Array.isArray(metadata)) {
    patch['metadata'] = JSON.stringify({ ...metadata, claimed_created_at: claimed })
  }
  patch['created_at'] = now
}
