import type { Json } from '../../schema/define.ts'
import { AgentDBError, preview } from '../../schema/errors.ts'
import { isId } from '../../schema/values/id.ts'
import { canonicalTimestamp } from '../../schema/values/timestamp.ts'
import { validateFilter, type PayloadFilter } from './payload-filter.ts'
import { matches, parts, SUBSTRING_MIN, type Match } from './text-query.ts'
import { mustSource, searchSources, type SearchSource } from './text-sources.ts'
import type { VectorPlan } from './vector-plan.ts'

/**
 * - `vector`: nearest vectors by cosine
 * - `text`: rows with the words of `text`, by BM25
 * - `hybrid`: both, fused
 */
export type SearchMode = 'hybrid' | 'text' | 'vector'

export interface SearchOptions {
  /** What to search: a collection of embeddings, or `messages`, `conversations`, `incidents`, `runbooks`. Or give `in`. */
  readonly collection?: SearchSource | undefined
  /** Several of them at once. Scores are relative to each: the best of each come first. */
  readonly in?: readonly SearchSource[] | undefined
  /** Any text: nothing in it is an operator. Embedded by the store's embedder where vectors are searched. */
  readonly text?: string | undefined
  /** In place of the embedded text; beside a text with `mode: 'hybrid'` only. */
  readonly vector?: Float32Array | undefined
  /** Default: `hybrid` with a text, `vector` without. */
  readonly mode?: SearchMode | undefined
  /** How words are looked for; in `hybrid` mode vectors find rows without them as well. Default: `any`. */
  readonly match?: Match | undefined
  /** Results wanted, 1 to 1000. Default: 10. */
  readonly k?: number | undefined
  /** Results left out at the beginning. With `k` at most 1000. Default: 0. */
  readonly offset?: number | undefined
  /** Fields of the results' `payload`. */
  readonly filter?: PayloadFilter | undefined
  /** Not before, and not at or after, this time: `Date` or ISO-8601. Of an incident the time of detection. */
  readonly from?: Date | string | undefined
  readonly to?: Date | string | undefined
  /** Rows of this user only; of an incident the one it is assigned to. Default: whatever the store holds. */
  readonly userId?: string | undefined
  /** Least cosine, -1 to 1, where vectors are searched. Default: none. */
  readonly minScore?: number | undefined
  /** Share of the vectors in the fused score, 0 to 1. Default: that of the store's embedder. */
  readonly vectorWeight?: number | undefined
  /** One result for each value of this payload field; rows without it are left out. */
  readonly groupBy?: string | GroupOptions | undefined
  /** The words around what matched, marked. Default: not asked for. */
  readonly highlight?: boolean | HighlightOptions | undefined
  /**
   * Share of the true `k` nearest that must be found on average, 0 to 1, where vectors are searched. At 1 every vector is
   * compared. Counts only where there is a graph: without one all searches are exact. Default: 0.99.
   */
  readonly recall?: number | undefined
  /** `true` tells with the results how vectors were searched: see {@link ExplainOptions}. Default: false. */
  readonly explain?: false | undefined
}

/** As {@link SearchOptions}, telling also how the answer was found. */
export interface ExplainOptions extends Omit<SearchOptions, 'explain'> {
  readonly explain: true
}

export interface ExplainedSearch {
  readonly results: SearchResult[]
  /** How the vectors of each collection were searched, in their order; none where only words were. */
  readonly plans: readonly VectorPlan[]
}

export interface GroupOptions {
  /** Payload field, such as `conversation_id`. */
  readonly field: string
  /** Best results of each group. Default: 1. */
  readonly size?: number | undefined
  /**
   * What a group is ranked by. `best` (default): its best result. `sources`: the mean of its best result in each source,
   * so that a conversation counts that is found as a whole and by one of its messages.
   */
  readonly rank?: 'best' | 'sources' | undefined
}

export interface HighlightOptions {
  /** Put before and after each word that matched; nothing is escaped. Default: `**`. */
  readonly before?: string | undefined
  readonly after?: string | undefined
  /** Words shown, 1 to 64. Default: 24. */
  readonly words?: number | undefined
}

