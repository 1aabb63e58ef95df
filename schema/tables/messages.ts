import { defineTable, integer, json, text, timestamp, uuid, varchar } from '../define.ts'

export const messages = defineTable('messages', {
  number: 4,
  comment: 'Individual messages within conversations',
  writeClass: 'append',
  owner: { kind: 'parent', table: 'conversations', column: 'conversation_id' },
  columns: {
    id: uuid().notNull().defaultNewId(),
    conversation_id: uuid().notNull().references('conversations', 'cascade'),
    role: varchar(20).notNull(),
    content: text().notNull(),
    content_type: varchar(50).default('text'),
    model: varchar(100),
    tokens_used: integer().default(0),
    latency_ms: integer(),
    tool_calls: json().comment('Tool calls: [{name, arguments, id}]'),
    tool_results: json().comment('Tool results: [{tool_call_id, result, error}]'),
    parent_message_id: uuid().references('messages', 'set null'),
    sequence_number: integer().notNull().defaultNextIn('conversation_id'),
    feedback_rating: integer().writable(),
    feedback_comment: text().writable(),
    created_at: timestamp().notNull().defaultNow(),
  },
  checks: [
    {
      name: 'chk_role',
      postgres: `role IN ('user', 'assistant', 'system', 'tool')`,
      sqlite: `role IN ('user', 'assistant', 'system', 'tool')`,
    },
    {
      name: 'messages_feedback_rating_check',
      postgres: 'feedback_rating BETWEEN 1 AND 5',
      sqlite: 'feedback_rating BETWEEN 1 AND 5',
    },
  ],
  indexes: [
    { name: 'idx_messages_conversation_id', on: ['conversation_id'] },
    { name: 'idx_messages_created_at', on: ['created_at DESC'] },
    { name: 'idx_messages_sequence', on: ['conversation_id', 'sequence_number'] },
    { name: 'idx_messages_role', on: ['role'] },
    {
      name: 'idx_messages_parent',
      on: ['parent_message_id'],
      where: 'parent_message_id IS NOT NULL',
    },
  ],
  groups: [{ name: 'feedback', columns: ['feedback_rating', 'feedback_comment'] }],
})
