import { z } from 'zod'
import { TRANSACTION_MUTATIONS_MAX } from '../../schema/limits.ts'
import { whole } from './scalars.ts'

/**
 * Every message as both sides work with it, as a schema and the type that follows: this is also its form in JSON. In
 * msgpack, pushes and pulls travel by column (`packed-push.ts`, `packed-pull.ts`). Values of rows have their stored form
 * (`schema/codec.ts`). Columns are named once a message, in `shapes`; a row says which shape it has.
 */
const id = z.string().regex(/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
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

/** A push without what holds between its fields. */
export const pushFieldsSchema = z.object({
  clientId: id,
  schema: whole,
  /** The transaction before the first one here, or null where there is none. */
  previous: z.object({ seq: whole, id: transactionId }).nullable(),
  /** The store was another client before, and has told so; a centre that does not know of that asks to be told again. */
  introduced: z.boolean().optional(),
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

export const pushRequestSchema = pushFieldsSchema.superRefine(
  ({ shapes, transactions }, context) => {
    for (const [i, { mutations }] of transactions.entries())
      for (const [n, [shape, , , values]] of mutations.entries()) {
        const columns = shapes[shape]?.columns.length
        if (columns === values.length) continue
        context.addIssue({
          code: 'custom',
          path: ['transactions', i, 'mutations', n, columns === undefined ? 0 : 3],
          message:
            columns === undefined
              ? `there is no shape ${shape}`
              : `has ${values.length} values for ${columns} columns`,
        })
        return
      }
  },
)

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
  /** `parked` is none yet: it needs a row that the centre has lost and that may come back, and is sent again. */
  kind: z.enum([...outcomeKinds, 'parked']),
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
  /** The centre's schema version, where it is not the one that the client named. */
  schema: whole.optional(),
  /**
   * A page of the whole scope, which is read page by page. With the first, the client notes which rows it has; those that
   * no page brought leave with the last, which also brings it to `position`. Until then `cursor` is where to go on.
   */
  page: z
    .object({
      first: z.boolean(),
      last: z.boolean(),
      /** Why it is read, where the client did not ask for it. */
      reason: z.enum(['history_pruned', 'schema_changed', 'role_changed']).optional(),
      /** Rows of all pages so far, and how many there were to read at the beginning. */
      rows: whole,
      total: whole,
      /** Numbers of the tables that are read, where it is not all: those that gained columns since the client read them. */
      tables: z.array(z.number().int()).max(1000).optional(),
    })
    .nullable(),
  shapes: z.array(shapeSchema),
  /**
   * [shape, values], the first column being the id, or [shape, values, placeholders]: the indexes of the values that
   * only stand for one that no agent can hold.
   */
  rows: z.array(z.tuple([whole, z.array(stored), z.array(whole).optional()])),
  /** [table, id] of rows that were deleted or left the scope. */
  gone: z.array(z.tuple([z.number().int(), id])),
  watermark: z.object({ seq: whole, id: transactionId }).nullable(),
  outcomes: z.array(outcomeSchema),
  conflicts: z.array(conflictSchema),
})

/** A store that forked tells what it was; before its first push and pull under the new client. */
export const introduceRequestSchema = z.object({
  clientId: id,
  ancestor: z.object({
    clientId: id,
    /** The last of its transactions that a batch acknowledged to this store; 0 and null where there is none. */
    seq: whole,
    id: transactionId.nullable(),
  }),
  /** Where it forked because the centre went back: which fork of the history, and what it brings back of it. */
  heal: z.object({ fork: id, offered: whole, withheld: whole }).nullable().default(null),
})

export const introduceResponseSchema = z.object({
  /** Up to which of its transactions the centre has the new client: 0, unless it met it before. */
  seq: whole,
})

/** A store that stands where the centre's history does not lead asks what to do. */
export const healRequestSchema = z.object({
  clientId: id,
  /** Histories that it has seen, in order, each with the last position. */
  histories: z.array(z.object({ nonce: z.string().max(64), position: whole })).max(1000),
  /**
   * When the centre, by its own clock, acknowledged the first of what it lost; null where nothing of this store is lost.
   * Left out as long as the store does not know the common position, from which it follows.
   */
  lostSince: whole.nullable().optional(),
})

export const healResponseSchema = z.object({
  decision: z.enum(['not_needed', 'waiting', 'all', 'after', 'none']),
  /** Name of the fork: the history that begins after the last common position. */
  fork: id.nullable(),
  /** The last position that both have, and its history; what was acknowledged beyond may be lost. */
  nonce: z.string().nullable(),
  position: whole,
  /** Clock from which on transactions are sent again, of the decision `after`. */
  after: whole.nullable(),
  /** Up to which of the client's transactions the centre has them. */
  seq: whole,
})

export const errorResponseSchema = z.object({
  code: z.string(),
  message: z.string(),
})

export const checksumResponseSchema = z.object({
  position: whole,
  /** The centre's schema version, where it is not the one that the client named; only what both know is covered. */
  schema: whole.optional(),
  tables: z.record(z.string(), z.object({ rows: whole, sha256: z.string() })),
})

export type Shape = z.infer<typeof shapeSchema>
export type Base = z.infer<typeof baseSchema>
export type PushRequest = z.infer<typeof pushRequestSchema>
export type PushTransaction = PushRequest['transactions'][number]
export type PushResponse = z.infer<typeof pushResponseSchema>
export type IntroduceRequest = z.infer<typeof introduceRequestSchema>
export type HealRequest = z.infer<typeof healRequestSchema>
export type HealResponse = z.infer<typeof healResponseSchema>
export type IntroduceResponse = z.infer<typeof introduceResponseSchema>
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
  introduceRequest: introduceRequestSchema,
  introduceResponse: introduceResponseSchema,
  healRequest: healRequestSchema,
  healResponse: healResponseSchema,
  errorResponse: errorResponseSchema,
} as const