export interface SearchResult {
  readonly id: string
  /** `vector`: the cosine, -1 to 1. Otherwise 0 to 1, relative to the best; higher is better. */
  readonly score: number
  /** Cosine with the query; null where the row has no vector of that model, or none was asked for. */
  readonly vectorScore: number | null
  /** BM25, above 0; null where no word matched, or none was asked for. */
  readonly textScore: number | null
  readonly collection: SearchSource
  /** Model of the vector; null for rows without. */
  readonly model: string | null
  readonly contentPreview: string | null
  readonly payload: Json
  /** The words around what matched, if asked for; null where no word did. */
  readonly highlight?: string | null
  /** What it is grouped by, if asked for. */
  readonly group?: { readonly value: string; readonly score: number }
}

export const RECALL_DEFAULT = 0.99
export const SEARCH_K_MAX = 1000

/** {@link GroupOptions} with all that follows from them. */
export interface Grouping {
  readonly field: string
  readonly size: number
  readonly rank: 'best' | 'sources'
}

/** {@link HighlightOptions} with all that follows from them. */
export interface Highlight {
  readonly before: string
  readonly after: string
  readonly words: number
}

/** Options with all that follows from them. */
export interface SearchPlan {
  readonly sources: readonly SearchSource[]
  readonly mode: SearchMode
  readonly text: string | undefined
  readonly vector: Float32Array | undefined
  readonly match: Match
  readonly k: number
  readonly offset: number
  readonly filter: PayloadFilter | undefined
  readonly from: string | undefined
  readonly to: string | undefined
  readonly userId: string | undefined
  readonly minScore: number | undefined
  readonly vectorWeight: number | undefined
  readonly group: Grouping | undefined
  readonly highlight: Highlight | undefined
  readonly recall: number
}

const optionNames: ReadonlySet<string> = new Set([
  'collection',
  'in',
  'text',
  'vector',
  'mode',
  'match',
  'k',
  'offset',
  'filter',
  'from',
  'to',
  'userId',
  'minScore',
  'vectorWeight',
  'groupBy',
  'highlight',
  'recall',
  'explain',
])

/** @throws AgentDBError `INVALID_OPTION` */
export function planned(options: SearchOptions | ExplainOptions): SearchPlan {
  if (typeof options !== 'object' || options === null) refuse('give { collection, text }')
  for (const name of Object.keys(options)) {
    if (!optionNames.has(name))
      refuse(`there is no option ${preview(name)}; there are ${[...optionNames].join(', ')}`)
  }
  const { explain, ...asked } = options
  if (explain !== undefined && typeof explain !== 'boolean')
    refuse(`explain must be true or false, got ${preview(explain)}`)
  const sources = sourcesOf(asked)
  const mode = modeOf(asked)
  const match = oneOf('match', options.match ?? 'any', matches)
  mustFit(asked, sources, mode, match)
  const k = whole('k', options.k ?? 10, 1, SEARCH_K_MAX)
  const offset = whole('offset', options.offset ?? 0, 0, SEARCH_K_MAX - k)
  if (options.filter !== undefined) validateFilter(options.filter)
  const { userId, minScore, vectorWeight, recall = RECALL_DEFAULT } = options
  if (userId !== undefined && !isId(userId))
    refuse(`userId must be a lower-case UUID, got ${preview(userId)}`)
  if (minScore !== undefined && !Number.isFinite(minScore))
    refuse(`minScore must be a number, got ${preview(minScore)}`)
  if (vectorWeight !== undefined && !(vectorWeight >= 0 && vectorWeight <= 1))
    refuse(`vectorWeight must be 0 to 1, got ${preview(vectorWeight)}`)
  if (!(typeof recall === 'number' && recall >= 0 && recall <= 1))
    refuse(`recall must be 0 to 1, got ${preview(recall)}`)
  return {
    sources,
    mode,
    text: options.text,
    vector: options.vector,
    match,
    k,
    offset,
    filter: options.filter,
    from: moment('from', options.from),
    to: moment('to', options.to),
    userId,
    minScore,
    vectorWeight,
    group: groupOf(options.groupBy),
    highlight: highlightOf(options.highlight),
    recall,
  }
}

function sourcesOf({ collection, in: several }: SearchOptions): readonly SearchSource[] {
  if ((collection === undefined) === (several === undefined))
    refuse('give collection or in, one of them')
  if (several !== undefined && !(Array.isArray(several) && several.length > 0))
    refuse(`in must be a list of ${searchSources.join(', ')}, got ${preview(several)}`)
  const wanted: readonly SearchSource[] = several ?? (collection === undefined ? [] : [collection])
  for (const name of wanted) {
    if (!searchSources.includes(name))
      refuse(`there is no collection ${preview(name)}; there are ${searchSources.join(', ')}`)
  }
  return [...new Set(wanted)]
}

