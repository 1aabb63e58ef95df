import { defineTable, integer, json, text, timestamp, uuid, varchar, vector } from '../define.ts'

/** The four collections of the seeds (QD-002). */
export const collections = [
  'code_embeddings',
  'documentation_embeddings',
  'conversation_embeddings',
  'incident_knowledge',
] as const

export type Collection = (typeof collections)[number]

const inCollections = `collection IN (${collections.map((name) => `'${name}'`).join(', ')})`

/** The conversation that an embedding is of. Cut to the length of an id: what an agent writes there may not fit an index. */
export const embeddedConversation = (payload: string): string =>
  `substr((${payload} ->> 'conversation_id'), 1, 36)`

export const embeddings = defineTable('embeddings', {
  number: 12,
  comment: 'Vectors with their payload; the truth behind every vector index',
  writeClass: 'append',
  owner: { kind: 'column', column: 'user_id' },
  columns: {
    id: uuid().notNull().defaultNewId(),
    user_id: uuid().notNull().actingUser().references('users', 'cascade'),
    collection: varchar(64).notNull(),
    model: varchar(100).notNull().writable(),
    dimension: integer().notNull().writable(),
    content_preview: varchar(500).writable(),
    payload: json()
      .notNull()
      .default('{}')
      .writable()
      .comment(
        'Fields of the collection: path and language, title and section, conversation, incident',
      ),
    created_at: timestamp().notNull().defaultNow(),
    updated_at: timestamp().notNull().defaultNow().derived(),
    // Last, since SQLite walks over what is long to reach what comes after it.
    content: text().writable().comment('What was embedded, whole: text search reads it'),
    vector: vector().notNull().writable(),
  },
  checks: [
    { name: 'chk_embedding_collection', postgres: inCollections, sqlite: inCollections },
    {
      name: 'chk_embedding_dimension',
      postgres: 'dimension BETWEEN 1 AND 65535 AND octet_length(vector) = dimension * 4',
      sqlite: 'dimension BETWEEN 1 AND 65535 AND length(vector) = dimension * 4',
    },
  ],
  indexes: [
    { name: 'idx_embeddings_collection', on: ['collection', 'model'] },
    { name: 'idx_embeddings_user_id', on: ['user_id'] },
    {
      name: 'idx_embeddings_conversation',
      on: [embeddedConversation('payload')],
      where: `collection = 'conversation_embeddings'`,
      centreOnly: true,
    },
  ],
  groups: [
    {
      name: 'content',
      columns: ['model', 'dimension', 'vector', 'content_preview', 'content', 'payload'],
    },
  ],
})
