import { cosine } from '../vector/cosine.ts'
import { setImmediate } from 'node:timers/promises'
import { preview } from '../../schema/errors.ts'
import type { Polarity } from '../../schema/tables/memory.ts'
import { decodeVector } from '../../schema/values/vector.ts'
import type { Connection } from '../sqlite/connection.ts'
import { called, failed } from './callbacks.ts'
import { mustBeKnown, numberOf, refuse } from './options.ts'
import type { MemoryItemText } from './types.ts'

/** How two items that look alike stand to each other. */
export type Relation = 'same' | 'contradicts' | 'different'

/** An item as `relate` gets it. */
export interface ComparedItem extends MemoryItemText {
  readonly id: string
  readonly polarity: Polarity
}

export interface ConsolidateOptions {
  /** Least cosine of two items' texts, -1 to 1. Default: 0.9. */
  readonly minCosine?: number | undefined
  /** Least share of words that they have in common, 0 to 1. Default: 0.6. */
  readonly minOverlap?: number | undefined
  /**
   * Asked about each pair that is as alike as that, usually a call of your model. Default: items of one polarity are the
   * same, a success and a failure contradict, others are different.
   */
  readonly relate?:
    | ((newer: ComparedItem, older: ComparedItem) => Relation | Promise<Relation>)
    | undefined
  /** Only says what would be done. Default: false. */
  readonly dryRun?: boolean | undefined
}

export interface Consolidated {
  /** What was merged: the older item stays. */
  readonly merged: readonly { readonly id: string; readonly into: string }[]
  /** What was linked as contradicting: the newer one names the older. */
  readonly linked: readonly { readonly id: string; readonly contradicts: string }[]
}

interface Item extends ComparedItem {
  readonly vector: Float32Array
  readonly words: ReadonlySet<string>
  readonly contradicts: readonly (string | null)[]
  readonly keptApart: readonly (string | null)[]
}

interface ItemRow extends ComparedItem {
  readonly text_vector: Uint8Array
  readonly contradicts: string
  readonly kept_apart: string
}

/** Oldest first. Age is fixed when an item is made: every agent orders a pair alike, so two can't merge it both ways. */
const liveItems = `SELECT id, polarity, title, description, content, text_vector, contradicts, kept_apart
  FROM memory_items WHERE model = ? AND text_vector IS NOT NULL AND superseded_by IS NULL
    AND (expires_at IS NULL OR expires_at > ?)
  ORDER BY dimension, created_at, id`

export async function consolidate(
  connection: Connection,
  model: string,
  now: string,
  options: ConsolidateOptions,
): Promise<Consolidated> {
  const limits = validated(options)
  const items = connection.all<ItemRow>(liveItems, model, now).map(itemOf)
  const plan = await planOf(items, limits)
  if (options.dryRun !== true) connection.transaction(() => write(connection, plan))
  return plan
}

interface Limits {
  readonly minCosine: number
  readonly minOverlap: number
  readonly relate: NonNullable<ConsolidateOptions['relate']>
}

function validated(options: ConsolidateOptions): Limits {
  const call = 'consolidate'
  mustBeKnown(call, options, ['minCosine', 'minOverlap', 'relate', 'dryRun'])
  const { relate = byPolarity } = options
  if (typeof relate !== 'function')
    refuse(call, `relate must be a function, got ${preview(relate)}`)
  return {
    minCosine: numberOf(call, 'minCosine', options.minCosine, { default: 0.9, min: -1, max: 1 }),
    minOverlap: numberOf(call, 'minOverlap', options.minOverlap, { default: 0.6, min: 0, max: 1 }),
    relate,
  }
}

function byPolarity(newer: ComparedItem, older: ComparedItem): Relation {
  if (newer.polarity === older.polarity) return 'same'
  return newer.polarity === 'contrast' || older.polarity === 'contrast'
    ? 'different'
    : 'contradicts'
}

/** Items between two turns of the event loop. */
const TURN = 100

/**
 * Each item is compared with the older ones that stay: what is merged is like the one that it is merged into, not only
 * like one in between, and a second run finds nothing more to merge.
 */
async function planOf(items: readonly Item[], limits: Limits): Promise<Consolidated> {
  const merged: { id: string; into: string }[] = []
  const linked: { id: string; contradicts: string }[] = []
  const staying = new Alike(items, limits)
  for (const [i, item] of items.entries()) {
    if (i % TURN === 0) await setImmediate()
    const links: string[] = []
    let into: string | undefined
    for (const older of staying.of(item)) {
      if (item.contradicts.includes(older.id)) continue
      const relation = checkedRelation(
        await called('consolidate.relate', () => limits.relate(compared(item), compared(older))),
      )
      if (relation === 'same') into = older.id
      if (relation === 'same') break
      if (relation === 'contradicts') links.push(older.id)
    }
    if (into !== undefined) {
      merged.push({ id: item.id, into })
      continue
    }
    linked.push(...links.map((contradicts) => ({ id: item.id, contradicts })))
    staying.add(item)
  }
  return { merged, linked }
}

