import type { Session } from '../postgres/database.ts'
import type { QdrantEngine } from '../qdrant/engine.ts'
import { field, type VectorSpace } from '../qdrant/layout.ts'
import { digestOf } from './rows.ts'

/** What one page of a collection and its rows came to. */
export interface Difference {
  /** Rows without a point. */
  readonly missing: readonly string[]
  /** Rows whose point was made of something else. */
  readonly different: readonly string[]
  /** Points without a row. */
  readonly extra: readonly string[]
  /** Rows looked at so far. */
  readonly rows: number
}

const PAGE = 1000

interface RowDigest {
  readonly id: string
  readonly digest: string
}

interface PointDigest extends RowDigest {
  readonly isTombstone: boolean
}

/**
 * Compares a collection with its rows, in both directions, page by page in order of id. Neither side is held in memory,
 * and no vector is moved: rows and points are compared by digest.
 */
export async function* compare(
  session: Session,
  engine: QdrantEngine,
  space: VectorSpace,
  name: string,
): AsyncGenerator<Difference> {
  const rows = new Pages(rowPages(session, space))
  const points = new Pages(pointPages(engine, name))
  let page = { missing: [] as string[], different: [] as string[], extra: [] as string[] }
  let seen = 0
  let steps = 0
  for (;;) {
    const row = await rows.peek()
    const point = await points.peek()
    if (row === undefined && point === undefined) break
    if (point === undefined || (row !== undefined && row.id < point.id)) {
      page.missing.push((row as RowDigest).id)
      rows.take()
      seen += 1
    } else if (row === undefined || point.id < row.id) {
      if (!point.isTombstone) page.extra.push(point.id)
      points.take()
    } else {
      if (point.isTombstone) page.missing.push(row.id)
      else if (point.digest !== row.digest) page.different.push(row.id)
      rows.take()
      points.take()
      seen += 1
    }
    steps += 1
    if (steps % PAGE !== 0) continue
    yield { ...page, rows: seen }
    page = { missing: [], different: [], extra: [] }
  }
  yield { ...page, rows: seen }
}

async function* rowPages(
  session: Session,
  { collection, model, dimension }: VectorSpace,
): AsyncGenerator<readonly RowDigest[]> {
  let after = '00000000-0000-0000-0000-000000000000'
  let isFirst = true
  for (;;) {
    const { rows } = await session.query<RowDigest>(
      `SELECT e.id, ${digestOf('e')} AS digest FROM embeddings e
      WHERE e.collection = $1 AND e.model = $2 AND e.dimension = $3 AND e.id ${isFirst ? '>=' : '>'} $4
      ORDER BY e.id LIMIT ${PAGE}`,
      [collection, model, dimension, after],
    )
    if (rows.length > 0) yield rows
    if (rows.length < PAGE) return
    after = rows.at(-1)?.id ?? after
    isFirst = false
  }
}

async function* pointPages(
  engine: QdrantEngine,
  name: string,
): AsyncGenerator<readonly PointDigest[]> {
  let from: string | number | null = null
  do {
    const { points, next } = await engine.scroll(name, { from, limit: PAGE }, [
      field.kind,
      field.digest,
    ])
    yield points.flatMap(({ id, payload }) => {
      // Numbers are our own marks.
      if (typeof id !== 'string') return []
      const isTombstone = payload[field.kind] === 'tombstone'
      return [{ id, isTombstone, digest: String(payload[field.digest]) }]
    })
    from = next
  } while (from !== null)
}

/** Items of pages, one at a time. */
class Pages<T> {
  readonly #pages: AsyncGenerator<readonly T[]>
  #page: readonly T[] = []
  #at = 0

  constructor(pages: AsyncGenerator<readonly T[]>) {
    this.#pages = pages
  }

  async peek(): Promise<T | undefined> {
    while (this.#at >= this.#page.length) {
      const next = await this.#pages.next()
      if (next.done === true) return undefined
      this.#page = next.value
      this.#at = 0
    }
    return this.#page[this.#at]
  }

  take(): void {
    this.#at += 1
  }
}
