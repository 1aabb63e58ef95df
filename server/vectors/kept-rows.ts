import { setImmediate } from 'node:timers/promises'
import { cosine } from '../../src/vector/cosine.ts'
import { ScanIndex } from '../../src/vector/scan-index.ts'
import type { Session } from '../postgres/database.ts'
import type { SparseVector } from '../qdrant/engine.ts'
import { byScore, type LexicalRow, type Ranked } from './fusion.ts'
import { readTexts, readVectors, type Candidate } from './principal-rows.ts'
import { sparseOfRow } from './sparse.ts'

/** Bytes of vectors, and number of texts, that are read at once; other work has its turn after each page. */
const VECTOR_PAGE_BYTES = 4 * 1024 * 1024
const TEXT_PAGE_ROWS = 250

/** What an index takes before it has a row; an id with its version; a word, which is a number and a weight. */
const INDEX_BYTES = 128 * 1024
const ROW_BYTES = 200
const WORD_BYTES = 16
/** Of each dimension: a float, and its code. */
const COMPONENT_BYTES = 5

interface Words {
  readonly version: string
  readonly terms: SparseVector | undefined
}

/** Whether so many bytes more may be kept. */
export type HasRoom = (bytes: number) => boolean

/**
 * Vectors and words of one caller's rows of one space, as they were when they were read last. What there is no room for
 * is read by every search, compared, and let go.
 */
export class KeptRows {
  readonly #index: ScanIndex
  /** Vectors that the index has had at once: its memory does not shrink, but is used again. */
  #vectorsMost = 0
  readonly #versions = new Map<string, string>()
  readonly #words = new Map<string, Words>()
  #wordCount = 0

  constructor(dimension: number) {
    this.#index = new ScanIndex(dimension)
  }

  get bytes(): number {
    const rows = this.#versions.size + this.#words.size
    const vectors = this.#vectorsMost * this.#vectorBytes
    return INDEX_BYTES + vectors + rows * ROW_BYTES + this.#wordCount * WORD_BYTES
  }

  get #vectorBytes(): number {
    return COMPONENT_BYTES * this.#index.dimension
  }

  /** Lets go of rows that are not among `rows`, which are all that the caller has. */
  keepOnly(rows: readonly Candidate[]): void {
    const there = new Set(rows.map(({ id }) => id))
    for (const id of this.#versions.keys()) if (!there.has(id)) this.#forgetVector(id)
    for (const id of this.#words.keys()) if (!there.has(id)) this.#forgetWords(id)
  }

  /** The `count` nearest of `rows`, best first. */
  async nearest(
    session: Session,
    rows: readonly Candidate[],
    { query, count, hasRoom }: { query: Float32Array; count: number; hasRoom: HasRoom },
  ): Promise<Ranked[]> {
    const changed = rows.filter(({ id, version }) => this.#versions.get(id) !== version)
    for (const { id } of changed) this.#forgetVector(id)
    let passing: Ranked[] = []
    for (const page of pagesOf(changed, Math.ceil(VECTOR_PAGE_BYTES / (4 * query.length)))) {
      const vectors = await readVectors(session, idsOf(page))
      if (hasRoom(this.#bytesFor(page.length))) this.#keepVectors(page, vectors)
      else passing = best([...passing, ...scored(vectors, query)], count)
      await setImmediate()
    }
    return best([...this.#index.search(query, count, idsOf(rows)), ...passing], count)
  }

  /** Words of `rows`; of those that are not kept only the ones that are asked for. */
  async wordsOf(
    session: Session,
    rows: readonly Candidate[],
    { query, hasRoom }: { query: SparseVector; hasRoom: HasRoom },
  ): Promise<LexicalRow[]> {
    const changed = rows.filter(({ id, version }) => this.#words.get(id)?.version !== version)
    for (const { id } of changed) this.#forgetWords(id)
    const asked = new Set(query.indices)
    const passing = new Map<string, SparseVector | undefined>()
    for (const page of pagesOf(changed, TEXT_PAGE_ROWS)) {
      const texts = await readTexts(session, idsOf(page))
      const read = page.map(({ id, version }) => ({
        id,
        words: { version, terms: sparseOfRow(texts.get(id) ?? '') },
      }))
      const count = read.reduce((sum, { words }) => sum + countOf(words), 0)
      if (hasRoom(count * WORD_BYTES + read.length * ROW_BYTES))
        for (const { id, words } of read) this.#keepWords(id, words)
      else for (const { id, words } of read) passing.set(id, those(words.terms, asked))
      await setImmediate()
    }
    return rows.map(({ id }) => ({ id, terms: passing.get(id) ?? this.#words.get(id)?.terms }))
  }

  /** What so many vectors more would take. */
  #bytesFor(count: number): number {
    const more = Math.max(0, this.#index.size + count - this.#vectorsMost)
    return more * this.#vectorBytes + count * ROW_BYTES
  }

  #keepVectors(
    page: readonly Candidate[],
    vectors: readonly { id: string; vector: Float32Array }[],
  ): void {
    for (const { id, version } of page) this.#versions.set(id, version)
    // What SQL at the centre may have written there is no vector: then it is not in the index.
    for (const { id, vector } of vectors) this.#index.trySet(id, vector)
    this.#vectorsMost = Math.max(this.#vectorsMost, this.#index.size)
  }

  #forgetVector(id: string): void {
    this.#versions.delete(id)
    this.#index.delete(id)
  }

  #keepWords(id: string, words: Words): void {
    this.#words.set(id, words)
    this.#wordCount += countOf(words)
  }

  #forgetWords(id: string): void {
    this.#wordCount -= countOf(this.#words.get(id))
    this.#words.delete(id)
  }
}

const countOf = (words: Words | undefined): number => words?.terms?.indices.length ?? 0

const idsOf = (rows: readonly Candidate[]): string[] => rows.map(({ id }) => id)

const best = (ranked: readonly Ranked[], count: number): Ranked[] =>
  ranked.toSorted(byScore).slice(0, count)

function scored(
  vectors: readonly { id: string; vector: Float32Array }[],
  query: Float32Array,
): Ranked[] {
  return vectors
    .map(({ id, vector }) => ({ id, score: cosine(vector, query) }))
    .filter(({ score }) => Number.isFinite(score))
}

/** Of a text's words those that are asked for; undefined where it has no words at all, which counts otherwise. */
function those(
  terms: SparseVector | undefined,
  asked: ReadonlySet<number>,
): SparseVector | undefined {
  if (terms === undefined) return undefined
  const { indices, values } = terms
  const at = [...indices.keys()].filter((i) => asked.has(indices[i] as number))
  return {
    indices: at.map((i) => indices[i] as number),
    values: at.map((i) => values[i] as number),
  }
}

function* pagesOf<T>(items: readonly T[], size: number): Generator<readonly T[]> {
  for (let at = 0; at < items.length; at += size) yield items.slice(at, at + size)
}
