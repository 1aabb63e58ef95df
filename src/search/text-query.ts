/**
 * How words of a query are looked for:
 *
 * - `any`: rows with any of them, best those with the rare ones (default)
 * - `all`: rows with each of them
 * - `phrase`: all of them in a row
 * - `prefix`: rows with words that begin like any of them
 * - `substring`: parts of identifiers, of three characters or more; code only
 */
export type Match = 'any' | 'all' | 'phrase' | 'prefix' | 'substring'

export const matches: readonly Match[] = ['any', 'all', 'phrase', 'prefix', 'substring']

/** Most words of a query that are looked for; the first of them count. */
export const QUERY_WORDS_MAX = 64

/** Words too common in questions to tell rows apart. English, as the stemmer is. */
const stopWords: ReadonlySet<string> = new Set(
  `a about after all also am an and any are as at be because been before being but by can could did do does doing
  during each for from had has have having he her here hers him his how i if in into is it its just me more most my no
  nor not of off on once only or other our ours out over own same she should so some such than that the their theirs
  them then there these they this those through to too under until up us very was we were what when where which while
  who whom why will with would you your yours`.split(/\s+/),
)

const wordPattern = /[\p{L}\p{N}\p{M}\p{Co}]+/gu

/** Least characters of a part of an identifier that is looked for. */
export const SUBSTRING_MIN = 3

/**
 * What FTS5 is asked for the words of a text; undefined where it has none. Each word is quoted and holds nothing but
 * letters and digits, or has its quotes doubled: no operator of FTS5's language gets through.
 */
export function matchExpression(text: string, match: Match): string | undefined {
  if (match === 'substring') return joined(parts(text).map(quoted), ' OR ')
  const words = wordsOf(text)
  if (match === 'phrase') return words.length === 0 ? undefined : quoted(words.join(' '))
  const telling = words.filter((word) => !stopWords.has(word))
  const chosen = [...new Set(telling.length === 0 ? words : telling)].map(quoted)
  if (match === 'all') return joined(chosen, ' AND ')
  return joined(match === 'prefix' ? chosen.map((word) => `${word}*`) : chosen, ' OR ')
}

/** Parts of identifiers in a text that are long enough to be looked for. */
export const parts = (text: string): string[] =>
  [...new Set(text.replaceAll('\0', ' ').split(/\s+/))]
    .filter((part) => Array.from(part).length >= SUBSTRING_MIN)
    .slice(0, QUERY_WORDS_MAX)

const wordsOf = (text: string): string[] =>
  Array.from(text.toLowerCase().matchAll(wordPattern), ([word]) => word).slice(0, QUERY_WORDS_MAX)

const quoted = (word: string): string => `"${word.replaceAll('"', '""')}"`

const joined = (terms: readonly string[], operator: string): string | undefined =>
  terms.length === 0 ? undefined : terms.join(operator)
