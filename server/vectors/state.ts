import type { Collection } from '../../schema/tables/embeddings.ts'
import type { Database, Session } from '../postgres/database.ts'
import type { VectorSpace } from '../qdrant/layout.ts'

/** Up to where Qdrant follows the log: `sync.vector_state`. */
export interface Watermark {
  /** Null before the first time. */
  readonly nonce: string | null
  readonly position: number
  /** What was visible at the position; null before the first time. */
  readonly snapshot: string | null
  /** Counts how often all was compared anew; later epochs beat earlier ones whatever their positions. */
  readonly epoch: number
}

const POSITION_MAX = 2 ** 36
const EPOCH_MAX = 2 ** 17

/** Version of a point, below 2^53: of two the later one is the greater, also across a centre that went back. */
export function versionOf(epoch: number, position: number): number {
  if (position >= POSITION_MAX || epoch >= EPOCH_MAX)
    throw new Error(`bug in AgentDB: no version for epoch ${epoch}, position ${position}`)
  return epoch * POSITION_MAX + position
}

export const epochOf = (version: number): number => Math.floor(version / POSITION_MAX)

const watermarkColumns = 'nonce, position, snapshot::text AS snapshot, epoch'

export async function readWatermark(session: Session): Promise<Watermark> {
  const { rows } = await session.query<Watermark>(
    `SELECT ${watermarkColumns} FROM sync.vector_state`,
  )
  const [state] = rows
  if (state === undefined) throw new Error('bug in AgentDB: sync.vector_state is empty')
  return state
}

/** Someone else writes to Qdrant now; whatever this server still had to say there is old. */
export class LeaseLost extends Error {}

/**
 * The right to write to Qdrant: one server at a time, for as long as it renews. A server that stalled finds out when it
 * next tells its position; what it wrote meanwhile is older than what the other one writes, and is refused.
 */
export class Lease {
  readonly #database: Database
  readonly #holder: string
  readonly #ms: number

  constructor(database: Database, holder: string, ms: number) {
    this.#database = database
    this.#holder = holder
    this.#ms = ms
  }

  /** Takes or renews it; false while another holds it. */
  async take(): Promise<boolean> {
    const { rowCount } = await this.#database.query(
      `UPDATE sync.vector_state SET holder = $1, held_until = clock_timestamp() + $2 * interval '1 millisecond'
      WHERE holder IS NULL OR holder = $1 OR held_until < clock_timestamp()`,
      [this.#holder, this.#ms],
    )
    return rowCount === 1
  }

  async release(): Promise<void> {
    await this.#database.query(
      'UPDATE sync.vector_state SET holder = NULL, held_until = NULL WHERE holder = $1',
      [this.#holder],
    )
  }

  /** @throws LeaseLost */
  async renew(): Promise<void> {
    if (!(await this.take())) throw new LeaseLost('another server follows the log for Qdrant')
  }

  /** Renews it by itself while `work` runs: one call of Qdrant may take longer than the lease. */
  async keepDuring<T>(work: () => Promise<T>): Promise<T> {
    let prolonging: Promise<void> | undefined
    const timer = setInterval(() => {
      prolonging ??= this.#prolong().finally(() => (prolonging = undefined))
    }, this.#ms / 3)
    timer.unref()
    try {
      return await work()
    } finally {
      clearInterval(timer)
      await prolonging
    }
  }

  /** As long as it is ours. Where the database fails, the work finds out by itself. */
  async #prolong(): Promise<void> {
    const more = `UPDATE sync.vector_state SET held_until = clock_timestamp() + $2 * interval '1 millisecond' WHERE holder = $1`
    await this.#database.query(more, [this.#holder, this.#ms]).catch(() => undefined)
  }

  /** A new epoch, for points that must beat all that were written before. It is committed before it is used. */
  async beginEpoch(atLeast: number): Promise<number> {
    const { rows } = await this.#database.query<{ epoch: number }>(
      'UPDATE sync.vector_state SET epoch = greatest(epoch, $2) + 1 WHERE holder = $1 RETURNING epoch',
      [this.#holder, atLeast],
    )
    if (rows[0] === undefined) throw new LeaseLost('another server follows the log for Qdrant')
    return rows[0].epoch
  }

