import { defineTable, integer, json, text, textArray, timestamp, uuid, varchar } from '../define.ts'

export const conversations = defineTable('conversations', {
  number: 3,
  comment: 'Conversation threads with context and metadata',
  writeClass: 'row',
  owner: { kind: 'column', column: 'user_id' },
  columns: {
    id: uuid().notNull().defaultNewId(),
    session_id: uuid().references('sessions', 'set null'),
    user_id: uuid().notNull().actingUser().references('users', 'cascade').fixed(),
    title: varchar(500),
    description: text(),
    tags: textArray().default('[]').merges('set'),
    context_snapshot: json()
      .default('{}')
      .merges('merge')
      .comment('Context at the start of the conversation'),
    system_prompt: text(),
    model_config: json()
      .default('{}')
      .merges('merge')
      .comment('LLM config: {model, temperature, max_tokens, top_p}'),
    message_count: integer().default(0).derived(),
    total_tokens: integer().default(0).derived(),
    total_cost_cents: integer().default(0).merges('counter'),
    started_at: timestamp().notNull().defaultNow(),
    last_message_at: timestamp().derived(),
    ended_at: timestamp(),
    created_at: timestamp().notNull().defaultNow().fixed(),
    updated_at: timestamp().notNull().defaultNow().derived(),
    archived_at: timestamp(),
  },
  indexes: [
    { name: 'idx_conversations_user_id', on: ['user_id'] },
    { name: 'idx_conversations_session_id', on: ['session_id'] },
    { name: 'idx_conversations_started_at', on: ['started_at DESC'] },
    { name: 'idx_conversations_tags', on: ['tags'], using: 'gin' },
    { name: 'idx_conversations_archived', on: ['archived_at'], where: 'archived_at IS NOT NULL' },
  ],
})