const compared = ({ id, polarity, title, description, content }: Item): ComparedItem => ({
  id,
  polarity,
  title,
  description,
  content,
})

function checkedRelation(given: unknown): Relation {
  if (given === 'same' || given === 'contradicts' || given === 'different') return given
  throw failed(
    'consolidate.relate',
    `gave ${preview(given)}; there are same, contradicts, different`,
  )
}

/**
 * Finds items that have enough words in common, then looks at their vectors. Only words that few items have are looked
 * up: two sets of which a share `t` is common, with their words in one order, have a word in common among the first
 * `n - ceil(t n) + 1` of each (prefix filtering, Chaudhuri et al. 2006).
 */
class Alike {
  readonly #limits: Limits
  readonly #frequency = new Map<string, number>()
  readonly #having = new Map<string, Item[]>()
  readonly #all: Item[] = []

  constructor(items: readonly Item[], limits: Limits) {
    this.#limits = limits
    for (const { words } of items)
      for (const word of words) this.#frequency.set(word, (this.#frequency.get(word) ?? 0) + 1)
  }

  add(item: Item): void {
    this.#all.push(item)
    for (const word of this.#rarest(item)) {
      const having = this.#having.get(word)
      if (having === undefined) this.#having.set(word, [item])
      else having.push(item)
    }
  }

  /** Those added that are near in words and in meaning and that nobody has kept apart, nearest first. */
  of(item: Item): Item[] {
    const { minCosine, minOverlap } = this.#limits
    const candidates =
      minOverlap === 0
        ? this.#all
        : new Set(this.#rarest(item).flatMap((word) => this.#having.get(word) ?? []))
    const found: { item: Item; score: number }[] = []
    for (const older of candidates) {
      if (older.vector.length !== item.vector.length) continue
      if (item.keptApart.includes(older.id) || older.keptApart.includes(item.id)) continue
      if (overlap(item.words, older.words) < minOverlap) continue
      const score = cosine(item.vector, older.vector)
      if (score >= minCosine) found.push({ item: older, score })
    }
    return found
      .toSorted((a, b) => b.score - a.score || (a.item.id < b.item.id ? -1 : 1))
      .map((each) => each.item)
  }

  #rarest({ words }: Item): string[] {
    const count = words.size - Math.ceil(this.#limits.minOverlap * words.size) + 1
    const rank = (word: string): number => this.#frequency.get(word) ?? 0
    return [...words].toSorted((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1)).slice(0, count)
  }
}

/** Share of the words of both that both have (Jaccard). */
function overlap(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  let both = 0
  for (const word of a) if (b.has(word)) both += 1
  return both / (a.size + b.size - both)
}

/** What someone else merged, changed or deleted while `relate` was asked stays as it now is. */
function write(connection: Connection, { merged, linked }: Consolidated): void {
  const isLive = 'SELECT 1 FROM memory_items o WHERE o.id = ? AND o.superseded_by IS NULL'
  for (const { id, into } of merged) {
    connection.run(
      `UPDATE memory_items SET superseded_by = ? WHERE id = ? AND superseded_by IS NULL AND EXISTS (${isLive})`,
      into,
      id,
      into,
    )
  }
  for (const { id, contradicts } of linked) {
    connection.run(
      `UPDATE memory_items SET contradicts = json_insert(contradicts, '$[#]', ?) WHERE id = ?
        AND NOT EXISTS (SELECT 1 FROM json_each(contradicts) WHERE value = ?)`,
      contradicts,
      id,
      contradicts,
    )
  }
}

function itemOf(row: ItemRow): Item {
  const { id, polarity, title, description, content } = row
  return {
    id,
    polarity,
    title,
    description,
    content,
    vector: decodeVector(row.text_vector),
    words: wordsOf(`${title} ${description} ${content}`),
    contradicts: JSON.parse(row.contradicts) as (string | null)[],
    keptApart: JSON.parse(row.kept_apart) as (string | null)[],
  }
}

/** A text without words has one, which is empty: two of them are alike. */
const wordsOf = (text: string): ReadonlySet<string> =>
  new Set(
    text
      .normalize('NFKC')
      .toLowerCase()
      .match(/[\p{L}\p{N}_]+/gu) ?? [''],
  )
