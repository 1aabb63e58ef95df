import { InvalidArgumentError, Option, type Command } from 'commander'
import { collections, type Collection } from '../../schema/tables/embeddings.ts'
import {
  qdrantUrlProblem,
  vectorSettings,
  type VectorModel,
  type VectorOptions,
} from '../vectors/settings.ts'

/** Where the centre's database is; as parsed, before {@link centreOf}. */
export interface CentreOptions {
  readonly databaseUrl?: string | undefined
  readonly data: string
}

/** Where the centre's database is: a URL of PostgreSQL or a folder of PGlite. */
export type CentrePlace =
  | { readonly databaseUrl: string; readonly dataFolder: undefined }
  | { readonly databaseUrl: undefined; readonly dataFolder: string }

const DATA_FOLDER = './agentdb-data'

export function addCentreOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--database-url <url>', 'PostgreSQL 14 or later of the centre')
        .env('DATABASE_URL')
        .argParser(postgresUrl),
    )
    .addOption(
      new Option('--data <folder>', 'folder of PGlite, where no PostgreSQL is given').default(
        DATA_FOLDER,
      ),
    )
}

/** What was written on the command line counts more than the environment. */
export function centreOf(command: Command): CentrePlace {
  const { databaseUrl, data } = command.opts<CentreOptions>()
  const urlFrom = command.getOptionValueSource('databaseUrl')
  const dataGiven = command.getOptionValueSource('data') === 'cli'
  if (dataGiven && urlFrom === 'cli') command.error('give --database-url or --data, not both')
  return databaseUrl === undefined || databaseUrl === '' || dataGiven
    ? { databaseUrl: undefined, dataFolder: data }
    : { databaseUrl, dataFolder: undefined }
}

/** What to add to a suggested command so that it finds the same centre. */
export const placeFlag = ({ databaseUrl, dataFolder }: CentrePlace): string =>
  databaseUrl !== undefined || dataFolder === DATA_FOLDER ? '' : ` --data ${dataFolder}`

export const jsonOption = (): Option => new Option('--json', 'one line of JSON, for machines')

export function addRemoteOptions(command: Command, mandatory: boolean): Command {
  const url = new Option('--url <url>', 'sync server, such as http://127.0.0.1:7400')
  const token = new Option('--token <token>', 'made by agentdb token')
  return command
    .addOption(url.env('AGENTDB_URL').argParser(httpUrl).makeOptionMandatory(mandatory))
    .addOption(token.env('AGENTDB_TOKEN').makeOptionMandatory(mandatory))
}

function postgresUrl(text: string): string {
  if (text !== '' && !/^postgres(?:ql)?:\/\//.test(text))
    throw new InvalidArgumentError('It must start with postgres://')
  return text
}

function httpUrl(text: string): string {
  if (!/^https?:\/\//.test(text) || !URL.canParse(text))
    throw new InvalidArgumentError('It must start with http:// or https://')
  return text
}

/** Where Qdrant is, and how its collections are made; all of it from the environment, too. */
export function addQdrantOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--qdrant-url <url>', 'Qdrant 1.16 or later; its key: QDRANT_API_KEY')
        .env('QDRANT_URL')
        .argParser(qdrantUrl),
    )
    .addOption(
      new Option('--qdrant-prefix <text>', 'start of all names there').env('QDRANT_PREFIX'),
    )
    .addOption(
      new Option('--qdrant-shards <n>', 'shards of a new collection')
        .env('QDRANT_SHARDS')
        .argParser(wholeNumber),
    )
    .addOption(
      new Option('--qdrant-replicas <n>', 'copies of each shard')
        .env('QDRANT_REPLICAS')
        .argParser(wholeNumber),
    )
    .addOption(
      new Option(
        '--qdrant-write-consistency <n>',
        'copies that must have a write before it counts, at most --qdrant-replicas',
      )
        .env('QDRANT_WRITE_CONSISTENCY')
        .argParser(wholeNumber),
    )
}

