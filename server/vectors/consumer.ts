import type { Database } from '../postgres/database.ts'
import type { QdrantEngine, QdrantFailure } from '../qdrant/engine.ts'
import { field, sameSpace, type VectorSpace } from '../qdrant/layout.ts'
import { advance, latestBatch, type Batch } from '../sync/positions.ts'
import { floorOf } from '../sync/retention.ts'
import { readChanges, type Change } from './changes.ts'
import { Collections } from './collections.ts'
import { compare } from './compare.ts'
import { Marks } from './marks.ts'
import { PointWriter } from './point-writer.ts'
import { idsIn, readInParts, type EmbeddingRow } from './rows.ts'
import type { VectorSettings } from './settings.ts'
import { epochOf, makeLive, readGenerations, readWatermark, versionOf } from './state.ts'
import type { Generation, Lease } from './state.ts'

export interface ConsumerParts {
  readonly database: Database
  readonly engine: QdrantEngine
  readonly settings: VectorSettings
  readonly lease: Lease
  /** Hears of each row once that Qdrant refuses, and that is left out. */
  readonly onDead: (failure: QdrantFailure) => void
}

const PURGE_EVERY_MS = 3_600_000
/** How often it is looked at what Qdrant has: where nobody writes, the log would never say that it is gone. */
const CHECK_EVERY_MS = 10_000

/**
 * Makes Qdrant equal to the rows of `embeddings`, and keeps it so. One pass:
 *
 *     lease ─▶ collections ─▶ new history or log gone? ─▶ compare all, both ways
 *                                   │ no
 *                                   ▼
 *                 fill what is asked for ─▶ what the log says since the watermark
 *
 * Rows are read as they are now, at or after the position that their points are labelled with; what changes later is in
 * the log after it. So every step may be repeated, and a writer that was thought dead changes nothing that was written
 * since: the version of what it still writes is not greater. What a comparison left as it was has no such fence.
 */
export class VectorConsumer {
  readonly #database: Database
  readonly #engine: QdrantEngine
  readonly #settings: VectorSettings
  readonly #lease: Lease
  readonly #writer: PointWriter
  readonly #marks: Marks
  readonly #collections: Collections
  #checkedAt = Number.NEGATIVE_INFINITY
  /** The epoch of a comparison or a fill that has not succeeded yet. */
  #unfinished: { readonly work: string; readonly epoch: number } | undefined
  #renewedAt = 0
  #purgedAt = 0

  constructor({ database, engine, settings, lease, onDead }: ConsumerParts) {
    this.#database = database
    this.#engine = engine
    this.#settings = settings
    this.#lease = lease
    this.#writer = new PointWriter(database, engine, onDead)
    this.#marks = new Marks(database, engine, settings.spread.shardNumber)
    this.#collections = new Collections(database, engine, settings)
  }

  /** False while another server holds the lease. Throws where Qdrant or the database fails: call it again later. */
  async pass(signal: AbortSignal): Promise<boolean> {
    if (!(await this.#lease.take())) {
      this.distrust()
      return false
    }
    this.#renewedAt = Date.now()
    try {
      await this.#lease.keepDuring(() => this.#work(signal))
      return true
    } catch (error) {
      // Whatever failed may have come back with an older disk.
      this.distrust()
      throw error
    }
  }

  /** Whoever asked Qdrant was failed by it: the next pass looks at what it has. */
  distrust(): void {
    this.#checkedAt = Number.NEGATIVE_INFINITY
  }

  async #work(signal: AbortSignal): Promise<void> {
    if (performance.now() - this.#checkedAt >= CHECK_EVERY_MS) await this.#prepare()
    await this.#follow(signal)
    await this.#fillWanted(signal)
    await this.#tidy()
  }

  async #prepare(): Promise<void> {
    await this.#engine.mustBeRecent()
    await this.#collections.requestConfigured()
    await this.#collections.checkLive()
    await this.#collections.pointAliases()
    this.#checkedAt = performance.now()
  }

