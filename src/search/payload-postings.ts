import type { Collection } from '../../schema/tables/embeddings.ts'
import type { Connection } from '../sqlite/connection.ts'
import { IdPostings } from './id-postings.ts'
import { idSlices, type IdSlice } from './id-slices.ts'
import { Matching } from './matching.ts'
import type { PayloadFilter } from './payload-filter.ts'

/**
 * Which rows have which value in a payload field, for the fields that were filtered on: reading the JSON of every row
 * again for each query would cost far more than the query. Built by one pass over the collection on the first filter of
 * a field, then kept up with the changes.
 *
 *     language ─▶ "rust" ─▶ { id, id, ... }
 *                 "go"   ─▶ { id, ... }
 */
export class PayloadPostings {
  readonly #connection: Connection
  readonly #collection: Collection
  readonly #fields = new Map<string, Field>()
  readonly #entriesMax: () => number
  #entries = 0

  /** Beyond `entriesMax` entries, a row and a value each, the field that was asked longest ago goes. */
  constructor(connection: Connection, collection: Collection, entriesMax: () => number) {
    this.#entriesMax = entriesMax
    this.#connection = connection
    this.#collection = collection
  }

  /** Reads what is missing of the fields, in slices, so that others get their turn. */
  async load(filter: PayloadFilter): Promise<void> {
    for (const name of Object.keys(filter)) {
      const field = this.#fields.get(name) ?? this.#start(name)
      await field.loaded
    }
  }

  /** The rows that a filter leaves; undefined where that must be asked in SQL. */
  matching(filter: PayloadFilter): Matching | undefined {
    const wanted = Object.entries(filter)
    if (wanted.length === 0 || !wanted.every(([, value]) => isComparable(value))) return undefined
    const parts: ReadonlySet<string>[][] = []
    for (const [name, value] of wanted) {
      const field = this.#fields.get(name)
      if (field?.isComplete !== true) return undefined
      // The one used last stands last: the first is the first to go.
      this.#fields.delete(name)
      this.#fields.set(name, field)
      parts.push(listOf(value).map((one) => field.idsOf(keyOf(one))))
    }
    this.#makeRoom(new Set(wanted.map(([name]) => name)))
    return new Matching(parts)
  }

  /** A row has changed, moved or gone. */
  changed(id: string): void {
    for (const [name, field] of this.#fields) {
      this.#entries -= field.remove(id)
      for (const entry of this.#readRow(name, id)) this.#entries += field.add(id, entryKey(entry))
    }
  }

  #start(name: string): Field {
    const field = new Field()
    this.#fields.set(name, field)
    field.loaded = this.#fill(name, field).catch((error: unknown) => {
      this.#entries -= field.size
      this.#fields.delete(name)
      throw error
    })
    return field
  }

  /**
   * Slices are of different moments. That does no harm: a row that changes meanwhile is told of by {@link changed}, and
   * what is added twice counts once.
   */
  async #fill(name: string, field: Field): Promise<void> {
    for await (const slice of idSlices(this.#connection))
      for (const entry of this.#readSlice(name, slice))
        this.#entries += field.add(entry.id, entryKey(entry))
    field.isComplete = true
  }

  #makeRoom(inUse: ReadonlySet<string>): void {
    const entriesMax = this.#entriesMax()
    for (const [name, field] of this.#fields) {
      if (this.#entries <= entriesMax) return
      if (inUse.has(name) || !field.isComplete) continue
      this.#entries -= field.size
      this.#fields.delete(name)
    }
  }

  #readRow(name: string, id: string): Entry[] {
    return this.#read(name, 'e.id = ?', id)
  }

  #readSlice(name: string, slice: IdSlice): Entry[] {
    return this.#read(name, 'e.id > ? AND e.id <= ?', ...slice)
  }

  #read(name: string, rows: string, ...ids: string[]): Entry[] {
    const parameters = [name, this.#collection, ...ids]
    return this.#connection.all<Entry>(
      `SELECT e.id, p.type, p.atom FROM embeddings e, json_each(e.payload) p
        WHERE p.key = ? AND +e.collection = ? AND ${rows} AND p.type NOT IN ('array', 'object')
      UNION ALL
      SELECT e.id, f.type, f.atom FROM embeddings e, json_each(e.payload) p, json_each(p.value) f
        WHERE p.key = ? AND +e.collection = ? AND ${rows} AND p.type = 'array'
          AND f.type NOT IN ('array', 'object')`,
      ...parameters,
      ...parameters,
    )
  }
}

interface Entry {
  readonly id: string
  readonly type: string
  readonly atom: string | number | null
}

type Scalar = string | number | boolean | null

const listOf = (value: PayloadFilter[string]): readonly Scalar[] =>
  Array.isArray(value) ? (value as readonly Scalar[]) : [value as Scalar]

/** Whole numbers beyond a double's are told apart by SQLite only. */
const isComparable = (value: PayloadFilter[string]): boolean =>
  listOf(value).every(
    (one) => typeof one !== 'number' || !Number.isInteger(one) || Number.isSafeInteger(one),
  )

/** A value with its type: `1` and `"1"` are two. */
const keyOf = (value: Scalar): string =>
  typeof value === 'string' ? `"${value}` : String(value === 0 ? 0 : value)

const entryKey = ({ type, atom }: Entry): string => {
  if (type === 'text') return keyOf(String(atom))
  return type === 'integer' || type === 'real' ? keyOf(Number(atom)) : type
}

/** The rows of one field's values. */
class Field extends IdPostings {
  isComplete = false
  loaded: Promise<void> = Promise.resolve()
}
