import { ScanIndex } from '../../src/vector/scan-index.ts'
import type { Session } from '../postgres/database.ts'
import type { SparseVector } from '../qdrant/engine.ts'
import { fuse, rankLexically, type Ranked } from './fusion.ts'
import { candidates, readTexts, readVectors, type Candidate } from './principal-rows.ts'
import { lexicalText, meets } from './rows.ts'
import type { Search } from './search-request.ts'
import { sparseOfQuery, sparseOfRow } from './sparse.ts'

/** Numbers that are kept in memory, 4 bytes each. */
const KEPT_NUMBERS_MAX = 64 * 1024 * 1024

interface Kept {
  readonly index: ScanIndex
  /** Version of each row that the index has. */
  readonly versions: Map<string, string>
  readonly words: Map<string, Words>
  /** Words of all rows together. */
  wordCount: number
}

interface Words {
  readonly version: string
  readonly terms: SparseVector | undefined
}

/** A search whose model is known. */
export type ResolvedSearch = Search & { readonly model: string; readonly dimension: number }

/**
 * Search over the rows themselves, as the caller sees them: always right, and slower the more rows its owner has. Used
 * without Qdrant, where Qdrant is away, and for what Qdrant does not have yet. Vectors and words of the last callers are kept;
 * the rows of each search say which of them still hold.
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
    const found = await candidates(session, spaceOf(search), search.filter, among)
    const rows = found.filter(({ payload }) => meets(payload, search.filter))
    const kept = this.#keptOf(owner, search)
    const rankings: Ranked[][] = []
    if (search.vector !== undefined)
      rankings.push(await byVector(session, kept, search, search.vector, rows))
    if (search.text !== undefined) {
      const ranked = await byWords(session, kept, search.text, rows)
      rankings.push(ranked.slice(0, fusedDepth(search.k)))
    }
    this.#evict(kept)
    const [only] = rankings
    return rankings.length === 1 && only !== undefined ? only.slice(0, search.k) : fuse(rankings)
  }

  #keptOf(owner: string, { collection, model, dimension }: ResolvedSearch): Kept {
    const key = JSON.stringify([owner, collection, model, dimension])
    const kept = this.#kept.get(key) ?? {
      index: new ScanIndex(dimension),
      versions: new Map(),
      words: new Map(),
      wordCount: 0,
    }
    this.#kept.delete(key)
    this.#kept.set(key, kept)
    return kept
  }

  #evict(inUse: Kept): void {
    let numbers = 0
    for (const kept of this.#kept.values()) numbers += numbersOf(kept)
    for (const [key, kept] of this.#kept) {
      if (numbers <= KEPT_NUMBERS_MAX) return
      if (kept === inUse) continue
      this.#kept.delete(key)
      numbers -= numbersOf(kept)
    }
  }
}

/** A word is a number and a weight, 8 bytes each. */
const numbersOf = ({ index, wordCount }: Kept): number =>
  index.size * index.dimension + 4 * wordCount

/** How deep each half of a fused search goes. */
export const fusedDepth = (k: number): number => Math.max(100, 4 * k)

const spaceOf = ({ collection, model, dimension }: ResolvedSearch) => ({
  collection,
  model,
  dimension,
})

async function byVector(
  session: Session,
  kept: Kept,
  search: ResolvedSearch,
  vector: readonly number[],
  rows: readonly Candidate[],
): Promise<Ranked[]> {
  await refreshVectors(session, kept, rows)
  const ids = rows.map(({ id }) => id)
  const deep = search.text === undefined ? search.k : fusedDepth(search.k)
  const { minScore } = search
  return kept.index
    .search(Float32Array.from(vector), deep, ids)
    .filter(({ score }) => minScore === undefined || score >= minScore)
}

async function refreshVectors(
  session: Session,
  { index, versions }: Kept,
  rows: readonly Candidate[],
): Promise<void> {
  const changed = rows.filter(({ id, version }) => versions.get(id) !== version)
  const now = new Map(changed.map(({ id, version }) => [id, version]))
  for (const { id, vector } of await readVectors(session, [...now.keys()])) {
    // What SQL at the centre may have written there is no vector.
    if (!index.trySet(id, vector)) index.delete(id)
    versions.set(id, now.get(id) ?? '')
  }
}

async function byWords(
  session: Session,
  kept: Kept,
  text: string,
  rows: readonly Candidate[],
): Promise<Ranked[]> {
  const query = sparseOfQuery(text)
  if (query === undefined) return []
  await refreshWords(session, kept, rows)
  return rankLexically(
    query,
    rows.map(({ id }) => ({ id, terms: kept.words.get(id)?.terms })),
  )
}

async function refreshWords(
  session: Session,
  kept: Kept,
  rows: readonly Candidate[],
): Promise<void> {
  const { words } = kept
  const changed = rows.filter(({ id, version }) => words.get(id)?.version !== version)
  const texts = await readTexts(
    session,
    changed.map(({ id }) => id),
  )
  for (const { id, version, payload } of changed) {
    const terms = sparseOfRow(lexicalText(texts.get(id) ?? null, payload))
    kept.wordCount += countOf(terms) - countOf(words.get(id)?.terms)
    words.set(id, { version, terms })
  }
}

const countOf = (terms: SparseVector | undefined): number => terms?.indices.length ?? 0
