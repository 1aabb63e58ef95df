import { AgentDBError, preview } from '../../schema/errors.ts'
import { collections, type Collection } from '../../schema/tables/embeddings.ts'
import { DIMENSION_MAX } from '../../schema/values/vector.ts'
import { sameSpace, type Spread, type VectorSpace } from '../qdrant/layout.ts'

/** A model whose vectors get collections at set-up. */
export interface VectorModel {
  readonly model: string
  readonly dimension: number
}

/** How the centre's vectors are kept in Qdrant. */
export interface VectorOptions {
  /**
   * Models of each collection that exist from the start; the first is the collection's default. Default: the seeds'
   * `text-embedding-ada-002` of 1536 dimensions. Other models get theirs when their first row comes.
   */
  readonly models?: Partial<Record<Collection, readonly VectorModel[]>> | undefined
  /** Most (model, dimension) pairs of a collection, without dropped ones; rows of others are searched exactly. Default: 8. */
  readonly modelsMax?: number | undefined
  /** Shards of each collection. Default: 1. */
  readonly shardNumber?: number | undefined
  /** Copies of each shard. Default: 1. */
  readonly replicationFactor?: number | undefined
  /** Copies that must have a write before it counts, at most `replicationFactor`. Default: 1. */
  readonly writeConsistencyFactor?: number | undefined
  /** Start of every name in Qdrant, where several centres share one. Default: none. */
  readonly prefix?: string | undefined
  /** Milliseconds until a call of Qdrant counts as failed. Default: 30 000; searches 5000 at most. */
  readonly timeoutMs?: number | undefined
  /** How often the consumer looks for new rows. Default: 250 ms. */
  readonly pollMs?: number | undefined
  /** For how long a server that died keeps the others from taking over. Default: 15 000 ms. */
  readonly leaseMs?: number | undefined
  /** How long the mark of a deleted row stays; longer than any write may be under way. Default: 24 h. */
  readonly tombstoneMs?: number | undefined
}

export interface VectorSettings {
  readonly spaces: readonly VectorSpace[]
  readonly defaults: ReadonlyMap<Collection, VectorSpace>
  readonly modelsMax: number
  readonly spread: Spread
  readonly prefix: string
  readonly timeoutMs: number
  readonly pollMs: number
  readonly leaseMs: number
  readonly tombstoneMs: number
}

/** QD-002: four collections of 1536 dimensions. */
const SEED_MODEL: VectorModel = { model: 'text-embedding-ada-002', dimension: 1536 }

const optionNames: ReadonlySet<string> = new Set([
  'models',
  'modelsMax',
  'shardNumber',
  'replicationFactor',
  'writeConsistencyFactor',
  'prefix',
  'timeoutMs',
  'pollMs',
  'leaseMs',
  'tombstoneMs',
])

/** @throws AgentDBError `INVALID_OPTION` */
export function vectorSettings(options: VectorOptions = {}): VectorSettings {
  for (const name of Object.keys(options)) {
    if (!optionNames.has(name))
      refuse(`there is no option ${preview(name)}; there are ${[...optionNames].join(', ')}`)
  }
  for (const name of Object.keys(options.models ?? {})) {
    if (!(collections as readonly string[]).includes(name))
      refuse(`models: there is no collection ${preview(name)}; there are ${collections.join(', ')}`)
  }
  const spaces = collections.flatMap((collection) =>
    (options.models?.[collection] ?? [SEED_MODEL]).map((model) => spaceOf(collection, model)),
  )
  for (const [i, space] of spaces.entries()) {
    if (spaces.findIndex((other) => sameSpace(other, space)) < i)
      refuse(`models.${space.collection}: names ${preview(space.model)} twice`)
  }
  const defaults = new Map<Collection, VectorSpace>()
  for (const space of spaces)
    if (!defaults.has(space.collection)) defaults.set(space.collection, space)
  const { prefix = '' } = options
  if (typeof prefix !== 'string' || !/^[A-Za-z0-9_-]{0,32}$/.test(prefix))
    refuse(`prefix must have at most 32 letters, digits, - and _, got ${preview(prefix)}`)
  const spread = spreadOf(options)
  return {
    spaces,
    defaults,
    prefix,
    modelsMax: whole('modelsMax', options.modelsMax, 8, 100),
    spread,
    timeoutMs: whole('timeoutMs', options.timeoutMs, 30_000, 3_600_000),
    pollMs: whole('pollMs', options.pollMs, 250, 3_600_000),
    leaseMs: whole('leaseMs', options.leaseMs, 15_000, 3_600_000),
    tombstoneMs: whole('tombstoneMs', options.tombstoneMs, 24 * 3_600_000, 365 * 24 * 3_600_000),
  }
}

/** More copies than there are could never have a write: Qdrant would refuse every one. */
function spreadOf(options: VectorOptions): Spread {
  const shardNumber = whole('shardNumber', options.shardNumber, 1, 1000)
  const replicationFactor = whole('replicationFactor', options.replicationFactor, 1, 100)
  const { writeConsistencyFactor: wanted } = options
  const writeConsistencyFactor = whole('writeConsistencyFactor', wanted, 1, 100)
  if (writeConsistencyFactor > replicationFactor)
    refuse(
      `writeConsistencyFactor is ${writeConsistencyFactor}, and there are only ${replicationFactor} copies: raise replicationFactor, or lower it`,
    )
  return { shardNumber, replicationFactor, writeConsistencyFactor }
}

function spaceOf(collection: Collection, { model, dimension }: VectorModel): VectorSpace {
  if (typeof model !== 'string' || model === '' || model.length > 100)
    refuse(`models.${collection}.model must have 1 to 100 characters, got ${preview(model)}`)
  if (!(Number.isInteger(dimension) && dimension >= 1 && dimension <= DIMENSION_MAX))
    refuse(
      `models.${collection}.dimension must be 1 to ${DIMENSION_MAX}, got ${preview(dimension)}`,
    )
  return { collection, model, dimension }
}

function whole(name: string, value: unknown, byDefault: number, max: number): number {
  if (value === undefined) return byDefault
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= max)
    return value
  return refuse(`${name} must be 1 to ${max}, got ${preview(value)}`)
}

function refuse(message: string): never {
  throw new AgentDBError('INVALID_OPTION', `vectors: ${message}`)
}

/** What the environment says; for `agentdb`. */
export const qdrantUrlProblem = (url: string): string | undefined => {
  if (!/^https?:\/\//.test(url) || !URL.canParse(url)) return 'must start with http:// or https://'
  const { username, password } = new URL(url)
  return username === '' && password === ''
    ? undefined
    : 'must hold no user or password; give the key as QDRANT_API_KEY'
}
