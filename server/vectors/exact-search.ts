import { Admission } from '../http/admission.ts'
import type { Session } from '../postgres/database.ts'
import { fuse, rankLexically, type Ranked } from './fusion.ts'
import { KeptRows, type HasRoom } from './kept-rows.ts'
import { candidates, type Candidate } from './principal-rows.ts'
import { isInSpan, type RowFilter } from './rows.ts'
import type { Search } from './search-request.ts'
import { sparseOfQuery } from './sparse.ts'

/** Of vectors and words of rows, all callers together. */
const KEPT_BYTES_MAX = 256 * 1024 * 1024

/** A search whose model is known. */
export type ResolvedSearch = Search & { readonly model: string; readonly dimension: number }

interface Kept {
  readonly rows: KeptRows
  /** Searches of the same rows come one after the other: each finds what the one before has read. */
  readonly turns: Admission
}

/**
 * Search over the rows themselves, as the caller sees them: always right, and slower the more rows its owner has. Used
 * without Qdrant, where Qdrant is away, and for what Qdrant does not have yet. Vectors and words of the last callers are
 * kept as far as there is room; the rows of each search say which of them still hold.
 */
export class ExactSearch {
  readonly #bytesMax: number
  /** By caller and space; the one used last comes last. */
  readonly #kept = new Map<string, Kept>()

  constructor({ bytesMax = KEPT_BYTES_MAX }: { readonly bytesMax?: number } = {}) {
    this.#bytesMax = bytesMax
  }

  get keptBytes(): number {
    let bytes = 0
    for (const { rows } of this.#kept.values()) bytes += rows.bytes
    return bytes
  }

  /** Rankings by vector, by words, or fused; of `among` or of all rows. `session` is the caller's. */
  async search(
    session: Session,
    owner: string,
    search: ResolvedSearch,
    among?: readonly string[],
  ): Promise<Ranked[]> {
    const found = await candidates(session, search, search.filter, among)
    const rows = found.filter(({ moment }) => isInSpan(moment, search.filter))
    if (rows.length === 0) return []
    const { rows: kept, turns } = this.#keptOf(owner, search)
    return await turns.run(async () => {
      if (among === undefined && isOpen(search.filter)) kept.keepOnly(rows)
      const hasRoom: HasRoom = (bytes) => this.#makeRoom(kept, bytes)
      const rankings: Ranked[][] = []
      if (search.vector !== undefined)
        rankings.push(await byVector(session, kept, { search, rows, hasRoom }))
      if (search.text !== undefined)
        rankings.push(await byWords(session, kept, { search, rows, hasRoom }))
      const [only] = rankings
      return rankings.length === 1 && only !== undefined ? only.slice(0, search.k) : fuse(rankings)
    })
  }

  #keptOf(owner: string, { collection, model, dimension }: ResolvedSearch): Kept {
    const key = JSON.stringify([owner, collection, model, dimension])
    const kept = this.#kept.get(key) ?? {
      rows: new KeptRows(dimension),
      turns: new Admission('searches', { running: 1, waiting: Infinity }),
    }
    this.#kept.delete(key)
    this.#kept.set(key, kept)
    return kept
  }

  /** The callers of longest ago give way. */
  #makeRoom(growing: KeptRows, bytes: number): boolean {
    if (growing.bytes + bytes > this.#bytesMax) return false
    let excess = this.keptBytes + bytes - this.#bytesMax
    for (const [key, { rows }] of this.#kept) {
      if (excess <= 0) break
      if (rows === growing) continue
      this.#kept.delete(key)
      excess -= rows.bytes
    }
    return true
  }
}

/** How deep each half of a fused search goes. */
export const fusedDepth = (k: number): number => Math.max(100, 4 * k)

const isOpen = ({ keywords, since, until }: RowFilter): boolean =>
  keywords.size === 0 && since === undefined && until === undefined

interface Asked {
  readonly search: ResolvedSearch
  readonly rows: readonly Candidate[]
  readonly hasRoom: HasRoom
}

async function byVector(
  session: Session,
  kept: KeptRows,
  { search, rows, hasRoom }: Asked,
): Promise<Ranked[]> {
  const { vector = [], text, k, minScore } = search
  const count = text === undefined ? k : fusedDepth(k)
  const query = Float32Array.from(vector)
  const ranked = await kept.nearest(session, rows, { query, count, hasRoom })
  return ranked.filter(({ score }) => minScore === undefined || score >= minScore)
}

async function byWords(
  session: Session,
  kept: KeptRows,
  { search, rows, hasRoom }: Asked,
): Promise<Ranked[]> {
  const query = sparseOfQuery(search.text ?? '')
  if (query === undefined) return []
  const words = await kept.wordsOf(session, rows, { query, hasRoom })
  return rankLexically(query, words).slice(0, fusedDepth(search.k))
}
