import { embeddings, type Collection } from '../../schema/tables/embeddings.ts'
import { canonicalTimestamp } from '../../schema/values/timestamp.ts'
import type { Session } from '../postgres/database.ts'
import type { Point } from '../qdrant/engine.ts'
import { field, payloadFields, POINT_LAYOUT, type VectorSpace } from '../qdrant/layout.ts'
import { sparseOfRow } from './sparse.ts'

/** Number of `embeddings` in the log. */
export const EMBEDDINGS = embeddings.number

/** A row of `embeddings`, with the digest that its point carries. */
export interface EmbeddingRow extends VectorSpace {
  readonly id: string
  readonly owner: string
  readonly vector: Float32Array
  readonly text: string | null
  readonly payload: unknown
  readonly digest: string
}

/** Characters of a row's content that words are looked for in: more than what one embedding is made of, as a rule. */
export const CONTENT_LENGTH_MAX = 8192

/** SQL for a row's own text: its content as far as it is searched, or what there is of it. */
export const textOf = (row: string): string =>
  `coalesce(left(${row}.content, ${CONTENT_LENGTH_MAX}), ${row}.content_preview)`

/**
 * Digest of all that a point is made of. In SQL, so that comparing a collection with its rows moves no vector out of
 * the database.
 */
export const digestOf = (row: string): string =>
  `md5(concat_ws(chr(10), '${POINT_LAYOUT}', ${row}.user_id, ${row}.collection, ${row}.model, ${row}.dimension,
    md5(${row}.vector), md5(coalesce(${textOf(row)}, '')), md5(${row}.payload::text)))`

/** Rows by id, as they are now. */
export async function readRows(session: Session, ids: readonly string[]): Promise<EmbeddingRow[]> {
  const { rows } = await session.query<EmbeddingRow>(
    `SELECT e.id, e.user_id AS owner, e.collection, e.model, e.dimension, e.vector,
      ${textOf('e')} AS text, e.payload, ${digestOf('e')} AS digest
    FROM embeddings e WHERE e.id = ANY ($1::uuid[])`,
    [ids],
  )
  return rows
}

/** The point of a row, at a version. */
export function pointOf(row: EmbeddingRow, version: number): Point {
  const text = sparseOfRow(lexicalText(row.text, row.payload))
  return {
    id: row.id,
    vector: { '': Array.from(row.vector), ...(text === undefined ? {} : { text }) },
    payload: {
      ...filterable(row.collection, row.payload),
      [field.owner]: row.owner,
      [field.model]: row.model,
      [field.kind]: 'row',
      [field.version]: version,
      [field.digest]: row.digest,
    },
  }
}

/** What stands for a row that is gone: it has no vectors, so no search finds it, and refuses older versions. */
export const tombstoneOf = (id: string, version: number, now: number): Point => ({
  id,
  vector: {},
  payload: { [field.kind]: 'tombstone', [field.version]: version, [field.at]: now },
})

type Payload = Readonly<Record<string, unknown>>

const membersOf = (payload: unknown): Payload =>
  typeof payload === 'object' && payload !== null && !Array.isArray(payload)
    ? (payload as Payload)
    : {}

/** Characters that a point keeps of a value that nobody filters by. */
const TEXT_LENGTH_MAX = 500

/** The first characters of a text, each of them whole: JSON with half of one Qdrant refuses. */
function beginningOf(text: string, length: number): string {
  if (text.length <= length) return text
  // A character has at most two units; the half one that may end these is never among the first.
  return Array.from(text.slice(0, 2 * length))
    .slice(0, length)
    .join('')
}

/** The fields of its collection, of the type that they should have; an agent may have written anything. */
function filterable(collection: Collection, payload: unknown): Record<string, unknown> {
  const members = membersOf(payload)
  const kept: Record<string, unknown> = {}
  for (const [name, { type }] of Object.entries(payloadFields[collection])) {
    const value = Object.hasOwn(members, name) ? members[name] : undefined
    if (type === 'keyword') {
      const words = keywordsOf(value)
      if (words.length > 0) kept[name] = Array.isArray(value) ? words : words[0]
    } else if (type === 'time') {
      const moment = momentOf(value)
      if (moment !== undefined) kept[name] = moment
    } else if (type === 'text' && typeof value === 'string')
      kept[name] = beginningOf(value, TEXT_LENGTH_MAX)
    else if (type === 'number' && Number.isFinite(value)) kept[name] = value
  }
  return kept
}

/** Longest value that can be filtered by. */
export const KEYWORD_LENGTH_MAX = 1024

/** Values of a field that a filter compares with: a text, or the texts of a list. */
function keywordsOf(value: unknown): string[] {
  const values: readonly unknown[] = Array.isArray(value) ? value : [value]
  return values.filter(
    (word): word is string => typeof word === 'string' && word.length <= KEYWORD_LENGTH_MAX,
  )
}

/** In canonical form; undefined for what is no time. */
function momentOf(value: unknown): string | undefined {
  if (typeof value !== 'string') return undefined
  try {
    return canonicalTimestamp(value)
  } catch {
    return undefined
  }
}

/** Conditions on the fields of a row: any of the values of each field, and a span of time. */
export interface RowFilter {
  readonly keywords: ReadonlyMap<string, readonly string[]>
  /** Field that holds the row's time. */
  readonly timeField: string
  /** Inclusive, canonical. */
  readonly since: string | undefined
  /** Exclusive, canonical. */
  readonly until: string | undefined
}

/** Whether a row's payload meets a filter: the same answer that Qdrant gives of its point. */
export function meets(payload: unknown, filter: RowFilter): boolean {
  const members = membersOf(payload)
  for (const [name, wanted] of filter.keywords) {
    if (!keywordsOf(members[name]).some((word) => wanted.includes(word))) return false
  }
  if (filter.since === undefined && filter.until === undefined) return true
  const moment = momentOf(members[filter.timeField])
  if (moment === undefined) return false
  return (
    (filter.since === undefined || moment >= filter.since) &&
    (filter.until === undefined || moment < filter.until)
  )
}

/** Texts of a row that hybrid search looks for words in: {@link textOf} it, and its names. */
export function lexicalText(ownText: string | null, payload: unknown): string {
  const members = membersOf(payload)
  const text = (name: string): string => {
    const value = members[name]
    return typeof value === 'string' ? beginningOf(value, TEXT_LENGTH_MAX) : ''
  }
  const content = ownText ?? (text('content_preview') || text('resolution_preview'))
  const names = ['title', 'section', 'file_path', 'function_name'].map(text)
  return [...names, content].filter((piece) => piece !== '').join('\n')
}
