import type { Collection } from '../../../schema/tables/embeddings.ts'
import type { Neighbour } from '../neighbour.ts'
import type { EngineName } from './engine.ts'

/** What a graph is of, and where its file is. */
export interface GraphSpec {
  /** The first of them that can be loaded is taken. */
  readonly engines: readonly EngineName[]
  readonly collection: Collection
  readonly model: string
  readonly dimension: number
  readonly m: number
  readonly efConstruct: number
  readonly storeId: string
  /** By engine: none reads another's, and two processes may have different ones. Undefined for a store in memory. */
  readonly files: Readonly<Record<EngineName, string>> | undefined
}

/** What the worker is asked. `graph` is a number that the asker chose. */
export type Request =
  | {
      readonly type: 'open'
      readonly graph: number
      readonly spec: GraphSpec
      /** The newest change of the store: a file that knows newer ones is of another life of it. */
      readonly head: number
      /** Whether a file may be read, or the graph is to be built anew. */
      readonly mayLoad: boolean
    }
  | {
      readonly type: 'verify'
      readonly graph: number
      readonly ids: readonly string[]
      readonly stamps: Float64Array
      /** As in a `StampSlice`. */
      readonly kinds: Uint8Array
      readonly isLast: boolean
    }
  | {
      readonly type: 'apply'
      readonly graph: number
      readonly deletes: readonly string[]
      readonly ids: readonly string[]
      readonly stamps: Float64Array
      readonly vectors: Float32Array
      readonly watermark: number
    }
  | {
      readonly type: 'search'
      readonly graph: number
      readonly vector: Float32Array
      readonly k: number
      readonly ef: number
    }
  | { readonly type: 'save'; readonly graph: number }
  | { readonly type: 'close'; readonly graph: number }

export type OpenAnswer =
  | { readonly kind: 'unavailable'; readonly reason: string }
  | {
      readonly kind: 'open'
      readonly engine: EngineName
      readonly isLoaded: boolean
      /** Why a file was not taken; undefined where there was none, or it was. */
      readonly refused: string | undefined
      readonly watermark: number
      readonly counts: Counts
    }

export interface Counts {
  readonly size: number
  readonly tombstones: number
  readonly isWorn: boolean
  /** Rows whose vector cannot be in a graph: it is 0, or damaged. */
  readonly unsearchable: number
}

export interface Saved {
  readonly bytes: number
  readonly generation: number
}

/** What each request is answered with. */
export interface Answers {
  readonly open: OpenAnswer
  /** False when a row is not what it was when the file was written. */
  readonly verify: boolean
  readonly apply: Counts
  readonly search: Neighbour[]
  readonly save: Saved
  readonly close: undefined
}

export type AnswerTo<R extends Request> = Answers[R['type']]

export interface Call {
  readonly call: number
  readonly request: Request
}

export type Reply =
  | { readonly call: number; readonly ok: true; readonly value: unknown }
  | {
      readonly call: number
      readonly ok: false
      readonly code: string | undefined
      readonly message: string
    }
