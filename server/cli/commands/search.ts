import { InvalidArgumentError, Option, type Command } from 'commander'
import type { Json } from '../../../schema/define.ts'
import { collections } from '../../../schema/tables/embeddings.ts'
import type {
  Match,
  PayloadFilter,
  SearchMode,
  SearchResult,
  SearchSource,
} from '../../../src/index.ts'
import { jsonOption } from '../options.ts'
import { print, printError, printJson } from '../output.ts'
import { openStore } from '../store.ts'

interface SearchCommandOptions {
  readonly db: string
  readonly in?: readonly SearchSource[]
  readonly mode?: SearchMode
  readonly match: Match
  readonly k: number
  readonly filter?: PayloadFilter
  readonly from?: string
  readonly to?: string
  readonly group?: string
  readonly json?: boolean
}

const SOURCES: readonly SearchSource[] = [
  ...collections,
  'messages',
  'conversations',
  'incidents',
  'runbooks',
]

export function registerSearch(root: Command): void {
  root
    .command('search')
    .description('Search a store in words and vectors.')
    .argument('<text>', 'what to look for; nothing in it is an operator')
    .requiredOption('--db <file>', 'file of the store')
    .addOption(
      new Option(
        '--in <sources>',
        `one or several of ${SOURCES.join(', ')} (default: all that --mode and --match can search)`,
      ).argParser(sourcesOf),
    )
    .addOption(
      new Option(
        '--mode <mode>',
        'words, vectors or both, which finds also what is near without those words (default: hybrid; text with a --match)',
      ).choices(['hybrid', 'text', 'vector']),
    )
    .addOption(
      new Option('--match <how>', 'how words are looked for; substring is of code alone')
        .choices(['any', 'all', 'phrase', 'prefix', 'substring'])
        .default('any'),
    )
    .addOption(new Option('-k <count>', 'most results').argParser(count).default(10))
    .addOption(
      new Option(
        '--filter <field=value>',
        'field of the payload; may be given several times',
      ).argParser(filterOf),
    )
    .option('--from <time>', 'not before this time, such as 2026-11-01')
    .option('--to <time>', 'before this time')
    .option('--group <field>', 'one result for each value of this field, such as conversation_id')
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
Ends with 0 also when nothing was found.

Examples:
  $ agentdb search 'how do I roll back?' --db agent.db
  $ agentdb search 'checkout slow' --db agent.db --in incidents,incident_knowledge --filter severity=high
  $ agentdb search UserBy --db agent.db --match substring
  $ agentdb search 'what did we decide' --db agent.db --in messages --group conversation_id --json`,
    )
    .action(search)
}

async function search(text: string, options: SearchCommandOptions): Promise<void> {
  const { match, k, filter, from, to, group } = options
  const mode = options.mode ?? modeFor(match)
  await using db = await openStore(options.db)
  const results = await db.search({
    in: options.in ?? sourcesFor(mode, match),
    text,
    mode,
    match,
    k,
    filter,
    from,
    to,
    groupBy: group,
    highlight:
      mode === 'vector'
        ? false
        : { ...(options.json === true ? {} : marks()), words: WORDS_SHOWN[match] },
  })
  if (options.json === true) return printJson({ results })
  if (results.length === 0) return printError('nothing was found')
  for (const result of results) print(lineOf(result))
}

/** Who says how words must match wants rows in which they do: vectors would find others, too. */
const modeFor = (match: Match): SearchMode => (match === 'any' ? 'hybrid' : 'text')

/** All that can be searched so. */
function sourcesFor(mode: SearchMode, match: Match): readonly SearchSource[] {
  if (match === 'substring') return ['code_embeddings']
  return mode === 'vector' ? collections : SOURCES
}

/** Of parts of identifiers each character counts as a word. */
const WORDS_SHOWN: Readonly<Record<Match, number>> = {
  any: 24,
  all: 24,
  phrase: 24,
  prefix: 24,
  substring: 64,
}

/** On a terminal what matched is bold. */
const marks = (): { before: string; after: string } =>
  process.stdout.isTTY ? { before: '\u001B[1m', after: '\u001B[22m' } : { before: '', after: '' }

function lineOf({
  score,
  collection,
  id,
  payload,
  contentPreview,
  highlight,
}: SearchResult): string {
  const shown = (highlight ?? contentPreview ?? '').replaceAll(/\s+/g, ' ').trim()
  return `${score.toFixed(3)}  ${collection}  ${placeOf(payload) ?? id}\n       ${shown}`
}

/** Where a person would look for it. */
function placeOf(payload: Json): string | undefined {
  const fields = payload as Readonly<Record<string, Json>>
  const path = fields['file_path']
  const line = fields['start_line']
  if (typeof path === 'string') return typeof line === 'number' ? `${path}:${line}` : path
  const named = [fields['title'], fields['name'], fields['url'], fields['conversation_id']]
  return named.find((name): name is string => typeof name === 'string')
}

function sourcesOf(text: string): SearchSource[] {
  const names = text.split(',').map((name) => name.trim())
  const unknown = names.find((name) => !(SOURCES as readonly string[]).includes(name))
  if (unknown !== undefined)
    throw new InvalidArgumentError(`There is no ${unknown}; there are ${SOURCES.join(', ')}.`)
  return names as SearchSource[]
}

function count(text: string): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < 1 || value > 1000)
    throw new InvalidArgumentError('It must be 1 to 1000.')
  return value
}

/** Numbers and `true` may stand in a payload as what they look like or as text: either fits. */
function filterOf(text: string, before: PayloadFilter | undefined): PayloadFilter {
  const [, field, value] = /^([^=]+)=(.*)$/s.exec(text) ?? []
  if (field === undefined || value === undefined)
    throw new InvalidArgumentError('Write it like severity=high.')
  const others: (string | number | boolean)[] = []
  if (/^-?\d+(?:\.\d+)?$/.test(value)) others.push(Number(value))
  if (value === 'true' || value === 'false') others.push(value === 'true')
  const known = before?.[field]
  const already = Array.isArray(known) ? (known as readonly (string | number | boolean)[]) : []
  return { ...before, [field]: [...already, value, ...others] }
}
