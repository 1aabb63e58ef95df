import { ScanIndex } from '../../src/vector/scan-index.ts'
import type { Session } from '../postgres/database.ts'
import { fuse, rankLexically, type Ranked } from './fusion.ts'
import { candidates, readVectors, type Candidate } from './principal-rows.ts'
import { lexicalText, meets } from './rows.ts'
import type { Search } from './search-request.ts'
import { sparseOfQuery, sparseOfRow } from './sparse.ts'

/** Numbers that are kept in memory, 4 bytes each. */
const KEPT_NUMBERS_MAX = 64 * 1024 * 1024

interface Kept {
  readonly index: ScanIndex
  /** Version of each row that the index has. */
  readonly versions: Map<string, string>
}

/** A search whose model is known. */
export type ResolvedSearch = Search & { readonly model: string; readonly dimension: number }

/**
 * Search over the rows themselves, as the caller sees them: always right, and slower the more rows its owner has. Used
 * without Qdrant, where Qdrant is away, and for what Qdrant does not have yet. Vectors of the last callers are kept; the
 * rows of each search say which of them still hold.
 */
export class ExactSearch {
  /** By caller and space; the one used last comes last. */
  readonly #kept = new Map<string, Kept>()

  /** Rankings by vector, by words, or fused; of `among` or of all rows. `session` is the caller's. */
  async search(
    session: Session,
    owner: string,
    search: ResolvedSearch,
    among?: readonly string[],
  ): Promise<Ranked[]> {
    const found = await candidates(session, spaceOf(search), search.filter, {
      among,
      hasWords: search.text !== undefined,
    })
    const rows = found.filter(({ payload }) => meets(payload, search.filter))
    const rankings: Ranked[][] = []
    if (search.vector !== undefined)
      rankings.push(await this.#byVector(session, owner, search, search.vector, rows))
    if (search.text !== undefined)
      rankings.push(byWords(search.text, rows).slice(0, fusedDepth(search.k)))
    const [only] = rankings
    return rankings.length === 1 && only !== undefined ? only.slice(0, search.k) : fuse(rankings)
  }

  async #byVector(
    session: Session,
    owner: string,
    search: ResolvedSearch,
    vector: readonly number[],
    rows: readonly Candidate[],
  ): Promise<Ranked[]> {
    const { index } = await this.#current(session, owner, search, rows)
    const ids = rows.map(({ id }) => id)
    const deep = search.text === undefined ? search.k : fusedDepth(search.k)
    const { minScore } = search
    return index
      .search(Float32Array.from(vector), deep, ids)
      .filter(({ score }) => minScore === undefined || score >= minScore)
  }

  /** What is kept of a caller's space, with the rows of this search as they are now. */
  async #current(
    session: Session,
    owner: string,
    search: ResolvedSearch,
    rows: readonly Candidate[],
  ): Promise<Kept> {
    const { collection, model, dimension } = search
    const key = JSON.stringify([owner, collection, model, dimension])
    const kept = this.#kept.get(key) ?? { index: new ScanIndex(dimension), versions: new Map() }
    this.#kept.delete(key)
    this.#kept.set(key, kept)
    const changed = rows.filter(({ id, version }) => kept.versions.get(id) !== version)
    const versions = new Map(changed.map(({ id, version }) => [id, version]))
    for (const { id, vector } of await readVectors(session, [...versions.keys()])) {
      // What SQL at the centre may have written there is no vector.
      if (vector.length !== dimension || !vector.every(Number.isFinite)) kept.index.delete(id)
      else kept.index.set(id, vector)
      kept.versions.set(id, versions.get(id) ?? '')
    }
    this.#evict(key)
    return kept
  }

  #evict(inUse: string): void {
    let numbers = 0
    for (const { index } of this.#kept.values()) numbers += index.size * index.dimension
    for (const [key, { index }] of this.#kept) {
      if (numbers <= KEPT_NUMBERS_MAX) return
      if (key === inUse) continue
      this.#kept.delete(key)
      numbers -= index.size * index.dimension
    }
  }
}

/** How deep each half of a fused search goes. */
export const fusedDepth = (k: number): number => Math.max(100, 4 * k)

const spaceOf = ({ collection, model, dimension }: ResolvedSearch) => ({
  collection,
  model,
  dimension,
})

function byWords(text: string, rows: readonly Candidate[]): Ranked[] {
  const query = sparseOfQuery(text)
  if (query === undefined) return []
  const documents = rows.map(({ id, text: ownText, payload }) => ({
    id,
    terms: sparseOfRow(lexicalText(ownText, payload)),
  }))
  return rankLexically(query, documents)
}