/** Of a server alone: other commands find in the database what it was configured to have. */
export const qdrantModelsOption = (): Option =>
  new Option(
    '--qdrant-models <list>',
    'models with collections from the start: MODEL:DIMENSION for all four, COLLECTION=MODEL:DIMENSION for one, by commas; the first of a collection is its usual one',
  )
    .env('QDRANT_MODELS')
    .argParser(vectorModels)

type VectorModels = Partial<Record<Collection, readonly VectorModel[]>>

/** `text-embedding-3-small:1536,code_embeddings=voyage-code-3:1024`. */
function vectorModels(list: string): VectorModels | undefined {
  if (list.trim() === '') return undefined
  const found = new Map<string, VectorModel[]>()
  for (const entry of list.split(',').map((one) => one.trim())) {
    const parts = /^(?:([a-z_]+)=)?([^=]+):(\d{1,6})$/.exec(entry)
    if (parts === null)
      throw new InvalidArgumentError(
        `Write it like text-embedding-3-small:1536 or code_embeddings=voyage-code-3:1024, not ${JSON.stringify(entry)}`,
      )
    const [, collection, model = '', dimension] = parts
    for (const name of collection === undefined ? collections : [collection])
      found.set(name, [...(found.get(name) ?? []), { model, dimension: Number(dimension) }])
  }
  const models: VectorModels = Object.fromEntries(found)
  try {
    vectorSettings({ models })
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? error.message : String(error))
  }
  return models
}

/** As given; the key comes from the environment alone, since a command line can be read by others. */
export function qdrantOf(command: Command): {
  readonly url: string | undefined
  readonly apiKey: string | undefined
  readonly vectors: VectorOptions
} {
  const options = command.opts<{
    qdrantUrl?: string
    qdrantPrefix?: string
    qdrantShards?: number
    qdrantReplicas?: number
    qdrantWriteConsistency?: number
    qdrantModels?: VectorModels
  }>()
  const { qdrantUrl: url = '', qdrantPrefix: prefix = '' } = options
  const { qdrantReplicas: copies = 1, qdrantWriteConsistency: needed = 1 } = options
  if (needed > copies)
    command.error(
      `--qdrant-write-consistency ${needed} is more than --qdrant-replicas ${copies}: no write would ever count`,
    )
  const apiKey = process.env['QDRANT_API_KEY'] ?? ''
  return {
    url: url === '' ? undefined : url,
    apiKey: apiKey === '' ? undefined : apiKey,
    vectors: {
      prefix,
      shardNumber: options.qdrantShards,
      replicationFactor: options.qdrantReplicas,
      writeConsistencyFactor: options.qdrantWriteConsistency,
      models: options.qdrantModels,
    },
  }
}

function qdrantUrl(text: string): string {
  const problem = text === '' ? undefined : qdrantUrlProblem(text)
  if (problem !== undefined) throw new InvalidArgumentError(`It ${problem}`)
  return text
}

/** A whole number from 1 on. */
export function wholeNumber(text: string): number {
  const value = Number(text)
  if (!/^\d{1,6}$/.test(text) || value < 1)
    throw new InvalidArgumentError('It must be a whole number from 1 on')
  return value
}

export function port(text: string): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value > 65_535) throw new InvalidArgumentError('It must be 0 to 65535')
  return value
}

const SECONDS: Readonly<Record<string, number>> = {
  s: 1,
  m: 60,
  h: 3600,
  d: 24 * 3600,
  w: 7 * 24 * 3600,
}

/** `90d` in seconds. */
export function expiry(text: string): number {
  const [, count, unit] = /^(\d{1,6})([smhdw])$/.exec(text) ?? []
  const seconds = Number(count) * (SECONDS[unit ?? ''] ?? Number.NaN)
  if (!(seconds >= 1)) throw new InvalidArgumentError('Write it like 90d, 12h, 30m or 45s')
  return seconds
}
