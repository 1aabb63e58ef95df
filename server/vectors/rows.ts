import { embeddings, type Collection } from '../../schema/tables/embeddings.ts'
import { canonicalTimestamp } from '../../schema/values/timestamp.ts'
import type { Session } from '../postgres/database.ts'
import type { Point } from '../qdrant/engine.ts'
import { field, payloadFields, POINT_LAYOUT, type VectorSpace } from '../qdrant/layout.ts'
import { sparseOfRow } from './sparse.ts'

/** Number of `embeddings` in the log. */
export const EMBEDDINGS = embeddings.number

/** What a point is made of, and the digest that it carries of the whole row. */
export interface EmbeddingRow extends VectorSpace {
  readonly id: string
  readonly owner: string
  readonly vector: Float32Array
  readonly text: string | null
  /** The members that a point may have. */
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

/** Longest value that can be filtered by. */
export const KEYWORD_LENGTH_MAX = 1024

/**
 * SQL for some members of a row's payload that are of some JSON types, texts no longer than any use of them: beside them
 * an agent may have written megabytes.
 */
const membersIn = (row: string, names: readonly string[], types: readonly string[]): string =>
  `(SELECT coalesce(jsonb_object_agg(m.key, CASE jsonb_typeof(m.value)
      WHEN 'string' THEN to_jsonb(left(m.value #>> '{}', ${KEYWORD_LENGTH_MAX + 1})) ELSE m.value END), '{}')
    FROM jsonb_each(CASE jsonb_typeof(${row}.payload) WHEN 'object' THEN ${row}.payload END) m
    WHERE m.key = ANY ('{${names.join(',')}}') AND jsonb_typeof(m.value) = ANY ('{${types.join(',')}}'))`

const pointNames = Object.values(payloadFields).flatMap((fields) => Object.keys(fields))
const pointMembers = membersIn('e', pointNames, ['string', 'number', 'array'])

/** Rows by id, as they are now. */
export async function readRows(session: Session, ids: readonly string[]): Promise<EmbeddingRow[]> {
  const { rows } = await session.query<EmbeddingRow>(
    `SELECT e.id, e.user_id AS owner, e.collection, e.model, e.dimension, e.vector,
      ${textOf('e')} AS text, ${pointMembers} AS payload, ${digestOf('e')} AS digest
    FROM embeddings e WHERE e.id = ANY ($1::uuid[])`,
    [ids],
  )
  return rows
}

/** Rows, and their bytes, that are read and written together; one that is larger alone comes alone. */
const PART_ROWS_MAX = 500
const PART_BYTES_MAX = 8 * 1024 * 1024

/** {@link readRows} in parts that fit in memory, whatever rows hold; each with the ids, in order, that it answers for. */
export async function* readInParts(
  session: Session,
  ids: readonly string[],
): AsyncGenerator<{ ids: readonly string[]; rows: EmbeddingRow[] }> {
  for (let at = 0; at < ids.length; at += PART_ROWS_MAX)
    for (const part of await fitting(session, ids.slice(at, at + PART_ROWS_MAX)))
      yield { ids: part, rows: await readRows(session, part) }
}

async function fitting(session: Session, ids: readonly string[]): Promise<string[][]> {
  const { rows } = await session.query<{ id: string; bytes: number }>(
    `SELECT e.id, octet_length(e.vector) + octet_length(${pointMembers}::text)
      + coalesce(octet_length(${textOf('e')}), 0) AS bytes
    FROM embeddings e WHERE e.id = ANY ($1::uuid[])`,
    [ids],
  )
  const bytesOf = new Map(rows.map(({ id, bytes }) => [id, bytes]))
  const parts: string[][] = []
  let part: string[] = []
  let room = 0
  for (const id of ids) {
    room -= bytesOf.get(id) ?? 0
    if (part.length === 0 || room < 0) {
      parts.push((part = []))
      room = PART_BYTES_MAX - (bytesOf.get(id) ?? 0)
    }
    part.push(id)
  }
  return parts
}

/** Of some ids those that rows of a space have now. */
export async function idsIn(
  session: Session,
  { collection, model, dimension }: VectorSpace,
  ids: readonly string[],
): Promise<Set<string>> {
  const { rows } = await session.query<{ id: string }>(
    `SELECT e.id FROM embeddings e
    WHERE e.id = ANY ($1::uuid[]) AND e.collection = $2 AND e.model = $3 AND e.dimension = $4`,
    [ids, collection, model, dimension],
  )
  return new Set(rows.map(({ id }) => id))
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
  return isInSpan(members[filter.timeField], filter)
}

/** Whether the field that holds a row's time meets the filter's span. */
export function isInSpan(value: unknown, { since, until }: RowFilter): boolean {
  if (since === undefined && until === undefined) return true
  const moment = momentOf(value)
  if (moment === undefined) return false
  return (since === undefined || moment >= since) && (until === undefined || moment < until)
}

const previewNames = ['content_preview', 'resolution_preview']
const titleNames = ['title', 'section', 'file_path', 'function_name']

/** SQL for what {@link lexicalText} reads of a row's payload. */
export const lexicalMembersOf = (row: string): string =>
  membersIn(row, [...previewNames, ...titleNames], ['string'])

/** Texts of a row that hybrid search looks for words in: {@link textOf} it, and its names. */
export function lexicalText(ownText: string | null, payload: unknown): string {
  const members = membersOf(payload)
  const text = (name: string): string => {
    const value = members[name]
    return typeof value === 'string' ? beginningOf(value, TEXT_LENGTH_MAX) : ''
  }
  const content = ownText ?? previewNames.map(text).find((preview) => preview !== '')
  return [...titleNames.map(text), content ?? ''].filter((piece) => piece !== '').join('\n')
}
