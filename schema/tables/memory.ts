import {
  defineTable,
  integer,
  json,
  text,
  timestamp,
  uuid,
  uuidArray,
  varchar,
  vector,
} from '../define.ts'

/** What became of a task, as a judge says it. */
export const outcomes = ['success', 'failure', 'impossible', 'unknown'] as const
export type TrajectoryOutcome = (typeof outcomes)[number]

/** What an item was learned from: a success, a failure, or several attempts side by side. */
export const polarities = ['success', 'failure', 'contrast'] as const
export type Polarity = (typeof polarities)[number]

const oneOf = (column: string, values: readonly string[]): string =>
  `${column} IN (${values.map((value) => `'${value}'`).join(', ')})`

const vectorsFit = (length: string): string =>
  `dimension BETWEEN 1 AND 65535 AND ${length}(query_vector) = dimension * 4 AND (text_vector IS NULL OR ${length}(text_vector) = dimension * 4)`

const inOutcomes = oneOf('outcome', outcomes)
const inPolarities = oneOf('polarity', polarities)

/** What an agent did for a task, step by step: what memories are distilled from (`docs/decisions/0012`). */
export const memoryTrajectories = defineTable('memory_trajectories', {
  number: 13,
  comment: 'What agents did for their tasks, and how it was judged',
  writeClass: 'append',
  owner: { kind: 'column', column: 'user_id' },
  columns: {
    id: uuid().notNull().defaultNewId(),
    user_id: uuid().notNull().actingUser().references('users', 'cascade'),
    task_id: varchar(255).notNull(),
    template_id: varchar(255).comment('Kind of task: many tasks differ in details only'),
    query: text().notNull().comment('The task in words'),
    model: varchar(100).comment('Model of the agent that acted'),
    steps: json().notNull().default('[]').comment('[{think, action}], or as the agent has them'),
    attempt_group: uuid().comment('Several attempts of one task, to be compared'),
    outcome: varchar(20).notNull().default('unknown').writable(),
    judge: json().writable().comment('{label, thoughts, model, confidence}'),
    expires_at: timestamp().writable(),
    created_at: timestamp().notNull().defaultNow(),
    updated_at: timestamp().notNull().defaultNow().derived(),
  },
  checks: [{ name: 'chk_memory_outcome', postgres: inOutcomes, sqlite: inOutcomes }],
  indexes: [
    { name: 'idx_memory_trajectories_user_id', on: ['user_id'] },
    { name: 'idx_memory_trajectories_task', on: ['task_id'] },
    {
      name: 'idx_memory_trajectories_attempts',
      on: ['attempt_group'],
      where: 'attempt_group IS NOT NULL',
    },
    {
      name: 'idx_memory_trajectories_expires',
      on: ['expires_at'],
      where: 'expires_at IS NOT NULL',
    },
  ],
  // A verdict without its reasons, or with another judge's, would be worse than none.
  groups: [{ name: 'judgement', columns: ['outcome', 'judge'] }],
})

/** What was learned, keyed by the task that it was learned from (`docs/decisions/0012`). */
export const memoryItems = defineTable('memory_items', {
  number: 14,
  comment: 'Lessons distilled from trajectories, found by the embedding of their task',
  // Not append: healed, such a row comes with its counts of today, and the steps to them once more.
  writeClass: 'row',
  owner: { kind: 'column', column: 'user_id' },
  columns: {
    id: uuid().notNull().defaultNewId(),
    user_id: uuid().notNull().actingUser().references('users', 'cascade').fixed(),
    record_id: uuid()
      .notNull()
      .fixed()
      .comment('Items of one distillation: found and shown together'),
    polarity: varchar(20).notNull().fixed(),
    task_id: varchar(255).fixed(),
    template_id: varchar(255).fixed(),
    trajectory_ids: uuidArray()
      .notNull()
      .default('[]')
      .fixed()
      .comment('What it was distilled from'),
    provenance_hash: varchar(64)
      .fixed()
      .comment('SHA-256 of those trajectories and of the first wording'),
    title: varchar(500).notNull(),
    description: text().notNull().comment('One sentence: when to use it, or when not'),
    content: text().notNull(),
    source_query: text().notNull().comment('The task in words: what query_vector embeds'),
    model: varchar(100).notNull().comment('Model of both vectors'),
    dimension: integer().notNull(),
    query_vector: vector().notNull(),
    text_vector: vector().comment('Embeds title, description and content'),
    retrieved_count: integer().notNull().default(0).merges('counter'),
    used_count: integer().notNull().default(0).merges('counter'),
    helped_count: integer().notNull().default(0).merges('counter'),
    hurt_count: integer().notNull().default(0).merges('counter'),
    last_used_at: timestamp().merges('max'),
    superseded_by: uuid().references('memory_items', 'set null'),
    contradicts: uuidArray().notNull().default('[]').merges('set'),
    kept_apart: uuidArray()
      .notNull()
      .default('[]')
      .merges('set')
      .comment('Items that look alike and are not to be merged with it'),
    expires_at: timestamp(),
    created_at: timestamp().notNull().defaultNow().fixed(),
    updated_at: timestamp().notNull().defaultNow().derived(),
  },
  checks: [
    { name: 'chk_memory_polarity', postgres: inPolarities, sqlite: inPolarities },
    {
      name: 'chk_memory_vectors',
      postgres: vectorsFit('octet_length'),
      sqlite: vectorsFit('length'),
    },
  ],
  indexes: [
    { name: 'idx_memory_items_user_id', on: ['user_id'] },
    { name: 'idx_memory_items_record', on: ['record_id'] },
    {
      name: 'idx_memory_items_superseded',
      on: ['superseded_by'],
      where: 'superseded_by IS NOT NULL',
    },
    { name: 'idx_memory_items_expires', on: ['expires_at'], where: 'expires_at IS NOT NULL' },
  ],
  groups: [
    {
      // A vector belongs to the words that it embeds: of two edits one wins whole.
      name: 'content',
      columns: [
        'title',
        'description',
        'content',
        'source_query',
        'model',
        'dimension',
        'query_vector',
        'text_vector',
      ],
    },
  ],
})