  async advance(to: { nonce: string; position: number; snapshot: string }): Promise<void> {
    const { rowCount } = await this.#database.query(
      `UPDATE sync.vector_state SET nonce = $2, position = $3, snapshot = $4::pg_snapshot, applied_at = clock_timestamp(),
        failures = 0, error = NULL, error_at = NULL,
        held_until = clock_timestamp() + $5 * interval '1 millisecond'
      WHERE holder = $1`,
      [this.#holder, to.nonce, to.position, to.snapshot, this.#ms],
    )
    if (rowCount !== 1) throw new LeaseLost('another server follows the log for Qdrant')
  }

  /** Leaves a note for `agentdb vectors status`. */
  async note(failures: number, error: string): Promise<void> {
    await this.#database.query(
      'UPDATE sync.vector_state SET failures = $2, error = $3, error_at = clock_timestamp() WHERE holder = $1',
      [this.#holder, failures, error],
    )
  }

  /** What it says is over, whoever left it. */
  async forgetNote(): Promise<void> {
    await this.#database.query(
      'UPDATE sync.vector_state SET failures = 0, error = NULL, error_at = NULL WHERE holder = $1',
      [this.#holder],
    )
  }
}

/**
 * - `filling`: wanted, and not yet equal to its rows
 * - `live`: searched
 * - `retired`: another generation has taken its place; it goes when that is certain
 * - `off`: dropped by an operator; its rows are searched exactly
 */
export type CollectionState = 'filling' | 'live' | 'retired' | 'off'

/** One generation of a vector space in Qdrant: a row of `sync.vector_collection`. */
export interface Generation extends VectorSpace {
  readonly name: string
  readonly generation: number
  readonly state: CollectionState
  readonly isDefault: boolean
  readonly rowsDone: number
  readonly rowsTotal: number
  /** Version of the last mark that Qdrant took: one that has less went back. */
  readonly marked: number
}

const generationColumns = `name, collection, model, dimension, generation, state, is_default AS "isDefault",
  rows_done AS "rowsDone", rows_total AS "rowsTotal", marked`

/** All generations, oldest first. */
export async function readGenerations(session: Session): Promise<Generation[]> {
  const { rows } = await session.query<Generation>(
    `SELECT ${generationColumns} FROM sync.vector_collection ORDER BY collection, model, dimension, generation`,
  )
  return rows
}

/** Asks for a generation; whoever holds the lease makes it. Nothing happens where its name is known. */
export async function requestGeneration(
  session: Session,
  { collection, model, dimension }: VectorSpace,
  { name, generation }: { name: string; generation: number },
): Promise<void> {
  await session.query(
    `INSERT INTO sync.vector_collection (name, collection, model, dimension, generation, state)
    VALUES ($1, $2, $3, $4, $5, 'filling') ON CONFLICT (name) DO NOTHING`,
    [name, collection, model, dimension, generation],
  )
}

/** This generation is live from now on, and older ones of its space are retired; it takes over their being the default. */
export async function makeLive(database: Database, generation: Generation): Promise<void> {
  await database.transaction(async (session) => {
    const { name, collection, model, dimension } = generation
    const { rows } = await session.query<{ was: boolean }>(
      `WITH before AS (SELECT name, is_default FROM sync.vector_collection
        WHERE collection = $1 AND model = $2 AND dimension = $3 AND name <> $4 FOR UPDATE)
      UPDATE sync.vector_collection v SET is_default = false,
        state = CASE WHEN v.state = 'filling' THEN v.state ELSE 'retired' END
      FROM before WHERE v.name = before.name RETURNING before.is_default AS was`,
      [collection, model, dimension, name],
    )
    await session.query(
      `UPDATE sync.vector_collection SET state = 'live', live_at = clock_timestamp(), rows_done = rows_total,
        is_default = is_default OR $2 WHERE name = $1`,
      [name, rows.some(({ was }) => was)],
    )
  })
}

/** The space that a search means that names no model; searches of others name theirs. */
export async function makeDefault(database: Database, space: VectorSpace): Promise<void> {
  const { collection, model, dimension } = space
  await database.transaction(async (session) => {
    await session.query(
      'UPDATE sync.vector_collection SET is_default = false WHERE collection = $1 AND is_default',
      [collection],
    )
    await session.query(
      `UPDATE sync.vector_collection SET is_default = true
      WHERE name = (SELECT name FROM sync.vector_collection WHERE collection = $1 AND model = $2 AND dimension = $3
        ORDER BY state = 'live' DESC, generation DESC LIMIT 1)`,
      [collection, model, dimension],
    )
  })
}

export const defaultOf = (
  generations: readonly Generation[],
  collection: Collection,
): Generation | undefined =>
  generations.find((known) => known.collection === collection && known.isDefault)
