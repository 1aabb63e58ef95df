import { z } from 'zod'
import { TRANSACTION_MUTATIONS_MAX } from '../../schema/limits.ts'

/**
 * Every message of the wire, as a schema and the type that follows. Values of rows travel in their stored form
 * (`schema/codec.ts`). Columns are named once a message, in `shapes`; a row says which shape it has.
 */
const id = z.string().regex(/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
const whole = z.number().int().nonnegative().max(Number.MAX_SAFE_INTEGER)
const transactionId = z.string().regex(/^[0-9a-f]{32}$/)
const stored = z.union([
  z.string(),
  z.number(),
  z.null(),
  z.custom<Uint8Array>((value) => value instanceof Uint8Array),
])

/** Most transactions of one push. */
export const PUSH_TRANSACTIONS_MAX = 1000

export const shapeSchema = z.object({
  table: z.number().int(),
  columns: z.array(z.string().max(63)).max(200),
})

/** [shape, operation, id of the row, values in order of the shape's columns] */
export const mutationSchema = z.tuple([
  whole,
  z.enum(['insert', 'update', 'delete']),
  id,
  z.array(stored),
])

export const baseSchema = z.object({ nonce: z.string().max(64).nullable(), position: whole })

export const pushRequestSchema = z.object({
  clientId: id,
  schema: whole,
  /** The transaction before the first one here, or null where there is none. */
  previous: z.object({ seq: whole, id: transactionId }).nullable(),
  shapes: z.array(shapeSchema).max(500),
  transactions: z
    .array(
      z.object({
        seq: whole.min(1),
        id: transactionId,
        clock: whole,
        base: baseSchema,
        mutations: z.array(mutationSchema).max(TRANSACTION_MUTATIONS_MAX),
      }),
    )
    .min(1)
    .max(PUSH_TRANSACTIONS_MAX),
})

export const pushResponseSchema = z.object({
  /** Where to go on; says nothing about what became of the transactions: only a batch does. */
  nextSeq: whole,
})

export const outcomeKinds = [
  'applied',
  'merged',
  'superseded',
  'rejected',
  'dependency_failed',
] as const

const valuesSchema = z.record(z.string(), z.unknown())

export const outcomeSchema = z.object({
  seq: whole,
  /** Index of the mutation in its transaction. */
  n: whole,
  kind: z.enum(outcomeKinds),
  table: z.string().optional(),
  id: z.string().optional(),
  reason: z.string().optional(),
  message: z.string().optional(),
  sqlstate: z.string().optional(),
  constraint: z.string().optional(),
  /** What it needed: index of a sibling, or a row that was rejected. */
  on: z.string().optional(),
  /** Columns that came out other than they were sent, with what stands now. */
  changed: valuesSchema.optional(),
  /** The row as the writer may see it. */
  server_row: valuesSchema.nullable().optional(),
})

export const conflictSchema = z.object({
  id,
  at: z.string(),
  table: z.string(),
  rowId: id,
  loser: z.string().nullable(),
  winner: z.string().nullable(),
  lost: valuesSchema,
  kept: valuesSchema,
})

export const pullResponseSchema = z.object({
  nonce: z.string(),
  position: whole,
  cursor: z.string(),
  /** The centre's clock, microseconds since 1970. */
  clock: whole,
  /** The rows are the whole scope: what did not come is not there. */
  whole: z.boolean(),
  shapes: z.array(shapeSchema),
  /** [shape, values]; the first column is the id. */
  rows: z.array(z.tuple([whole, z.array(stored)])),
  /** [table, id] of rows that were deleted or left the scope. */
  gone: z.array(z.tuple([z.number().int(), id])),
  watermark: z.object({ seq: whole, id: transactionId }).nullable(),
  outcomes: z.array(outcomeSchema),
  conflicts: z.array(conflictSchema),
})

export const errorResponseSchema = z.object({
  code: z.string(),
  message: z.string(),
})

export const checksumResponseSchema = z.object({
  position: whole,
  tables: z.record(z.string(), z.object({ rows: whole, sha256: z.string() })),
})

export type Shape = z.infer<typeof shapeSchema>
export type Base = z.infer<typeof baseSchema>
export type PushRequest = z.infer<typeof pushRequestSchema>
export type PushTransaction = PushRequest['transactions'][number]
export type PushResponse = z.infer<typeof pushResponseSchema>
export type OutcomeKind = (typeof outcomeKinds)[number]
export type WireOutcome = z.infer<typeof outcomeSchema>
export type WireConflict = z.infer<typeof conflictSchema>
export type PullResponse = z.infer<typeof pullResponseSchema>
export type ChecksumResponse = z.infer<typeof checksumResponseSchema>

export const messageSchemas = {
  pushRequest: pushRequestSchema,
  pushResponse: pushResponseSchema,
  pullResponse: pullResponseSchema,
  checksumResponse: checksumResponseSchema,
  errorResponse: errorResponseSchema,
} as const
