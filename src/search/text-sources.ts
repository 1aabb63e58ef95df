import { collections, type Collection } from '../../schema/tables/embeddings.ts'

/** What can be searched: the collections of embeddings, and rows that have words but no vector. */
export type SearchSource = Collection | 'messages' | 'conversations' | 'incidents' | 'runbooks'

/** A full-text index over one table, as data: the tables of SQLite's FTS5 and the triggers come from it. */
export interface TextIndexDefinition {
  /** Stable number and name of the index in the store's file. */
  readonly number: number
  readonly name: string
  readonly table: 'messages' | 'conversations' | 'incidents' | 'runbooks' | 'embeddings'
  /** Parts of the text with their weight in the score; SQL over a row `r`. */
  readonly fields: readonly {
    readonly name: string
    readonly sql: string
    readonly weight: number
  }[]
  /** Columns that those read: a change of one of them makes the row new. */
  readonly watched: readonly string[]
  /** Which rows have text at all; SQL over a row `r`. */
  readonly where: string
  readonly tokenize: string
}

/** Where results of a source come from; SQL over a row `e` of its table. */
export interface SourceDefinition {
  readonly name: SearchSource
  readonly tableNumber: number
  readonly index: TextIndexDefinition
  /** The same, its words as they are written. */
  readonly unstemmed: TextIndexDefinition
  readonly hasVectors: boolean
  /** Which rows of the table are of this source. */
  readonly where: string
  readonly payload: string
  readonly preview: string
  readonly model: string
  readonly time: string
  readonly owner: string
}

const UNSTEMMED = 'unicode61 remove_diacritics 2'
const WORDS = `porter ${UNSTEMMED}`

/** Strings of a list or of any JSON, without its keys. */
const stringsOf = (json: string): string =>
  `(SELECT group_concat(j.atom, ' ') FROM json_tree(${json}) j WHERE j.type = 'text')`

const messagesIndex: TextIndexDefinition = {
  number: 1,
  name: 'search_messages',
  table: 'messages',
  fields: [{ name: 'content', sql: 'r.content', weight: 1 }],
  watched: ['content'],
  where: '1',
  tokenize: WORDS,
}

const conversationsIndex: TextIndexDefinition = {
  number: 2,
  name: 'search_conversations',
  table: 'conversations',
  fields: [
    { name: 'title', sql: 'r.title', weight: 2 },
    { name: 'description', sql: 'r.description', weight: 1 },
    { name: 'tags', sql: stringsOf('r.tags'), weight: 1 },
  ],
  watched: ['title', 'description', 'tags'],
  where: '1',
  tokenize: WORDS,
}

const incidentsIndex: TextIndexDefinition = {
  number: 3,
  name: 'search_incidents',
  table: 'incidents',
  fields: [
    { name: 'title', sql: 'r.title', weight: 2 },
    { name: 'description', sql: 'r.description', weight: 1 },
    { name: 'services', sql: stringsOf('r.affected_services'), weight: 2 },
    {
      name: 'resolution',
      sql: `concat_ws(' ', r.root_cause, r.resolution_notes, ${stringsOf('r.remediation_steps')})`,
      weight: 1,
    },
  ],
  watched: [
    'title',
    'description',
    'affected_services',
    'root_cause',
    'resolution_notes',
    'remediation_steps',
  ],
  where: '1',
  tokenize: WORDS,
}

const runbooksIndex: TextIndexDefinition = {
  number: 4,
  name: 'search_runbooks',
  table: 'runbooks',
  fields: [
    { name: 'name', sql: 'r.name', weight: 2 },
    { name: 'description', sql: 'r.description', weight: 1 },
    { name: 'steps', sql: stringsOf('r.steps'), weight: 1 },
    { name: 'tags', sql: stringsOf('r.tags'), weight: 1 },
  ],
  watched: ['name', 'description', 'steps', 'tags'],
  where: '1',
  tokenize: WORDS,
}

const embeddedText = 'coalesce(r.content, r.content_preview)'
const field = (name: string): string => `r.payload ->> '${name}'`

const embeddingsIndex: TextIndexDefinition = {
  number: 5,
  name: 'search_embeddings',
  table: 'embeddings',
  fields: [
    {
      name: 'title',
      sql: `concat_ws(' ', ${['title', 'section', 'file_path', 'function_name'].map(field).join(', ')})`,
      weight: 2,
    },
    { name: 'content', sql: embeddedText, weight: 1 },
  ],
  watched: ['content', 'content_preview', 'payload'],
  where: '1',
  tokenize: WORDS,
}