function modeOf({ text, vector, mode }: SearchOptions): SearchMode {
  if (text !== undefined && typeof text !== 'string')
    refuse(`text must be a string, got ${preview(text)}`)
  if (
    vector !== undefined &&
    !(vector instanceof Float32Array && vector.length > 0 && vector.every(Number.isFinite))
  ) {
    refuse('vector must be a Float32Array of finite numbers')
  }
  if (text === undefined && vector === undefined) refuse('give text or vector')
  if (text !== undefined && vector !== undefined && mode !== 'hybrid')
    refuse(`give text or vector, one of them, or both with mode 'hybrid'`)
  const chosen = oneOf('mode', mode ?? (text === undefined ? 'vector' : 'hybrid'), [
    'hybrid',
    'text',
    'vector',
  ])
  if (chosen !== 'vector' && text === undefined) refuse(`mode '${chosen}' needs text`)
  return chosen
}

/** What cannot be had together. */
function mustFit(
  { text, minScore, highlight, vectorWeight }: SearchOptions,
  names: readonly SearchSource[],
  mode: SearchMode,
  match: Match,
): void {
  const bare = names.find((name) => !mustSource(name).hasVectors)
  if (mode === 'vector' && bare !== undefined) refuse(`${bare} have no vectors: search by text`)
  if (minScore !== undefined && mode === 'text')
    refuse(`minScore is a cosine, which mode 'text' has not`)
  if (minScore !== undefined && bare !== undefined)
    refuse(`minScore is a cosine, and ${bare} have no vectors`)
  if (vectorWeight !== undefined && mode !== 'hybrid')
    refuse(`vectorWeight is of mode 'hybrid', this is '${mode}'`)
  if (mode === 'vector' && match !== 'any') refuse(`match is of words, and mode 'vector' has none`)
  if (mode === 'vector' && highlight !== undefined && highlight !== false)
    refuse(`highlight shows words, and mode 'vector' has none`)
  if (match !== 'substring') return
  if (names.some((name) => name !== 'code_embeddings'))
    refuse(`match 'substring' is of code_embeddings alone`)
  if (parts(text ?? '').length === 0)
    refuse(`match 'substring' needs ${SUBSTRING_MIN} characters or more, got ${preview(text)}`)
}

function groupOf(groupBy: SearchOptions['groupBy']): Grouping | undefined {
  if (groupBy === undefined) return undefined
  const given: GroupOptions = typeof groupBy === 'string' ? { field: groupBy } : groupBy
  if (typeof given !== 'object' || given === null || typeof given.field !== 'string')
    refuse(`groupBy must be a payload field or { field, size, rank }, got ${preview(groupBy)}`)
  const { field, size = 1, rank = 'best' } = given
  if (field === '') refuse('groupBy.field must not be empty')
  return {
    field,
    size: whole('groupBy.size', size, 1, 100),
    rank: oneOf<'best' | 'sources'>('groupBy.rank', rank, ['best', 'sources']),
  }
}

function highlightOf(highlight: SearchOptions['highlight']): Highlight | undefined {
  if (highlight === undefined || highlight === false) return undefined
  const given: HighlightOptions = highlight === true ? {} : highlight
  if (typeof given !== 'object' || given === null)
    refuse(`highlight must be true or { before, after, words }, got ${preview(highlight)}`)
  const { before = '**', after = '**', words = 24 } = given
  for (const [name, mark] of Object.entries({ before, after })) {
    if (typeof mark !== 'string') refuse(`highlight.${name} must be a string, got ${preview(mark)}`)
  }
  return { before, after, words: whole('highlight.words', words, 1, 64) }
}

function moment(name: string, value: unknown): string | undefined {
  if (value === undefined) return undefined
  try {
    return canonicalTimestamp(value)
  } catch {
    return refuse(`${name} must be a Date or an ISO-8601 time, got ${preview(value)}`)
  }
}

function whole(name: string, value: number, least: number, most: number): number {
  if (!(Number.isInteger(value) && value >= least && value <= most))
    refuse(`${name} must be ${least} to ${most}, got ${preview(value)}`)
  return value
}

function oneOf<T extends string>(name: string, value: T, known: readonly T[]): T {
  if (!known.includes(value))
    refuse(`${name} must be one of ${known.join(', ')}, got ${preview(value)}`)
  return value
}

function refuse(message: string): never {
  throw new AgentDBError('INVALID_OPTION', `search: ${message}`)
}