  /** Brings what exists up to the newest batch; true where that took a comparison, of which `filling` was no part. */
  async #follow(signal: AbortSignal, filling?: Generation): Promise<boolean> {
    await advance(this.#database, false)
    const head = await latestBatch(this.#database)
    if (head === undefined) return false
    const watermark = await readWatermark(this.#database)
    if (watermark.nonce !== head.nonce || watermark.snapshot === null)
      return await this.#compareAll(head, signal)
    if (head.position === watermark.position) return false
    const span = { from: watermark.snapshot, to: head.snapshot }
    const changes = await readChanges(this.#database, span)
    // The floor is looked at after reading: the log may have been cut in between.
    const isGone = (await floorOf(this.#database)) > watermark.position
    if (changes === undefined || isGone) return await this.#compareAll(head, signal)
    await this.#apply(changes, versionOf(watermark.epoch, head.position), signal, filling)
    await this.#lease.advance(head)
    return false
  }

  async #apply(
    changes: readonly Change[],
    version: number,
    signal: AbortSignal,
    filling: Generation | undefined,
  ): Promise<void> {
    const touched = new Set<string>()
    const changed = changes.map(({ id }) => id)
    let done = 0
    for await (const { ids, rows } of readInParts(this.#database, changed)) {
      await this.#goOn(signal)
      const some = changes.slice(done, (done += ids.length))
      await this.#requestNew(rows)
      for (const generation of await this.#targets(filling))
        if (await this.#applyTo(generation, some, rows, version)) touched.add(generation.name)
    }
    for (const name of touched) await this.#marks.set(name, version)
  }

  /** True where something was written. */
  async #applyTo(
    generation: Generation,
    changes: readonly Change[],
    rows: readonly EmbeddingRow[],
    version: number,
  ): Promise<boolean> {
    const { name } = generation
    const mine = rows.filter((row) => sameSpace(row, generation))
    await this.#writer.put(name, mine, version)
    const ids = new Set(mine.map(({ id }) => id))
    const elsewhere = changes.filter(({ id }) => !ids.has(id))
    await this.#writer.forgetDead(
      name,
      elsewhere.map(({ id }) => id),
    )
    // A writer that was thought dead may still bring what the log had in between; the tombstone refuses it.
    const gone = elsewhere.filter(({ spaces }) => spaces.some((one) => sameSpace(one, generation)))
    const maybe = elsewhere.filter((change) => !change.isNew && !gone.includes(change))
    const found =
      maybe.length === 0
        ? []
        : await this.#engine.retrieve(
            name,
            maybe.map(({ id }) => id),
            [field.kind],
          )
    const removed = [
      ...gone.map(({ id }) => id),
      ...found.filter(({ payload }) => payload[field.kind] === 'row').map(({ id }) => String(id)),
    ]
    await this.#writer.remove(name, removed, version)
    return mine.length + removed.length > 0
  }

  /** A model that nobody configured gets collections when its first row comes, as far as there is room. */
  async #requestNew(rows: readonly EmbeddingRow[]): Promise<void> {
    const known = await readGenerations(this.#database)
    const seen: VectorSpace[] = []
    for (const row of rows) {
      if (seen.some((space) => sameSpace(space, row))) continue
      seen.push(row)
      if (!this.#collections.mayAdd(row, known)) continue
      await this.#collections.request(row, 1)
      known.push(...(await readGenerations(this.#database)).filter((one) => sameSpace(one, row)))
    }
  }

  async #targets(filling: Generation | undefined): Promise<Generation[]> {
    const generations = await readGenerations(this.#database)
    return generations.filter(({ name, state }) => state === 'live' || name === filling?.name)
  }

  /**
   * The centre went back, the log does not reach back so far, or too much has changed: rows and points are compared
   * whole. Their new epoch beats whatever another history wrote.
   */
  async #compareAll(head: Batch, signal: AbortSignal): Promise<true> {
    const targets = await this.#targets(undefined)
    const epoch = await this.#newEpoch(targets, head.nonce)
    const version = versionOf(epoch, head.position)
    for (const generation of targets) {
      await this.#repair(generation, signal, async () => version)
      await this.#marks.set(generation.name, version)
    }
    await this.#lease.advance(head)
    this.#unfinished = undefined
    await this.#requestMissing()
    return true
  }

  /** Spaces whose rows came while nobody looked. */
  async #requestMissing(): Promise<void> {
    const { rows } = await this.#database.query<VectorSpace>(
      'SELECT DISTINCT e.collection, e.model, e.dimension FROM embeddings e ORDER BY 1, 2, 3',
    )
    for (const space of rows)
      if (this.#collections.mayAdd(space, await readGenerations(this.#database)))
        await this.#collections.request(space, 1)
  }

  /**
   * Of what is tried again in the same history, where nobody has begun another meanwhile, still the same one: it beats
   * what was there before, and among its own points the later position does. Epochs end some day; failures need not.
   */
  async #newEpoch(generations: readonly Generation[], nonce: string | null): Promise<number> {
    const work = [nonce, ...generations.map(({ name }) => name)].join(' ')
    const { epoch } = await readWatermark(this.#database)
    if (this.#unfinished?.work === work && this.#unfinished.epoch === epoch) return epoch
    let known = 0
    for (const { name } of generations)
      known = Math.max(known, epochOf((await this.#marks.read(name)).greatest))
    const begun = await this.#lease.beginEpoch(known)
    this.#unfinished = { work, epoch: begun }
    return begun
  }

  /** Fills what is asked for, and lets it take the place of the generation before. */
  async #fillWanted(signal: AbortSignal): Promise<void> {
    for (const generation of await readGenerations(this.#database)) {
      if (generation.state !== 'filling') continue
      await this.#collections.make(generation)
      await this.#fill(generation, signal)
      // Whoever reads that it is live finds it under its alias.
      await this.#collections.pointAliases(generation)
      await makeLive(this.#database, generation)
      this.#unfinished = undefined
      await this.#collections.dropRetired()
    }
  }

  async #fill(generation: Generation, signal: AbortSignal): Promise<void> {
    const { collection, model, dimension, name } = generation
    await this.#database.query(
      `UPDATE sync.vector_collection SET rows_done = 0, rows_total =
        (SELECT count(*) FROM embeddings WHERE collection = $2 AND model = $3 AND dimension = $4) WHERE name = $1`,
      [name, collection, model, dimension],
    )
    const { nonce } = await readWatermark(this.#database)
    await this.#newEpoch([generation], nonce)
    for (let isWhole = false; !isWhole;) {
      isWhole = true
      // What is live goes on following the log meanwhile, and so does what is being filled.
      await this.#repair(generation, signal, async () => {
        if (await this.#follow(signal, generation)) isWhole = false
        const { epoch, position } = await readWatermark(this.#database)
        return versionOf(epoch, position)
      })
    }
    const { epoch, position } = await readWatermark(this.#database)
    await this.#marks.set(name, versionOf(epoch, position))
  }

  async #repair(
    generation: Generation,
    signal: AbortSignal,
    versionNow: () => Promise<number>,
  ): Promise<void> {
    const { name } = generation
    // Before anything is read: what is read then is as new as its label, or newer.
    let version = await versionNow()
    for await (const page of compare(this.#database, this.#engine, generation, name)) {
      await this.#goOn(signal)
      const wanting = [...page.missing, ...page.different]
      for await (const { rows } of readInParts(this.#database, wanting)) {
        const mine = rows.filter((row) => sameSpace(row, generation))
        await this.#writer.put(name, mine, version)
      }
      // A row may have come since the page was read, and its point with it.
      const kept = await idsIn(this.#database, generation, page.extra)
      await this.#writer.remove(
        name,
        page.extra.filter((id) => !kept.has(id)),
        version,
      )
      await this.#database.query(
        'UPDATE sync.vector_collection SET rows_done = $2 WHERE name = $1',
        [name, page.rows],
      )
      version = await versionNow()
    }
  }

  async #goOn(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (Date.now() - this.#renewedAt < this.#settings.leaseMs / 3) return
    await this.#lease.renew()
    this.#renewedAt = Date.now()
  }

  async #tidy(): Promise<void> {
    if (Date.now() - this.#purgedAt < PURGE_EVERY_MS) return
    const before = Date.now() - this.#settings.tombstoneMs
    for (const { name, state } of await readGenerations(this.#database)) {
      if (state !== 'live') continue
      const must = [
        { key: field.kind, match: { value: 'tombstone' } },
        { key: field.at, range: { lt: before } },
      ]
      await this.#engine.remove(name, { must })
    }
    await this.#collections.dropRetired()
    this.#purgedAt = Date.now()
  }
}