/** Finds parts of identifiers. Dear to build, so of code alone. */
export const identifiersIndex: TextIndexDefinition = {
  number: 6,
  name: 'search_identifiers',
  table: 'embeddings',
  fields: [
    {
      name: 'title',
      sql: `concat_ws(' ', ${['file_path', 'function_name'].map(field).join(', ')})`,
      weight: 2,
    },
    { name: 'content', sql: embeddedText, weight: 1 },
  ],
  watched: ['content', 'content_preview', 'payload'],
  where: `r.collection = 'code_embeddings'`,
  tokenize: 'trigram',
}

/** Finds beginnings of words: of `deployment` the stemmed index has `deploy`, which does not begin like `deploym`. */
const unstemmed = (stemmed: TextIndexDefinition, number: number): TextIndexDefinition => ({
  ...stemmed,
  number,
  name: `${stemmed.name}_unstemmed`,
  tokenize: UNSTEMMED,
})

const embeddingsUnstemmed = unstemmed(embeddingsIndex, 11)

const embeddingSource = (name: Collection): SourceDefinition => ({
  name,
  tableNumber: 12,
  index: embeddingsIndex,
  unstemmed: embeddingsUnstemmed,
  hasVectors: true,
  where: `e.collection = '${name}'`,
  payload: 'e.payload',
  preview: 'e.content_preview',
  model: 'e.model',
  // What a program wrote there may be any time that SQLite reads, or none at all.
  time: `CASE WHEN e.payload ->> 'timestamp' LIKE '____-__-__T__:__:__.______Z'
      AND julianday(e.payload ->> 'timestamp') IS NOT NULL THEN e.payload ->> 'timestamp'
    ELSE coalesce(strftime('%Y-%m-%dT%H:%M:%f000Z', e.payload ->> 'timestamp'), e.created_at) END`,
  owner: 'e.user_id',
})

const sources: readonly SourceDefinition[] = [
  ...collections.map(embeddingSource),
  {
    name: 'messages',
    tableNumber: 4,
    index: messagesIndex,
    unstemmed: unstemmed(messagesIndex, 7),
    hasVectors: false,
    where: '1',
    payload: `json_object('conversation_id', e.conversation_id, 'role', e.role, 'sequence_number', e.sequence_number)`,
    preview: 'substr(e.content, 1, 200)',
    model: 'NULL',
    time: 'e.created_at',
    owner: '(SELECT c.user_id FROM conversations c WHERE c.id = e.conversation_id)',
  },
  {
    name: 'conversations',
    tableNumber: 3,
    index: conversationsIndex,
    unstemmed: unstemmed(conversationsIndex, 8),
    hasVectors: false,
    where: '1',
    payload: `json_object('conversation_id', e.id, 'title', e.title, 'tags', json(e.tags), 'message_count', e.message_count)`,
    preview: 'substr(coalesce(e.description, e.title), 1, 200)',
    model: 'NULL',
    time: 'e.created_at',
    owner: 'e.user_id',
  },
  {
    name: 'incidents',
    tableNumber: 8,
    index: incidentsIndex,
    unstemmed: unstemmed(incidentsIndex, 9),
    hasVectors: false,
    where: '1',
    payload: `json_object('incident_id', e.id, 'title', e.title, 'severity', e.severity, 'status', e.status, 'services', json(e.affected_services))`,
    preview: 'substr(coalesce(e.resolution_notes, e.description, e.title), 1, 500)',
    model: 'NULL',
    time: 'e.detected_at',
    owner: 'e.assigned_to',
  },
  {
    name: 'runbooks',
    tableNumber: 9,
    index: runbooksIndex,
    unstemmed: unstemmed(runbooksIndex, 10),
    hasVectors: false,
    where: '1',
    payload: `json_object('runbook_id', e.id, 'name', e.name, 'version', e.version, 'tags', json(e.tags))`,
    preview: 'substr(coalesce(e.description, e.name), 1, 200)',
    model: 'NULL',
    time: 'e.created_at',
    owner: 'e.owner_id',
  },
]

const byName: ReadonlyMap<string, SourceDefinition> = new Map(
  sources.map((source) => [source.name, source]),
)

export const searchSources: readonly SearchSource[] = sources.map(({ name }) => name)

export function mustSource(name: SearchSource): SourceDefinition {
  const source = byName.get(name)
  if (source === undefined) throw new Error(`there is no source ${name}`)
  return source
}
