import { z } from 'zod'
import { AgentDBError, preview } from '../../schema/errors.ts'
import { collections, type Collection } from '../../schema/tables/embeddings.ts'
import { textProblem } from '../../schema/values/canonical-json.ts'
import { canonicalTimestamp } from '../../schema/values/timestamp.ts'
import { DIMENSION_MAX } from '../../schema/values/vector.ts'
import { payloadFields } from '../qdrant/layout.ts'
import { KEYWORD_LENGTH_MAX, type RowFilter } from './rows.ts'

/** Most results of a search. */
export const RESULTS_MAX = 1000
const VALUES_MAX = 100
const TEXT_LENGTH_MAX = 4000
/** QD-014. */
const INCIDENT_SCORE_MIN = 0.7

/** A search, checked and in one form. */
export interface Search {
  readonly collection: Collection
  /** Undefined: the collection's default, or the only one that the caller has vectors of. */
  readonly model?: string | undefined
  readonly vector?: readonly number[] | undefined
  /** Words for the lexical half; with a vector the two are fused. */
  readonly text?: string | undefined
  readonly k: number
  /** Least cosine of what the vector finds. */
  readonly minScore?: number | undefined
  readonly filter: RowFilter
  /** Read every row instead of the graph. */
  readonly isExact: boolean
}

/** Larger ones are infinite as a 32-bit float. */
const FLOAT_MAX = 3.4e38
const vector = z.array(z.number().min(-FLOAT_MAX).max(FLOAT_MAX)).min(1).max(DIMENSION_MAX)
const k = z.int().min(1).max(RESULTS_MAX).default(10)
const minScore = z.number().min(-1).max(1).optional()
const exact = z.boolean().default(false)
/** Texts that PostgreSQL or Qdrant would refuse are the caller's mistake, and no failure of theirs. */
const written = z.string().refine((one) => textProblem(one) === undefined, {
  error: ({ input }) => textProblem(String(input)),
})
const model = written.min(1).max(100).optional()
const word = written.min(1).max(KEYWORD_LENGTH_MAX)
const words = z.array(word).min(1).max(VALUES_MAX)
const moment = z.string().transform((text, context) => {
  try {
    return canonicalTimestamp(text)
  } catch {
    context.addIssue({ code: 'custom', message: 'is no time such as 2026-11-20T09:30:00Z' })
    return z.NEVER
  }
})
const text = written.max(TEXT_LENGTH_MAX)
const span = { since: moment.optional(), until: moment.optional() }
const common = { model, k, minScore, exact }

const general = z.strictObject({
  collection: z.enum(collections),
  vector: vector.optional(),
  text: text.optional(),
  filter: z
    .strictObject({ ...span })
    .catchall(z.union([word.transform((one) => [one]), words]))
    .default({}),
  ...common,
})

const code = z.strictObject({ project: word, language: word.optional(), vector, ...common })

const incidents = z.strictObject({
  severities: words.optional(),
  service: word.optional(),
  vector,
  ...common,
  minScore: z.number().min(-1).max(1).default(INCIDENT_SCORE_MIN),
})

const documentation = z.strictObject({
  vector,
  keywords: z.array(written.max(KEYWORD_LENGTH_MAX)).max(VALUES_MAX).default([]),
  ...common,
})

const conversations = z.strictObject({ vector, conversation: word.optional(), ...span, ...common })

/** The searches of the seeds (QD-013 to QD-016), and the general one; each in terms of the last. */
export const searchForms = {
  '': (body: unknown): Search => {
    const { collection, filter, exact: isExact, ...rest } = parsed(general, body)
    const { since, until, ...fields } = filter
    if (rest.vector === undefined && rest.text === undefined)
      refuse('give vector or text, or both to have them fused')
    return {
      ...rest,
      collection,
      isExact,
      filter: filterOf(collection, fields, since, until),
    }
  },
  '/code': (body: unknown): Search => {
    const { project, language, exact: isExact, ...rest } = parsed(code, body)
    const fields = {
      project_id: [project],
      ...(language === undefined ? {} : { language: [language] }),
    }
    return { ...rest, ...of('code_embeddings', fields), isExact }
  },
  '/incidents': (body: unknown): Search => {
    const { severities, service, exact: isExact, ...rest } = parsed(incidents, body)
    const fields = {
      ...(severities === undefined ? {} : { severity: severities }),
      ...(service === undefined ? {} : { services: [service] }),
    }
    return { ...rest, ...of('incident_knowledge', fields), isExact }
  },
  '/documentation': (body: unknown): Search => {
    const { keywords, exact: isExact, ...rest } = parsed(documentation, body)
    const joined = keywords.join(' ')
    return {
      ...rest,
      ...of('documentation_embeddings', {}),
      text: joined === '' ? undefined : joined,
      isExact,
    }
  },
  '/conversations': (body: unknown): Search => {
    const { conversation, since, until, exact: isExact, ...rest } = parsed(conversations, body)
    const fields = conversation === undefined ? {} : { conversation_id: [conversation] }
    return { ...rest, ...of('conversation_embeddings', fields, since, until), isExact }
  },
} as const satisfies Readonly<Record<string, (body: unknown) => Search>>

type Fields = Readonly<Record<string, readonly string[]>>

const of = (
  collection: Collection,
  fields: Fields,
  since?: string,
  until?: string,
): Pick<Search, 'collection' | 'filter' | 'text'> => ({
  collection,
  text: undefined,
  filter: filterOf(collection, fields, since, until),
})

function filterOf(
  collection: Collection,
  fields: Fields,
  since: string | undefined,
  until: string | undefined,
): RowFilter {
  const known = Object.entries(payloadFields[collection])
  const named = (type: string): string[] =>
    known.flatMap(([name, field]) => (field.isIndexed && field.type === type ? [name] : []))
  const filterable = named('keyword')
  for (const name of Object.keys(fields)) {
    if (!filterable.includes(name))
      refuse(
        `filter.${name}: ${collection} is not filtered by it; there are ${[...filterable, 'since', 'until'].join(', ')}`,
      )
  }
  return {
    keywords: new Map(Object.entries(fields)),
    timeField: named('time')[0] ?? '',
    since,
    until,
  }
}

function parsed<S extends z.ZodType>(schema: S, body: unknown): z.infer<S> {
  const result = schema.safeParse(body)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const path = issue?.path ?? []
  const value = path.reduce<unknown>(
    (holder, key) => (holder as Record<PropertyKey, unknown> | undefined)?.[key],
    body,
  )
  const field = path.length === 0 ? 'body' : path.join('.')
  return refuse(`${field}: ${issue?.message ?? 'is wrong'} (got ${preview(value)})`)
}

function refuse(message: string): never {
  throw new AgentDBError('INVALID_OPTION', `search: ${message}`)
}
