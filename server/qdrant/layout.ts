import { createHash } from 'node:crypto'
import type { Collection } from '../../schema/tables/embeddings.ts'
import type { QdrantEngine } from './engine.ts'

/** Fields of a point that are ours; all others are the row's own. */
export const field = {
  /** The user whom the row belongs to: every search filters by it, and Qdrant stores a tenant's points together. */
  owner: '_owner',
  /** Version: of two writes of a point the later one has the greater, whatever order they arrive in. */
  version: '_ver',
  /** Digest of the row that the point was made of. */
  digest: '_digest',
  /** `row`, `tombstone` or `mark`. */
  kind: '_kind',
  /** When a tombstone was put, in milliseconds. */
  at: '_at',
  model: '_model',
} as const

/** What vectors of one model in one collection need to be told apart. */
export interface VectorSpace {
  readonly collection: Collection
  readonly model: string
  readonly dimension: number
}

export const sameSpace = (a: VectorSpace, b: VectorSpace): boolean =>
  a.collection === b.collection && a.model === b.model && a.dimension === b.dimension

/** Names that Qdrant knows our collections by. */
export interface SpaceNames {
  /** `code_embeddings`: the collection's default model. */
  readonly defaultAlias: string
  /** `code_embeddings.text-embedding-ada-002-1f2e3d4c.1536`: whatever generation is live. */
  readonly alias: string
  /** The same with `.g1`: one generation. */
  readonly generation: (n: number) => string
}

const SLUG_LENGTH_MAX = 40

export function namesOf(prefix: string, { collection, model, dimension }: VectorSpace): SpaceNames {
  const slug = model
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .slice(0, SLUG_LENGTH_MAX)
  // Two names may look alike once cut.
  const digest = createHash('sha256').update(model).digest('hex').slice(0, 8)
  const defaultAlias = `${prefix}${collection}`
  const alias = `${defaultAlias}.${slug}-${digest}.${dimension}`
  return { defaultAlias, alias, generation: (n) => `${alias}.g${n}` }
}

/** Payload fields of the seeds (QD-004 to QD-007), and how those are indexed that a search may filter by. */
export interface FieldDefinition {
  readonly type: 'keyword' | 'time' | 'text' | 'number'
  readonly isIndexed: boolean
}

const keyword: FieldDefinition = { type: 'keyword', isIndexed: true }
const time: FieldDefinition = { type: 'time', isIndexed: true }
const shown: FieldDefinition = { type: 'text', isIndexed: false }
const counted: FieldDefinition = { type: 'number', isIndexed: false }

export const payloadFields: Readonly<
  Record<Collection, Readonly<Record<string, FieldDefinition>>>
> = {
  code_embeddings: {
    file_path: shown,
    function_name: shown,
    language: keyword,
    project_id: keyword,
    indexed_at: time,
  },
  documentation_embeddings: { title: shown, section: shown, url: shown, indexed_at: time },
  conversation_embeddings: {
    conversation_id: keyword,
    message_id: shown,
    user_id: shown,
    content_preview: shown,
    timestamp: time,
    char_count: counted,
  },
  incident_knowledge: {
    incident_id: keyword,
    title: shown,
    severity: keyword,
    services: keyword,
    resolution_preview: shown,
    indexed_at: time,
  },
}

/** Layout of points; a collection of an older one is filled anew, beside it. */
export const POINT_LAYOUT = 3

/** How the collections are spread over the nodes of a cluster. */
export interface Spread {
  /** Shards of each collection. Default: 1. */
  readonly shardNumber: number
  /** Copies of each shard. Default: 1. */
  readonly replicationFactor: number
  /** Copies that must have a write before it counts. Default: 1. */
  readonly writeConsistencyFactor: number
}

/** Sizes of the seeds, which count vectors there; Qdrant counts kilobytes (E-29). */
const vectors = { fullScan: 10_000, segmentMax: 200_000, memmap: 50_000, indexing: 20_000 } as const

/** Kilobytes of so many vectors. */
export const kilobytesOf = (count: number, dimension: number): number =>
  Math.ceil((count * dimension * 4) / 1024)

/** The seeds' parameters (QD-002, QD-003, QD-009 to QD-011), in Qdrant's units. */
export function collectionSettings(
  space: VectorSpace,
  spread: Spread,
): Parameters<QdrantEngine['create']>[1] {
  const { collection, model, dimension } = space
  return {
    vectors: {
      size: dimension,
      distance: 'Cosine',
      on_disk: collection === 'conversation_embeddings',
    },
    sparse_vectors: { text: { modifier: 'idf' } },
    hnsw_config: {
      m: 16,
      ef_construct: 100,
      full_scan_threshold: kilobytesOf(vectors.fullScan, dimension),
      max_indexing_threads: 0,
      on_disk: false,
      payload_m: 16,
    },
    optimizers_config: {
      deleted_threshold: 0.2,
      vacuum_min_vector_number: 1000,
      default_segment_number: 2,
      max_segment_size: kilobytesOf(vectors.segmentMax, dimension),
      memmap_threshold: kilobytesOf(vectors.memmap, dimension),
      indexing_threshold: kilobytesOf(vectors.indexing, dimension),
      flush_interval_sec: 5,
      max_optimization_threads: 4,
    },
    shard_number: spread.shardNumber,
    replication_factor: spread.replicationFactor,
    write_consistency_factor: spread.writeConsistencyFactor,
    // A filter on a field without index would read every point; here it is an error.
    strict_mode_config: {
      enabled: true,
      unindexed_filtering_retrieve: false,
      unindexed_filtering_update: false,
    },
    metadata: { agentdb: { collection, model, dimension, layout: POINT_LAYOUT } },
  }
}

type IndexSchema = Parameters<QdrantEngine['createIndex']>[2]

/** Payload indexes of a collection: our own fields, and those of the row that are filtered (QD-012, E-27). */
export function payloadIndexes(collection: Collection): Map<string, IndexSchema> {
  const integer: IndexSchema = { type: 'integer', range: true, lookup: false }
  const indexes = new Map<string, IndexSchema>([
    [field.owner, { type: 'keyword', is_tenant: true }],
    [field.version, integer],
    [field.at, integer],
    [field.kind, { type: 'keyword' }],
  ])
  for (const [name, { type, isIndexed }] of Object.entries(payloadFields[collection]))
    if (isIndexed) indexes.set(name, { type: type === 'time' ? 'datetime' : 'keyword' })
  return indexes
}
